//! Tokens that are taken back before their time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfare_guard::{Claims, NumericDate, TokenKeys};
use serde_json::{Value, json};

use crate::support::{Client, TestNode, request};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const CONFIG: &str = "auth.keys = [\"0123456789abcdef0123456789abcdef\"]\napi.keys = [\"k\"]";

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

/// A token for `user` called `id`, minted `ago` and good for an hour.
fn token(user: &str, id: &str, ago: Duration) -> String {
    let minted = now() - ago;
    let exp = Some(minted.as_secs() + 3_600);
    let (sub, jti) = (Some(user.to_owned()), Some(id.to_owned()));
    let claims = Claims { sub, jti, exp, iat: Some(NumericDate(minted)), ..Claims::default() };
    TokenKeys::parse([SECRET]).expect("a fit key").mint(&claims).expect("a token")
}

const EARLIER: Duration = Duration::from_secs(5);

async fn connect(node: &TestNode, token: &str) -> Client {
    let mut client = node.connect(&format!("/ws?token={token}")).await;
    client.event("welcome").await;
    client
}

async fn refused(node: &TestNode, token: &str) {
    let mut client = node.connect(&format!("/ws?token={token}")).await;
    assert_eq!(client.closed().await, (4401, "token revoked".to_owned()));
}

async fn call(node: &TestNode, method: &str, query: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer =
        request(node.admin, method, &format!("/api/revoke{query}"), &[("Authorization", "Bearer k")], &body).await;
    (answer.status, answer.json())
}

