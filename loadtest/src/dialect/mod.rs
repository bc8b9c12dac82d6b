//! What the connections speak after the upgrade: one file for each kind of gateway.
//!
//! A [`Session`] is the conversation on one connection. It is told what came in, says what it heard, and writes what is to
//! go out; it knows neither sockets nor clocks, so that the swarm measures every gateway through one and the same path.

pub mod as_is;
pub mod json;
pub mod nats;
pub mod pusher;
pub mod socket_io;

use clap::ValueEnum;
use fanfare_client::{Position, RoomName, Url};

use crate::frame::{Opcode, write_masked};

/// The dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// Fanfare: objects with a `name`
    Json,
    /// Fanfare: objects with a `name`, on the path where one connection may have many rooms
    JsonWs,
    /// Fanfare: messages as they are
    Text,
    /// A server that gives every message, as it is, to everyone connected to the same path
    Broadcast,
    /// NATS over WebSocket
    Nats,
    /// Nchan (a module of nginx), with a location `nchan_pubsub websocket` at `/room/…`
    Nchan,
    /// Pusher Channels: private channels and client events
    Pusher,
    /// Socket.IO 4, whose server joins each connection to the room in its query
    SocketIo,
}

/// The key of a Pusher application and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PusherApp {
    /// The key, which stands in the path.
    pub key: String,
    /// The secret, which signs subscriptions.
    pub secret: String,
}

/// What a session is told about its room.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The room's name.
    pub room: &'a str,
    /// Where the dialect needs it.
    pub pusher: Option<&'a PusherApp>,
    /// Begin without a subscription; it will join and leave by command.
    pub apart: bool,
}

/// What a session made of something that came in.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The payload of a publication.
    Payload(&'a [u8]),
    /// The gateway announced that it does not deliver so many.
    Gap(u64),
    /// The session is subscribed and may publish.
    Ready,
    /// The answer to [`Session::ask`].
    Answer,
    /// The gateway confirmed the session's joining.
    Joined,
    /// The gateway confirmed the session's leaving.
    Left,
    /// The gateway said on which of its shards the connection is.
    Shard(u32),
    /// Where the room stands, and whether what was missed follows.
    Placed(Position, bool),
    /// The number of the publication that comes next.
    Offset(u64),
    /// The gateway leaves service; come back after so many milliseconds.
    Drain(u64),
    /// Something that cannot be.
    Corrupt,
    /// The gateway refused something.
    Refused(String),
}

/// What a session writes.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Wire-ready bytes.
    pub bytes: Vec<u8>,
    /// Of a small generator of masks; RFC 6455 section 5.3 wants them unpredictable, a load test only different.
    mask: u32,
}

impl Outgoing {
    /// A message in parts.
    pub fn text(&mut self, parts: &[&[u8]]) {
        self.frame(Opcode::Text, parts);
    }

    /// Bytes in parts.
    pub fn binary(&mut self, parts: &[&[u8]]) {
        self.frame(Opcode::Binary, parts);
    }

    /// Any frame.
    pub fn frame(&mut self, opcode: Opcode, parts: &[&[u8]]) {
        self.mask = self.mask.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        write_masked(&mut self.bytes, opcode, self.mask.to_ne_bytes(), parts);
    }
}

/// The conversation on one connection.
pub trait Session: Send {
    /// The upgrade is done. True when the session is subscribed by that alone; else it says [`Heard::Ready`] later.
    fn opened(&mut self, out: &mut Outgoing) -> bool;

    /// A whole message came in.
    fn incoming(&mut self, message: &[u8], out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>));

    /// Publishes into the session's room. The payload needs no escaping anywhere.
    fn publish(&mut self, payload: &[u8], out: &mut Outgoing);

    /// Asks for an answer behind which nothing is left on its way. A ping frame does, unless the dialect knows better.
    fn ask(&mut self, out: &mut Outgoing) {
        out.frame(Opcode::Ping, &[b"load"]);
    }

    /// Joins the room, or leaves it, by command. False where the dialect has no such command.
    fn join(&mut self, _join: bool, _out: &mut Outgoing) -> bool {
        false
    }
}

impl Dialect {
    /// Where the subscribers of `room` connect.
    #[must_use]
    pub fn room_url(self, base: &Url, room: &RoomName, pusher: Option<&PusherApp>) -> Url {
        match self {
            Self::Json | Self::Broadcast | Self::Nchan => base.room(room),
            Self::JsonWs => base.join("ws"),
            Self::Text => base.room(room).with_query("format", "text"),
            Self::Nats => base.clone(),
            Self::Pusher => pusher::url(base, pusher),
            Self::SocketIo => socket_io::url(base, room),
        }
    }

    /// Where connections that join and leave by command connect; `None` where to be connected is to be subscribed.
    #[must_use]
    pub fn commands_url(self, base: &Url, room: &RoomName, pusher: Option<&PusherApp>) -> Option<Url> {
        match self {
            Self::Json | Self::JsonWs => Some(base.join("ws")),
            Self::Text | Self::Broadcast | Self::Nchan => None,
            Self::Nats | Self::Pusher => Some(self.room_url(base, room, pusher)),
            Self::SocketIo => Some(socket_io::url(base, room).with_query("apart", "1")),
        }
    }

    /// The path that sends everything back; `None` where a room of one must do.
    #[must_use]
    pub fn echo_url(self, base: &Url) -> Option<Url> {
        matches!(self, Self::Json | Self::JsonWs | Self::Text | Self::Broadcast).then(|| base.join("echo"))
    }

    /// What the echo path speaks.
    #[must_use]
    pub fn of_echo(self) -> Self {
        if matches!(self, Self::Json | Self::JsonWs) { Self::Text } else { self }
    }

    /// The form of the dialect in which the gateway says who a connection is, where there is one.
    #[must_use]
    pub fn with_welcome(self) -> Self {
        if self == Self::Json { Self::JsonWs } else { self }
    }

    /// False where the sender of a publication is left out.
    #[must_use]
    pub fn sender_included(self) -> bool {
        self != Self::Pusher
    }

    /// True where the answer to [`Session::ask`] proves that the gateway has carried out the subscription. Else the swarm
    /// waits for a while when all are connected.
    #[must_use]
    pub fn answers_in_order(self) -> bool {
        self != Self::Nchan
    }

    /// The session of a connection.
    #[must_use]
    pub fn session(self, subject: &Subject<'_>) -> Box<dyn Session> {
        match self {
            Self::Json if !subject.apart => Box::new(json::InRoom),
            Self::Json | Self::JsonWs => Box::new(json::Rooms::new(subject)),
            Self::Text | Self::Broadcast | Self::Nchan => Box::new(as_is::AsIs),
            Self::Nats => Box::new(nats::Nats::new(subject)),
            Self::Pusher => Box::new(pusher::Pusher::new(subject)),
            Self::SocketIo => Box::new(socket_io::SocketIo::new(subject)),
        }
    }
}
