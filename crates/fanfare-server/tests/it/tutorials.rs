//! The tutorial systems that the gateway grew from: each must work. One or more tests a system, named by its number.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::process::Process;
use crate::support::{Client, Raw, TestNode, close_frame, frame, handshake, metric, request, wait_until};

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

#[tokio::test]
async fn t4_text_rooms_reach_everyone_the_sender_included() {
    let node = TestNode::dev("");
    let mut one = node.enter("hub", "?format=text").await;
    let mut two = node.enter("hub", "?format=text").await;
    let mut elsewhere = node.enter("other", "?format=text").await;
    one.send("hello, all").await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.text().await, "hello, all");
    }
    two.send(vec![0, 255, 10]).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.binary().await, [0, 255, 10]);
    }
    // What looks like a command of the other dialect is a message here.
    two.send(r#"{"name":"close"}"#).await;
    assert_eq!(one.text().await, r#"{"name":"close"}"#);
    // The first thing heard in the other room is what is said there.
    elsewhere.send("quiet here").await;
    assert_eq!(elsewhere.text().await, "quiet here");
}

#[tokio::test]
async fn t4_queued_messages_are_joined_for_those_who_ask_for_it() {
    // On one shard everything that comes in one read is flushed as one batch.
    let node = TestNode::dev("shards = 1");
    let mut plain = node.enter("hub", "?format=text").await;
    let mut joined = node.enter("hub", "?format=text&join_newline=1").await;
    let mut sender = node.upgrade("/room/hub?format=text&join_newline=1").await;
    wait_until("three members", async || node.occupancy("hub") == 3).await;
    let burst = [frame(0x81, b"one"), frame(0x81, b"two"), frame(0x82, b"\0"), frame(0x81, b"three")];
    sender.send(&burst.concat()).await;
    for text in ["one", "two"] {
        assert_eq!(plain.text().await, text);
    }
    assert_eq!(plain.binary().await, [0]);
    assert_eq!(plain.text().await, "three");

    assert_eq!(joined.text().await, "one\ntwo");
    assert_eq!(joined.binary().await, [0]);
    assert_eq!(joined.text().await, "three");
    assert_eq!(sender.frame().await.text(), "one\ntwo");
}

#[tokio::test]
async fn t4_other_paths_and_methods_are_refused() {
    let node = TestNode::dev("");
    for path in ["/rooms", "/room", "/ws/", "/room/a/b", "/wsx", "/index.html", "/metrics", "/api/rooms"] {
        request(node.clients, "GET", path, &[], "").await.expect_problem(404, "not_found");
    }
    for path in ["/", "/ws", "/echo", "/helloworld", "/room/hub"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let answer = request(node.clients, method, path, &[], "").await;
            answer.expect_problem(405, "method_not_allowed");
            assert_eq!(answer.header("allow"), Some(if path == "/" { "GET, HEAD" } else { "GET" }), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn t5_publish_and_publish_no_self_in_a_room_by_url() {
    let node = TestNode::dev("");
    let mut one = node.enter("a", "").await;
    let mut two = node.enter("a", "").await;
    let mut other = node.enter("b", "").await;
    one.say(json!({"name": "publish", "message": "for all"})).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.json().await, json!({"name": "message", "message": "for all"}));
    }
    one.say(json!({"name": "publish_no_self", "message": "for the others"})).await;
    // Said to the gateway only; nobody gets it, so the next of everybody is the mark.
    one.say(json!({"name": "message", "message": "between us"})).await;
    one.say(json!({"name": "publish", "message": "mark"})).await;
    assert_eq!(two.event("message").await["message"], "for the others");
    assert_eq!(two.event("message").await["message"], "mark");
    assert_eq!(one.event("message").await["message"], "mark");
    other.expect_nothing().await;
}

#[tokio::test]
async fn t5_leave_tells_the_others_and_closes() {
    let node = TestNode::dev("");
    let mut leaver = node.enter("a", "?name=Ada").await;
    let mut nameless = node.enter("a", "").await;
    let mut other = node.enter("a", "?name=Bob").await;
    leaver.say(json!({"name": "leave"})).await;
    for client in [&mut nameless, &mut other] {
        assert_eq!(client.event("left").await, json!({"name": "left", "user": "Ada"}));
    }
    let closed = loop {
        match leaver.next().await {
            // It may be told that its own leave was done.
            Message::Text(text) => {
                let event: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(event["name"], "unsubscribed", "{event}");
            }
            Message::Close(Some(CloseFrame { code, reason })) => break (u16::from(code), reason.as_str().to_owned()),
            message => panic!("{message:?}"),
        }
    };
    assert_eq!(closed, (1000, "left".to_owned()));
    assert_eq!(node.occupancy("a"), 2);
    node.wait_for_metric("fanfare_closes_total{reason=\"left\"}", 1.0).await;

    nameless.say(json!({"name": "leave"})).await;
    assert_eq!(other.event("left").await, json!({"name": "left"}));
}

#[tokio::test]
async fn t5_close_tells_all_and_closes_the_room() {
    let node = TestNode::dev("");
    let mut one = node.enter("a", "").await;
    let mut two = node.enter("a", "").await;
    let mut text = node.enter("a", "?format=text").await;
    let mut many = node.connect("/ws").await;
    many.event("welcome").await;
    let first = many.subscribe("a").await;
    many.subscribe("b").await;

    one.say(json!({"name": "publish", "message": "last"})).await;
    one.say(json!({"name": "close"})).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.event("message").await["message"], "last");
        assert_eq!(client.json().await, json!({"name": "room_closed"}));
        assert_eq!(client.closed().await, (4410, "room closed".to_owned()));
    }
    assert_eq!(text.text().await, "last");
    assert_eq!(text.closed().await.0, 4410);
    // On /ws the room is gone and the connection stays, with its other rooms.
    assert_eq!(many.event("message").await["message"], "last");
    assert_eq!(many.json().await, json!({"name": "room_closed", "room": "a"}));
    assert_eq!(many.ask(json!({"name": "presence", "room": "a"})).await["code"], "not_subscribed");
    many.say(json!({"name": "publish", "room": "b", "message": 1})).await;
    assert_eq!(many.event("message").await["room"], "b");
    // The name is free for a room that begins anew.
    let again = many.subscribe("a").await;
    assert_ne!(first["epoch"], again["epoch"]);
    assert_eq!(again["offset"], 0);
}

