//! Users: whose a name is, who is in a room, and what is said to one of them, over real sockets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfare_guard::{Claims, TokenKeys};
use futures_util::future::join_all;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{TestNode, request, wait_until};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Guests and token holders on one node.
const MIXED: &str = "auth.guests = true\nauth.keys = [\"0123456789abcdef0123456789abcdef\"]\n";

/// A token of the operator's for this user.
fn token(user: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = Claims { sub: Some(user.to_owned()), exp: Some(now + 600), ..Claims::default() };
    TokenKeys::parse([SECRET]).expect("a fit key").mint(&claims).expect("a token")
}

/// Longer than a page takes to come back on any machine.
const LONG_MS: u64 = 60_000;

// ---- whose a name is ----

#[tokio::test]
async fn a_taken_name_is_4409_on_both_paths_and_in_both_dialects() {
    let node = TestNode::dev("");
    let mut zoe = node.connect("/ws?name=Zo%C3%AB").await;
    zoe.event("welcome").await;
    for path in ["/ws", "/room/a", "/room/a?format=text"] {
        let and = if path.contains('?') { '&' } else { '?' };
        let mut other = node.connect(&format!("{path}{and}name=Zo%C3%AB")).await;
        assert_eq!(other.closed().await, (4409, "name taken".to_owned()), "{path}");
    }
    assert_eq!(node.occupancy("a"), 0, "who is sent away was never in the room");
    assert_eq!(node.metric("fanfare_closes_total{reason=\"name_taken\"}").await, 3.0);
    // A name taken on /room is taken on /ws, and names differ by case.
    let _bob = node.enter("a", "?name=bob").await;
    let mut other = node.connect("/ws?name=bob").await;
    assert_eq!(other.closed().await.0, 4409);
    node.connect("/ws?name=Bob").await.event("welcome").await;
    // Nobody is met there: no name is taken.
    node.connect("/echo?name=carl").await;
    node.connect("/ws?name=carl").await.event("welcome").await;
    zoe.expect_nothing().await;
}

#[tokio::test]
async fn of_many_who_want_a_name_at_once_one_is_let_in() {
    let node = TestNode::dev("shards = 3\nrooms.presence_debounce_ms = 0");
    for round in 0..20 {
        let path = format!("/ws?name=rival{round}");
        let rivals = join_all((0..12).map(|_| node.connect(&path))).await;
        let first_words = join_all(rivals.into_iter().map(async |mut rival| match rival.next().await {
            Message::Text(_) => true,
            Message::Close(Some(frame)) => {
                assert_eq!(u16::from(frame.code), 4409);
                false
            }
            other => panic!("{other:?}"),
        }));
        assert_eq!(first_words.await.into_iter().filter(|&is_in| is_in).count(), 1);
    }
}

