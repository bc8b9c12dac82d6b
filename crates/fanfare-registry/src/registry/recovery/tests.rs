use bytes::Bytes;
use fanfare_fanout::{Intake, IntakeLimits};
use fanfare_protocol::Payload;

use super::*;
use crate::{Draft, HistoryLimits, Joined, Portion, PublishError, Receipted, RegistryLimits};

const CHARGE: usize = 100 + KEPT_OVERHEAD_BYTES;
const FOREVER: Duration = Duration::ZERO;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn name(name: &str) -> RoomName {
    RoomName::parse(name).expect("a valid name")
}

fn options(messages_max: u32, age_max: Duration) -> RoomOptions {
    let history = HistoryLimits { messages_max, bytes_max: 1_000_000, age_max, cached_ms_max: 0 };
    RoomOptions { offsets: true, history, ..RoomOptions::default() }
}

/// A registry of one shard whose rooms keep three messages for so long.
struct Rooms {
    registry: Registry<()>,
    options: RoomOptions,
}

impl Rooms {
    fn new(age_max: Duration, limits: RegistryLimits) -> Self {
        let intake = IntakeLimits { intake_items_max: 1_000, intake_bytes_max: 1 << 20 };
        let shards = vec![std::sync::Arc::new(Intake::new(intake, || {}))];
        Self { registry: Registry::new(shards, limits, 1), options: options(3, age_max) }
    }

    fn try_publish(&self, room: &str, now: Duration) -> Result<Receipted, PublishError> {
        let payload = Payload::Binary(Bytes::from_static(&[b'x'; 100]));
        let draft = Draft { user: None, payload, except: None, receipt: None };
        self.registry.publish(&name(room), self.options, draft, now)
    }

    fn publish(&self, room: &str, now: Duration) -> Position {
        self.try_publish(room, now).expect("a publication that is accepted").position
    }

    /// Once in each of these seconds.
    fn publish_each(&self, room: &str, in_seconds: std::ops::RangeInclusive<u64>) {
        for second in in_seconds {
            self.publish(room, seconds(second));
        }
    }

    fn rejoin(&self, room: &str, since: Option<Position>, now: Duration) -> Joined {
        self.registry.rejoin(&name(room), self.options, 0, None, since, now).expect("a place")
    }

    fn leave(&self, joined: &Joined) {
        self.registry.leave(&joined.room, 0, None, false);
    }

    /// Comes and goes; returns whether all was recovered, and the numbers.
    fn visit(&self, room: &str, since: Position, now: Duration) -> (bool, Vec<u64>) {
        let joined = self.rejoin(room, Some(since), now);
        self.leave(&joined);
        assert_eq!(joined.missed.seq, Some(joined.seq), "a short history comes whole");
        let offsets = joined.missed.messages.iter().map(|kept| kept.published.offset.expect("a number"));
        (joined.recovered, offsets.collect())
    }

    fn sweep(&self, now: Duration) -> usize {
        self.registry.reap() + self.registry.expire(now)
    }

    fn is_there(&self, room: &str) -> bool {
        self.registry.get(&name(room)).is_some()
    }

    fn check_empty(&self) {
        assert_eq!(self.registry.history_bytes().0, 0);
        assert_eq!(self.registry.keeping.counts(), (0, 0));
        assert_eq!(self.registry.stats().rooms.load(Ordering::Relaxed), 0);
        assert!(self.registry.list("", "", 1).is_empty());
    }
}

#[test]
fn a_vacant_room_lives_on_until_what_it_knows_has_aged() {
    let rooms = Rooms::new(seconds(10), RegistryLimits::default());
    let first = rooms.publish("a", seconds(1));
    rooms.publish("a", seconds(5));
    assert_eq!(rooms.sweep(seconds(10)), 0);
    assert_eq!(rooms.visit("a", first, seconds(10)), (true, vec![2]), "nobody had been there in between");
    assert_eq!(rooms.registry.history_bytes().0, 2 * CHARGE);
    assert_eq!(rooms.sweep(seconds(11)), 0);
    assert_eq!(rooms.registry.history_bytes().0, CHARGE, "the sweep lets go of the first");
    assert_eq!(rooms.sweep(seconds(14)), 0);
    assert!(rooms.is_there("a"));
    assert_eq!(rooms.sweep(seconds(15)), 1);
    rooms.check_empty();
    assert_eq!(rooms.registry.stats().reaped.load(Ordering::Relaxed), 1);
    let (recovered, messages) = rooms.visit("a", first, seconds(16));
    assert!(!recovered && messages.is_empty(), "another life");
}

