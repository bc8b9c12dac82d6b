//! The tutorial systems that the gateway grew from: each must work. One or more tests a system, named by its number.

mod echo;
mod people;
mod rooms;
mod whole;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::process::Process;
use crate::support::{Client, Raw, TestNode, close_frame, frame, handshake, metric, request, wait_until};
