//! The races between those who join, leave, publish, close and reap, tried in every order that loom finds.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release -p fanfare-registry loom_`

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::{Intake, IntakeLimits, RoomId};
use fanfare_protocol::{Payload, RoomEvent, RoomName};
use loom::thread;

use crate::{Draft, Item, Joined, Receipted, Registry, RegistryLimits, Room, RoomOptions};

type TestRegistry = Registry<()>;

fn registry(shards: usize) -> Arc<TestRegistry> {
    let intakes = (0..shards).map(|_| Arc::new(Intake::new(IntakeLimits::default(), || {}))).collect();
    Arc::new(Registry::new(intakes, RegistryLimits { rooms_max: 3 }, 1))
}

fn name() -> RoomName {
    RoomName::parse("lobby").expect("a valid name")
}

fn join(registry: &TestRegistry, shard: usize) -> Joined {
    registry.join(&name(), RoomOptions::default(), shard, None, Duration::ZERO).expect("there is room for a room")
}

fn leave(registry: &TestRegistry, room: &Arc<Room>, shard: usize) {
    registry.leave(room, shard, None, false);
}

fn publish(registry: &TestRegistry, text: &'static str) -> Receipted {
    let payload = Payload::Text(Bytes::from_static(text.as_bytes()));
    let draft = Draft { user: None, payload, except: None, receipt: None };
    registry.publish(&name(), RoomOptions::default(), draft, Duration::ZERO).expect("nothing is over its bound")
}

/// A registry whose room is there, vacant, and next in the reaper's list.
fn with_vacant_room(shards: usize) -> Arc<TestRegistry> {
    let registry = registry(shards);
    let joined = join(&registry, 0);
    leave(&registry, &joined.room, 0);
    registry
}

/// Publications at a shard's intake: room, number, text.
fn publications(registry: &TestRegistry, shard: usize) -> Vec<(RoomId, u64, Bytes)> {
    let items = std::iter::from_fn(|| registry.shards()[shard].pop());
    items
        .filter_map(|item| match item {
            Item::Event { room, seq, event, .. } => match &event.event {
                RoomEvent::Message(_, published) => match &published.payload {
                    Payload::Json(text) | Payload::Text(text) | Payload::Binary(text) => {
                        Some((room, seq, text.clone()))
                    }
                },
                RoomEvent::Joined(..) | RoomEvent::Left(..) | RoomEvent::RoomClosed(_) => None,
            },
            Item::CloseRoom(_) | Item::Order(()) => None,
        })
        .collect()
}

/// Who has joined is in the room of that name, and a publication by name arrives.
fn check_member(registry: &TestRegistry, joined: &Joined, shard: usize) {
    let found = registry.get(&name());
    assert!(found.is_some_and(|room| Arc::ptr_eq(&room, &joined.room)), "a member was lost");
    let said = publish(registry, "to the member");
    assert_eq!(said.position.epoch, joined.position.epoch);
    let arrived = publications(registry, shard);
    let last = arrived.last().expect("a publication by name arrives");
    assert!(last.0 == joined.room.id() && last.1 > joined.seq && last.2 == "to the member");
    check_totals(registry, 1);
}

fn check_totals(registry: &TestRegistry, rooms: usize) {
    assert_eq!(registry.stats().rooms.load(Ordering::Relaxed), rooms);
    assert_eq!(registry.list("", "", 10).len(), rooms);
}

/// When everybody has left, the sweeps leave nothing behind.
fn check_nothing_stays(registry: &TestRegistry) {
    registry.reap();
    check_totals(registry, 0);
    assert_eq!(registry.stats().subscriptions.load(Ordering::Relaxed), 0);
}

