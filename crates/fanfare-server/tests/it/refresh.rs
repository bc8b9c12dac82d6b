//! A new token on a live connection, and the word before one ends.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fanfare_guard::{Claims, RoomRight, TokenKeys};
use serde_json::{Value, json};

use crate::support::{Client, TestNode};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const CONFIG: &str = "auth.keys = [\"0123456789abcdef0123456789abcdef\"]\n\
    [namespaces.staff]\nsubscribe = \"token\"\npublish = \"token\"";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A token for `user` that ends `seconds` from now and grants `rights` in the rooms of `staff:`.
fn token(user: Option<&str>, seconds: Option<i64>, rights: &[RoomRight]) -> String {
    let rooms = [("staff:*".to_owned(), rights.to_vec())].into();
    let exp = seconds.map(|seconds| now().saturating_add_signed(seconds));
    let claims = Claims { sub: user.map(str::to_owned), exp, rooms, ..Claims::default() };
    TokenKeys::parse([SECRET]).expect("a fit key").mint(&claims).expect("a token")
}

async fn connect(node: &TestNode, token: &str) -> Client {
    let mut client = node.connect(&format!("/ws?token={token}")).await;
    client.event("welcome").await;
    client
}

async fn refresh(client: &mut Client, token: &str) -> Value {
    client.ask(json!({"name": "refresh", "token": token, "id": "r"})).await
}

#[tokio::test]
async fn a_new_token_extends_the_life_and_brings_its_rights() {
    let node = TestNode::serve(CONFIG);
    let mut client = connect(&node, &token(Some("ann"), Some(600), &[RoomRight::Subscribe])).await;
    client.subscribe("staff:1").await;
    let publish = json!({"name": "publish", "room": "staff:1", "message": 1});
    assert_eq!(client.ask(publish.clone()).await["code"], "not_allowed");

    let both = [RoomRight::Subscribe, RoomRight::Publish];
    let refreshed = refresh(&mut client, &token(Some("ann"), Some(3_600), &both)).await;
    // Some seconds may begin between minting and checking.
    let life = refreshed["expires_in"].as_u64().expect("seconds");
    assert!((3_540..=3_600).contains(&life), "{refreshed}");
    assert_eq!((&refreshed["name"], &refreshed["id"]), (&json!("refreshed"), &json!("r")));
    assert_eq!(client.ask(publish).await, json!({"name": "message", "message": 1, "room": "staff:1", "user": "ann"}));
    // One without an end says nothing about one.
    let refreshed = refresh(&mut client, &token(Some("ann"), None, &both)).await;
    assert_eq!(refreshed, json!({"name": "refreshed", "id": "r"}));
}

#[tokio::test]
async fn a_token_that_does_not_hold_or_is_anothers_changes_nothing() {
    let node = TestNode::serve(CONFIG);
    let mut client = connect(&node, &token(Some("ann"), Some(600), &[RoomRight::Subscribe])).await;
    client.subscribe("staff:1").await;
    for (bad, why) in [
        (token(Some("ann"), Some(-60), &[]), "token expired"),
        (token(Some("bob"), Some(600), &[]), "token is of another user; connect with it instead"),
        (token(None, Some(600), &[]), "token is of another user; connect with it instead"),
        ("a.b.c".to_owned(), "token malformed"),
        (String::new(), "token malformed"),
        ("x".repeat(9_000), "token too long"),
    ] {
        let refused = refresh(&mut client, &bad).await;
        assert_eq!(refused, json!({"name": "error", "code": "token_refused", "message": why, "id": "r"}));
    }
    assert_eq!(client.ask(json!({"name": "refresh"})).await["code"], "bad_message");
    let granted = client.ask(json!({"name": "presence", "room": "staff:1"})).await;
    assert_eq!(granted["name"], "presence", "it is still in the room: {granted}");

    // Who came without a token has none to replace, and costs no check.
    let mut nobody = node.connect("/ws").await;
    nobody.event("welcome").await;
    let refused = refresh(&mut nobody, &token(None, Some(600), &[])).await;
    assert_eq!(refused["message"], "this connection came without a token; connect with one");
}

