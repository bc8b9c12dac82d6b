//! The audience of one thread: lanes, rooms, and the flush that is the hot path.

use std::collections::{HashMap, VecDeque};
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;
use smallvec::SmallVec;

use crate::batch::{Batch, Encode, VARIANTS_MAX};
use crate::lane::{End, LaneState, Subscription};
use crate::outbox::{Outbox, Piece};
use crate::receipt::{Delivery, Receipt};
use crate::room::{Cursor, LocalRoom, Member, wants_after};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::{Budget, Lane, LaneId, OutboxLimits, Outcome, Queued, RoomId, Sink};

/// A batch begins anew at this size, so that one flush never needs more than a part of an outbox.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Batches kept for reuse, and the largest buffer worth keeping.
const SPARE_BATCHES_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 1024 * 1024;

/// How much of a flush one turn may do. Between slices other rooms are served, between turns reads and tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushQuota {
    /// Members of one room offered its batch before the next room's turn.
    pub members_per_slice: usize,
    /// Members offered something before the flush returns.
    pub members_per_turn: usize,
}

impl Default for FlushQuota {
    fn default() -> Self {
        Self { members_per_slice: 64, members_per_turn: 256 }
    }
}

/// What its owner must do about a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneEvent {
    /// Something is queued from now on: watch the write deadline.
    Blocked(LaneId),
    /// It could not take what a room sent within its bounds. Nothing more is queued; close it and say so.
    Evicted(LaneId, Queued),
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
pub struct Shard<P> {
    lanes: Slab<LaneState>,
    generation: u32,
    rooms: Slab<LocalRoom>,
    by_id: HashMap<RoomId, u32>,
    /// Rooms with something to flush, each once.
    dirty: VecDeque<u32>,
    limits: OutboxLimits,
    /// Bytes of its own replies a lane may have queued before it is evicted.
    reply_bytes_max: usize,
    budget: Arc<Budget>,
    stats: Arc<ShardStats>,
    #[expect(clippy::vec_box, reason = "batches are large and move between queues; boxes move as a pointer")]
    spare: Vec<Box<Batch>>,
    events: Vec<LaneEvent>,
    released: Released,
    fast: [Vec<u32>; VARIANTS_MAX],
    outcomes: Vec<Outcome>,
    events_of: PhantomData<fn(P)>,
}

impl<P: Encode> Shard<P> {
    /// An empty shard.
    pub fn new(limits: OutboxLimits, reply_bytes_max: usize, budget: Arc<Budget>, stats: Arc<ShardStats>) -> Self {
        assert!(P::VARIANTS as usize <= VARIANTS_MAX, "at most {VARIANTS_MAX} variants");
        Self {
            lanes: Slab::new(),
            generation: 0,
            rooms: Slab::new(),
            by_id: HashMap::new(),
            dirty: VecDeque::new(),
            limits,
            reply_bytes_max,
            budget,
            stats,
            spare: Vec::new(),
            events: Vec::new(),
            released: Released::default(),
            fast: Default::default(),
            outcomes: Vec::new(),
            events_of: PhantomData,
        }
    }

    // ---- lanes ----

    /// Opens a lane that takes frames of `variant`.
    pub fn open(&mut self, variant: u8) -> LaneId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.lanes.insert(LaneState {
            generation,
            variant,
            end: End::Open,
            is_torn: false,
            outbox: None,
            subscriptions: SmallVec::new(),
        });
        LaneId { index: index as u32, generation }
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
        self.fast = Default::default();
        self.outcomes = Vec::new();
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
        local.counts[state.variant as usize] += 1;
        state.subscriptions.push(Subscription { room: slot, position });
        true
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

    // ---- publications ----