async fn revoke(node: &TestNode, body: Value) -> Value {
    let (status, answer) = call(node, "POST", "", &body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn a_users_tokens_are_taken_back_and_newer_ones_hold() {
    let node = TestNode::serve(CONFIG);
    let (old, bobs) = (token("ann", "a1", EARLIER), token("bob", "b1", EARLIER));
    let mut anns = Vec::new();
    for _ in 0..4 {
        anns.push(connect(&node, &old).await);
    }
    anns.push(node.enter("lobby", &format!("?format=text&token={old}")).await);
    let mut bob = connect(&node, &bobs).await;

    let answer = revoke(&node, json!({"user": "ann"})).await;
    assert_eq!((&answer["user"], &answer["closed"]), (&json!("ann"), &json!(5)), "{answer}");
    for ann in &mut anns {
        assert_eq!(ann.closed().await, (4401, "token revoked".to_owned()));
    }
    bob.expect_nothing().await;
    assert_eq!(node.metric("fanfare_closes_total{reason=\"token_revoked\"}").await, 5.0);
    assert_eq!(node.metric("fanfare_revocations").await, 1.0);

    refused(&node, &old).await;
    assert_eq!(node.metric("fanfare_tokens_total{result=\"revoked\"}").await, 1.0);
    // Minted after the word, to the millisecond: it must lie behind.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let new = token("ann", "a2", Duration::ZERO);
    let mut ann = connect(&node, &new).await;
    let answer = ann.ask(json!({"name": "refresh", "token": old})).await;
    assert_eq!((&answer["code"], &answer["message"]), (&json!("token_refused"), &json!("token revoked")));
    ann.expect_nothing().await;

    assert_eq!(call(&node, "DELETE", "?user=ann", &Value::Null).await, (200, json!({"user": "ann", "lifted": true})));
    connect(&node, &old).await;
}

#[tokio::test]
async fn one_token_is_taken_back_by_its_name() {
    let node = TestNode::serve(CONFIG);
    let (one, other) = (token("ann", "a1", EARLIER), token("ann", "a2", EARLIER));
    let mut goes = connect(&node, &one).await;
    let mut stays = connect(&node, &other).await;
    let until = now().as_secs() + 3_600;
    let answer = revoke(&node, json!({"token_id": "a1", "until": until})).await;
    assert_eq!((&answer["token_id"], &answer["until"], &answer["closed"]), (&json!("a1"), &json!(until), &json!(1)));
    assert_eq!(goes.closed().await.0, 4401);
    refused(&node, &one).await;
    stays.expect_nothing().await;
    // A connection that came with a good token does not take the bad one.
    assert_eq!(stays.ask(json!({"name": "refresh", "token": one})).await["message"], "token revoked");
    assert_eq!(stays.ask(json!({"name": "refresh", "token": other})).await["name"], "refreshed");
}

#[tokio::test]
async fn a_refreshed_connection_is_known_by_its_new_token() {
    let node = TestNode::serve(CONFIG);
    let mut client = connect(&node, &token("ann", "a1", EARLIER)).await;
    assert_eq!(client.ask(json!({"name": "refresh", "token": token("ann", "a2", EARLIER)})).await["name"], "refreshed");
    assert_eq!(revoke(&node, json!({"token_id": "a1"})).await["closed"], 0);
    client.expect_nothing().await;
    assert_eq!(revoke(&node, json!({"token_id": "a2"})).await["closed"], 1);
    assert_eq!(client.closed().await.0, 4401);
}

#[tokio::test]
async fn who_came_without_a_token_under_that_name_is_closed_too() {
    let node = TestNode::dev(CONFIG);
    let mut guest = node.connect("/ws?name=ann").await;
    guest.event("welcome").await;
    assert_eq!(revoke(&node, json!({"user": "ann"})).await["closed"], 1);
    assert_eq!(guest.closed().await, (4401, "token revoked".to_owned()));
}

#[tokio::test]
async fn what_is_revoked_is_shown_in_pages_and_bounded() {
    let node = TestNode::serve(&format!("{CONFIG}\nauth.revocations_max = 3"));
    for body in [json!({"token_id": "t1"}), json!({"user": "bob"}), json!({"user": "ann", "until": 4_000_000_000_u64})]
    {
        revoke(&node, body).await;
    }
    let (status, full) = call(&node, "POST", "", &json!({"user": "eve"})).await;
    assert_eq!((status, &full["code"]), (503, &json!("revocations_full")));
    // Again what is known already needs no place.
    revoke(&node, json!({"user": "bob"})).await;

    let (_, first) = call(&node, "GET", "?limit=2", &Value::Null).await;
    let names = |page: &Value| -> Vec<Value> {
        let list = page["revocations"].as_array().expect("a list");
        list.iter().map(|one| one.get("user").or(one.get("token_id")).cloned().expect("whose")).collect()
    };
    assert_eq!((names(&first), &first["next"]), (vec![json!("ann"), json!("bob")], &json!("user:bob")));
    assert_eq!((&first["count"], &first["max"]), (&json!(3), &json!(3)));
    assert_eq!(first["revocations"][0]["until"], 4_000_000_000_u64);
    let (_, second) = call(&node, "GET", "?limit=2&after=user:bob", &Value::Null).await;
    assert_eq!((names(&second), &second["next"]), (vec![json!("t1")], &Value::Null));

    for (query, status) in
        [("?token_id=t1", 200), ("?token_id=t1", 404), ("?user=eve", 404), ("", 422), ("?user=a&token_id=b", 422)]
    {
        assert_eq!(call(&node, "DELETE", query, &Value::Null).await.0, status, "{query}");
    }
    revoke(&node, json!({"user": "eve"})).await;
}

#[tokio::test]
async fn a_revocation_must_say_whose_and_until_when_clearly() {
    let node = TestNode::serve(CONFIG);
    for (body, status, code) in [
        (json!({}), 422, "bad_request"),
        (json!({"user": "ann", "token_id": "t1"}), 422, "bad_request"),
        (json!({"user": ""}), 422, "bad_user"),
        (json!({"user": 7}), 422, "bad_request"),
        (json!({"token_id": ""}), 422, "bad_request"),
        (json!({"token_id": "x".repeat(257)}), 422, "bad_request"),
        (json!({"user": "ann", "until": 1}), 422, "bad_until"),
        (json!({"user": "ann", "until": "soon"}), 422, "bad_request"),
        (json!({"user": "ann", "forever": true}), 422, "bad_request"),
        (json!(["ann"]), 422, "bad_request"),
    ] {
        let (found, answer) = call(&node, "POST", "", &body).await;
        assert_eq!((found, answer["code"].as_str()), (status, Some(code)), "{body}: {answer}");
    }
    assert_eq!(call(&node, "GET", "?after=7", &Value::Null).await.0, 422);
    assert_eq!(node.metric("fanfare_revocations").await, 0.0);
    let unknown = request(node.admin, "POST", "/api/revoke", &[], r#"{"user":"ann"}"#).await;
    assert_eq!(unknown.status, 401);
}