#[tokio::test]
async fn a_name_stays_its_guests_over_a_reload_and_is_free_soon_after() {
    let node = TestNode::dev(&format!("rooms.presence_debounce_ms = {LONG_MS}"));
    let mut page = node.connect("/ws?name=Zoe").await;
    let token = page.event("welcome").await["token"].as_str().expect("a token").to_owned();
    page.close().await;
    let mut other = node.connect("/ws?name=Zoe").await;
    assert_eq!(other.closed().await.0, 4409, "the page is only being reloaded");
    let mut page = node.connect(&format!("/ws?token={token}&name=Zoe")).await;
    assert_eq!(page.event("welcome").await["user"], "Zoe");
    drop(node);
    let node = TestNode::dev("rooms.presence_debounce_ms = 100");
    let token = node.guest("Zoe").await;
    // Then it is whoever's comes first, and that is not the former guest's any more.
    let mut next = loop {
        let mut next = node.connect("/ws?name=Zoe").await;
        match next.next().await {
            Message::Text(_) => break next,
            Message::Close(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            other => panic!("{other:?}"),
        }
    };
    let mut page = node.connect(&format!("/ws?token={token}")).await;
    assert_eq!(page.closed().await.0, 4409, "another has this name by now");
    next.expect_nothing().await;
}

#[tokio::test]
async fn a_guests_token_is_for_this_gateway_and_grants_nothing() {
    let config = format!("{MIXED}[namespaces.staff]\nsubscribe = \"token\"");
    let node = TestNode::serve(&config);
    let guests = node.guest("Zoë").await;
    // A restart with the same keys knows it; others do not, and nor does one where guests are off.
    let again = TestNode::serve(&config);
    let mut zoe = again.connect(&format!("/ws?token={guests}")).await;
    assert_eq!(zoe.event("welcome").await["user"], "Zoë");
    let refused = zoe.ask(json!({"name": "subscribe", "room": "staff:1"})).await;
    assert_eq!(refused["code"], "not_allowed", "a guest's token grants nothing");
    for config in ["auth.guests = true", "auth.keys = [\"0123456789abcdef0123456789abcdef\"]"] {
        let other = TestNode::serve(config);
        let mut client = other.connect(&format!("/ws?token={guests}")).await;
        assert_eq!(client.closed().await.0, 4401, "{config}");
    }
    // The operator's tokens bring none: they come from elsewhere.
    let mut ann = node.connect(&format!("/ws?token={}", token("ann"))).await;
    let welcome = ann.event("welcome").await;
    assert_eq!((&welcome["user"], welcome.get("token")), (&json!("ann"), None));
}

#[tokio::test]
async fn who_has_a_token_owns_the_name_and_guests_make_way() {
    let node = TestNode::serve(MIXED);
    let mut guest = node.connect("/ws?name=ann").await;
    guest.event("welcome").await;
    let mut ann = node.connect(&format!("/ws?token={}", token("ann"))).await;
    ann.event("welcome").await;
    assert_eq!(guest.closed().await, (4409, "name taken".to_owned()));
    let mut second_tab = node.connect(&format!("/ws?token={}", token("ann"))).await;
    second_tab.event("welcome").await;
    let mut other = node.connect("/ws?name=ann").await;
    assert_eq!(other.closed().await.0, 4409);
    ann.expect_nothing().await;
    wait_until("one user to be left", async || node.hub.users().online() == 1).await;
}

// ---- who is in a room ----

#[tokio::test]
async fn a_page_that_is_reloaded_has_not_left_and_one_that_is_closed_has() {
    let node = TestNode::dev(&format!("rooms.presence_debounce_ms = {LONG_MS}\nnamespaces.default.join_leave = true"));
    let mut witness = node.enter("a", "").await;
    let token = node.guest("Zoe").await;
    let page = async || node.enter("a", &format!("?token={token}")).await;
    let gone = async || wait_until("the page to be gone", async || node.occupancy("a") == 1).await;
    let first = page().await;
    assert_eq!(witness.json().await, json!({"name": "joined", "user": "Zoe"}));
    // Whether it says goodbye or not.
    first.close().await;
    gone().await;
    let presence = witness.ask(json!({"name": "presence"})).await;
    assert_eq!((&presence["count"], &presence["members"]), (&json!(1), &json!([{"user": "Zoe"}])));
    drop(page().await);
    gone().await;
    let _last = page().await;
    witness.expect_nothing().await;

    // Here it stays away.
    let node = TestNode::dev("rooms.presence_debounce_ms = 400\nnamespaces.default.join_leave = true");
    let mut witness = node.enter("a", "").await;
    let last = node.enter("a", "?name=Zoe").await;
    assert_eq!(witness.json().await, json!({"name": "joined", "user": "Zoe"}));
    let begun = std::time::Instant::now();
    drop(last);
    assert_eq!(witness.json().await, json!({"name": "left", "user": "Zoe"}));
    assert!(begun.elapsed() > Duration::from_millis(200), "{:?}", begun.elapsed());
    let presence = witness.ask(json!({"name": "presence"})).await;
    assert_eq!(presence["members"], json!([]));
    witness.expect_nothing().await;
}

#[tokio::test]
async fn leave_is_told_at_once_and_once_when_the_last_tab_says_it() {
    let node = TestNode::dev("rooms.presence_debounce_ms = 60000\nnamespaces.default.join_leave = true");
    let mut witness = node.enter("a", "").await;
    let token = node.guest("Zoe").await;
    let mut tabs = Vec::new();
    for _ in 0..2 {
        tabs.push(node.enter("a", &format!("?token={token}")).await);
    }
    assert_eq!(witness.event("joined").await["user"], "Zoe");
    let mut last = tabs.pop().expect("two tabs");
    let mut first = tabs.pop().expect("two tabs");
    first.say(json!({"name": "leave"})).await;
    assert_eq!(first.event("unsubscribed").await, json!({"name": "unsubscribed"}));
    assert_eq!(first.closed().await.0, 1000);
    wait_until("one tab to be gone", async || node.occupancy("a") == 2).await;
    witness.expect_nothing().await;
    last.say(json!({"name": "leave"})).await;
    assert_eq!(witness.json().await, json!({"name": "left", "user": "Zoe"}));
    assert_eq!(witness.ask(json!({"name": "presence"})).await["members"], json!([]));
}

#[tokio::test]
async fn everybody_who_joins_at_once_is_told_and_listed_once() {
    const USERS: usize = 30;
    let node = TestNode::dev("shards = 3\nrooms.presence_debounce_ms = 0\nnamespaces.default.join_leave = true");
    let mut witness = node.connect("/ws").await;
    witness.event("welcome").await;
    let names: Vec<_> = (0..USERS).map(|n| format!("user{n:02}")).collect();
    let mut people = Vec::new();
    for name in &names {
        let mut person = node.connect(&format!("/ws?name={name}")).await;
        person.event("welcome").await;
        people.push(person);
    }
    for round in 0..25 {
        let room = format!("round{round}");
        witness.subscribe(&room).await;
        join_all(people.iter_mut().map(async |person| {
            person.say(json!({"name": "subscribe", "room": room, "id": "in"})).await;
            while person.json().await["id"] != "in" {}
        }))
        .await;
        let presence = witness.say(json!({"name": "presence", "room": room, "id": round}));
        presence.await;
        let mut joined = Vec::new();
        let presence = loop {
            let event = witness.json().await;
            if event["name"] == "presence" {
                break event;
            }
            assert_eq!((&event["name"], &event["room"]), (&json!("joined"), &json!(room)));
            joined.push(event["user"].as_str().expect("a user").to_owned());
        };
        let listed: Vec<_> =
            presence["members"].as_array().expect("a list").iter().map(|m| m["user"].clone()).collect();
        assert_eq!(listed, names, "round {round}");
        assert_eq!(presence["count"], USERS + 1);
        // An answer may overtake what the room says.
        while joined.len() < USERS {
            joined.push(witness.event("joined").await["user"].as_str().expect("a user").to_owned());
        }
        joined.sort_unstable();
        assert_eq!(joined, names, "round {round}: joined, once each");
        // Half of them go, at once.
        join_all(people.iter_mut().take(USERS / 2).map(async |person| {
            person.say(json!({"name": "unsubscribe", "room": room, "id": "out"})).await;
            while person.json().await["id"] != "out" {}
        }))
        .await;
        let mut left = Vec::new();
        while left.len() < USERS / 2 {
            left.push(witness.event("left").await["user"].as_str().expect("a user").to_owned());
        }
        left.sort_unstable();
        assert_eq!(left, names[..USERS / 2], "round {round}: left, once each");
        let presence = witness.ask(json!({"name": "presence", "room": room})).await;
        let listed: Vec<_> =
            presence["members"].as_array().expect("a list").iter().map(|m| m["user"].clone()).collect();
        assert_eq!(listed, names[USERS / 2..], "round {round}");
        witness.say(json!({"name": "unsubscribe", "room": room})).await;
        witness.event("unsubscribed").await;
    }
}

#[tokio::test]
async fn presence_is_told_in_pages_by_command_and_by_api() {
    let node = TestNode::dev("");
    let mut people = Vec::new();
    for name in ["Ann", "Bob", "Carl", "Dora", "Zo%C3%AB"] {
        people.push(node.enter("a", &format!("?name={name}")).await);
    }
    let asker = people.last_mut().expect("five");
    while asker.ask(json!({"name": "ping"})).await["name"] != "pong" {}
    let ann = json!({"user": "Ann"});
    let bob = json!({"user": "Bob"});
    let page = asker.ask(json!({"name": "presence", "limit": 2, "id": 1})).await;
    assert_eq!(page, json!({"name": "presence", "count": 5, "members": [ann, bob], "next": "Bob", "id": 1}));
    let page = asker.ask(json!({"name": "presence", "limit": 2, "after": "Bob"})).await;
    assert_eq!((&page["members"][1]["user"], &page["next"]), (&json!("Dora"), &json!("Dora")));
    let page = asker.ask(json!({"name": "presence", "limit": 2, "after": "Dora"})).await;
    assert_eq!((&page["members"], page.get("next")), (&json!([{"user": "Zoë"}]), None));
    for bad in [json!({"limit": 0}), json!({"limit": 1_001}), json!({"limit": "2"}), json!({"after": 7})] {
        let mut command = json!({"name": "presence"});
        command.as_object_mut().expect("an object").extend(bad.as_object().expect("an object").clone());
        assert_eq!(asker.ask(command).await["code"], "bad_message", "{bad}");
    }

    let get = async |query: &str| request(node.admin, "GET", &format!("/api/rooms/a/presence{query}"), &[], "").await;
    let page = get("?limit=2").await;
    assert_eq!(page.json(), json!({"count": 5, "members": [ann, bob], "next": "Bob"}));
    let page = get("?after=Dora").await;
    assert_eq!(page.json(), json!({"count": 5, "members": [{"user": "Zoë"}], "next": null}));
    get("?limit=0").await.expect_problem(422, "bad_limit");
    request(node.admin, "GET", "/api/rooms/nobody/presence", &[], "").await.expect_problem(404, "no_room");
}

// ---- sent away ----

#[tokio::test]
async fn a_kick_ends_all_connections_of_a_user_and_of_nobody_else() {
    let node = TestNode::dev("shards = 3");
    let mut bob = node.connect("/ws?name=bob").await;
    bob.event("welcome").await;
    let token = node.guest("ann").await;
    let mut anns = Vec::new();
    for _ in 0..5 {
        anns.push(node.connect(&format!("/room/a?token={token}")).await);
    }
    wait_until("five tabs", async || node.occupancy("a") == 5).await;
    let kick = async || request(node.admin, "DELETE", "/api/users/ann/connections", &[], "").await.json();
    assert_eq!(kick().await, json!({"kicked": 5}));
    for mut ann in anns {
        while let Message::Text(event) = ann.next().await {
            assert!(event.contains("joined"), "{event}");
        }
    }
    assert_eq!(kick().await, json!({"kicked": 0}));
    node.wait_for_metric("fanfare_closes_total{reason=\"kicked\"}", 5.0).await;
    bob.expect_nothing().await;
    request(node.admin, "DELETE", "/api/users/%00/connections", &[], "").await.expect_problem(422, "bad_user");
    request(node.admin, "GET", "/api/users/ann/connections", &[], "").await.expect_problem(405, "method_not_allowed");
}

// ---- said to one user ----

/// Direct messages for guests, with an inbox.
const INBOX: &str = "shards = 3\nrooms.presence_debounce_ms = 0\n[namespaces.default]\ninbox_size = 3\n[namespaces.chat]\ninbox_size = 2\n";

fn said(event: &serde_json::Value) -> (&serde_json::Value, &serde_json::Value) {
    assert_eq!(event["name"], "message", "{event}");
    assert!(event["at"].as_u64().is_some_and(|at| at > 1_700_000_000_000), "{event}");
    (&event["message"], &event["user"])
}

#[tokio::test]
async fn send_reaches_all_connections_of_a_user_and_nobody_else() {
    let node = TestNode::dev(INBOX);
    let token = node.guest("ann").await;
    let mut ann = node.connect(&format!("/ws?token={token}")).await;
    ann.event("welcome").await;
    let mut tab = node.enter("a", &format!("?token={token}")).await;
    let mut text = node.enter("a", &format!("?token={token}&format=text")).await;
    let mut bob = node.connect("/ws?name=bob").await;
    bob.event("welcome").await;
    let ack = bob.ask(json!({"name": "send", "user": "ann", "message": {"text": "hi"}, "id": 7})).await;
    assert_eq!(ack, json!({"name": "ack", "delivered": 2, "dropped": 0, "evicted": 0, "queued": false, "id": 7}));
    for client in [&mut ann, &mut tab] {
        let event = client.json().await;
        assert_eq!(said(&event), (&json!({"text": "hi"}), &json!("bob")));
        assert_eq!((&event["direct"], event.get("room")), (&json!(true), None));
    }
    // The text dialect could not tell it from what the room says.
    tab.say(json!({"name": "publish", "message": "room"})).await;
    assert_eq!(text.text().await, "room");
    // A backend says something, without an id nothing comes back, and one may write to oneself.
    let answer = request(node.admin, "POST", "/api/users/ann/send", &[], r#"{"message":[1, 2 ,3]}"#).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"delivered": 2, "queued": false})));
    assert!(ann.text().await.starts_with(r#"{"name":"message","message":[1, 2 ,3],"direct":true,"at":"#));
    bob.say(json!({"name": "send", "user": "bob", "message": "note"})).await;
    assert_eq!(said(&bob.json().await), (&json!("note"), &json!("bob")));
    bob.expect_nothing().await;
    for (bad, code) in [
        (json!({"name": "send", "message": 1}), "bad_message"),
        (json!({"name": "send", "user": 7, "message": 1}), "bad_message"),
        (json!({"name": "send", "user": "", "message": 1}), "bad_message"),
        (json!({"name": "send", "user": "ann"}), "bad_message"),
    ] {
        assert_eq!(bob.ask(bad.clone()).await["code"], code, "{bad}");
    }
    request(node.admin, "POST", "/api/users/ann/send", &[], "{}").await.expect_problem(422, "bad_request");
}

#[tokio::test]
async fn who_may_send_is_the_operators_choice() {
    let with = |send: &str| MIXED.replace("auth.guests", &format!("auth.send = \"{send}\"\nauth.guests"));
    let node = TestNode::serve(&with("token"));
    let mut guest = node.connect("/ws?name=bob").await;
    guest.event("welcome").await;
    let mut ann = node.connect(&format!("/ws?token={}", token("ann"))).await;
    ann.event("welcome").await;
    let send = json!({"name": "send", "user": "ann", "message": 1, "id": 1});
    assert_eq!(guest.ask(send.clone()).await["code"], "not_allowed");
    ann.say(send.clone()).await;
    assert_eq!(said(&ann.json().await), (&json!(1), &json!("ann")));
    assert_eq!(ann.event("ack").await["delivered"], 1);
    // Nobody is there, and nothing is kept: it is not said to be either.
    let ack = ann.ask(json!({"name": "send", "user": "carl", "message": 1, "id": 2})).await;
    assert_eq!((&ack["delivered"], &ack["queued"]), (&json!(0), &json!(false)));
    let node = TestNode::serve(&with("nobody"));
    let mut ann = node.connect(&format!("/ws?token={}", token("ann"))).await;
    ann.event("welcome").await;
    assert_eq!(ann.ask(send.clone()).await["code"], "not_allowed");
    // Where nothing is said: who has a name, and nobody else.
    let node = TestNode::serve(MIXED);
    let mut guest = node.connect("/ws?name=bob").await;
    guest.event("welcome").await;
    assert_eq!(guest.ask(send.clone()).await["delivered"], 0);
    let mut nobody = node.connect("/ws").await;
    nobody.event("welcome").await;
    assert_eq!(nobody.ask(send).await["code"], "not_allowed");
}

#[tokio::test]
async fn what_is_said_to_who_is_away_is_told_once_on_return() {
    let node = TestNode::dev(INBOX);
    let token = node.guest("ann").await;
    wait_until("ann to be away", async || node.hub.users().online() == 0).await;
    let mut bob = node.connect("/ws?name=bob").await;
    bob.event("welcome").await;
    for n in 0..5 {
        let ack = bob.ask(json!({"name": "send", "user": "ann", "message": n, "id": n})).await;
        assert_eq!((&ack["delivered"], &ack["queued"]), (&json!(0), &json!(true)));
    }
    assert_eq!(node.metric("fanfare_inbox_kept_total").await, 5.0);
    assert!(node.metric("fanfare_inbox_bytes").await > 0.0);
    // Many tabs come back at the same time: one of them gets it, all of it.
    let path = format!("/ws?token={token}");
    let tabs = join_all((0..6).map(|_| node.connect(&path))).await;
    let mut told = Vec::new();
    for mut tab in tabs {
        tab.event("welcome").await;
        tab.say(json!({"name": "ping", "id": "end"})).await;
        loop {
            let event = tab.json().await;
            if event["name"] == "pong" {
                break;
            }
            told.push(event);
        }
    }
    assert_eq!(told.remove(0), json!({"name": "inbox", "count": 3, "dropped": 2}));
    let told: Vec<_> = told.iter().map(said).collect();
    assert_eq!(told, [2, 3, 4].map(|n| (json!(n), json!("bob"))).iter().map(|(n, bob)| (n, bob)).collect::<Vec<_>>());
    assert_eq!(node.metric("fanfare_inbox_told_total").await, 3.0);
    assert_eq!(node.metric("fanfare_inbox_dropped_total").await, 2.0);
}

#[tokio::test]
async fn mentions_wait_for_who_is_away_and_may_hear_them() {
    let node = TestNode::serve(&format!(
        "{MIXED}rooms.presence_debounce_ms = 0\n[namespaces.chat]\ninbox_size = 2\n[namespaces.staff]\nsubscribe = \"token\"\n\
         inbox_size = 2\n[api]\nkeys = [\"key\"]"
    ));
    let zoe = node.guest("Zoë").await;
    wait_until("Zoë to be away", async || node.hub.users().online() == 0).await;
    let mut ann = node.connect(&format!("/ws?token={}", token("ann"))).await;
    ann.event("welcome").await;
    let mut publish = async |room: &str, message: &str| {
        ann.send(format!(r#"{{"name":"publish","room":"{room}","message":{message},"id":1}}"#)).await;
        ann.event("ack").await;
    };
    publish("chat:1", r#"{"text":"hello @Zo\u00eb, and @ann"}"#).await;
    publish("chat:1", r#""mail zoe@Zoë.example, @Zoëtrope, @nobody""#).await;
    publish("staff:1", r#""not for @Zoë""#).await;
    publish("lobby", r#""nothing is kept here, @Zoë""#).await;
    let key = [("Authorization", "Bearer key")];
    let body = json!({"room": "chat:2", "message": "你好@Zoë你好"}).to_string();
    assert_eq!(request(node.admin, "POST", "/api/publish", &key, &body).await.status, 200);
    let mut zoe = node.connect(&format!("/ws?token={zoe}")).await;
    zoe.event("welcome").await;
    let first = zoe.json().await;
    assert_eq!(said(&first), (&json!({"text": "hello @Zoë, and @ann"}), &json!("ann")));
    assert_eq!((&first["mention"], first.get("room")), (&json!("chat:1"), None));
    let second = zoe.json().await;
    assert_eq!((&second["message"], &second["mention"]), (&json!("你好@Zoë你好"), &json!("chat:2")));
    zoe.expect_nothing().await;
    ann.expect_nothing().await;
}

/// One node for each bound: two of them would hide each other.
#[tokio::test]
async fn what_is_kept_for_who_is_away_is_bounded_in_bytes_and_time_and_altogether() {
    let node = |limits: &str| {
        let toml = format!(
            "limits.message_bytes_max = 1024\n{limits}\nrooms.presence_debounce_ms = 0\nrooms.reap_ms = 20\n\
             namespaces.default.inbox_size = 100"
        );
        TestNode::dev(&toml)
    };
    let body = json!({"message": "x".repeat(1_000)}).to_string();
    let send = async |node: &TestNode, user: &str| {
        let sent = request(node.admin, "POST", &format!("/api/users/{user}/send"), &[], &body).await.json();
        assert_eq!(sent["delivered"], 0, "{sent}");
        sent["queued"] == true
    };
    let aged = node("limits.inbox_ms_max = 3000");
    aged.guest("ann").await;
    wait_until("ann to be away", async || aged.hub.users().online() == 0).await;
    assert!(send(&aged, "ann").await);

    let small = node("limits.inbox_bytes_max = 9216");
    let token = small.guest("ann").await;
    wait_until("ann to be away", async || small.hub.users().online() == 0).await;
    for _ in 0..30 {
        assert!(send(&small, "ann").await, "the oldest make place");
    }
    assert!(small.metric("fanfare_inbox_bytes").await < 9_216.0 + 1_024.0);
    let mut ann = small.connect(&format!("/ws?token={token}")).await;
    ann.event("welcome").await;
    let told = ann.event("inbox").await;
    let (count, dropped) = (told["count"].as_u64().expect("a count"), told["dropped"].as_u64().expect("a count"));
    assert!((1..=9).contains(&count) && count + dropped == 30, "{told}");

    let shared = node("limits.inbox_bytes_max = 9216\nlimits.inbox_total_bytes_max = 20000");
    for user in ["ann", "bob", "carl", "dan"] {
        shared.guest(user).await;
    }
    wait_until("all to be away", async || shared.hub.users().online() == 0).await;
    for user in ["ann", "bob", "carl"] {
        for _ in 0..10 {
            // What is left for the third is less than an inbox may be, and his own oldest make place in it.
            assert!(send(&shared, user).await, "{user}");
        }
    }
    assert!(!send(&shared, "dan").await, "nothing is left, and nothing of others' goes");
    assert!(shared.metric("fanfare_inbox_bytes").await <= 20_000.0);

    aged.wait_for_metric("fanfare_inbox_dropped_total", 1.0).await;
}