    /// Takes an event into its room's batch. Events of a room come in the order of their numbers. One that nobody here waits
    /// for is reported and released at once.
    pub fn accept(&mut self, room: RoomId, seq: u64, event: &P, except: Option<LaneId>, receipt: Option<Arc<Receipt>>) {
        let slot = self.by_id.get(&room).copied();
        let local = slot.map(|slot| &mut self.rooms[slot as usize]).filter(|local| seq > local.applied);
        let (Some(slot), Some(local)) = (slot, local) else {
            if let Some(receipt) = receipt {
                receipt.report(Delivery::default());
            }
            self.released.items += 1;
            self.released.bytes += event.payload_bytes();
            return;
        };
        local.applied = seq;
        let bytes_max = BATCH_BYTES_MAX.min(self.limits.outbox_bytes_max / 4).max(1);
        let messages_max = (self.limits.outbox_messages_max / 4).max(1);
        if local.open_batch(bytes_max, messages_max).is_none() {
            let batch = match self.spare.pop() {
                Some(spare) => spare.recycle(room),
                None => Box::new(Batch::new(room)),
            };
            local.batches.push_back(batch);
        }
        let counts = local.counts;
        if let Some(batch) = local.batches.back_mut() {
            batch.append(seq, event, &counts, except, receipt);
        }
        if !local.is_dirty {
            local.is_dirty = true;
            self.dirty.push_back(slot);
        }
    }

    /// True when no room has anything to flush.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Offers batches to members, rooms in turn, a slice of members at a time. `true` when there is more to do.
    pub fn flush(&mut self, sink: &mut impl Sink, quota: FlushQuota) -> bool {
        let mut left = quota.members_per_turn;
        while left > 0
            && let Some(slot) = self.dirty.pop_front()
        {
            left = left.saturating_sub(self.flush_slice(slot, sink, quota.members_per_slice).max(1));
            let local = &mut self.rooms[slot as usize];
            local.is_dirty = !local.batches.is_empty();
            if local.is_dirty {
                self.dirty.push_back(slot);
            }
        }
        !self.dirty.is_empty()
    }

    /// Offers everything a room has waiting to all its members here, without quota.
    pub fn flush_room(&mut self, room: RoomId, sink: &mut impl Sink) {
        while let Some(&slot) = self.by_id.get(&room) {
            if self.rooms[slot as usize].batches.is_empty() {
                return;
            }
            self.flush_slice(slot, sink, usize::MAX);
        }
    }

    /// One slice of one room: skip, pick the frame, push. Returns how many members were looked at.
    fn flush_slice(&mut self, slot: u32, sink: &mut impl Sink, members_max: usize) -> usize {
        let local = &mut self.rooms[slot as usize];
        if local.batches.is_empty() {
            return 0;
        }
        if local.cursor.is_none() {
            start_flush::<P>(local, slot, &self.lanes);
        }
        let (Some(mut cursor), Some(batch)) = (local.cursor, local.batches.front_mut()) else { return 0 };
        let stop = cursor.end.min(cursor.next.saturating_add(members_max));
        let looked_at = stop - cursor.next;
        let mut queue =
            Queueing { limits: &self.limits, budget: &self.budget, events: &mut self.events, stats: &self.stats };
        for member in &local.members[cursor.next..stop] {
            let state = &mut self.lanes[member.lane as usize];
            let lane = LaneId { index: member.lane, generation: state.generation };
            if member.special {
                let from_seq = wants_after(&local.late, lane);
                queue.offer_part(lane, state, batch, from_seq, sink);
            } else if state.outbox.is_some() || state.end != End::Open {
                if state.end.counts() {
                    let is_queued = queue.push(lane, state, batch.whole_piece(member.variant));
                    batch.count_whole(is_queued);
                }
            } else {
                self.fast[member.variant as usize].push(member.lane);
            }
        }
        for variant in 0..P::VARIANTS {
            let fast = &mut self.fast[variant as usize];
            if fast.is_empty() {
                continue;
            }
            let whole = batch.whole(variant);
            if whole.is_empty() {
                batch.count_delivered(fast.len() as u32);
                fast.clear();
                continue;
            }
            let len = whole.len();
            sink.send_each(fast, whole, &mut self.outcomes);
            let mut taken_whole = 0;
            for (&index, outcome) in fast.iter().zip(self.outcomes.drain(..)) {
                if outcome == Outcome::Taken(len) {
                    taken_whole += 1;
                } else {
                    queue.after_offer(index, &mut self.lanes[index as usize], outcome, batch, variant);
                }
            }
            batch.count_delivered(taken_whole);
            fast.clear();
        }
        cursor.next = stop;
        local.cursor = Some(cursor);
        if cursor.next == cursor.end {
            self.end_flush(slot);
        }
        looked_at
    }

