//! A client of the dialect made by hand, and calls that are signed.

use std::time::{SystemTime, UNIX_EPOCH};

use fanfare_guard::ApplicationKey;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use crate::support::{Answer, Client, TestNode, request};

/// Two applications; what is said in the first may be heard in other dialects.
pub(super) const APPS: &str = r#"
    [[pusher.apps]]
    id = "1001"
    key = "k7"
    secret = "k7-secret"
    namespace = "shop"
    client_events = true
    [[pusher.apps]]
    id = "1002"
    key = "k8"
    secret = "k8-secret"
    [namespaces.shop]
    subscribe = "anyone"
    publish = "anyone"
"#;

pub(super) const PATH: &str = "/app/k7?protocol=7&client=js&version=8.6.0&flash=false";

pub(super) fn key() -> ApplicationKey {
    ApplicationKey::new("k7", b"k7-secret")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A client that has been greeted.
pub(super) struct Pusher {
    pub(super) client: Client,
    pub(super) socket_id: String,
}

impl Pusher {
    pub(super) async fn connect(node: &TestNode) -> Self {
        Self::connect_to(node, PATH).await
    }

    pub(super) async fn connect_to(node: &TestNode, path: &str) -> Self {
        let mut client = node.connect(path).await;
        let first = client.json().await;
        assert_eq!(first["event"], "pusher:connection_established", "{first}");
        let data = first["data"].as_str().expect("data is a string");
        let data: Value = serde_json::from_str(data).expect("that holds JSON");
        assert_eq!(data["activity_timeout"], 120);
        let socket_id = data["socket_id"].as_str().expect("an id").to_owned();
        let (front, back) = socket_id.split_once('.').expect("a point");
        assert!([front, back].iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())));
        Self { client, socket_id }
    }

    /// The application's word that this client may subscribe.
    pub(super) fn auth(&self, channel: &str, channel_data: Option<&str>) -> String {
        let mut message = format!("{}:{channel}", self.socket_id);
        if let Some(data) = channel_data {
            message = format!("{message}:{data}");
        }
        format!("k7:{}", hex(&key().sign(&[message.as_bytes()])))
    }

    pub(super) async fn say(&mut self, event: Value) {
        self.client.say(event).await;
    }

    pub(super) async fn next(&mut self) -> Value {
        self.client.json().await
    }

    pub(super) async fn subscribe(&mut self, channel: &str) {
        let auth = if channel.starts_with("private-") { self.auth(channel, None) } else { String::new() };
        self.say(json!({"event": "pusher:subscribe", "data": {"auth": auth, "channel": channel}})).await;
        let succeeded = json!({"event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}"});
        assert_eq!(self.next().await, succeeded);
    }

    pub(super) async fn unsubscribe(&mut self, channel: &str) {
        self.say(json!({"event": "pusher:unsubscribe", "data": {"channel": channel}})).await;
    }

    /// The next event must be an error that names this; its code.
    pub(super) async fn error(&mut self, naming: &str) -> Value {
        let error = self.next().await;
        assert_eq!(error["event"], "pusher:error", "{error}");
        assert!(error["data"]["message"].as_str().expect("words").contains(naming), "{error}");
        error["data"]["code"].clone()
    }

    /// Subscribing must be refused; the type of the refusal.
    pub(super) async fn refused(&mut self, data: Value, naming: &str) -> String {
        let channel = data["channel"].clone();
        self.say(json!({"event": "pusher:subscribe", "data": data})).await;
        let refused = self.next().await;
        assert_eq!(
            (&refused["event"], &refused["channel"]),
            (&json!("pusher:subscription_error"), &channel),
            "{refused}"
        );
        assert!(refused["data"]["error"].as_str().expect("words").contains(naming), "{refused}");
        refused["data"]["type"].as_str().expect("a type").to_owned()
    }

    /// Shows that nothing is under way but what others cause: the answer to a ping comes next.
    pub(super) async fn expect_nothing(&mut self) {
        self.say(json!({"event": "pusher:ping", "data": {}})).await;
        assert_eq!(self.next().await, json!({"event": "pusher:pong", "data": {}}));
    }
}

/// A signed call of the first application's API. `query` comes before what is signed with.
pub(super) async fn call(node: &TestNode, method: &str, path: &str, query: &[(&str, &str)], body: &str) -> Answer {
    let path_and_query = signed(&key(), method, path, query, body);
    request(node.clients, method, &path_and_query, &[("Content-Type", "application/json")], body).await
}

/// The path with its query, signed.
pub(super) fn signed(key: &ApplicationKey, method: &str, path: &str, query: &[(&str, &str)], body: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut pairs: Vec<(String, String)> = query.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    pairs.push(("auth_key".into(), key.key().into()));
    pairs.push(("auth_timestamp".into(), now.to_string()));
    pairs.push(("auth_version".into(), "1.0".into()));
    if !body.is_empty() {
        pairs.push(("body_md5".into(), hex(&Md5::digest(body))));
    }
    pairs.sort();
    let query: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = query.join("&");
    let signature = hex(&key.sign(&[format!("{method}\n{path}\n{query}").as_bytes()]));
    format!("{path}?{query}&auth_signature={signature}")
}

/// Publishes one event; it must be taken.
pub(super) async fn publish(node: &TestNode, body: Value) -> Value {
    let answer = call(node, "POST", "/apps/1001/events", &[], &body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}
