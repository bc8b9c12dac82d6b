//! The end of a connection: one way in, one way out, one reason.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_fanout::{LaneId, Queued};
use fanfare_protocol::wire::{Opcode, frame};
use fanfare_protocol::{CloseReason, Dialect, sse};
use tracing::{debug, info};

use super::ShardLoop;
use super::connection::Phase;
use super::people::Parting;
use crate::hub::ConnectionId;
use crate::ledger::Closed;

impl ShardLoop {
    /// Ends a connection: it leaves its rooms now, is told why, and is removed once it has answered or its time is up.
    pub(super) fn end(&mut self, lane: LaneId, reason: CloseReason) {
        if !self.is_open(lane) {
            if reason == CloseReason::ConnectionLost {
                self.remove(lane);
            }
            return;
        }
        // Replies made so far belong before the close frame.
        self.send_replies(lane);
        if reason.waits_for_queue() {
            self.offer_waiting(lane);
        }
        self.leave_all(lane);
        self.record(lane, reason);
        let deadline = self.now + self.linger(reason);
        let peer_has_closed = reason == CloseReason::ClientClosed;
        if let Some(connection) = self.connection(lane) {
            connection.phase = Phase::Closing { deadline: deadline.into(), peer_has_closed, is_deaf: false };
        }
        // Who only listened and has gone hears nothing more.
        let has_gone = reason == CloseReason::ClientClosed && self.is_event_stream(lane);
        if has_gone || reason == CloseReason::ConnectionLost {
            self.remove(lane);
            return;
        }
        let mut frame = Vec::with_capacity(64);
        if self.is_event_stream(lane) {
            self.stop_listening(lane);
            sse::close_event(reason, &mut frame);
        } else {
            self.dialect_of(lane).close_frame(reason, &mut frame);
        }
        self.say_last(lane, &frame, reason.waits_for_queue(), deadline);
    }

    /// The peer's close frame: the answer to ours, or the wish to end.
    pub(super) fn on_peer_close(&mut self, lane: LaneId, code: u16) {
        let Some(connection) = self.connection(lane) else { return };
        if let Phase::Closing { peer_has_closed, .. } = &mut connection.phase {
            *peer_has_closed = true;
            self.after_last_words(lane);
            return;
        }
        self.send_replies(lane);
        self.leave_all(lane);
        let reason = CloseReason::ClientClosed;
        self.record(lane, reason);
        let deadline = self.now + self.linger(reason);
        if let Some(connection) = self.connection(lane) {
            connection.phase = Phase::Closing { deadline: deadline.into(), peer_has_closed: true, is_deaf: false };
        }
        // RFC 6455 section 5.5.1: the answer typically echoes the code; 1005 stands for none and is never sent.
        let mut echo = Vec::with_capacity(4);
        match code {
            1005 => frame(Opcode::Close, &[], &mut echo),
            code => frame(Opcode::Close, &code.to_be_bytes(), &mut echo),
        }
        self.say_last(lane, &echo, false, deadline);
    }

    /// Time a peer that was evicted has to take its close frame: it is behind, so it gets longer than others.
    fn linger(&self, reason: CloseReason) -> Duration {
        let heartbeat = &self.settings.heartbeat;
        match reason {
            CloseReason::SlowConsumer { .. } | CloseReason::SlowConsumerResumable { .. } => {
                heartbeat.close + heartbeat.write
            }
            _ => heartbeat.close,
        }
    }

    fn dialect_of(&mut self, lane: LaneId) -> Dialect {
        self.connection(lane).map_or(Dialect::Json, |connection| connection.session.dialect())
    }

    /// The peer has ended its side, and may read on: what it was told before it did so goes out first, for as long as a close may take.
    pub(super) fn on_peer_end(&mut self, lane: LaneId) {
        if self.fanout.queued(lane).bytes == 0 && !self.sockets.has_pending(lane.index) {
            return self.on_end(lane);
        }
        if self.is_open(lane) {
            let reason = CloseReason::ConnectionLost;
            self.leave_all(lane);
            self.record(lane, reason);
            let deadline = self.now + self.linger(reason);
            if let Some(connection) = self.connection(lane) {
                connection.phase = Phase::Closing { deadline: deadline.into(), peer_has_closed: true, is_deaf: false };
            }
            self.arm_by(lane, deadline);
        } else if let Some(connection) = self.connection(lane)
            && let Phase::Closing { peer_has_closed, .. } = &mut connection.phase
        {
            *peer_has_closed = true;
        }
    }

    fn say_last(&mut self, lane: LaneId, frame: &[u8], waits_for_queue: bool, deadline: std::time::Duration) {
        let is_out = if waits_for_queue {
            self.fanout.last_words_after_queue(lane, frame, &mut self.sockets)
        } else {
            self.fanout.last_words(lane, frame, &mut self.sockets)
        };
        self.arm_by(lane, deadline);
        if is_out {
            self.after_last_words(lane);
        }
    }

