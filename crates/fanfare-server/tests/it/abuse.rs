//! What a peer may overdo that no other file asks about: one bound at a time, each with what is seen of it from outside.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{Raw, TestNode, frame, handshake, request, wait_until, within};

/// The first request of a connection is read by the shard, those that follow by a library.
#[tokio::test]
async fn the_bounds_of_a_head_hold_for_each_request() {
    let node = TestNode::dev("limits.header_bytes_max = 8192\nlimits.handshake_headers_max = 20");
    let many: String = (0..30).map(|number| format!("X-{number}: x\r\n")).collect();
    let long = format!("X-Padding: {}\r\n", "x".repeat(9_000));
    for address in [node.clients, node.admin] {
        for more in [&many, &long] {
            let mut raw = Raw::open(address).await;
            raw.send(b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n").await;
            assert_eq!(raw.answer().await.status, 404);
            raw.send(format!("GET /nothing HTTP/1.1\r\nHost: h\r\n{more}\r\n").as_bytes()).await;
            assert_eq!(raw.head().await.status, 431, "{more}");
        }
    }
}

/// What is not announced is counted as it comes.
#[tokio::test]
async fn a_body_that_does_not_end_is_refused_once_it_is_too_long() {
    let node = TestNode::dev("limits.message_bytes_max = 1024");
    let mut raw = Raw::open(node.admin).await;
    raw.send(b"POST /api/publish HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("200\r\n{}\r\n", " ".repeat(512));
    // 1,024 bytes and 4 KiB for what is around them: the eleventh chunk is over.
    raw.send(chunk.repeat(11).as_bytes()).await;
    raw.head().await;
    let mut raw = Raw::open(node.admin).await;
    let announced = 1_024 + 4_096 + 1;
    raw.send(format!("POST /api/publish HTTP/1.1\r\nHost: h\r\nContent-Length: {announced}\r\n\r\n").as_bytes()).await;
    raw.answer().await.expect_problem(413, "too_large");
}

#[tokio::test]
async fn a_message_to_a_user_over_http_has_a_longest_form_and_a_depth() {
    let node = TestNode::dev("limits.message_bytes_max = 1024");
    let send = async |message: String| {
        let body = format!(r#"{{"message":{message}}}"#);
        request(node.admin, "POST", "/api/users/ann/send", &[], &body).await
    };
    assert_eq!(send(format!("\"{}\"", "x".repeat(1_022))).await.status, 200);
    send(format!("\"{}\"", "x".repeat(1_023))).await.expect_problem(413, "too_large");
    assert_eq!(send("[".repeat(99) + &"]".repeat(99)).await.status, 200);
    send("[".repeat(100) + &"]".repeat(100)).await.expect_problem(422, "too_deep");
}

/// Compression is no way around the rate.
#[tokio::test]
async fn compressed_messages_count_like_others() {
    let node = TestNode::dev("limits.messages_per_second_max = 5");
    let mut raw = node.raw().await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    raw.send(handshake("/echo", node.clients, offer).as_bytes()).await;
    let head = raw.head().await;
    assert!(head.header("sec-websocket-extensions").is_some(), "{head:?}");
    // "Hello", as in RFC 7692 section 7.2.3.1.
    let hello = frame(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    // So many that it would take half a minute to be let send them.
    raw.send(&hello.repeat(200)).await;
    let mut echoes = 0;
    loop {
        let frame = raw.frame().await;
        if frame.first == 0x88 {
            assert_eq!(frame.payload[..2], 4429_u16.to_be_bytes());
            break;
        }
        assert_eq!(frame.text(), "Hello");
        echoes += 1;
        assert!(echoes < 200, "all of them were answered");
    }
}

/// Half a frame, and then nothing: such a client is asked whether it lives as a silent one is, and cannot say so.
#[tokio::test]
async fn who_stops_in_the_middle_of_a_message_is_closed_like_who_is_silent() {
    let node = TestNode::dev("[heartbeat]\nping_ms = 50\npong_ms = 120\nclose_ms = 50");
    let whole = frame(0x81, b"a message that is never finished");
    for sent in [1, 5, 20] {
        let mut raw = node.upgrade("/echo").await;
        raw.send(&whole[..sent]).await;
        let closed = loop {
            let frame = raw.frame().await;
            if frame.first == 0x88 {
                break frame.payload;
            }
            assert_eq!(frame.first, 0x89, "a ping");
        };
        assert_eq!(closed[..2], 4504_u16.to_be_bytes(), "{sent}");
        raw.end().await;
    }
}

/// Of an answer that does not end no more is read than a set may be long.
#[tokio::test]
async fn a_published_key_set_is_not_read_without_end() {
    const MOST: usize = 64 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let node = TestNode::serve(&format!("auth.jwks_url = \"http://{address}/keys\""));
    let (mut stream, _) = within("the node to ask", listener.accept()).await.expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a request", stream.read_u8()).await.expect("a head"));
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("an open connection");
    let spaces = vec![b' '; 64 << 10];
    let mut sent = 0;
    while within("the node to read or to end it", stream.write_all(&spaces)).await.is_ok() {
        sent += spaces.len();
        assert!(sent < MOST, "{sent} bytes were taken");
    }
    node.wait_for_metric("fanfare_jwks_fetches_total{result=\"failed\"}", 1.0).await;
}

/// Whoever is refused is told why and let go of, whether he leaves or not.
#[tokio::test]
async fn who_is_refused_and_does_not_go_is_not_waited_for() {
    let node = TestNode::dev("limits.connections_max = 1");
    let _inside = node.upgrade("/echo").await;
    let mut raw = node.raw().await;
    raw.answer().await.expect_problem(503, "connections_max");
    // Its bytes are read for a while, so that the words are not lost to a reset. Then they are not any more.
    wait_until("the socket to be closed", async || raw.stream.write_all(b"still here").await.is_err()).await;
}

/// What is queued comes near what all connections may have queued together: who is in may stay, who comes is sent elsewhere.
#[tokio::test]
async fn newcomers_are_shed_before_the_budget_is_used_up() {
    let node = TestNode::dev(
        "[limits]\nmessage_bytes_max = 8192\noutbox_bytes_max = 180000\noutbox_total_bytes_max = 200000\n\
         [heartbeat]\nclose_ms = 600000",
    );
    let mut stalled = Vec::new();
    for _ in 0..2 {
        stalled.push(Raw::stalled(node.clients, "/room/a").await);
    }
    wait_until("the stalled to be in the room", async || node.occupancy("a") == 2).await;
    let body = json!({"room": "a", "message": "x".repeat(4_000)}).to_string();
    let mut published = 0;
    while node.hub.budget().used() <= 175_000 {
        let receipt = request(node.admin, "POST", "/api/publish", &[], &body).await.json();
        assert_eq!((&receipt["delivered"], &receipt["evicted"]), (&json!(2), &json!(0)), "{receipt}");
        published += 1;
        assert!(published < 20_000, "nothing was ever queued");
    }
    let mut raw = node.raw().await;
    let answer = raw.answer().await;
    answer.expect_problem(503, "outbox_total_bytes_max");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(node.metric("fanfare_shed_total").await, 1.0);
    assert_eq!(node.metric("fanfare_evicted_total").await, 0.0, "who is in stays");
    drop(stalled);
    wait_until("newcomers to be let in again", async || node.hub.budget().used() == 0).await;
    drop(node.upgrade("/echo").await);
}