    fn end_flush(&mut self, slot: u32) {
        let local = &mut self.rooms[slot as usize];
        local.cursor = None;
        let Some(batch) = local.batches.pop_front() else { return };
        for lane in specials(local, &batch) {
            if let Some(position) = self.lanes.get(lane.index as usize).and_then(|s| s.position_in(slot)) {
                local.members[position as usize].special = false;
            }
        }
        // Everything still to come has a higher number: who wanted no more than this is like the others now.
        let offered = batch.last_seq();
        local.late.retain(|&(_, from_seq)| from_seq > offered);
        self.finish(batch);
    }

    fn finish(&mut self, mut batch: Box<Batch>) {
        let finished = batch.finish();
        self.released.items += finished.items;
        self.released.bytes += finished.bytes;
        self.stats.delivered.fetch_add(finished.delivered, Ordering::Relaxed);
        if self.spare.len() < SPARE_BATCHES_MAX && batch.capacity() <= SPARE_BYTES_MAX {
            let room = batch.room();
            self.spare.push(batch.recycle(room));
        }
    }

    /// Offers one member what its room has waiting for it, ahead of the others.
    fn offer_waiting(&mut self, lane: LaneId, subscription: Subscription, sink: &mut impl Sink) {
        let local = &mut self.rooms[subscription.room as usize];
        let from_seq = wants_after(&local.late, lane);
        let state = &mut self.lanes[lane.index as usize];
        let mut queue =
            Queueing { limits: &self.limits, budget: &self.budget, events: &mut self.events, stats: &self.stats };
        let position = subscription.position as usize;
        for (index, batch) in local.batches.iter_mut().enumerate() {
            let waits = match local.cursor {
                Some(cursor) if index == 0 => (cursor.next..cursor.end).contains(&position),
                _ => true,
            };
            if waits {
                queue.offer_part(lane, state, batch, from_seq, sink);
            }
        }
    }

    // ---- replies ----

    /// Sends a lane whole frames that are for it alone.
    pub fn reply(&mut self, lane: LaneId, kind: Lane, frames: &[u8], sink: &mut impl Sink) {
        if !self.is_open(lane) || frames.is_empty() {
            return;
        }
        let state = &mut self.lanes[lane.index as usize];
        if state.end != End::Open {
            return;
        }
        let mut queue =
            Queueing { limits: &self.limits, budget: &self.budget, events: &mut self.events, stats: &self.stats };
        let mut sent = 0;
        if state.outbox.is_none() {
            match sink.send(lane.index, frames) {
                Outcome::Taken(taken) if taken == frames.len() => return,
                Outcome::Taken(taken) => sent = taken,
                Outcome::Gone => return queue.fail(lane, state),
            }
        }
        let queued = state.outbox.as_ref().map_or_else(Queued::default, |outbox| outbox.queued());
        let reply_bytes = state.outbox.as_ref().map_or(0, |outbox| outbox.reply_bytes());
        let rest = Bytes::copy_from_slice(&frames[sent..]);
        if reply_bytes + rest.len() > self.reply_bytes_max || !queue.budget.charge(rest.len()) {
            return queue.evict(lane, state, queued, (sent > 0).then_some(rest));
        }
        if state.outbox.is_none() {
            queue.events.push(LaneEvent::Blocked(lane));
        }
        let outbox = state.outbox.get_or_insert_default();
        if sent > 0 { outbox.push_begun(rest) } else { outbox.push_reply(kind, rest) }
    }

