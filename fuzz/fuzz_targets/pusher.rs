//! The Pusher dialect. Clients' frames are read as another parser reads them; names of channels keep their rules and decide who may enter; a call
//! of an application is believed exactly when all of it was signed; what is told is JSON, and nobody speaks in the gateway's name.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use fanfare_edge::fuzzing::{PublicIds, decoded, refused_protocol, sent_events, signed_call};
use fanfare_fuzz::Data;
use fanfare_guard::ApplicationKey;
use fanfare_protocol::pusher::{
    ChannelName, ChannelRefusal, EVENT_CHARS_MAX, MemberData, PusherCommand, PusherReply, is_presence_room,
    is_private_room, snapshot,
};
use fanfare_protocol::wire::Message;
use fanfare_protocol::{
    Action, Dialect, ErrorCode, Event, MessageLimits, Mode, Payload, Position, Published, RoomEvent, RoomName, Session,
    UserName, Variant,
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use libfuzzer_sys::fuzz_target;
use md5::{Digest as _, Md5};
use serde_json::Value;
use serde_json::value::RawValue;

const SECRET: &[u8] = b"the secret of an application";
const NOW: u64 = 1_795_180_000;
static KEY: LazyLock<ApplicationKey> = LazyLock::new(|| ApplicationKey::new("k7", SECRET));
/// Has signed nothing that exists: whatever holds under it is forged.
static UNUSED: LazyLock<ApplicationKey> =
    LazyLock::new(|| ApplicationKey::new("k7", format!("{:032x}", std::process::id()).as_bytes()));
static SIGNING: LazyLock<EncodingKey> = LazyLock::new(|| EncodingKey::from_secret(SECRET));
static IDS: LazyLock<PublicIds> = LazyLock::new(|| PublicIds::new([7; 32]));

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    match data.byte() % 8 {
        0 => frames(data.0),
        1 => composed(&mut data),
        2 => channel(&mut data),
        3 | 4 => call(&mut data),
        5 => forged(&mut data),
        6 => told(&mut data),
        _ => outside(&mut data),
    }
});

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Text of some length.
fn text(data: &mut Data<'_>) -> String {
    let length = usize::from(data.byte());
    lossy(data.take(length))
}

type Fields<'a> = BTreeMap<String, &'a RawValue>;

fn string(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).expect("a string")
}

/// What a client sends, whatever it is.
fn frames(bytes: &[u8]) {
    let mut session = Session::new(Mode::App(0), Dialect::Pusher);
    for message in bytes.split(|&byte| byte == 0) {
        let Ok(text) = str::from_utf8(message) else { continue };
        match session.handle(Message::Text(text), &MessageLimits::default()) {
            Action::Pusher(command) => check(text, &command),
            Action::Refuse { code, message, id } => {
                assert!(code == ErrorCode::BadMessage && id.0.is_none());
                assert!(message.len() < 1_024, "a refusal repeats {} bytes", message.len());
                let mut frame = Vec::new();
                Dialect::Pusher.encode_event(&Event::Error { code, message: &message, id }, true, &mut frame);
                let told = object(&frame);
                let data: Fields<'_> = serde_json::from_str(told["data"].get()).expect("an object");
                assert_eq!((string(told["event"]).as_str(), string(data["message"])), ("pusher:error", message));
            }
            other => panic!("{other:?} in the Pusher dialect"),
        }
    }
}

