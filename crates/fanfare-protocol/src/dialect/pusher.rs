//! The Pusher dialect: events with a name, a channel and data.
//!
//! A publication that is an event is the JSON object `{"event": …, "data": …}` and nothing more; so it is told in the other dialects, and so
//! may be published from them. Anything else is an event called `message`.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::json;
use crate::pusher::{
    CLIENT_PREFIX, ChannelRefusal, PRESENCE_PREFIX, PusherReply, channel_of, check_event_name, shown_channel_of,
};
use crate::wire::{Opcode, frame_with};
use crate::{ErrorCode, Event, Payload, Published, RoomEvent, RoomName, UserName};

/// Name of the event that a publication is which has none of its own.
const MESSAGE: &str = "message";

/// The same of bytes, told in base64.
const BINARY: &str = "binary";

/// What a limit of rate is told with.
const TOO_FAST: u16 = 4301;

pub(super) fn encode_room_event(event: &RoomEvent, out: &mut Vec<u8>) {
    match event {
        RoomEvent::Message(room, published) => message(room, published, out),
        RoomEvent::Joined(room, Some(user)) => member(room, "member_added", user, Some("null"), out),
        RoomEvent::MemberJoined(room, user, info) => member(room, "member_added", user, Some(info), out),
        RoomEvent::Left(room, Some(user)) => member(room, "member_removed", user, None, out),
        RoomEvent::Joined(_, None) | RoomEvent::Left(_, None) => {}
        RoomEvent::RoomClosed(room) => {
            let error = "the channel was closed for all";
            PusherReply::NotSubscribed { channel: &shown_channel_of(room), refusal: ChannelRefusal::Closed, error }
                .encode(out);
        }
    }
}

/// The dialect has a word for refusals; all others that it has are made by whoever speaks it.
pub(super) fn encode_event(event: &Event<'_>, out: &mut Vec<u8>) {
    if let Event::Error { code, message, .. } = event {
        let code = (*code == ErrorCode::TooFast).then_some(TOO_FAST);
        PusherReply::Error { code, message }.encode(out);
    }
}

/// Tells members of a presence channel who came or went; in others the dialect has no word for it.
fn member(room: &RoomName, event: &str, user: &UserName, info: Option<&str>, out: &mut Vec<u8>) {
    let channel = channel_of(room);
    if !channel.starts_with(PRESENCE_PREFIX) {
        return;
    }
    let mut data = br#"{"user_id":"#.to_vec();
    json::string(user.as_str(), &mut data);
    if let Some(info) = info {
        data.extend_from_slice(br#","user_info":"#);
        data.extend_from_slice(info.as_bytes());
    }
    data.push(b'}');
    let data = String::from_utf8(data).expect("it was made of text");
    frame_with(Opcode::Text, 64 + channel.len() + data.len(), out, |out| {
        out.extend_from_slice(format!(r#"{{"event":"pusher_internal:{event}","channel":"#).as_bytes());
        json::string(channel, out);
        out.extend_from_slice(br#","data":"#);
        json::string(&data, out);
        out.push(b'}');
    });
}

fn message(room: &RoomName, published: &Published, out: &mut Vec<u8>) {
    let channel = shown_channel_of(room);
    let (event, data) = event_of(&published.payload);
    let length = 48 + event.len() + channel.len() + published.payload.len();
    frame_with(Opcode::Text, length, out, |out| {
        out.extend_from_slice(br#"{"event":"#);
        json::string(&event, out);
        out.extend_from_slice(br#","channel":"#);
        json::string(&channel, out);
        match data {
            Some(Data::Raw(json)) => {
                out.extend_from_slice(br#","data":"#);
                out.extend_from_slice(json.as_bytes());
            }
            Some(Data::Text(text)) => {
                out.extend_from_slice(br#","data":"#);
                json::string(&text, out);
            }
            None => {}
        }
        let speaker = published.user.as_ref().filter(|_| event.starts_with(CLIENT_PREFIX));
        if let Some(user) = speaker.filter(|_| channel.starts_with(PRESENCE_PREFIX)) {
            out.extend_from_slice(br#","user_id":"#);
            json::string(user.as_str(), out);
        }
        out.push(b'}');
    });
}

/// The event that a publication is: its name and its data.
fn event_of(payload: &Payload) -> (Cow<'_, str>, Option<Data<'_>>) {
    match payload {
        Payload::Json(json) => match Named::read(json) {
            Some(Named { event, data }) => {
                let is_clients = event.starts_with(CLIENT_PREFIX);
                (event, data.map(|data| Data::of_event(data.get(), is_clients)))
            }
            None => (MESSAGE.into(), Some(Data::Text(String::from_utf8_lossy(json)))),
        },
        Payload::Text(text) => (MESSAGE.into(), Some(Data::of_text(&String::from_utf8_lossy(text)))),
        Payload::Binary(bytes) => (BINARY.into(), Some(Data::of_text(&json::base64(bytes)))),
    }
}

/// Whether a publication is an event that a client made.
#[must_use]
pub fn is_client_event(payload: &Payload) -> bool {
    event_of(payload).0.starts_with(CLIENT_PREFIX)
}

/// The data of the event that a publication is, as the text that a client is told; empty where it has none.
#[must_use]
pub fn data_of(payload: &Payload) -> String {
    match event_of(payload).1 {
        Some(Data::Raw(json)) => serde_json::from_str(json).unwrap_or_else(|_| json.to_owned()),
        Some(Data::Text(text)) => text.into_owned(),
        None => String::new(),
    }
}

/// The data of an event.
enum Data<'a> {
    /// As it stands.
    Raw(&'a str),
    /// In a string.
    Text(Cow<'a, str>),
}

impl<'a> Data<'a> {
    /// A string is what was published, and stays it. Other values are told in a string, which every client of this dialect takes for JSON;
    /// but what a client said stays as it was said.
    fn of_event(json: &'a str, is_clients: bool) -> Self {
        if is_clients || json.starts_with('"') { Self::Raw(json) } else { Self::Text(json.into()) }
    }

    /// Text as the JSON string that it is in the JSON dialect.
    fn of_text(text: &str) -> Self {
        let mut quoted = Vec::with_capacity(text.len() + 2);
        json::string(text, &mut quoted);
        Self::Text(String::from_utf8(quoted).unwrap_or_default().into())
    }
}

/// A publication that is an event.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

fn present<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl<'a> Named<'a> {
    /// Reads one; `None` when this is something else, or has a name that only the gateway may use.
    fn read(json: &'a [u8]) -> Option<Self> {
        if !json.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        let named: Self = serde_json::from_slice(json).ok()?;
        check_event_name(&named.event).ok().map(|()| named)
    }
}
