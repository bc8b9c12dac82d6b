//! 1 to 3: echo, hello world, commands.

use super::*;

#[tokio::test]
async fn t1_echo_returns_text_and_binary_byte_for_byte() {
    let node = TestNode::dev("");
    let mut client = node.connect("/echo").await;
    for length in [0, 1, 125, 126, 1_000, 65_535, 65_536] {
        let bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
        client.send(bytes.clone()).await;
        assert_eq!(client.binary().await, bytes, "{length} bytes of binary");
        let text: String = "aé房🎺\0\u{7f}".chars().cycle().take(length / 4).collect();
        client.send(text.clone()).await;
        assert_eq!(client.text().await, text, "{length} bytes of text");
    }
    // Several under way at once come back in their order.
    for number in 0..100 {
        client.send(number.to_string()).await;
    }
    for number in 0..100 {
        assert_eq!(client.text().await, number.to_string());
    }
    client.close().await;
}

#[tokio::test]
async fn t1_clients_that_close_abort_and_reconnect_leave_nothing_behind() {
    let address = "127.0.0.1:0";
    let program = Process::fanfare(&["dev", "--listen", address, "--admin", address, "--shards", "2"], &[]);
    let (clients, admin) = program.addresses();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", program.pid())).expect("a living process").count();
    let closes = async || {
        let closed = metric(admin, "fanfare_closes_total{reason=\"client_closed\"}").await;
        (closed, metric(admin, "fanfare_closes_total{reason=\"connection_lost\"}").await)
    };
    // The first round is not looked at: while it runs the program is still opening descriptors of its own.
    come_and_go_quickly(clients, 100).await;
    wait_until("each to be counted once", async || closes().await == (25.0, 75.0)).await;
    let before = descriptors();
    come_and_go_quickly(clients, 200).await;
    wait_until("each to be counted once", async || closes().await == (75.0, 225.0)).await;
    assert_eq!(metric(admin, "fanfare_handshakes_total{result=\"accepted\"}").await, 300.0);
    assert_eq!(metric(admin, "fanfare_connections").await, 0.0);
    wait_until("their descriptors to be closed", async || descriptors() <= before).await;
    // And it still does its work.
    let mut client = Client::connect(clients, "/echo").await;
    client.send("still here").await;
    assert_eq!(client.text().await, "still here");
}

/// So many clients one after the other; a quarter each closes, just ends, and is reset in the middle of an echo and at once.
async fn come_and_go_quickly(clients: SocketAddr, count: usize) {
    for number in 0..count {
        let mut client = Client::connect(clients, "/echo").await;
        match number % 4 {
            0 => client.close().await,
            1 => drop(client),
            2 => {
                client.send("x".repeat(10_000)).await;
                client.socket.get_ref().set_zero_linger().unwrap();
            }
            _ => client.socket.get_ref().set_zero_linger().unwrap(),
        }
    }
}

#[tokio::test]
async fn t1_a_plain_get_is_refused_with_a_clear_status() {
    let node = TestNode::dev("");
    let answer = request(node.clients, "GET", "/echo", &[], "").await;
    answer.expect_problem(426, "upgrade_required");
    assert_eq!(answer.header("upgrade"), Some("websocket"));
}

#[tokio::test]
async fn t1_and_t2_are_off_unless_asked_for() {
    let node = TestNode::serve("");
    for path in ["/echo", "/helloworld"] {
        request(node.clients, "GET", path, &[], "").await.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn t2_hello_world() {
    let node = TestNode::dev("");
    let mut client = node.connect("/helloworld").await;
    for (said, answered) in [
        ("helloworld", "Hello World"),
        ("HelloWorld", "unknown command"),
        ("helloworld ", "unknown command"),
        ("", "unknown command"),
        ("helloworld", "Hello World"),
    ] {
        client.send(said).await;
        assert_eq!(client.text().await, answered, "{said:?}");
    }
    client.send("close").await;
    assert_eq!(client.closed().await.0, 1000);
}

#[tokio::test]
async fn t3_an_unknown_command_is_answered_and_the_connection_kept() {
    let node = TestNode::dev("");
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    let error = client.ask(json!({"name": "fly", "id": 7})).await;
    assert_eq!((&error["name"], &error["code"], &error["id"]), (&json!("error"), &json!("unknown_command"), &json!(7)));
    assert!(error["message"].as_str().unwrap().contains("fly"), "{error}");
    client.expect_nothing().await;
    client.subscribe("lobby").await;
    client.say(json!({"name": "publish", "room": "lobby", "message": {"name": "greeting", "message": "hi"}})).await;
    assert_eq!(client.event("message").await["message"], json!({"name": "greeting", "message": "hi"}));
}
