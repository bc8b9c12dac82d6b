//! The registry on its real map with real threads: the loom models replace the map, this does not.
#![cfg(not(loom))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::{Encode, Intake, IntakeLimits};
use fanfare_protocol::{Payload, RoomEvent, RoomName};
use fanfare_registry::{Draft, Item, Joined, Registry, RegistryLimits, RoomOptions};

const SHARDS: usize = 3;
const NAMES: usize = 4;
const STAYS: usize = 8_000;
/// On a busy machine the reaper and the closer may hardly run during that many: members come and go until they did.
const STAYS_MAX: usize = 100 * STAYS;
const MEETINGS: usize = 10;

/// A shard's thread: joins, publishes by name, must find its own publication at its intake or be told that its room was
/// closed, leaves.
fn come_and_go(registry: &Registry<()>, shard: usize, closed: &AtomicUsize) {
    let have_met = || {
        closed.load(Ordering::Relaxed) > MEETINGS && registry.stats().reaped.load(Ordering::Relaxed) > MEETINGS as u64
    };
    for stay in (0..STAYS_MAX).take_while(|&stay| stay < STAYS || !have_met()) {
        let name = RoomName::parse(&format!("room:{}", stay % NAMES)).expect("a valid name");
        let options = RoomOptions::default();
        let joined = registry.join(&name, options, shard, None, Duration::ZERO).expect("there is room for a room");
        let text = format!("{shard} {stay}");
        let payload = Payload::Text(Bytes::from(text.clone().into_bytes()));
        let draft = Draft { user: None, payload, except: None, receipt: None };
        let said = registry.publish(&name, options, draft, Duration::ZERO).expect("nothing is over its bound");
        let seen = take(registry, shard, &joined, &text);
        if said.position.epoch == joined.position.epoch {
            assert!(seen.has_text, "a member did not get what was published to its room by name");
            assert!(said.position.offset > joined.position.offset);
        } else {
            assert!(seen.has_close, "a member's room was taken away, and it was not told");
        }
        registry.leave(&joined.room, shard, None, false);
    }
}

/// What a member found at its shard's intake.
#[derive(Default)]
struct Seen {
    has_text: bool,
    has_close: bool,
}

fn take(registry: &Registry<()>, shard: usize, joined: &Joined, text: &str) -> Seen {
    let intake = &registry.shards()[shard];
    let mut seen = Seen::default();
    let mut last_seq = joined.seq;
    while let Some(item) = intake.pop() {
        match item {
            Item::Event { room, seq, event, .. } => {
                intake.release(1, event.payload_bytes());
                // What was still on its way to earlier stays in other rooms is for nobody any more.
                if room == joined.room.id() {
                    assert!(seq > last_seq, "the room's order");
                    last_seq = seq;
                    seen.has_text |= matches!(&event.event, RoomEvent::Message(_, p) if p.payload == Payload::Text(Bytes::copy_from_slice(text.as_bytes())));
                }
            }
            Item::CloseRoom(room) => seen.has_close |= room == joined.room.id(),
            Item::Order(()) => {}
        }
    }
    seen
}

#[test]
fn no_member_is_lost_while_rooms_are_reaped_and_closed() {
    let intakes = (0..SHARDS).map(|_| Arc::new(Intake::new(IntakeLimits::default(), || {}))).collect();
    let registry = Registry::<()>::new(intakes, RegistryLimits { rooms_max: NAMES, ..RegistryLimits::default() }, 1);
    let is_over = AtomicBool::new(false);
    let closed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let shards: Vec<_> = (0..SHARDS)
            .map(|shard| {
                let (registry, closed) = (&registry, &closed);
                scope.spawn(move || come_and_go(registry, shard, closed))
            })
            .collect();
        let reaper = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                registry.reap();
            }
        });
        let closer = scope.spawn(|| {
            let names: Vec<_> =
                (0..NAMES).map(|n| RoomName::parse(&format!("room:{n}")).expect("a valid name")).collect();
            for name in names.iter().cycle().take_while(|_| !is_over.load(Ordering::Relaxed)) {
                closed.fetch_add(usize::from(registry.close(name)), Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
        let results: Vec<_> = shards.into_iter().map(|shard| shard.join().is_ok()).collect();
        is_over.store(true, Ordering::Relaxed);
        reaper.join().expect("the reaper");
        closer.join().expect("the closer");
        assert!(results.into_iter().all(|is_ok| is_ok), "a shard's thread failed");
    });
    assert!(closed.into_inner() > MEETINGS, "the closer hardly met anybody");
    registry.reap();
    assert!(registry.stats().reaped.load(Ordering::Relaxed) > MEETINGS as u64, "the reaper hardly met anybody");
    assert_eq!(registry.stats().rooms.load(Ordering::Relaxed), 0);
    assert_eq!(registry.stats().subscriptions.load(Ordering::Relaxed), 0);
    assert!(registry.list("", "", 10).is_empty());
}