#[test]
fn an_occupied_room_forgets_in_silence_and_goes_once_it_is_vacant() {
    let rooms = Rooms::new(seconds(10), RegistryLimits::default());
    let member = rooms.rejoin("a", None, seconds(0));
    let first = rooms.publish("a", seconds(1));
    assert_eq!(rooms.registry.keeping.counts(), (1, 0));
    assert_eq!(rooms.sweep(seconds(20)), 0, "somebody is there");
    assert_eq!((rooms.registry.history_bytes().0, rooms.registry.keeping.counts()), (0, (0, 0)));
    assert_eq!(rooms.visit("a", first, seconds(20)), (true, vec![]), "nothing followed the first");
    assert!(!rooms.visit("a", Position { offset: 0, ..first }, seconds(20)).0, "the first is not kept");
    rooms.leave(&member);
    assert_eq!(rooms.sweep(seconds(21)), 1);
    rooms.check_empty();
}

#[test]
fn what_has_aged_is_not_told_even_before_the_sweep() {
    let rooms = Rooms::new(seconds(10), RegistryLimits::default());
    let first = rooms.publish("a", seconds(1));
    rooms.publish("a", seconds(2));
    assert_eq!(rooms.visit("a", first, seconds(12) - Duration::from_nanos(1)), (true, vec![2]));
    assert_eq!(rooms.visit("a", first, seconds(12)), (false, vec![]));
    let page = PageQuery { since: None, portion: Portion { messages_max: 10, bytes_max: 10_000 } };
    let read = rooms.registry.history(&name("a"), rooms.options, &page, seconds(12)).expect("a page");
    assert_eq!((read.messages.len(), read.position.offset), (0, 2));
    assert_eq!(rooms.sweep(seconds(12)), 1);
    rooms.check_empty();
}

#[test]
fn a_room_without_a_bound_on_age_stays_until_it_is_closed() {
    let rooms = Rooms::new(FOREVER, RegistryLimits::default());
    let first = rooms.publish("a", seconds(1));
    let member = rooms.rejoin("a", None, seconds(2));
    assert_eq!(rooms.registry.keeping.counts(), (0, 0), "nothing ages, and somebody is there");
    rooms.leave(&member);
    assert_eq!(rooms.sweep(Duration::MAX), 0);
    assert_eq!(rooms.registry.keeping.counts(), (0, 1));
    assert_eq!(rooms.visit("a", first, Duration::MAX), (true, vec![]));
    assert!(rooms.registry.close(&name("a")));
    rooms.check_empty();
    assert_eq!(rooms.sweep(Duration::MAX), 0);
}

#[test]
fn closing_a_room_lets_go_of_all_it_knew() {
    let rooms = Rooms::new(seconds(10), RegistryLimits::default());
    let member = rooms.rejoin("a", None, seconds(0));
    rooms.publish_each("a", 1..=3);
    assert!(rooms.registry.close(&name("a")));
    rooms.check_empty();
    let missed = rooms.registry.missed(&member.room, 0, seconds(4));
    assert_eq!(missed, Missed { lost: None, messages: vec![], offset: 0, seq: None }, "its end is on the way");
    rooms.leave(&member);
    assert_eq!(rooms.sweep(seconds(100)), 0);
    rooms.check_empty();
}

