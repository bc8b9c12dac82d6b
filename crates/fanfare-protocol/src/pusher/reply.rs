//! What one client is told.

use crate::dialect::json_string;
use crate::wire::{Opcode, frame_with};

/// Something that one client alone is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PusherReply<'a> {
    /// First words.
    Established {
        /// Its public id here: digits, a point, digits.
        socket_id: &'a str,
        /// Seconds of silence after which the client should ask whether anybody is there.
        activity_timeout_s: u64,
    },
    /// It is subscribed.
    Subscribed {
        /// To this channel.
        channel: &'a str,
        /// JSON as text: of a presence channel its members.
        data: &'a str,
    },
    /// It is not subscribed.
    NotSubscribed {
        /// The channel as the client called it.
        channel: &'a str,
        /// What kind of refusal.
        refusal: ChannelRefusal,
        /// For people.
        error: &'a str,
    },
    /// Nothing is known of what its cache channel said last.
    CacheMiss {
        /// The channel.
        channel: &'a str,
    },
    /// Answer to a ping.
    Pong,
    /// It is a user of the application.
    SignedIn {
        /// Who it is, as it said itself.
        user_data: &'a str,
    },
    /// Something was refused; the connection stays.
    Error {
        /// A code of the protocol. Never one of 4000 to 4299: there clients give up although the connection stays.
        code: Option<u16>,
        /// For people.
        message: &'a str,
    },
}

/// Why a client is not subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelRefusal {
    /// No word of the application's, or one that does not hold.
    Auth,
    /// The name cannot be a channel's.
    BadName,
    /// A bound was reached.
    Limit,
    /// Not here, or not now.
    Unavailable,
    /// It was subscribed; the channel was closed for all.
    Closed,
}

impl ChannelRefusal {
    const fn kind(self) -> (&'static str, u16) {
        match self {
            Self::Auth => ("AuthError", 401),
            Self::BadName => ("BadName", 400),
            Self::Limit => ("LimitReached", 403),
            Self::Unavailable => ("Unavailable", 503),
            Self::Closed => ("Closed", 410),
        }
    }
}

impl PusherReply<'_> {
    /// Appends it as a text frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let length = match self {
            Self::Subscribed { channel, data } => 96 + channel.len() + data.len(),
            Self::NotSubscribed { channel, error, .. } => 128 + channel.len() + error.len(),
            Self::CacheMiss { channel } => 64 + channel.len(),
            Self::SignedIn { user_data } => 64 + user_data.len(),
            Self::Error { message, .. } => 64 + message.len(),
            Self::Established { .. } | Self::Pong => 120,
        };
        frame_with(Opcode::Text, length, out, |out| self.write(out));
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut raw = |text: &str| out.extend_from_slice(text.as_bytes());
        match *self {
            Self::Established { socket_id, activity_timeout_s } => {
                raw(r#"{"event":"pusher:connection_established","data":""#);
                // Digits and a point: nothing in it needs an escape.
                raw(&format!(r#"{{\"socket_id\":\"{socket_id}\",\"activity_timeout\":{activity_timeout_s}}}"}}"#));
            }
            Self::Subscribed { channel, data } => {
                raw(r#"{"event":"pusher_internal:subscription_succeeded","channel":"#);
                json_string(channel, out);
                out.extend_from_slice(br#","data":"#);
                json_string(data, out);
                out.push(b'}');
            }
            Self::NotSubscribed { channel, refusal, error } => {
                let (kind, status) = refusal.kind();
                raw(r#"{"event":"pusher:subscription_error","channel":"#);
                json_string(channel, out);
                out.extend_from_slice(format!(r#","data":{{"type":"{kind}","error":"#).as_bytes());
                json_string(error, out);
                out.extend_from_slice(format!(r#","status":{status}}}}}"#).as_bytes());
            }
            Self::CacheMiss { channel } => {
                raw(r#"{"event":"pusher:cache_miss","channel":"#);
                json_string(channel, out);
                out.extend_from_slice(br#","data":"{}"}"#);
            }
            Self::Pong => raw(r#"{"event":"pusher:pong","data":{}}"#),
            Self::SignedIn { user_data } => {
                raw(r#"{"event":"pusher:signin_success","data":{"user_data":"#);
                json_string(user_data, out);
                out.extend_from_slice(b"}}");
            }
            Self::Error { code, message } => {
                let code = code.map_or_else(|| "null".to_owned(), |code| code.to_string());
                raw(&format!(r#"{{"event":"pusher:error","data":{{"code":{code},"message":"#));
                json_string(message, out);
                out.extend_from_slice(b"}}");
            }
        }
    }
}
