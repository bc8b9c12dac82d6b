//! permessage-deflate (RFC 7692) over the wire: what is agreed, what comes compressed, what goes out so. The other side
//! is another implementation of DEFLATE.

use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress_to_output, create_comp_flags_from_zip_params};
use miniz_oxide::inflate::decompress_to_vec;
use serde_json::{Value, json};

use crate::support::{Answer, Frame, Raw, TestNode, frame, handshake, request, wait_until};

/// FIN, RSV1 and the opcode: a compressed text in one frame.
const DEFLATED_TEXT: u8 = 0xc1;

/// Every message that becomes shorter is compressed.
const ON: &str = "compression.mode = \"on\"";

async fn offer(node: &TestNode, path: &str, offers: &[&str]) -> (Raw, Answer) {
    let mut raw = node.raw().await;
    let lines: String = offers.iter().map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n")).collect();
    raw.send(handshake(path, node.clients, &lines).as_bytes()).await;
    let answer = raw.head().await;
    (raw, answer)
}

/// A connection that may compress.
async fn agreed(node: &TestNode, path: &str, offered: &str) -> Raw {
    let (raw, answer) = offer(node, path, &[offered]).await;
    let extensions = answer.header("sec-websocket-extensions").unwrap_or_default();
    assert!(answer.status == 101 && extensions.starts_with("permessage-deflate"), "{offered}: {answer:?}");
    raw
}

/// A client's compressor, which may refer to what it was given before.
struct Compressor(CompressorOxide);

impl Compressor {
    fn new() -> Self {
        Self(CompressorOxide::new(create_comp_flags_from_zip_params(6, -15, 0)))
    }

    fn deflate(&mut self, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress_to_output(&mut self.0, message, TDEFLFlush::Sync, |bytes| {
            out.extend_from_slice(bytes);
            true
        });
        out.truncate(out.len() - 4);
        out
    }
}

fn deflate(message: &[u8]) -> Vec<u8> {
    Compressor::new().deflate(message)
}

/// What a compressed payload stands for, by itself: the gateway never refers to what it sent before.
fn inflate(payload: &[u8]) -> Vec<u8> {
    decompress_to_vec(&[payload, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat()).expect("a deflate stream")
}

/// The text of a frame, compressed or not.
fn text(frame: &Frame) -> String {
    match frame.first {
        DEFLATED_TEXT => String::from_utf8(inflate(&frame.payload)).expect("UTF-8"),
        _ => frame.text().to_owned(),
    }
}

#[tokio::test]
async fn offers_are_answered_as_the_rfc_says() {
    let node = TestNode::dev("");
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let windowed = format!("{both}; server_max_window_bits=12");
    let unknown = "permessage-deflate; unknown";
    for (offers, expected) in [
        (&["permessage-deflate; client_max_window_bits"][..], Some(both)),
        (&["permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"], Some(&windowed)),
        (&["x-other", "permessage-deflate; server_max_window_bits=8, permessage-deflate"], Some(both)),
        (&[unknown, "permessage-deflate; client_no_context_takeover=1"], None),
        (&["x-webkit-deflate-frame"], None),
    ] {
        for path in ["/ws", "/echo", "/room/a", "/room/a?format=text&join_newline=1"] {
            let (mut raw, answer) = offer(&node, path, offers).await;
            assert_eq!(
                (answer.status, answer.header("sec-websocket-extensions")),
                (101, expected),
                "{path} {offers:?}"
            );
            raw.send(&frame(0x88, b"")).await;
        }
    }
    for malformed in ["permessage-deflate;", "permessage-deflate; a=\"b c\"", "perm essage"] {
        let (mut raw, mut answer) = offer(&node, "/ws", &["permessage-deflate", malformed]).await;
        answer.body = raw.take(answer.header("content-length").unwrap().parse().unwrap()).await;
        answer.expect_problem(400, "bad_handshake");
    }

    let node = TestNode::dev("compression.mode = \"off\"");
    let (mut raw, answer) = offer(&node, "/echo", &["permessage-deflate"]).await;
    assert_eq!((answer.status, answer.header("sec-websocket-extensions")), (101, None));
    raw.send(&frame(DEFLATED_TEXT, &deflate(b"hello"))).await;
    assert_eq!(raw.closed().await, (1002, "reserved bits are set".to_owned()));
    let (_raw, answer) = offer(&node, "/echo", &["permessage-deflate;"]).await;
    assert_eq!(answer.status, 400, "malformed, wanted or not");
}

#[tokio::test]
async fn compressed_messages_are_understood_in_any_split() {
    let node = TestNode::dev(ON);
    let mut raw = agreed(&node, "/echo", "permessage-deflate").await;
    let hello = "hé 房间 🎺 ".repeat(100);
    let payload = deflate(hello.as_bytes());
    let (front, back) = payload.split_at(payload.len() / 2);
    let stream = [
        frame(DEFLATED_TEXT, &payload),
        // In parts, with a ping between them, and an empty part at the end.
        frame(0x41, front),
        frame(0x89, b"ping"),
        frame(0x00, back),
        frame(0x80, b""),
        // Plain ones stand between compressed ones.
        frame(0x81, b"plain"),
        frame(DEFLATED_TEXT, &deflate(b"")),
        frame(DEFLATED_TEXT, &[0x00]),
        // RFC 7692 section 7.2.3: an uncompressed block, a final block, and two blocks.
        frame(DEFLATED_TEXT, &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00]),
        frame(DEFLATED_TEXT, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
        frame(DEFLATED_TEXT, &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00]),
    ]
    .concat();
    for size in [stream.len(), 7, 1] {
        for part in stream.chunks(size) {
            raw.send(part).await;
        }
        let echo = raw.frame().await;
        assert!(echo.first == DEFLATED_TEXT && echo.payload.len() < hello.len() / 2, "in parts of {size}: {echo:?}");
        assert_eq!(text(&echo), hello);
        assert_eq!(raw.frame().await, Frame { first: 0x8a, payload: b"ping".to_vec() });
        for expected in [&hello[..], "plain", "", "", "Hello", "Hello", "Hello"] {
            assert_eq!(text(&raw.frame().await), expected, "in parts of {size}");
        }
    }
    // Binary messages too.
    raw.send(&frame(0xc2, &deflate(&[0xff; 5_000]))).await;
    let echo = raw.frame().await;
    assert_eq!((echo.first, inflate(&echo.payload)), (0xc2, vec![0xff; 5_000]));
}

