//! From one JSON text to one [`Action`].

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::command::{HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, PRESENCE_LIMIT_MAX};
use crate::depth::{JSON_DEPTH_MAX, nests_deeper};
use crate::event::valid_id;
use crate::{Action, ErrorCode, PayloadRef, Position, ReplyId, RoomName, Target, UserName};

/// The action that `text` asks for, on a connection that serves `own` room alone or, with `None`, many.
pub(super) fn action<'a>(text: &'a str, own: Option<&RoomName>) -> Action<'a> {
    match Fields::parse(text) {
        Ok(fields) => check_depth(text)
            .and_then(|()| fields.action(own))
            .unwrap_or_else(|(code, message)| refuse(code, message, fields.reply_id())),
        Err((code, message)) => refuse(code, message, ReplyId(None)),
    }
}

/// Fields are read without recursion, so how deep one of them nests is asked once all are known: the refusal has the command's `id`.
fn check_depth(text: &str) -> Result<(), Refusal> {
    if nests_deeper(text, JSON_DEPTH_MAX) {
        return bad_message(format!("the message nests more than {JSON_DEPTH_MAX} levels deep"));
    }
    Ok(())
}

/// A code, and a text for people that says what to change.
type Refusal = (ErrorCode, String);

fn refuse(code: ErrorCode, message: String, id: ReplyId<'_>) -> Action<'_> {
    Action::Refuse { code, message, id }
}

fn bad_message<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err((ErrorCode::BadMessage, message.into()))
}

/// The fields of a command, still as they were written: each is looked at only by the commands that have it, and one of
/// the wrong type can be named. Fields that no command has are passed over.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    name: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    room: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    message: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    since: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    limit: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    token: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    after: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    user: Option<&'a RawValue>,
}

