//! Scenes of members that do not keep up: what they get, what they are told, and what receipts say.
#![cfg(not(loom))]

use std::collections::BTreeMap;
use std::io::{IoSlice, Write};
use std::sync::Arc;

use fanfare_fanout::{
    Budget, Delivery, Encode, FlushQuota, Gap, LaneEvent, LaneId, OutboxLimits, Outcome, Receipt, RoomId, Shard,
    ShardStats, Sink, Slow,
};
use parking_lot::Mutex;

/// Says its room and its number. Variant 1 has no word for a gap.
struct Said(u64, u64);

impl Encode for Said {
    const VARIANTS: u8 = 2;
    type Tools = ();
    type Room = u64;

    fn encode(&self, _variant: u8, _tools: &mut (), out: &mut Vec<u8>) {
        write!(out, "[{}:{}]", self.0, self.1).expect("memory takes everything");
    }
    fn payload_bytes(&self) -> usize {
        1
    }
    fn number(&self) -> Option<u64> {
        Some(self.1)
    }
    fn encode_gap(room: &u64, variant: u8, gap: Gap, out: &mut Vec<u8>) {
        if variant == 0 {
            write!(out, "<{room}:{}-{}:{}>", gap.from, gap.to, gap.count).expect("memory takes everything");
        }
    }
}

/// Takes so many bytes more.
#[derive(Default)]
struct Wire {
    takes: usize,
    received: Vec<u8>,
}

impl Sink for Wire {
    fn send(&mut self, _lane: u32, bytes: &[u8]) -> Outcome {
        let taken = bytes.len().min(self.takes);
        self.takes -= taken;
        self.received.extend_from_slice(&bytes[..taken]);
        Outcome::Taken(taken)
    }
    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.send(lane, &bytes)
    }
}

/// One lane that takes nothing unless it is told to.
struct Stage {
    shard: Shard<Said>,
    stats: Arc<ShardStats>,
    wire: Wire,
    lane: LaneId,
    receipts: Arc<Mutex<Vec<(u64, Delivery)>>>,
}

impl Stage {
    /// In rooms with these policies, numbered from 0.
    fn new(variant: u8, policies: &[Slow], outbox_messages_max: usize) -> Self {
        let stats = Arc::new(ShardStats::default());
        let limits = OutboxLimits { outbox_bytes_max: 10_000, outbox_messages_max };
        let mut shard = Shard::new(limits, 1_000, Arc::new(Budget::new(1 << 20)), stats.clone());
        let lane = shard.open(variant);
        for (room, &slow) in (0..).zip(policies) {
            assert!(shard.join(lane, RoomId(room), 0));
            shard.set_slow(RoomId(room), slow, room);
        }
        Self { shard, stats, wire: Wire::default(), lane, receipts: Arc::default() }
    }

    fn say(&mut self, room: u64, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let told = self.receipts.clone();
            let receipt = Receipt::new(move |delivery| told.lock().push((number, delivery)));
            self.shard.accept(RoomId(room), number, &Said(room, number), None, Some(Arc::new(receipt)));
        }
        while self.shard.flush(&mut self.wire, FlushQuota::default()) {}
    }

    /// Everything is taken: what the client has received in all.
    fn read(&mut self) -> String {
        self.wire.takes = usize::MAX;
        assert!(self.shard.writable(self.lane, &mut self.wire).is_empty);
        String::from_utf8(std::mem::take(&mut self.wire.received)).expect("frames are text")
    }

    fn evicted(&mut self) -> Option<Slow> {
        let mut events = Vec::new();
        self.shard.take_events(&mut events);
        events.iter().find_map(|event| match event {
            LaneEvent::Evicted(_, _, slow) => Some(*slow),
            LaneEvent::Blocked(_) | LaneEvent::Gone(_) => None,
        })
    }

    /// Numbers that receipts have so far called delivered, and dropped.
    fn receipts(&mut self) -> (Vec<u64>, Vec<u64>) {
        let told = std::mem::take(&mut *self.receipts.lock());
        let of = |is: fn(&Delivery) -> bool| told.iter().filter(|(_, d)| is(d)).map(|&(n, _)| n).collect();
        (of(|d| *d == Delivery { delivered: 1, ..Delivery::default() }), of(|d| d.dropped == 1 && d.delivered == 0))
    }
}

