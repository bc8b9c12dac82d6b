//! What happens to a member that does not take everything at once.

use std::ops::Range;

use bytes::Bytes;
use slab::Slab;

use super::relief::Blocked;
use super::{LaneEvent, ShardStats};
use crate::batch::{Batch, Fate, Rest};
use crate::lane::{End, LaneState};
use crate::outbox::{Droppable, Outbox, Piece};
use crate::policy::Rules;
use crate::sync::atomic::Ordering;
use crate::{Budget, LaneId, OutboxLimits, Outcome, Queued, Sink, Slow};

/// The slow path of a member: its outbox, its bounds, its end.
pub(super) struct Queueing<'a> {
    pub(super) limits: &'a OutboxLimits,
    pub(super) budget: &'a Budget,
    pub(super) events: &'a mut Vec<LaneEvent>,
    pub(super) blocked: &'a mut Blocked,
    pub(super) stats: &'a ShardStats,
}

/// [`Queueing`] of a shard whose lanes and rooms are in use meanwhile, which a method could not leave to its caller.
macro_rules! queueing {
    ($shard:expr) => {
        $crate::shard::slow::Queueing {
            limits: &$shard.limits,
            budget: &$shard.budget,
            events: &mut $shard.events,
            blocked: &mut $shard.blocked,
            stats: &$shard.stats,
        }
    };
}
pub(super) use queueing;

/// The room that something is queued of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// Its place in the shard.
    pub(super) slot: u32,
    pub(super) rules: Rules,
}

/// How much of a batch a member is given.
#[derive(Debug)]
pub(super) enum Extent {
    Whole,
    Part(Range<usize>),
}

impl Extent {
    fn entries(&self, batch: &Batch) -> Range<usize> {
        match self {
            Self::Whole => 0..batch.len(),
            Self::Part(entries) => entries.clone(),
        }
    }

    fn piece(&self, batch: &mut Batch, variant: u8) -> Piece {
        match self {
            Self::Whole => batch.whole_piece(variant),
            Self::Part(entries) => batch.piece(variant, entries.start, entries.end),
        }
    }

    fn count(&self, batch: &mut Batch, fate: Fate) {
        match self {
            Self::Whole => batch.count_whole(fate),
            Self::Part(entries) => batch.count_part(entries.clone(), fate),
        }
    }
}

