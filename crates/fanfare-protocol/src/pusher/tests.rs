use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::wire::{Message, split_frame};
use crate::{
    Action, CloseReason, Dialect, ErrorCode, MessageLimits, Mode, Payload, Position, Published, RoomEvent, Session,
    UserName, Variant,
};

const LIMITS: MessageLimits = MessageLimits { message_bytes_max: 65_536, fragments_max: 100, bad_messages_max: 10 };

fn session() -> Session {
    Session::new(Mode::App(0), Dialect::Pusher)
}

/// What a frame asks for.
#[track_caller]
fn check(text: &str, expected: PusherCommand<'_>) {
    assert_eq!(session().handle(Message::Text(text), &LIMITS), Action::Pusher(expected), "{text}");
}

#[track_caller]
fn check_refused(text: &str, naming: &str) {
    let action = session().handle(Message::Text(text), &LIMITS);
    let Action::Refuse { code: ErrorCode::BadMessage, message, .. } = &action else { panic!("{text}: {action:?}") };
    assert!(message.contains(naming), "{text}: {message}");
}

#[test]
fn commands_are_read_as_the_libraries_write_them() {
    let subscribe = |auth: Option<&str>, data: Option<&str>| PusherCommand::Subscribe {
        channel: "private-a".to_owned(),
        auth: auth.map(str::to_owned),
        channel_data: data.map(str::to_owned),
    };
    check(r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"private-a"}}"#, subscribe(None, None));
    check(r#"{"event":"pusher:subscribe","data":{"auth":"k:1","channel":"private-a"}}"#, subscribe(Some("k:1"), None));
    check(
        r#"{"event":"pusher:subscribe","data":{"channel":"private-a","auth":"k:1","channel_data":"{\"user_id\":1}"}}"#,
        subscribe(Some("k:1"), Some(r#"{"user_id":1}"#)),
    );
    check(
        r#"{"event":"pusher:subscribe","data":"{\"channel\":\"private-a\",\"auth\":\"k:1\",\"channel_data\":null}"}"#,
        subscribe(Some("k:1"), None),
    );
    let unsubscribe = PusherCommand::Unsubscribe { channel: "a".to_owned() };
    check(r#" {"event":"pusher:unsubscribe","data":{"channel":"a"},"more":1} "#, unsubscribe);
    for ping in [r#"{}"#, r#""""#, r#""{}""#, "null", "7"] {
        check(&format!(r#"{{"event":"pusher:ping","data":{ping}}}"#), PusherCommand::Ping);
    }
    check(r#"{"event":"pusher:pong"}"#, PusherCommand::Pong);
    check(
        r#"{"event":"pusher:signin","data":{"auth":"k:1","user_data":"{}"}}"#,
        PusherCommand::SignIn { auth: "k:1".to_owned(), user_data: "{}".to_owned() },
    );
    let event = |data| PusherCommand::ClientEvent { event: "client-é".into(), channel: "private-a".into(), data };
    check(r#"{"event":"client-é","channel":"private-a","data": [1,  2] }"#, event(Some("[1,  2]")));
    check(r#"{"event":"client-é","channel":"private-a","data":null,"user_id":"x"}"#, event(Some("null")));
    check(r#"{"event":"client-é","channel":"private-a"}"#, event(None));
}

#[test]
fn what_cannot_be_read_is_refused_in_words() {
    for (text, naming) in [
        ("", "one JSON object"),
        ("[]", "one JSON object"),
        (r#"["pusher:ping"]"#, "one JSON object"),
        ("{", "not JSON"),
        ("{}", "event is missing"),
        (r#"{"event":7}"#, "must be a string"),
        (r#"{"event":null}"#, "event is missing"),
        (r#"{"event":"foo","channel":"private-a"}"#, "no event foo"),
        (r#"{"event":"Client-x","channel":"private-a"}"#, "no event Client-x"),
        (r#"{"event":"pusher_internal:member_added","channel":"presence-a","data":"{}"}"#, "pusher_internal"),
        (r#"{"event":"pusher:subscribe"}"#, "data is missing"),
        (r#"{"event":"pusher:subscribe","data":7}"#, "an object"),
        (r#"{"event":"pusher:subscribe","data":["a"]}"#, "an object"),
        (r#"{"event":"pusher:subscribe","data":{}}"#, "channel is missing"),
        (r#"{"event":"pusher:subscribe","data":{"channel":7}}"#, "expected a string"),
        (r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":{}}}"#, "expected a string"),
        (r#"{"event":"pusher:signin","data":{"auth":"a"}}"#, "user_data is missing"),
        (r#"{"event":"client-x"}"#, "channel is missing"),
        (r#"{"event":"client-x","channel":[]}"#, "must be a string"),
    ] {
        check_refused(text, naming);
    }
    check_refused(&format!(r#"{{"event":"client-{}","channel":"a"}}"#, "x".repeat(194)), "at most 200");
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    check_refused(&format!(r#"{{"event":"client-x","channel":"a","data":{}}}"#, deep(100)), "100 levels");
    let inner = format!(r#"{{"channel":{}}}"#, deep(100)).replace('"', "\\\"");
    check_refused(&format!(r#"{{"event":"pusher:subscribe","data":"{inner}"}}"#), "100 levels");
    let binary = session().handle(Message::Binary(b"{}"), &LIMITS);
    assert!(matches!(binary, Action::Refuse { .. }), "{binary:?}");
}

#[test]
fn however_much_cannot_be_read_the_connection_stays() {
    let mut session = session();
    for _ in 0..100 {
        assert!(matches!(session.handle(Message::Text("x"), &LIMITS), Action::Refuse { .. }));
    }
}

#[test]
fn channels_are_what_they_begin_with() {
    let kinds = |name| {
        let name = ChannelName::parse(name).expect("a name");
        (name.needs_auth(), name.is_presence(), name.is_cache())
    };
    assert_eq!(kinds("kitchen"), (false, false, false));
    assert_eq!(kinds("my-private-room"), (false, false, false));
    assert_eq!(kinds("not-cache-room"), (false, false, false));
    assert_eq!(kinds("cache-a"), (false, false, true));
    assert_eq!(kinds("private-a"), (true, false, false));
    assert_eq!(kinds("private-cache-a"), (true, false, true));
    assert_eq!(kinds("private-encrypted-a"), (true, false, false));
    assert_eq!(kinds("private-encrypted-cache-a"), (true, false, true));
    assert_eq!(kinds("presence-a"), (true, true, false));
    assert_eq!(kinds("presence-cache-a"), (true, true, true));
    assert!(ChannelName::parse(&"x".repeat(200)).is_ok() && ChannelName::parse("aZ09_-=@,.;").is_ok());
    for bad in ["", &"x".repeat(201), "a b", "a:b", "#server-to-user-a", "a\n", "ä", "a/b", "a#"] {
        assert!(ChannelName::parse(bad).is_err(), "{bad}");
    }
    let long = ChannelName::parse("presence-x").expect("a name").room(&"n".repeat(245));
    assert!(long.is_err(), "a namespace and a channel have 255 bytes together");
    let room = ChannelName::parse("private-x").expect("a name").room("shop").expect("a room");
    assert_eq!((room.as_str(), is_private_room(&room)), ("shop:private-x", true));
}

/// How a publication is told.
fn told(room: &str, payload: Payload, user: Option<&str>) -> Value {
    let room = RoomName::parse(room).expect("a room");
    let user = user.map(|user| UserName::parse(user).expect("a user"));
    let position = Position { epoch: 1, offset: 1 };
    let published = Published { position, offset: Some(1), user, payload };
    let mut out = Vec::new();
    Variant::Pusher.encode(&RoomEvent::Message(room, published), &mut out);
    let (frame, rest) = split_frame(&out).expect("a frame");
    assert!(rest.is_empty());
    serde_json::from_slice(frame.payload).expect("JSON")
}

fn json_payload(json: &'static str) -> Payload {
    Payload::Json(Bytes::from_static(json.as_bytes()))
}

#[test]
fn publications_are_told_as_events() {
    let check = |payload: &'static str, expected: Value| {
        assert_eq!(told("shop:kitchen", json_payload(payload), Some("ada")), expected, "{payload}");
    };
    let event = |event: &str, data: Value| json!({"event": event, "channel": "kitchen", "data": data});
    // A string is told as it is, whether or not it is JSON.
    check(r#"{"event":"order-up","data":"{\"table\":7}"}"#, event("order-up", json!("{\"table\":7}")));
    check(r#"{"event":"order-up","data":"plain"}"#, event("order-up", json!("plain")));
    check(r#"{"event":"order-up","data":""}"#, event("order-up", json!("")));
    check(r#"{"event":"order-up"}"#, json!({"event": "order-up", "channel": "kitchen"}));
    // Other values are told in a string.
    check(r#"{"event":"order-up","data":{"table":7}}"#, event("order-up", json!("{\"table\":7}")));
    check(r#"{"event":"order-up","data":null}"#, event("order-up", json!("null")));
    // What a client says keeps its type; who said it is told on presence channels alone.
    check(r#"{"event":"client-x","data":{"on":true}}"#, event("client-x", json!({"on": true})));
    // Whatever is no event is a message.
    for message in [
        r#"{"event":"a","data":1,"user_id":"eve"}"#,
        r#"{"event":"pusher:error","data":{"code":4001}}"#,
        r#"{"event":"pusher_internal:member_added","data":"{}"}"#,
        r#"{"event":""}"#,
        r#"{"event":7}"#,
        r#"{"data":1}"#,
        r#"["order-up","x"]"#,
        r#""hello""#,
        "12",
        "null",
    ] {
        check(message, event("message", json!(message)));
    }
    let text = told("shop:kitchen", Payload::Text(Bytes::from_static(b"say \"hi\"")), None);
    assert_eq!(text, event("message", json!(r#""say \"hi\"""#)));
    let binary = told("shop:kitchen", Payload::Binary(Bytes::from_static(&[0, 255])), None);
    assert_eq!(binary, event("binary", json!("\"AP8=\"")));
}

#[test]
fn a_member_of_a_presence_channel_is_named_with_what_it_says() {
    let said = told("shop:presence-a", json_payload(r#"{"event":"client-x","data":1}"#), Some("ada"));
    assert_eq!(said, json!({"event": "client-x", "channel": "presence-a", "data": 1, "user_id": "ada"}));
    let backend = told("shop:presence-a", json_payload(r#"{"event":"x","data":"1"}"#), Some("ada"));
    assert_eq!(backend, json!({"event": "x", "channel": "presence-a", "data": "1"}));
}

#[test]
fn members_come_and_go_where_they_are_known() {
    let told = |room: &str, event: fn(RoomName, UserName) -> RoomEvent| {
        let mut out = Vec::new();
        let user = UserName::parse("a\"da").expect("a user");
        Variant::Pusher.encode(&event(RoomName::parse(room).expect("a room"), user), &mut out);
        split_frame(&out).map(|(frame, _)| serde_json::from_slice::<Value>(frame.payload).expect("JSON"))
    };
    let event = |event: &str, data: &str| Some(json!({"event": event, "channel": "presence-a", "data": data}));
    let (added, removed) = ("pusher_internal:member_added", "pusher_internal:member_removed");
    let joined = |room, user| RoomEvent::Joined(room, Some(user));
    let with_info = |room, user| RoomEvent::MemberJoined(room, user, r#"{"name":"Ada"}"#.into());
    let left = |room, user| RoomEvent::Left(room, Some(user));
    assert_eq!(told("shop:presence-a", joined), event(added, r#"{"user_id":"a\"da","user_info":null}"#));
    assert_eq!(told("shop:presence-a", with_info), event(added, r#"{"user_id":"a\"da","user_info":{"name":"Ada"}}"#));
    assert_eq!(told("shop:presence-a", left), event(removed, r#"{"user_id":"a\"da"}"#));
    assert_eq!([told("shop:a", joined), told("shop:a", with_info), told("shop:a", left)], [None, None, None]);
}

#[test]
fn who_a_member_is_the_application_says() {
    let read = |data: &str| MemberData::read(data, 20).map(|data| (data.user.to_string(), data.info.to_string()));
    let is = |user: &str, info: &str| Ok((user.to_owned(), info.to_owned()));
    assert_eq!(read(r#"{"user_id":"ada","user_info":{"name": "Ada"}}"#), is("ada", r#"{"name": "Ada"}"#));
    assert_eq!(read(r#"{"user_id":7}"#), is("7", "null"));
    assert_eq!(read(r#"{"user_id":-1.5,"user_info":null,"x":1}"#), is("-1.5", "null"));
    assert_eq!(read(&format!(r#"{{"user_id":"{}"}}"#, "x".repeat(128))), is(&"x".repeat(128), "null"));
    for (data, naming) in [
        ("", "an object"),
        ("7", "an object"),
        (r#"["ada"]"#, "an object"),
        ("{", "not JSON"),
        ("{}", "user_id is missing"),
        (r#"{"user_id":null}"#, "user_id is missing"),
        (r#"{"user_id":""}"#, "empty"),
        (r#"{"user_id":true}"#, "a string or a number"),
        (r#"{"user_id":{}}"#, "a string or a number"),
        (r#"{"user_id":["a"]}"#, "a string or a number"),
        (r#"{"user_id":"a\u0000b"}"#, "not allowed"),
        (r#"{"user_id":"a","user_info":"0123456789012345678"}"#, "at most 20 bytes"),
    ] {
        let error = read(data).expect_err(data);
        assert!(error.contains(naming) || (naming == "an object" && error.contains("JSON object")), "{data}: {error}");
    }
    assert!(read(&format!(r#"{{"user_id":"{}"}}"#, "x".repeat(129))).is_err());
    let users: Vec<_> = ["ada", "b\"ea"].map(|user| UserName::parse(user).expect("a user")).into();
    let all = snapshot(users.iter().zip([Some(r#"{"n":1}"#), None]));
    let expected = json!({"presence": {"count": 2, "ids": ["ada", "b\"ea"], "hash": {"ada": {"n": 1}, "b\"ea": null}}});
    assert_eq!(serde_json::from_str::<Value>(&all).expect("JSON"), expected);
    assert_eq!(snapshot([].into_iter()), r#"{"presence":{"count":0,"ids":[],"hash":{}}}"#);
}

#[test]
fn replies_are_what_the_clients_expect() {
    let check = |reply: PusherReply<'_>, expected: &str| {
        let mut out = Vec::new();
        reply.encode(&mut out);
        let (frame, _) = split_frame(&out).expect("a frame");
        assert_eq!(str::from_utf8(frame.payload), Ok(expected));
    };
    check(
        PusherReply::Established { socket_id: "4711.90125", activity_timeout_s: 120 },
        r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"4711.90125\",\"activity_timeout\":120}"}"#,
    );
    check(
        PusherReply::Subscribed { channel: "a", data: r#"{"x":1}"# },
        r#"{"event":"pusher_internal:subscription_succeeded","channel":"a","data":"{\"x\":1}"}"#,
    );
    let (channel, error) = ("\"", "no\nword");
    check(
        PusherReply::NotSubscribed { channel, refusal: ChannelRefusal::Auth, error },
        r#"{"event":"pusher:subscription_error","channel":"\"","data":{"type":"AuthError","error":"no\nword","status":401}}"#,
    );
    check(PusherReply::Pong, r#"{"event":"pusher:pong","data":{}}"#);
    check(
        PusherReply::Error { code: Some(4301), message: "slow" },
        r#"{"event":"pusher:error","data":{"code":4301,"message":"slow"}}"#,
    );
    check(
        PusherReply::Error { code: None, message: "\"" },
        r#"{"event":"pusher:error","data":{"code":null,"message":"\""}}"#,
    );
    check(
        PusherReply::SignedIn { user_data: r#"{"id":"ada"}"# },
        r#"{"event":"pusher:signin_success","data":{"user_data":"{\"id\":\"ada\"}"}}"#,
    );
}

#[test]
fn no_code_tells_a_client_to_stay_away_from_what_can_heal() {
    let heals = [
        CloseReason::Drain,
        CloseReason::Overloaded,
        CloseReason::EngineAway,
        CloseReason::EngineLost,
        CloseReason::PongTimeout { ms: 1 },
        CloseReason::SlowConsumer { bytes: 1, messages: 1 },
        CloseReason::SlowConsumerResumable { bytes: 1, messages: 1 },
        CloseReason::WriteTimeout { bytes: 1, messages: 1 },
        CloseReason::TooFast,
        CloseReason::PingsTooFast,
        CloseReason::RoomFull,
        CloseReason::AppFull { max: 1 },
        CloseReason::RoomClosed,
    ];
    for reason in heals {
        let code = reason.pusher_code().0;
        assert!((4100..4300).contains(&code), "{reason:?}: {code}");
    }
    for reason in [CloseReason::Kicked, CloseReason::AppUnknown, CloseReason::AppDisabled, CloseReason::AppOrigin] {
        let code = reason.pusher_code().0;
        assert!((4001..4100).contains(&code), "{reason:?}: {code}");
    }
}

proptest! {
    #[test]
    fn whatever_is_sent_is_a_command_or_is_refused_in_few_words(text in ".{0,200}") {
        let bounded = match session().handle(Message::Text(&text), &LIMITS) {
            Action::Pusher(_) => true,
            Action::Refuse { message, .. } => message.len() < 400,
            _ => false,
        };
        prop_assert!(bounded);
    }

    #[test]
    fn near_misses_are_refused_in_few_words(
        event in "(pusher:)?(subscribe|unsubscribe|ping|signin|client-x)",
        data in r#"(\{("channel"|"auth"|7)?:?("a"|null|\{)?\}?|"[^"]*"|null|)"#,
        channel in r#"("a"|7|null|\{\}|)"#,
    ) {
        let text = format!(r#"{{"event":"{event}","channel":{channel},"data":{data}}}"#);
        let bounded = match session().handle(Message::Text(&text), &LIMITS) {
            Action::Pusher(_) => true,
            Action::Refuse { message, .. } => message.len() < 400,
            _ => false,
        };
        prop_assert!(bounded, "{}", text);
    }

    #[test]
    fn whatever_is_published_is_one_frame_of_json(bytes in any::<Vec<u8>>(), text in ".{0,100}", user in "[a-z]{1,9}") {
        for payload in [
            Payload::Binary(bytes.into()),
            Payload::Text(text.clone().into()),
            Payload::Json(json!({"event": text, "data": text}).to_string().into()),
            Payload::Json(json!(text).to_string().into()),
        ] {
            let event = told("shop:presence-a", payload, Some(&user));
            let name = event["event"].as_str().expect("a name");
            prop_assert!(check_event_name(name).is_ok());
            prop_assert_eq!(&event["channel"], "presence-a");
        }
    }
}

#[test]
fn a_list_of_members_is_no_longer_than_its_members_take() {
    let users = ["a", "a\"b\\c", "Zoë", "user 4"].map(|name| UserName::parse(name).expect("a name"));
    let infos = [None, Some(r#"{"n":"\"x\\"}"#), Some("null"), Some(r#"{"name":"Ünï"}"#)];
    let list = snapshot(users.iter().zip(infos).collect::<Vec<_>>().into_iter());
    let told = |list: String| serde_json::to_string(&list).expect("text").len();
    let empty = told(snapshot([].into_iter()));
    let members: usize = users.iter().zip(infos).map(|(user, info)| member_bytes(user, info)).sum();
    let spare = (empty + members).checked_sub(told(list)).expect("no longer");
    assert!(spare <= 3 * users.len(), "{spare} bytes too many");
}

#[test]
fn data_of_an_event_is_what_a_client_is_told() {
    let data = |payload: Payload| data_of(&payload);
    let json = |text: &'static str| Payload::Json(text.as_bytes().into());
    assert_eq!(data(json(r#"{"event":"e","data":"{\"x\":\u0031}"}"#)), r#"{"x":1}"#);
    assert_eq!(data(json(r#"{"event":"e","data":{"x":1}}"#)), r#"{"x":1}"#);
    assert_eq!(data(json(r#"{"event":"e"}"#)), "");
    assert_eq!(data(json("[1]")), "[1]");
    assert_eq!(data(Payload::Text("a\"b".into())), r#""a\"b""#);
    assert!(is_client_event(&json(r#" { "data": 1, "event": "client-x" }"#)));
    assert!(!is_client_event(&json(r#"{"event":"clients"}"#)) && !is_client_event(&Payload::Text("client-x".into())));
}

#[test]
fn a_users_channel_is_a_room_that_no_channel_is_and_reads_back() {
    for id in ["ada", "a b", "a/b?c#d%20", "Zoë 🙂", "private-a", "~", "%41", "\u{a0}"] {
        let user = UserName::parse(id).expect("a name");
        let room = user_room("shop", &user).expect("a room");
        assert!(room.as_str().starts_with("shop:~"), "{room}");
        assert!(RoomName::parse(room.as_str()).is_ok() && ChannelName::parse(channel_of(&room)).is_err(), "{room}");
        assert!(is_private_room(&room) && !is_presence_room(&room) && !is_cache_room(&room));
        assert_eq!(user_of_channel(&shown_channel_of(&room)), Some(id));
    }
    assert_eq!(user_of_channel("server-to-user-ada"), None);
    let room = |name| RoomName::parse(name).expect("a name");
    // Rooms of the namespace that somebody else has made.
    assert_eq!(shown_channel_of(&room("shop:~a%zz%4")), "#server-to-user-a%zz%4");
    assert_eq!(shown_channel_of(&room("shop:a~b%41")), "a~b%41");
    assert!(user_room("shop", &UserName::parse(&" ".repeat(100)).expect("a name")).is_err(), "escaped it is too long");
}

#[test]
fn users_sign_in_with_an_id_that_is_text() {
    let read = |data: &str| MemberData::of_user(data, 10);
    let user = read(r#"{"id":"ada","user_info":{"a":1},"watchlist":["bea"]}"#).expect("a user");
    assert_eq!((user.user.as_str(), &*user.info), ("ada", r#"{"a":1}"#));
    assert_eq!(&*read(r#"{"id":"ada"}"#).expect("a user").info, "null");
    for bad in ["", "[]", "{}", r#"["ada"]"#, r#"{"id":7}"#, r#"{"id":""}"#, r#"{"id":null}"#, r#"{"id":"a\nb"}"#] {
        assert!(read(bad).is_err(), "{bad}");
    }
    assert!(read(r#"{"id":"ada","user_info":"1234567890"}"#).is_err());
    assert!(read(&format!(r#"{{"id":"{}"}}"#, "x".repeat(129))).is_err());
}
