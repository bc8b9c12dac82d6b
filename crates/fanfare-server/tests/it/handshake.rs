//! The door: which handshakes are let in, and what the others are told. Bytes are written by hand.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::{Answer, Raw, TestNode, frame, handshake, request, within};

/// Answer to `key` as RFC 6455 section 1.3 works it out for its sample.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The head of the answer to these bytes; of a refusal the body too. `{host}` stands for the listener's address.
async fn ask(node: &TestNode, text: &str) -> Answer {
    let mut raw = node.raw().await;
    raw.send(text.replace("{host}", &node.clients.to_string()).as_bytes()).await;
    let mut answer = raw.head().await;
    if let Some(length) = answer.header("content-length").filter(|_| !text.starts_with("HEAD ")) {
        answer.body = raw.take(length.parse().expect("a length")).await;
    }
    answer
}

/// A handshake out of its lines, each ended as HTTP wants it.
fn lines(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\r\n")).collect::<String>() + "\r\n"
}

const GET: &str = "GET /ws HTTP/1.1";
const HOST: &str = "Host: {host}";
const UPGRADE: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: Upgrade";
const VERSION: &str = "Sec-WebSocket-Version: 13";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

#[tokio::test]
async fn a_right_handshake_is_answered_to_the_letter() {
    let node = TestNode::dev("");
    let answer = ask(&node, &lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, KEY])).await;
    assert_eq!(answer.status, 101);
    for (name, value) in [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", ACCEPT)] {
        let values: Vec<_> = answer.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).collect();
        assert_eq!(values.len(), 1, "{name} in {answer:?}");
        assert!(values[0].1.eq_ignore_ascii_case(value), "{name} in {answer:?}");
    }
    assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
    // What was not offered is not selected.
    for name in ["sec-websocket-protocol", "sec-websocket-extensions", "content-length", "transfer-encoding"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn handshakes_are_read_as_http_is_written() {
    let node = TestNode::dev("");
    for handshake in [
        // Lists, in any case, over several lines.
        lines(&[GET, HOST, "Upgrade: WebSocket", "Connection: keep-alive, UPGRADE", VERSION, KEY]),
        lines(&[GET, HOST, "Upgrade: h2c, websocket", "Connection: keep-alive", "Connection: upgrade", VERSION, KEY]),
        lines(&[GET, HOST, "Upgrade: h2c", "Upgrade: websocket", "Connection: ,Upgrade ,, TE", VERSION, KEY]),
        // Names in any case, white space around values.
        lines(&[
            GET,
            "hOST:{host}",
            "UPGRADE:\twebsocket \t",
            "connection:   Upgrade",
            "sec-websocket-version:13",
            "SEC-WEBSOCKET-KEY:  dGhlIHNhbXBsZSBub25jZQ==  ",
        ]),
        // The target as proxies write it; a query.
        lines(&["GET http://{host}/ws HTTP/1.1", HOST, UPGRADE, CONNECTION, VERSION, KEY]),
        lines(&["GET http://{host}/ws?a=b HTTP/1.1", HOST, UPGRADE, CONNECTION, VERSION, KEY]),
        lines(&["GET /ws?a=b&&=&c HTTP/1.1", HOST, UPGRADE, CONNECTION, VERSION, KEY]),
        // No body is no body.
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, KEY, "Content-Length: 0"]),
        // Extensions that are offered need not be taken (deflate.rs has those that are); an absent origin is no page's.
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, KEY, "Sec-WebSocket-Extensions: x-unknown; a=1"]),
    ] {
        let answer = ask(&node, &handshake).await;
        assert_eq!((answer.status, answer.header("sec-websocket-accept")), (101, Some(ACCEPT)), "{handshake}");
        assert_eq!(answer.header("sec-websocket-extensions"), None);
    }
    node.wait_for_metric("fanfare_handshakes_total{result=\"accepted\"}", 9.0).await;
}