    /// Ends a connection whose bytes make no sense any more. It may be in the middle of sending, and closing over unread bytes would
    /// reset the connection and could take our close frame with it: what still comes is read and let go until the peer ends its
    /// side, or its time is up (RFC 6455 section 7.1.1).
    pub(super) fn fail(&mut self, lane: LaneId, reason: CloseReason) {
        self.end(lane, reason);
        if let Some(connection) = self.connection(lane)
            && let Phase::Closing { is_deaf, .. } = &mut connection.phase
        {
            *is_deaf = true;
            self.after_last_words(lane);
        }
    }

    /// Our close frame is out: once the peer's has come too there is nothing to wait for. A peer that is not listened to any more
    /// sees the end of our side at once.
    pub(super) fn after_last_words(&mut self, lane: LaneId) {
        if self.fanout.queued(lane).bytes > 0 || self.sockets.has_pending(lane.index) {
            return;
        }
        match self.connection(lane).map(|connection| connection.phase) {
            Some(Phase::Closing { peer_has_closed: true, .. }) => self.remove(lane),
            Some(Phase::Closing { is_deaf: true, .. }) => self.sockets.finish(lane.index),
            Some(Phase::Closing { .. } | Phase::Open(_)) | None => {}
        }
    }

    /// The time is up for who has not answered the close, or not taken ours.
    pub(super) fn cut_off(&mut self, lane: LaneId) {
        if self.leaving.is_some() {
            self.hub.drain().cut_off(1);
        }
        self.remove(lane);
    }

    fn offer_waiting(&mut self, lane: LaneId) {
        for room in self.rooms_of(lane) {
            self.leave_room(lane, room, Parting::Lost, true);
        }
    }

    fn leave_all(&mut self, lane: LaneId) {
        for room in self.rooms_of(lane) {
            self.leave_room(lane, room, Parting::Lost, false);
        }
    }

    fn record(&mut self, lane: LaneId, reason: CloseReason) {
        self.open -= 1;
        self.give_name_back(lane);
        let closed = self.closed(lane, reason);
        self.hub.record_close(closed);
        self.hub.counters().connections.fetch_sub(1, Ordering::Relaxed);
        let connection = ConnectionId { shard: self.index, lane };
        let (code, text) = (reason.code().0, reason.text());
        if reason.is_eviction() {
            info!(%connection, reason = reason.label(), code, "connection evicted: {text}");
        } else {
            debug!(%connection, reason = reason.label(), code, "connection ended: {text}");
        }
    }

    /// What is remembered of a connection's end.
    fn closed(&mut self, lane: LaneId, reason: CloseReason) -> Closed {
        let queued = match reason {
            // The queue that was too long may have been let go already.
            CloseReason::SlowConsumer { bytes, messages }
            | CloseReason::SlowConsumerResumable { bytes, messages }
            | CloseReason::WriteTimeout { bytes, messages } => Queued { bytes, messages },
            _ => self.fanout.queued(lane),
        };
        let (at, connection) = (self.now, ConnectionId { shard: self.index, lane });
        let mut closed =
            Closed { at, connection, user: None, address: None, reason, room: None, age: Duration::ZERO, queued };
        if let Some(connection) = self.connection(lane) {
            closed.user = connection.user().cloned();
            closed.address = connection.permit.address();
            closed.room = connection.session.room().cloned();
            closed.age = connection.age(at);
        }
        closed
    }

    /// Forgets a connection whose end has been recorded.
    pub(super) fn remove(&mut self, lane: LaneId) {
        let Some(slot) = self.connections.get_mut(lane.index as usize) else { return };
        if slot.as_ref().is_none_or(|connection| connection.lane != lane) {
            return;
        }
        *slot = None;
        self.live -= 1;
        self.histories.remove(&lane.index);
        if let Some(seat) = self.seats.remove(&lane.index)
            && let Some((app, user)) = seat.signed_in()
        {
            self.signed_in.leave(app, user, lane);
        }
        self.unread.remove(&lane.index);
        for room in self.fanout.close(lane) {
            debug_assert!(false, "{room:?} was left when the connection ended");
        }
        let mut discard = std::mem::take(&mut self.discard);
        self.sockets.remove(lane.index, &mut discard);
        self.discard = discard;
        self.crowd.left(self.live, self.now);
    }

    /// Once a crowd has left, so does the memory it needed.
    pub(super) fn give_back_if_left(&mut self) {
        if !self.crowd.is_over(self.live, self.now) {
            return;
        }
        let last = self.connections.iter().rposition(Option::is_some);
        self.connections.truncate(last.map_or(0, |last| last + 1));
        self.connections.shrink_to_fit();
        let connections = &self.connections;
        let is_here = |lane: LaneId| {
            let connection = connections.get(lane.index as usize).and_then(Option::as_ref);
            connection.is_some_and(|connection| connection.lane == lane)
        };
        self.timers.keep(is_here);
        self.sockets.shrink();
        self.fanout.shrink();
        self.ready.shrink_to_fit();
        self.unread.shrink_to_fit();
        self.arrivals.shrink_to_fit();
        (self.settings.give_back)();
    }
}
