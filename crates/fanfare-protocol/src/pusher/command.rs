//! From one text frame to one [`Action`].

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{CLIENT_PREFIX, EVENT_CHARS_MAX};
use crate::depth::{JSON_DEPTH_MAX, nests_deeper};
use crate::{Action, ErrorCode, ReplyId};

/// What a client asks. Names are as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PusherCommand<'a> {
    /// Subscribe to a channel.
    Subscribe {
        /// Its name.
        channel: String,
        /// The application's word that this client may: its key, a colon and a signature.
        auth: Option<String>,
        /// What is signed along: JSON as text.
        channel_data: Option<String>,
    },
    /// Unsubscribe from a channel.
    Unsubscribe {
        /// Its name.
        channel: String,
    },
    /// Answer it.
    Ping,
    /// The answer to a ping.
    Pong,
    /// Become a user of the application.
    SignIn {
        /// The application's word for it.
        auth: String,
        /// Who the user is: JSON as text.
        user_data: String,
    },
    /// Tell all others in a channel.
    ClientEvent {
        /// Its name, which begins with `client-`.
        event: String,
        /// The channel's name.
        channel: String,
        /// Any JSON value, byte for byte; `None`: there was none.
        data: Option<&'a str>,
    },
}

/// The action that a text frame asks for. Nothing that it may hold ends the connection.
pub(crate) fn action(text: &str) -> Action<'_> {
    read(text).map_or_else(
        |message| Action::Refuse { code: ErrorCode::BadMessage, message, id: ReplyId(None) },
        Action::Pusher,
    )
}

/// A frame with its parts as they were written. Parts that no command has are passed over.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channel: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// A `null` that is there is something else than a part that is not.
fn present<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

fn read(text: &str) -> Result<PusherCommand<'_>, String> {
    // Without this look an array would do: serde takes its elements for the parts in order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err("a message must be one JSON object with an event".to_owned());
    }
    let frame: Frame<'_> = serde_json::from_str(text).map_err(|error| format!("the message is not JSON: {error}"))?;
    if nests_deeper(text, JSON_DEPTH_MAX) {
        return Err(format!("the message nests more than {JSON_DEPTH_MAX} levels deep"));
    }
    let event = frame.event.ok_or("the event is missing").and_then(|event| string(event, "event must be a string"))?;
    match event.as_str() {
        "pusher:ping" => Ok(PusherCommand::Ping),
        "pusher:pong" => Ok(PusherCommand::Pong),
        "pusher:subscribe" => {
            let Data { channel, auth, channel_data, .. } = Data::read(frame.data)?;
            let channel = channel.ok_or("data.channel is missing")?;
            Ok(PusherCommand::Subscribe { channel, auth: auth.filter(|auth| !auth.is_empty()), channel_data })
        }
        "pusher:unsubscribe" => {
            let channel = Data::read(frame.data)?.channel.ok_or("data.channel is missing")?;
            Ok(PusherCommand::Unsubscribe { channel })
        }
        "pusher:signin" => {
            let Data { auth, user_data, .. } = Data::read(frame.data)?;
            let (auth, user_data) =
                (auth.ok_or("data.auth is missing")?, user_data.ok_or("data.user_data is missing")?);
            Ok(PusherCommand::SignIn { auth, user_data })
        }
        _ if event.starts_with(CLIENT_PREFIX) => {
            if event.chars().count() > EVENT_CHARS_MAX {
                return Err(format!("the name of an event has at most {EVENT_CHARS_MAX} characters"));
            }
            let channel = frame.channel.ok_or("the channel is missing")?;
            let channel = string(channel, "channel must be a string")?;
            Ok(PusherCommand::ClientEvent { event, channel, data: frame.data.map(RawValue::get) })
        }
        _ => {
            let shown = &event[..event.floor_char_boundary(64)];
            Err(format!("there is no event {shown} that a client may send; its own begin with {CLIENT_PREFIX}"))
        }
    }
}

fn string(raw: &RawValue, otherwise: &'static str) -> Result<String, &'static str> {
    serde_json::from_str(raw.get()).map_err(|_| otherwise)
}

/// The data of the protocol's own events.
#[derive(Deserialize, Default)]
struct Data {
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    channel_data: Option<String>,
    #[serde(default)]
    user_data: Option<String>,
}

impl Data {
    /// Reads an object; some clients send it as text.
    fn read(data: Option<&RawValue>) -> Result<Self, String> {
        let raw = data.ok_or("data is missing")?.get();
        let text;
        let object = if raw.starts_with('"') {
            text = serde_json::from_str::<String>(raw).map_err(|error| format!("data: {error}"))?;
            text.as_str()
        } else {
            raw
        };
        if !object.trim_ascii_start().starts_with('{') {
            return Err("data must be an object".to_owned());
        }
        if nests_deeper(object, JSON_DEPTH_MAX) {
            return Err(format!("data nests more than {JSON_DEPTH_MAX} levels deep"));
        }
        serde_json::from_str(object).map_err(|error| format!("data: {error}"))
    }
}