#[tokio::test]
async fn malformed_handshakes_are_400() {
    let node = TestNode::dev("");
    let cases = [
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION]),
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, KEY, KEY]),
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, "Sec-WebSocket-Key:"]),
        // 15 bytes, 17 bytes, no base64, another alphabet.
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"]),
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWU="]),
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, "Sec-WebSocket-Key: the sample nonce, plainly"]),
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, "Sec-WebSocket-Key: ____________________AA=="]),
        lines(&[GET, HOST, UPGRADE, CONNECTION, KEY]),
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, VERSION, KEY]),
        lines(&[GET, HOST, CONNECTION, VERSION, KEY]),
        lines(&[GET, HOST, "Upgrade: h2c", CONNECTION, VERSION, KEY]),
        lines(&[GET, HOST, "Upgrade: websockets", CONNECTION, VERSION, KEY]),
        lines(&[GET, HOST, UPGRADE, VERSION, KEY]),
        lines(&[GET, HOST, UPGRADE, "Connection: keep-alive", VERSION, KEY]),
        lines(&[GET, HOST, UPGRADE, "Connection: upgraded", VERSION, KEY]),
        lines(&["GET /ws HTTP/1.0", HOST, UPGRADE, CONNECTION, VERSION, KEY]),
        lines(&[GET, UPGRADE, CONNECTION, VERSION, KEY]),
        lines(&[GET, HOST, HOST, UPGRADE, CONNECTION, VERSION, KEY]),
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, KEY, "Content-Length: 5"]) + "hello",
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, KEY, "Transfer-Encoding: chunked"]) + "0\r\n\r\n",
        // Subprotocols are tokens; what is none is not sent back.
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, KEY, "Sec-WebSocket-Protocol: chat room"]),
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, KEY, "Sec-WebSocket-Protocol: chat, <b>"]),
        lines(&[GET, HOST, UPGRADE, CONNECTION, VERSION, KEY, "Sec-WebSocket-Protocol: chät"]),
    ];
    for handshake in &cases {
        let answer = ask(&node, handshake).await;
        assert_eq!(answer.status, 400, "{handshake}");
        answer.expect_problem(400, "bad_handshake");
    }
    let counted = node.metric("fanfare_handshakes_total{result=\"malformed\"}").await;
    assert_eq!(counted, cases.len() as f64);
    assert_eq!(node.metric("fanfare_handshakes_total{result=\"accepted\"}").await, 0.0);
    assert_eq!(node.metric("fanfare_connections").await, 0.0);
}

#[tokio::test]
async fn what_is_no_http_is_400_too() {
    let node = TestNode::dev("");
    for bytes in [
        "hello\r\n\r\n",
        "GET /ws\r\n\r\n",
        "GET  HTTP/1.1\r\n\r\n",
        "GET /ws HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /ws HTTP/9.9\r\nHost: a\r\n\r\n",
        "GET /w\u{1}s HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}",
    ] {
        let mut raw = node.raw().await;
        raw.send(bytes.as_bytes()).await;
        raw.answer().await.expect_problem(400, "bad_request");
        raw.end().await;
    }
    // A head that is one, with a body whose length nobody can tell.
    let lengths = "POST /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(ask(&node, lengths).await.status, 400);
    node.connect("/ws").await.event("welcome").await;
}

#[tokio::test]
async fn a_plain_get_is_told_to_upgrade() {
    let node = TestNode::dev("");
    for path in ["/ws", "/room/a", "/room/a?format=text", "/echo", "/helloworld"] {
        let answer = request(node.clients, "GET", path, &[], "").await;
        answer.expect_problem(426, "upgrade_required");
        assert_eq!(answer.header("upgrade"), Some("websocket"), "{path}");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("WebSocket")), "{path}");
    }
    // No handshake was tried, so none is counted.
    assert_eq!(node.metric("fanfare_handshakes_total{result=\"malformed\"}").await, 0.0);
}