/// A command is what another parser finds in the same text.
fn check(text: &str, command: &PusherCommand<'_>) {
    let fields: Fields<'_> = serde_json::from_str(text).expect("an object");
    let event = string(fields["event"]);
    let inner_text;
    let mut inner = Fields::new();
    if matches!(event.as_str(), "pusher:subscribe" | "pusher:unsubscribe" | "pusher:signin") {
        let raw = fields["data"].get();
        inner_text = if raw.starts_with('"') { string(fields["data"]) } else { raw.to_owned() };
        inner = serde_json::from_str(&inner_text).expect("an object");
    }
    let part = |name: &str| inner.get(name).and_then(|raw| serde_json::from_str::<Option<String>>(raw.get()).ok()?);
    match command {
        PusherCommand::Ping => assert_eq!(event, "pusher:ping"),
        PusherCommand::Pong => assert_eq!(event, "pusher:pong"),
        PusherCommand::Subscribe { channel, auth, channel_data } => {
            assert_eq!((event.as_str(), Some(channel)), ("pusher:subscribe", part("channel").as_ref()));
            assert_eq!(*auth, part("auth").filter(|auth| !auth.is_empty()));
            assert_eq!(*channel_data, part("channel_data"));
            not_subscribed(channel);
        }
        PusherCommand::Unsubscribe { channel } => {
            assert_eq!((event.as_str(), Some(channel)), ("pusher:unsubscribe", part("channel").as_ref()));
        }
        PusherCommand::SignIn { auth, user_data } => {
            assert_eq!(event, "pusher:signin");
            assert_eq!((Some(auth), Some(user_data)), (part("auth").as_ref(), part("user_data").as_ref()));
        }
        PusherCommand::ClientEvent { event: said, channel, data } => {
            assert!(said.starts_with("client-") && said.chars().count() <= EVENT_CHARS_MAX);
            assert_eq!((&event, channel), (said, &string(fields["channel"])));
            assert_eq!(*data, fields.get("data").map(|raw| raw.get()), "byte for byte");
            assert!(data.is_none_or(|data| text.as_bytes().as_ptr_range().contains(&data.as_ptr())), "borrowed");
            let Ok(Ok(room)) = ChannelName::parse(channel).map(|name| name.room("app")) else { return };
            let data = data.map_or(String::new(), |data| format!(",\"data\":{data}"));
            let payload = format!("{{\"event\":{}{data}}}", serde_json::to_string(said).expect("a string"));
            let frame = published(&room, Payload::Json(payload.into()));
            let told = object(&frame);
            assert_eq!((string(told["event"]), string(told["channel"])), (event, channel.clone()));
            assert_eq!(told.get("data").map(|raw| raw.get()), fields.get("data").map(|raw| raw.get()));
        }
    }
}

/// Names of channels that are none come back as they were written.
fn not_subscribed(channel: &str) {
    let mut frame = Vec::new();
    PusherReply::NotSubscribed { channel, refusal: ChannelRefusal::BadName, error: channel }.encode(&mut frame);
    assert_eq!(string(object(&frame)["channel"]), channel);
}

/// A command as a library would write it is read as it was meant.
fn composed(data: &mut Data<'_>) {
    let kind = data.byte();
    let (channel, word, more) = (text(data), text(data), text(data));
    let quoted = |text: &str| serde_json::to_string(text).expect("a string");
    let object = format!(
        "{{\"channel\":{},\"auth\":{},\"user_data\":{more},\"channel_data\":{more}}}",
        quoted(&channel),
        quoted(&word),
        more = quoted(&more)
    );
    let inner = if kind & 0x10 == 0 { object } else { quoted(&object) };
    let (event, expected) = match kind % 4 {
        0 => {
            let auth = Some(word).filter(|word| !word.is_empty());
            ("pusher:subscribe", PusherCommand::Subscribe { channel, auth, channel_data: Some(more) })
        }
        1 => ("pusher:unsubscribe", PusherCommand::Unsubscribe { channel }),
        2 => ("pusher:signin", PusherCommand::SignIn { auth: word, user_data: more }),
        _ => ("pusher:ping", PusherCommand::Ping),
    };
    let frame = format!("{{\"event\":\"{event}\",\"data\":{inner}}}");
    let mut session = Session::new(Mode::App(0), Dialect::Pusher);
    match session.handle(Message::Text(&frame), &MessageLimits::default()) {
        Action::Pusher(command) => assert_eq!(command, expected, "{frame}"),
        other => panic!("{frame} is {other:?}"),
    }
}

