//! Several nodes as one gateway: a log that they share.
//!
//! Every publication goes into one ordered log, and every node reads all of it, its own posts included: a room's order is made there, once,
//! for all nodes. A [`Relay`] follows it for its node, which it knows as a [`RelayNode`](fanfare_registry::RelayNode): it takes posts from
//! it, and gives it entries, one at a time and in order. A node that was away for a while reads on where it stopped; one that was away for
//! longer than the log is kept is told to begin anew ([`fanfare_registry::RelayNode::begin`]). What the relay needs of a log is the contract of
//! `Log` in `relay.rs`, which a driver for each kind keeps.
//!
//! What it deliberately does not know: connections, HTTP, rights, what a message says.

mod answer;
mod cursor;
mod envelope;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod nats;
mod redis;
mod relay;
mod script;

pub use nats::NatsAddress;
pub use redis::RedisAddress;
pub use relay::{LogAddress, LogSettings, Relay};
