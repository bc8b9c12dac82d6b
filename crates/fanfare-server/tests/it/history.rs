//! What was said before: numbers, pages, and coming back without a gap.

mod behind;
mod coming_back;
mod kept;
mod pages;

use fanfare_edge::Hub;
use fanfare_guard::{NamespacePolicy, Namespaces};
use fanfare_protocol::RoomName;
use fanfare_server::config::{Config, ConfigFile, Environment, Flags};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::process::{Lines, Process};
use crate::support::{Answer, Client, Raw, TestNode, request, wait_until, within};

const KEEPS_FIVE: &str = "namespaces.default.history_size = 5";

/// Publishes over the API and returns the receipt.
async fn publish(node: &TestNode, room: &str, message: Value) -> Value {
    let body = json!({"room": room, "message": message}).to_string();
    let answer = request(node.admin, "POST", "/api/publish", &[], &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn publish_numbers(node: &TestNode, room: &str, numbers: std::ops::RangeInclusive<u64>) -> String {
    let mut epoch = String::new();
    for number in numbers {
        let receipt = publish(node, room, json!(number)).await;
        assert_eq!(receipt["offset"], number);
        epoch = receipt["epoch"].as_str().expect("an epoch").to_owned();
    }
    epoch
}

async fn get(node: &TestNode, path: &str) -> Answer {
    request(node.admin, "GET", path, &[], "").await
}

fn numbers(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().expect("a list");
    messages.iter().map(|message| message["offset"].as_u64().expect("a number")).collect()
}

/// Numbers of the messages that come next; each says its own number.
async fn hear(client: &mut Client, offsets: impl IntoIterator<Item = u64>) {
    for offset in offsets {
        let message = client.event("message").await;
        assert_eq!((&message["offset"], &message["message"]), (&json!(offset), &json!(offset)));
    }
}

fn room(hub: &Hub, name: &str) -> bool {
    hub.registry().get(&RoomName::parse(name).expect("a valid name")).is_some()
}