/// A name of a channel, and the room that it is.
fn channel(data: &mut Data<'_>) {
    let prefix = data.pick(&["", "", "private-", "presence-", "cache-", "private-encrypted-", "private-cache-"]);
    let name = format!("{prefix}{}", lossy(data.0));
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-=@,.;".contains(c);
    let is_name = (1..=200).contains(&name.chars().count()) && name.chars().all(is_allowed);
    let channel = ChannelName::parse(&name);
    assert_eq!(channel.is_ok(), is_name, "{name:?}");
    let Ok(channel) = channel else { return };
    let kind = name.split_once('-').map_or("", |(kind, _)| kind);
    assert_eq!(
        (channel.is_presence(), channel.needs_auth()),
        (kind == "presence", ["private", "presence"].contains(&kind))
    );
    let caches = ["", "private-", "private-encrypted-", "presence-"];
    let is_cache = name.split_once("cache-").is_some_and(|(front, _)| caches.contains(&front));
    assert_eq!(channel.is_cache(), is_cache, "{name}");
    let room = channel.room("app").expect("a room's name may be longer");
    assert_eq!(room.as_str(), format!("app:{name}"));
    assert_eq!((is_presence_room(&room), is_private_room(&room)), (channel.is_presence(), channel.needs_auth()));
    not_subscribed(&name);
}

/// A call that is signed, nearly as the protocol asks for. It holds exactly when it was.
fn call(data: &mut Data<'_>) {
    let kind = data.byte();
    let method = ["POST", "GET"][usize::from(kind & 1)];
    let path = data.pick(&["/apps/1/events", "/apps/1/channels/presence-a/users", "/apps/1/channels/%61"]);
    let at = if kind & 2 == 0 { NOW } else { NOW - 0x8000 + data.number() as u64 };
    let body_length = usize::from(data.byte() % 32);
    let body = data.take(body_length);
    let mut pairs = vec![
        ("auth_key".to_owned(), "k7".to_owned()),
        ("auth_timestamp".to_owned(), at.to_string()),
        ("auth_version".to_owned(), "1.0".to_owned()),
        ("body_md5".to_owned(), md5(body)),
    ];
    for _ in 0..data.byte() % 4 {
        let name = data.pick(&["info", "filter_by_prefix", "auth_key", "BODY_md5", ""]);
        let name = if name.is_empty() { text(data) } else { name.to_owned() };
        let pair = (name, text(data));
        match data.byte() {
            place @ 0..=3 => pairs[usize::from(place)] = pair,
            place @ 4..=7 if pairs.len() > 4 => _ = pairs.remove(usize::from(place - 4)),
            _ => pairs.push(pair),
        }
    }
    let message = message(method, path, &pairs);
    let signature = sign(message.as_bytes(), &SIGNING, Algorithm::HS256).expect("a signature");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    let place = usize::from(data.byte()) % (pairs.len() + 1);
    pairs.insert(place, ("auth_signature".to_owned(), hex(&signature)));
    let query = written(&pairs, data);

    let once = |name: &str| {
        let mut found = pairs.iter().filter(|(own, _)| own.to_lowercase() == name).map(|(_, value)| value.as_str());
        (found.next(), found.next().is_none())
    };
    let is_near = |at: &str| at.parse::<u64>().is_ok_and(|at| at.abs_diff(NOW) <= 600);
    let holds = once("auth_key") == (Some("k7"), true)
        && once("auth_version") == (Some("1.0"), true)
        && matches!(once("auth_timestamp"), (Some(at), true) if is_near(at))
        && once("auth_signature").1
        && (once("body_md5") == (Some(&*md5(body)), true) || (body.is_empty() && once("body_md5").0.is_none()));
    let ruling = |method: &str, path: &str, query: &str, body: &[u8]| {
        signed_call(&KEY, (method, path, Some(query)), body, Duration::from_secs(NOW))
    };
    assert_eq!(ruling(method, path, &query, body).is_ok(), holds, "{query} {:?}", ruling(method, path, &query, body));
    if !holds {
        return;
    }
    // What is read of it is what was signed.
    for name in ["info", "filter_by_prefix"] {
        let Some(value) = decoded(&query, name).0 else { continue };
        assert!(pairs.iter().any(|(own, signed)| own == name && *signed == value), "{name}={value} is not signed");
    }
    assert!(ruling("PUT", path, &query, body).is_err(), "another method");
    assert!(ruling(method, &format!("{path}/x"), &query, body).is_err(), "another path");
    assert!(ruling(method, path, &format!("{query}&x=1"), body).is_err(), "more parameters");
    assert!(ruling(method, path, &query, &[body, b" "].concat()).is_err(), "another body");
}

