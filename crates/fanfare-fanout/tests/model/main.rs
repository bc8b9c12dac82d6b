//! The shard against a naive model: random orders, connections that take what they like, and a check of every byte and
//! every receipt.
//!
//! `SIM_SEEDS=n` sets how many seeds are tried; `SIM_SEED=s` repeats one.
#![cfg(not(loom))]

mod account;
mod audit;
mod dice;
mod said;
mod steps;
mod wires;
mod world;

use std::sync::Arc;

use fanfare_fanout::{Budget, FlushQuota, LaneId, OutboxLimits, RoomId, Shard, ShardStats, Slow};

use crate::said::{MERGING, Said};
use crate::wires::{Takes, Wire, Wires};
use crate::world::World;

/// Returns how many were evicted, and how many publications were dropped by each policy.
fn run(seed: u64) -> [u64; 3] {
    let mut world = World::new(seed);
    for _ in 0..300 {
        world.step();
        world.check_step();
    }
    world.end();
    [world.evictions, world.stats.dropped(Slow::DropOldest), world.stats.dropped(Slow::Latest)]
}

fn seeds() -> std::ops::Range<u64> {
    let read = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    match read("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..read("SIM_SEEDS").unwrap_or(300),
    }
}

#[test]
fn the_shard_does_what_the_naive_model_says() {
    let mut sums = [0; 3];
    for seed in seeds() {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(counts) => sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count),
            Err(_) => panic!("seed {seed} failed; repeat with SIM_SEED={seed}"),
        }
    }
    let is_rich = sums.iter().all(|&sum| sum > 100);
    assert!(is_rich || seeds().count() < 300, "the model proves too little: evictions, and drops by policy: {sums:?}");
}

/// A small stage for single scenes: `members` lanes of the merging variant in one room, all of which take everything.
fn merging_room(members: usize) -> (Shard<Said>, Wires, Vec<LaneId>) {
    let stats = Arc::new(ShardStats::default());
    let mut shard = Shard::new(OutboxLimits::default(), 1_000, Arc::new(Budget::new(1 << 30)), stats);
    let mut wires = Wires::default();
    let lanes: Vec<LaneId> = (0..members).map(|_| shard.open(MERGING)).collect();
    for lane in &lanes {
        assert!(shard.join(*lane, RoomId(1), 0));
        let takes = Takes::All;
        let wire = Wire { takes, received: Vec::new(), before_last_send: 0, is_short: false, has_failed: false };
        wires.0.insert(lane.index, wire);
    }
    (shard, wires, lanes)
}

#[test]
fn who_was_left_out_once_is_like_the_others_in_the_next_batch() {
    let (mut shard, mut wires, lanes) = merging_room(2);
    let say = |shard: &mut Shard<Said>, seq, except| {
        let said = Said { room: 1, seq, pad: 1, is_alone: false, is_rare: false, is_notice: false };
        shard.accept(RoomId(1), seq, &said, except, None);
    };
    let mut scene = |seqs: [u64; 2], except: Option<LaneId>, expected: [&str; 2]| {
        say(&mut shard, seqs[0], except);
        say(&mut shard, seqs[1], None);
        while shard.flush(&mut wires, FlushQuota::default()) {}
        for (lane, expected) in lanes.iter().zip(expected) {
            let received = std::mem::take(&mut wires.at(*lane).received);
            assert_eq!(String::from_utf8_lossy(&received), expected);
        }
    };
    scene([1, 2], None, ["[1:1:2:b;;1:2:2:c]", "[1:1:2:b;;1:2:2:c]"]);
    scene([3, 4], Some(lanes[0]), ["[1:4:2:e]", "[1:3:2:d;;1:4:2:e]"]);
    scene([5, 6], None, ["[1:5:2:f;;1:6:2:g]", "[1:5:2:f;;1:6:2:g]"]);
}

#[test]
fn words_that_were_torn_are_not_followed_by_others() {
    let (_, mut wires, lanes) = merging_room(1);
    let budget = Arc::new(Budget::new(3));
    let mut shard = Shard::<Said>::new(OutboxLimits::default(), 1_000, budget.clone(), Arc::default());
    assert_eq!(shard.open(0), lanes[0]);
    wires.at(lanes[0]).takes = Takes::Only(2);
    assert!(shard.last_words(lanes[0], b"<w:1:!>", &mut wires), "nothing is kept, so nothing is to be waited for");
    wires.at(lanes[0]).takes = Takes::All;
    assert!(shard.last_words(lanes[0], b"<w:2:!>", &mut wires));
    assert_eq!(wires.at(lanes[0]).received, b"<w");
    assert_eq!(budget.used(), 0);
}
