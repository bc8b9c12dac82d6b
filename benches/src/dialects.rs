//! Events into frames, and JSON texts into actions.

use std::hint::black_box;

use bytes::Bytes;
use fanfare_protocol::wire::Message;
use fanfare_protocol::{
    Action, Dialect, ErrorCode, Event, MessageLimits, Mode, Payload, Position, Published, ReplyId, RoomEvent, RoomName,
    Session, UserName, Variant,
};

use crate::{Amount, Run, Stage, repeat};

/// See the crate's page.
#[must_use]
pub fn stages() -> Vec<Stage> {
    let mut stages = Vec::new();
    for (variant, variant_name) in VARIANTS {
        for payload in [Payload::Json(json(128)), Payload::Text(text(128)), Payload::Binary(text(128))] {
            let kind = match payload {
                Payload::Json(_) => "json",
                Payload::Text(_) => "text",
                Payload::Binary(_) => "binary",
            };
            let name = format!("dialects/encode/{variant_name}/{kind}");
            stages.push(Stage::new(name, Amount::Bytes(128), 2_000, move || encode(variant, payload.clone())));
        }
    }
    stages.push(Stage::new("dialects/encode/json_rooms/json_4096", Amount::Bytes(4_096), 1_000, || {
        encode(Variant::JsonRooms, Payload::Json(json(4_096)))
    }));
    stages.push(Stage::new("dialects/encode/joined_event", Amount::One, 2_000, || {
        encode_event_of_room(Variant::JsonRooms, RoomEvent::Joined(room(), Some(user())))
    }));
    stages.push(Stage::new("dialects/encode/ack", Amount::One, 2_000, ack));
    stages.push(Stage::new("dialects/join/16", Amount::One, 500, join));
    for (name, text, is_right) in COMMANDS {
        stages
            .push(Stage::new(format!("dialects/command/{name}"), Amount::One, 2_000, move || command(text, is_right)));
    }
    stages
}

/// Where what is said stands.
pub(crate) const POSITION: Position = Position { epoch: 0xfeed_f00d, offset: 7 };

const VARIANTS: [(Variant, &str); 5] = [
    (Variant::JsonRoom, "json_room"),
    (Variant::JsonRooms, "json_rooms"),
    (Variant::Text, "text"),
    (Variant::TextJoined, "text_joined"),
    (Variant::Sse, "sse"),
];

type Check = fn(&Action<'_>) -> bool;

const COMMANDS: [(&str, &str, Check); 5] = [
    (
        "publish",
        r#"{"name":"publish","room":"lobby","message":{"text":"How do you do?","likes":0,"reply_to":null}}"#,
        |action| matches!(action, Action::Publish { id: ReplyId(None), .. }),
    ),
    (
        "publish_id",
        r#"{"name":"publish","room":"lobby","message":{"text":"How do you do?","likes":0,"reply_to":null},"id":42}"#,
        |action| matches!(action, Action::Publish { id: ReplyId(Some("42")), .. }),
    ),
    ("subscribe", r#"{"name":"subscribe","room":"lobby","since":"00000000000000ff:17","id":"s-1"}"#, |action| {
        matches!(action, Action::Subscribe { since: Some(_), .. })
    }),
    ("bad", r#"{"name":"publish","room":"lobby","message":{"text":"How do you do?""#, |action| {
        matches!(action, Action::Refuse { code: ErrorCode::BadMessage, .. })
    }),
    ("unknown", r#"{"name":"shout","room":"lobby","message":"How do you do?","id":42}"#, |action| {
        matches!(action, Action::Refuse { code: ErrorCode::UnknownCommand, .. })
    }),
];

fn encode(variant: Variant, payload: Payload) -> Run {
    let said = Published { position: POSITION, offset: None, user: Some(user()), payload };
    encode_event_of_room(variant, RoomEvent::Message(room(), said))
}

fn encode_event_of_room(variant: Variant, event: RoomEvent) -> Run {
    let mut out = Vec::with_capacity(8_192);
    repeat(move || {
        out.clear();
        variant.encode(black_box(&event), &mut out);
        assert!(!black_box(&out).is_empty());
    })
}

fn ack() -> Run {
    let mut out = Vec::with_capacity(256);
    repeat(move || {
        out.clear();
        let ack =
            Event::Ack { offset: Some(1_234), delivered: 998, dropped: 0, evicted: 2, id: ReplyId(Some("\"m-17\"")) };
        Dialect::Json.encode_event(black_box(&ack), true, &mut out);
        assert!(!black_box(&out).is_empty());
    })
}

/// Sixteen text messages that a slow connection gets as one.
fn join() -> Run {
    let said = Published { position: POSITION, offset: None, user: Some(user()), payload: Payload::Text(text(128)) };
    let event = RoomEvent::Message(room(), said);
    let mut frames = Vec::new();
    (0..16).for_each(|_| Variant::TextJoined.encode(&event, &mut frames));
    repeat(move || {
        let joined = Variant::TextJoined.join(black_box(&frames));
        assert!(black_box(joined).is_some());
    })
}

/// A JSON text on `/ws`. The session is one that begins, since a row of bad messages ends it.
fn command(text: &'static str, is_right: Check) -> Run {
    let limits = MessageLimits::default();
    repeat(move || {
        let mut session = Session::new(Mode::Rooms, Dialect::Json);
        let action = session.handle(Message::Text(black_box(text)), &limits);
        assert!(is_right(&black_box(action)));
    })
}

pub(crate) fn room() -> RoomName {
    RoomName::parse("chat:lobby").expect("it follows the rules")
}

pub(crate) fn user() -> UserName {
    UserName::guest("Adam").expect("it follows the rules")
}

fn text(bytes: usize) -> Bytes {
    b"How do you do? \"Very well\", said she.\n".iter().copied().cycle().take(bytes).collect()
}

/// A JSON object of so many bytes.
pub(crate) fn json(bytes: usize) -> Bytes {
    let (front, back) = (r#"{"likes":0,"text":""#, r#""}"#);
    let middle = "x".repeat(bytes - front.len() - back.len());
    [front, &middle, back].concat().into()
}
