//! When the process's budget is used up: the largest queues go first, not whoever is the next to queue something.

use slab::Slab;

use super::slow::Queueing;
use crate::LaneId;
use crate::lane::{End, LaneState};

/// Fewer entries than this are not worth a look for stale ones.
const BLOCKED_MIN: usize = 64;

/// Lanes that have something queued, each once, and lanes that had: a stale entry goes when they are looked through.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    lanes: Vec<LaneId>,
    /// How many were left when they were last looked through.
    kept: usize,
    /// Too many are stale, perhaps.
    is_long: bool,
}

impl Blocked {
    /// A lane has something queued from now on.
    pub(super) fn list(&mut self, lane: LaneId, state: &mut LaneState) {
        if !std::mem::replace(&mut state.is_listed, true) {
            self.lanes.push(lane);
            self.is_long = self.lanes.len() >= BLOCKED_MIN && self.lanes.len() > 2 * self.kept;
        }
    }

    /// Forgets lanes that have nothing queued any more, once they may be more than those that have. Between flushes.
    pub(super) fn tidy(&mut self, lanes: &mut Slab<LaneState>) {
        if std::mem::take(&mut self.is_long) {
            self.keep(lanes, |_, _| {});
        }
    }

    /// Gives back memory that a crowd left behind.
    pub(super) fn shrink(&mut self) {
        self.lanes.shrink_to_fit();
    }

    /// Forgets lanes that have nothing queued any more, and shows the others.
    fn keep(&mut self, lanes: &mut Slab<LaneState>, mut see: impl FnMut(LaneId, &LaneState)) {
        self.lanes.retain(|&lane| {
            let state = lanes.get_mut(lane.index as usize).filter(|state| state.generation == lane.generation);
            let Some(state) = state else { return false };
            state.is_listed = state.outbox.is_some();
            if state.is_listed {
                see(lane, state);
            }
            state.is_listed
        });
        self.kept = self.lanes.len();
    }

    /// The open lane that has most queued, and how many bytes.
    fn largest(&mut self, lanes: &mut Slab<LaneState>) -> Option<(LaneId, usize)> {
        let mut largest = None;
        self.keep(lanes, |lane, state| {
            let bytes = state.outbox.as_ref().map_or(0, |outbox| outbox.queued().bytes);
            if state.end == End::Open && largest.is_none_or(|(_, most)| bytes > most) {
                largest = Some((lane, bytes));
            }
        });
        largest
    }
}

impl Queueing<'_> {
    /// Charges the budget for `bytes` that `lane` has queued. Where they are not there, lanes that have more queued make place, the
    /// largest first. `false` when this one is the largest, or none has at least half of what it would have: its own room's policy decides
    /// then. Who is behind by this message alone does not go for those who have been for longer. Each look at all that have something
    /// queued frees half of the largest queue, or all of it.
    pub(super) fn charge(&mut self, lanes: &mut Slab<LaneState>, lane: LaneId, bytes: usize) -> bool {
        while !self.budget.charge(bytes) {
            let own = lanes[lane.index as usize].outbox.as_ref().map_or(0, |outbox| outbox.queued().bytes);
            match self.blocked.largest(lanes) {
                Some((largest, most)) if most > own && 2 * most >= own + bytes => {
                    self.relieve(largest, &mut lanes[largest.index as usize]);
                }
                Some(_) | None => return false,
            }
        }
        true
    }

    /// Half of what is queued for a lane makes place where its rooms drop; else it is evicted, and all of it is let go.
    fn relieve(&mut self, lane: LaneId, state: &mut LaneState) {
        let Some(outbox) = &mut state.outbox else { return };
        let queued = outbox.queued();
        let mut has_dropped = false;
        while outbox.queued().bytes > queued.bytes / 2
            && let Some(dropped) = outbox.drop_oldest(self.budget)
        {
            self.stats.count_dropped(&dropped);
            has_dropped = true;
        }
        if has_dropped {
            return;
        }
        self.budget.release(outbox.let_go());
        if outbox.is_empty() {
            state.outbox = None;
        }
        let slow = state.slow;
        self.evict(lane, state, slow, queued, None);
    }
}
