//! From readable sockets to inputs: bytes in, one input at a time, its action performed.

use fanfare_fanout::{Lane, LaneId};
use fanfare_protocol::wire::{Agreement, Decoder, Deflated, Input, Message, Opcode, Squeezed, frame};
use fanfare_protocol::{Action, CloseReason, Dialect};

use super::connection::Phase;
use super::leaving::tenths;
use super::{ACKS_OWED_PAUSE, READ_BYTES_MAX, READS_PER_TURN, REPLY_BYTES_PAUSE, Replies, ShardLoop};
use crate::tls::Received;

/// What the messages of one read may inflate to before others are read: a few bytes may stand for a whole message.
const INFLATED_BYTES_MAX: usize = 2 * READ_BYTES_MAX;

impl ShardLoop {
    /// Reads connections in turn, each at most one buffer full.
    pub(super) fn read_ready(&mut self) {
        for _ in 0..READS_PER_TURN.min(self.ready.len()) {
            let Some(index) = self.ready.pop_front() else { return };
            let Some(connection) = self.connection_at(index) else { continue };
            connection.is_ready = false;
            let lane = connection.lane;
            if connection.is_paused {
                continue;
            }
            let has_hung_up = connection.has_hung_up;
            if std::mem::take(&mut connection.has_unread) {
                let mut unread = self.unread.remove(&index).unwrap_or_default();
                self.on_bytes(lane, &mut unread);
                // The socket may hold more.
                self.on_readable(index, has_hung_up);
                continue;
            }
            let mut buffer = std::mem::take(&mut self.read_buffer);
            let received = self.sockets.receive(index, &mut buffer);
            match received {
                Received::Bytes(n) => {
                    self.on_bytes(lane, &mut buffer[..n]);
                    // A read that did not fill the buffer has emptied the socket, unless the end is still to be seen.
                    if n == READ_BYTES_MAX || has_hung_up {
                        self.on_readable(index, has_hung_up);
                    }
                }
                Received::End if self.is_event_stream(lane) => self.on_stream_end(lane),
                Received::End => self.on_peer_end(lane),
                Received::Failed => self.on_end(lane),
                Received::WouldBlock => {}
            }
            self.read_buffer = buffer;
        }
    }

    /// Bytes came in on a connection.
    pub(super) fn on_bytes(&mut self, lane: LaneId, bytes: &mut [u8]) {
        let limits = self.settings.messages;
        let now = self.now;
        let Some(connection) = self.connection(lane) else { return };
        if let Some(heartbeat) = connection.heartbeat() {
            heartbeat.heard(now);
        }
        if connection.session.dialect() == Dialect::Sse {
            return self.ignore(lane, bytes.len());
        }
        let takes_deflated = connection.session.deflate().is_some();
        let mut decoder = std::mem::take(&mut connection.decoder);
        debug_assert!(self.replies.owner.is_none(), "a read does not begin within another one");
        self.replies.owner = Some(lane);
        self.inflated_bytes = 0;
        let mut rest = bytes;
        while self.wants_input(lane) && self.inflated_bytes < INFLATED_BYTES_MAX {
            let (used, is_all) = match decoder.next_with(rest, &limits, takes_deflated) {
                Ok((used, Some(input))) => {
                    self.on_input(lane, input);
                    self.send_long_replies(lane);
                    (used, false)
                }
                Ok((used, None)) => (used, true),
                Err(reason) => {
                    self.fail(lane, reason);
                    break;
                }
            };
            rest = &mut rest[used..];
            if is_all {
                break;
            }
        }
        self.put_back(lane, decoder, rest);
        self.send_replies(lane);
        self.replies.end();
        self.see_to_lanes();
        self.pause_if_unread(lane);
    }

    /// Who does not take what it asked for is not read until it does, nor is who is owed many acks: they come back together.
    pub(super) fn pause_if_unread(&mut self, lane: LaneId) {
        let is_behind = self.fanout.reply_bytes(lane) >= REPLY_BYTES_PAUSE;
        if let Some(connection) = self.connection(lane) {
            connection.is_paused |= is_behind || connection.acks_owed >= ACKS_OWED_PAUSE;
        }
    }

    pub(super) fn owe_acks(&mut self, lane: LaneId, acks: u32) {
        if let Some(connection) = self.connection(lane) {
            connection.acks_owed += acks;
        }
    }

    /// An ack that was owed is among the connection's replies now.
    pub(super) fn count_ack(&mut self, lane: LaneId) {
        let Some(connection) = self.connection(lane) else { return };
        connection.acks_owed -= 1;
        if connection.acks_owed + 1 == ACKS_OWED_PAUSE {
            self.resume_if_drained(lane);
        }
        self.pause_if_unread(lane);
    }

    /// Leaves a connection as its next read is to find it. `rest` is what a pause left unread, or a quota.
    fn put_back(&mut self, lane: LaneId, decoder: Decoder, rest: &[u8]) {
        let Some(connection) = self.connection(lane) else { return };
        connection.decoder = decoder;
        if !connection.is_open() || rest.is_empty() {
            return;
        }
        connection.has_unread = true;
        let is_paused = connection.is_paused;
        self.unread.insert(lane.index, rest.into());
        if !is_paused {
            self.on_readable(lane.index, false);
        }
    }

