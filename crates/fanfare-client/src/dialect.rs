//! The JSON dialect from the client's side: commands out, events in.

use std::borrow::Cow;
use std::fmt::Write;

use fanfare_protocol::Position;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Error;

/// An event of the JSON dialect. Fields the client does not know are ignored; borrowed parts live in the message.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// First event on `/ws`.
    Welcome {
        /// Public id of the connection.
        connection: String,
        /// Time between the gateway's pings, milliseconds.
        heartbeat_ms: u64,
        /// The user, where one is known.
        user: Option<String>,
        /// Guest token, to come back as the same user.
        token: Option<String>,
        /// Name of the node.
        node: Option<String>,
    },
    /// Reply to `subscribe`, and to `?since=`.
    Subscribed {
        /// The room; not on `/room/…`.
        room: Option<String>,
        /// Where the room's stream stood.
        position: Option<Position>,
        /// Nothing was missed, or all of it follows.
        recovered: bool,
    },
    /// A publication.
    Message {
        /// What was published, as raw JSON.
        message: &'a RawValue,
        /// The room; not on `/room/…`.
        room: Option<String>,
        /// Its number, where history is on.
        offset: Option<u64>,
        /// Who said it, where that is known.
        user: Option<String>,
    },
    /// A user came.
    Joined {
        /// The room; not on `/room/…`.
        room: Option<String>,
        /// The user.
        user: Option<String>,
    },
    /// A user went.
    Left {
        /// The room; not on `/room/…`.
        room: Option<String>,
        /// The user.
        user: Option<String>,
    },
    /// Receipt of a publication that carried an `id`.
    Ack {
        /// Its number, where history is on.
        offset: Option<u64>,
        /// Subscribers it was written to or queued for.
        delivered: u64,
        /// Subscribers that stay but did not get it.
        dropped: u64,
        /// Subscribers closed because they could not take it.
        evicted: u64,
        /// The command's id, raw.
        id: Option<&'a RawValue>,
    },
    /// Publications of a room that were not delivered to this client; they stand before its next message.
    Gap {
        /// The room; not on `/room/…`.
        room: Option<String>,
        /// How many.
        count: u64,
    },
    /// The node is leaving service.
    Drain {
        /// Come back after this time, milliseconds.
        retry_ms: u64,
    },
    /// A command was refused; the connection stays.
    Error {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
        /// The command's id, raw.
        id: Option<&'a RawValue>,
    },
    /// Who is in a room.
    Presence {
        /// The room; not on `/room/…`.
        room: Option<String>,
        /// Subscribers in the room.
        count: u64,
        /// The members, raw.
        members: Option<&'a RawValue>,
    },
    /// Past publications.
    History {
        /// The room; not on `/room/…`.
        room: Option<String>,
        /// The publications, raw.
        messages: Option<&'a RawValue>,
        /// Where the room's stream stands.
        position: Option<Position>,
    },
    /// Reply to `unsubscribe`.
    Unsubscribed {
        /// The room; not on `/room/…`.
        room: Option<String>,
    },
    /// Reply to `refresh`.
    Refreshed {
        /// Life of the new token, seconds.
        expires_in: Option<u64>,
    },
    /// Reply to `ping`.
    Pong {
        /// The command's id, raw.
        id: Option<&'a RawValue>,
    },
    /// The room was closed for all.
    RoomClosed {
        /// The room; not on `/room/…`.
        room: Option<String>,
    },
    /// An event this client does not know.
    Other {
        /// Its name.
        name: Cow<'a, str>,
    },
}

