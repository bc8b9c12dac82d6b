use proptest::prelude::*;

use super::*;
use crate::{JSON_DEPTH_MAX, Position};

const LIMITS: MessageLimits = MessageLimits { message_bytes_max: 65_536, fragments_max: 100, bad_messages_max: 10 };

fn room(name: &str) -> RoomName {
    RoomName::parse(name).expect("a valid name")
}

fn rooms() -> Session {
    Session::new(Mode::Rooms, Dialect::Json)
}

fn one_room() -> Session {
    Session::new(Mode::Room(room("lobby")), Dialect::Json)
}

fn named(name: &str) -> Target {
    Target::Named(room(name))
}

const fn id(raw: &str) -> ReplyId<'_> {
    ReplyId(Some(raw))
}

const NO_ID: ReplyId<'static> = ReplyId(None);

#[track_caller]
fn check(mut session: Session, text: &str, expected: &Action<'_>) {
    assert_eq!(&session.handle(Message::Text(text), &LIMITS), expected, "{text}");
}

/// The message is refused with this code and id, in words that name what is wrong.
#[track_caller]
fn check_refused(mut session: Session, text: &str, code: ErrorCode, naming: &str, id: ReplyId<'_>) {
    let action = session.handle(Message::Text(text), &LIMITS);
    let Action::Refuse { code: found, message, id: found_id } = &action else { panic!("{text}: {action:?}") };
    assert_eq!((*found, *found_id), (code, id), "{text}: {message}");
    assert!(message.contains(naming), "{text}: {message}");
}

fn publish<'a>(room: Target, json: &'a str, except_self: bool, id: ReplyId<'a>) -> Action<'a> {
    Action::Publish { room, payload: PayloadRef::Json(json), except_self, id }
}

fn presence<'a>(room: Target, after: Option<&'a str>, limit: usize, id: ReplyId<'a>) -> Action<'a> {
    Action::Presence { room, after: after.map(Into::into), limit, id }
}

