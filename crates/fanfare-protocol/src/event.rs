//! What Fanfare tells clients, before it is put into a dialect.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::command::{ErrorCode, ReplyId};
use crate::{Payload, RoomName, UserName};

/// Where a room's stream stands: the tag of one life of the room, and the number of its latest publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Random tag of one life of the room; a room that was reaped and returns has another.
    pub epoch: u64,
    /// Number of the latest publication, dense, from 1; 0 before the first.
    pub offset: u64,
}

impl Position {
    /// The epoch as it is written outside: 16 hexadecimal digits.
    #[must_use]
    pub fn epoch_text(epoch: u64) -> String {
        format!("{epoch:016x}")
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.epoch, self.offset)
    }
}

impl FromStr for Position {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "a position is written EPOCH:OFFSET, as `subscribed` gave it";
        let (epoch, offset) = text.split_once(':').ok_or(EXPECTED)?;
        // The standard parsers would take a sign, too.
        let is_hex = epoch.len() == 16 && epoch.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex || !offset.bytes().all(|b| b.is_ascii_digit()) {
            return Err(EXPECTED);
        }
        let epoch = u64::from_str_radix(epoch, 16).map_err(|_| EXPECTED)?;
        let offset = offset.parse().map_err(|_| EXPECTED)?;
        Ok(Self { epoch, offset })
    }
}

/// A publication: a message a room has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where it stands in its room's stream.
    pub position: Position,
    /// The number of its position, where clients are told: where history is on.
    pub offset: Option<u64>,
    /// Who said it, where that is known.
    pub user: Option<UserName>,
    /// The user's bytes.
    pub payload: Payload,
}

/// A publication as it is told afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// The publication, with its number.
    pub published: Published,
    /// When it was accepted: milliseconds since 1970, UTC.
    pub at_ms: u64,
}

/// A page of a room's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// In the room's order, without a hole.
    pub messages: Vec<Past>,
    /// Where the room's stream stands.
    pub position: Position,
    /// False when something between the position asked from and the first message is not kept any more, or never was here;
    /// `None` where no position was asked from.
    pub recovered: Option<bool>,
}

/// What a whole room is told. It travels in the room's one order, whoever it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomEvent {
    /// A publication.
    Message(RoomName, Published),
    /// A user came.
    Joined(RoomName, Option<UserName>),
    /// The same of a member of an application's channel, with what the application says of the user: JSON as text.
    MemberJoined(RoomName, UserName, Arc<str>),
    /// A user said it goes, or went.
    Left(RoomName, Option<UserName>),
    /// The room was closed for all; nothing follows.
    RoomClosed(RoomName),
}

impl RoomEvent {
    /// The room it belongs to.
    #[must_use]
    pub fn room(&self) -> &RoomName {
        match self {
            Self::Message(room, _)
            | Self::Joined(room, _)
            | Self::MemberJoined(room, ..)
            | Self::Left(room, _)
            | Self::RoomClosed(room) => room,
        }
    }
}

/// What one client is told: replies and life-cycle events.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// First event on `/ws`.
    Welcome {
        /// Public id of the connection.
        connection: &'a str,
        /// Time between the gateway's pings, milliseconds.
        heartbeat_ms: u64,
        /// The user, where one is known.
        user: Option<&'a UserName>,
        /// For a guest: with it as `token`, he comes back as the same user.
        token: Option<&'a str>,
        /// Name of the node.
        node: &'a str,
    },
    /// Reply to `subscribe`.
    Subscribed {
        /// The room.
        room: &'a RoomName,
        /// Where its stream stood when the subscription began.
        position: Position,
        /// Nothing was missed, or all of it follows.
        recovered: bool,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Reply to `unsubscribe` and `leave`.
    Unsubscribed {
        /// The room.
        room: &'a RoomName,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Receipt of a publication.
    Ack {
        /// The publication's number, where history is on.
        offset: Option<u64>,
        /// Subscribers it was written to or queued for within their bounds.
        delivered: u64,
        /// Subscribers that stay but did not get it, by their room's slow policy.
        dropped: u64,
        /// Subscribers closed because they could not take it.
        evicted: u64,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// What became of a message to a user.
    Sent {
        /// His connections it was written to or queued for.
        delivered: u64,
        /// He is away; it waits in his inbox.
        queued: bool,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Something said to this user rather than to a room.
    Told {
        /// What was said.
        message: &'a Payload,
        /// Who said it, where that is known.
        user: Option<&'a UserName>,
        /// The room in which this user was mentioned; `None`: it was sent to him.
        mention: Option<&'a RoomName>,
        /// When it was said: milliseconds since 1970, UTC.
        at_ms: u64,
    },
    /// Not all that was said to this user while he was away could be kept. The rest follows.
    Inbox {
        /// What follows.
        count: u64,
        /// What was let go.
        dropped: u64,
    },
    /// In the place of a receipt: the message waits for a moderator.
    Held {
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Reply to `presence`.
    Presence {
        /// The room.
        room: &'a RoomName,
        /// Subscribers in the room.
        count: u64,
        /// Users in the room, where presence is on, by name: all, or a page of them.
        members: &'a [UserName],
        /// The last of the page, where more follow.
        next: Option<&'a UserName>,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Reply to `history`.
    History {
        /// The room.
        room: &'a RoomName,
        /// What was read.
        page: &'a HistoryPage,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Publications of a room that this client was not given. Comes before the room's next message.
    Gap {
        /// The room.
        room: &'a RoomName,
        /// Number of the first.
        from: u64,
        /// Number of the last.
        to: u64,
        /// How many: less than from one to the other where some were not for this client.
        count: u64,
    },
    /// Reply to `refresh`.
    Refreshed {
        /// Seconds until the new token ends; `None`: it has no end.
        expires_in: Option<u64>,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// The connection's token ends soon, and the connection with it unless a new one is brought.
    Expires {
        /// Seconds until then.
        expires_in: u64,
    },
    /// Reply to `ping`.
    Pong {
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// This node is leaving service.
    Drain {
        /// Come back after this time, milliseconds.
        retry_ms: u64,
    },
    /// A command was refused; the connection stays.
    Error {
        /// Stable code.
        code: ErrorCode,
        /// For people: what was wrong and what to do.
        message: &'a str,
        /// The command's id.
        id: ReplyId<'a>,
    },
}

/// Raw JSON of a command's `id`, returned on its reply exactly as it was written.
pub(crate) fn valid_id(raw: &RawValue) -> bool {
    let text = raw.get();
    text.len() <= ReplyId::BYTES_MAX && matches!(text.as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back_what_they_write() {
        let position = Position { epoch: 0x00ab_cdef_0123_4567, offset: 42 };
        assert_eq!(position.to_string(), "00abcdef01234567:42");
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in [
            "",
            "1:2",
            "00abcdef01234567",
            "00abcdef01234567:",
            "00abcdef01234567:-1",
            "00abcdef01234567:99999999999999999999",
            "+0abcdef01234567:42",
            "-0abcdef01234567:42",
            "00abcdef01234567:+42",
        ] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }
}
