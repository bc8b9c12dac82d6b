//! What is due by the clock: heartbeats, the ends of tokens and of goodbyes. One deadline of each connection is armed at a time.

use std::time::Duration;

use fanfare_fanout::{Lane, LaneId};
use fanfare_protocol::wire::{Opcode, frame};
use fanfare_protocol::{CloseReason, Dialect, sse};

use super::connection::Phase;
use super::heartbeat::Beat;
use super::moment::Moment;
use super::{PRESSURE_RETRY, ShardLoop};

/// Who is not judged yet is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl ShardLoop {
    /// When there is something to do next that no socket and no other thread will say.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let deadlines = [
            self.timers.next(),
            self.fanout.next_wait(),
            (!self.pressed.is_empty()).then(|| self.now + PRESSURE_RETRY),
            self.behind.next_look(),
            self.leaving.as_ref().map(|leaving| leaving.next(self.now, self.open)),
            self.entrance.as_ref().and_then(|entrance| entrance.retry_at),
            self.newcomers.next_deadline(),
            self.crowd.next(),
            self.absences.front().map(|&(due, _)| due),
        ];
        deadlines.into_iter().flatten().min()
    }

    pub(super) fn see_to_deadlines(&mut self) {
        while let Some((due, lane)) = self.timers.pop_due(self.now) {
            let now = self.now;
            let Some(connection) = self.connection(lane).filter(|connection| connection.armed == due) else { continue };
            // Taken: whatever is waited for next is armed anew, however late it is.
            connection.armed = Moment::NEVER;
            match connection.phase {
                Phase::Closing { deadline, .. } if deadline <= now.into() => self.cut_off(lane),
                Phase::Closing { deadline, .. } => self.arm(lane, deadline.into()),
                Phase::Open(_) => {
                    if let Some(expires) = self.see_to_token(lane) {
                        self.see_to_heartbeat(lane, expires);
                    }
                }
            }
        }
    }

    /// `expires`: when the connection's token wants to be looked at again.
    fn see_to_heartbeat(&mut self, lane: LaneId, expires: Duration) {
        let (now, limits) = (self.now, self.settings.heartbeat);
        let Some(connection) = self.connection(lane) else { return };
        let (is_paused, is_stream) = (connection.is_paused, connection.session.dialect() == Dialect::Sse);
        let Some(heartbeat) = connection.heartbeat() else { return };
        if is_paused {
            // Its pong may be among what we do not read: silence that is our doing proves nothing.
            heartbeat.heard(now);
        }
        match heartbeat.beat(now, &limits) {
            Beat::Wait(until) => self.arm(lane, until.min(expires)),
            Beat::Ping => {
                if is_stream {
                    heartbeat.expects_nothing();
                }
                self.ping(lane);
                // The same question again in this round: now the pong's deadline may be the next.
                self.arm(lane, now);
            }
            // What would show that it lives may lie in its socket, unread.
            Beat::PongTimeout(due) | Beat::WriteTimeout(due) if !self.sight.proves_silence(due, now, limits.pong) => {
                self.arm(lane, now + LOOK_AGAIN);
            }
            Beat::PongTimeout(_) => {
                self.end(lane, CloseReason::PongTimeout { ms: limits.pong.as_millis() as u64 });
            }
            Beat::WriteTimeout(_) => {
                let queued = self.fanout.queued(lane);
                self.end(lane, CloseReason::WriteTimeout { bytes: queued.bytes, messages: queued.messages });
            }
        }
    }

    fn ping(&mut self, lane: LaneId) {
        let mut ping = Vec::with_capacity(2);
        if self.is_event_stream(lane) {
            ping.extend_from_slice(sse::HEARTBEAT);
        } else {
            frame(Opcode::Ping, &[], &mut ping);
        }
        self.fanout.reply(lane, Lane::Control, &ping, &mut self.sockets);
        self.see_to_lanes();
    }

    /// Waits for `due`, whatever was waited for before.
    pub(super) fn arm(&mut self, lane: LaneId, due: Duration) {
        if let Some(connection) = self.connection(lane) {
            connection.armed = due.into();
            self.timers.arm(due.into(), lane);
        }
    }

    /// Waits for `due` unless something earlier is waited for.
    pub(super) fn arm_by(&mut self, lane: LaneId, due: Duration) {
        if self.connection(lane).is_some_and(|connection| connection.armed > due.into()) {
            self.arm(lane, due);
        }
    }
}