#[tokio::test]
async fn what_is_not_worth_it_goes_plain() {
    let node = TestNode::dev("compression.threshold_bytes = 100");
    let mut raw = agreed(&node, "/echo", "permessage-deflate").await;
    for (length, first) in [(99, 0x81), (100, DEFLATED_TEXT)] {
        raw.send(&frame(0x81, &vec![b'x'; length])).await;
        assert_eq!(raw.frame().await.first, first, "{length} bytes");
    }
    let mut plain = node.upgrade("/echo").await;
    plain.send(&frame(0x81, &[b'x'; 1_000])).await;
    assert_eq!(plain.frame().await.first, 0x81, "not offered");
}

#[tokio::test]
async fn compressed_messages_that_break_the_rules() {
    let node = TestNode::dev("");
    let bomb = deflate(&vec![b'x'; 16 << 20]);
    assert!(bomb.len() < 65_536, "{} bytes pass the limit of a frame", bomb.len());
    let truncated = deflate(&b"How do you do? ".repeat(50));
    let cases = [
        ("a bomb", frame(DEFLATED_TEXT, &bomb), 1009, "message_too_big"),
        ("one byte too much", frame(DEFLATED_TEXT, &deflate(&[b'x'; 65_537])), 1009, "message_too_big"),
        ("announced too long", frame(DEFLATED_TEXT, &vec![0; 73_793])[..14].to_vec(), 1009, "message_too_big"),
        ("no deflate data", frame(DEFLATED_TEXT, &[0xff; 30]), 1007, "bad_deflate"),
        ("cut off", frame(DEFLATED_TEXT, &truncated[..truncated.len() - 3]), 1007, "bad_deflate"),
        ("not UTF-8", frame(DEFLATED_TEXT, &deflate(b"caf\xe9")), 1007, "bad_utf8"),
        ("a compressed ping", frame(0xc9, &deflate(b"x")), 1002, "protocol_error"),
        ("again on a later frame", [frame(0x41, b""), frame(0xc0, b"")].concat(), 1002, "protocol_error"),
        ("another reserved bit", frame(0xe1, &deflate(b"x")), 1002, "protocol_error"),
    ];
    for (what, bytes, code, label) in cases {
        let reasons = format!("fanfare_closes_total{{reason=\"{label}\"}}");
        let before = node.metric(&reasons).await;
        let mut raw = agreed(&node, "/echo", "permessage-deflate").await;
        raw.send(&bytes).await;
        let (told, reason) = raw.closed().await;
        assert_eq!(told, code, "{what}: {reason}");
        node.wait_for_metric(&reasons, before + 1.0).await;
    }
    // The largest message that is allowed.
    let mut raw = agreed(&node, "/echo", "permessage-deflate").await;
    raw.send(&frame(DEFLATED_TEXT, &deflate(&[b'x'; 65_536]))).await;
    assert_eq!(text(&raw.frame().await).len(), 65_536);
}

