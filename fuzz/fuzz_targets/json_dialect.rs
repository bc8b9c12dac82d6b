//! Arbitrary text as messages of a session, and what the gateway says about them: a command is read only where an independent
//! parser finds JSON, what is published comes out byte for byte, and whatever is encoded is one whole frame with valid JSON.
#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfare_fuzz::Data;
use fanfare_protocol::wire::Message;
use fanfare_protocol::{
    Action, CloseReason, Dialect, ErrorCode, Event, MessageLimits, Mode, Payload, PayloadRef, Position, Published,
    ReplyId, RoomEvent, RoomName, Session, Target, UserName, Variant,
};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    let kind = data.byte();
    let own = RoomName::parse("lobby").expect("a valid name");
    if kind % 4 == 3 {
        return encode_anything(&own, kind, data.0);
    }
    let mode = if kind % 2 == 0 { Mode::Rooms } else { Mode::Room(own.clone()) };
    let mut session = Session::new(mode, Dialect::Json);
    let limits = MessageLimits::default();
    let mut bad_in_a_row = 0;
    // Several messages, so that what is counted over messages is looked at, too.
    for message in data.0.split(|&byte| byte == 0) {
        let Ok(text) = str::from_utf8(message) else { continue };
        let action = session.handle(Message::Text(text), &limits);
        let is_bad = matches!(
            action,
            Action::Refuse { code: ErrorCode::BadMessage, .. } | Action::Close(CloseReason::BadMessages)
        );
        bad_in_a_row = if is_bad { bad_in_a_row + 1 } else { 0 };
        assert_eq!(matches!(action, Action::Close(_)), bad_in_a_row >= limits.bad_messages_max, "{action:?}");
        check(text, &action, &own, is_bad);
        if matches!(action, Action::Close(_)) {
            return;
        }
    }
});

fn check(text: &str, action: &Action<'_>, own: &RoomName, is_bad: bool) {
    let parsed = serde_json::from_str::<&RawValue>(text).map(|_| ());
    assert!(is_bad || parsed.is_ok(), "read as {action:?}, but no JSON: {text}");
    match action {
        Action::Publish { room, payload: PayloadRef::Json(json), id, .. } => {
            assert!(text.as_bytes().as_ptr_range().contains(&json.as_ptr()), "borrowed, not written anew");
            check_id(*id);
            let room = match room {
                Target::Own => own,
                Target::Named(room) => room,
            };
            let payload = Payload::Json(Bytes::copy_from_slice(json.as_bytes()));
            check_published(room, payload, |_, message| assert_eq!(message.get(), *json, "byte for byte"));
        }
        Action::Send { payload: PayloadRef::Json(json), id, .. } => {
            assert!(text.as_bytes().as_ptr_range().contains(&json.as_ptr()), "borrowed, not written anew");
            check_id(*id);
        }
        Action::Publish { payload, .. } | Action::Send { payload, .. } => panic!("{payload:?} in the JSON dialect"),
        Action::Said(json) => _ = serde_json::from_str::<&RawValue>(json).expect("JSON"),
        Action::Refuse { code, message, id } => {
            check_id(*id);
            check_refused_id(text, *id);
            let mut frame = Vec::new();
            Dialect::Json.encode_event(&Event::Error { code: *code, message, id: *id }, true, &mut frame);
            let told = object(&frame);
            assert_eq!(text_of(&told["message"]), *message);
            assert!(message.len() < 1_024, "a refusal repeats {} bytes", message.len());
        }
        Action::Subscribe { since: Some(since), id, .. } => {
            check_id(*id);
            assert_eq!(since.to_string().parse(), Ok(*since));
        }
        Action::Subscribe { id, .. }
        | Action::Unsubscribe { id, .. }
        | Action::Presence { id, .. }
        | Action::History { id, .. }
        | Action::Leave { id, .. }
        | Action::CloseRoom { id, .. }
        | Action::Refresh { id, .. }
        | Action::Pong { id } => check_id(*id),
        Action::Reply(payload) => panic!("{payload:?} comes back in the JSON dialect"),
        Action::Pusher(command) => panic!("{command:?} in the JSON dialect"),
        Action::Close(reason) => assert_eq!(*reason, CloseReason::BadMessages),
    }
}

