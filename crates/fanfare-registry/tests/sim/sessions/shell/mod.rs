//! What the edge does around the core crates, without sockets: bytes to inputs, actions performed, items taken, connections ended.
//! Beside every deed stands what the model notes about it.

mod ends;
mod member;
mod perform;
mod recovery;
mod turn;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::{Delivery, Lane, LaneId, RoomId};
use fanfare_protocol::wire::{Decoder, Inflater, Input, Message, Opcode, frame};
use fanfare_protocol::{CloseReason, Event, Position, ReplyId, RoomName, Session, UserName};
use fanfare_registry::Room;

use super::client::IGNORED_BYTES_MAX;
use super::world::{LIMITS, REPLY_PAUSE, World};
use crate::wires::Wire;

/// What a shard is told besides what rooms say.
#[derive(Debug)]
pub(super) enum Order {
    /// Tell a publisher what became of its publication.
    Ack { lane: LaneId, id: Box<str>, delivery: Delivery },
    /// Somebody has asked for a room that it is in: where its stream stood, and the number of its last event then.
    Again(Again),
}

#[derive(Debug)]
pub(super) struct Again {
    lane: LaneId,
    room: RoomId,
    name: RoomName,
    since: Option<Position>,
    id: u64,
    position: Position,
    seq: u64,
}

/// The gateway's side of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shard: usize,
    pub(super) lane: LaneId,
    pub(super) session: Session,
    pub(super) user: Option<UserName>,
    pub(super) rooms: BTreeMap<usize, Arc<Room>>,
    pub(super) phase: Phase,
    /// Rooms in which it has not been told all it missed, and up to where it was.
    behind: VecDeque<(usize, u64)>,
    /// Bytes that nobody wanted to hear.
    ignored: usize,
    decoder: Decoder,
    heard: Duration,
    pinged: Option<Duration>,
    /// When its queue last moved, while there is one.
    moved: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closing { deadline: Duration, peer_has_closed: bool, is_deaf: bool },
}

impl World {
    pub(super) fn admit(
        &mut self,
        n: usize,
        shard: usize,
        session: Session,
        user: Option<UserName>,
        since: Option<Position>,
    ) {
        let lane = self.shards[shard].0.open(self.clients[n].form().index());
        self.shards[shard].1.0.insert(lane.index, Wire::default());
        self.by_lane.insert((shard, lane.index), n);
        let own = self.clients[n].own;
        self.connections[n] = Some(Connection {
            shard,
            lane,
            session,
            user,
            rooms: BTreeMap::new(),
            phase: Phase::Open,
            behind: VecDeque::new(),
            ignored: 0,
            decoder: Decoder::new(),
            heard: self.now,
            pinged: None,
            moved: None,
        });
        let Some(room) = own else {
            let name = format!("c{n}");
            let user = self.connections[n].as_ref().and_then(|connection| connection.user.clone());
            let welcome = Event::Welcome {
                connection: &name,
                heartbeat_ms: 5_000,
                user: user.as_ref(),
                token: None,
                node: "sim",
            };
            return self.answer(n, &welcome, Lane::Data);
        };
        self.enter_own_room(n, room, since);
    }

    // ---- reading ----

    /// Reads up to `count` bytes of what a client has sent.
    pub(super) fn read(&mut self, n: usize, count: usize) {
        let Some(Connection { shard, lane, .. }) = self.connections[n] else { return };
        if self.shards[shard].0.reply_bytes(lane) >= REPLY_PAUSE {
            return;
        }
        let uplink = &mut self.clients[n].uplink;
        let mut bytes: Vec<u8> = uplink.drain(..count.min(uplink.len())).collect();
        if bytes.is_empty() {
            if self.clients[n].has_hung_up {
                self.on_end(n);
            }
            return;
        }
        let now = self.now;
        let Some(connection) = &mut self.connections[n] else { return };
        (connection.heard, connection.pinged) = (now, None);
        if self.clients[n].only_listens() {
            return self.ignore(n, bytes.len());
        }
        let takes_deflated = connection.session.deflate().is_some();
        let mut decoder = std::mem::take(&mut connection.decoder);
        let mut rest = &mut bytes[..];
        while self.wants_input(n) {
            let used = match decoder.next_with(rest, &LIMITS, takes_deflated) {
                Ok((used, Some(input))) => {
                    self.on_input(n, input);
                    used
                }
                Ok((_, None)) => break,
                Err(reason) => {
                    self.fail(n, reason);
                    break;
                }
            };
            rest = &mut rest[used..];
        }
        if let Some(connection) = &mut self.connections[n] {
            connection.decoder = decoder;
        }
        let client = &self.clients[n];
        assert!(
            client.rude.is_none() || !client.uplink.is_empty() || !self.is_open(n),
            "client {n} broke a rule ({:?}) and is still there",
            client.rude
        );
    }

    pub(super) fn wants_input(&self, n: usize) -> bool {
        self.connections[n].as_ref().is_some_and(|connection| match connection.phase {
            Phase::Open => true,
            Phase::Closing { peer_has_closed, is_deaf, .. } => !peer_has_closed && !is_deaf,
        })
    }

    pub(super) fn on_input(&mut self, n: usize, input: Input<'_>) {
        let is_open = self.is_open(n);
        match input {
            Input::Close(_) => self.on_peer_close(n),
            Input::Ping(payload) if is_open => {
                let mut pong = Vec::new();
                frame(Opcode::Pong, payload, &mut pong);
                self.reply(n, &pong, Lane::Control);
            }
            Input::Message(message) if is_open => self.on_message(n, message),
            Input::Deflated(deflated) if is_open => {
                let mut inflater = Inflater::new();
                match inflater.message(deflated, None, &LIMITS) {
                    Ok(message) => self.on_message(n, message),
                    Err(reason) => self.fail(n, reason),
                }
            }
            _ => {}
        }
    }

    fn on_message(&mut self, n: usize, message: Message<'_>) {
        let connection = self.connections[n].as_mut().expect("it is open");
        let action = connection.session.handle(message, &LIMITS);
        self.perform(n, action);
    }

    /// The client of an event stream has nothing to say. A little of it is passed over.
    fn ignore(&mut self, n: usize, bytes: usize) {
        let connection = self.connections[n].as_mut().expect("it is read");
        connection.ignored += bytes;
        if connection.ignored > IGNORED_BYTES_MAX && self.is_open(n) {
            self.end(n, CloseReason::ProtocolError("an event stream only listens"));
        }
    }

    pub(super) fn on_end(&mut self, n: usize) {
        if self.is_open(n) {
            // Whoever only listened has no close frame to send.
            let listened = self.clients[n].only_listens() && !self.wire(n).is_broken;
            self.end(n, if listened { CloseReason::ClientClosed } else { CloseReason::ConnectionLost });
        } else {
            self.remove(n);
        }
    }

    pub(super) fn is_open(&self, n: usize) -> bool {
        self.connections[n].as_ref().is_some_and(|connection| connection.phase == Phase::Open)
    }
}

/// The number that a client gave as its command's id; 0 without one.
fn number_of(id: ReplyId<'_>) -> u64 {
    id.0.map_or(0, |raw| raw.trim_matches('"').parse().expect("ids of this run are numbers"))
}
