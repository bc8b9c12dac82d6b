//! What a history really takes, counted by an allocator of this test's own, against what it is charged.
#![cfg(not(loom))]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::{Intake, IntakeLimits};
use fanfare_protocol::{Payload, RoomName, UserName};
use fanfare_registry::{Draft, HistoryLimits, Registry, RegistryLimits, RoomOptions};

fn registry(history_bytes_max: usize) -> Registry<()> {
    let intakes = vec![Arc::new(Intake::new(IntakeLimits::default(), || {}))];
    Registry::new(intakes, RegistryLimits { history_bytes_max, ..RegistryLimits::default() }, 1)
}

fn options(messages_max: u32) -> RoomOptions {
    let history = HistoryLimits { messages_max, bytes_max: usize::MAX, age_max: Duration::ZERO, cached_ms_max: 0 };
    RoomOptions { offsets: true, history, ..RoomOptions::default() }
}

fn publish(registry: &Registry<()>, room: &RoomName, options: RoomOptions, bytes: usize) {
    // A user of each message's own: the most that a name can cost.
    let user = Some(UserName::guest("a name of 20 letters").expect("a valid name"));
    let payload = Payload::Json(Bytes::copy_from_slice(&vec![b'1'; bytes]));
    let draft = Draft { user, payload, except: None, receipt: None };
    let _receipted = registry.publish(room, options, draft, Duration::ZERO).expect("nothing is over its bound");
}

fn room(number: usize) -> RoomName {
    RoomName::parse(&format!("room:{number}")).expect("a valid name")
}

/// Bytes that are there after `fill` and were not before.
fn taken(fill: impl FnOnce()) -> usize {
    usize::try_from(allocation_counter::measure(fill).bytes_current)
        .expect("nothing was given back before it was taken")
}

#[test]
fn a_history_takes_no_more_than_it_is_charged() {
    for (messages, bytes) in [(1_000, 0), (1_000, 10), (100_000, 40), (10_000, 300), (500, 60_000)] {
        let registry = registry(usize::MAX);
        let name = room(0);
        // What a room takes by itself is not the history's.
        publish(&registry, &name, options(1_000_000), bytes);
        let before = registry.history_bytes().0;
        let taken = taken(|| (0..messages).for_each(|_| publish(&registry, &name, options(1_000_000), bytes)));
        let charged = registry.history_bytes().0 - before;
        assert!(taken <= charged, "{messages} of {bytes} bytes take {taken} and are charged {charged}");
        assert!(taken > messages * bytes, "it is there");
    }
}

#[test]
fn histories_of_many_rooms_under_a_bound_stay_under_it_and_give_everything_back() {
    const BOUND: usize = 2_000_000;
    let registry = registry(BOUND);
    let names: Vec<_> = (0..300).map(room).collect();
    let fill = |rounds: usize| {
        for round in 0..rounds {
            for (number, name) in names.iter().enumerate() {
                publish(&registry, name, options(50), (round * 37 + number * 11) % 900);
                assert!(registry.history_bytes().0 <= BOUND);
            }
        }
    };
    // Rooms come and go under the bound; each takes about a kilobyte besides.
    let first = taken(|| fill(40));
    assert!(first < BOUND + names.len() * 2_048, "{first} bytes under a bound of {BOUND}");
    let more = allocation_counter::measure(|| fill(40)).bytes_current;
    assert!(more.unsigned_abs() < 200_000, "as much again changes it by {more} bytes");
    let freed = allocation_counter::measure(|| {
        names.iter().for_each(|name| assert!(registry.close(name) || registry.get(name).is_none()));
        registry.reap();
        registry.expire(Duration::MAX);
    });
    assert_eq!(registry.history_bytes().0, 0);
    let left = i64::try_from(first).expect("a size") + more + freed.bytes_current;
    assert!(left < 300_000, "{left} bytes stay: the directory's table and the lists");
}
