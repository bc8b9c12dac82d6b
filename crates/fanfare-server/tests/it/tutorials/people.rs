//! 7 and 11: people with names, and what is known of their connections.

use super::*;

#[tokio::test]
async fn t7_a_nickname_is_unique_while_online_and_a_token_brings_the_same_user_back() {
    // Longer than a page takes to come back on any machine.
    let toml = "[namespaces.chat]\njoin_leave = true\npresence = true\n[rooms]\npresence_debounce_ms = ";
    let node = TestNode::dev(&format!("{toml}60000"));
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
    // Who does not come back has left.
    let node = TestNode::dev(&format!("{toml}100"));
    let mut bob = node.enter("chat:1", "?name=Bobby").await;
    let alice = node.enter("chat:1", "?name=Alice").await;
    assert_eq!(bob.event("joined").await["user"], "Alice");
    alice.close().await;
    assert_eq!(bob.json().await, json!({"name": "left", "user": "Alice"}));
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
