//! The shard, and what the model knows about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fanfare_fanout::{Budget, Delivery, LaneId, OutboxLimits, Receipt, Released, Shard, ShardStats, Slow};
use parking_lot::Mutex;

use crate::dice::Dice;
use crate::said::Said;
use crate::wires::Wires;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Open,
    Evicted,
    Closing,
    Gone,
    Closed,
}

/// Least and most that something may count for.
pub(crate) type Count = (u64, u64);

/// An event that a client should get.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) said: Said,
    pub(crate) size: usize,
    pub(crate) published_at: u64,
    pub(crate) left_at: Option<u64>,
    /// What it must count for in the receipt: as delivered, and as delivered or evicted. Unknown until the client has ended.
    pub(crate) counts: Option<(Count, Count)>,
}

pub(crate) const GIVEN: (Count, Count) = ((1, 1), (1, 1));
/// Given or dropped: which of the two is known only once it has been received or not.
pub(crate) const GIVEN_OR_DROPPED: (Count, Count) = ((0, 1), (1, 1));

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) lane: LaneId,
    pub(crate) variant: u8,
    pub(crate) life: Life,
    /// Room and number of the last event before the join.
    pub(crate) rooms: BTreeMap<u64, u64>,
    /// In the order of publishing.
    pub(crate) dues: Vec<Due>,
    pub(crate) control: Vec<u64>,
    /// With the time each was given.
    pub(crate) data: Vec<(u64, u64)>,
    /// It has been in a room that drops, and can be told: what is queued for it may shrink.
    pub(crate) may_miss: bool,
    /// Room and number of what it received.
    pub(crate) got: BTreeSet<(u64, u64)>,
    /// Bytes of the replies that were not refused.
    pub(crate) reply_bytes: usize,
    pub(crate) is_watched: bool,
    pub(crate) words: Option<Vec<u8>>,
    /// What it must have received in the end, to the byte, where that is known.
    pub(crate) bytes_in_the_end: Option<usize>,
    pub(crate) received: Vec<u8>,
}

/// How a client stood before an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    /// Bytes of room events taken or queued.
    pub(crate) pushed: usize,
    pub(crate) has_queue: bool,
}

/// What receipts have told, by room and number of the event.
pub(crate) type Deliveries = Arc<Mutex<BTreeMap<(u64, u64), Vec<Delivery>>>>;

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) shard: Shard<Said>,
    pub(crate) wires: Wires,
    pub(crate) limits: OutboxLimits,
    pub(crate) reply_bytes_max: usize,
    pub(crate) budget: Arc<Budget>,
    pub(crate) is_budget_small: bool,
    pub(crate) stats: Arc<ShardStats>,
    pub(crate) pad_max: usize,
    /// Clients listen to one room at a time: then every receipt is known exactly.
    pub(crate) is_single: bool,
    pub(crate) rooms: u64,
    /// By room.
    pub(crate) policies: Vec<Slow>,
    /// Publications that clients were told they were not given.
    pub(crate) announced: u64,
    /// No client that may have missed something ended before it was told.
    pub(crate) is_all_told: bool,
    pub(crate) clients: Vec<Client>,
    /// Number of the last event of each room.
    pub(crate) seqs: BTreeMap<u64, u64>,
    pub(crate) backlog: VecDeque<(Said, Option<LaneId>, Option<Arc<Receipt>>)>,
    pub(crate) told: Deliveries,
    pub(crate) receipts_asked: BTreeSet<(u64, u64)>,
    /// Events whose receipt had been told before the operation under way.
    pub(crate) told_before: BTreeSet<(u64, u64)>,
    pub(crate) accepted: Released,
    pub(crate) released: Released,
    pub(crate) clock: u64,
    pub(crate) step_began: u64,
    /// Times at which nothing waited for a flush.
    pub(crate) flushed: Vec<u64>,
    pub(crate) evictions: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let bounds = [(120, 3), (400, 8), (2_000, 16), (20_000, 64), (300_000, 200)];
        let (outbox_bytes_max, outbox_messages_max) = bounds[dice.below(bounds.len())];
        let limits = OutboxLimits { outbox_bytes_max, outbox_messages_max };
        let reply_bytes_max = 60 + dice.below(1_000);
        let is_budget_small = dice.percent(25);
        let budget = Arc::new(Budget::new(if is_budget_small { 300 + dice.below(4_000) } else { 1 << 40 }));
        let stats = Arc::new(ShardStats::default());
        Self {
            shard: Shard::new(limits, reply_bytes_max, budget.clone(), stats.clone()),
            wires: Wires::default(),
            limits,
            reply_bytes_max,
            budget,
            is_budget_small,
            stats,
            pad_max: [8, 40, 300, 3_000][dice.below(4)],
            is_single: dice.percent(60),
            rooms: 1 + dice.below(4) as u64,
            policies: (0..4).map(|_| Slow::ALL[dice.below(4)]).collect(),
            announced: 0,
            is_all_told: true,
            clients: Vec::new(),
            seqs: BTreeMap::new(),
            backlog: VecDeque::new(),
            told: Deliveries::default(),
            receipts_asked: BTreeSet::new(),
            told_before: BTreeSet::new(),
            accepted: Released::default(),
            released: Released::default(),
            clock: 0,
            step_began: 0,
            flushed: Vec::new(),
            evictions: 0,
            dice,
        }
    }

    pub(crate) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A client that has not been closed.
    pub(crate) fn some_client(&mut self) -> Option<usize> {
        let open: Vec<usize> = (0..self.clients.len()).filter(|&n| self.clients[n].life != Life::Closed).collect();
        self.dice.pick(&open)
    }

    pub(crate) fn some_room(&mut self) -> u64 {
        self.dice.below(self.rooms as usize) as u64
    }

    pub(crate) fn before(&mut self) -> Vec<Before> {
        let nothing = Before { pushed: 0, has_queue: false };
        (0..self.clients.len())
            .map(|n| if self.clients[n].life == Life::Closed { nothing } else { self.standing(n) })
            .collect()
    }

    pub(crate) fn standing(&mut self, n: usize) -> Before {
        let client = &self.clients[n];
        let queued = self.shard.queued(client.lane).bytes;
        let given = self.wires.at(client.lane).received.len() + queued;
        // Last words and refused replies are no room events, but they come only after the client has been settled.
        Before { pushed: given.saturating_sub(client.reply_bytes), has_queue: queued > 0 }
    }
}
