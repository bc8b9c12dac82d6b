//! The races of those who come back: against who publishes, against the sweep that forgets, and against who needs their room's place.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release -p fanfare-registry loom_`

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::{Intake, IntakeLimits};
use fanfare_protocol::{Payload, Position, RoomEvent, RoomName};
use loom::thread;

use crate::{Draft, HistoryLimits, Item, Joined, Registry, RegistryLimits, RoomOptions};

type TestRegistry = Registry<()>;

const EARLY: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(100);

fn registry(limits: RegistryLimits) -> Arc<TestRegistry> {
    let intake = Arc::new(Intake::new(IntakeLimits::default(), || {}));
    Arc::new(Registry::new(vec![intake], limits, 1))
}

fn options() -> RoomOptions {
    let history =
        HistoryLimits { messages_max: 10, bytes_max: 10_000, age_max: Duration::from_secs(10), cached_ms_max: 0 };
    RoomOptions { offsets: true, history, ..RoomOptions::default() }
}

fn name(name: &str) -> RoomName {
    RoomName::parse(name).expect("a valid name")
}

fn publish(registry: &TestRegistry, room: &str, now: Duration) -> Position {
    let payload = Payload::Text(Bytes::from_static(b"said"));
    let draft = Draft { user: None, payload, except: None, receipt: None };
    registry.publish(&name(room), options(), draft, now).expect("nothing is over its bound").position
}

fn rejoin(registry: &TestRegistry, since: Position, now: Duration) -> Joined {
    registry.rejoin(&name("lobby"), options(), 0, None, Some(since), now).expect("there is room for a room")
}

/// Numbers that a member gets: first what it missed, then what its shard is given with a number of events after its own.
fn heard(registry: &TestRegistry, joined: &Joined) -> Vec<u64> {
    assert_eq!(joined.missed.seq, Some(joined.seq), "a short history comes whole");
    let mut heard: Vec<_> = joined.missed.messages.iter().filter_map(|kept| kept.published.offset).collect();
    while let Some(item) = registry.shards()[0].pop() {
        if let Item::Event { room, seq, event, .. } = item
            && let RoomEvent::Message(_, published) = &event.event
            && room == joined.room.id()
            && seq > joined.seq
        {
            heard.extend(published.offset);
        }
    }
    heard
}

#[test]
fn loom_what_was_missed_ends_where_what_follows_begins() {
    loom::model(|| {
        let registry = registry(RegistryLimits::default());
        let first = publish(&registry, "lobby", EARLY);
        let publishers = [(); 2].map(|()| {
            let other = registry.clone();
            thread::spawn(move || publish(&other, "lobby", EARLY))
        });
        let joined = rejoin(&registry, first, EARLY);
        for publisher in publishers {
            publisher.join().expect("a publisher");
        }
        assert!(joined.recovered);
        assert_eq!(heard(&registry, &joined), [2, 3], "each once, in order, whenever the place was taken");
    });
}

#[test]
fn loom_who_comes_back_while_the_room_forgets_is_told_the_truth() {
    loom::model(|| {
        let registry = registry(RegistryLimits::default());
        let first = publish(&registry, "lobby", EARLY);
        publish(&registry, "lobby", EARLY);
        let other = registry.clone();
        let sweep = thread::spawn(move || other.expire(LATE));
        // This shard's clock is behind the sweep's.
        let joined = rejoin(&registry, first, EARLY);
        let reaped = sweep.join().expect("the sweep");
        let after = publish(&registry, "lobby", LATE);
        assert_eq!(after.epoch, joined.position.epoch, "a member was lost");
        let is_same_life = joined.position.epoch == first.epoch;
        assert_eq!(is_same_life, reaped == 0);
        let expected: &[u64] = match (is_same_life, joined.recovered) {
            (true, true) => &[2, 3],
            (true, false) => &[3],
            (false, recovered) => {
                assert!(!recovered, "another life cannot know");
                &[1]
            }
        };
        assert_eq!(heard(&registry, &joined), expected);
        registry.leave(&joined.room, 0, None, false);
        registry.expire(2 * LATE);
        assert_eq!((registry.stats().rooms.load(Ordering::Relaxed), registry.history_bytes().0), (0, 0));
    });
}

#[test]
fn loom_who_comes_back_keeps_its_place_or_gives_it_up_as_a_whole() {
    loom::model(|| {
        let registry = registry(RegistryLimits { rooms_max: 1, ..RegistryLimits::default() });
        let first = publish(&registry, "lobby", EARLY);
        let other = registry.clone();
        let needs_place = thread::spawn(move || {
            let payload = Payload::Text(Bytes::from_static(b"said"));
            let draft = Draft { user: None, payload, except: None, receipt: None };
            other.publish(&name("other"), options(), draft, EARLY).is_ok()
        });
        let joined = registry.rejoin(&name("lobby"), options(), 0, None, Some(first), EARLY);
        let has_other = needs_place.join().expect("who needs a place");
        let rooms = registry.list("", "", 10);
        assert_eq!((rooms.len(), registry.stats().rooms.load(Ordering::Relaxed)), (1, 1));
        // Whoever is in a room is never put out of it; who lost the race takes the other's place in turn, or is refused.
        if let Ok(joined) = joined {
            assert_eq!(rooms[0].name.as_str(), "lobby", "a member was lost");
            assert_eq!(joined.recovered, joined.position.epoch == first.epoch);
            // It may also come to nothing for both: who needs the place puts the room out, and finds it taken by its next life.
            assert!(!(joined.recovered && has_other), "there is one place");
            registry.leave(&joined.room, 0, None, false);
        } else {
            assert!(has_other && rooms[0].name.as_str() == "other", "refused by a room that was being made");
        }
        registry.reap();
        registry.expire(LATE);
        assert_eq!((registry.stats().rooms.load(Ordering::Relaxed), registry.history_bytes().0), (0, 0));
    });
}
