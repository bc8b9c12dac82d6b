//! The audience of one thread: lanes, rooms, and the flush that is the hot path.

mod flush;
mod gather;
mod relief;
mod reply;
mod slow;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;

use crate::batch::{Batch, Encode, VARIANTS_MAX};
use crate::lane::{End, LaneState, Subscription};
use crate::outbox::{Droppable, Outbox};
use crate::policy::Rules;
use crate::room::{ByRoomId, LocalRoom, Member};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::{Budget, Gap, LaneId, Latencies, OutboxLimits, Queued, RoomId, Sink, Slow};

pub use self::flush::FlushQuota;
use self::gather::Round;
use self::relief::Blocked;
pub use self::reply::Progress;

/// What its owner must do about a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneEvent {
    /// Something is queued from now on: watch the write deadline.
    Blocked(LaneId),
    /// It could not take what a room with this policy sent within its bounds, or its own replies. Nothing more is queued; close it and
    /// say so.
    Evicted(LaneId, Queued, Slow),
    /// Its socket failed.
    Gone(LaneId),
}

/// Totals of one shard, readable from any thread.
#[derive(Debug, Default)]
pub struct ShardStats {
    /// Publications times members that took them or have them queued.
    pub delivered: AtomicU64,
    /// Lanes evicted.
    pub evicted: AtomicU64,
    /// Publications times members that were to get them and did not, by the policy of [`Slow::DropOldest`] and of [`Slow::Latest`]: at once
    /// or after they had been queued.
    pub dropped: [AtomicU64; 2],
    /// Time from a publication to the end of its flush on this shard.
    pub publish_to_write: Latencies,
}

impl ShardStats {
    fn count_dropped(&self, message: &Droppable) {
        self.dropped[usize::from(message.is_latest)].fetch_add(1, Ordering::Relaxed);
    }

    /// Publications times members that did not get them, by this policy.
    #[must_use]
    pub fn dropped(&self, slow: Slow) -> u64 {
        match slow {
            Slow::DropOldest => self.dropped[0].load(Ordering::Relaxed),
            Slow::Latest => self.dropped[1].load(Ordering::Relaxed),
            Slow::Evict | Slow::EvictResumable => 0,
        }
    }
}

/// What a flush finished; release it at the intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Released {
    /// Publications.
    pub items: usize,
    /// Payload bytes.
    pub bytes: usize,
}

/// The audience of one thread. Owned by it; no locks.
#[derive(Debug)]
pub struct Shard<P: Encode> {
    lanes: Slab<LaneState>,
    generation: u32,
    rooms: Slab<LocalRoom<P::Room>>,
    by_id: ByRoomId<u32>,
    /// Rooms with something to flush, each once.
    dirty: VecDeque<u32>,
    /// Rooms whose batch may still grow, by the time it may do so until.
    waiting: BinaryHeap<Reverse<(Duration, u32)>>,
    /// The coarse clock, as last told.
    now: Duration,
    limits: OutboxLimits,
    /// Bytes of its own replies a lane may have queued before it is evicted.
    reply_bytes_max: usize,
    budget: Arc<Budget>,
    stats: Arc<ShardStats>,
    #[expect(clippy::vec_box, reason = "batches are large and move between queues; boxes move as a pointer")]
    spare: Vec<Box<Batch>>,
    events: Vec<LaneEvent>,
    /// Lanes with something queued, and some that had.
    blocked: Blocked,
    released: Released,
    /// When publications were made whose flush has ended, until [`Self::measure`].
    written: Vec<Duration>,
    round: Round,
    tools: P::Tools,
}

impl<P: Encode> Shard<P> {
    /// An empty shard.
    pub fn new(limits: OutboxLimits, reply_bytes_max: usize, budget: Arc<Budget>, stats: Arc<ShardStats>) -> Self {
        assert!(P::VARIANTS as usize <= VARIANTS_MAX, "at most {VARIANTS_MAX} variants");
        Self {
            lanes: Slab::new(),
            generation: 0,
            rooms: Slab::new(),
            by_id: ByRoomId::default(),
            dirty: VecDeque::new(),
            waiting: BinaryHeap::new(),
            now: Duration::ZERO,
            limits,
            reply_bytes_max,
            budget,
            stats,
            spare: Vec::new(),
            events: Vec::new(),
            blocked: Blocked::default(),
            released: Released::default(),
            written: Vec::new(),
            round: Round::default(),
            tools: P::Tools::default(),
        }
    }

    /// Other bounds from here on. What is queued stays.
    pub fn set_limits(&mut self, limits: OutboxLimits, reply_bytes_max: usize) {
        self.limits = limits;
        self.reply_bytes_max = reply_bytes_max;
    }