#[test]
fn the_oldest_make_place_and_are_told_before_the_next() {
    let mut stage = Stage::new(0, &[Slow::DropOldest], 8);
    stage.wire.takes = 2;
    (1..=20).for_each(|number| stage.say(0, [number]));
    assert_eq!(stage.evicted(), None);
    assert_eq!(stage.receipts(), ((1..=20).collect(), vec![]), "each was queued when its receipt was told");
    assert_eq!((stage.stats.dropped(Slow::DropOldest), stage.stats.dropped(Slow::Latest)), (12, 0));
    assert_eq!(stage.read(), "[0:1]<0:2-13:12>[0:14][0:15][0:16][0:17][0:18][0:19][0:20]");
    stage.say(0, [21]);
    assert_eq!(stage.read(), "[0:21]", "who has caught up is like the others");
}

#[test]
fn only_the_newest_is_queued_and_receipts_say_which_were_not() {
    let mut stage = Stage::new(0, &[Slow::Latest], 16);
    stage.say(0, [1, 2, 3]);
    assert_eq!(stage.receipts(), (vec![3], vec![1, 2]));
    stage.say(0, [4]);
    stage.say(0, [5, 6]);
    assert_eq!(stage.receipts(), (vec![4, 6], vec![5]));
    assert_eq!(stage.shard.queued(stage.lane).messages, 1);
    assert_eq!(stage.stats.dropped(Slow::Latest), 5);
    assert_eq!(stage.read(), "<0:1-5:5>[0:6]");
}

#[test]
fn messages_of_rooms_that_drop_nothing_are_never_dropped_for_others() {
    let mut stage = Stage::new(0, &[Slow::Evict, Slow::DropOldest], 8);
    stage.say(1, [1, 2]);
    (1..=7).for_each(|number| stage.say(0, [number]));
    assert_eq!(stage.evicted(), None, "there was something that could go");
    stage.say(0, [8]);
    stage.receipts();
    stage.say(1, [3, 4]);
    assert_eq!(stage.receipts(), (vec![], vec![3, 4]), "what could not even be queued is told as dropped");
    assert_eq!(stage.read(), "<1:1-4:4>[0:1][0:2][0:3][0:4][0:5][0:6][0:7][0:8]");
    let mut stage = Stage::new(0, &[Slow::Evict, Slow::DropOldest], 8);
    (1..=9).for_each(|number| stage.say(0, [number]));
    assert_eq!(stage.evicted(), Some(Slow::Evict));
}

#[test]
fn who_cannot_be_told_is_closed_instead() {
    for slow in [Slow::DropOldest, Slow::Latest] {
        let mut stage = Stage::new(1, &[slow], 8);
        (1..=9).for_each(|number| stage.say(0, [number]));
        assert_eq!((stage.evicted(), stage.stats.dropped(slow)), (Some(slow), 0));
    }
}

#[test]
fn a_room_that_can_be_come_back_to_says_so_when_it_evicts() {
    let mut stage = Stage::new(0, &[Slow::EvictResumable], 8);
    (1..=9).for_each(|number| stage.say(0, [number]));
    assert_eq!(stage.evicted(), Some(Slow::EvictResumable));
}

#[test]
fn who_leaves_is_told_what_it_missed_before_it_left() {
    let mut stage = Stage::new(0, &[Slow::Latest, Slow::Evict], 8);
    stage.say(0, [1, 2]);
    assert!(stage.shard.leave(stage.lane, RoomId(0), &mut stage.wire));
    stage.say(1, [1]);
    assert_eq!(stage.read(), "<0:1-1:1>[0:2][1:1]");
}

/// Each lane takes so many bytes more.
#[derive(Default)]
struct Wires(BTreeMap<u32, Wire>);

impl Sink for Wires {
    fn send(&mut self, lane: u32, bytes: &[u8]) -> Outcome {
        self.0.entry(lane).or_default().send(lane, bytes)
    }
    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        self.0.entry(lane).or_default().send_vectored(lane, slices)
    }
}

/// Says `#` so many times.
struct Long(u64, usize);

impl Encode for Long {
    const VARIANTS: u8 = 1;
    type Tools = ();
    type Room = ();

    fn encode(&self, _variant: u8, _tools: &mut (), out: &mut Vec<u8>) {
        out.resize(out.len() + self.1, b'#');
    }
    fn payload_bytes(&self) -> usize {
        self.1
    }
    fn number(&self) -> Option<u64> {
        Some(self.0)
    }
    fn encode_gap(_room: &(), _variant: u8, gap: Gap, out: &mut Vec<u8>) {
        write!(out, "<{}-{}:{}>", gap.from, gap.to, gap.count).expect("memory takes everything");
    }
}

