use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::wire::{DeflaterSettings, Opcode, frame, split_frame};
use crate::{ErrorCode, HistoryPage, Past, Payload, Position, Published, ReplyId, RoomName, UserName};

fn room(name: &str) -> RoomName {
    RoomName::parse(name).expect("a valid name")
}

fn user(name: &str) -> UserName {
    UserName::guest(name).expect("a valid name")
}

fn json(json: &'static str) -> Payload {
    Payload::Json(Bytes::from_static(json.as_bytes()))
}

fn text(text: &'static str) -> Payload {
    Payload::Text(Bytes::from_static(text.as_bytes()))
}

fn message(payload: Payload) -> RoomEvent {
    let position = Position { epoch: 1, offset: 7 };
    RoomEvent::Message(room("lobby"), Published { position, offset: None, user: None, payload })
}

/// The one frame that `bytes` are, or none where they are empty.
#[track_caller]
fn only_frame(bytes: &[u8]) -> Option<(Opcode, &[u8])> {
    if bytes.is_empty() {
        return None;
    }
    let (frame, rest) = split_frame(bytes).expect("a whole frame");
    assert!(rest.is_empty(), "one frame");
    Some((frame.opcode, frame.payload))
}

#[track_caller]
fn check(variant: Variant, event: &RoomEvent, expected: Option<(Opcode, &str)>) {
    let mut out = Vec::new();
    variant.encode(event, &mut out);
    assert_eq!(only_frame(&out), expected.map(|(opcode, text)| (opcode, text.as_bytes())), "{variant:?} {event:?}");
    let mut appended = b"before".to_vec();
    variant.encode(event, &mut appended);
    assert_eq!(appended, [b"before", &out[..]].concat());
}

#[track_caller]
fn check_json(event: &RoomEvent, room: &str, rooms: &str) {
    check(Variant::JsonRoom, event, Some((Opcode::Text, room)));
    check(Variant::JsonRooms, event, Some((Opcode::Text, rooms)));
}

#[test]
fn messages_in_json() {
    let position = Position { epoch: 1, offset: 7 };
    let full =
        Published { position, offset: Some(7), user: Some(user("Zoë \"Z\"")), payload: json("{\"a\" : [1, 2]}") };
    check_json(
        &RoomEvent::Message(room("a\\b"), full),
        r#"{"name":"message","message":{"a" : [1, 2]},"user":"Zoë \"Z\"","offset":7}"#,
        r#"{"name":"message","message":{"a" : [1, 2]},"room":"a\\b","user":"Zoë \"Z\"","offset":7}"#,
    );
    check_json(
        &message(text("tab\t \"quoted\" \u{1} é 🎺\n")),
        r#"{"name":"message","message":"tab\t \"quoted\" \u0001 é 🎺\n"}"#,
        r#"{"name":"message","message":"tab\t \"quoted\" \u0001 é 🎺\n","room":"lobby"}"#,
    );
    check_json(
        &message(Payload::Binary(Bytes::from_static(b"\x00\xff\x10\x80"))),
        r#"{"name":"message","message":"AP8QgA==","encoding":"base64"}"#,
        r#"{"name":"message","message":"AP8QgA==","encoding":"base64","room":"lobby"}"#,
    );
    check_json(
        &message(Payload::Binary(Bytes::new())),
        r#"{"name":"message","message":"","encoding":"base64"}"#,
        r#"{"name":"message","message":"","encoding":"base64","room":"lobby"}"#,
    );
}

