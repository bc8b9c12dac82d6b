//! Every way a connection can end: one enum, one table.

use std::borrow::Cow;

/// A WebSocket close code (RFC 6455 section 7.4, and the 4xxx range of `docs/protocol.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

/// Why a connection ended. The label is used in metrics, logs and the ledger; code and text go to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client sent a close frame.
    ClientClosed,
    /// The socket ended or failed without a close frame.
    ConnectionLost,
    /// The client asked for it: `leave`, or `close` on the hello-world path.
    Left,
    /// A frame broke RFC 6455.
    ProtocolError(&'static str),
    /// A binary message where none is allowed.
    BinaryNotAllowed,
    /// Text that is not UTF-8.
    BadUtf8,
    /// A compressed message that cannot be inflated.
    BadDeflate,
    /// Ten bad messages in a row.
    BadMessages,
    /// A message in more fragments than allowed.
    TooManyFragments,
    /// A message over the limit.
    MessageTooBig {
        /// The limit, bytes.
        max: usize,
    },
    /// Its token is missing, or does not hold; why is for people.
    TokenRefused(&'static str),
    /// Its token's time is over.
    TokenExpired,
    /// Its token was taken back before its time.
    TokenRevoked,
    /// The keys that its token needs have not been had from those who publish them.
    TokenKeysUnavailable,
    /// A command that this connection may not give, or a room it may not enter.
    NotAllowed,
    /// The room was closed for all.
    RoomClosed,
    /// By order of an operator or moderator.
    Kicked,
    /// The node is leaving service.
    Drain,
    /// The node cannot take more.
    Overloaded,
    /// No pong within the deadline.
    PongTimeout {
        /// The deadline, milliseconds.
        ms: u64,
    },
    /// The outbox reached a bound.
    SlowConsumer {
        /// Bytes queued.
        bytes: usize,
        /// Messages queued.
        messages: usize,
    },
    /// The same in a room from whose history what is missed can be had.
    SlowConsumerResumable {
        /// Bytes queued.
        bytes: usize,
        /// Messages queued.
        messages: usize,
    },
    /// Queued bytes did not move within the write deadline.
    WriteTimeout {
        /// Bytes queued.
        bytes: usize,
        /// Messages queued.
        messages: usize,
    },
    /// Its name belongs to somebody else now.
    NameTaken,
    /// More messages than the rate allows.
    TooFast,
    /// More messages of its user, over all his connections, than the rate allows.
    UserTooFast,
    /// More pings and pongs than the rate allows.
    PingsTooFast,
    /// A message for a room that took no more in that second, in a dialect that has no word for that.
    RoomTooFast,
    /// Its user has as many connections as he may have.
    TooManyConnections {
        /// So many.
        max: usize,
    },
    /// Its room has as many subscribers as it may have.
    RoomFull,
    /// A message that moderation refused, in a dialect that has no word for that.
    Rejected,
    /// The log that this node shares with others cannot be reached, or has not been read yet.
    EngineAway,
    /// Part of that log was gone before this node had read it: rooms here miss something.
    EngineLost,
    /// A fault of ours.
    Internal,
    /// Pusher: no application has this key.
    AppUnknown,
    /// Pusher: the application is switched off.
    AppDisabled,
    /// Pusher: the application has as many connections as it may have.
    AppFull {
        /// So many.
        max: usize,
    },
    /// Pusher: a version of the protocol that is not spoken here, with the code for it and what is wrong.
    AppProtocol(u16, &'static str),
    /// Pusher: a page of an origin that may not connect.
    AppOrigin,
}

impl CloseReason {
    /// Labels of all reasons, for metrics that start at zero.
    pub const LABELS: [&'static str; 39] = [
        "client_closed",
        "connection_lost",
        "left",
        "protocol_error",
        "binary_not_allowed",
        "bad_utf8",
        "bad_messages",
        "too_many_fragments",
        "message_too_big",
        "not_allowed",
        "room_closed",
        "kicked",
        "drain",
        "overloaded",
        "pong_timeout",
        "slow_consumer",
        "write_timeout",
        "too_fast",
        "internal",
        "token_refused",
        "token_expired",
        "bad_deflate",
        "rejected",
        "slow_consumer_resumable",
        "token_revoked",
        "name_taken",
        "token_keys_unavailable",
        "engine_away",
        "engine_lost",
        "user_too_fast",
        "room_too_fast",
        "too_many_connections",
        "room_full",
        "app_unknown",
        "app_disabled",
        "app_full",
        "app_protocol",
        "app_origin",
        "pings_too_fast",
    ];

    /// What each reason means for whoever operates the node and what to do next, in the order of [`Self::LABELS`].
    pub const ADVICE: [&'static str; Self::LABELS.len()] = [
        "The client said goodbye. Nothing to do.",
        "The network or the client went away without a word: a closed lid, a lost signal, a killed process. Many at once point at a proxy or network between.",
        "The client left its room by command. Nothing to do.",
        "The client broke RFC 6455. Look at its WebSocket library, or at a proxy that rewrites frames.",
        "The client sent a binary message where only text is understood. Change the client.",
        "The client sent text that is not UTF-8. Change the client.",
        "Ten messages in a row were not JSON or had no name. The client speaks another language than its path: see docs/protocol.md.",
        "A message came in more fragments than limits.fragments_max. Send whole messages.",
        "A message was over limits.message_bytes_max. Send less, or raise the limit.",
        "The client has no right to what it asked for: look at its token's rooms and at subscribe and publish of the namespace.",
        "The room was closed for all by the API or a moderator. Nothing to do.",
        "An operator or moderator ended this connection: see who called DELETE /api/connections.",
        "This node was leaving service; clients come back elsewhere by themselves. Nothing to do.",
        "This node had as much as it may have, of rooms most likely: see limits.rooms_max and the memory that `fanfare check` adds up.",
        "The client did not answer a ping: it froze, or its network is gone. If it is a phone that sleeps, raise heartbeat.pong_ms.",
        "The client read slower than its rooms spoke. See who: GET /api/connections?slow=1. Send less to it, choose another `slow` policy, or raise limits.outbox_bytes_max.",
        "Nothing of what was queued could be written for heartbeat.write_ms: the client stopped reading or its network is stuck.",
        "The client sent more than limits.messages_per_second_max. Slow it down, or raise the limit.",
        "A fault of Fanfare. Please report it with the log of that time.",
        "The token was missing, wrong or for somebody else; `text` says which. Look at auth.keys and at who mints tokens.",
        "The token's time was over. Mint for longer, or let the client refresh in time.",
        "A compressed message could not be inflated. Look at the client's compression or at a proxy between.",
        "Moderation refused the message, in a dialect that has no other word for it. See docs/moderation.md.",
        "As slow_consumer, in a room whose history has what it missed: it comes back with `since`, see docs/history.md.",
        "Its token was taken back with POST /api/revoke; GET /api/revoke shows since when. A newer token lets the user in. See docs/auth.md.",
        "The name belonged to another guest, or to a user with a token. The client chooses another, or brings its own guest token: see docs/people.md.",
        "The key set of auth.jwks_url or auth.jwks_file could not be had when the client came; the log says why. It comes back by itself.",
        "The engine was away, or this node had not read its log yet. See fanfare_engine_connected and docs/engine.md.",
        "This node missed part of the engine's log: it was away for longer than engine.log_entries_max lasts, or the engine lost data. See docs/engine.md.",
        "The user sent more than limits.messages_per_second_per_user_max over all connections. Slow the client down, or raise the limit.",
        "The room was told more than messages_per_second_max of its namespace, by a client whose dialect has no word for that. Publish less, or raise the limit.",
        "The user had limits.connections_per_user_max connections already; the newest one is closed. Look for a client that reconnects without closing, or raise the limit.",
        "The room had subscribers_max subscribers of its namespace already. The client comes back by itself; raise the limit if the room may be larger.",
        "A Pusher client brought a key that no application of pusher.apps has. Look at the key in the client's configuration.",
        "The application of a Pusher client has `enabled = false` in pusher.apps.",
        "The application had connections_max connections of pusher.apps already. The client comes back by itself; raise the limit if it may have more.",
        "A Pusher client asked for no version of the protocol, or for one that is not spoken here: 5, 6 and 7 are. Look at its library.",
        "A page of an origin that is not allowed tried to connect with a Pusher client. Add it to `origins` if it is yours.",
        "The client sent more pings and pongs (frames of WebSocket, not messages) than limits.control_frames_per_second_max. No honest client does; if yours measures something with them, raise the limit.",
    ];

    /// Place of this reason in [`Self::LABELS`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::ClientClosed => 0,
            Self::ConnectionLost => 1,
            Self::Left => 2,
            Self::ProtocolError(_) => 3,
            Self::BinaryNotAllowed => 4,
            Self::BadUtf8 => 5,
            Self::BadMessages => 6,
            Self::TooManyFragments => 7,
            Self::MessageTooBig { .. } => 8,
            Self::NotAllowed => 9,
            Self::RoomClosed => 10,
            Self::Kicked => 11,
            Self::Drain => 12,
            Self::Overloaded => 13,
            Self::PongTimeout { .. } => 14,
            Self::SlowConsumer { .. } => 15,
            Self::WriteTimeout { .. } => 16,
            Self::TooFast => 17,
            Self::Internal => 18,
            Self::TokenRefused(_) => 19,
            Self::TokenExpired => 20,
            Self::BadDeflate => 21,
            Self::Rejected => 22,
            Self::SlowConsumerResumable { .. } => 23,
            Self::TokenRevoked => 24,
            Self::NameTaken => 25,
            Self::TokenKeysUnavailable => 26,
            Self::EngineAway => 27,
            Self::EngineLost => 28,
            Self::UserTooFast => 29,
            Self::RoomTooFast => 30,
            Self::TooManyConnections { .. } => 31,
            Self::RoomFull => 32,
            Self::AppUnknown => 33,
            Self::AppDisabled => 34,
            Self::AppFull { .. } => 35,
            Self::AppProtocol(..) => 36,
            Self::AppOrigin => 37,
            Self::PingsTooFast => 38,
        }
    }

    /// Stable label for metrics, logs and the ledger.
    #[must_use]
    pub const fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// The close code the client is told.
    #[must_use]
    pub const fn code(self) -> CloseCode {
        CloseCode(match self {
            Self::ClientClosed | Self::ConnectionLost | Self::Left => 1000,
            Self::ProtocolError(_) => 1002,
            Self::BinaryNotAllowed => 1003,
            Self::BadUtf8 | Self::BadDeflate => 1007,
            Self::BadMessages | Self::TooManyFragments | Self::Rejected => 1008,
            Self::MessageTooBig { .. } => 1009,
            Self::Internal => 1011,
            Self::Drain => 1012,
            Self::TokenRefused(_) | Self::TokenExpired | Self::TokenRevoked => 4401,
            Self::NotAllowed => 4403,
            Self::NameTaken => 4409,
            Self::RoomClosed => 4410,
            Self::Kicked => 4420,
            Self::TooFast
            | Self::UserTooFast
            | Self::PingsTooFast
            | Self::RoomTooFast
            | Self::TooManyConnections { .. } => 4429,
            Self::Overloaded | Self::TokenKeysUnavailable | Self::EngineAway => 4500,
            Self::EngineLost => 4503,
            Self::RoomFull => 4505,
            Self::PongTimeout { .. } => 4504,
            Self::SlowConsumer { .. } | Self::SlowConsumerResumable { .. } | Self::WriteTimeout { .. } => 4508,
            Self::AppUnknown => 4001,
            Self::AppDisabled => 4003,
            Self::AppFull { .. } => 4100,
            Self::AppProtocol(code, _) => code,
            Self::AppOrigin => 4009,
        })
    }

    /// The same for a client of the Pusher dialect, whose libraries act on the range of a code: 4000 to 4099 never comes back, 4100 to 4199
    /// comes back after a second, 4200 to 4299 at once.
    #[must_use]
    pub const fn pusher_code(self) -> CloseCode {
        match self {
            Self::PongTimeout { .. } => CloseCode(4201),
            Self::Drain | Self::EngineLost | Self::RoomClosed => CloseCode(4200),
            Self::TokenRefused(_)
            | Self::TokenExpired
            | Self::TokenRevoked
            | Self::NotAllowed
            | Self::NameTaken
            | Self::Kicked => CloseCode(4009),
            Self::Overloaded
            | Self::TokenKeysUnavailable
            | Self::EngineAway
            | Self::RoomFull
            | Self::TooFast
            | Self::UserTooFast
            | Self::PingsTooFast
            | Self::RoomTooFast
            | Self::TooManyConnections { .. }
            | Self::SlowConsumer { .. }
            | Self::SlowConsumerResumable { .. }
            | Self::WriteTimeout { .. } => CloseCode(4100),
            Self::ClientClosed
            | Self::ConnectionLost
            | Self::Left
            | Self::ProtocolError(_)
            | Self::BinaryNotAllowed
            | Self::BadUtf8
            | Self::BadDeflate
            | Self::BadMessages
            | Self::TooManyFragments
            | Self::MessageTooBig { .. }
            | Self::Rejected
            | Self::Internal
            | Self::AppUnknown
            | Self::AppDisabled
            | Self::AppFull { .. }
            | Self::AppProtocol(..)
            | Self::AppOrigin => self.code(),
        }
    }

    /// True when it was closed because it did not take what was sent to it.
    #[must_use]
    pub const fn is_eviction(self) -> bool {
        matches!(self, Self::SlowConsumer { .. } | Self::SlowConsumerResumable { .. } | Self::WriteTimeout { .. })
    }

    /// True when what is queued for the client is sent before the close frame; false when it is let go.
    #[must_use]
    pub const fn waits_for_queue(self) -> bool {
        matches!(
            self,
            Self::Left
                | Self::RoomClosed
                | Self::Drain
                | Self::Kicked
                | Self::BadMessages
                | Self::NotAllowed
                | Self::TokenExpired
                | Self::Rejected
                | Self::EngineAway
                | Self::EngineLost
                | Self::RoomTooFast
        )
    }

    /// The reason text the client is told; at most 123 bytes (RFC 6455 section 5.5.1).
    #[must_use]
    pub fn text(self) -> Cow<'static, str> {
        match self {
            Self::ClientClosed | Self::ConnectionLost => "bye".into(),
            Self::Left => "left".into(),
            Self::ProtocolError(what) | Self::AppProtocol(_, what) => what.into(),
            Self::BinaryNotAllowed => "binary messages are not allowed here".into(),
            Self::BadUtf8 => "text is not UTF-8".into(),
            Self::BadDeflate => "compressed message cannot be inflated".into(),
            Self::BadMessages => "too many bad messages in a row".into(),
            Self::TooManyFragments => "message in too many fragments".into(),
            Self::MessageTooBig { max } => format!("message over {max} bytes").into(),
            Self::TokenRefused(why) => why.into(),
            Self::TokenExpired => "token expired, connect with a new one".into(),
            Self::TokenRevoked => "token revoked".into(),
            Self::TokenKeysUnavailable => "token keys not available".into(),
            Self::NotAllowed => "not allowed".into(),
            Self::NameTaken => "name taken".into(),
            Self::RoomClosed => "room closed".into(),
            Self::Kicked => "kicked".into(),
            Self::Drain => "node is leaving service, reconnect".into(),
            Self::Overloaded => "node overloaded, come back with back-off".into(),
            Self::PongTimeout { ms } => format!("no pong within {ms} ms").into(),
            Self::SlowConsumer { bytes, messages } => format!("queued {bytes} bytes, {messages} messages").into(),
            Self::SlowConsumerResumable { bytes, messages } => {
                format!("queued {bytes} bytes, {messages} messages; come back with since").into()
            }
            Self::WriteTimeout { bytes, messages } => {
                format!("write blocked: queued {bytes} bytes, {messages} messages").into()
            }
            Self::TooFast => "messages too fast, slow down".into(),
            Self::PingsTooFast => "pings too fast, slow down".into(),
            Self::UserTooFast => "messages of this user too fast, slow down".into(),
            Self::RoomTooFast => "messages too fast for this room, slow down".into(),
            Self::TooManyConnections { max } => format!("this user has {max} connections already").into(),
            Self::RoomFull => "room full, come back later".into(),
            Self::Rejected => "message refused by moderation".into(),
            Self::EngineAway => "engine away, come back with back-off".into(),
            Self::EngineLost => "messages were missed here, come back".into(),
            Self::Internal => "internal error".into(),
            Self::AppUnknown => "no application has this key".into(),
            Self::AppDisabled => "this application is switched off".into(),
            Self::AppFull { max } => format!("this application has {max} connections already").into(),
            Self::AppOrigin => "pages of this origin may not connect".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_label_and_a_text_that_fits() {
        let all = [
            CloseReason::ClientClosed,
            CloseReason::ConnectionLost,
            CloseReason::Left,
            CloseReason::ProtocolError("reserved bits are set"),
            CloseReason::BinaryNotAllowed,
            CloseReason::BadUtf8,
            CloseReason::BadMessages,
            CloseReason::TooManyFragments,
            CloseReason::MessageTooBig { max: usize::MAX },
            CloseReason::NotAllowed,
            CloseReason::RoomClosed,
            CloseReason::Kicked,
            CloseReason::Drain,
            CloseReason::Overloaded,
            CloseReason::PongTimeout { ms: u64::MAX },
            CloseReason::SlowConsumer { bytes: usize::MAX, messages: usize::MAX },
            CloseReason::WriteTimeout { bytes: usize::MAX, messages: usize::MAX },
            CloseReason::TooFast,
            CloseReason::Internal,
            CloseReason::TokenRefused("this node checks no tokens: it has no auth.keys"),
            CloseReason::TokenExpired,
            CloseReason::BadDeflate,
            CloseReason::Rejected,
            CloseReason::SlowConsumerResumable { bytes: usize::MAX, messages: usize::MAX },
            CloseReason::TokenRevoked,
            CloseReason::NameTaken,
            CloseReason::TokenKeysUnavailable,
            CloseReason::EngineAway,
            CloseReason::EngineLost,
            CloseReason::UserTooFast,
            CloseReason::RoomTooFast,
            CloseReason::TooManyConnections { max: usize::MAX },
            CloseReason::RoomFull,
            CloseReason::AppUnknown,
            CloseReason::AppDisabled,
            CloseReason::AppFull { max: usize::MAX },
            CloseReason::AppProtocol(4007, "this version of the protocol is not spoken here: 5, 6 and 7 are"),
            CloseReason::AppOrigin,
            CloseReason::PingsTooFast,
        ];
        for (index, reason) in all.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert!(reason.text().len() <= 123, "{reason:?}");
        }
        assert_eq!(all.len(), CloseReason::LABELS.len());
        assert!(CloseReason::ADVICE.iter().all(|advice| advice.ends_with('.')), "whole sentences");
    }
}