/// What an application signs.
fn message(method: &str, path: &str, pairs: &[(String, String)]) -> String {
    let mut pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
    pairs.retain(|(name, _)| name != "auth_signature");
    pairs.sort();
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    [method, path, &pairs.join("&")].join("\n")
}

/// A query that says so, with more escapes than it needs.
fn written(pairs: &[(String, String)], data: &mut Data<'_>) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        let escapes = data.byte();
        for (part, end) in [(name, '='), (value, '&')] {
            for (index, byte) in part.bytes().enumerate() {
                match byte {
                    b' ' if escapes & 1 == 0 => query.push('+'),
                    _ if byte.is_ascii_alphanumeric() && (index > 7 || escapes >> index & 1 == 0) => {
                        query.push(char::from(byte));
                    }
                    _ => query.push_str(&format!("%{byte:02x}")),
                }
            }
            query.push(end);
        }
    }
    query
}

fn md5(body: &[u8]) -> String {
    hex(&Md5::digest(body))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nothing that nobody signed holds.
fn forged(data: &mut Data<'_>) {
    let length = usize::from(data.byte());
    let body = data.take(length);
    let query = format!("auth_key=k7&auth_timestamp={NOW}&auth_version=1.0&body_md5={}&{}", md5(body), lossy(data.0));
    for query in [query.as_str(), &lossy(data.0)] {
        let now = Duration::from_secs(NOW);
        signed_call(&UNUSED, ("POST", "/apps/1/events", Some(query)), body, now).expect_err("nobody signed this");
    }
}

/// Publications of any kind, and members, as clients are told them.
fn told(data: &mut Data<'_>) {
    let room = RoomName::parse_made(data.pick(&["app:presence-a", "app:a", "app"])).expect("a valid name");
    let kind = data.byte();
    let payload = Bytes::copy_from_slice(data.0);
    let text = str::from_utf8(data.0);
    match (kind % 4, text) {
        (0, Ok(text)) if serde_json::from_str::<&RawValue>(text).is_ok() => {
            let event = string(object(&published(&room, Payload::Json(payload)))["event"]);
            assert!(!event.starts_with("pusher:") && !event.starts_with("pusher_internal:"), "in our name: {event}");
        }
        (1, Ok(text)) => {
            let frame = published(&room, Payload::Text(payload));
            let said: String = serde_json::from_str(&string(object(&frame)["data"])).expect("a string in a string");
            assert_eq!(said, text);
        }
        (2, Ok(text)) => member(&room, text),
        _ => assert_eq!(string(object(&published(&room, Payload::Binary(payload)))["event"]), "binary"),
    }
}

fn member(room: &RoomName, channel_data: &str) {
    const INFO_BYTES_MAX: usize = 100;
    let Ok(MemberData { user, info }) = MemberData::read(channel_data, INFO_BYTES_MAX) else { return };
    let fields: Fields<'_> = serde_json::from_str(channel_data).expect("an object");
    let id = fields["user_id"];
    let id = if id.get().starts_with('"') { string(id) } else { id.get().to_owned() };
    assert_eq!(user.as_str(), id);
    assert_eq!(&*info, fields.get("user_info").filter(|raw| raw.get() != "null").map_or("null", |raw| raw.get()));
    assert!(info.len() <= INFO_BYTES_MAX);
    let mut frame = Vec::new();
    Variant::Pusher.encode(&RoomEvent::MemberJoined(room.clone(), user.clone(), info.clone()), &mut frame);
    assert_eq!(frame.is_empty(), !is_presence_room(room));
    if !frame.is_empty() {
        let data = string(object(&frame)["data"]);
        let data: Fields<'_> = serde_json::from_str(&data).expect("an object in a string");
        assert_eq!((string(data["user_id"]), data["user_info"].get()), (id.clone(), &*info));
    }
    let other = UserName::parse("somebody").expect("a valid name");
    let all = snapshot([(&user, Some(&*info)), (&other, None)].into_iter());
    let all: Fields<'_> = serde_json::from_str(&all).expect("an object");
    let all: Fields<'_> = serde_json::from_str(all["presence"].get()).expect("an object");
    assert_eq!(
        (all["count"].get(), serde_json::from_str(all["ids"].get()).ok()),
        ("2", Some(vec![id.clone(), other.as_str().to_owned()]))
    );
    let hash: Fields<'_> = serde_json::from_str(all["hash"].get()).expect("an object");
    assert!(hash[&id].get() == &*info || id == other.as_str());
}

/// Ids of connections, bodies of events, versions of the protocol.
fn outside(data: &mut Data<'_>) {
    match data.byte() % 4 {
        0 => {
            let connection = [data.number() as u32, data.number() as u32, data.number() as u32 * 0x1_0001];
            let app = u32::from(data.byte());
            let id = IDS.of(app, connection);
            assert_eq!(IDS.read(app, &id), (true, Some(connection)));
            assert_eq!(IDS.read(app + 1, &id), (true, None), "it is of another application");
            let text = lossy(data.0);
            let (_, found) = IDS.read(app, &text);
            assert!(found.is_none_or(|found| IDS.of(app, found) == text), "two ids of one connection: {text}");
        }
        1 => {
            let query = lossy(data.0);
            let Some(version) = decoded(&query, "protocol").0 else {
                return assert_eq!(refused_protocol(Some(&query)), Some(4008));
            };
            let is_spoken = ["5", "6", "7"].contains(&version.trim_start_matches('0'));
            assert_eq!(refused_protocol(Some(&query)).is_none(), is_spoken, "{version}");
        }
        kind => body(data.0, kind == 2),
    }
}

fn body(bytes: &[u8], is_batch: bool) {
    let events = match sent_events(bytes, is_batch) {
        Ok(events) => events,
        Err(status) => return assert_eq!(status, 400),
    };
    // Numbers out of range are passed over.
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let values = if is_batch { value["batch"].as_array().expect("a list").clone() } else { vec![value] };
    assert_eq!(events.len(), values.len());
    for ((name, data, channels), value) in events.iter().zip(&values) {
        assert_eq!(Some(name.as_str()), value["name"].as_str());
        assert_eq!(serde_json::from_str::<Value>(data).ok().as_ref(), value.get("data"));
        let named = match &value["channels"] {
            Value::Array(named) => named.iter().map(|name| name.as_str().expect("a string").to_owned()).collect(),
            _ => value["channel"].as_str().map(str::to_owned).into_iter().collect::<Vec<_>>(),
        };
        assert_eq!(*channels, named);
    }
}

/// A publication as one frame.
fn published(room: &RoomName, payload: Payload) -> Vec<u8> {
    let position = Position { epoch: 1, offset: 7 };
    let published = Published { position, offset: Some(7), user: None, payload };
    let mut frame = Vec::new();
    Variant::Pusher.encode(&RoomEvent::Message(room.clone(), published), &mut frame);
    frame
}

/// The fields of exactly one final, unmasked text frame.
fn object(frame: &[u8]) -> Fields<'_> {
    assert_eq!(frame[0], 0x81, "a final text frame");
    let header = match frame[1] {
        0..=125 => 2,
        126 => 4,
        127 => 10,
        masked => panic!("server frames are not masked: {masked:#x}"),
    };
    let length = frame[2..header].iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    assert_eq!(frame.len() - header, if header == 2 { frame[1].into() } else { length }, "one frame and nothing else");
    serde_json::from_slice(&frame[header..]).expect("JSON")
}
