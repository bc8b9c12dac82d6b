//! One deadline per connection, earliest first. Told the time; never looks at a clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fanfare_fanout::LaneId;

use super::moment::Moment;

/// Deadlines of a shard's connections. An entry that was overtaken by an earlier one stays until it is due and is then ignored
/// by its owner, which knows what it is waiting for.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Moment, u32, u32)>>,
}

impl Timers {
    pub(super) fn arm(&mut self, due: Moment, lane: LaneId) {
        self.heap.push(Reverse((due, lane.index, lane.generation)));
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|&Reverse((due, ..))| due.into())
    }

    /// Takes one entry that is due.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<(Moment, LaneId)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((due, index, generation))| (due, LaneId { index, generation }))
    }

    /// Forgets the entries of all others, and the memory they needed.
    pub(super) fn keep(&mut self, is_here: impl Fn(LaneId) -> bool) {
        self.heap.retain(|&Reverse((_, index, generation))| is_here(LaneId { index, generation }));
        self.heap.shrink_to_fit();
    }
}