#[test]
fn loom_a_join_is_not_lost_to_the_reaper() {
    loom::model(|| {
        let registry = with_vacant_room(1);
        let other = registry.clone();
        let reaper = thread::spawn(move || other.reap());
        let joined = join(&registry, 0);
        let reaped = reaper.join().expect("the reaper");
        check_member(&registry, &joined, 0);
        assert_eq!(joined.room.id(), RoomId(1 + reaped as u64), "a life of its own where the old one was reaped");
        leave(&registry, &joined.room, 0);
        check_nothing_stays(&registry);
    });
}

#[test]
fn loom_two_joins_and_the_reaper_meet_in_one_room() {
    loom::model(|| {
        let registry = with_vacant_room(2);
        let (other, third) = (registry.clone(), registry.clone());
        let reaper = thread::spawn(move || other.reap());
        let second = thread::spawn(move || join(&third, 1));
        let first = join(&registry, 0);
        reaper.join().expect("the reaper");
        let second = second.join().expect("the second member");
        assert!(Arc::ptr_eq(&first.room, &second.room), "one name, one room");
        check_member(&registry, &first, 0);
        assert_eq!(publications(&registry, 1).len(), 1);
    });
}

#[test]
fn loom_a_publication_and_the_reaper() {
    loom::model(|| {
        let registry = registry(1);
        let first = publish(&registry, "makes the room");
        let old = registry.get(&name()).expect("publishing made it");
        let (other, room) = (registry.clone(), old.clone());
        let reaper = thread::spawn(move || (other.reap(), room.info().position.offset));
        let second = publish(&registry, "meets the reaper");
        let (reaped, offset_after) = reaper.join().expect("the reaper");
        let is_same_life = first.position.epoch == second.position.epoch;
        assert_eq!(second.position.offset, if is_same_life { 2 } else { 1 }, "dense from 1 in each life");
        assert!(is_same_life || reaped == 1);
        assert!(reaped == 0 || old.info().position.offset == offset_after, "a reaped room accepted something");
        check_nothing_stays(&registry);
    });
}

#[test]
fn loom_a_publication_reaches_exactly_who_joined_before_it() {
    loom::model(|| {
        let registry = with_vacant_room(1);
        let (other, third) = (registry.clone(), registry.clone());
        let reaper = thread::spawn(move || other.reap());
        let publisher = thread::spawn(move || publish(&third, "races"));
        let joined = join(&registry, 0);
        reaper.join().expect("the reaper");
        let said = publisher.join().expect("the publisher").position;
        let is_after = said.epoch == joined.position.epoch && said.offset > joined.position.offset;
        let arrived = publications(&registry, 0);
        assert_eq!(arrived.len(), usize::from(is_after), "it arrives if its position is after the join's");
        assert!(arrived.iter().all(|(room, seq, _)| *room == joined.room.id() && *seq > joined.seq));
        check_member(&registry, &joined, 0);
    });
}

#[test]
fn loom_who_leaves_and_the_reaper_do_not_take_the_room_from_who_joins() {
    loom::model(|| {
        let registry = registry(2);
        let leaver = join(&registry, 1);
        let other = registry.clone();
        let thread = thread::spawn(move || {
            leave(&other, &leaver.room, 1);
            other.reap();
        });
        let joined = join(&registry, 0);
        thread.join().expect("the leaver");
        check_member(&registry, &joined, 0);
        assert!(publications(&registry, 1).is_empty(), "nothing is for who has left");
        assert_eq!(registry.stats().subscriptions.load(Ordering::Relaxed), 1);
        leave(&registry, &joined.room, 0);
        check_nothing_stays(&registry);
    });
}

#[test]
fn loom_a_room_vacated_during_a_sweep_is_found_by_the_next() {
    loom::model(|| {
        let registry = registry(1);
        let first = join(&registry, 0);
        leave(&registry, &first.room, 0);
        let again = join(&registry, 0);
        let other = registry.clone();
        let reaper = thread::spawn(move || other.reap());
        leave(&registry, &again.room, 0);
        reaper.join().expect("the reaper");
        check_nothing_stays(&registry);
    });
}

