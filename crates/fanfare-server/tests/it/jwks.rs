//! Public keys from a published set: a small server in the test publishes them, changes them and fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fanfare_guard::{Claims, TokenKeys};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::TestNode;

/// An Ed25519 key made of one byte: the half that signs, and the other as it is published.
pub(crate) fn key(seed: u8, kid: &str) -> (EncodingKey, Value) {
    let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let key = EncodingKey::from_ed_der(&[&prefix[..], &[seed; 32]].concat());
    let jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).expect("a public half");
    let mut jwk = serde_json::to_value(jwk).expect("JSON");
    jwk.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    jwk["kid"] = kid.into();
    (key, jwk)
}

pub(crate) fn token(key: &EncodingKey, kid: &str) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, &Claims { sub: Some("ann".to_owned()), ..Claims::default() }, key).expect("a token")
}

pub(crate) fn set(keys: &[&Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// The set is not asked for more often than once in this time, whatever strangers say.
const TEN: Duration = Duration::from_secs(10);

/// Answers every request with the status and body it was told last.
struct Publisher {
    url: String,
    says: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicUsize>,
}

impl Publisher {
    async fn start(status: u16, body: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/keys?v=1", listener.local_addr().expect("its address"));
        let says = Arc::new(Mutex::new((status, body)));
        let asked = Arc::<AtomicUsize>::default();
        let (told, count) = (says.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let byte = stream.read_u8().await;
                    let Ok(byte) = byte else { break };
                    head.push(byte);
                }
                if !head.starts_with(b"GET /keys?v=1 HTTP/1.1\r\n") {
                    continue;
                }
                count.fetch_add(1, Ordering::Relaxed);
                let (status, body) = told.lock().clone();
                let answer = format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, says, asked }
    }

    fn says(&self, status: u16, body: String) {
        *self.says.lock() = (status, body);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn node(&self) -> TestNode {
        TestNode::serve(&format!(
            "auth.jwks_url = \"{}\"\nauth.keys = [\"0123456789abcdef0123456789abcdef\"]",
            self.url
        ))
    }
}

/// How a connection with this token is received: the user, or code and reason.
pub(crate) async fn comes_in(node: &TestNode, token: &str) -> Result<Value, (u16, String)> {
    let mut client = node.connect(&format!("/ws?token={token}")).await;
    match client.next().await {
        tokio_tungstenite::tungstenite::Message::Close(Some(frame)) => {
            Err((frame.code.into(), frame.reason.to_string()))
        }
        message => Ok(serde_json::from_str::<Value>(message.to_text().expect("text")).expect("JSON")["user"].clone()),
    }
}

pub(crate) fn ann() -> Result<Value, (u16, String)> {
    Ok(json!("ann"))
}

fn refused(code: u16, why: &str) -> Result<Value, (u16, String)> {
    Err((code, why.to_owned()))
}

#[tokio::test]
async fn tokens_are_checked_with_the_published_keys() {
    let ((one, one_public), (two, _)) = (key(1, "one"), key(2, "two"));
    let secret = json!({"kty": "oct", "kid": "s", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"});
    let publisher = Publisher::start(200, set(&[&one_public, &secret])).await;
    let begun = Instant::now();
    let node = publisher.node();
    node.wait_for_metric("fanfare_jwks_keys", 1.0).await;
    assert_eq!(comes_in(&node, &token(&one, "one")).await, ann());
    assert_eq!(comes_in(&node, &token(&two, "one")).await, refused(4401, "token signature wrong"));
    // The configured secret checks on; no set is asked for that.
    let claims = Claims { sub: Some("ann".to_owned()), ..Claims::default() };
    let keys = TokenKeys::parse(["0123456789abcdef0123456789abcdef"]).expect("a fit key");
    assert_eq!(comes_in(&node, &keys.mint(&claims).expect("a token")).await, ann());

    // A storm of unknown names within ten seconds of the first fetch asks for nothing.
    for number in 0..50 {
        let stranger = token(&two, &format!("unknown{number}"));
        match comes_in(&node, &stranger).await {
            Err((4401, why)) => assert_eq!(why, "token key not known"),
            // Ten seconds later it may be one of a newer set.
            other => assert!(other == refused(4500, "token keys not available") && begun.elapsed() > TEN, "{other:?}"),
        }
    }
    let most = 1 + (begun.elapsed().as_secs() / TEN.as_secs()) as usize;
    assert!((1..=most).contains(&publisher.asked()), "{} times in {:?}", publisher.asked(), begun.elapsed());
}

#[tokio::test]
async fn before_the_first_set_tokens_are_told_to_come_back() {
    let (one, one_public) = key(1, "one");
    let publisher = Publisher::start(503, "down".to_owned()).await;
    let node = publisher.node();
    node.wait_for_metric("fanfare_jwks_fetches_total{result=\"failed\"}", 1.0).await;
    assert_eq!(comes_in(&node, &token(&one, "one")).await, refused(4500, "token keys not available"));
    assert_eq!(node.metric("fanfare_closes_total{reason=\"token_keys_unavailable\"}").await, 1.0);
    assert_eq!(node.metric("fanfare_jwks_keys").await, 0.0);
    drop(one_public);
}

#[tokio::test]
async fn what_is_no_set_is_not_taken() {
    for (status, body) in
        [(200, "<html>".to_owned()), (200, " ".repeat(300_000)), (302, String::new()), (404, set(&[]))]
    {
        let publisher = Publisher::start(status, body).await;
        let node = publisher.node();
        node.wait_for_metric("fanfare_jwks_fetches_total{result=\"failed\"}", 1.0).await;
        assert_eq!(node.metric("fanfare_jwks_fetches_total{result=\"had\"}").await, 0.0);
    }
}

#[tokio::test]
async fn an_unknown_key_makes_the_set_be_read_anew_and_an_outage_keeps_the_last() {
    let ((one, one_public), (two, two_public)) = (key(1, "one"), key(2, "two"));
    let publisher = Publisher::start(200, set(&[&one_public])).await;
    let node = publisher.node();
    node.wait_for_metric("fanfare_jwks_keys", 1.0).await;
    publisher.says(200, set(&[&two_public]));
    assert_eq!(comes_in(&node, &token(&two, "two")).await, refused(4401, "token key not known"), "just asked for");
    node.hub.settings().key_source.as_ref().expect("a source").forget_asked();
    assert_eq!(comes_in(&node, &token(&two, "two")).await, refused(4500, "token keys not available"));
    node.wait_for_metric("fanfare_jwks_fetches_total{result=\"had\"}", 2.0).await;
    assert_eq!(publisher.asked(), 2);
    assert_eq!(comes_in(&node, &token(&two, "two")).await, ann());
    assert_eq!(
        comes_in(&node, &token(&one, "one")).await,
        refused(4401, "token key not known"),
        "it is gone from the set"
    );
    // An outage: what was had last holds on.
    publisher.says(500, String::new());
    node.hub.settings().key_source.as_ref().expect("a source").forget_asked();
    assert_eq!(comes_in(&node, &token(&one, "one")).await.expect_err("it is gone").0, 4500);
    node.wait_for_metric("fanfare_jwks_fetches_total{result=\"failed\"}", 1.0).await;
    assert_eq!(comes_in(&node, &token(&two, "two")).await, ann());
}