    /// Sends a lane its last frame: what is queued is let go but for the rest of a frame that was begun. Nothing follows.
    /// `true` when there is nothing to wait for.
    pub fn last_words(&mut self, lane: LaneId, frame: &[u8], sink: &mut impl Sink) -> bool {
        if !self.is_open(lane) {
            return true;
        }
        let state = &mut self.lanes[lane.index as usize];
        if state.end == End::Gone || state.is_torn {
            return true;
        }
        if state.end == End::Open {
            state.end = End::Closing;
        }
        let outbox = state.outbox.get_or_insert_default();
        self.budget.release(outbox.queued().bytes);
        outbox.replace_by(Bytes::copy_from_slice(frame));
        let bytes = outbox.queued().bytes;
        if self.budget.charge(bytes) {
            return self.writable(lane, sink).is_empty;
        }
        // Others use up the budget: the frame is offered once and not kept.
        let outcome = sink.send_vectored(lane.index, &outbox.slices());
        state.outbox = None;
        match outcome {
            Outcome::Taken(taken) => state.is_torn = taken < bytes,
            Outcome::Gone => {
                state.end = End::Gone;
                self.events.push(LaneEvent::Gone(lane));
            }
        }
        true
    }

    /// As [`Self::last_words`], but behind everything that is queued.
    pub fn last_words_after_queue(&mut self, lane: LaneId, frame: &[u8], sink: &mut impl Sink) -> bool {
        self.reply(lane, Lane::Data, frame, sink);
        let Some(state) = self.lanes.get_mut(lane.index as usize).filter(|s| s.generation == lane.generation) else {
            return true;
        };
        if state.end == End::Open {
            state.end = End::Closing;
        }
        state.outbox.is_none()
    }

    /// A lane can take bytes again: writes what is queued.
    pub fn writable(&mut self, lane: LaneId, sink: &mut impl Sink) -> Progress {
        let mut progress = Progress { taken: 0, is_empty: true };
        if !self.is_open(lane) {
            return progress;
        }
        let state = &mut self.lanes[lane.index as usize];
        let Some(outbox) = &mut state.outbox else { return progress };
        while !outbox.is_empty() {
            let slices = outbox.slices();
            let offered: usize = slices.iter().map(|s| s.len()).sum();
            match sink.send_vectored(lane.index, &slices) {
                Outcome::Taken(taken) => {
                    drop(slices);
                    outbox.consume(taken);
                    self.budget.release(taken);
                    progress.taken += taken;
                    if taken < offered {
                        progress.is_empty = false;
                        return progress;
                    }
                }
                Outcome::Gone => {
                    drop(slices);
                    self.budget.release(outbox.queued().bytes);
                    state.outbox = None;
                    state.end = End::Gone;
                    self.events.push(LaneEvent::Gone(lane));
                    return progress;
                }
            }
        }
        state.outbox = None;
        progress
    }
}

/// What became of a queue when its lane could take bytes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken.
    pub taken: usize,
    /// Nothing is queued any more.
    pub is_empty: bool,
}

/// Members that get other bytes than the rest of their room in this batch: those it leaves out, and those that came late.
fn specials(local: &LocalRoom, batch: &Batch) -> SmallVec<[LaneId; 8]> {
    batch.entries().iter().filter_map(|e| e.except).chain(local.late.iter().map(|&(lane, _)| lane)).collect()
}