/// An id goes back as it came, so it must be a JSON value of bounded length.
fn check_id(id: ReplyId<'_>) {
    let Some(raw) = id.0 else { return };
    assert!(raw.len() <= ReplyId::BYTES_MAX);
    let value = serde_json::from_str::<&RawValue>(raw).expect("JSON").get().as_bytes()[0];
    assert!(matches!(value, b'"' | b'-' | b'0'..=b'9'), "{raw}");
    let mut frame = Vec::new();
    Dialect::Json.encode_event(&Event::Pong { id }, true, &mut frame);
    let payload = payload_of(&frame);
    assert!(payload.ends_with(format!(",\"id\":{raw}}}").as_bytes()));
}

/// A refusal has the `id` that another parser finds in the same text, and none where that finds no JSON.
fn check_refused_id(text: &str, id: ReplyId<'_>) {
    let Some(id) = id.0 else { return };
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).expect("an object");
    assert_eq!(id, fields["id"].get());
}

/// Payloads, names and ids of any kind in every variant.
fn encode_anything(own: &RoomName, kind: u8, rest: &[u8]) {
    let payload = Bytes::copy_from_slice(rest);
    let text = String::from_utf8_lossy(rest);
    if kind & 0x10 != 0 {
        check_published(own, Payload::Binary(payload), |_, message| {
            use base64::Engine as _;
            let encoded: String = serde_json::from_str(message.get()).expect("a string");
            let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).expect("base64");
            assert_eq!(decoded, rest);
        });
    } else {
        check_published(own, Payload::Text(payload), |_, message| {
            assert_eq!(serde_json::from_str::<String>(message.get()).expect("a string"), text);
        });
    }
    let name: String = text.chars().take(20).collect();
    if let Ok(user) = UserName::parse(&name) {
        for variant in [Variant::JsonRoom, Variant::JsonRooms] {
            let mut frame = Vec::new();
            variant.encode(&RoomEvent::Joined(own.clone(), Some(user.clone())), &mut frame);
            assert_eq!(text_of(&object(&frame)["user"]), name);
        }
    }
}

/// A publication in every variant: one whole frame each; `message` gets what the JSON ones say.
fn check_published(room: &RoomName, payload: Payload, message: impl Fn(Variant, &RawValue)) {
    let is_binary = matches!(payload, Payload::Binary(_));
    let event = RoomEvent::Message(
        room.clone(),
        Published { position: Position { epoch: 1, offset: 7 }, offset: Some(7), user: None, payload: payload.clone() },
    );
    for variant in [Variant::JsonRoom, Variant::JsonRooms] {
        let mut frame = Vec::new();
        variant.encode(&event, &mut frame);
        let fields = object(&frame);
        assert_eq!(fields["name"].get(), "\"message\"");
        assert_eq!(fields["offset"].get(), "7");
        assert_eq!(fields.contains_key("encoding"), is_binary);
        match fields.get("room") {
            Some(named) => assert_eq!((variant, text_of(named).as_str()), (Variant::JsonRooms, room.as_str())),
            None => assert_eq!(variant, Variant::JsonRoom),
        }
        message(variant, fields["message"]);
    }
    let mut plain = Vec::new();
    Variant::Text.encode(&event, &mut plain);
    assert!(payload_of(&plain).len() <= payload.len().max(1) * 3, "the text dialect adds nothing");
    // Three of them joined are one text message of three lines, or three binary ones.
    if let Some(joined) = Variant::TextJoined.join(&plain.repeat(3)) {
        let lines = [payload_of(&plain); 3].join(&b'\n');
        assert_eq!(payload_of(&joined), lines);
    }
}

/// The fields as they are written: an id may be a number that no type holds.
fn object(frame: &[u8]) -> BTreeMap<&str, &RawValue> {
    serde_json::from_slice(payload_of(frame)).expect("JSON")
}

fn text_of(field: &RawValue) -> String {
    serde_json::from_str(field.get()).expect("a string")
}

/// The payload of exactly one final, unmasked frame whose length is in its shortest form. Written here anew on purpose.
fn payload_of(frame: &[u8]) -> &[u8] {
    assert!(matches!(frame[0], 0x81 | 0x82), "a final text or binary frame");
    let (length, header) = match frame[1] {
        short @ 0..=125 => (u64::from(short), 2),
        126 => (u64::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
        127 => (u64::from_be_bytes(frame[2..10].try_into().expect("eight bytes")), 10),
        masked => panic!("server frames are not masked: {masked:#x}"),
    };
    let least = [(2, 0), (4, 126), (10, 65_536)].iter().find(|(bytes, _)| *bytes == header).expect("one of them").1;
    assert!(length >= least, "the shortest form");
    assert_eq!(frame.len() as u64, header as u64 + length, "one frame and nothing else");
    &frame[header..]
}