#[test]
fn at_the_bound_on_rooms_the_vacant_one_unused_for_longest_makes_place() {
    let rooms = Rooms::new(FOREVER, RegistryLimits { rooms_max: 3, ..RegistryLimits::default() });
    for room in ["a", "b", "c"] {
        rooms.publish(room, seconds(1));
    }
    rooms.publish("a", seconds(2));
    rooms.publish("d", seconds(3));
    let here = |there: &[&str]| {
        let rooms: Vec<_> = rooms.registry.list("", "", 10).iter().map(|info| info.name.to_string()).collect();
        assert_eq!(rooms, there);
    };
    here(&["a", "c", "d"]);
    let member = rooms.rejoin("c", None, seconds(4));
    rooms.publish("e", seconds(5));
    here(&["c", "d", "e"]);
    rooms.publish("f", seconds(6));
    here(&["c", "e", "f"]);
    // Who is occupied stays: in the end there is no place.
    let others = ["e", "f"].map(|room| rooms.rejoin(room, None, seconds(7)));
    assert_eq!(rooms.try_publish("g", seconds(8)), Err(PublishError::RoomsMax));
    others.iter().for_each(|other| rooms.leave(other));
    rooms.leave(&member);
    assert_eq!(rooms.registry.stats().evicted.load(Ordering::Relaxed), 3);
    assert_eq!(rooms.registry.history_bytes().0, 3 * CHARGE);
}

#[test]
fn a_vacant_room_that_knows_nothing_is_left_to_the_sweep() {
    let mut rooms = Rooms::new(FOREVER, RegistryLimits { rooms_max: 1, ..RegistryLimits::default() });
    rooms.options.history = HistoryLimits::default();
    rooms.publish("a", seconds(1));
    assert_eq!(rooms.try_publish("b", seconds(2)), Err(PublishError::RoomsMax));
    assert_eq!(rooms.sweep(seconds(3)), 1);
    rooms.publish("b", seconds(4));
}

#[test]
fn the_bound_on_all_histories_holds_and_says_what_it_cost() {
    let limits = RegistryLimits { history_bytes_max: 5 * CHARGE, ..RegistryLimits::default() };
    let rooms = Rooms::new(FOREVER, limits);
    let cut = || rooms.registry.stats().cut.load(Ordering::Relaxed);
    let evicted = || rooms.registry.stats().evicted.load(Ordering::Relaxed);
    let first = rooms.publish("old", seconds(1));
    let members = ["a", "b"].map(|room| rooms.rejoin(room, None, seconds(1)));
    rooms.publish_each("a", 2..=3);
    rooms.publish_each("b", 2..=3);
    assert_eq!((rooms.registry.history_bytes(), evicted(), cut()), ((5 * CHARGE, 5 * CHARGE), 0, 0));
    // The vacant room goes first,
    let third = rooms.publish("a", seconds(3));
    assert_eq!((rooms.is_there("old"), evicted(), cut()), (false, 1, 0));
    // then a room's own oldest,
    let here = rooms.publish("b", seconds(4));
    assert_eq!((evicted(), cut()), (1, 1));
    assert_eq!(rooms.visit("b", Position { offset: 1, ..here }, seconds(4)), (true, vec![2, 3]));
    assert!(!rooms.visit("b", Position { offset: 0, ..here }, seconds(4)).0);
    assert_eq!(rooms.visit("a", Position { offset: 0, ..third }, seconds(4)), (true, vec![1, 2, 3]));
    // and who has none of its own keeps nothing.
    let other = rooms.publish("old", seconds(5));
    assert!(other.epoch != first.epoch && cut() == 2);
    assert_eq!(rooms.visit("old", other, seconds(5)), (true, vec![]));
    assert!(!rooms.visit("old", Position { offset: 0, ..other }, seconds(5)).0);
    assert_eq!(rooms.sweep(seconds(6)), 1, "it is vacant and knows nothing");
    members.iter().for_each(|member| rooms.leave(member));
    ["a", "b"].iter().for_each(|room| assert!(rooms.registry.close(&name(room))));
    rooms.check_empty();
}