/// A shard with a budget of 1,000 bytes, and a lane in a room of its own for each of these policies.
struct Poor {
    shard: Shard<Long>,
    budget: Arc<Budget>,
    stats: Arc<ShardStats>,
    wires: Wires,
    lanes: Vec<LaneId>,
    numbers: u64,
}

impl Poor {
    fn new(policies: &[Slow]) -> Self {
        let (budget, stats) = (Arc::new(Budget::new(1_000)), Arc::<ShardStats>::default());
        let mut shard = Shard::new(OutboxLimits::default(), 1_000, budget.clone(), stats.clone());
        let lanes: Vec<LaneId> = policies.iter().map(|_| shard.open(0)).collect();
        for ((room, &slow), &lane) in (0..).zip(policies).zip(&lanes) {
            assert!(shard.join(lane, RoomId(room), 0));
            shard.set_slow(RoomId(room), slow, ());
        }
        Self { shard, budget, stats, wires: Wires::default(), lanes, numbers: 0 }
    }

    /// Queues a message for the lane in this room.
    fn say(&mut self, room: usize, bytes: usize) {
        self.numbers += 1;
        self.shard.accept(RoomId(room as u64), self.numbers, &Long(self.numbers, bytes), None, None);
        while self.shard.flush(&mut self.wires, FlushQuota::default()) {}
        let queued: usize = self.queued().iter().sum();
        assert_eq!(self.budget.used(), queued);
    }

    fn queued(&self) -> Vec<usize> {
        self.lanes.iter().map(|&lane| self.shard.queued(lane).bytes).collect()
    }

    /// Lanes that were evicted, with what was queued for them.
    fn evicted(&mut self) -> Vec<(usize, usize, Slow)> {
        let mut events = Vec::new();
        self.shard.take_events(&mut events);
        let place = |lane| self.lanes.iter().position(|&own| own == lane).expect("a lane of ours");
        events
            .into_iter()
            .filter_map(|event| match event {
                LaneEvent::Evicted(lane, queued, slow) => Some((place(lane), queued.bytes, slow)),
                LaneEvent::Blocked(_) | LaneEvent::Gone(_) => None,
            })
            .collect()
    }
}

#[test]
fn the_largest_queue_goes_when_the_budget_is_used_up_not_who_comes_last() {
    let mut poor = Poor::new(&[Slow::EvictResumable, Slow::Evict, Slow::Evict]);
    (0..6).for_each(|_| poor.say(0, 100));
    (0..4).for_each(|_| poor.say(1, 100));
    poor.say(2, 100);
    assert_eq!(poor.evicted(), [(0, 600, Slow::EvictResumable)], "by its own room's policy");
    assert_eq!(poor.queued(), [0, 400, 100]);
    (0..5).for_each(|_| poor.say(2, 100));
    assert_eq!((poor.evicted(), poor.queued()), (vec![], vec![0, 400, 600]));
    poor.say(2, 100);
    assert_eq!(poor.evicted(), [(2, 600, Slow::Evict)], "who is the largest itself goes itself");
}

#[test]
fn half_of_the_largest_queue_goes_where_its_room_drops() {
    let mut poor = Poor::new(&[Slow::DropOldest, Slow::Evict]);
    (0..9).for_each(|_| poor.say(0, 100));
    poor.say(1, 200);
    assert_eq!(poor.evicted(), []);
    // The gap is charged with as much as it may ever need.
    assert_eq!(poor.queued(), [300 + "<>-:".len() + 3 * 20, 200]);
    assert_eq!(poor.stats.dropped(Slow::DropOldest), 6, "what makes place is counted");
    poor.wires.0.entry(poor.lanes[0].index).or_default().takes = usize::MAX;
    assert!(poor.shard.writable(poor.lanes[0], &mut poor.wires).is_empty);
    let received = &poor.wires.0[&poor.lanes[0].index].received;
    assert!(received.starts_with(b"<1-6:6>##"), "{:?}", String::from_utf8_lossy(received));
}

#[test]
fn nobody_goes_for_who_needs_far_more() {
    let mut poor = Poor::new(&[Slow::Evict, Slow::Evict]);
    poor.say(0, 100);
    poor.say(1, 950);
    assert_eq!(poor.evicted(), [(1, 950, Slow::Evict)]);
    assert_eq!(poor.queued()[0], 100);
}