#[tokio::test]
async fn t5_who_may_not_close_a_room_is_told_so() {
    let node = TestNode::serve("");
    let mut client = node.enter("a", "").await;
    let error = client.ask(json!({"name": "close", "id": "x"})).await;
    assert_eq!((&error["code"], &error["id"]), (&json!("not_allowed"), &json!("x")), "{error}");
    client.say(json!({"name": "publish", "message": "still open"})).await;
    assert_eq!(client.event("message").await["message"], "still open");
}

#[tokio::test]
async fn t5_empty_rooms_are_reaped_and_occupied_ones_never() {
    let node = TestNode::dev("rooms.reap_ms = 20");
    let mut staying = node.connect("/ws").await;
    staying.event("welcome").await;
    let before = staying.subscribe("stays").await;
    // Each of these is gone with a sweep, so several sweeps pass.
    for reaped in 1..=5 {
        let guest = node.enter("passing", "").await;
        assert_eq!(node.metric("fanfare_rooms").await, 2.0);
        guest.close().await;
        node.wait_for_metric("fanfare_rooms", 1.0).await;
        node.wait_for_metric("fanfare_rooms_reaped_total", f64::from(reaped)).await;
    }
    let after = staying.ask(json!({"name": "subscribe", "room": "stays"})).await;
    assert_eq!(before["epoch"], after["epoch"], "the same life of the room");
    // A room that was made by a publication alone goes too.
    staying.say(json!({"name": "publish", "room": "nobody", "message": 1})).await;
    node.wait_for_metric("fanfare_rooms_reaped_total", 6.0).await;
    staying.say(json!({"name": "unsubscribe", "room": "stays"})).await;
    node.wait_for_metric("fanfare_rooms", 0.0).await;
}