#[tokio::test]
async fn another_version_is_told_the_one_spoken_here() {
    let node = TestNode::dev("");
    for version in ["8", "0", "14", "130", "1", "13, 8", "thirteen"] {
        let version_line = format!("Sec-WebSocket-Version: {version}");
        let answer = ask(&node, &lines(&[GET, HOST, UPGRADE, CONNECTION, &version_line, KEY])).await;
        answer.expect_problem(426, "upgrade_required");
        assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{version}");
    }
}

#[tokio::test]
async fn a_refused_client_may_try_again_on_the_same_connection() {
    let node = TestNode::dev("");
    let mut raw = node.raw().await;
    raw.send(format!("GET /ws HTTP/1.1\r\nHost: {}\r\n\r\n", node.clients).as_bytes()).await;
    raw.answer().await.expect_problem(426, "upgrade_required");
    raw.send(format!("GET /nowhere HTTP/1.1\r\nHost: {}\r\n\r\n", node.clients).as_bytes()).await;
    raw.answer().await.expect_problem(404, "not_found");
    raw.send(handshake("/echo", node.clients, "").as_bytes()).await;
    assert_eq!(raw.head().await.status, 101);
    raw.send(&frame(0x81, b"in")).await;
    assert_eq!(raw.frame().await.text(), "in");
}

#[tokio::test]
async fn frames_that_come_with_the_handshake_are_not_lost() {
    let node = TestNode::dev("");
    let handshake = handshake("/echo", node.clients, "");
    let frames = [frame(0x81, b"one"), frame(0x89, b"two"), frame(0x82, &[3; 300])].concat();
    let whole = [handshake.as_bytes(), &frames].concat();
    // All in one write; cut within the handshake, within a frame's header, within its payload.
    for cut in [0, 10, handshake.len() - 2, handshake.len(), handshake.len() + 1, whole.len() - 40] {
        let mut raw = node.raw().await;
        raw.send(&whole[..cut]).await;
        if cut >= handshake.len() {
            assert_eq!(raw.head().await.status, 101);
            raw.send(&whole[cut..]).await;
        } else {
            raw.send(&whole[cut..]).await;
            assert_eq!(raw.head().await.status, 101);
        }
        let mut got = Vec::new();
        for _ in 0..3 {
            let frame = raw.frame().await;
            got.push((frame.first, frame.payload.len()));
        }
        assert_eq!(got, [(0x81, 3), (0x8a, 3), (0x82, 300)], "cut at {cut}");
    }
}

