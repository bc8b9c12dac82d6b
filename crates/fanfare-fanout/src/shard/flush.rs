//! The hot path, first half: a publication into its room's batch, and whose turn it is to be flushed. Per publication anything may happen;
//! per member only what [`gather`](super::gather) does.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;

use super::Shard;
use super::slow::{Source, queueing};
use crate::batch::{Batch, Encode};
use crate::lane::{LaneState, Subscription};
use crate::receipt::{Delivery, Receipt};
use crate::room::{Cursor, LocalRoom, wants_after};
use crate::sync::atomic::Ordering;
use crate::{LaneId, RoomId, Sink};

/// A batch begins anew at this size, so that one flush never needs more than a part of an outbox.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Batches kept for reuse, and the largest buffer worth keeping.
const SPARE_BATCHES_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 64 * 1024;

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

impl<P: Encode> Shard<P> {
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
        local.said = self.now;
        let bytes_max = BATCH_BYTES_MAX.min(self.limits.outbox_bytes_max / 4).max(1);
        let messages_max = (self.limits.outbox_messages_max / 4).max(1);
        if local.open_batch(bytes_max, messages_max).is_none() {
            let batch = match self.spare.pop() {
                Some(spare) => spare.given_to(room),
                None => Box::new(Batch::new(room)),
            };
            local.batches.push_back(batch);
        }
        if let Some(batch) = local.batches.back_mut() {
            batch.append(seq, event, &local.census, except, receipt, &mut self.tools);
        }
        self.mark(slot, bytes_max, messages_max);
    }

    /// Queues a room for the next flush, or, where it has a latency budget that its batch has not used up, for the one when it has.
    fn mark(&mut self, slot: u32, bytes_max: usize, messages_max: usize) {
        let local = &mut self.rooms[slot as usize];
        if local.is_dirty {
            return;
        }
        let may_wait = !local.coalesce.is_zero() && local.batches.len() == 1;
        if may_wait && local.batches.back().is_some_and(|batch| !batch.is_full(bytes_max, messages_max)) {
            if !std::mem::replace(&mut local.is_waiting, true) {
                self.waiting.push(Reverse((self.now + local.coalesce, slot)));
            }
            return;
        }
        local.is_dirty = true;
        self.dirty.push_back(slot);
    }

    /// Rooms whose latency budget is used up are flushed now.
    fn end_waits(&mut self) {
        while let Some(&Reverse((due, slot))) = self.waiting.peek()
            && due <= self.now
        {
            self.waiting.pop();
            // The place may belong to another room by now; flushing that one early does no harm.
            let Some(local) = self.rooms.get_mut(slot as usize) else { continue };
            local.is_waiting = false;
            if !local.is_dirty && !local.batches.is_empty() {
                local.is_dirty = true;
                self.dirty.push_back(slot);
            }
        }
    }

    /// When the next room's latency budget is used up.
    #[must_use]
    pub fn next_wait(&self) -> Option<Duration> {
        self.waiting.peek().map(|&Reverse((due, _))| due)
    }

    /// True when no room has anything to flush.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Offers batches to members, rooms in turn, a slice of members at a time. `true` when there is more to do.
    pub fn flush(&mut self, sink: &mut impl Sink, quota: FlushQuota) -> bool {
        self.end_waits();
        self.blocked.tidy(&mut self.lanes);
        let mut left = quota.members_per_turn;
        while left > 0 && !self.dirty.is_empty() {
            let looked_at = self.gather(sink, quota.members_per_slice, left);
            self.submit(sink);
            self.end_flushes(Self::queue_again);
            left = left.saturating_sub(looked_at);
        }
        !self.dirty.is_empty()
    }

    /// Offers everything a room has waiting to all its members here, without quota.
    pub fn flush_room(&mut self, room: RoomId, sink: &mut impl Sink) {
        while let Some(&slot) = self.by_id.get(&room) {
            if self.rooms[slot as usize].batches.is_empty() {
                return;
            }
            self.gather_slice(slot, sink, usize::MAX);
            self.submit(sink);
            // Where it stands in the queue of rooms to flush, it stays.
            self.end_flushes(|_, _| {});
        }
    }

    /// A room whose flush has ended goes on with its next batch, if there is one.
    fn queue_again(&mut self, slot: u32) {
        let local = &mut self.rooms[slot as usize];
        local.is_dirty = !local.batches.is_empty();
        if local.is_dirty {
            self.dirty.push_back(slot);
        }
    }

    pub(super) fn end_flush(&mut self, slot: u32) {
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

    pub(super) fn finish(&mut self, mut batch: Box<Batch>) {
        let finished = batch.finish(&mut self.written);
        self.released.items += finished.items;
        self.released.bytes += finished.bytes;
        self.stats.delivered.fetch_add(finished.delivered, Ordering::Relaxed);
        if self.spare.len() < SPARE_BATCHES_MAX && batch.capacity() <= SPARE_BYTES_MAX {
            self.spare.push(batch.recycle());
        }
    }

    /// Counts how long publications took from being made to having been offered to every member here. `now` is read by the caller
    /// after the flush; the clock is asked only when something was finished.
    pub fn measure(&mut self, now: impl FnOnce() -> Duration) {
        if self.written.is_empty() {
            return;
        }
        let now = now();
        for published_at in self.written.drain(..) {
            self.stats.publish_to_write.record(now.saturating_sub(published_at));
        }
    }

    /// Offers one member what its room has waiting for it, ahead of the others.
    pub(super) fn offer_waiting(&mut self, lane: LaneId, subscription: Subscription, sink: &mut impl Sink) {
        let local = &mut self.rooms[subscription.room as usize];
        let from_seq = wants_after(&local.late, lane);
        let source = Source { slot: subscription.room, rules: local.rules };
        let mut queue = queueing!(self);
        let position = subscription.position as usize;
        for (index, batch) in local.batches.iter_mut().enumerate() {
            let waits = match local.cursor {
                Some(cursor) if index == 0 => (cursor.next..cursor.end).contains(&position),
                _ => true,
            };
            if waits {
                queue.offer_part(&mut self.lanes, lane, source, batch, from_seq, sink);
            }
        }
    }
}

/// Members that get other bytes than the rest of their room in this batch: those it leaves out, and those that came late.
fn specials<R>(local: &LocalRoom<R>, batch: &Batch) -> SmallVec<[LaneId; 8]> {
    batch.left_out().chain(local.late.iter().map(|&(lane, _)| lane)).collect()
}

/// Seals the front batch and marks the members that need special care in it.
pub(super) fn start_flush<P: Encode>(local: &mut LocalRoom<P::Room>, slot: u32, lanes: &Slab<LaneState>) {
    local.cursor = Some(Cursor { next: 0, end: local.members.len() });
    if let Some(batch) = local.batches.front_mut() {
        batch.seal::<P>();
    }
    let Some(batch) = local.batches.front() else { return };
    for lane in specials(local, batch) {
        let state = lanes.get(lane.index as usize).filter(|s| s.generation == lane.generation);
        if let Some(position) = state.and_then(|s| s.position_in(slot)) {
            local.members[position as usize].special = true;
        }
    }
}