#[tokio::test]
async fn refreshes_are_bounded() {
    let node = TestNode::serve(CONFIG);
    let mut client = connect(&node, &token(Some("ann"), Some(600), &[])).await;
    for _ in 0..10 {
        assert_eq!(refresh(&mut client, "a.b.c").await["code"], "token_refused");
    }
    // A good one neither, and nothing is lost by that.
    assert_eq!(refresh(&mut client, &token(Some("ann"), Some(600), &[])).await["code"], "limit_reached");
    client.expect_nothing().await;
}

#[tokio::test]
async fn rooms_that_the_new_token_does_not_open_are_left() {
    let node = TestNode::serve(CONFIG);
    let all = token(Some("ann"), Some(600), &[RoomRight::Subscribe]);
    let none = token(Some("ann"), Some(600), &[]);
    let mut client = connect(&node, &all).await;
    client.subscribe("lobby").await;
    client.subscribe("staff:1").await;
    assert_eq!(refresh(&mut client, &none).await["name"], "refreshed");
    assert_eq!(client.json().await, json!({"name": "unsubscribed", "room": "staff:1"}));
    assert_eq!((node.occupancy("staff:1"), node.occupancy("lobby")), (0, 1));

    let mut one_room = node.enter("staff:2", &format!("?token={all}")).await;
    assert_eq!(refresh(&mut one_room, &none).await["name"], "refreshed");
    assert_eq!(one_room.closed().await, (4403, "not allowed".to_owned()));
}

#[tokio::test]
async fn the_end_is_announced_and_a_refresh_puts_it_off() {
    let node = TestNode::serve(CONFIG);
    // Time enough to come in with it, on a busy machine too: who is later has the skew of clocks, half a minute.
    let short = || token(Some("ann"), Some(5), &[RoomRight::Subscribe]);
    let mut stays = connect(&node, &short()).await;
    let mut goes = connect(&node, &short()).await;
    let mut one_room = node.enter("staff:1", &format!("?token={}", short())).await;
    let mut text = node.enter("staff:2", &format!("?format=text&token={}", short())).await;
    let begun = Instant::now();
    for client in [&mut stays, &mut goes, &mut one_room] {
        let warning = client.event("expires").await;
        let left = warning["expires_in"].as_u64().expect("seconds");
        assert!((1..=5).contains(&left), "{warning}");
    }
    let refreshed = refresh(&mut stays, &token(Some("ann"), Some(600), &[])).await;
    assert_eq!(refreshed["name"], "refreshed");
    for client in [&mut goes, &mut one_room, &mut text] {
        // Once, and in the text dialect not at all.
        assert_eq!(client.closed().await, (4401, "token expired, connect with a new one".to_owned()));
    }
    assert!(begun.elapsed() < Duration::from_secs(25), "it ends when it says, and not after the skew of clocks");
    stays.expect_nothing().await;
    assert_eq!(node.metric("fanfare_closes_total{reason=\"token_expired\"}").await, 3.0);
}

#[tokio::test]
async fn nobody_is_warned_where_that_is_off() {
    let node = TestNode::serve(&format!("auth.expiry_warning_ms = 0\n{CONFIG}"));
    let mut client = connect(&node, &token(Some("ann"), Some(1), &[])).await;
    assert_eq!(client.closed().await.0, 4401);
}

#[tokio::test]
async fn audience_and_issuer_are_checked_where_they_are_configured() {
    let node = TestNode::serve(&format!("auth.audience = \"chat\"\nauth.issuer = \"id\"\n{CONFIG}"));
    let minted = |aud: Option<&str>, iss: Option<&str>| {
        let (aud, iss) = (aud.map(str::to_owned), iss.map(str::to_owned));
        let claims = Claims { sub: Some("ann".to_owned()), aud, iss, ..Claims::default() };
        TokenKeys::parse([SECRET]).expect("a fit key").mint(&claims).expect("a token")
    };
    for (token, why) in [
        (minted(None, Some("id")), "token audience wrong"),
        (minted(Some("mail"), Some("id")), "token audience wrong"),
        (minted(Some("chat"), None), "token issuer wrong"),
    ] {
        let mut client = node.connect(&format!("/ws?token={token}")).await;
        assert_eq!(client.closed().await, (4401, why.to_owned()));
    }
    connect(&node, &minted(Some("chat"), Some("id"))).await;
}
