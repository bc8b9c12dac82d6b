//! Connections that only listen: what differs from a WebSocket. Everything that a room says reaches them as it reaches all others.

use fanfare_fanout::LaneId;
use fanfare_protocol::{CloseReason, Dialect, Event, Position, sse};
use fanfare_registry::Missed;

use super::ShardLoop;
use super::connection::Phase;

/// What the client of an event stream may send besides its request, bytes: a body that nobody asked for.
const IGNORED_BYTES_MAX: u16 = 4_096;

impl ShardLoop {
    /// True where nothing is to be heard but the end.
    pub(super) fn is_event_stream(&mut self, lane: LaneId) -> bool {
        self.connection(lane).is_some_and(|connection| connection.session.dialect() == Dialect::Sse)
    }

    /// First words on a stream. `missed` follows them.
    pub(super) fn begin_stream(&mut self, lane: LaneId, position: Position, missed: &Missed, subscribed: &Event<'_>) {
        let lost = missed.lost.map(|(from, _)| from);
        let next = lost.or_else(|| missed.messages.first().map(|kept| kept.published.position.offset));
        let resume = Position { offset: next.map_or(position.offset, |next| next - 1), ..position };
        // EventSource waits no longer each time, and not at random: a crowd that lost its node is told to come back one by one.
        let retry = self.settings.drain.retry.mul_f64(1.0 + self.dice.roll());
        // A client that is told to come back at once would do nothing else.
        let retry_ms = (retry.as_millis() as u64).max(RETRY_MS_MIN);
        sse::opening(retry_ms, resume, subscribed, self.replies_of(lane, true));
        // Nobody answers heartbeats: that the peer is there, its kernel must say.
        let heartbeat = self.settings.heartbeat;
        self.sockets.bound_silence(lane.index, heartbeat.write + heartbeat.pong);
    }

    /// Such a client has nothing to say. A little of it is passed over.
    pub(super) fn ignore(&mut self, lane: LaneId, bytes: usize) {
        let Some(connection) = self.connection(lane) else { return };
        let ignored = u16::try_from(bytes).unwrap_or(u16::MAX).saturating_add(connection.ignored_bytes);
        connection.ignored_bytes = ignored;
        if ignored > IGNORED_BYTES_MAX && connection.is_open() {
            self.end(lane, CloseReason::ProtocolError("an event stream only listens"));
        }
    }

    /// The client has ended its side, in good manners: there is no close frame that it could send.
    pub(super) fn on_stream_end(&mut self, lane: LaneId) {
        if self.is_open(lane) {
            self.end(lane, CloseReason::ClientClosed);
        } else {
            self.remove(lane);
        }
    }

    /// No close frame will come: our side of the stream ends behind our last words, and then the peer's is waited for.
    pub(super) fn stop_listening(&mut self, lane: LaneId) {
        if let Some(connection) = self.connection(lane)
            && let Phase::Closing { is_deaf, .. } = &mut connection.phase
        {
            *is_deaf = true;
        }
    }
}

/// Shortest time that a stream's client is told to wait before it comes back, milliseconds.
const RETRY_MS_MIN: u64 = 100;
