//! A room's latency budget: its batch grows until the budget is used up, and no longer.
#![cfg(not(loom))]

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::{Budget, Encode, FlushQuota, OutboxLimits, Outcome, RoomId, Shard, Sink};

struct Letter(u8);

impl Encode for Letter {
    const VARIANTS: u8 = 1;
    type Tools = ();
    type Room = ();
    fn encode(&self, _variant: u8, _tools: &mut (), out: &mut Vec<u8>) {
        out.push(self.0);
    }
    fn payload_bytes(&self) -> usize {
        1
    }
}

/// Takes everything; keeps each write apart.
#[derive(Default)]
struct Writes(Vec<String>);

impl Sink for Writes {
    fn send(&mut self, _lane: u32, bytes: &[u8]) -> Outcome {
        self.0.push(String::from_utf8(bytes.to_vec()).expect("letters"));
        Outcome::Taken(bytes.len())
    }
    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        self.send(lane, &slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>())
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn shard(coalesce: Duration) -> Shard<Letter> {
    let limits = OutboxLimits { outbox_bytes_max: 40, outbox_messages_max: 40 };
    let mut shard = Shard::new(limits, 100, Arc::new(Budget::new(1_000)), Arc::default());
    let lane = shard.open(0);
    shard.join(lane, RoomId(1), 0);
    shard.set_coalesce(RoomId(1), coalesce);
    shard
}

#[test]
fn without_a_budget_each_flush_sends_what_is_there() {
    let (mut shard, mut writes) = (shard(Duration::ZERO), Writes::default());
    for (seq, letter) in [(1, b'a'), (2, b'b')] {
        shard.accept(RoomId(1), seq, &Letter(letter), None, None);
        assert!(!shard.flush(&mut writes, FlushQuota::default()));
    }
    assert_eq!(writes.0, ["a", "b"]);
    assert_eq!(shard.next_wait(), None);
}

#[test]
fn a_budget_gathers_until_it_is_used_up() {
    let (mut shard, mut writes) = (shard(ms(5)), Writes::default());
    for (now, seq, letter) in [(10, 1, b'a'), (12, 2, b'b'), (14, 3, b'c')] {
        shard.tell_time(ms(now));
        shard.accept(RoomId(1), seq, &Letter(letter), None, None);
        assert!(!shard.flush(&mut writes, FlushQuota::default()));
        assert_eq!(shard.next_wait(), Some(ms(15)), "counted from the first");
    }
    assert!(writes.0.is_empty());
    shard.tell_time(ms(15));
    assert!(!shard.flush(&mut writes, FlushQuota::default()));
    assert_eq!(writes.0, ["abc"]);
    assert_eq!(shard.next_wait(), None);
    shard.tell_time(ms(16));
    shard.accept(RoomId(1), 4, &Letter(b'd'), None, None);
    assert_eq!(shard.next_wait(), Some(ms(21)), "the next batch has its own");
}

#[test]
fn a_full_batch_does_not_wait() {
    let (mut shard, mut writes) = (shard(ms(5_000)), Writes::default());
    for seq in 1..=10 {
        shard.accept(RoomId(1), seq, &Letter(b'x'), None, None);
    }
    assert!(!shard.flush(&mut writes, FlushQuota::default()));
    assert_eq!(writes.0, ["xxxxxxxxxx"], "a quarter of the outbox is a full batch");
}

#[test]
fn who_leaves_gets_what_was_waiting() {
    let (mut shard, mut writes) = (shard(ms(5_000)), Writes::default());
    shard.accept(RoomId(1), 1, &Letter(b'a'), None, None);
    let lane = shard.lane_at(0).expect("the lane");
    assert!(shard.leave(lane, RoomId(1), &mut writes));
    assert_eq!(writes.0, ["a"]);
}