#[test]
fn loom_a_join_meets_a_closing_room_or_has_its_own() {
    loom::model(|| {
        let registry = registry(1);
        let first = join(&registry, 0);
        let other = registry.clone();
        let closer = thread::spawn(move || other.close(&name()));
        let joined = join(&registry, 0);
        assert!(closer.join().expect("the closer"));
        let mut closed = Vec::new();
        while let Some(item) = registry.shards()[0].pop() {
            if let Item::CloseRoom(room) = item {
                closed.push(room);
            }
        }
        assert_eq!(closed, [first.room.id()], "the shard is told once");
        leave(&registry, &first.room, 0);
        if closed.contains(&joined.room.id()) {
            assert!(registry.get(&name()).is_none());
        } else {
            check_member(&registry, &joined, 0);
        }
        leave(&registry, &joined.room, 0);
        check_nothing_stays(&registry);
    });
}

#[test]
fn loom_close_leave_and_reap_remove_a_room_once() {
    loom::model(|| {
        let registry = registry(1);
        let first = join(&registry, 0);
        let (other, third) = (registry.clone(), registry.clone());
        let closer = thread::spawn(move || other.close(&name()));
        let reaper = thread::spawn(move || third.reap());
        leave(&registry, &first.room, 0);
        closer.join().expect("the closer");
        reaper.join().expect("the reaper");
        check_nothing_stays(&registry);
    });
}

#[test]
fn loom_every_shard_sees_one_order() {
    loom::model(|| {
        let registry = registry(2);
        let members = [join(&registry, 0), join(&registry, 1)];
        let other = registry.clone();
        let publisher = thread::spawn(move || publish(&other, "a"));
        let b = publish(&registry, "b");
        let a = publisher.join().expect("the other publisher");
        let seen = publications(&registry, 0);
        assert_eq!(seen, publications(&registry, 1), "two shards, one order");
        let expected = if a.position.offset < b.position.offset { ["a", "b"] } else { ["b", "a"] };
        assert!(seen.iter().map(|(.., text)| text).eq(expected.iter()), "the order is that of the offsets");
        assert_eq!(a.position.offset + b.position.offset, 3, "dense from 1");
        assert!(seen[0].1 < seen[1].1 && seen[0].1 > members[1].seq);
    });
}

/// The obvious version: the reaper looks at the count with the directory locked, and removes. It has no state in which nobody
/// enters any more.
mod naive {
    use std::collections::HashMap;
    use std::sync::Arc;

    use crate::sync::Mutex;

    #[derive(Debug)]
    pub(super) struct Room(pub(super) Mutex<u32>);

    #[derive(Debug)]
    pub(super) struct Directory(Mutex<HashMap<&'static str, Arc<Room>>>);

    impl Directory {
        pub(super) fn new() -> Self {
            Self(Mutex::new(HashMap::new()))
        }

        pub(super) fn get(&self) -> Option<Arc<Room>> {
            self.0.lock().get("lobby").cloned()
        }

        pub(super) fn join(&self) -> Arc<Room> {
            let room = self.0.lock().entry("lobby").or_insert_with(|| Arc::new(Room(Mutex::new(0)))).clone();
            *room.0.lock() += 1;
            room
        }

        pub(super) fn reap(&self) {
            self.0.lock().retain(|_, room| *room.0.lock() > 0);
        }
    }
}

/// The models can fail: loom finds the member that the obvious version loses.
#[test]
#[should_panic(expected = "a member was lost")]
fn loom_finds_the_member_that_the_obvious_version_loses() {
    loom::model(|| {
        let directory = Arc::new(naive::Directory::new());
        *directory.join().0.lock() -= 1;
        let other = directory.clone();
        let reaper = thread::spawn(move || other.reap());
        let joined = directory.join();
        reaper.join().expect("the reaper");
        assert!(directory.get().is_some_and(|room| Arc::ptr_eq(&room, &joined)), "a member was lost");
    });
}
