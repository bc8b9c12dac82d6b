//! What happens to a member that does not take everything at once.

use bytes::Bytes;

use super::{LaneEvent, ShardStats};
use crate::batch::Batch;
use crate::lane::{End, LaneState};
use crate::outbox::{Outbox, Piece};
use crate::sync::atomic::Ordering;
use crate::{Budget, LaneId, OutboxLimits, Outcome, Queued, Sink};

/// The slow path of a member: its outbox, its bounds, its end.
pub(super) struct Queueing<'a> {
    pub(super) limits: &'a OutboxLimits,
    pub(super) budget: &'a Budget,
    pub(super) events: &'a mut Vec<LaneEvent>,
    pub(super) stats: &'a ShardStats,
}

impl Queueing<'_> {
    /// Queues `piece`, or evicts. `true` when it is queued.
    pub(super) fn push(&mut self, lane: LaneId, state: &mut LaneState, piece: Piece) -> bool {
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
    pub(super) fn evict(&mut self, lane: LaneId, state: &mut LaneState, queued: Queued, begun: Option<Bytes>) {
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

    pub(super) fn fail(&mut self, lane: LaneId, state: &mut LaneState) {
        state.end = End::Gone;
        self.events.push(LaneEvent::Gone(lane));
    }

    /// A member did not take the whole batch at once.
    pub(super) fn after_offer(
        &mut self,
        index: u32,
        state: &mut LaneState,
        outcome: Outcome,
        batch: &mut Batch,
        variant: u8,
    ) {
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
    pub(super) fn offer_part(
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
