//! Sockets that were let in by the gate and have not said yet what they want. A plain table that is told the time.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use fanfare_fanout::LaneId;

use crate::gate::Permit;
use crate::source::Source;

/// One of them.
#[derive(Debug)]
pub(super) struct Newcomer {
    /// Its place. The socket is polled under it from the beginning.
    pub(super) lane: LaneId,
    pub(super) permit: Permit,
    /// From where it comes.
    pub(super) source: Source,
    /// What is to come of it next.
    pub(super) awaits: Awaits,
    /// What has come of its head and was not the whole of it.
    pub(super) head: Vec<u8>,
    /// The peer has ended its side.
    pub(super) has_hung_up: bool,
    /// It is in the list of those to be heard.
    pub(super) is_ready: bool,
    /// It is none: the node itself looks whether it is let in.
    pub(super) is_canary: bool,
}

/// What a newcomer says, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// A proxy's header, from a proxy that may send one.
    ProxyHeader,
    /// The first byte, which tells whether TLS is spoken, where it must be.
    Tls,
    /// A request's head.
    Head,
    /// What a canary says that has been let in.
    CanaryWord,
}

/// Those of one shard. At most as many as the gate has places, each with at most one head.
#[derive(Debug)]
pub(super) struct Newcomers {
    /// Time for a head.
    patience: Duration,
    by_index: HashMap<u32, Newcomer>,
    /// When their time is up, in the order they came, which is the order of that too. Some have gone already: never more than
    /// there are others, and a few.
    deadlines: VecDeque<(Duration, LaneId)>,
    /// Those to be heard, by index, each once. One whose time was up may be among them; its successor is then heard for nothing.
    ready: VecDeque<u32>,
}

/// Entries kept before it is worth looking for those that nobody needs.
const DEADLINES_KEPT: usize = 64;

impl Newcomers {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, by_index: HashMap::new(), deadlines: VecDeque::new(), ready: VecDeque::new() }
    }

    /// Time for the heads of those who come from here on.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// One came in. `now` never goes back.
    pub(super) fn enter(&mut self, lane: LaneId, permit: Permit, source: Source, awaits: Awaits, now: Duration) {
        // Where patience has become less, who comes has as long as those before: deadlines are in the order of coming.
        let due = now + self.patience;
        let due = self.deadlines.back().map_or(due, |&(last, _)| due.max(last));
        self.deadlines.push_back((due, lane));
        let newcomer = Newcomer {
            lane,
            permit,
            source,
            awaits,
            head: Vec::new(),
            has_hung_up: false,
            is_ready: false,
            is_canary: false,
        };
        self.by_index.insert(lane.index, newcomer);
    }

    /// Its socket has something to read, if there is a newcomer of this index.
    pub(super) fn on_readable(&mut self, index: u32, has_hung_up: bool) {
        let Some(newcomer) = self.by_index.get_mut(&index) else { return };
        newcomer.has_hung_up |= has_hung_up;
        if !std::mem::replace(&mut newcomer.is_ready, true) {
            self.ready.push_back(index);
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next one to be heard.
    pub(super) fn next_ready(&mut self) -> Option<LaneId> {
        loop {
            let index = self.ready.pop_front()?;
            if let Some(newcomer) = self.by_index.get_mut(&index) {
                newcomer.is_ready = false;
                return Some(newcomer.lane);
            }
        }
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Newcomer> {
        self.by_index.get_mut(&index)
    }

    /// It has become something else, or goes.
    pub(super) fn leave(&mut self, index: u32) -> Option<Newcomer> {
        let newcomer = self.by_index.remove(&index)?;
        while self.deadlines.front().is_some_and(|&(_, lane)| !is_in(&self.by_index, lane)) {
            self.deadlines.pop_front();
        }
        if self.deadlines.len() > 2 * self.by_index.len() + DEADLINES_KEPT {
            let by_index = &self.by_index;
            self.deadlines.retain(|&(_, lane)| is_in(by_index, lane));
        }
        if self.by_index.is_empty() {
            self.shrink();
        }
        Some(newcomer)
    }

    /// True while there are any besides canaries.
    pub(super) fn has_clients(&self) -> bool {
        self.by_index.values().any(|newcomer| !newcomer.is_canary)
    }

    pub(super) fn is_canary(&self, index: u32) -> bool {
        self.by_index.get(&index).is_some_and(|newcomer| newcomer.is_canary)
    }

    /// When the time of the first is up.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.front().map(|&(due, _)| due)
    }

    /// One whose time is up.
    pub(super) fn overdue(&self, now: Duration) -> Option<LaneId> {
        self.deadlines.front().filter(|&&(due, _)| due <= now).map(|&(_, lane)| lane)
    }

    /// A crowd has left: so does the memory it needed.
    fn shrink(&mut self) {
        self.by_index.shrink_to(DEADLINES_KEPT);
        self.deadlines.shrink_to(DEADLINES_KEPT);
        self.ready.shrink_to(DEADLINES_KEPT);
    }
}

fn is_in(by_index: &HashMap<u32, Newcomer>, lane: LaneId) -> bool {
    by_index.get(&lane.index).is_some_and(|newcomer| newcomer.lane == lane)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Gate, GateLimits};

    #[test]
    fn deadlines_are_those_of_who_is_here_and_do_not_pile_up() {
        let limits = GateLimits { connections_max: 10_000, per_ip_max: 0, per_ip_per_second_max: 0, observes: false };
        let gate = Gate::new(limits, std::sync::Arc::default());
        let mut newcomers = Newcomers::new(Duration::from_secs(10));
        let mut generation = 0;
        let mut come = |newcomers: &mut Newcomers, index, seconds| {
            generation += 1;
            let permit = gate.enter(None, Duration::ZERO).expect("a place");
            newcomers.enter(
                LaneId { index, generation },
                permit,
                Source::Client(None),
                Awaits::Head,
                Duration::from_secs(seconds),
            );
        };
        // One stays, and many come and go behind it, all of them in the same place.
        come(&mut newcomers, 0, 1);
        for second in 2..2_000 {
            come(&mut newcomers, 1, second);
            assert!(newcomers.leave(1).is_some());
            assert!(newcomers.deadlines.len() <= 2 + DEADLINES_KEPT, "{}", newcomers.deadlines.len());
        }
        come(&mut newcomers, 1, 2_000);
        assert_eq!(newcomers.next_deadline(), Some(Duration::from_secs(11)));
        assert_eq!(newcomers.overdue(Duration::from_millis(10_999)), None);
        assert_eq!(newcomers.overdue(Duration::from_secs(11)).map(|lane| lane.index), Some(0));
        assert!(newcomers.leave(0).is_some() && newcomers.leave(0).is_none());
        // What was due of those before in its place is not due for it.
        assert_eq!(newcomers.next_deadline(), Some(Duration::from_secs(2_010)));
        assert_eq!(newcomers.overdue(Duration::from_secs(2_009)), None);
        newcomers.set_patience(Duration::from_secs(1));
        come(&mut newcomers, 2, 2_001);
        assert_eq!(newcomers.deadlines.back().map(|&(due, _)| due), Some(Duration::from_secs(2_010)));
        assert!(newcomers.leave(2).is_some());
        assert!(newcomers.leave(1).is_some());
        assert_eq!((newcomers.next_deadline(), newcomers.deadlines.len()), (None, 0));
        drop(gate);
    }
}