#[test]
fn another_bound_on_all_histories_holds_for_what_is_kept_too() {
    let limits = RegistryLimits { history_bytes_max: 5 * CHARGE, ..RegistryLimits::default() };
    let rooms = Rooms::new(FOREVER, limits);
    let member = rooms.rejoin("here", None, seconds(1));
    rooms.publish_each("here", 1..=2);
    for vacant in ["a", "b", "c"] {
        rooms.publish(vacant, seconds(1));
    }
    let lower = RegistryLimits { history_bytes_max: 3 * CHARGE, ..limits };
    rooms.registry.set_limits(&lower);
    assert_eq!(rooms.registry.history_bytes(), (5 * CHARGE, 3 * CHARGE));
    rooms.sweep(seconds(2));
    assert_eq!(rooms.registry.history_bytes().0, 3 * CHARGE, "vacant rooms have made place");
    assert_eq!(["a", "b", "c"].map(|room| rooms.is_there(room)), [false, false, true], "unused for longest first");
    // Who is in a room keeps what it has until more is said.
    rooms.registry.set_limits(&RegistryLimits { history_bytes_max: CHARGE, ..limits });
    rooms.sweep(seconds(2));
    assert_eq!((rooms.registry.history_bytes().0, rooms.is_there("c")), (2 * CHARGE, false));
    let third = rooms.publish("here", seconds(3));
    assert_eq!(rooms.registry.history_bytes().0, CHARGE);
    assert_eq!(rooms.visit("here", Position { offset: 2, ..third }, seconds(3)), (true, vec![3]));
    rooms.registry.set_limits(&limits);
    rooms.publish_each("here", 4..=5);
    assert_eq!(rooms.registry.history_bytes(), (3 * CHARGE, 5 * CHARGE));
    rooms.leave(&member);
    assert!(rooms.registry.close(&name("here")));
    rooms.check_empty();
}

#[test]
fn a_room_that_is_published_to_does_not_make_place_for_itself() {
    let rooms = Rooms::new(FOREVER, RegistryLimits { history_bytes_max: 2 * CHARGE, ..RegistryLimits::default() });
    let first = rooms.publish("a", seconds(1));
    for second in 2..20 {
        assert_eq!(rooms.publish("a", seconds(second)).epoch, first.epoch);
    }
    assert_eq!(rooms.registry.stats().evicted.load(Ordering::Relaxed), 0);
    assert_eq!(rooms.registry.history_bytes().0, 2 * CHARGE);
}

#[test]
fn who_comes_back_is_told_the_truth_and_counted() {
    let rooms = Rooms::new(FOREVER, RegistryLimits::default());
    let member = rooms.rejoin("a", None, seconds(0));
    let here = member.position;
    let at = |offset| Position { offset, ..here };
    assert_eq!(rooms.visit("a", at(0), seconds(0)), (true, vec![]));
    rooms.publish_each("a", 1..=5);
    for (since, expected) in [
        (at(5), (true, vec![])),
        (at(4), (true, vec![5])),
        (at(2), (true, vec![3, 4, 5])),
        (at(1), (false, vec![])),
        (at(0), (false, vec![])),
        (at(6), (false, vec![])),
        (at(u64::MAX), (false, vec![])),
        (Position { epoch: here.epoch ^ 1, offset: 5 }, (false, vec![])),
    ] {
        assert_eq!(rooms.visit("a", since, seconds(6)), expected, "{since}");
    }
    let stats = rooms.registry.stats();
    assert_eq!((stats.recovered.load(Ordering::Relaxed), stats.unrecovered.load(Ordering::Relaxed)), (4, 5));
    assert!(rooms.rejoin("a", None, seconds(7)).missed.messages.is_empty(), "who was not here has missed nothing");
    assert_eq!(stats.recovered.load(Ordering::Relaxed), 4);
}

#[test]
fn without_a_history_only_where_the_stream_stands_is_recovered() {
    let mut rooms = Rooms::new(FOREVER, RegistryLimits::default());
    rooms.options.history = HistoryLimits::default();
    let member = rooms.rejoin("a", None, seconds(0));
    let first = rooms.publish("a", seconds(1));
    assert_eq!(rooms.visit("a", first, seconds(2)), (true, vec![]));
    assert_eq!(rooms.visit("a", member.position, seconds(2)), (false, vec![]));
    assert_eq!(rooms.registry.history_bytes().0, 0);
}