impl Queueing<'_> {
    /// Queues what a member has not taken of a batch, as its room's policy says, and counts what became of it.
    pub(super) fn queue(
        &mut self,
        lanes: &mut Slab<LaneState>,
        lane: LaneId,
        source: Source,
        batch: &mut Batch,
        extent: &Extent,
        sent: usize,
    ) {
        let state = &mut lanes[lane.index as usize];
        if state.end != End::Open {
            return extent.count(batch, Fate::Evicted);
        }
        state.slow = source.rules.slow;
        let variant = state.variant;
        if source.rules.drops(variant) {
            return self.queue_or_drop(lanes, lane, source, batch, extent, sent);
        }
        let piece = extent.piece(batch, variant).after(sent);
        let is_queued = self.push(lanes, lane, source.rules.slow, piece);
        extent.count(batch, if is_queued { Fate::Delivered } else { Fate::Evicted });
    }

    /// Queues `piece`, or evicts. `true` when it is queued.
    fn push(&mut self, lanes: &mut Slab<LaneState>, lane: LaneId, slow: Slow, piece: Piece) -> bool {
        if piece.len() == 0 {
            return true;
        }
        let needed = Queued { bytes: piece.len(), messages: piece.messages() };
        let has_place = self.make_place(lanes, lane, needed);
        let state = &mut lanes[lane.index as usize];
        if !has_place {
            let queued = state.outbox.as_ref().map_or(needed, |outbox| outbox.queued());
            self.evict(lane, state, slow, queued, piece.begun());
            return false;
        }
        self.outbox(lane, state).push(piece);
        true
    }

    /// For members of a room that drops. Messages are kept apart, so that the oldest can go.
    fn queue_or_drop(
        &mut self,
        lanes: &mut Slab<LaneState>,
        lane: LaneId,
        source: Source,
        batch: &mut Batch,
        extent: &Extent,
        sent: usize,
    ) {
        let entries = extent.entries(batch);
        let rests = batch.rests(lanes[lane.index as usize].variant, entries.clone(), sent);
        let is_droppable = |rest: &Rest| !rest.is_begun && rest.number.is_some();
        let first = rests.iter().find(|rest| is_droppable(rest)).map(|rest| rest.index);
        for rest in rests {
            let is_accounted = match rest.number.filter(|_| !rest.is_begun) {
                Some(number) => self.push_or_drop(lanes, lane, source, number, rest.bytes),
                // What its policy may not drop is what a member must not miss: who came and went.
                None if rest.is_begun => self.push(lanes, lane, source.rules.slow, Piece::rest_of_message(rest.bytes)),
                None => self.push(lanes, lane, source.rules.slow, Piece::one(rest.bytes, 1)),
            };
            if !is_accounted {
                return batch.count_part(entries, Fate::Evicted);
            }
        }
        // The oldest were dropped, also of these: all up to the end of the gap that was not sent or begun before.
        let gap_end = lanes[lane.index as usize].outbox.as_ref().and_then(|outbox| outbox.gap_end(source.slot));
        let (Some(first), Some(gap_end)) = (first, gap_end) else { return extent.count(batch, Fate::Delivered) };
        if !batch.has_number_up_to(gap_end, first..entries.end) {
            return extent.count(batch, Fate::Delivered);
        }
        batch.count_part(entries.start..first, Fate::Delivered);
        batch.count_dropped_up_to(gap_end, first..entries.end);
    }

    /// Queues a message, or drops older ones, or it. `false` when not even a gap had a place: then the lane was evicted.
    fn push_or_drop(
        &mut self,
        lanes: &mut Slab<LaneState>,
        lane: LaneId,
        source: Source,
        number: u64,
        bytes: Bytes,
    ) -> bool {
        let Source { slot: room, rules: Rules { slow, gap_bytes, .. } } = source;
        let message = Droppable { room, number, gap_bytes, is_latest: slow == Slow::Latest };
        if message.is_latest
            && let Some(outbox) = &mut lanes[lane.index as usize].outbox
        {
            while let Some(dropped) = outbox.drop_oldest_of(room, self.budget) {
                self.stats.count_dropped(&dropped);
            }
        }
        let needed = Queued { bytes: bytes.len(), messages: 1 };
        let has_place = self.make_place(lanes, lane, needed);
        let state = &mut lanes[lane.index as usize];
        if has_place {
            self.outbox(lane, state).push(Piece::droppable(bytes, message));
            return true;
        }
        let bytes_max = self.limits.outbox_bytes_max;
        let is_told = match &mut state.outbox {
            Some(outbox) => outbox.skip(&message, bytes_max, self.budget),
            None => {
                let mut outbox = Outbox::default();
                let is_told = outbox.skip(&message, bytes_max, self.budget);
                if is_told {
                    *self.outbox(lane, state) = outbox;
                }
                is_told
            }
        };
        if is_told {
            self.stats.count_dropped(&message);
        } else {
            let queued = state.outbox.as_ref().map_or(needed, |outbox| outbox.queued());
            self.evict(lane, state, slow, queued, None);
        }
        is_told
    }

    /// Charges the budget for more that is queued, once the bounds allow it: until then messages of rooms that drop make place.
    fn make_place(&mut self, lanes: &mut Slab<LaneState>, lane: LaneId, needed: Queued) -> bool {
        loop {
            let state = &lanes[lane.index as usize];
            let queued = state.outbox.as_ref().map_or_else(Queued::default, |outbox| outbox.queued());
            if self.limits.allow(queued, needed) && self.charge(lanes, lane, needed.bytes) {
                return true;
            }
            let outbox = lanes[lane.index as usize].outbox.as_mut();
            let Some(dropped) = outbox.and_then(|outbox| outbox.drop_oldest(self.budget)) else { return false };
            self.stats.count_dropped(&dropped);
        }
    }

    /// The lane's outbox. It is made, and the lane's owner told, when the first thing is queued.
    pub(super) fn outbox<'s>(&mut self, lane: LaneId, state: &'s mut LaneState) -> &'s mut Outbox {
        if state.outbox.is_none() {
            self.events.push(LaneEvent::Blocked(lane));
            self.blocked.list(lane, state);
        }
        state.outbox.get_or_insert_default()
    }

    /// Ends a lane that reached a bound. `begun` is the rest of a frame whose head is out: it is kept, so that the last words
    /// can follow at a frame boundary.
    pub(super) fn evict(
        &mut self,
        lane: LaneId,
        state: &mut LaneState,
        slow: Slow,
        queued: Queued,
        begun: Option<Bytes>,
    ) {
        state.end = End::Evicted;
        self.stats.evicted.fetch_add(1, Ordering::Relaxed);
        if let Some(begun) = begun {
            if self.budget.charge(begun.len()) {
                state.outbox.get_or_insert_default().push_begun(begun);
            } else {
                state.is_torn = true;
            }
        }
        self.events.push(LaneEvent::Evicted(lane, queued, slow));
    }

    pub(super) fn fail(&mut self, lane: LaneId, state: &mut LaneState) {
        state.end = End::Gone;
        self.events.push(LaneEvent::Gone(lane));
    }

    /// A member did not take the whole batch at once.
    pub(super) fn after_offer(
        &mut self,
        lanes: &mut Slab<LaneState>,
        index: u32,
        source: Source,
        outcome: Outcome,
        batch: &mut Batch,
    ) {
        let state = &mut lanes[index as usize];
        let lane = LaneId { index, generation: state.generation };
        match outcome {
            Outcome::Taken(taken) => self.queue(lanes, lane, source, batch, &Extent::Whole, taken),
            Outcome::Gone => self.fail(lane, state),
        }
    }

    /// Offers a member part of a batch.
    pub(super) fn offer_part(
        &mut self,
        lanes: &mut Slab<LaneState>,
        lane: LaneId,
        source: Source,
        batch: &mut Batch,
        from_seq: u64,
        sink: &mut impl Sink,
    ) {
        for (from, to) in batch.ranges_for(lane, from_seq) {
            let state = &mut lanes[lane.index as usize];
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
            if sent == len && state.end == End::Open {
                batch.count_part(from..to, Fate::Delivered);
            } else {
                self.queue(lanes, lane, source, batch, &Extent::Part(from..to), sent);
            }
        }
    }
}
