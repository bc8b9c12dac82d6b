//! Shards of several threads around what they share: the budget, the receipt of a publication, the intake. Each model is tried in every
//! order of its threads that loom finds.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release -p fanfare-fanout loom_`
#![cfg(loom)]

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Tally, Ordering::Relaxed};

use fanfare_fanout::{
    Budget, Delivery, Encode, FlushQuota, Intake, IntakeLimits, LaneEvent, LaneId, OutboxLimits, Outcome, Receipt,
    RoomId, Shard, ShardStats, Sink,
};
use loom::thread;

const ROOM: RoomId = RoomId(1);

/// An event is its text, in one variant.
struct Text(&'static str);

impl Encode for Text {
    const VARIANTS: u8 = 1;
    type Tools = ();
    type Room = ();

    fn encode(&self, _: u8, (): &mut (), out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn payload_bytes(&self) -> usize {
        self.0.len()
    }
}

/// What each lane has received, and how much more it takes.
#[derive(Default)]
struct Wires(BTreeMap<u32, (Vec<u8>, usize)>);

impl Sink for Wires {
    fn send(&mut self, lane: u32, bytes: &[u8]) -> Outcome {
        let (received, takes) = self.0.get_mut(&lane).expect("an open lane");
        let taken = bytes.len().min(*takes);
        *takes -= taken;
        received.extend_from_slice(&bytes[..taken]);
        Outcome::Taken(taken)
    }

    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.send(lane, &bytes)
    }
}

/// A shard whose members are in one room; `takes` is what each of them takes.
struct Node {
    shard: Shard<Text>,
    wires: Wires,
    lanes: Vec<LaneId>,
}

impl Node {
    fn new(outbox_bytes_max: usize, budget: &Arc<Budget>, stats: &Arc<ShardStats>, takes: &[usize]) -> Self {
        let limits = OutboxLimits { outbox_bytes_max, outbox_messages_max: 100 };
        let mut shard = Shard::new(limits, 100, budget.clone(), stats.clone());
        let mut wires = Wires::default();
        let lanes = takes
            .iter()
            .map(|&takes| {
                let lane = shard.open(0);
                wires.0.insert(lane.index, (Vec::new(), takes));
                assert!(shard.join(lane, ROOM, 0));
                lane
            })
            .collect();
        Self { shard, wires, lanes }
    }

    fn take(&mut self, seq: u64, text: &'static str, receipt: Option<Arc<Receipt>>) {
        self.shard.accept(ROOM, seq, &Text(text), None, receipt);
        self.shard.flush(&mut self.wires, FlushQuota::default());
    }

    /// Lanes evicted since the last call.
    fn evicted(&mut self) -> usize {
        let mut events = Vec::new();
        self.shard.take_events(&mut events);
        events.iter().filter(|event| matches!(event, LaneEvent::Evicted(..))).count()
    }

    /// What all members together have queued, bytes.
    fn queued(&self) -> usize {
        self.lanes.iter().map(|&lane| self.shard.queued(lane).bytes).sum()
    }

    /// Closes every lane; what was queued is let go.
    fn close(mut self) {
        for lane in self.lanes.drain(..) {
            self.shard.close(lane);
        }
    }
}

/// Bytes are charged by shards at the same time: never more than the budget has, nobody is refused what is there for all, and all of
/// it comes back.
#[test]
fn loom_the_budget_is_exact_over_shards() {
    loom::model(|| {
        // Two queues of four bytes each want to be kept; there is room for one, and for the other none.
        let (budget, stats) = (Arc::new(Budget::new(7)), Arc::new(ShardStats::default()));
        let shards: Vec<_> = (0..2)
            .map(|_| {
                let mut node = Node::new(100, &budget, &stats, &[0]);
                let budget = budget.clone();
                thread::spawn(move || {
                    node.take(1, "abcd", None);
                    assert!(budget.used() <= 7, "over the budget");
                    let (queued, evicted) = (node.queued(), node.evicted());
                    assert_eq!((queued / 4) + evicted, 1, "either kept or evicted");
                    node.close();
                    queued
                })
            })
            .collect();
        let kept: usize = shards.into_iter().map(|shard| shard.join().expect("a shard")).sum();
        assert!(kept >= 4, "the first to come finds room");
        assert_eq!(budget.used(), 0, "all of it came back");
    });
}

/// A lane that takes its bytes gives their charge back while another shard charges.
#[test]
fn loom_what_is_released_can_be_charged() {
    loom::model(|| {
        let (budget, stats) = (Arc::new(Budget::new(8)), Arc::new(ShardStats::default()));
        let mut slow = Node::new(100, &budget, &stats, &[0]);
        slow.take(1, "abcd", None);
        assert_eq!(budget.used(), 4);
        let (mut other, shared) = (Node::new(100, &budget, &stats, &[0, 0]), budget.clone());
        let thread = thread::spawn(move || {
            other.take(1, "efgh", None);
            assert!(shared.used() <= 8);
            let kept = other.queued();
            let evicted = other.evicted();
            assert_eq!(kept / 4 + evicted, 2);
            other.close();
            kept
        });
        let lane = slow.lanes[0];
        slow.wires.0.get_mut(&lane.index).expect("a wire").1 = 100;
        assert!(slow.shard.writable(lane, &mut slow.wires).is_empty);
        let kept = thread.join().expect("the other shard");
        assert!(kept == 4 || kept == 8, "one finds room for certain, both when the charge was back in time: {kept}");
        assert_eq!(budget.used(), 0);
        slow.close();
    });
}

/// One publication, two shards, a slow member on each: the receipt counts everybody once, and is told once.
#[test]
fn loom_a_receipt_counts_evictions_of_all_shards() {
    loom::model(|| {
        let (budget, stats) = (Arc::new(Budget::new(1_000)), Arc::new(ShardStats::default()));
        let told = Arc::new((Tally::new(0), Tally::new(0), Tally::new(0)));
        let seen = told.clone();
        let receipt = Arc::new(Receipt::new(move |delivery: Delivery| {
            seen.0.fetch_add(1, Relaxed);
            seen.1.fetch_add(delivery.delivered as usize, Relaxed);
            seen.2.fetch_add(delivery.evicted as usize, Relaxed);
        }));
        let shards: Vec<_> = [&[100, 0][..], &[0, 1, 100]]
            .into_iter()
            .map(|takes| {
                // Not even one message fits: whoever does not take it at once is evicted.
                let mut node = Node::new(2, &budget, &stats, takes);
                receipt.expect();
                let receipt = receipt.clone();
                thread::spawn(move || {
                    node.take(1, "abcd", Some(receipt));
                    let evicted = node.evicted();
                    node.close();
                    evicted
                })
            })
            .collect();
        receipt.report(Delivery::default());
        let evicted: usize = shards.into_iter().map(|shard| shard.join().expect("a shard")).sum();
        assert_eq!((told.0.load(Relaxed), told.1.load(Relaxed), told.2.load(Relaxed)), (1, 2, 3));
        assert_eq!(evicted, 3);
        assert_eq!(stats.evicted.load(loom::sync::atomic::Ordering::Relaxed), 3);
        assert_eq!(budget.used(), 0);
    });
}

/// What is handed to a shard that sleeps.
enum Item {
    /// A connection whose handshake is done.
    Adopt,
    Said(u64, &'static str),
}

/// A publication goes from its publisher's thread through the intake into the outbox of a member that does not read, in order, whether
/// the shard sleeps or not; and nothing is left behind.
#[test]
fn loom_publications_are_handed_over_to_an_outbox_in_order() {
    loom::model(|| {
        let (budget, stats) = (Arc::new(Budget::new(1_000)), Arc::new(ShardStats::default()));
        let notified = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
        let counter = notified.clone();
        let intake = Arc::new(Intake::new(IntakeLimits { intake_items_max: 2, intake_bytes_max: 8 }, move || {
            counter.fetch_add(1, Relaxed);
        }));
        let publisher = {
            let intake = intake.clone();
            thread::spawn(move || {
                for (seq, text) in [(1, "abcd"), (2, "efgh")] {
                    assert_eq!(intake.reserve(4), Ok(()), "nobody else is there");
                    intake.push(Item::Said(seq, text));
                }
            })
        };
        let mut node = Node::new(100, &budget, &stats, &[1]);
        let mut taken = 0;
        let mut take_all = |node: &mut Node| {
            while let Some(Item::Said(seq, text)) = intake.pop() {
                node.take(seq, text, None);
                taken += 1;
            }
            let released = node.shard.take_released();
            intake.release(released.items, released.bytes);
        };
        take_all(&mut node);
        let sleeps = intake.prepare_sleep();
        publisher.join().expect("the publisher");
        if sleeps && !intake.is_empty() {
            assert_eq!(notified.load(Relaxed), 1, "it slept and must be woken once");
        }
        intake.awake();
        take_all(&mut node);
        assert_eq!(taken, 2);
        let lane = node.lanes[0];
        assert_eq!(node.shard.queued(lane).bytes, 7);
        node.wires.0.get_mut(&lane.index).expect("a wire").1 = 100;
        assert!(node.shard.writable(lane, &mut node.wires).is_empty);
        assert_eq!(node.wires.0[&lane.index].0, b"abcdefgh");
        assert_eq!(intake.reserve(8), Ok(()), "all bytes came back");
        assert_eq!(intake.reserve(0), Ok(()), "all items came back");
        assert_eq!(budget.used(), 0);
        node.close();
    });
}

/// A connection is handed over by the thread of its handshake while another publishes: it is adopted though the shard was about to
/// sleep, and gets exactly what was said after it joined.
#[test]
fn loom_a_connection_is_handed_over_and_misses_nothing() {
    loom::model(|| {
        let (budget, stats) = (Arc::new(Budget::new(1_000)), Arc::new(ShardStats::default()));
        let notified = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
        let counter = notified.clone();
        let intake = Arc::new(Intake::new(IntakeLimits::default(), move || _ = counter.fetch_add(1, Relaxed)));
        // Stands for the room's lock: its order is the order in the intake.
        let order = Arc::new(loom::sync::Mutex::new(0));
        let handshake = {
            let intake = intake.clone();
            thread::spawn(move || intake.push(Item::Adopt))
        };
        let publisher = {
            let (intake, order) = (intake.clone(), order.clone());
            thread::spawn(move || {
                let mut seq = order.lock().expect("not poisoned");
                *seq += 1;
                intake.push_quietly(Item::Said(*seq, "abcd"));
                drop(seq);
                intake.wake();
            })
        };
        let mut node = Node::new(100, &budget, &stats, &[]);
        let mut joined_at = None;
        let mut take_all = |node: &mut Node| {
            while let Some(item) = intake.pop() {
                match item {
                    Item::Said(seq, text) => node.take(seq, text, None),
                    Item::Adopt => {
                        let lane = node.shard.open(0);
                        node.wires.0.insert(lane.index, (Vec::new(), 100));
                        node.lanes.push(lane);
                        let seq = *order.lock().expect("not poisoned");
                        assert!(node.shard.join(lane, ROOM, seq));
                        joined_at = Some(seq);
                    }
                }
            }
        };
        take_all(&mut node);
        let sleeps = intake.prepare_sleep();
        handshake.join().expect("the handshake");
        publisher.join().expect("the publisher");
        assert!(!sleeps || intake.is_empty() || notified.load(Relaxed) == 1, "it slept and must be woken once");
        intake.awake();
        take_all(&mut node);
        let joined_at = joined_at.expect("the connection was adopted");
        let expected: &[u8] = if joined_at == 0 { b"abcd" } else { b"" };
        assert_eq!(node.wires.0[&node.lanes[0].index].0, expected, "joined at {joined_at}");
        node.close();
    });
}