#[test]
fn commands_on_a_connection_of_many_rooms() {
    let since = Position { epoch: 0xabcd, offset: 7 };
    let cases = [
        (r#"{"name":"subscribe","room":"lobby"}"#, Action::Subscribe { room: room("lobby"), since: None, id: NO_ID }),
        (
            r#"{"name":"subscribe","room":"房间:1","since":"000000000000abcd:7","id":1}"#,
            Action::Subscribe { room: room("房间:1"), since: Some(since), id: id("1") },
        ),
        (
            r#"{"name":"subscribe","room":"lobby","since":null}"#,
            Action::Subscribe { room: room("lobby"), since: None, id: NO_ID },
        ),
        (r#"{"name":"unsubscribe","room":"a","id":"x"}"#, Action::Unsubscribe { room: named("a"), id: id("\"x\"") }),
        (
            r#"{"name":"history","room":"a","id":3}"#,
            Action::History { room: named("a"), since: None, limit: 100, id: id("3") },
        ),
        (
            r#"{"name":"history","room":"a","since":"00000000000000ab:7","limit":1000}"#,
            Action::History {
                room: named("a"),
                since: Some(Position { epoch: 0xab, offset: 7 }),
                limit: 1_000,
                id: NO_ID,
            },
        ),
        (r#"{"name":"presence","room":"a","id":-1.5e3}"#, presence(named("a"), None, 1_000, id("-1.5e3"))),
        (r#"{"name":"presence","room":"a","limit":2,"after":"Zo\u00eb"}"#, presence(named("a"), Some("Zoë"), 2, NO_ID)),
        (r#"{"name":"leave","room":"a"}"#, Action::Leave { room: named("a"), id: NO_ID }),
        (r#"{"name":"close","room":"a","id":0}"#, Action::CloseRoom { room: named("a"), id: id("0") }),
        (r#"{"name":"refresh","token":"a.b.c","id":7}"#, Action::Refresh { token: "a.b.c".into(), id: id("7") }),
        (r#"{"name":"refresh","token":"\u0061.b.c"}"#, Action::Refresh { token: "a.b.c".into(), id: NO_ID }),
        (r#"{"name":"ping"}"#, Action::Pong { id: NO_ID }),
        (r#"{"id":"\u0041","name":"ping"}"#, Action::Pong { id: id(r#""\u0041""#) }),
        (r#"{"name":"message","message":{"a": 1}}"#, Action::Said(r#"{"a": 1}"#)),
        (r#"{"name":"publish","room":"a","message":"hi"}"#, publish(named("a"), r#""hi""#, false, NO_ID)),
        (r#"{"name":"publish_no_self","room":"a","message":1,"id":9}"#, publish(named("a"), "1", true, id("9"))),
        // Escapes in what is read; unknown fields; white space around.
        (
            " \r\n{ \"na\\u006de\" : \"p\\u0075blish\", \"room\" : \"\\u0061\", \"more\":[{}], \"message\" : true }\t",
            publish(named("a"), "true", false, NO_ID),
        ),
    ];
    for (text, expected) in cases {
        check(rooms(), text, &expected);
    }
}

#[test]
fn a_message_keeps_its_publishers_bytes() {
    let messages = [
        "null",
        "false",
        "0",
        "-0.0",
        "1e5",
        "12345678901234567890123.4500",
        r#""""#,
        r#""\u00e9\/\n\ud83d\ude00 é""#,
        r#""\ud800""#,
        "[ 1 ,2,\t3 ]",
        "{\"b\" : 1,\n \"a\":{} , \"b\":2}",
        "[[[[[[[[]]]]]]]]",
    ];
    for message in messages {
        let text = format!("{{\"message\":  {message} ,\"name\":\"publish\",\"room\":\"a\"}}");
        check(rooms(), &text, &publish(named("a"), message, false, NO_ID));
    }
}

#[test]
fn commands_on_a_connection_of_one_room() {
    let cases = [
        (r#"{"name":"publish","message":null}"#, publish(Target::Own, "null", false, NO_ID)),
        (r#"{"name":"publish","room":"lobby","message":2}"#, publish(Target::Own, "2", false, NO_ID)),
        (r#"{"name":"publish_no_self","room":null,"message":2}"#, publish(Target::Own, "2", true, NO_ID)),
        (r#"{"name":"subscribe"}"#, Action::Subscribe { room: room("lobby"), since: None, id: NO_ID }),
        (r#"{"name":"subscribe","room":"lobby"}"#, Action::Subscribe { room: room("lobby"), since: None, id: NO_ID }),
        (r#"{"name":"leave"}"#, Action::Leave { room: Target::Own, id: NO_ID }),
        (r#"{"name":"close","id":1}"#, Action::CloseRoom { room: Target::Own, id: id("1") }),
        (r#"{"name":"unsubscribe"}"#, Action::Unsubscribe { room: Target::Own, id: NO_ID }),
        (r#"{"name":"presence"}"#, presence(Target::Own, None, 1_000, NO_ID)),
    ];
    for (text, expected) in cases {
        check(one_room(), text, &expected);
    }
    let other = r#"{"name":"publish","room":"other","message":1,"id":5}"#;
    check_refused(one_room(), other, ErrorCode::BadRoom, "serves the room `lobby`", id("5"));
    let other = r#"{"name":"subscribe","room":"other"}"#;
    check_refused(one_room(), other, ErrorCode::BadRoom, "serves the room `lobby`", NO_ID);
    check_refused(one_room(), r#"{"name":"leave","room":7}"#, ErrorCode::BadMessage, "`room`", NO_ID);
}

#[test]
fn what_cannot_be_read_is_refused_by_field() {
    use ErrorCode::{BadMessage, BadRoom, UnknownCommand};
    let cases = [
        ("", BadMessage, "JSON object", NO_ID),
        ("hello", BadMessage, "JSON object", NO_ID),
        (r#""ping""#, BadMessage, "JSON object", NO_ID),
        ("null", BadMessage, "JSON object", NO_ID),
        (r#"["1","ping"]"#, BadMessage, "JSON object", NO_ID),
        ("{", BadMessage, "not JSON", NO_ID),
        (r#"{"name":"ping"} x"#, BadMessage, "not JSON", NO_ID),
        (r#"{"name":"ping"}{"name":"ping"}"#, BadMessage, "not JSON", NO_ID),
        (r#"{"name":"ping",}"#, BadMessage, "not JSON", NO_ID),
        (r#"{"name":"ping","name":"ping"}"#, BadMessage, "duplicate field `name`", NO_ID),
        (r#"{}"#, BadMessage, "`name` is missing", NO_ID),
        (r#"{"id":7}"#, BadMessage, "`name` is missing", id("7")),
        (r#"{"name":5,"id":7}"#, BadMessage, "`name` must be a string", id("7")),
        (r#"{"name":null}"#, BadMessage, "`name` must be a string", NO_ID),
        (r#"{"name":"ping","id":{}}"#, BadMessage, "`id`", NO_ID),
        (r#"{"name":"ping","id":true}"#, BadMessage, "`id`", NO_ID),
        (r#"{"name":"ping","id":null}"#, BadMessage, "`id`", NO_ID),
        (r#"{"name":"publish","message":1,"id":7}"#, BadMessage, "`room` is missing", id("7")),
        (r#"{"name":"publish","room":"a","id":7}"#, BadMessage, "`message` is missing", id("7")),
        (r#"{"name":"publish","room":["a"],"message":1}"#, BadMessage, "`room` must be a string", NO_ID),
        (r#"{"name":"message"}"#, BadMessage, "`message` is missing", NO_ID),
        (r#"{"name":"subscribe","id":1}"#, BadMessage, "`room` is missing", id("1")),
        (r#"{"name":"leave"}"#, BadMessage, "`room` is missing", NO_ID),
        (r#"{"name":"subscribe","room":"a","since":5}"#, BadMessage, "`since` must be a string", NO_ID),
        (r#"{"name":"subscribe","room":"a","since":"5","id":2}"#, BadMessage, "EPOCH:OFFSET", id("2")),
        (r#"{"name":"subscribe","room":"","id":2}"#, BadRoom, "empty", id("2")),
        (r#"{"name":"publish","room":"a b","message":1}"#, BadRoom, "' '", NO_ID),
        (r#"{"name":"presence","room":"a\u0000"}"#, BadRoom, "'\\0'", NO_ID),
        (r#"{"name":"Ping","id":3}"#, UnknownCommand, "`Ping`", id("3")),
        (r#"{"name":""}"#, UnknownCommand, "``", NO_ID),
        (r#"{"name":"history","id":3}"#, BadMessage, "`room` is missing", id("3")),
        (r#"{"name":"history","room":"a","limit":0,"id":3}"#, BadMessage, "from 1 to 1000", id("3")),
        (r#"{"name":"history","room":"a","limit":1001}"#, BadMessage, "from 1 to 1000", NO_ID),
        (r#"{"name":"history","room":"a","limit":"5"}"#, BadMessage, "from 1 to 1000", NO_ID),
        (r#"{"name":"history","room":"a","limit":-1}"#, BadMessage, "from 1 to 1000", NO_ID),
        (r#"{"name":"history","room":"a","since":"x"}"#, BadMessage, "EPOCH:OFFSET", NO_ID),
        (r#"{"name":"send","user":"a","id":1}"#, BadMessage, "`message` is missing", id("1")),
        (r#"{"name":"send","message":1}"#, BadMessage, "`user` is missing", NO_ID),
        (r#"{"name":"refresh","id":1}"#, BadMessage, "`token` is missing", id("1")),
        (r#"{"name":"refresh","token":null}"#, BadMessage, "`token` must be a string", NO_ID),
        (r#"{"name":"refresh","token":["a.b.c"]}"#, BadMessage, "`token` must be a string", NO_ID),
    ];
    for (text, code, naming, id) in cases {
        check_refused(rooms(), text, code, naming, id);
    }
    let long_id = format!(r#"{{"name":"ping","id":"{}"}}"#, "x".repeat(127));
    check_refused(rooms(), &long_id, BadMessage, "128 bytes", NO_ID);
    let long_room = format!(r#"{{"name":"presence","room":"{}"}}"#, "x".repeat(201));
    check_refused(rooms(), &long_room, BadRoom, "201 bytes", NO_ID);
}

#[test]
fn a_long_unknown_name_is_cut_between_characters() {
    let name = "é".repeat(40);
    let text = format!("{{\"name\":\"x{name}\"}}");
    let shown = format!("`x{}…`", "é".repeat(31));
    check_refused(rooms(), &text, ErrorCode::UnknownCommand, &shown, NO_ID);
}

#[test]
fn the_tenth_bad_message_in_a_row_closes() {
    let refused = |session: &mut Session| matches!(session.handle(Message::Text("?"), &LIMITS), Action::Refuse { .. });
    let mut session = rooms();
    assert!((0..9).all(|_| refused(&mut session)));
    assert_eq!(session.handle(Message::Text("{}"), &LIMITS), Action::Close(CloseReason::BadMessages));

    let mut session = rooms();
    for good in [r#"{"name":"ping"}"#, r#"{"name":"no such command"}"#, r#"{"name":"presence","room":"/"}"#] {
        assert!((0..9).all(|_| refused(&mut session)));
        assert_ne!(session.handle(Message::Text(good), &LIMITS), Action::Close(CloseReason::BadMessages));
    }
    assert!((0..9).all(|_| refused(&mut session)));
    assert_eq!(session.handle(Message::Text("?"), &LIMITS), Action::Close(CloseReason::BadMessages));
}

#[test]
fn binary_messages_have_no_place_in_json() {
    let binary = Message::Binary(b"{\"name\":\"ping\"}");
    assert_eq!(rooms().handle(binary, &LIMITS), Action::Close(CloseReason::BinaryNotAllowed));
    assert_eq!(one_room().handle(binary, &LIMITS), Action::Close(CloseReason::BinaryNotAllowed));
}

#[test]
fn in_the_text_dialect_every_message_is_published() {
    for dialect in [Dialect::Text, Dialect::TextJoined] {
        let payloads = [
            (Message::Text(r#"{"name":"close"}"#), PayloadRef::Text(r#"{"name":"close"}"#)),
            (Message::Text(""), PayloadRef::Text("")),
            (Message::Binary(b"\xff"), PayloadRef::Binary(b"\xff")),
        ];
        for (message, payload) in payloads {
            let action = Session::new(Mode::Room(room("a")), dialect).handle(message, &LIMITS);
            assert_eq!(action, Action::Publish { room: Target::Own, payload, except_self: false, id: NO_ID });
        }
    }
}

#[test]
fn echo_and_hello_world() {
    let handle = |mode, message| Session::new(mode, Dialect::Text).handle(message, &LIMITS);
    let reply = |text| Action::Reply(PayloadRef::Text(text));
    assert_eq!(handle(Mode::Echo, Message::Text("helloworld")), reply("helloworld"));
    assert_eq!(handle(Mode::Echo, Message::Binary(b"\0")), Action::Reply(PayloadRef::Binary(b"\0")));
    assert_eq!(handle(Mode::HelloWorld, Message::Text("helloworld")), reply("Hello World"));
    assert_eq!(handle(Mode::HelloWorld, Message::Text("close")), Action::Close(CloseReason::Left));
    assert_eq!(handle(Mode::HelloWorld, Message::Text("Close")), reply("unknown command"));
    let binary = handle(Mode::HelloWorld, Message::Binary(b"helloworld"));
    assert_eq!(binary, Action::Close(CloseReason::BinaryNotAllowed));
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 32, "{}", size_of::<Session>());
}

/// JSON of any shape, whose objects often have a command's fields.
fn nearly_a_command() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        "[a-z ]{0,12}".prop_map(|text| format!("\"{text}\"")),
        Just("\"publish\"".to_owned()),
        Just("\"subscribe\"".to_owned()),
        "\\PC{0,8}",
        Just("{\"a\":[1,{}]}".to_owned()),
    ];
    let key = prop_oneof![Just("name"), Just("room"), Just("message"), Just("id"), Just("since"), Just("x")];
    proptest::collection::vec((key, value), 0..6).prop_map(|fields| {
        let fields: Vec<String> = fields.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    })
}

#[test]
fn a_command_nests_as_deep_as_every_client_can_read_and_no_deeper() {
    let publish = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"name":"publish","room":"lobby","message":{open}{close},"id":1}}"#)
    };
    let deepest = publish(JSON_DEPTH_MAX - 1);
    let message = PayloadRef::Json(&deepest[deepest.find('[').unwrap()..=deepest.rfind(']').unwrap()]);
    let expected = Action::Publish { room: named("lobby"), payload: message, except_self: false, id: id("1") };
    check(rooms(), &deepest, &expected);
    // Whichever field it is, one that nobody reads included, and however deep: in time and memory like that of any text as long.
    for (levels, field) in [(JSON_DEPTH_MAX, "message"), (30_000, "message"), (30_000, "other"), (30_000, "id")] {
        let text = publish(levels).replace(r#","message""#, &format!(r#","{field}""#)).replace(r#","id":1"#, "");
        check_refused(rooms(), &text, ErrorCode::BadMessage, "100 levels deep", NO_ID);
    }
    // The refusal is an answer to its command, wherever the `id` stands. One that is itself too deep is none.
    let deep = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for levels in [JSON_DEPTH_MAX, 30_000] {
        let before = format!(r#"{{"id":7,"name":"publish","room":"lobby","message":{}}}"#, deep(levels));
        check_refused(rooms(), &before, ErrorCode::BadMessage, "100 levels deep", id("7"));
        check_refused(rooms(), &publish(levels), ErrorCode::BadMessage, "100 levels deep", id("1"));
        let between = format!(r#"{{"x":{0},"id":"a","message":{0}}}"#, deep(levels));
        check_refused(one_room(), &between, ErrorCode::BadMessage, "100 levels deep", id("\"a\""));
        let long = format!(r#"{{"id":"{}","message":{}}}"#, "x".repeat(ReplyId::BYTES_MAX), deep(levels));
        check_refused(rooms(), &long, ErrorCode::BadMessage, "100 levels deep", NO_ID);
    }
    // What is cut off is not JSON: nothing in it is known for sure.
    let cut = format!(r#"{{"id":7,"message":{}"#, "[".repeat(30_000));
    check_refused(rooms(), &cut, ErrorCode::BadMessage, "not JSON", NO_ID);
}

proptest! {
    #[test]
    fn garbage_never_panics_and_what_is_borrowed_is_json(text in prop_oneof![any::<String>(), nearly_a_command()]) {
        for mut session in [rooms(), one_room()] {
            match session.handle(Message::Text(&text), &LIMITS) {
                Action::Publish { payload: PayloadRef::Json(json), .. } | Action::Said(json) => {
                    prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok(), "{}", json);
                }
                Action::Refuse { id: ReplyId(Some(id)), .. } => {
                    prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(id).is_ok(), "{}", id);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_session_keeps_the_copy_of_its_room_s_name_that_it_is_told_of() {
    let (shared, other) = (room("lobby"), room("other"));
    let mut session = one_room();
    session.share_room(&shared);
    assert!(session.room().is_some_and(|own| std::ptr::eq(own.as_str(), shared.as_str())));
    session.share_room(&other);
    assert_eq!(session.room(), Some(&shared), "another name is none of its room's");
    let mut many = rooms();
    many.share_room(&shared);
    assert_eq!(many.room(), None);
}