    /// True until it is paused, or the peer's close frame has been seen, or a frame that cannot be read: the decoder has lost its place then.
    fn wants_input(&mut self, lane: LaneId) -> bool {
        self.connection(lane).is_some_and(|connection| match connection.phase {
            // A publisher that is slowed is not refused what it has sent already: that waits.
            Phase::Open(_) => !connection.is_paused,
            Phase::Closing { peer_has_closed, is_deaf, .. } => !peer_has_closed && !is_deaf,
        })
    }

    fn on_input(&mut self, lane: LaneId, input: Input<'_>) {
        let is_open = self.is_open(lane);
        match input {
            Input::Close(code) => self.on_peer_close(lane, code),
            // After our close frame only the peer's is waited for.
            _ if !is_open => {}
            Input::Ping(payload) => {
                if self.lets_control_in(lane) {
                    frame(Opcode::Pong, payload, self.replies_of(lane, false));
                }
            }
            // That it came is all there is to know, unless there is no end to them.
            Input::Pong => _ = self.lets_control_in(lane),
            Input::Message(message) => {
                if self.lets_in(lane) {
                    self.on_message(lane, message);
                }
            }
            Input::Deflated(deflated) => {
                if self.lets_in(lane) {
                    self.on_deflated(lane, deflated);
                }
            }
        }
    }

    fn on_message(&mut self, lane: LaneId, message: Message<'_>) {
        let limits = self.settings.messages;
        let now = tenths(self.now);
        let Some(connection) = self.connection(lane) else { return };
        connection.spoke = now;
        let action: Action<'_> = connection.session.handle(message, &limits);
        self.perform(lane, action);
    }

    fn on_deflated(&mut self, lane: LaneId, deflated: Deflated<'_>) {
        let limits = self.settings.messages;
        let agreement = self.connection(lane).and_then(|connection| connection.session.deflate());
        let history = match agreement {
            Some(Agreement { client_context: true, .. }) => Some(self.histories.entry(lane.index).or_default()),
            Some(_) | None => None,
        };
        let mut inflater = std::mem::take(&mut self.inflater);
        let deflated_bytes = deflated.len() as u64;
        match inflater.message(deflated, history, &limits) {
            Ok(message) => {
                self.inflated_bytes += message.len();
                let plain_bytes = message.len() as u64;
                self.hub.counters().inflated.count(Squeezed { messages: 1, plain_bytes, deflated_bytes });
                self.on_message(lane, message);
            }
            Err(reason) => self.fail(lane, reason),
        }
        inflater.release();
        self.inflater = inflater;
    }

    /// Nobody is there any more: the peer ended its side and has taken everything, or the socket failed.
    pub(super) fn on_end(&mut self, lane: LaneId) {
        if self.is_open(lane) {
            self.end(lane, CloseReason::ConnectionLost);
        } else {
            self.remove(lane);
        }
    }

    /// Short commands may have long answers (`presence`): what is kept for the end of a read is bounded like a read.
    pub(super) fn send_long_replies(&mut self, lane: LaneId) {
        if self.replies.control.len() + self.replies.data.len() >= READ_BYTES_MAX {
            self.send_replies(lane);
            self.see_to_lanes();
        }
    }

    /// Where an answer to the connection that is being read goes. While nothing is queued for it answers go in the order of what they
    /// answer: a pong to a ping within a message comes before the message's. Otherwise those that need not keep their place overtake.
    pub(super) fn replies_of(&mut self, lane: LaneId, keeps_place: bool) -> &mut Vec<u8> {
        let is_in_turn = keeps_place || self.fanout.queued(lane).bytes == 0;
        if is_in_turn { &mut self.replies.data } else { &mut self.replies.control }
    }

    /// Sends frames that keep their place: among the connection's replies while it is being read, at once otherwise.
    pub(super) fn send_in_place(&mut self, lane: LaneId, frames: &[u8]) {
        if self.replies.owner == Some(lane) {
            self.replies_of(lane, true).extend_from_slice(frames);
        } else {
            self.fanout.reply(lane, Lane::Data, frames, &mut self.sockets);
        }
    }

    /// Bytes answered to this connection during the read under way and not sent yet.
    pub(super) fn replies_waiting(&self, lane: LaneId) -> usize {
        let Replies { owner, control, data } = &self.replies;
        if *owner == Some(lane) { control.len() + data.len() } else { 0 }
    }

    /// Sends what was answered so far during this connection's read: one write where nothing is queued.
    pub(super) fn send_replies(&mut self, lane: LaneId) {
        if self.replies.owner != Some(lane) {
            return;
        }
        let Replies { control, data, .. } = &mut self.replies;
        if self.fanout.queued(lane).bytes == 0 && !data.is_empty() {
            data.append(control);
        }
        self.fanout.reply(lane, Lane::Data, data, &mut self.sockets);
        self.fanout.reply(lane, Lane::Control, control, &mut self.sockets);
        data.clear();
        control.clear();
    }
}

impl Replies {
    /// The read is done: the buffers are kept for the next one, unless a large echo made them large.
    pub(super) fn end(&mut self) {
        self.owner = None;
        for buffer in [&mut self.data, &mut self.control] {
            if buffer.capacity() > 4 * READ_BYTES_MAX {
                *buffer = Vec::new();
            }
        }
    }
}