#[tokio::test]
async fn t5_whoever_enters_while_rooms_are_swept_is_never_lost() {
    // Two shards, a sweep every 10 ms, and a room that is vacated and entered all the time.
    let node = TestNode::dev("rooms.reap_ms = 10");
    let mut one = node.connect("/ws").await;
    let mut two = node.connect("/ws").await;
    one.event("welcome").await;
    two.event("welcome").await;
    for round in 0..300 {
        for client in [&mut one, &mut two] {
            client.subscribe("busy").await;
        }
        let (sender, other) = if round % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
        sender.say(json!({"name": "publish", "room": "busy", "message": round})).await;
        assert_eq!(sender.event("message").await["message"], round);
        assert_eq!(other.event("message").await["message"], round, "a member that the room does not know");
        for client in [&mut one, &mut two] {
            client.say(json!({"name": "unsubscribe", "room": "busy"})).await;
            client.event("unsubscribed").await;
        }
        if round % 10 == 0 {
            // Lets a sweep come between the lives.
            wait_until("the room to be reaped", async || node.metric("fanfare_rooms").await == 0.0).await;
        }
    }
}

#[tokio::test]
async fn t6_the_time_arrives_in_every_occupied_room() {
    let node = TestNode::dev("[namespaces.clock]\nticker_ms = 20");
    let mut one = node.enter("clock:one", "").await;
    let mut two = node.enter("clock:two", "?format=text").await;
    let mut other = node.enter("quiet", "").await;
    let mut last = String::new();
    for _ in 0..3 {
        let event = one.event("message").await;
        let time = event["message"].as_str().unwrap().to_owned();
        assert_time(&time);
        assert!(time > last, "{time} after {last}");
        last = time;
        assert_time(&two.text().await);
    }
    other.expect_nothing().await;
}

#[tokio::test]
async fn t6_the_time_stops_with_the_room() {
    let node = TestNode::dev("[namespaces.clock]\nticker_ms = 20");
    let mut witness = node.enter("clock:other", "").await;
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    let subscribed = client.subscribe("clock:one").await;
    client.event("message").await;
    client.say(json!({"name": "unsubscribe", "room": "clock:one"})).await;
    let mut heard = 1;
    while client.json().await["name"] == "message" {
        heard += 1;
    }
    for _ in 0..4 {
        witness.event("message").await;
    }
    // Its stream stands where the client left it: nothing was published to nobody.
    let again = client.subscribe("clock:one").await;
    assert_eq!(again["epoch"], subscribed["epoch"]);
    assert_eq!(again["offset"].as_u64().unwrap(), subscribed["offset"].as_u64().unwrap() + heard);
}

/// `2026-11-20T22:00:00.000Z`.
fn assert_time(text: &str) {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
}

#[tokio::test]
async fn t7_a_nickname_is_unique_while_online_and_a_token_brings_the_same_user_back() {
    let node = TestNode::dev("rooms.presence_debounce_ms = 200\n[namespaces.chat]\njoin_leave = true\npresence = true");
    let mut alice = node.connect("/ws?name=Alice").await;
    let welcome = alice.event("welcome").await;
    assert_eq!(welcome["user"], "Alice");
    let token = welcome["token"].as_str().expect("a token").to_owned();
    alice.subscribe("chat:1").await;
    // 2 to 20 characters, and nobody else's.
    for name in ["A", "123456789012345678901"] {
        request(node.clients, "GET", &format!("/ws?name={name}"), &UPGRADE, "").await.expect_problem(400, "bad_name");
    }
    for path in ["/ws?name=Alice", "/room/chat:1?name=Alice"] {
        assert_eq!(node.connect(path).await.closed().await, (4409, "name taken".to_owned()));
    }
    // Who enters and leaves is told once, whatever the tabs; who only reloads has not left.
    let mut bob = node.connect("/ws?name=Bobby").await;
    bob.event("welcome").await;
    bob.subscribe("chat:1").await;
    assert_eq!(alice.json().await, json!({"name": "joined", "room": "chat:1", "user": "Bobby"}));
    let second_tab = node.enter("chat:1", &format!("?token={token}")).await;
    alice.close().await;
    let users = bob.ask(json!({"name": "presence", "room": "chat:1"})).await;
    assert_eq!(users["members"], json!([{"user": "Alice"}, {"user": "Bobby"}]));
    second_tab.close().await;
    let mut alice = node.connect(&format!("/ws?token={token}")).await;
    assert_eq!(alice.event("welcome").await["user"], "Alice");
    alice.subscribe("chat:1").await;
    bob.expect_nothing().await;
    alice.close().await;
    assert_eq!(bob.json().await, json!({"name": "left", "room": "chat:1", "user": "Alice"}));
}

