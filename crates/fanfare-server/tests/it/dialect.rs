//! The JSON and text dialects as clients meet them: commands, replies, order, and messages passed through byte for byte.

mod messages;
mod mistakes;
mod one_room;
mod order;
mod rooms;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{Client, TestNode, frame, request, wait_until};

/// A client on `/ws` that has been welcomed.
async fn welcomed(node: &TestNode) -> Client {
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    client
}

/// The `message` of a message event as it was written, to the byte.
fn raw_message(event: &str) -> &str {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        message: &'a RawValue,
    }
    let event: Event<'_> = serde_json::from_str(event).unwrap_or_else(|error| panic!("{error} in {event}"));
    event.message.get()
}

/// The two things a subscribed publisher hears, in either order: acks go before data.
async fn message_and_ack(client: &mut Client) -> (Value, Value) {
    let (first, second) = (client.json().await, client.json().await);
    let (message, ack) = if first["name"] == "ack" { (second, first) } else { (first, second) };
    assert_eq!((&message["name"], &ack["name"]), (&json!("message"), &json!("ack")));
    (message, ack)
}