/// Requests that come in one write are answered in turn; the last of them upgrades, and what followed it are its frames.
#[tokio::test]
async fn a_handshake_may_follow_other_requests_at_once() {
    // A body that somebody reads: behind one that is left unread, and that has not come whole, a connection is not used again.
    let node = TestNode::dev("[api]\non_client_listener = true");
    let host = node.clients;
    let page = format!("GET /nowhere HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let body = "x".repeat(12_000);
    let text = "Content-Type: text/plain\r\nContent-Length: 12000";
    let post = format!("POST /api/publish?room=a HTTP/1.1\r\nHost: {host}\r\n{text}\r\n\r\n{body}");
    let frames = [frame(0x81, b"one"), frame(0x82, &[3; 30_000]), frame(0x81, b"three")].concat();
    let mut raw = node.raw().await;
    raw.send(&[page.as_bytes(), post.as_bytes(), handshake("/echo", host, "").as_bytes(), &frames].concat()).await;
    raw.answer().await.expect_problem(404, "not_found");
    assert_eq!(raw.answer().await.status, 200);
    assert_eq!(raw.head().await.status, 101);
    assert_eq!(raw.frame().await.text(), "one");
    assert_eq!(raw.frame().await.payload, [3; 30_000]);
    assert_eq!(raw.frame().await.text(), "three");
}

/// Whoever waits for the answer is woken once. Were there two writes, one of so many readers would meet the first alone.
#[tokio::test]
async fn the_answer_and_the_first_words_come_in_one_write() {
    let node = TestNode::dev("");
    let clients = node.clients;
    for (path, words) in [("/ws", "welcome"), ("/room/a?since=0000000000000000:0", "subscribed")] {
        let reader = tokio::task::spawn_blocking(move || {
            for _ in 0..200 {
                let mut socket = std::net::TcpStream::connect(clients).expect("a listener");
                socket.write_all(handshake(path, clients, "").as_bytes()).expect("a socket");
                let mut first = vec![0; 4_096];
                let read = socket.read(&mut first).expect("an answer");
                let first = String::from_utf8_lossy(&first[..read]);
                assert!(first.starts_with("HTTP/1.1 101 "), "{path}: {first:?}");
                assert!(first.contains(&format!("\"name\":\"{words}\"")), "{path}: {first:?}");
            }
        });
        within("the answers", reader).await.expect("no panic");
    }
}

/// The end of the client's side may come with the handshake itself, and is told by the system only once.
#[tokio::test]
async fn who_says_no_more_than_the_handshake_is_seen_to_have_left() {
    let node = TestNode::dev("");
    let clients = node.clients;
    let coming = tokio::task::spawn_blocking(move || {
        let come = |_| {
            let mut socket = std::net::TcpStream::connect(clients).expect("a listener");
            socket.write_all(handshake("/room/a", clients, "").as_bytes()).expect("a socket");
            socket.shutdown(Shutdown::Write).expect("a socket");
            socket
        };
        (0..200).map(come).collect::<Vec<_>>()
    });
    let _sockets = within("all to come", coming).await.expect("no panic");
    node.wait_for_metric(r#"fanfare_closes_total{reason="connection_lost"}"#, 200.0).await;
    assert_eq!(node.metric("fanfare_connections").await, 0.0);
}

#[tokio::test]
async fn a_handshake_may_come_byte_by_byte() {
    let node = TestNode::dev("");
    let mut raw = node.raw().await;
    for byte in handshake("/echo", node.clients, "").as_bytes() {
        raw.send(&[*byte]).await;
    }
    assert_eq!(raw.head().await.status, 101);
    raw.send(&frame(0x81, b"in")).await;
    assert_eq!(raw.frame().await.text(), "in");
}

// ---- origins ----

async fn status_with_origins(node: &TestNode, origins: &[&str]) -> u16 {
    let origins: String = origins.iter().map(|origin| format!("Origin: {origin}\r\n")).collect();
    let answer = ask(node, &handshake("/ws", node.clients, &origins)).await;
    if answer.status != 101 {
        answer.expect_problem(403, "origin_not_allowed");
    }
    answer.status
}

#[tokio::test]
async fn by_default_pages_of_the_same_host_alone_may_connect() {
    let node = TestNode::serve("");
    let host = node.clients.to_string();
    let port = node.clients.port();
    assert_eq!(status_with_origins(&node, &[]).await, 101);
    assert_eq!(status_with_origins(&node, &[&format!("http://{host}")]).await, 101);
    let misses = [
        format!("http://{host}.evil.example"),
        format!("http://evil.example/{host}"),
        format!("http://{host}@evil.example"),
        format!("http://evil.example:{port}"),
        format!("http://x{host}"),
        format!("http://127.0.0.1:{}", port ^ 1),
        format!("http://{host}/"),
        format!("http://{host} "),
        format!("http://localhost:{port}"),
        "http://127.0.0.1".to_owned(),
        host.clone(),
        format!("//{host}"),
        "null".to_owned(),
        "*".to_owned(),
        "https://evil.example".to_owned(),
    ];
    let mut refused = 0.0;
    for miss in &misses {
        // White space at the end of a header line is none of its value (RFC 9110 section 5.5).
        if miss.ends_with(' ') {
            assert_eq!(status_with_origins(&node, &[miss]).await, 101);
            continue;
        }
        assert_eq!(status_with_origins(&node, &[miss]).await, 403, "{miss}");
        refused += 1.0;
    }
    assert_eq!(status_with_origins(&node, &[""]).await, 403, "an empty origin");
    let own = format!("http://{host}");
    assert_eq!(status_with_origins(&node, &[&own, "https://evil.example"]).await, 403, "two origins");
    assert_eq!(node.metric("fanfare_handshakes_total{result=\"origin\"}").await, refused + 2.0);
}

#[tokio::test]
async fn further_origins_can_be_allowed() {
    let node = TestNode::serve(r#"origins = ["https://app.example", "*.example.org"]"#);
    for allowed in ["https://app.example", "https://APP.example:443", "https://a.example.org", "http://a.b.example.org"]
    {
        assert_eq!(status_with_origins(&node, &[allowed]).await, 101, "{allowed}");
    }
    for refused in [
        "http://app.example",
        "https://app.example:8443",
        "https://app.example.evil",
        "https://xapp.example",
        "https://x.app.example",
        "https://example.org",
        "https://evilexample.org",
        "https://a.example.org.evil",
        "https://.example.org",
        "null",
    ] {
        assert_eq!(status_with_origins(&node, &[refused]).await, 403, "{refused}");
    }
    let open = TestNode::serve(r#"origins = ["*"]"#);
    for origin in ["https://anything.example", "null", ""] {
        assert_eq!(status_with_origins(&open, &[origin]).await, 101, "{origin:?}");
    }
}

// ---- paths, methods, parameters ----

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_refused_in_a_handshake_too() {
    let node = TestNode::dev("");
    for path in ["/", "/nowhere", "/WS", "/ws/a", "/room"] {
        let answer = ask(&node, &handshake(path, node.clients, "")).await;
        assert_ne!(answer.status, 101, "{path}");
        if path != "/" {
            answer.expect_problem(404, "not_found");
        }
    }
    for method in ["POST", "PUT", "HEAD", "CONNECTION", "get"] {
        let answer = ask(&node, &handshake("/ws", node.clients, "").replacen("GET", method, 1)).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{method}");
    }
}

#[tokio::test]
async fn head_of_the_page_has_its_headers_and_no_body() {
    let node = TestNode::dev("");
    let get = request(node.clients, "GET", "/", &[], "").await;
    let head = request(node.clients, "HEAD", "/", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()));
    assert_eq!(head.header("content-type"), get.header("content-type"));
}

#[tokio::test]
async fn parameters_that_cannot_be_honoured_are_refused() {
    let node = TestNode::dev("");
    for (path, status, code) in [
        ("/ws?format=text", 400, "bad_request"),
        ("/ws?format=xml", 400, "bad_request"),
        ("/room/a?format=", 400, "bad_request"),
        ("/room/a?since=yesterday", 400, "bad_request"),
        ("/ws?name=x", 400, "bad_name"),
        ("/ws?name=xxxxxxxxxxxxxxxxxxxxx", 400, "bad_name"),
        ("/ws?name=a%0Ab", 400, "bad_name"),
    ] {
        ask(&node, &handshake(path, node.clients, "")).await.expect_problem(status, code);
    }
}

#[tokio::test]
async fn the_first_subprotocol_offered_is_selected() {
    let node = TestNode::dev("");
    for (offered, selected) in [
        ("chat", "chat"),
        ("chat, superchat", "chat"),
        (" v2.fanfare ,v1.fanfare", "v2.fanfare"),
        ("a\r\nSec-WebSocket-Protocol: b", "a"),
    ] {
        let answer =
            ask(&node, &handshake("/ws", node.clients, &format!("Sec-WebSocket-Protocol: {offered}\r\n"))).await;
        assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, Some(selected)), "{offered}");
    }
    // The entry that carries a token is selected only where it stands alone: a browser wants one of those it offered.
    for (offered, selected) in [("fanfare.token.abc, chat", "chat"), ("fanfare.token.abc", "fanfare.token.abc")] {
        let offer = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        let answer = ask(&node, &handshake("/ws", node.clients, &offer)).await;
        assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, Some(selected)), "{offered}");
    }
}