/// All fields of all events. An internally tagged enum would buffer each message and could not borrow raw JSON.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    members: Option<&'a RawValue>,
    #[serde(borrow, default)]
    messages: Option<&'a RawValue>,
    #[serde(default)]
    room: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    connection: Option<String>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    node: Option<String>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    epoch: Option<String>,
    #[serde(default)]
    offset: Option<u64>,
    #[serde(default)]
    recovered: Option<bool>,
    #[serde(default)]
    delivered: Option<u64>,
    #[serde(default)]
    dropped: Option<u64>,
    #[serde(default)]
    evicted: Option<u64>,
    #[serde(default)]
    count: Option<u64>,
    #[serde(default)]
    heartbeat_ms: Option<u64>,
    #[serde(default)]
    retry_ms: Option<u64>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Keeps a `null` apart from a field that is not there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Event<'a> {
    /// Reads one text message of the gateway.
    ///
    /// # Errors
    /// [`Error::Answer`] when it is no JSON object with a `name`, or a field it must have is missing or of another type.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        let fields: Fields<'a> = serde_json::from_str(text).map_err(|error| Error::Answer(error.to_string()))?;
        let missing = |field: &str| Error::Answer(format!("an event lacks `{field}`"));
        let position = || {
            let (epoch, offset) = (fields.epoch.as_deref()?, fields.offset?);
            format!("{epoch}:{offset}").parse().ok()
        };
        Ok(match &*fields.name {
            "message" => Self::Message {
                message: fields.message.ok_or_else(|| missing("message"))?,
                room: fields.room,
                offset: fields.offset,
                user: fields.user,
            },
            "ack" => Self::Ack {
                offset: fields.offset,
                delivered: fields.delivered.ok_or_else(|| missing("delivered"))?,
                dropped: fields.dropped.unwrap_or(0),
                evicted: fields.evicted.unwrap_or(0),
                id: fields.id,
            },
            "gap" => Self::Gap { room: fields.room, count: fields.count.ok_or_else(|| missing("count"))? },
            "drain" => Self::Drain { retry_ms: fields.retry_ms.unwrap_or(0) },
            "error" => Self::Error {
                code: fields.code.ok_or_else(|| missing("code"))?,
                message: fields.message.and_then(|m| serde_json::from_str(m.get()).ok()).unwrap_or_default(),
                id: fields.id,
            },
            "welcome" => Self::Welcome {
                connection: fields.connection.unwrap_or_default(),
                heartbeat_ms: fields.heartbeat_ms.unwrap_or(0),
                user: fields.user,
                token: fields.token,
                node: fields.node,
            },
            "subscribed" => Self::Subscribed {
                position: position(),
                recovered: fields.recovered.unwrap_or(false),
                room: fields.room,
            },
            "joined" => Self::Joined { room: fields.room, user: fields.user },
            "left" => Self::Left { room: fields.room, user: fields.user },
            "presence" => {
                Self::Presence { count: fields.count.unwrap_or(0), members: fields.members, room: fields.room }
            }
            "history" => Self::History { position: position(), messages: fields.messages, room: fields.room },
            "unsubscribed" => Self::Unsubscribed { room: fields.room },
            "refreshed" => Self::Refreshed { expires_in: fields.expires_in },
            "pong" => Self::Pong { id: fields.id },
            "room_closed" => Self::RoomClosed { room: fields.room },
            _ => Self::Other { name: fields.name },
        })
    }
}

/// A command of the JSON dialect. On `/room/…` the room may be `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command<'a> {
    /// Subscribe to a room; with `since`, what was missed follows first.
    Subscribe {
        /// The room.
        room: &'a str,
        /// Where the client was before.
        since: Option<Position>,
    },
    /// Unsubscribe from a room.
    Unsubscribe {
        /// The room.
        room: Option<&'a str>,
    },
    /// Publish one JSON value.
    Publish {
        /// The room.
        room: Option<&'a str>,
        /// Raw JSON; the caller vouches that it is one value.
        message: &'a str,
        /// Leave this connection out.
        except_self: bool,
    },
    /// Ask who is in a room.
    Presence {
        /// The room.
        room: Option<&'a str>,
    },
    /// Tell the others and unsubscribe; on `/room/…` the gateway closes 1000.
    Leave {
        /// The room.
        room: Option<&'a str>,
    },
    /// Close the room for all.
    Close {
        /// The room.
        room: Option<&'a str>,
    },
    /// Ask for `pong`.
    Ping,
}

