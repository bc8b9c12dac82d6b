//! The stream is read with a parser that was written from the text of the standard alone (WHATWG HTML, section 9.2.6, "Interpreting an
//! event stream"), and must come out as what was said.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{ErrorCode, Payload, Published, ReplyId, RoomName, UserName, Variant};

/// What a client's code is called with.
#[derive(Debug, PartialEq, Eq)]
struct Dispatched {
    event: String,
    data: String,
    last_event_id: String,
}

/// What a stream came to: the events, the reconnection time, and whether something that was no field came, but for comments.
#[derive(Debug, Default)]
struct Read {
    events: Vec<Dispatched>,
    retry: Option<u64>,
    unknown: Vec<String>,
}

/// `last_id` is what the buffer for the last event id begins as: empty by the letter of the standard.
fn read(stream: &[u8]) -> Read {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut data, mut event_type, mut last_id) = (String::new(), String::new(), String::new());
    let mut read = Read::default();
    for line in lines(text) {
        if line.is_empty() {
            if data.is_empty() {
                event_type.clear();
                continue;
            }
            if data.ends_with('\n') {
                data.pop();
            }
            let event = if event_type.is_empty() { "message".to_owned() } else { std::mem::take(&mut event_type) };
            let (data, last_event_id) = (std::mem::take(&mut data), last_id.clone());
            read.events.push(Dispatched { event, data, last_event_id });
            continue;
        }
        let (field, value) = match line.split_once(':') {
            Some(("", _)) => continue,
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (line, ""),
        };
        match field {
            "event" => event_type = value.to_owned(),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => last_id = value.to_owned(),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => read.retry = value.parse().ok(),
            _ => read.unknown.push(line.to_owned()),
        }
    }
    // What no empty line follows is not dispatched.
    read
}

/// The lines that an end follows: a pair of CR and LF, a LF alone, or a CR alone.
fn lines(mut text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    while let Some(end) = text.find(['\r', '\n']) {
        lines.push(&text[..end]);
        let length = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        text = &text[end + length..];
    }
    lines
}

fn lobby() -> RoomName {
    RoomName::parse("lobby").expect("a valid name")
}

fn said(payload: Payload, user: Option<UserName>, offset: u64) -> RoomEvent {
    let position = Position { epoch: 0xfeed, offset };
    RoomEvent::Message(lobby(), Published { position, offset: Some(offset), user, payload })
}

fn written(event: &RoomEvent) -> Vec<u8> {
    let mut out = b"before".to_vec();
    Variant::Sse.encode(event, &mut out);
    out.split_off(b"before".len())
}

#[test]
fn a_message_is_an_event_whose_id_is_its_position() {
    let event = said(Payload::Json(Bytes::from_static(b"{\"a\" : [1, 2]}")), UserName::guest("Zo").ok(), 12);
    let expected = "id: 000000000000feed:12\n\
                    data: {\"name\":\"message\",\"message\":{\"a\" : [1, 2]},\"user\":\"Zo\",\"offset\":12}\n\n";
    assert_eq!(String::from_utf8(written(&event)).expect("UTF-8"), expected);
    // The position is there where no history is kept, too: then it tells whether something was missed.
    let position = Position { epoch: 1, offset: 2 };
    let unnumbered =
        Published { position, offset: None, user: None, payload: Payload::Binary(Bytes::from_static(b"\0")) };
    let expected =
        "id: 0000000000000001:2\ndata: {\"name\":\"message\",\"message\":\"AA==\",\"encoding\":\"base64\"}\n\n";
    assert_eq!(written(&RoomEvent::Message(lobby(), unnumbered)), expected.as_bytes());
}

#[test]
fn other_events_have_their_name_for_a_type() {
    let zo = UserName::guest("Zo").ok();
    for (event, expected) in [
        (RoomEvent::Joined(lobby(), zo.clone()), "event: joined\ndata: {\"name\":\"joined\",\"user\":\"Zo\"}\n\n"),
        (RoomEvent::Left(lobby(), zo), "event: left\ndata: {\"name\":\"left\",\"user\":\"Zo\"}\n\n"),
        (RoomEvent::RoomClosed(lobby()), "event: room_closed\ndata: {\"name\":\"room_closed\"}\n\n"),
    ] {
        assert_eq!(String::from_utf8(written(&event)).expect("UTF-8"), expected);
    }
    let mut out = Vec::new();
    encode_event(&Event::Drain { retry_ms: 1_500 }, &mut out);
    assert_eq!(out, b"retry: 1500\nevent: drain\ndata: {\"name\":\"drain\",\"retry_ms\":1500}\n\n");
    // `error` is what EventSource calls a connection that broke.
    out.clear();
    encode_event(&Event::Error { code: ErrorCode::NotAllowed, message: "no", id: ReplyId(None) }, &mut out);
    assert!(out.starts_with(b"event: refused\ndata: {\"name\":\"error\","), "{out:?}");
}