#[tokio::test]
async fn messages_that_inflate_to_much_are_read_in_parts_and_all() {
    let node = TestNode::dev("");
    let mut raw = agreed(&node, "/echo", "permessage-deflate").await;
    // A few hundred bytes each, two megabytes in all, in less than one read; each with its number.
    let messages: Vec<String> = (0..500).map(|n| format!("{n}{}", " ".repeat(4_000))).collect();
    let stream: Vec<u8> = messages.iter().flat_map(|m| frame(DEFLATED_TEXT, &deflate(m.as_bytes()))).collect();
    assert!(stream.len() < 32_768, "{} bytes", stream.len());
    raw.send(&stream).await;
    for message in &messages {
        assert_eq!(text(&raw.frame().await), *message);
    }
}

#[tokio::test]
async fn a_message_may_refer_to_former_ones_where_that_was_agreed() {
    let node = TestNode::dev("compression.client_context_takeover = true");
    let former = b"the quick brown fox jumps over the lazy dog, twice";
    let (mut raw, answer) = offer(&node, "/echo", &["permessage-deflate"]).await;
    let extensions = answer.header("sec-websocket-extensions");
    assert_eq!(extensions, Some("permessage-deflate; server_no_context_takeover"));
    let mut compressor = Compressor::new();
    let (first, second) = (compressor.deflate(former), compressor.deflate(former));
    assert!(second.len() < first.len() / 2, "it refers to the first");
    for payload in [&first, &second, &compressor.deflate(former)] {
        raw.send(&frame(DEFLATED_TEXT, payload)).await;
        // Plain messages are not part of what is referred to.
        raw.send(&frame(0x81, b"plain")).await;
        assert_eq!(text(&raw.frame().await).as_bytes(), former);
        assert_eq!(raw.frame().await.text(), "plain");
    }
    // Not to another connection's, nor where the client said that it would not.
    for offered in ["permessage-deflate", "permessage-deflate; client_no_context_takeover"] {
        let mut raw = agreed(&node, "/echo", offered).await;
        raw.send(&frame(DEFLATED_TEXT, &second)).await;
        assert_eq!(raw.closed().await.0, 1007, "{offered}");
    }
    let mut raw = agreed(&node, "/echo", "permessage-deflate; client_no_context_takeover").await;
    raw.send(&[frame(DEFLATED_TEXT, &first), frame(DEFLATED_TEXT, &second)].concat()).await;
    assert_eq!(text(&raw.frame().await).as_bytes(), former);
    assert_eq!(raw.closed().await.0, 1007);
}