/// A `null` that is there is something else than a field that is not: it can be published.
fn present<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Self, Refusal> {
        // Without this look an array would do: serde takes its elements for the fields in order.
        if !text.trim_ascii_start().starts_with('{') {
            return bad_message("a message must be one JSON object, like {\"name\":\"ping\"}");
        }
        serde_json::from_str(text).or_else(|error| bad_message(format!("the message is not JSON: {error}")))
    }

    fn action(&self, own: Option<&RoomName>) -> Result<Action<'a>, Refusal> {
        if self.id.is_some_and(|id| !valid_id(id)) {
            let max = ReplyId::BYTES_MAX;
            return bad_message(format!("`id` must be a number or a string of at most {max} bytes"));
        }
        let id = self.reply_id();
        let Some(name) = self.name else { return bad_message("the field `name` is missing") };
        let Some(name) = string(name) else { return bad_message("`name` must be a string") };
        match &*name {
            "publish" => self.publish(own, false),
            "publish_no_self" => self.publish(own, true),
            "ping" => Ok(Action::Pong { id }),
            "subscribe" => {
                let room = match (self.target(own)?, own) {
                    (Target::Named(room), _) => room,
                    (Target::Own, Some(own)) => own.clone(),
                    (Target::Own, None) => return missing_room(),
                };
                Ok(Action::Subscribe { room, since: self.since()?, id })
            }
            "unsubscribe" => Ok(Action::Unsubscribe { room: self.target(own)?, id }),
            "presence" => {
                let limit = self.limit(PRESENCE_LIMIT_MAX, PRESENCE_LIMIT_MAX)?;
                Ok(Action::Presence { room: self.target(own)?, after: self.after()?, limit, id })
            }
            "history" => {
                let limit = self.limit(HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX)?;
                Ok(Action::History { room: self.target(own)?, since: self.since()?, limit, id })
            }
            "leave" => Ok(Action::Leave { room: self.target(own)?, id }),
            "close" => Ok(Action::CloseRoom { room: self.target(own)?, id }),
            "message" => self.message().map(Action::Said),
            "refresh" => Ok(Action::Refresh { token: self.token()?, id }),
            "send" => Ok(Action::Send { user: self.user()?, payload: PayloadRef::Json(self.message()?), id }),
            unknown => {
                let shown = &unknown[..unknown.floor_char_boundary(UNKNOWN_NAME_BYTES_MAX)];
                let dots = if shown.len() < unknown.len() { "…" } else { "" };
                Err((ErrorCode::UnknownCommand, format!("there is no command `{shown}{dots}`")))
            }
        }
    }

    fn publish(&self, own: Option<&RoomName>, except_self: bool) -> Result<Action<'a>, Refusal> {
        let room = self.target(own)?;
        let payload = PayloadRef::Json(self.message()?);
        Ok(Action::Publish { room, payload, except_self, id: self.reply_id() })
    }

    /// The id, if it is one that may be returned.
    fn reply_id(&self) -> ReplyId<'a> {
        ReplyId(self.id.filter(|id| valid_id(id)).map(RawValue::get))
    }

    fn message(&self) -> Result<&'a str, Refusal> {
        self.message.map_or_else(|| bad_message("the field `message` is missing"), |message| Ok(message.get()))
    }

    /// The room meant. A connection of one room may leave it out, or name it for clearness; `null` counts as left out.
    fn target(&self, own: Option<&RoomName>) -> Result<Target, Refusal> {
        let Some(room) = given(self.room) else {
            return if own.is_some() { Ok(Target::Own) } else { missing_room() };
        };
        let Some(room) = string(room) else { return bad_message("`room` must be a string") };
        match own {
            Some(own) if own.as_str() == room => Ok(Target::Own),
            Some(own) => {
                Err((ErrorCode::BadRoom, format!("this connection serves the room `{own}` alone; use /ws for others")))
            }
            None => match RoomName::parse(&room) {
                Ok(room) => Ok(Target::Named(room)),
                Err(error) => Err((ErrorCode::BadRoom, error.to_string())),
            },
        }
    }

    fn token(&self) -> Result<Cow<'a, str>, Refusal> {
        let Some(token) = self.token else { return bad_message("the field `token` is missing") };
        string(token).map_or_else(|| bad_message("`token` must be a string"), Ok)
    }

    fn since(&self) -> Result<Option<Position>, Refusal> {
        let Some(since) = given(self.since) else { return Ok(None) };
        let Some(text) = string(since) else { return bad_message("`since` must be a string") };
        text.parse().map(Some).or_else(|error| bad_message(format!("`since`: {error}")))
    }

    fn limit(&self, default: usize, max: usize) -> Result<usize, Refusal> {
        let Some(limit) = given(self.limit) else { return Ok(default) };
        match limit.get().parse() {
            Ok(limit) if (1..=max).contains(&limit) => Ok(limit),
            _ => bad_message(format!("`limit` must be a number from 1 to {max}")),
        }
    }

    fn user(&self) -> Result<UserName, Refusal> {
        let Some(user) = self.user else { return bad_message("the field `user` is missing") };
        let Some(user) = string(user) else { return bad_message("`user` must be a string") };
        UserName::parse(&user).or_else(|error| bad_message(format!("`user`: {error}")))
    }

    fn after(&self) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(after) = given(self.after) else { return Ok(None) };
        string(after).map_or_else(|| bad_message("`after` must be a string"), |after| Ok(Some(after)))
    }
}

/// Of a name that is not known, this many bytes are returned.
const UNKNOWN_NAME_BYTES_MAX: usize = 64;

fn missing_room<T>() -> Result<T, Refusal> {
    bad_message("the field `room` is missing")
}

fn given(field: Option<&RawValue>) -> Option<&RawValue> {
    field.filter(|raw| raw.get() != "null")
}

/// The content of a JSON string, borrowed where nothing in it is escaped; `None` when it is something else.
fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json = raw.get();
    let content = json.strip_prefix('"')?.strip_suffix('"')?;
    if !content.contains('\\') {
        return Some(Cow::Borrowed(content));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}
