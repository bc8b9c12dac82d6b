//! The races between those who join, leave, publish, close and reap, tried in every order that loom finds.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release -p fanfare-registry loom_`

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::{
    Budget, Delivery, FlushQuota, Intake, IntakeLimits, LaneEvent, LaneId, OutboxLimits, Outcome, Receipt, RoomId,
    Shard, ShardStats, Sink,
};
use fanfare_protocol::{Payload, RoomEvent, RoomName, Variant};
use loom::thread;

use crate::{Draft, Item, Joined, Receipted, Registry, RegistryLimits, Room, RoomOptions, Said};

type TestRegistry = Registry<()>;

fn registry(shards: usize) -> Arc<TestRegistry> {
    let intakes = (0..shards).map(|_| Arc::new(Intake::new(IntakeLimits::default(), || {}))).collect();
    Arc::new(Registry::new(intakes, RegistryLimits { rooms_max: 3, ..RegistryLimits::default() }, 1))
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
                RoomEvent::Joined(..)
                | RoomEvent::MemberJoined(..)
                | RoomEvent::Left(..)
                | RoomEvent::RoomClosed(_) => None,
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

/// The sockets of a shard with one connection: it takes everything, or nothing.
struct OneWire {
    takes: bool,
    received: Vec<u8>,
}

impl Sink for OneWire {
    fn send(&mut self, _: u32, bytes: &[u8]) -> Outcome {
        if !self.takes {
            return Outcome::Taken(0);
        }
        self.received.extend_from_slice(bytes);
        Outcome::Taken(bytes.len())
    }

    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.send(lane, &bytes)
    }
}

/// A shard's loop with one connection, which is a member of the room or will be.
struct Loop {
    registry: Arc<TestRegistry>,
    at: usize,
    shard: Shard<Said>,
    wire: OneWire,
    lane: LaneId,
    member: Option<Joined>,
}

impl Loop {
    fn new(registry: &Arc<TestRegistry>, at: usize, takes: bool) -> Self {
        // An outbox too small for anything: who does not take a message at once is evicted.
        let limits = OutboxLimits { outbox_bytes_max: 4, outbox_messages_max: 4 };
        let (budget, stats) = (Arc::new(Budget::new(100)), Arc::new(ShardStats::default()));
        let mut shard = Shard::new(limits, 100, budget, stats);
        let lane = shard.open(Variant::Text as u8);
        let wire = OneWire { takes, received: Vec::new() };
        Self { registry: registry.clone(), at, shard, wire, lane, member: None }
    }

    fn join(&mut self) {
        let joined = join(&self.registry, self.at);
        assert!(self.shard.join(self.lane, joined.room.id(), joined.seq));
        self.member = Some(joined);
    }

    /// Takes what is there, offers it, and has the connection leave if it was evicted. Returns whether it was.
    fn turn(&mut self) -> bool {
        while let Some(item) = self.registry.shards()[self.at].pop() {
            match item {
                Item::Event { room, seq, event, except, receipt } => {
                    self.shard.accept(room, seq, &event, except, receipt);
                }
                Item::Order(()) => self.join(),
                Item::CloseRoom(_) => panic!("nobody closes the room here"),
            }
        }
        self.shard.flush(&mut self.wire, FlushQuota::default());
        let released = self.shard.take_released();
        self.registry.shards()[self.at].release(released.items, released.bytes);
        let mut events = Vec::new();
        self.shard.take_events(&mut events);
        let is_evicted = events.iter().any(|event| matches!(event, LaneEvent::Evicted(..)));
        if is_evicted {
            self.leave();
        }
        is_evicted
    }

    fn leave(&mut self) {
        if let Some(Joined { room, .. }) = self.member.take() {
            assert!(self.shard.leave_unsent(self.lane, room.id()));
            leave(&self.registry, &room, self.at);
        }
    }
}

/// Publishes with a receipt that counts how often it is told, delivered and evicted.
fn publish_with_receipt(registry: &TestRegistry, told: &Arc<[AtomicUsize; 3]>) {
    let told = told.clone();
    let receipt = Arc::new(Receipt::new(move |delivery: Delivery| {
        for (total, more) in told.iter().zip([1, delivery.delivered, delivery.evicted]) {
            total.fetch_add(more as usize, Ordering::Relaxed);
        }
    }));
    let payload = Payload::Text(Bytes::from_static(b"hello"));
    let draft = Draft { user: None, payload, except: None, receipt: Some(receipt) };
    let accepted = registry.publish(&name(), RoomOptions::default(), draft, Duration::ZERO);
    assert!(accepted.is_ok(), "nothing is over its bound");
}

/// Two shards count one publication; one of them evicts its member for it, who leaves the room while the other shard works and the
/// reaper looks.
#[test]
fn loom_an_eviction_is_counted_once_and_vacates_the_room_once() {
    loom::model(|| {
        let registry = registry(2);
        let mut fast = Loop::new(&registry, 0, true);
        let mut slow = Loop::new(&registry, 1, false);
        fast.join();
        slow.join();
        let told: Arc<[AtomicUsize; 3]> = Arc::default();
        let (other, tally) = (registry.clone(), told.clone());
        let publisher = thread::spawn(move || publish_with_receipt(&other, &tally));
        let slow = thread::spawn(move || {
            let is_evicted = slow.turn();
            (slow, is_evicted)
        });
        assert!(!fast.turn(), "who takes everything is not evicted");
        publisher.join().expect("the publisher");
        let (mut slow, was_evicted) = slow.join().expect("the slow shard");
        assert!(!fast.turn());
        assert!(slow.turn() != was_evicted, "evicted once, whenever the publication came");
        let told = [0, 1, 2].map(|n| told[n].load(Ordering::Relaxed));
        assert_eq!(told, [1, 1, 1], "told once: one delivered, one evicted");
        assert_eq!(fast.wire.received, b"\x81\x05hello");
        assert!(slow.wire.received.is_empty());
        assert_eq!(registry.stats().subscriptions.load(Ordering::Relaxed), 1);
        assert_eq!(registry.reap(), 0, "somebody is in it");
        fast.leave();
        check_nothing_stays(&registry);
    });
}

/// A connection is handed to a shard through its intake, as a handshake does, and joins a room in which others publish and that the reaper
/// looks at: it gets what was said after it joined, once, and the room is not lost.
#[test]
fn loom_a_connection_that_is_handed_over_gets_what_follows() {
    loom::model(|| {
        let registry = with_vacant_room(1);
        let (other, third) = (registry.clone(), registry.clone());
        let handshake = thread::spawn(move || {
            other.shards()[0].push(Item::Order(()));
            other.reap();
        });
        let publisher = thread::spawn(move || publish(&third, "hello").position);
        let mut shard = Loop::new(&registry, 0, true);
        shard.turn();
        handshake.join().expect("the handshake");
        let said = publisher.join().expect("the publisher");
        shard.turn();
        let joined = shard.member.as_ref().expect("it was adopted").position;
        let is_after = said.epoch == joined.epoch && said.offset > joined.offset;
        publish_with_receipt(&registry, &Arc::default());
        shard.turn();
        let expected = b"\x81\x05hello".repeat(1 + usize::from(is_after));
        assert_eq!(shard.wire.received, expected, "what followed, once each");
        shard.leave();
        check_nothing_stays(&registry);
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
