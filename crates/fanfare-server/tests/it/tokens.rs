//! Tokens over real sockets: three ways to bring one, what it grants, and how it ends.

use std::time::{SystemTime, UNIX_EPOCH};

use fanfare_guard::{Claims, RoomRight, TokenKeys};
use serde_json::json;

use crate::support::{Client, TestNode};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const CONFIG: &str = "auth.keys = [\"0123456789abcdef0123456789abcdef\"]\n\
    [namespaces.staff]\nsubscribe = \"token\"\npublish = \"token\"";

/// A token for ann that ends `seconds` from now, with rights in the rooms of `staff:`.
fn token(seconds: i64, rights: &[RoomRight]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let exp = Some(now.saturating_add_signed(seconds));
    let rooms = [("staff:*".to_owned(), rights.to_vec())].into();
    let claims = Claims { sub: Some("ann".to_owned()), exp, rooms, ..Claims::default() };
    TokenKeys::parse([SECRET]).expect("a fit key").mint(&claims).expect("a token")
}

#[tokio::test]
async fn a_token_is_taken_from_the_query_the_header_or_a_subprotocol() {
    let node = TestNode::serve(CONFIG);
    let token = token(60, &[RoomRight::Subscribe]);
    let (bearer, entry) = (format!("Bearer {token}"), format!("chat, fanfare.token.{token}"));
    for (path, headers) in [
        (format!("/ws?token={token}"), vec![]),
        ("/ws".to_owned(), vec![("Authorization", bearer.as_str())]),
        ("/ws".to_owned(), vec![("Sec-WebSocket-Protocol", entry.as_str())]),
    ] {
        let (mut client, _) = Client::try_connect(node.clients, &path, &headers).await.expect("let in");
        assert_eq!(client.json().await["user"], "ann", "{path} {headers:?}");
    }
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_4401_and_says_why() {
    let node = TestNode::serve(CONFIG);
    let expired = token(-60, &[]);
    for (token, why) in [
        (expired.as_str(), "token expired"),
        ("abc", "token malformed"),
        ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.", "token algorithm not accepted"),
        (
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
            "token signature wrong",
        ),
    ] {
        let mut client = node.connect(&format!("/room/lobby?token={token}")).await;
        assert_eq!(client.closed().await, (4401, why.to_owned()), "{token}");
    }
    assert_eq!(node.metric("fanfare_closes_total{reason=\"token_refused\"}").await, 4.0);
    // Without keys no token can be checked, and one that cannot be checked does not hold.
    let keyless = TestNode::serve("");
    let mut client = keyless.connect(&format!("/ws?token={expired}")).await;
    assert_eq!(client.closed().await.0, 4401);
    // A name without a token needs `auth.guests`.
    let mut client = keyless.connect("/ws?name=Ada").await;
    assert_eq!(client.closed().await.0, 4401);
}

#[tokio::test]
async fn a_token_grants_what_it_says_and_nothing_else() {
    let node = TestNode::serve(CONFIG);
    let mut reader = node.connect(&format!("/ws?token={}", token(60, &[RoomRight::Subscribe]))).await;
    reader.event("welcome").await;
    reader.subscribe("staff:1").await;
    let refused = reader.ask(json!({"name": "publish", "room": "staff:1", "message": 1, "id": 1})).await;
    assert_eq!(refused["code"], "not_allowed");

    let rights = [RoomRight::Publish, RoomRight::Moderate];
    let mut writer = node.connect(&format!("/ws?token={}", token(60, &rights))).await;
    writer.event("welcome").await;
    let refused = writer.ask(json!({"name": "subscribe", "room": "staff:1"})).await;
    assert_eq!(refused["code"], "not_allowed");
    let ack = writer.ask(json!({"name": "publish", "room": "staff:1", "message": "hi", "id": 2})).await;
    assert_eq!((&ack["name"], &ack["delivered"]), (&json!("ack"), &json!(1)));
    assert_eq!(reader.json().await, json!({"name": "message", "message": "hi", "room": "staff:1", "user": "ann"}));
    writer.say(json!({"name": "close", "room": "staff:1"})).await;
    assert_eq!(reader.json().await["name"], "room_closed");

    let mut stranger = node.connect("/room/staff:1").await;
    assert_eq!(stranger.closed().await, (4403, "not allowed".to_owned()));
}

#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let node = TestNode::serve(CONFIG);
    // The skew between clocks is granted to one that comes after its end: this one has some seconds left of it.
    let mut client = node.connect(&format!("/room/staff:1?token={}", token(-26, &[RoomRight::Subscribe]))).await;
    client.event("expires").await;
    let (code, why) = client.closed().await;
    assert_eq!((code, why.as_str()), (4401, "token expired, connect with a new one"));
}