#[test]
fn coming_and_going_in_json() {
    check_json(
        &RoomEvent::Joined(room("a"), Some(user("Al"))),
        r#"{"name":"joined","user":"Al"}"#,
        r#"{"name":"joined","room":"a","user":"Al"}"#,
    );
    check_json(&RoomEvent::Left(room("a"), None), r#"{"name":"left"}"#, r#"{"name":"left","room":"a"}"#);
    check_json(&RoomEvent::RoomClosed(room("a")), r#"{"name":"room_closed"}"#, r#"{"name":"room_closed","room":"a"}"#);
}

#[test]
fn messages_in_text() {
    let cases = [
        (json(r#""hello""#), Opcode::Text, "hello"),
        (json(r#""""#), Opcode::Text, ""),
        (json(r#""a\n\"b\" \u00e9\ud83c\udfba""#), Opcode::Text, "a\n\"b\" é🎺"),
        (json(r#""half \ud83c""#), Opcode::Text, r#""half \ud83c""#),
        (json("{\"a\" : 1}"), Opcode::Text, "{\"a\" : 1}"),
        (json("null"), Opcode::Text, "null"),
        (text("\"as it is\""), Opcode::Text, "\"as it is\""),
        (Payload::Binary(Bytes::from_static(b"bytes")), Opcode::Binary, "bytes"),
    ];
    for variant in [Variant::Text, Variant::TextJoined] {
        for (payload, opcode, expected) in cases.clone() {
            check(variant, &message(payload), Some((opcode, expected)));
        }
        for event in
            [RoomEvent::Joined(room("a"), None), RoomEvent::Left(room("a"), None), RoomEvent::RoomClosed(room("a"))]
        {
            check(variant, &event, None);
        }
    }
}

#[track_caller]
fn check_event(event: &Event<'_>, unnamed: &str, named: &str) {
    for (is_named, expected) in [(false, unnamed), (true, named)] {
        let mut out = Vec::new();
        Dialect::Json.encode_event(event, is_named, &mut out);
        assert_eq!(only_frame(&out), Some((Opcode::Text, expected.as_bytes())), "{event:?}");
    }
    for dialect in [Dialect::Text, Dialect::TextJoined] {
        let mut out = Vec::new();
        dialect.encode_event(event, true, &mut out);
        assert!(out.is_empty(), "{event:?}");
    }
}

#[test]
fn events_in_json() {
    let (lobby, al) = (room("lobby"), user("Al"));
    let same = |event: Event<'_>, text: &str| check_event(&event, text, text);
    let id = ReplyId(Some(r#""\u0041""#));
    let none = ReplyId(None);
    same(
        Event::Welcome { connection: "c1", heartbeat_ms: 25_000, user: Some(&al), token: None, node: "n\"1" },
        r#"{"name":"welcome","connection":"c1","heartbeat_ms":25000,"user":"Al","node":"n\"1"}"#,
    );
    same(
        Event::Welcome { connection: "c1", heartbeat_ms: 1, user: None, token: None, node: "n" },
        r#"{"name":"welcome","connection":"c1","heartbeat_ms":1,"node":"n"}"#,
    );
    same(
        Event::Welcome { connection: "c1", heartbeat_ms: 1, user: Some(&al), token: Some("a.b.c"), node: "n" },
        r#"{"name":"welcome","connection":"c1","heartbeat_ms":1,"user":"Al","token":"a.b.c","node":"n"}"#,
    );
    check_event(
        &Event::Subscribed { room: &lobby, position: Position { epoch: 0xab, offset: 3 }, recovered: true, id },
        r#"{"name":"subscribed","epoch":"00000000000000ab","offset":3,"recovered":true,"id":"\u0041"}"#,
        r#"{"name":"subscribed","room":"lobby","epoch":"00000000000000ab","offset":3,"recovered":true,"id":"\u0041"}"#,
    );
    check_event(
        &Event::Unsubscribed { room: &lobby, id: none },
        r#"{"name":"unsubscribed"}"#,
        r#"{"name":"unsubscribed","room":"lobby"}"#,
    );
    same(
        Event::Ack { offset: Some(9), delivered: 3, dropped: 0, evicted: 1, id },
        r#"{"name":"ack","offset":9,"delivered":3,"dropped":0,"evicted":1,"id":"\u0041"}"#,
    );
    same(
        Event::Ack { offset: None, delivered: u64::MAX, dropped: 0, evicted: 0, id: none },
        r#"{"name":"ack","delivered":18446744073709551615,"dropped":0,"evicted":0}"#,
    );
    same(Event::Held { id }, r#"{"name":"ack","delivered":0,"dropped":0,"evicted":0,"held":true,"id":"\u0041"}"#);
    check_event(
        &Event::Presence { room: &lobby, count: 3, members: &[al.clone(), user("B\"b")], next: None, id },
        r#"{"name":"presence","count":3,"members":[{"user":"Al"},{"user":"B\"b"}],"id":"\u0041"}"#,
        r#"{"name":"presence","room":"lobby","count":3,"members":[{"user":"Al"},{"user":"B\"b"}],"id":"\u0041"}"#,
    );
    check_event(
        &Event::Presence { room: &lobby, count: 3, members: std::slice::from_ref(&al), next: Some(&al), id: none },
        r#"{"name":"presence","count":3,"members":[{"user":"Al"}],"next":"Al"}"#,
        r#"{"name":"presence","room":"lobby","count":3,"members":[{"user":"Al"}],"next":"Al"}"#,
    );
    check_event(
        &Event::Presence { room: &lobby, count: 0, members: &[], next: None, id: none },
        r#"{"name":"presence","count":0,"members":[]}"#,
        r#"{"name":"presence","room":"lobby","count":0,"members":[]}"#,
    );
    same(Event::Pong { id: ReplyId(Some("1.0")) }, r#"{"name":"pong","id":1.0}"#);
    same(Event::Pong { id: none }, r#"{"name":"pong"}"#);
    let seven = ReplyId(Some("7"));
    same(Event::Refreshed { expires_in: Some(3_600), id: seven }, r#"{"name":"refreshed","expires_in":3600,"id":7}"#);
    same(Event::Refreshed { expires_in: None, id: none }, r#"{"name":"refreshed"}"#);
    same(Event::Expires { expires_in: 60 }, r#"{"name":"expires","expires_in":60}"#);
    same(Event::Drain { retry_ms: 500 }, r#"{"name":"drain","retry_ms":500}"#);
    same(
        Event::Error { code: ErrorCode::BadRoom, message: "no \"such\"\nroom", id },
        r#"{"name":"error","code":"bad_room","message":"no \"such\"\nroom","id":"\u0041"}"#,
    );
}

#[test]
fn history_in_json() {
    let lobby = room("lobby");
    let past = |offset, user, payload, at_ms| Past {
        published: Published { position: Position { epoch: 1, offset }, offset: Some(offset), user, payload },
        at_ms,
    };
    let messages = vec![
        past(7, Some(user("Zoë")), json("{\"a\" : 1}"), 1_795_219_200_123),
        past(8, None, text("say \"hi\"\n"), 1_795_219_200_124),
        past(9, None, Payload::Binary(Bytes::from_static(&[1, 2, 3])), 1_795_219_200_125),
    ];
    let page = HistoryPage { messages, position: Position { epoch: 0xab, offset: 12 }, recovered: Some(false) };
    let fields = r#""messages":[{"offset":7,"message":{"a" : 1},"user":"Zoë","at":1795219200123},{"offset":8,"message":"say \"hi\"\n","at":1795219200124},{"offset":9,"message":"AQID","encoding":"base64","at":1795219200125}],"epoch":"00000000000000ab","offset":12,"recovered":false"#;
    assert_eq!(String::from_utf8(page.to_json()).expect("UTF-8"), format!("{{{fields}}}"));
    check_event(
        &Event::History { room: &lobby, page: &page, id: ReplyId(Some("5")) },
        &format!(r#"{{"name":"history",{fields},"id":5}}"#),
        &format!(r#"{{"name":"history","room":"lobby",{fields},"id":5}}"#),
    );
    let empty = HistoryPage { messages: vec![], position: Position { epoch: 0, offset: 0 }, recovered: None };
    assert_eq!(empty.to_json(), br#"{"messages":[],"epoch":"0000000000000000","offset":0}"#);
    check_event(
        &Event::Gap { room: &lobby, from: 4, to: 6, count: 3 },
        r#"{"name":"gap","from":4,"to":6,"count":3}"#,
        r#"{"name":"gap","room":"lobby","from":4,"to":6,"count":3}"#,
    );
}

/// Frames of these messages; `Err` is a binary one.
fn frames(messages: &[Result<&str, &[u8]>]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        match message {
            Ok(text) => frame(Opcode::Text, text.as_bytes(), &mut out),
            Err(bytes) => frame(Opcode::Binary, bytes, &mut out),
        }
    }
    out
}

#[test]
fn joining() {
    let long = "x".repeat(100);
    let longer = format!("{long}\n{long}");
    type Messages<'a> = &'a [Result<&'a str, &'a [u8]>];
    let cases: [(Messages<'_>, Option<Messages<'_>>); 9] = [
        (&[], None),
        (&[Ok("a")], None),
        (&[Err(b"a"), Err(b"b")], None),
        (&[Ok("a"), Err(b"b"), Ok("c")], None),
        (&[Ok("a"), Ok("b")], Some(&[Ok("a\nb")])),
        (&[Ok(""), Ok(""), Ok("")], Some(&[Ok("\n\n")])),
        (&[Ok(&long), Ok(&long)], Some(&[Ok(&longer)])),
        (&[Ok("a"), Ok("b"), Err(b"c"), Ok("d")], Some(&[Ok("a\nb"), Err(b"c"), Ok("d")])),
        (
            &[Err(b"a"), Ok("b"), Ok("c"), Ok("d"), Err(b"e"), Err(b"")],
            Some(&[Err(b"a"), Ok("b\nc\nd"), Err(b"e"), Err(b"")]),
        ),
    ];
    for (messages, joined) in cases {
        assert_eq!(Variant::TextJoined.join(&frames(messages)), joined.map(frames), "{messages:?}");
        for variant in [Variant::JsonRoom, Variant::JsonRooms, Variant::Text] {
            assert_eq!(variant.join(&frames(messages)), None);
        }
    }
}

#[test]
fn variants_are_numbered_densely() {
    for index in 0..=u8::MAX {
        let variant = Variant::from_index(index);
        assert_eq!(variant.is_some(), usize::from(index) < VARIANTS);
        assert!(variant.is_none_or(|variant| variant as u8 == index));
    }
}

proptest! {
    #[test]
    fn whatever_is_said_comes_out_as_it_went_in(
        said: String,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        name in "[^\\pC\\s/?#]{1,50}",
        user in "\\PC{2,20}",
        offset: Option<u64>,
    ) {
        let Ok(room) = RoomName::parse(&name) else { return Ok(()) };
        let user = UserName::guest(&user).ok();
        let string = serde_json::to_string(&said).expect("a string");
        let payloads = [
            (Payload::Text(said.clone().into()), Some(said.clone())),
            (Payload::Json(string.into()), Some(said)),
            (Payload::Binary(bytes.into()), None),
        ];
        for (payload, text) in payloads {
            let position = Position { epoch: 1, offset: 1 };
            let event = RoomEvent::Message(room.clone(), Published { position, offset, user: user.clone(), payload });
            let mut out = Vec::new();
            Variant::JsonRooms.encode(&event, &mut out);
            let (opcode, payload) = only_frame(&out).expect("a frame");
            let value: Value = serde_json::from_slice(payload).expect("JSON");
            prop_assert_eq!(opcode, Opcode::Text);
            prop_assert_eq!(value["room"].as_str(), Some(room.as_str()));
            prop_assert_eq!(value["user"].as_str(), user.as_ref().map(UserName::as_str));
            prop_assert_eq!(value["offset"].as_u64(), offset);
            if let Some(text) = text {
                prop_assert_eq!(value["message"].as_str(), Some(&*text));
                out.clear();
                Variant::Text.encode(&event, &mut out);
                prop_assert_eq!(only_frame(&out), Some((Opcode::Text, text.as_bytes())));
            }
        }
    }
}

#[test]
fn wire_forms_are_numbered_without_a_gap() {
    let forms: Vec<WireForm> = (0..=u8::MAX).map_while(WireForm::from_index).collect();
    assert_eq!(forms.len(), WIRE_FORMS);
    for (index, form) in forms.iter().enumerate() {
        assert_eq!((usize::from(form.index()), form.is_deflated()), (index, index >= VARIANTS));
        assert_eq!(WireForm::new(form.variant, form.window), *form);
    }
    assert_eq!((WIRE_FORMS as u8..=u8::MAX).find_map(WireForm::from_index), None);
    for variant in (0..).map_while(Variant::from_index) {
        assert_eq!(WireForm::new(variant, None).index(), variant as u8);
        for window in Window::ALL {
            let is_deflated = WireForm::new(variant, Some(window)).is_deflated();
            assert_eq!(
                is_deflated,
                !matches!(variant, Variant::TextJoined | Variant::Sse | Variant::Pusher),
                "{variant:?} stays readable"
            );
        }
    }
}

#[test]
fn a_compressed_form_says_the_same() {
    let long = || text("How do you do? Very well, said she, how do you do? And so on, how do you do, how do you do?");
    for event in [message(long()), message(text("hi")), RoomEvent::Joined(room("lobby"), Some(user("Zoë")))] {
        for form in (0..).map_while(WireForm::from_index) {
            let mut deflater = Deflater::new(DeflaterSettings { threshold_bytes: 50, level: 3 });
            let (mut plain, mut out) = (Vec::new(), b"before".to_vec());
            form.variant.encode(&event, &mut plain);
            form.encode(&event, &mut deflater, &mut out);
            let out = out.strip_prefix(b"before").expect("appended");
            let is_long = plain.len() > 52;
            assert_eq!(deflater.messages() > 0, is_long && form.is_deflated(), "{form:?} {event:?}");
            if !is_long || !form.is_deflated() {
                assert_eq!(out, plain, "{form:?} {event:?}");
                continue;
            }
            assert!(out[0] == plain[0] | 0x40 && out[1] < 126 && out.len() < plain.len(), "{form:?} {event:?}");
            let stream = [&out[2..], &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat();
            let inflated = miniz_oxide::inflate::decompress_to_vec(&stream).expect("a deflate stream");
            assert_eq!(Some(&inflated[..]), only_frame(&plain).map(|(_, payload)| payload));
        }
    }
}