// ---- bounds ----

#[tokio::test]
async fn a_head_over_its_bound_is_431() {
    let node = TestNode::dev("limits.header_bytes_max = 8192\nlimits.handshake_headers_max = 20");
    let fits = format!("X-Padding: {}\r\n", "x".repeat(7_000));
    assert_eq!(ask(&node, &handshake("/ws", node.clients, &fits)).await.status, 101);
    let too_long = format!("X-Padding: {}\r\n", "x".repeat(9_000));
    ask(&node, &handshake("/ws", node.clients, &too_long)).await.expect_problem(431, "header_bytes_max");
    let too_many: String = (0..30).map(|number| format!("X-{number}: x\r\n")).collect();
    ask(&node, &handshake("/ws", node.clients, &too_many)).await.expect_problem(431, "header_bytes_max");
    // One that never ends is refused as soon as it is too long.
    let mut raw = node.raw().await;
    raw.send(format!("GET /ws HTTP/1.1\r\nX-Padding: {}", "x".repeat(9_000)).as_bytes()).await;
    raw.answer().await.expect_problem(431, "header_bytes_max");
    raw.end().await;
    // What follows a head is none of it.
    let mut raw = node.raw().await;
    let long = frame(0x81, &[b'x'; 20_000]);
    raw.send(&[handshake("/echo", node.clients, "").as_bytes(), &long].concat()).await;
    assert_eq!(raw.head().await.status, 101);
    assert_eq!(raw.frame().await.payload.len(), 20_000);
}