#[test]
fn a_stream_begins_with_the_position_to_come_back_from() {
    let (position, resume) = (Position { epoch: 0xfeed, offset: 12 }, Position { epoch: 0xfeed, offset: 9 });
    let room = lobby();
    let subscribed = Event::Subscribed { room: &room, position, recovered: true, id: ReplyId(None) };
    let mut out = Vec::new();
    opening(1_700, resume, &subscribed, &mut out);
    out.extend_from_slice(HEARTBEAT);
    out.extend(written(&RoomEvent::Joined(lobby(), None)));
    close_event(CloseReason::SlowConsumer { bytes: 12, messages: 3 }, &mut out);
    let read = read(&out);
    assert_eq!((read.retry, read.unknown.as_slice()), (Some(1_700), &[][..]));
    let id = "000000000000feed:9".to_owned();
    let of = |event: &str, data: &Value| (event.to_owned(), data.clone(), id.clone());
    let events: Vec<_> = read.events.into_iter().map(|e| (e.event, parsed(&e.data), e.last_event_id)).collect();
    let at = json!({"name": "subscribed", "epoch": "000000000000feed", "offset": 12, "recovered": true});
    let close = json!({"name": "close", "code": 4508, "reason": "queued 12 bytes, 3 messages"});
    assert_eq!(events, [of("subscribed", &at), of("joined", &json!({"name": "joined"})), of("close", &close)]);
}

fn parsed(data: &str) -> Value {
    serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {data:?}"))
}

#[test]
fn line_ends_between_the_parts_of_a_value_end_no_field() {
    for end in ["\n", "\r", "\r\n", "\n\n", "\n\ndata: injected\n\n", "\r\rid: 1\r\r"] {
        // Where it is no white space of JSON it could not have come in; it ends nothing even so.
        let payload = Payload::Json(format!("{{{end}\"a\":{end}1 }}").into());
        let read = read(&written(&said(payload, None, 1)));
        assert_eq!((read.events.len(), read.unknown.len()), (1, 0), "{end:?}: {read:?}");
        let Dispatched { event, data, last_event_id } = &read.events[0];
        assert_eq!((event.as_str(), last_event_id.as_str()), ("message", "000000000000feed:1"));
        if end.trim_ascii().is_empty() {
            assert_eq!(parsed(data)["message"], json!({"a": 1}));
        }
    }
}

/// Text with what could be taken for something else in a stream.
fn awkward() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        any::<String>(),
        "[\r\n\0:\u{feff}\u{2028}\u{85} ]{1,4}",
        Just("\n\ndata: x\n\n".to_owned()),
        Just("\rid: 1\r\r".to_owned()),
        Just("\nevent: close\n".to_owned()),
    ];
    proptest::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn what_is_said_is_what_a_reader_of_the_standard_gets(
        messages in proptest::collection::vec((awkward(), 0..4_u8, proptest::option::of("\\PC{2,20}")), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (number, (text, kind, user)) in messages.into_iter().enumerate() {
            let user = user.and_then(|user| UserName::guest(&user).ok());
            let name = user.as_ref().map(|user| user.as_str().to_owned());
            let (payload, message) = match kind {
                0 => (Payload::Text(text.clone().into()), json!(text)),
                1 => (Payload::Json(json!(text).to_string().into()), json!(text)),
                2 => {
                    let value = json!({"text": text, "list": [null, 1.5, {}]});
                    let pretty = serde_json::to_string_pretty(&value).expect("JSON").replace('\n', "\r\n");
                    (Payload::Json(pretty.into()), value)
                }
                _ => {
                    use base64::Engine as _;
                    let encoded = base64::engine::general_purpose::STANDARD.encode(&text);
                    (Payload::Binary(text.into()), json!(encoded))
                }
            };
            let offset = number as u64 + 1;
            stream.extend(written(&said(payload, user, offset)));
            stream.extend_from_slice(HEARTBEAT);
            expected.push((message, name, format!("000000000000feed:{offset}"), stream.len()));
        }
        let read_whole = read(&stream);
        prop_assert_eq!(read_whole.events.len(), expected.len());
        prop_assert!(read_whole.unknown.is_empty(), "{:?}", read_whole.unknown);
        prop_assert_eq!(read_whole.retry, None);
        for (event, (message, name, id, _)) in read_whole.events.iter().zip(&expected) {
            prop_assert_eq!((event.event.as_str(), &event.last_event_id), ("message", id));
            let value = parsed(&event.data);
            prop_assert_eq!((&value["message"], value["user"].as_str()), (message, name.as_deref()));
        }
        // A stream that breaks off gives whole events, or none.
        let cut = cut.index(stream.len() + 1);
        let whole = expected.iter().filter(|(.., end)| *end <= cut + HEARTBEAT.len()).count();
        let read_part = read(&stream[..cut]);
        prop_assert_eq!(&read_part.events[..], &read_whole.events[..whole]);
    }
}
