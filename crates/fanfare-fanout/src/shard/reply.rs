//! What is for one lane alone: replies, last words, and the rest of what it did not take.

use bytes::Bytes;
use slab::Slab;

use super::slow::queueing;
use super::{LaneEvent, Shard};
use crate::batch::Encode;
use crate::lane::End;
use crate::policy::Gap;
use crate::room::LocalRoom;
use crate::{Lane, LaneId, Outcome, Queued, Sink, Slow};

/// What became of a queue when its lane could take bytes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken.
    pub taken: usize,
    /// Nothing is queued any more.
    pub is_empty: bool,
}

impl<P: Encode> Shard<P> {
    /// Sends a lane whole frames that are for it alone.
    pub fn reply(&mut self, lane: LaneId, kind: Lane, frames: &[u8], sink: &mut impl Sink) {
        if !self.is_open(lane) || frames.is_empty() {
            return;
        }
        let state = &mut self.lanes[lane.index as usize];
        if state.end != End::Open {
            return;
        }
        let mut queue = queueing!(self);
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
        let is_charged =
            reply_bytes + rest.len() <= self.reply_bytes_max && queue.charge(&mut self.lanes, lane, rest.len());
        let state = &mut self.lanes[lane.index as usize];
        if !is_charged {
            return queue.evict(lane, state, Slow::Evict, queued, (sent > 0).then_some(rest));
        }
        let outbox = queue.outbox(lane, state);
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
            outbox.tell_gaps(gap_frames::<P>(&self.rooms, state.variant));
            let slices = outbox.slices();
            let offered: usize = slices.iter().map(|s| s.len()).sum();
            match sink.send_vectored(lane.index, &slices) {
                Outcome::Taken(taken) => {
                    drop(slices);
                    self.budget.release(outbox.consume(taken));
                    progress.taken += taken;
                    // Bytes that are counted and lie nowhere would be offered for ever.
                    debug_assert!(offered > 0, "a queue that counts bytes has some to offer");
                    if taken < offered || offered == 0 {
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

    /// A lane is about to leave a room: what is queued of it stays.
    pub(super) fn settle_gap(&mut self, lane: LaneId, room: u32) {
        let state = &mut self.lanes[lane.index as usize];
        if let Some(outbox) = &mut state.outbox {
            self.budget.release(outbox.settle(room, gap_frames::<P>(&self.rooms, state.variant)));
        }
    }
}

/// Appends the frames of gaps.
fn gap_frames<P: Encode>(rooms: &Slab<LocalRoom<P::Room>>, variant: u8) -> impl FnMut(u32, Gap, &mut Vec<u8>) {
    move |room, gap, out| {
        // A lane is a member of the room as long as a gap of it may grow, and a room that drops was told its name.
        let name = rooms.get(room as usize).and_then(|local| local.name.as_ref());
        P::encode_gap(name.expect("a room that drops has a name"), variant, gap, out);
    }
}