#[tokio::test]
async fn who_does_not_finish_the_handshake_in_time_is_cut_off() {
    // It does not end a client that is in, which has to come in within that time itself.
    const LIMIT: Duration = Duration::from_millis(1_500);
    let node = TestNode::dev("limits.handshake_ms_max = 1500");
    let mut inside = node.upgrade("/echo").await;
    let begun = Instant::now();
    let whole = handshake("/ws", node.clients, "");
    let cut_off = join_all([0, 1, 40, whole.len() - 1].map(|sent| {
        let part = whole[..sent].to_owned();
        let node = &node;
        async move {
            let mut raw = node.raw().await;
            raw.send(part.as_bytes()).await;
            expect_refusal_or_end(&mut raw).await;
            begun.elapsed()
        }
    }));
    let trickling = async {
        let mut raw = node.raw().await;
        // So long that it would take minutes.
        let long = handshake("/ws", node.clients, &format!("X-Padding: {}\r\n", "x".repeat(10_000)));
        let mut bytes = long.bytes();
        // A byte now and then is not enough.
        while tokio::time::timeout(Duration::from_millis(20), raw.stream.readable()).await.is_err() {
            raw.send(&[bytes.next().expect("it is cut off before the handshake is whole")]).await;
        }
        expect_refusal_or_end(&mut raw).await;
        begun.elapsed()
    };
    let (cut_off, trickled) = tokio::join!(cut_off, trickling);
    for elapsed in cut_off.into_iter().chain([trickled]) {
        assert!(elapsed >= LIMIT - Duration::from_millis(10), "cut off after {elapsed:?} already");
    }
    inside.send(&frame(0x81, b"still in")).await;
    assert_eq!(inside.frame().await.text(), "still in");
}

/// Nothing but a 408 may be said before the end.
async fn expect_refusal_or_end(raw: &mut Raw) {
    let rest = raw.rest().await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408 "), "{:?}", String::from_utf8_lossy(&rest));
}
