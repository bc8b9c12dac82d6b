//! Requests as HTTP has them: mistakes, reuse, bodies, Unix sockets, callers that hang up.

use super::*;

#[tokio::test]
async fn what_is_wrong_with_a_request_has_a_stable_code() {
    let node = TestNode::dev("[limits]\nmessage_bytes_max = 1000");
    let publish = "/api/publish";
    let fits = "x".repeat(998);
    let body = format!(r#"{{"room":"a","message":"{fits}"}}"#);
    assert_eq!(request(node.admin, "POST", publish, &[], &body).await.status, 200, "exactly 1000 bytes");
    let over = format!(r#"{{"room":"a","message":"{fits}x"}}"#);
    let huge = "x".repeat(6_000);
    let cases: &[(&str, &str, &str, u16, &str)] = &[
        ("POST", publish, "", 400, "bad_json"),
        ("POST", publish, "{", 400, "bad_json"),
        ("POST", publish, "hello", 400, "bad_json"),
        ("POST", publish, r#"{"room":"a","message":1} x"#, 400, "bad_json"),
        ("POST", publish, r#"{"room":"a","message":tru}"#, 400, "bad_json"),
        ("POST", publish, "null", 422, "bad_request"),
        ("POST", publish, "[]", 422, "bad_request"),
        ("POST", publish, "[", 400, "bad_json"),
        ("POST", publish, r#"["a",1,null,null]"#, 422, "bad_request"),
        ("POST", publish, r#"{"room":"a"}"#, 422, "bad_request"),
        ("POST", publish, r#"{"message":1}"#, 422, "bad_request"),
        ("POST", publish, r#"{"room":1,"message":1}"#, 422, "bad_request"),
        ("POST", publish, r#"{"room":"a","message":1,"mesage":1}"#, 422, "bad_request"),
        ("POST", publish, r#"{"room":"a","room":"b","message":1}"#, 422, "bad_request"),
        ("POST", publish, r#"{"room":"","message":1}"#, 422, "bad_room"),
        ("POST", publish, r#"{"room":"a/b","message":1}"#, 422, "bad_room"),
        ("POST", publish, r#"{"room":"a","message":1,"idempotency_key":""}"#, 422, "bad_idempotency_key"),
        ("POST", publish, r#"{"room":"a","message":1,"idempotency_key":7}"#, 422, "bad_request"),
        ("POST", "/api/batch", r#"{"publish":[["a",1,null,null]]}"#, 422, "bad_request"),
        ("POST", publish, &over, 413, "too_large"),
        ("POST", publish, &huge, 413, "too_large"),
        ("POST", "/api/batch", "[1]", 422, "bad_request"),
        ("GET", publish, "", 405, "method_not_allowed"),
        ("PUT", "/api/batch", "{}", 405, "method_not_allowed"),
        ("POST", "/api/rooms", "{}", 405, "method_not_allowed"),
        ("POST", "/api/rooms/a", "{}", 405, "method_not_allowed"),
        ("GET", "/api/rooms/a%20b", "", 422, "bad_room"),
        ("GET", "/api/rooms/%FF", "", 422, "bad_room"),
        ("GET", "/api/rooms/none", "", 404, "no_room"),
        ("GET", "/api/rooms/", "", 404, "not_found"),
        ("GET", "/api/rooms/a/b/c", "", 404, "not_found"),
        ("GET", "/api/", "", 404, "not_found"),
        ("GET", "/api/nothing", "", 404, "not_found"),
    ];
    for (method, path, body, status, code) in cases {
        let answer = request(node.admin, method, path, &[], body).await;
        assert_eq!(answer.status, *status, "{method} {path} {body}: {answer:?}");
        answer.expect_problem(*status, code);
        assert_ne!(answer.json()["detail"], json!(""), "it says what to do");
        let allow = match *path {
            "/api/publish" | "/api/batch" => "POST",
            "/api/rooms" => "GET, HEAD",
            _ => "GET, HEAD, DELETE",
        };
        assert_eq!(answer.header("allow"), (*status == 405).then_some(allow), "{method} {path}");
    }
    // Not UTF-8 is not JSON.
    let mut raw = Raw::open(node.admin).await;
    let body = b"{\"room\":\"a\",\"message\":\"\xff\"}";
    raw.send(format!("POST {publish} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).await;
    raw.send(body).await;
    raw.answer().await.expect_problem(400, "bad_json");
    assert_eq!(node.metric("fanfare_published_total").await, 1.0, "nothing but the first was published");
}

#[tokio::test]
async fn a_connection_takes_request_after_request() {
    let node = TestNode::dev("[api]\non_client_listener = true");
    for address in [node.admin, node.clients] {
        let mut raw = Raw::open(address).await;
        for _ in 0..3 {
            raw.send(request_text("POST", "/api/publish?room=a", "Content-Type: text/plain\r\n", "x").as_bytes()).await;
            assert_eq!(raw.answer().await.status, 200);
            raw.send(request_text("GET", "/api/rooms/none", "", "").as_bytes()).await;
            raw.answer().await.expect_problem(404, "no_room");
        }
    }
    assert_eq!(node.metric("fanfare_published_total").await, 6.0);
}

/// Requests sent without waiting are answered each, in order (RFC 9112 section 9.3.2).
#[tokio::test]
async fn requests_may_be_sent_without_waiting_for_answers() {
    let node = TestNode::dev("");
    let mut reader = node.enter("a", "?format=text").await;
    let mut raw = Raw::open(node.admin).await;
    let mut all = String::new();
    for n in 0..50 {
        let body = n.to_string();
        all += &request_text("POST", "/api/publish?room=a", "Content-Type: text/plain\r\n", &body);
    }
    all += &request_text("GET", "/livez", "Connection: close\r\n", "");
    raw.send(all.as_bytes()).await;
    for offset in 1..=50 {
        let receipt = raw.answer().await.json();
        assert_eq!((counts(&receipt), &receipt["offset"]), ((1, 0, 0), &json!(offset)));
    }
    assert_eq!(raw.answer().await.text(), "live\n");
    raw.end().await;
    for n in 0..50 {
        assert_eq!(reader.text().await, n.to_string());
    }
}

#[tokio::test]
async fn bodies_come_in_chunks_and_after_100_continue() {
    let node = TestNode::dev("");
    let mut raw = Raw::open(node.admin).await;
    let head = "POST /api/publish HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    raw.send(head.as_bytes()).await;
    for chunk in [r#"{"room":"#, r#""a","mess"#, r#"age":1}"#] {
        raw.send(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes()).await;
    }
    raw.send(b"0\r\n\r\n").await;
    assert_eq!(raw.answer().await.status, 200);
    // curl asks first where a body is large.
    let body = r#"{"room":"a","message":2}"#;
    let (length, expect) = (body.len(), "Expect: 100-continue");
    raw.send(
        format!("POST /api/publish HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n{expect}\r\n\r\n").as_bytes(),
    )
    .await;
    assert_eq!(raw.head().await.status, 100);
    raw.send(body.as_bytes()).await;
    assert_eq!(raw.answer().await.json()["offset"], 2);
}

#[tokio::test]
async fn a_body_or_a_head_that_does_not_come_is_not_waited_for() {
    // What comes whole, at the end, has to come within that time.
    let node = TestNode::dev("[limits]\nhandshake_ms_max = 1500");
    let mut slow_body = Raw::open(node.admin).await;
    slow_body.send(b"POST /api/publish HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{\"room\":").await;
    let answer = slow_body.answer().await;
    answer.expect_problem(408, "body_timeout");
    slow_body.end().await;
    let mut slow_head = Raw::open(node.admin).await;
    slow_head.send(b"POST /api/publish HTTP/1.1\r\nHost:").await;
    // Whether 408 is said first is up to the server.
    slow_head.rest().await;
    // A body that was announced too long is refused before it comes.
    let mut long = Raw::open(node.admin).await;
    long.send(b"POST /api/publish HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999\r\n\r\n{").await;
    long.answer().await.expect_problem(413, "too_large");
    node.wait_until_ready().await;
}

/// Both listeners over Unix sockets: the same paths, the same handshake, no address to count by.
#[tokio::test]
async fn both_listeners_may_be_unix_sockets() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clients, admin) = (folder.path().join("c"), folder.path().join("a"));
    let toml = format!(
        "listen = \"unix:{}\"\nadmin = \"unix:{}\"\nshards = 2\n[limits]\nconnections_per_ip_max = 1\n\
         [drain]\ngrace_ms = 0\nwindow_ms = 0",
        clients.display(),
        admin.display()
    );
    let file = ConfigFile::new("unix.toml", toml);
    let config = Config::dev(&Flags::default(), Some(&file), &Environment::default()).expect("a configuration");
    let node = Node::start(&config).expect("a node that starts");
    let (leave, signals) = tokio::sync::mpsc::channel(1);
    let running = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(node.run(signals))
    });

    let mut sockets = Vec::new();
    for _ in 0..4 {
        let stream = UnixStream::connect(&clients).await.expect("a listener");
        let handshake = tokio_tungstenite::client_async("ws://localhost/room/a?format=text", stream);
        sockets.push(within("a handshake", handshake).await.expect("a connection").0);
    }
    let call = async |text: String| {
        let mut stream = UnixStream::connect(&admin).await.expect("a listener");
        stream.write_all(text.as_bytes()).await.expect("an open connection");
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.expect("an answer");
        answer
    };
    let rooms = || call(request_text("GET", "/api/rooms/a", "Connection: close\r\n", ""));
    crate::support::wait_until("all to be in the room", async || rooms().await.contains("\"occupancy\":4")).await;
    let headers = "Connection: close\r\nContent-Type: text/plain\r\n";
    let answer = call(request_text("POST", "/api/publish?room=a", headers, "over unix")).await;
    assert!(answer.contains("\"delivered\":4"), "{answer}");
    for socket in &mut sockets {
        let message = within("a message", socket.next()).await.expect("a message").expect("no failure");
        assert_eq!(message, Message::text("over unix"));
    }
    leave.send(()).await.expect("a node that runs");
    for socket in &mut sockets {
        let close = within("a close", socket.next()).await.expect("a close").expect("no failure");
        assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 1012), "{close:?}");
        // The library answers a close while it is read on.
        assert!(within("the end", socket.next()).await.is_none());
    }
    let ended = tokio::task::spawn_blocking(move || running.join());
    within("the node's end", ended).await.expect("a thread").expect("no panic").expect("no error");
    assert!(!clients.exists() && !admin.exists(), "the files go with the listeners");
}

/// Whoever hangs up before the answer does not know whether it was published: but it was, once and whole, or it was not.
#[tokio::test]
async fn a_caller_that_hangs_up_leaves_nothing_half_done() {
    let node = TestNode::dev("");
    let mut client: Client = node.enter("a", "?format=text").await;
    for n in 0..20 {
        let mut raw = Raw::open(node.admin).await;
        let body = n.to_string();
        raw.send(request_text("POST", "/api/publish?room=a", "Content-Type: text/plain\r\n", &body).as_bytes()).await;
        if n % 2 == 0 {
            raw.answer().await;
        } else {
            // Gone while the answer is under way, or a moment before.
            tokio::time::timeout(Duration::from_millis(1), raw.answer()).await.ok();
        }
    }
    let mut heard = BTreeSet::new();
    while heard.len() as f64 != node.metric("fanfare_published_total").await {
        let n: u64 = client.text().await.parse().expect("a number");
        assert!(heard.insert(n), "{n} was heard twice");
    }
    assert!((0..20).step_by(2).all(|n| heard.contains(&n)), "what was answered was published: {heard:?}");
    node.wait_for_metric("fanfare_delivered_total", heard.len() as f64).await;
}
