//! The admin listener: health, the API of backends, and who may call it.

mod access;
mod publishing;
mod requests;
mod rooms;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use fanfare_server::config::{Config, ConfigFile, Environment, Flags};
use fanfare_server::node::Node;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Answer, Client, Raw, TestNode, request, within};

const TEXT: (&str, &str) = ("Content-Type", "text/plain");

async fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, &[], "").await
}

async fn publish(admin: SocketAddr, body: &Value) -> Answer {
    request(admin, "POST", "/api/publish", &[("Content-Type", "application/json")], &body.to_string()).await
}

/// Publishes and returns the receipt.
async fn receipt(admin: SocketAddr, body: Value) -> Value {
    let answer = publish(admin, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

/// Delivered, dropped, evicted.
fn counts(receipt: &Value) -> (u64, u64, u64) {
    let count = |name: &str| receipt[name].as_u64().unwrap_or_else(|| panic!("no {name} in {receipt}"));
    (count("delivered"), count("dropped"), count("evicted"))
}

/// A raw request on a connection that stays open.
fn request_text(method: &str, path: &str, more: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n{more}\r\n{body}", body.len())
}