/// What makes a request a WebSocket handshake.
const UPGRADE: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[tokio::test]
async fn t7_the_last_messages_are_there_for_who_enters() {
    let node = TestNode::dev("auth.guests = true\n[namespaces.chat]\nhistory_size = 3");
    let mut alice = node.enter("chat:1", "?name=Alice").await;
    for n in 1..=5 {
        alice.say(json!({"name": "publish", "message": format!("line {n}")})).await;
        alice.event("message").await;
    }
    // First what was said, then a place from exactly there on: nothing is missed in between, nothing comes twice.
    let mut bob = node.connect("/ws?name=Bobby").await;
    bob.event("welcome").await;
    let page = bob.ask(json!({"name": "history", "room": "chat:1", "limit": 20})).await;
    let said: Vec<_> =
        page["messages"].as_array().expect("a list").iter().map(|m| (&m["user"], &m["message"])).collect();
    let alice_said = ["line 3", "line 4", "line 5"].map(|line| (json!("Alice"), json!(line)));
    assert_eq!(said, alice_said.iter().map(|(user, line)| (user, line)).collect::<Vec<_>>());
    alice.say(json!({"name": "publish", "message": "in between"})).await;
    alice.event("message").await;
    let since = format!("{}:{}", page["epoch"].as_str().expect("an epoch"), page["offset"]);
    let subscribed = bob.ask(json!({"name": "subscribe", "room": "chat:1", "since": since})).await;
    assert_eq!(subscribed["recovered"], true);
    alice.say(json!({"name": "publish", "message": "hello Bobby"})).await;
    for (offset, line) in [(6, "in between"), (7, "hello Bobby")] {
        let message = bob.event("message").await;
        assert_eq!(
            (&message["offset"], &message["message"], &message["user"]),
            (&json!(offset), &json!(line), &json!("Alice"))
        );
    }
}

#[tokio::test]
async fn t7_mentions_missed_while_away_are_told_on_return() {
    let node = TestNode::dev("rooms.presence_debounce_ms = 0\n[namespaces.chat]\ninbox_size = 2");
    let alice = node.guest("Alice").await;
    wait_until("Alice to be away", async || node.hub.users().online() == 0).await;
    let mut bob = node.enter("chat:1", "?name=Bobby").await;
    for line in ["@Alice one", "nobody is meant", "@Alice two", "three, @Alice"] {
        bob.say(json!({"name": "publish", "message": line})).await;
        bob.event("message").await;
    }
    let mut alice = node.connect(&format!("/ws?token={alice}")).await;
    alice.event("welcome").await;
    assert_eq!(alice.json().await, json!({"name": "inbox", "count": 2, "dropped": 1}));
    for line in ["@Alice two", "three, @Alice"] {
        let message = alice.event("message").await;
        assert_eq!(
            (&message["message"], &message["user"], &message["mention"]),
            (&json!(line), &json!("Bobby"), &json!("chat:1"))
        );
    }
    alice.expect_nothing().await;
}

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

#[tokio::test]
async fn t11_connections_of_a_user_are_listed_kicked_and_explained() {
    let node = TestNode::dev("shards = 2");
    let mut bob = node.connect("/ws?name=Bobby").await;
    bob.event("welcome").await;
    let alice = node.guest("Alice").await;
    wait_until("Alice's first connection to be counted", async || node.hub.users().online() == 1).await;
    let mut tabs = Vec::new();
    for _ in 0..3 {
        let mut tab = node.connect(&format!("/ws?token={alice}")).await;
        tab.event("welcome").await;
        tabs.push(tab);
    }
    let get = async |path: &str| request(node.admin, "GET", path, &[], "").await.json();
    let listed = get("/api/connections?user=Alice").await;
    assert_eq!(listed["connections"].as_array().expect("a list").len(), 3, "{listed}");
    let kicked = request(node.admin, "DELETE", "/api/users/Alice/connections", &[], "").await;
    assert_eq!(kicked.json(), json!({"kicked": 3}));
    for mut tab in tabs {
        assert_eq!(tab.closed().await, (4420, "kicked".to_owned()));
    }
    assert_eq!(get("/api/connections?user=Alice").await["connections"], json!([]));
    let closes = get("/api/closes?user=Alice&reason=kicked").await;
    assert_eq!(closes["closes"].as_array().expect("a list").len(), 3, "{closes}");
    bob.expect_nothing().await;
}
