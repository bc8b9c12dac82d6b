//! What a delivery allocates: nothing. Counted by an allocator of its own in the test binary.
#![cfg(not(loom))]

use std::io::IoSlice;
use std::sync::Arc;

use fanfare_fanout::{
    Budget, Delivery, Encode, FlushQuota, LaneEvent, OutboxLimits, Outcome, Receipt, RoomId, Shard, ShardStats, Sink,
};

struct Said([u8; 128]);

impl Encode for Said {
    const VARIANTS: u8 = 4;
    type Tools = ();
    type Room = ();

    fn encode(&self, variant: u8, _tools: &mut (), out: &mut Vec<u8>) {
        out.push(variant);
        out.extend_from_slice(&self.0);
    }

    fn payload_bytes(&self) -> usize {
        self.0.len()
    }
}

/// Connections that take everything, and a count of what they took.
#[derive(Default)]
struct Drained {
    bytes: usize,
}

impl Sink for Drained {
    fn send(&mut self, _lane: u32, bytes: &[u8]) -> Outcome {
        self.bytes += bytes.len();
        Outcome::Taken(bytes.len())
    }

    fn send_vectored(&mut self, _lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.bytes += bytes;
        Outcome::Taken(bytes)
    }
}

const ROOM: RoomId = RoomId(7);

struct Audience {
    shard: Shard<Said>,
    sink: Drained,
    members: usize,
    seq: u64,
}

impl Audience {
    fn new(members: usize) -> Self {
        let stats = Arc::new(ShardStats::default());
        let mut shard = Shard::new(OutboxLimits::default(), 65_536, Arc::new(Budget::new(1 << 30)), stats);
        for n in 0..members {
            let lane = shard.open((n % 4) as u8);
            assert!(shard.join(lane, ROOM, 0));
        }
        let mut audience = Self { shard, sink: Drained::default(), members, seq: 0 };
        // The steady state: buffers have their size.
        (0..10).for_each(|_| audience.publish(3, None));
        audience
    }

    /// Publishes and flushes; everybody must have got it.
    fn publish(&mut self, publications: usize, receipt: Option<&Arc<Receipt>>) {
        let before = self.sink.bytes;
        for _ in 0..publications {
            self.seq += 1;
            self.shard.accept(ROOM, self.seq, &Said([b'x'; 128]), None, receipt.cloned());
        }
        while self.shard.flush(&mut self.sink, FlushQuota::default()) {}
        assert_eq!(self.sink.bytes - before, publications * self.members * 129);
        assert_eq!(self.shard.take_released().items, publications);
    }

    fn allocations(&mut self, publications: usize) -> u64 {
        allocation_counter::measure(|| self.publish(publications, None)).count_total
    }
}

#[test]
fn a_delivery_allocates_nothing() {
    // The counter counts.
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
    for publications in [1, 3] {
        let few = Audience::new(10).allocations(publications);
        let many = Audience::new(1_000).allocations(publications);
        assert_eq!((few, many), (0, 0), "for {publications} publications to 10 and to 1,000 members");
    }
}

#[test]
fn a_receipt_costs_the_same_for_any_number_of_members() {
    let count = |members: usize| {
        let mut audience = Audience::new(members);
        allocation_counter::measure(|| {
            let receipt = Arc::new(Receipt::new(move |delivery: Delivery| {
                assert_eq!(delivery.delivered, members as u64);
            }));
            receipt.expect();
            audience.publish(1, Some(&receipt));
            receipt.report(Delivery::default());
        })
        .count_total
    };
    let (few, many) = (count(10), count(1_000));
    assert_eq!(few, many);
    assert!(few <= 2, "the receipt and its callback, not {few}");
}

/// Connections that take 1,000 bytes of the first thing they are sent, and nothing more.
#[derive(Default)]
struct Stopped(Vec<bool>);

impl Sink for Stopped {
    fn send(&mut self, lane: u32, _bytes: &[u8]) -> Outcome {
        self.0.resize(self.0.len().max(lane as usize + 1), false);
        Outcome::Taken(if std::mem::replace(&mut self.0[lane as usize], true) { 0 } else { 1_000 })
    }

    fn send_vectored(&mut self, _lane: u32, _slices: &[IoSlice<'_>]) -> Outcome {
        Outcome::Taken(0)
    }
}

/// A publication of this length, made once.
struct Long(Vec<u8>);

impl Encode for Long {
    const VARIANTS: u8 = 1;
    type Tools = ();
    type Room = ();

    fn encode(&self, _variant: u8, _tools: &mut (), out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn payload_bytes(&self) -> usize {
        self.0.len()
    }
}

#[test]
fn who_is_evicted_in_the_middle_of_a_long_message_gets_no_copy_of_it() {
    const MEMBERS: usize = 200;
    let long = Long(vec![b'x'; 64 * 1024]);
    let stats = Arc::new(ShardStats::default());
    let limits = OutboxLimits { outbox_bytes_max: 128 * 1024, ..OutboxLimits::default() };
    let mut shard = Shard::new(limits, 65_536, Arc::new(Budget::new(1 << 30)), stats);
    let lanes: Vec<_> = (0..MEMBERS).map(|_| shard.open(0)).collect();
    assert!(lanes.iter().all(|&lane| shard.join(lane, ROOM, 0)));
    let mut sink = Stopped::default();
    let allocated = allocation_counter::measure(|| {
        for seq in 1..=3 {
            shard.accept(ROOM, seq, &long, None, None);
            while shard.flush(&mut sink, FlushQuota::default()) {}
        }
        for &lane in &lanes {
            assert!(
                !shard.last_words(lane, b"goodbye", &mut sink),
                "the message that was begun is still to be finished"
            );
        }
    });
    let mut events = Vec::new();
    shard.take_events(&mut events);
    let evicted = events.iter().filter(|event| matches!(event, LaneEvent::Evicted(..))).count();
    assert_eq!(evicted, MEMBERS);
    assert!(lanes.iter().all(|&lane| shard.queued(lane).bytes == long.0.len() - 1_000 + b"goodbye".len()));
    let each = allocated.bytes_total / MEMBERS as u64;
    assert!(each < 4_096, "{each} bytes were allocated for each who was evicted, of messages of {}", long.0.len());
}