#[tokio::test]
async fn a_publication_reaches_everybody_each_as_agreed() {
    // On one of two shards, as the kernel deals them out.
    let node = TestNode::dev("");
    let windows = ["", "; server_max_window_bits=13", "; server_max_window_bits=10"];
    let mut deflated = Vec::new();
    for window in windows {
        for _ in 0..4 {
            deflated.push(agreed(&node, "/room/a", &format!("permessage-deflate{window}")).await);
        }
    }
    let mut joined = agreed(&node, "/room/a?format=text&join_newline=1", "permessage-deflate").await;
    let mut plain = Vec::new();
    for path in ["/room/a", "/room/a?format=text"] {
        plain.push(node.upgrade(path).await);
    }
    let mut rooms = agreed(&node, "/ws", "permessage-deflate").await;
    assert_eq!(rooms.frame().await.first, 0x81, "welcome is plain");
    rooms.send(&frame(DEFLATED_TEXT, &deflate(br#"{"name":"subscribe","room":"a"}"#))).await;
    assert!(rooms.frame().await.text().contains("subscribed"));
    wait_until("all to be in", async || node.occupancy("a") == 16).await;

    // The numbers come again after some 2,000 bytes, out of reach of the smallest window.
    let message: Value =
        (0..200).map(|n: u64| json!({ "id": (n % 60 + 1).pow(5) * 7_919, "text": "How do you?" })).collect();
    let body = json!({ "room": "a", "message": message }).to_string();
    let answer = request(node.admin, "POST", "/api/publish", &[("content-type", "application/json")], &body).await;
    assert_eq!((answer.status, &answer.json()["delivered"]), (200, &json!(16)));

    let expected = json!({ "name": "message", "message": message });
    let mut payloads = Vec::new();
    for raw in &mut deflated {
        let frame = raw.frame().await;
        assert_eq!(frame.first, DEFLATED_TEXT);
        let said: Value = serde_json::from_str(&text(&frame)).expect("JSON");
        assert_eq!(said, expected);
        payloads.push(frame.payload);
    }
    for same in payloads.chunks(4) {
        assert!(same.iter().all(|payload| *payload == same[0]), "one frame for all who agreed on the same");
    }
    assert!(payloads[8].len() > payloads[0].len(), "a smaller window, a longer frame");
    let said = text(&rooms.frame().await);
    assert!(said.contains(r#""room":"a""#), "{said}");
    assert_eq!(serde_json::from_str::<Value>(plain[0].frame().await.text()).expect("JSON"), expected);
    for raw in [&mut plain[1], &mut joined] {
        assert_eq!(serde_json::from_str::<Value>(raw.frame().await.text()).expect("JSON"), message);
    }
}

#[tokio::test]
async fn what_compression_saves_is_counted_once_for_all() {
    let node = TestNode::dev(ON);
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(agreed(&node, "/room/a", "permessage-deflate").await);
    }
    wait_until("all to be in the room", async || node.occupancy("a") == 3).await;
    let command = json!({"name": "publish", "message": "How do you do? ".repeat(100)}).to_string();
    let compressed = deflate(command.as_bytes());
    listeners[0].send(&frame(DEFLATED_TEXT, &compressed)).await;
    let mut wire = 0;
    let mut plain = 0;
    for listener in &mut listeners {
        let told = listener.frame().await;
        assert_eq!(told.first, DEFLATED_TEXT);
        (wire, plain) = (told.payload.len(), inflate(&told.payload).len());
    }
    for (sample, value) in [
        ("messages_total{side=\"received\"}", 1),
        ("plain_bytes_total{side=\"received\"}", command.len()),
        ("wire_bytes_total{side=\"received\"}", compressed.len()),
        ("messages_total{side=\"sent\"}", 1),
        ("plain_bytes_total{side=\"sent\"}", plain),
        ("wire_bytes_total{side=\"sent\"}", wire),
    ] {
        node.wait_for_metric(&format!("fanfare_compressed_{sample}"), value as f64).await;
    }
}

#[tokio::test]
async fn who_sends_little_that_inflates_to_much_keeps_nobody_waiting() {
    const MESSAGES: usize = 1_200;
    let node = TestNode::dev("shards = 1");
    let mut bomber = agreed(&node, "/ws", "permessage-deflate").await;
    let mut listener = node.enter("a", "").await;
    // Each is a hundred bytes or two on the wire and almost the longest message there may be. Fields that nobody knows are passed over.
    let padding = "x".repeat(65_000);
    let command = json!({"name": "publish", "room": "a", "message": 1, "padding": padding}).to_string();
    let bytes = frame(DEFLATED_TEXT, &deflate(command.as_bytes())).repeat(MESSAGES);
    let bomb = tokio::spawn(async move {
        bomber.send(&bytes).await;
        bomber
    });
    // Asks, and asks again when it is answered, as long as messages come.
    let (mut told, mut answers) = (0, 0);
    while told < MESSAGES {
        let event = listener.json().await;
        let is_answer = event["name"] == "pong";
        (told, answers) = if is_answer { (told, answers + 1) } else { (told + 1, answers) };
        if is_answer || told == 1 {
            listener.say(json!({"name": "ping"})).await;
        }
    }
    // Were one read done with in one go, there would be as many turns as reads: three or four.
    assert!(answers > 20, "{answers} answers while {MESSAGES} messages were inflated");
    drop(bomb.await.expect("all was sent"));
}
