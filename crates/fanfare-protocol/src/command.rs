//! What a client asks, decoded: one [`Action`] per message.

use std::borrow::Cow;

use crate::pusher::PusherCommand;
use crate::{CloseReason, PayloadRef, Position, RoomName, UserName};

/// The `id` of a command, as raw JSON (a number or a string), or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplyId<'a>(pub Option<&'a str>);

impl ReplyId<'_> {
    /// Longest raw id, bytes.
    pub const BYTES_MAX: usize = 128;
}

/// Which room a command means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one room of a `/room/{room}` connection.
    Own,
    /// A room named in the command.
    Named(RoomName),
}

/// Stable codes of the `error` event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// Not JSON, no `name`, or a field of the wrong type or missing.
    BadMessage,
    /// The room's name breaks the rules.
    BadRoom,
    /// The gateway does not know this command, or has it switched off.
    UnknownCommand,
    /// The identity lacks the right.
    NotAllowed,
    /// The connection is not subscribed to the room.
    NotSubscribed,
    /// A bound was reached: rooms, or subscriptions of a connection.
    LimitReached,
    /// The node cannot take it now; try again.
    Overloaded,
    /// Known, but not switched on in this room or on this node.
    NotAvailable,
    /// Moderation refused the message.
    Rejected,
    /// A token that does not hold, or is not for this connection.
    TokenRefused,
    /// What several nodes share cannot be reached.
    EngineAway,
    /// The room has as many subscribers as it may have.
    RoomFull,
    /// The room takes no more messages in this second.
    TooFast,
}

impl ErrorCode {
    /// The code as clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadMessage => "bad_message",
            Self::BadRoom => "bad_room",
            Self::UnknownCommand => "unknown_command",
            Self::NotAllowed => "not_allowed",
            Self::NotSubscribed => "not_subscribed",
            Self::LimitReached => "limit_reached",
            Self::Overloaded => "overloaded",
            Self::NotAvailable => "not_available",
            Self::Rejected => "rejected",
            Self::TokenRefused => "token_refused",
            Self::EngineAway => "engine_away",
            Self::RoomFull => "room_full",
            Self::TooFast => "too_fast",
        }
    }
}

/// Messages in a page of history, unless less are asked for.
pub const HISTORY_LIMIT_DEFAULT: usize = 100;

/// Messages in a page of history at most.
pub const HISTORY_LIMIT_MAX: usize = 1_000;

/// Users in one answer to `presence` at most, and unless less are asked for.
pub const PRESENCE_LIMIT_MAX: usize = 1_000;

/// What the shell should do about one message. Borrowed parts live in the read buffer.
#[derive(Debug, Clone, PartialEq)]
pub enum Action<'a> {
    /// Subscribe to a room.
    Subscribe {
        /// The room.
        room: RoomName,
        /// Where the client was before, if it wants what it missed.
        since: Option<Position>,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Unsubscribe from a room.
    Unsubscribe {
        /// The room.
        room: Target,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Publish to a room.
    Publish {
        /// The room.
        room: Target,
        /// The user's bytes.
        payload: PayloadRef<'a>,
        /// Leave the sender's connection out.
        except_self: bool,
        /// The command's id; without one no receipt is wanted.
        id: ReplyId<'a>,
    },
    /// Say something to all connections of a user, or into his inbox.
    Send {
        /// The user.
        user: UserName,
        /// The sender's bytes.
        payload: PayloadRef<'a>,
        /// The command's id; without one no word is wanted of what became of it.
        id: ReplyId<'a>,
    },
    /// Ask who is in a room.
    Presence {
        /// The room.
        room: Target,
        /// Users whose names come after this one; `None`: from the first on.
        after: Option<Cow<'a, str>>,
        /// Users at most, 1 to [`PRESENCE_LIMIT_MAX`].
        limit: usize,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Read a room's history.
    History {
        /// The room.
        room: Target,
        /// After this position; `None`: the latest.
        since: Option<Position>,
        /// Messages at most, 1 to [`HISTORY_LIMIT_MAX`].
        limit: usize,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Tell the others, unsubscribe, and on a one-room connection close 1000.
    Leave {
        /// The room.
        room: Target,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Close the room for all.
    CloseRoom {
        /// The room.
        room: Target,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Take a new token in the place of the one this connection came with.
    Refresh {
        /// The token.
        token: Cow<'a, str>,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// What a client of the Pusher dialect asks.
    Pusher(PusherCommand<'a>),
    /// Said to the gateway only; logged at debug.
    Said(&'a str),
    /// Answer `ping`.
    Pong {
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// Send this message back to its sender alone (echo and hello world).
    Reply(PayloadRef<'a>),
    /// Answer with an `error` event; the connection stays.
    Refuse {
        /// Stable code.
        code: ErrorCode,
        /// For people.
        message: String,
        /// The command's id.
        id: ReplyId<'a>,
    },
    /// End the connection.
    Close(CloseReason),
}