    /// What events are encoded with.
    pub fn tools(&mut self) -> &mut P::Tools {
        &mut self.tools
    }

    // ---- lanes ----

    /// Opens a lane that takes frames of `variant`.
    pub fn open(&mut self, variant: u8) -> LaneId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.lanes.insert(LaneState {
            generation,
            round: 0,
            variant,
            end: End::Open,
            is_torn: false,
            is_listed: false,
            slow: Slow::Evict,
            outbox: None,
            subscriptions: SmallVec::new(),
        });
        LaneId { index: index as u32, generation }
    }

    /// Says which variant a lane takes that was opened before that was known. It is in no room yet.
    pub fn set_variant(&mut self, lane: LaneId, variant: u8) {
        if let Some(state) = self.lanes.get_mut(lane.index as usize).filter(|s| s.generation == lane.generation) {
            debug_assert!(state.subscriptions.is_empty(), "rooms count their members by variant");
            state.variant = variant;
        }
    }

    /// Closes a lane: it leaves its rooms at once and what is queued is let go. Returns the rooms it was in.
    pub fn close(&mut self, lane: LaneId) -> SmallVec<[RoomId; 4]> {
        let mut left = SmallVec::new();
        if !self.is_open(lane) {
            return left;
        }
        while let Some(subscription) = self.lanes[lane.index as usize].subscriptions.last().copied() {
            left.push(self.rooms[subscription.room as usize].id);
            self.remove_member(lane, subscription);
        }
        let state = self.lanes.remove(lane.index as usize);
        if let Some(outbox) = state.outbox {
            self.budget.release(outbox.queued().bytes);
        }
        left
    }

    /// True while the lane is open.
    #[must_use]
    pub fn is_open(&self, lane: LaneId) -> bool {
        self.lanes.get(lane.index as usize).is_some_and(|state| state.generation == lane.generation)
    }

    /// The lane that has this place now.
    #[must_use]
    pub fn lane_at(&self, index: u32) -> Option<LaneId> {
        self.lanes.get(index as usize).map(|state| LaneId { index, generation: state.generation })
    }

    /// What is queued for a lane.
    #[must_use]
    pub fn queued(&self, lane: LaneId) -> Queued {
        self.outbox(lane).map_or_else(Queued::default, Outbox::queued)
    }

    /// Bytes of its own replies that a lane has not taken; its owner stops reading it when they pile up.
    #[must_use]
    pub fn reply_bytes(&self, lane: LaneId) -> usize {
        self.outbox(lane).map_or(0, Outbox::reply_bytes)
    }

    /// Rooms the lane is in.
    pub fn rooms_of(&self, lane: LaneId) -> impl Iterator<Item = RoomId> {
        let subscriptions = match self.lanes.get(lane.index as usize) {
            Some(state) if state.generation == lane.generation => state.subscriptions.as_slice(),
            _ => &[],
        };
        subscriptions.iter().map(|s| self.rooms[s.room as usize].id)
    }

    /// When something was last said in one of the lane's rooms, while they had members here; zero when nothing was.
    #[must_use]
    pub fn last_said_to(&self, lane: LaneId) -> Duration {
        let state = self.lanes.get(lane.index as usize).filter(|state| state.generation == lane.generation);
        let subscriptions = state.map_or(&[][..], |state| state.subscriptions.as_slice());
        subscriptions.iter().map(|s| self.rooms[s.room as usize].said).max().unwrap_or_default()
    }

    fn outbox(&self, lane: LaneId) -> Option<&Outbox> {
        self.lanes.get(lane.index as usize).filter(|s| s.generation == lane.generation)?.outbox.as_deref()
    }

    /// Gives back memory that a crowd left behind.
    pub fn shrink(&mut self) {
        self.lanes.shrink_to_fit();
        self.rooms.shrink_to_fit();
        self.by_id.shrink_to_fit();
        self.dirty.shrink_to_fit();
        self.spare = Vec::new();
        self.blocked.shrink();
        self.round.shrink();
    }

    /// What owners must act on since the last call.
    pub fn take_events(&mut self, into: &mut Vec<LaneEvent>) {
        into.append(&mut self.events);
    }

    /// Publications that every member here has been offered since the last call.
    #[must_use]
    pub fn take_released(&mut self) -> Released {
        std::mem::take(&mut self.released)
    }

    // ---- rooms ----

    /// Makes a lane a member. It gets every event with a number above `from_seq`, and none before. `false` if it already is one.
    pub fn join(&mut self, lane: LaneId, room: RoomId, from_seq: u64) -> bool {
        if !self.is_open(lane) {
            return false;
        }
        let rooms = &mut self.rooms;
        let slot = *self.by_id.entry(room).or_insert_with(|| rooms.insert(LocalRoom::new(room, from_seq)) as u32);
        let state = &mut self.lanes[lane.index as usize];
        if state.position_in(slot).is_some() {
            return false;
        }
        let local = &mut self.rooms[slot as usize];
        if !local.is_level_with(from_seq) {
            local.late.push((lane, from_seq));
        }
        let position = local.members.len() as u32;
        local.members.push(Member { lane: lane.index, variant: state.variant, special: false });
        local.census.add(state.variant);
        state.subscriptions.push(Subscription { room: slot, position });
        true
    }

    /// Gives a room with members here a latency budget: its batch may grow for so long before it is flushed. Zero: not at all.
    pub fn set_coalesce(&mut self, room: RoomId, coalesce: Duration) {
        if let Some(&slot) = self.by_id.get(&room) {
            self.rooms[slot as usize].coalesce = coalesce;
        }
    }

    /// Says what happens to members of a room here that do not take what it sends fast enough. `name` is what a gap's frame has to know.
    pub fn set_slow(&mut self, room: RoomId, slow: Slow, name: P::Room) {
        let Some(&slot) = self.by_id.get(&room) else { return };
        let local = &mut self.rooms[slot as usize];
        local.rules = Rules { slow, ..Rules::default() };
        if slow.drops() {
            for variant in 0..P::VARIANTS {
                let mut frame = Vec::new();
                P::encode_gap(&name, variant, Gap::LONGEST, &mut frame);
                let bytes = u16::try_from(frame.len()).expect("no frame of a gap is longer than 65,535 bytes");
                local.rules.gap_bytes = local.rules.gap_bytes.max(bytes);
                local.rules.tells_gaps |= u16::from(bytes > 0) << variant;
            }
        }
        local.name = Some(name);
    }

    /// Tells the time: once a turn is enough.
    pub fn tell_time(&mut self, now: Duration) {
        self.now = now;
    }

    /// Ends a membership. What the room said before goes to the lane first. `false` if it was none.
    pub fn leave(&mut self, lane: LaneId, room: RoomId, sink: &mut impl Sink) -> bool {
        let Some(subscription) = self.subscription(lane, room) else { return false };
        self.offer_waiting(lane, subscription, sink);
        self.remove_member(lane, subscription);
        true
    }

    /// As [`Self::leave`], but what the room said before is not sent. For lanes that are ending.
    pub fn leave_unsent(&mut self, lane: LaneId, room: RoomId) -> bool {
        let Some(subscription) = self.subscription(lane, room) else { return false };
        self.remove_member(lane, subscription);
        true
    }

    /// True when the lane is a member.
    #[must_use]
    pub fn is_member(&self, lane: LaneId, room: RoomId) -> bool {
        self.subscription(lane, room).is_some()
    }

    /// Members of a room on this shard.
    #[must_use]
    pub fn members(&self, room: RoomId) -> Vec<LaneId> {
        let Some(&slot) = self.by_id.get(&room) else { return Vec::new() };
        self.rooms[slot as usize].members.iter().filter_map(|m| self.lane_at(m.lane)).collect()
    }

    /// Lanes, and rooms with members, on this shard.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.lanes.len(), self.rooms.len())
    }

    fn subscription(&self, lane: LaneId, room: RoomId) -> Option<Subscription> {
        if !self.is_open(lane) {
            return None;
        }
        let slot = *self.by_id.get(&room)?;
        let position = self.lanes[lane.index as usize].position_in(slot)?;
        Some(Subscription { room: slot, position })
    }

    fn remove_member(&mut self, lane: LaneId, subscription: Subscription) {
        self.settle_gap(lane, subscription.room);
        let subscriptions = &mut self.lanes[lane.index as usize].subscriptions;
        if let Some(place) = subscriptions.iter().position(|s| s.room == subscription.room) {
            subscriptions.swap_remove(place);
        }
        let local = &mut self.rooms[subscription.room as usize];
        local.late.retain(|(late, _)| *late != lane);
        let lanes = &mut self.lanes;
        local.remove(subscription.position as usize, |moved, position| {
            let subscriptions = &mut lanes[moved as usize].subscriptions;
            if let Some(s) = subscriptions.iter_mut().find(|s| s.room == subscription.room) {
                s.position = position;
            }
        });
        if local.members.is_empty() {
            self.forget_room(subscription.room);
        }
    }

    /// The last member has gone: what was still on its way is told as delivered to those who got it.
    fn forget_room(&mut self, slot: u32) {
        let mut local = self.rooms.remove(slot as usize);
        self.by_id.remove(&local.id);
        if local.is_dirty {
            self.dirty.retain(|&dirty| dirty != slot);
        }
        for batch in local.batches.drain(..) {
            self.finish(batch);
        }
    }
}
