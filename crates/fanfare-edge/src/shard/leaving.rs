//! A shard that leaves service: who is closed next, and when. Those without recent traffic go first: whoever is in the middle of
//! something is let finish it for as long as there are others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fanfare_fanout::{FlushQuota, LaneId};
use fanfare_protocol::{CloseReason, Event};
use tracing::{debug, warn};

use super::ShardLoop;
use crate::drain::Pace;
use crate::hub::ConnectionId;

/// Connections found to have had traffic since they were put in order, and put back, for each that is closed. Where all are busy the
/// order means little; this bounds what it costs.
const PUT_BACK_MAX: usize = 16;

/// Connections closed in one turn at most. At the end of the window all that are left are due at once.
const CLOSES_PER_TURN: usize = 256;

/// What a shard keeps while it closes its connections.
#[derive(Debug)]
pub(super) struct Leaving {
    pace: Pace,
    /// Open connections by their last traffic, longest ago first; it may have been later since.
    order: BinaryHeap<Reverse<(Tenths, u32, u32)>>,
}

/// Tenths of a second on the node's clock: fine enough to tell who is idle, and four bytes.
pub(super) type Tenths = u32;

/// A time in tenths of a second.
pub(super) fn tenths(time: Duration) -> Tenths {
    (time.as_millis() / 100).try_into().unwrap_or(Tenths::MAX)
}

/// Once all are told to close: how often to look whether the last handshake that was under way has come to something.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Leaving {
    /// When to look again, with so many open.
    pub(super) fn next(&self, now: Duration, open: usize) -> Duration {
        if open == 0 { now + LOOK_AGAIN } else { self.pace.next() }
    }
}

impl ShardLoop {
    /// Begins to close connections, all of them by `ends`; or, once begun, goes on towards another end.
    pub(super) fn leave_by(&mut self, ends: Duration) {
        let (now, open) = (self.now, self.open);
        match &mut self.leaving {
            Some(leaving) => leaving.pace.change_end(now, ends, open),
            None => self.leaving = Some(Leaving { pace: Pace::new(now, ends, open), order: BinaryHeap::new() }),
        }
    }

    /// Closes as many connections as the pace asks for, and ends the shard once nobody is left or the time is up.
    pub(super) fn keep_pace(&mut self) {
        let Some(mut leaving) = self.leaving.take() else { return };
        let mut due = leaving.pace.due(self.now, self.open).min(CLOSES_PER_TURN);
        while due > 0
            && let Some(lane) = self.next_to_leave(&mut leaving)
        {
            self.see_off(lane);
            due -= 1;
        }
        let is_over = self.now >= leaving.pace.ends() + self.settings.heartbeat.close;
        self.leaving = Some(leaving);
        // Who was let in a moment ago is on the way to this loop, and must be told too.
        // Where nobody is to notice, neither is anybody lost who has come and not spoken yet.
        let is_waited_for = self.hub.drain().is_handed_over() && self.newcomers.has_clients();
        let is_empty =
            self.live == 0 && self.intake.is_empty() && !self.hub.has_handshakes(self.index) && !is_waited_for;
        if is_empty || (is_over && self.open == 0) {
            self.end_shard();
        }
    }

    /// Tells a connection to come back, elsewhere, and closes it.
    fn see_off(&mut self, lane: LaneId) {
        // The closes are even already. A part more or less keeps those apart who are closed in one turn, or at the end.
        let retry = self.settings.drain.retry;
        let retry = retry + retry.mul_f64(self.dice.roll() / 2.0);
        self.answer(lane, &Event::Drain { retry_ms: retry.as_millis() as u64 });
        self.end(lane, CloseReason::Drain);
    }

    /// The open connection whose last traffic is longest ago, as far as it is cheap to find out.
    fn next_to_leave(&mut self, leaving: &mut Leaving) -> Option<LaneId> {
        if leaving.order.is_empty() {
            let open = self.connections.iter().flatten().filter(|connection| connection.is_open());
            leaving.order = open.map(|connection| self.entry(connection.lane)).collect();
        }
        let mut put_back = 0;
        loop {
            let Reverse((since, index, generation)) = leaving.order.pop()?;
            let lane = LaneId { index, generation };
            if !self.is_open(lane) {
                continue;
            }
            if put_back < PUT_BACK_MAX && self.last_traffic(lane) > since {
                leaving.order.push(self.entry(lane));
                put_back += 1;
                continue;
            }
            return Some(lane);
        }
    }

    fn entry(&self, lane: LaneId) -> Reverse<(Tenths, u32, u32)> {
        Reverse((self.last_traffic(lane), lane.index, lane.generation))
    }

    /// When a connection last said something, or one of its rooms did. Heartbeats are no traffic.
    fn last_traffic(&self, lane: LaneId) -> Tenths {
        let connection = self.connections.get(lane.index as usize).and_then(Option::as_ref);
        let spoke = connection.map_or(0, |connection| connection.spoke);
        spoke.max(tenths(self.fanout.last_said_to(lane)))
    }

    /// The end. What was published meanwhile is reported to whoever waits for it; who has not answered its close is cut.
    fn end_shard(&mut self) {
        self.take_items(usize::MAX);
        while self.fanout.flush(&mut self.sockets, FlushQuota::default()) {}
        self.after_flush();
        if self.live > 0 {
            for connection in self.connections.iter().flatten() {
                let unsent = self.fanout.queued(connection.lane);
                let (lane, shard) = (connection.lane, self.index);
                if unsent.bytes > 0 {
                    let id = ConnectionId { shard, lane };
                    warn!(connection = %id, bytes = unsent.bytes, messages = unsent.messages, "connection cut with bytes unsent");
                }
            }
            debug!(shard = self.index, cut = self.live, "shard ended before all closes were answered");
        }
        self.hub.drain().shard_ended(self.hub.registry().shards().len(), self.live);
        self.has_ended = true;
    }
}
