//! 8 to 10: every end counted, the page, and the protocol to the letter.

use super::*;

#[tokio::test]
async fn t8_every_connection_is_counted_closed_once_whatever_its_end() {
    let node = TestNode::dev("limits.message_bytes_max = 1000");
    let mut opened = 0.0;
    let mut raw = async |path: &str| {
        opened += 1.0;
        node.upgrade(path).await
    };
    // The client closes; the answer echoes the code.
    let mut client = raw("/ws").await;
    client.send(&close_frame(1000, "done")).await;
    client.frame().await;
    // It closes and is gone before the answer.
    let mut client = raw("/room/a").await;
    client.send(&close_frame(1001, "")).await;
    drop(client);
    // It closes twice, and goes on talking.
    let mut client = raw("/echo").await;
    client.send(&[close_frame(1000, ""), frame(0x81, b"more"), close_frame(1001, "")].concat()).await;
    assert_eq!(client.closed().await.0, 1000);
    client.end().await;
    // Ends without a word: the socket ends, or is reset.
    drop(raw("/room/a").await);
    raw("/echo").await.stream.set_zero_linger().unwrap();
    // Breaks the protocol, and does so again while it is being closed.
    let mut client = raw("/ws").await;
    client.send(&[frame(0xf1, b""), frame(0xf1, b"")].concat()).await;
    client.frame().await;
    assert_eq!(client.closed().await.0, 1002);
    client.send(&frame(0xf1, b"")).await;
    client.end().await;
    // Sends too much at once; is closed by its own wish; and by another's.
    let mut client = raw("/echo").await;
    client.send(&frame(0x82, &[0; 1_001])).await;
    assert_eq!(client.closed().await.0, 1009);
    let mut client = raw("/helloworld").await;
    client.send(&frame(0x81, b"close")).await;
    assert_eq!(client.closed().await.0, 1000);
    let mut client = raw("/room/b").await;
    client.send(&frame(0x81, br#"{"name":"close"}"#)).await;
    assert_eq!(client.frame().await.text(), r#"{"name":"room_closed"}"#);
    // Both ends close at the same time.
    client.send(&close_frame(1000, "")).await;
    assert_eq!(client.closed().await.0, 4410);
    client.end().await;

    node.wait_for_metric("fanfare_handshakes_total{result=\"accepted\"}", opened).await;
    wait_until("all to be counted", async || all_closes(&node).await == opened).await;
    assert_eq!(node.metric("fanfare_connections").await, 0.0);
    for (reason, count) in [
        ("client_closed", 3.0),
        ("connection_lost", 2.0),
        ("protocol_error", 1.0),
        ("message_too_big", 1.0),
        ("left", 1.0),
        ("room_closed", 1.0),
    ] {
        let counted = node.metric(&format!("fanfare_closes_total{{reason=\"{reason}\"}}")).await;
        assert_eq!(counted, count, "{reason}");
    }
    assert_eq!(opened, 9.0);
}

/// The closes of all reasons.
async fn all_closes(node: &TestNode) -> f64 {
    let page = request(node.admin, "GET", "/metrics", &[], "").await;
    let closes = page.text().lines().filter(|line| line.starts_with("fanfare_closes_total{"));
    closes.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn t9_the_page_is_served_and_needs_nothing_from_elsewhere() {
    let node = TestNode::dev("");
    let answer = request(node.clients, "GET", "/", &[], "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let page = answer.text();
    for id in ["room", "name", "message", "send", "log", "status"] {
        assert!(page.contains(&format!("id=\"{id}\"")), "no #{id}");
    }
    for elsewhere in ["src=\"http", "href=\"http", "src=\"//", "href=\"//", "url(http", "url(//", "@import"] {
        assert!(!page.contains(elsewhere), "{elsewhere} in the page");
    }
    // Parameters are the page's own affair.
    assert_eq!(request(node.clients, "GET", "/?room=a&name=Ada", &[], "").await.text(), page);

    let without = TestNode::serve("diagnostics.page = false");
    request(without.clients, "GET", "/", &[], "").await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn t10_text_is_utf_8_and_control_frames_are_answered() {
    let node = TestNode::dev("");
    let mut client = node.connect("/echo").await;
    client.send("Κόσμε 🎺 \u{10ffff}").await;
    assert_eq!(client.text().await, "Κόσμε 🎺 \u{10ffff}");
    client.send(Message::Ping("are you there".into())).await;
    let pong = futures_util::StreamExt::next(&mut client.socket).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("are you there".into()));
    // A pong nobody asked for is taken without a word.
    client.send(Message::Pong("unasked".into())).await;
    client.send("next").await;
    assert_eq!(client.text().await, "next");

    let mut raw = node.upgrade("/echo").await;
    raw.send(&frame(0x81, b"caf\xe9")).await;
    assert_eq!(raw.closed().await, (1007, "text is not UTF-8".to_owned()));
}

#[tokio::test]
async fn t10_the_close_handshake_echoes_the_code() {
    let node = TestNode::dev("");
    for code in [1000, 1001, 1003, 1011, 3000, 4999] {
        let mut client = node.connect("/ws").await;
        client.event("welcome").await;
        client.socket.close(Some(CloseFrame { code: code.into(), reason: "enough".into() })).await.unwrap();
        assert_eq!(client.closed().await.0, code);
    }
    node.wait_for_metric("fanfare_closes_total{reason=\"client_closed\"}", 6.0).await;
}

#[tokio::test]
async fn t10_a_message_over_the_limit_is_refused_and_one_at_it_is_not() {
    let node = TestNode::dev("limits.message_bytes_max = 1000");
    let mut client = node.connect("/echo").await;
    client.send("x".repeat(1_000)).await;
    assert_eq!(client.text().await.len(), 1_000);
    client.send("x".repeat(1_001)).await;
    assert_eq!(client.closed().await, (1009, "message over 1000 bytes".to_owned()));

    // Over its fragments, too, and at the announcement rather than after the bytes.
    let mut raw = node.upgrade("/echo").await;
    raw.send(&[frame(0x01, &[b'x'; 600]), frame(0x00, &[b'x'; 401])[..8].to_vec()].concat()).await;
    assert_eq!(raw.closed().await.0, 1009);
    node.wait_for_metric("fanfare_closes_total{reason=\"message_too_big\"}", 2.0).await;
}

#[tokio::test]
async fn t10_another_origin_is_refused_by_default() {
    let node = TestNode::dev("");
    let refused = Client::try_connect(node.clients, "/ws", &[("Origin", "https://evil.example")]).await;
    let Err(Error::Http(response)) = refused.map(drop) else { panic!("a foreign page was let in") };
    assert_eq!(response.status(), 403);
    let own = format!("http://{}", node.clients);
    assert!(Client::try_connect(node.clients, "/ws", &[("Origin", &own)]).await.is_ok());
}

#[tokio::test]
async fn t10_what_follows_the_handshake_in_the_same_write_is_not_lost() {
    let node = TestNode::dev("");
    let mut raw = Raw::open(node.clients).await;
    raw.send(&[handshake("/echo", node.clients, "").as_bytes(), &frame(0x81, b"early")].concat()).await;
    assert_eq!(raw.head().await.status, 101);
    assert_eq!(raw.frame().await.text(), "early");
    tokio::time::timeout(Duration::from_millis(1), raw.frame()).await.expect_err("nothing more was said");
}