/// Seals the front batch and marks the members that need special care in it.
fn start_flush<P: Encode>(local: &mut LocalRoom, slot: u32, lanes: &Slab<LaneState>) {
    local.cursor = Some(Cursor { next: 0, end: local.members.len() });
    if let Some(batch) = local.batches.front_mut() {
        batch.seal::<P>(&local.counts);
    }
    let Some(batch) = local.batches.front() else { return };
    for lane in specials(local, batch) {
        let state = lanes.get(lane.index as usize).filter(|s| s.generation == lane.generation);
        if let Some(position) = state.and_then(|s| s.position_in(slot)) {
            local.members[position as usize].special = true;
        }
    }
}

/// The slow path of a member: its outbox, its bounds, its end.
struct Queueing<'a> {
    limits: &'a OutboxLimits,
    budget: &'a Budget,
    events: &'a mut Vec<LaneEvent>,
    stats: &'a ShardStats,
}

impl Queueing<'_> {
    /// Queues `piece`, or evicts. `true` when it is queued.
    fn push(&mut self, lane: LaneId, state: &mut LaneState, piece: Piece) -> bool {
        if state.end != End::Open {
            return false;
        }
        if piece.len() == 0 {
            return true;
        }
        let fits = match &state.outbox {
            Some(outbox) => outbox.fits(&piece, self.limits),
            None => Outbox::default().fits(&piece, self.limits),
        };
        if !fits || !self.budget.charge(piece.len()) {
            let queued = match &state.outbox {
                Some(outbox) => outbox.queued(),
                None => Queued { bytes: piece.len(), messages: piece.messages() },
            };
            self.evict(lane, state, queued, piece.begun());
            return false;
        }
        if state.outbox.is_none() {
            self.events.push(LaneEvent::Blocked(lane));
        }
        state.outbox.get_or_insert_default().push(piece);
        true
    }

    /// Ends a lane that reached a bound. `begun` is the rest of a frame whose head is out: it is kept, so that the last words
    /// can follow at a frame boundary.
    fn evict(&mut self, lane: LaneId, state: &mut LaneState, queued: Queued, begun: Option<Bytes>) {
        state.end = End::Evicted;
        self.stats.evicted.fetch_add(1, Ordering::Relaxed);
        if let Some(begun) = begun {
            if self.budget.charge(begun.len()) {
                state.outbox.get_or_insert_default().push_begun(begun);
            } else {
                state.is_torn = true;
            }
        }
        self.events.push(LaneEvent::Evicted(lane, queued));
    }

    fn fail(&mut self, lane: LaneId, state: &mut LaneState) {
        state.end = End::Gone;
        self.events.push(LaneEvent::Gone(lane));
    }

    /// A member did not take the whole batch at once.
    fn after_offer(&mut self, index: u32, state: &mut LaneState, outcome: Outcome, batch: &mut Batch, variant: u8) {
        let lane = LaneId { index, generation: state.generation };
        match outcome {
            Outcome::Taken(taken) => {
                let rest = batch.whole_piece(variant).after(taken);
                let is_queued = self.push(lane, state, rest);
                batch.count_whole(is_queued);
            }
            Outcome::Gone => self.fail(lane, state),
        }
    }

    /// Offers a member part of a batch.
    fn offer_part(
        &mut self,
        lane: LaneId,
        state: &mut LaneState,
        batch: &mut Batch,
        from_seq: u64,
        sink: &mut impl Sink,
    ) {
        for (from, to) in batch.ranges_for(lane, from_seq) {
            if !state.end.counts() {
                return;
            }
            let bytes = batch.slice(state.variant, from, to);
            let (len, mut sent) = (bytes.len(), 0);
            if state.outbox.is_none() && state.end == End::Open && len > 0 {
                match sink.send(lane.index, bytes) {
                    Outcome::Taken(taken) => sent = taken,
                    Outcome::Gone => return self.fail(lane, state),
                }
            }
            let is_delivered = if sent == len && state.end == End::Open {
                true
            } else {
                let piece = batch.piece(state.variant, from, to).after(sent);
                self.push(lane, state, piece)
            };
            batch.count_part(from, to, is_delivered);
        }
    }
}