impl Command<'_> {
    /// The command as one text message. With `id`, the reply carries it.
    #[must_use]
    pub fn encode(&self, id: Option<u64>) -> String {
        let mut text = String::new();
        self.encode_into(id, &mut text);
        text
    }

    /// Appends the command to `text`, which lets a loop use one allocation.
    pub fn encode_into(&self, id: Option<u64>, text: &mut String) {
        let (name, room) = match *self {
            Self::Subscribe { room, .. } => ("subscribe", Some(room)),
            Self::Unsubscribe { room } => ("unsubscribe", room),
            Self::Publish { room, except_self: false, .. } => ("publish", room),
            Self::Publish { room, except_self: true, .. } => ("publish_no_self", room),
            Self::Presence { room } => ("presence", room),
            Self::Leave { room } => ("leave", room),
            Self::Close { room } => ("close", room),
            Self::Ping => ("ping", None),
        };
        const NEVER: &str = "writing to a string cannot fail";
        write!(text, r#"{{"name":"{name}""#).expect(NEVER);
        if let Some(id) = id {
            write!(text, r#","id":{id}"#).expect(NEVER);
        }
        if let Some(room) = room {
            write!(text, r#","room":{}"#, serde_json::Value::from(room)).expect(NEVER);
        }
        match *self {
            Self::Subscribe { since: Some(since), .. } => write!(text, r#","since":"{since}""#).expect(NEVER),
            Self::Publish { message, .. } => write!(text, r#","message":{message}"#).expect(NEVER),
            _ => {}
        }
        text.push('}');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_what_the_contract_says() {
        let position = Position { epoch: 0xab, offset: 7 };
        for (command, id, text) in [
            (Command::Ping, None, r#"{"name":"ping"}"#),
            (
                Command::Subscribe { room: "a\"b", since: Some(position) },
                Some(3),
                r#"{"name":"subscribe","id":3,"room":"a\"b","since":"00000000000000ab:7"}"#,
            ),
            (
                Command::Publish { room: None, message: r#"{"x":[1]}"#, except_self: false },
                None,
                r#"{"name":"publish","message":{"x":[1]}}"#,
            ),
            (
                Command::Publish { room: Some("r"), message: "1", except_self: true },
                None,
                r#"{"name":"publish_no_self","room":"r","message":1}"#,
            ),
            (Command::Leave { room: None }, None, r#"{"name":"leave"}"#),
        ] {
            assert_eq!(command.encode(id), text);
        }
    }

    #[test]
    fn events_are_read_and_unknown_fields_ignored() {
        let text = r#"{"name":"message","message": {"a": 1},"offset":9,"user":"Al","later":{"x":[]}}"#;
        match Event::parse(text) {
            Ok(Event::Message { message, room: None, offset: Some(9), user: Some(user) }) => {
                assert_eq!((message.get(), &*user), (r#"{"a": 1}"#, "Al"));
            }
            other => panic!("{other:?}"),
        }
        let text = r#"{"name":"subscribed","room":"r","epoch":"00000000000000ab","offset":4,"recovered":true}"#;
        match Event::parse(text) {
            Ok(Event::Subscribed { position, recovered: true, .. }) => {
                assert_eq!(position, Some(Position { epoch: 0xab, offset: 4 }));
            }
            other => panic!("{other:?}"),
        }
        let text = r#"{"name":"error","code":"bad_room","message":"no \"good\"","id":"x"}"#;
        match Event::parse(text) {
            Ok(Event::Error { code, message, id: Some(id) }) => {
                assert_eq!((&*code, &*message, id.get()), ("bad_room", "no \"good\"", "\"x\""));
            }
            other => panic!("{other:?}"),
        }
        let null = Event::parse(r#"{"name":"message","message":null}"#);
        assert!(matches!(null, Ok(Event::Message { message, .. }) if message.get() == "null"));
        assert!(matches!(Event::parse(r#"{"name":"gap","from":3,"to":5,"count":3}"#), Ok(Event::Gap { count: 3, .. })));
        assert!(matches!(Event::parse(r#"{"name":"new\u0021"}"#), Ok(Event::Other { name }) if name == "new!"));
        for bad in ["", "{}", "[]", "hello", r#"{"name":1}"#, r#"{"name":"message"}"#, r#"{"name":"ack"}"#] {
            assert!(matches!(Event::parse(bad), Err(Error::Answer(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = Event::parse(&text);
        }
    }
}