#[test]
fn a_long_absence_is_made_up_for_in_parts_and_live_events_go_on_from_the_last() {
    let replay = Portion { messages_max: 2, bytes_max: 100_000 };
    let mut rooms = Rooms::new(FOREVER, RegistryLimits { replay, ..RegistryLimits::default() });
    rooms.options.history.messages_max = 6;
    let first = rooms.publish("a", seconds(1));
    rooms.publish_each("a", 2..=6);
    let joined = rooms.rejoin("a", Some(first), seconds(7));
    let numbers = |missed: &Missed| missed.messages.iter().filter_map(|kept| kept.published.offset).collect::<Vec<_>>();
    assert_eq!((joined.recovered, numbers(&joined.missed), joined.missed.seq), (true, vec![2, 3], None));
    assert_eq!(joined.position.offset, 6);
    // The room goes on meanwhile.
    rooms.publish("a", seconds(8));
    let second = rooms.registry.missed(&joined.room, joined.missed.offset, seconds(8));
    assert_eq!((numbers(&second), second.seq), (vec![4, 5], None));
    let third = rooms.registry.missed(&joined.room, second.offset, seconds(8));
    assert_eq!((numbers(&third), third.seq), (vec![6, 7], Some(7)));
    // Faster than it is read.
    rooms.publish_each("a", 9..=18);
    let late = rooms.registry.missed(&joined.room, third.offset, seconds(18));
    assert_eq!((late.lost, numbers(&late), late.offset), (Some((8, 11)), vec![12, 13], 13));
    rooms.leave(&joined);
}

#[test]
fn in_a_last_value_room_who_enters_is_told_the_last_value() {
    let mut rooms = Rooms::new(FOREVER, RegistryLimits::default());
    rooms.options = RoomOptions { last_value: true, ..options(1, FOREVER) };
    let early = rooms.rejoin("a", None, seconds(0));
    assert_eq!((early.recovered, early.missed.messages.len()), (true, 0));
    rooms.publish_each("a", 1..=3);
    rooms.leave(&early);
    assert_eq!(rooms.sweep(seconds(100)), 0, "the value is kept for who comes");
    let joined = rooms.rejoin("a", None, seconds(101));
    assert_eq!((joined.recovered, joined.missed.seq), (true, Some(joined.seq)));
    assert!(joined.missed.messages.iter().map(|kept| kept.published.offset).eq([Some(3)]));
    // Who says what it knows is told what it lacks, and no more.
    assert_eq!(rooms.visit("a", joined.position, seconds(102)), (true, vec![]));
    assert_eq!(rooms.visit("a", Position { offset: 2, ..joined.position }, seconds(102)), (true, vec![3]));
    rooms.leave(&joined);
}

#[test]
fn asking_for_the_history_of_a_room_makes_it_and_the_sweep_takes_it_away() {
    let rooms = Rooms::new(seconds(10), RegistryLimits { rooms_max: 1, ..RegistryLimits::default() });
    let query = PageQuery { since: None, portion: Portion { messages_max: 10, bytes_max: 10_000 } };
    let page = rooms.registry.history(&name("a"), rooms.options, &query, seconds(1)).expect("a page");
    assert_eq!((page.messages.len(), page.position.offset, page.recovered), (0, 0, true));
    assert!(rooms.visit("a", page.position, seconds(1)).0, "one can enter from there");
    let refused = rooms.registry.history(&name("b"), rooms.options, &query, seconds(1));
    assert_eq!(refused, Err(JoinError::RoomsMax));
    assert_eq!(rooms.sweep(seconds(2)), 1);
    rooms.check_empty();
}

