//! The hot path, second half: the batch to every member. Per member only: skip, pick the frames, push.
//!
//! The sends of one round are gathered over all rooms that have something to say, and offered together: a sink that can submit many
//! sends at once (io_uring) then enters the kernel once for fifty rooms of five members, as it does for one of 256. Measured for one room of 1,000:
//! a submission of 64 costs 3.7 µs a send, one of 256 3.6, one of 1,000 3.4.

use smallvec::SmallVec;

use super::Shard;
use super::flush::start_flush;
use super::slow::{Extent, Source, queueing};
use crate::batch::{Encode, VARIANTS_MAX};
use crate::lane::End;
use crate::room::wants_after;
use crate::{LaneId, Offer, Outcome, Sink};

/// Members of one room that are offered the same bytes.
#[derive(Debug, Clone, Copy)]
struct Segment {
    /// The room's place.
    slot: u32,
    variant: u8,
    /// Where its lanes end among the gathered ones.
    end: u32,
}

/// Most segments of one round.
const SEGMENTS_MAX: usize = 64;

/// What the round under way will offer. Kept between rounds for its memory alone.
#[derive(Debug)]
pub(super) struct Round {
    /// Told apart from the rounds before by this number, which lanes carry that are in it.
    number: u32,
    lanes: Vec<u32>,
    segments: SmallVec<[Segment; SEGMENTS_MAX]>,
    /// Rooms whose front batch has no more members to offer it to.
    done: Vec<u32>,
    outcomes: Vec<Outcome>,
    /// Lanes of the slice under way, by variant.
    fast: [Vec<u32>; VARIANTS_MAX],
}

impl Default for Round {
    fn default() -> Self {
        let fast = Default::default();
        // Lanes begin with 0: in no round.
        Self { number: 1, lanes: Vec::new(), segments: SmallVec::new(), done: Vec::new(), outcomes: Vec::new(), fast }
    }
}

impl Round {
    /// Gives back memory that a crowd left behind. Between rounds only.
    pub(super) fn shrink(&mut self) {
        *self = Self { number: self.number, ..Self::default() };
    }

    fn is_full(&self) -> bool {
        self.segments.len() + VARIANTS_MAX > SEGMENTS_MAX
    }
}

impl<P: Encode> Shard<P> {
    /// Gathers the sends of a round: rooms in turn, a slice of members each. Returns how many members were looked at, at least one.
    pub(super) fn gather(&mut self, sink: &mut impl Sink, members_per_slice: usize, members_max: usize) -> usize {
        let mut looked_at = 0;
        while looked_at < members_max
            && !self.round.is_full()
            && let Some(slot) = self.dirty.pop_front()
        {
            let (members, is_interrupted) =
                self.gather_slice(slot, sink, members_per_slice.min(members_max - looked_at));
            looked_at += members.max(1);
            if is_interrupted {
                self.dirty.push_front(slot);
                break;
            }
            if self.rooms[slot as usize].cursor.is_some_and(|cursor| cursor.next < cursor.end) {
                self.dirty.push_back(slot);
            }
        }
        looked_at
    }

    /// One slice of one room. Returns how many members were looked at, and whether it ended early at a member that is owed something else
    /// first.
    pub(super) fn gather_slice(&mut self, slot: u32, sink: &mut impl Sink, members_max: usize) -> (usize, bool) {
        let local = &mut self.rooms[slot as usize];
        if local.cursor.is_none() {
            start_flush::<P>(local, slot, &self.lanes);
        }
        let (Some(mut cursor), Some(batch)) = (local.cursor, local.batches.front_mut()) else {
            local.cursor = None;
            self.round.done.push(slot);
            return (0, false);
        };
        let mut stop = cursor.end.min(cursor.next.saturating_add(members_max));
        let mut is_interrupted = false;
        let source = Source { slot, rules: local.rules };
        let mut queue = queueing!(self);
        for (offset, member) in local.members[cursor.next..stop].iter().enumerate() {
            let state = &mut self.lanes[member.lane as usize];
            if state.round == self.round.number {
                // Another room's bytes for it are in this round: what it takes of them decides about ours.
                (stop, is_interrupted) = (cursor.next + offset, true);
                break;
            }
            let lane = LaneId { index: member.lane, generation: state.generation };
            if member.special {
                let from_seq = wants_after(&local.late, lane);
                queue.offer_part(&mut self.lanes, lane, source, batch, from_seq, sink);
            } else if state.outbox.is_some() || state.end != End::Open {
                if state.end.counts() {
                    queue.queue(&mut self.lanes, lane, source, batch, &Extent::Whole, 0);
                }
            } else {
                state.round = self.round.number;
                self.round.fast[member.variant as usize].push(member.lane);
            }
        }
        for variant in local.census.variants() {
            let fast = &mut self.round.fast[variant as usize];
            if fast.is_empty() {
                continue;
            }
            if batch.whole(variant).is_empty() {
                batch.count_delivered(fast.len() as u32);
            } else {
                self.round.lanes.extend_from_slice(fast);
                self.round.segments.push(Segment { slot, variant, end: self.round.lanes.len() as u32 });
            }
            fast.clear();
        }
        let looked_at = stop - cursor.next;
        cursor.next = stop;
        local.cursor = Some(cursor);
        if cursor.next == cursor.end {
            self.round.done.push(slot);
        }
        (looked_at, is_interrupted)
    }

    /// Offers what was gathered, and sees to those that did not take all of it.
    pub(super) fn submit(&mut self, sink: &mut impl Sink) {
        let round = &mut self.round;
        let mut offers = SmallVec::<[Offer<'_>; SEGMENTS_MAX]>::new();
        let mut from = 0;
        for segment in &round.segments {
            let to = segment.end as usize;
            let batch = self.rooms[segment.slot as usize].batches.front();
            let bytes = batch.map_or(&[][..], |batch| batch.whole(segment.variant));
            offers.push(Offer { lanes: &round.lanes[from..to], bytes });
            from = to;
        }
        sink.send_each(&offers, &mut round.outcomes);
        drop(offers);
        let mut queue = queueing!(self);
        let mut from = 0;
        for segment in &round.segments {
            let lanes = from..segment.end as usize;
            from = lanes.end;
            let local = &mut self.rooms[segment.slot as usize];
            let source = Source { slot: segment.slot, rules: local.rules };
            let Some(batch) = local.batches.front_mut() else { continue };
            let len = batch.whole(segment.variant).len();
            let mut taken_whole = 0;
            for (&index, &outcome) in round.lanes[lanes.clone()].iter().zip(&round.outcomes[lanes]) {
                if outcome == Outcome::Taken(len) {
                    taken_whole += 1;
                } else {
                    queue.after_offer(&mut self.lanes, index, source, outcome, batch);
                }
            }
            batch.count_delivered(taken_whole);
        }
        round.number = round.number.wrapping_add(1).max(1);
        round.lanes.clear();
        round.segments.clear();
        round.outcomes.clear();
    }

    /// Ends the flushes of the rooms whose batch all members have been offered, and hands each to `then`.
    pub(super) fn end_flushes(&mut self, mut then: impl FnMut(&mut Self, u32)) {
        let mut done = std::mem::take(&mut self.round.done);
        for slot in done.drain(..) {
            self.end_flush(slot);
            then(self, slot);
        }
        self.round.done = done;
    }
}