/// Says an event of this name in a channel.
fn say(rooms: &Rooms, event: &str, now: Duration) {
    let payload = Payload::Json(Bytes::from(format!(r#"{{"event":"{event}","data":"x"}}"#)));
    let draft = Draft { user: None, payload, except: Some((0, LaneId { index: 0, generation: 0 })), receipt: None };
    let _position = rooms.registry.publish(&name("a"), rooms.options, draft, now).expect("accepted");
}

fn texts(missed: &Missed) -> Vec<String> {
    let text = |kept: &Kept| match &kept.published.payload {
        Payload::Json(bytes) | Payload::Text(bytes) | Payload::Binary(bytes) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
    };
    missed.messages.iter().map(text).collect()
}

#[test]
fn a_cache_channel_tells_its_last_event_for_a_time_and_nothing_that_clients_said() {
    let mut rooms = Rooms::new(FOREVER, RegistryLimits::default());
    rooms.options = RoomOptions::default();
    rooms.options.history.cached_ms_max = 10_000;
    let early = rooms.rejoin("a", None, seconds(0));
    assert_eq!((texts(&early.missed).len(), early.missed.seq), (0, Some(early.seq)));
    rooms.leave(&early);
    say(&rooms, "client-early", seconds(1));
    assert_eq!((rooms.registry.history_bytes().0, rooms.registry.cached(&name("a"), seconds(1))), (0, None));
    for (n, event) in ["first", "last", "client-later"].into_iter().enumerate() {
        say(&rooms, event, seconds(2 + n as u64));
    }
    // Nobody is there, and it is known all the same.
    assert_eq!(rooms.sweep(seconds(12)), 0);
    let joined = rooms.rejoin("a", None, seconds(12));
    assert_eq!(texts(&joined.missed), [r#"{"event":"last","data":"x"}"#]);
    assert_eq!((joined.recovered, joined.missed.seq), (true, Some(joined.seq)));
    assert_eq!(joined.missed.messages[0].except, None, "whoever made it may hear it");
    assert_eq!(joined.missed.messages[0].published.offset, None, "these rooms do not count");
    rooms.leave(&joined);
    let left = rooms.registry.cached(&name("a"), seconds(12)).map(|(_, left)| left);
    assert_eq!(left, Some(seconds(1)));
    // Until it is too old, before the sweep and after it.
    assert_eq!(rooms.registry.cached(&name("a"), seconds(13)), None);
    let late = rooms.rejoin("a", None, seconds(13));
    assert_eq!(texts(&late.missed).len(), 0);
    say(&rooms, "again", seconds(14));
    rooms.leave(&late);
    assert_eq!(rooms.sweep(seconds(23)), 0);
    assert_eq!(rooms.sweep(seconds(24)), 1);
    rooms.check_empty();
}

#[test]
fn what_a_cache_channel_keeps_is_no_hole_in_its_history() {
    let mut rooms = Rooms::new(FOREVER, RegistryLimits::default());
    rooms.options.history.cached_ms_max = 1_000;
    let member = rooms.rejoin("a", None, seconds(0));
    for (n, event) in ["first", "second", "client-third", "client-fourth", "client-fifth"].into_iter().enumerate() {
        say(&rooms, event, Duration::from_millis(n as u64));
    }
    // The ring goes on where the last event has been pushed out of it.
    let since = Position { offset: 2, ..member.position };
    assert_eq!(rooms.visit("a", since, Duration::from_millis(5)), (true, vec![3, 4, 5]));
    let joined = rooms.rejoin("a", None, Duration::from_millis(5));
    assert_eq!(texts(&joined.missed), [r#"{"event":"second","data":"x"}"#]);
    assert!(rooms.registry.close(&name("a")));
    assert_eq!(rooms.registry.history_bytes().0, 0);
}

#[test]
fn a_cache_channel_keeps_nothing_where_histories_have_no_place_for_it() {
    let limits = RegistryLimits { history_bytes_max: KEPT_OVERHEAD_BYTES, ..RegistryLimits::default() };
    let mut rooms = Rooms::new(FOREVER, limits);
    rooms.options = RoomOptions::default();
    rooms.options.history.cached_ms_max = 10_000;
    say(&rooms, "e", seconds(1));
    assert_eq!(rooms.registry.cached(&name("a"), seconds(1)), None);
    assert_eq!(rooms.registry.stats().cut.load(Ordering::Relaxed), 1);
    assert_eq!(rooms.sweep(seconds(1)), 1);
    rooms.check_empty();
}
