//! Several nodes as one gateway: a log that they share.
//!
//! Every publication goes into one ordered log, and every node reads all of it, its own posts included: a room's order is made there, once,
//! for all nodes. A [`Relay`] is the driver of one kind of log; [`redis`] is the one there is. It knows its node as a
//! [`RelayNode`](fanfare_registry::RelayNode), takes posts from it, and gives it entries, one at a time and in order. A node that was away for a while reads
//! on where it stopped; one that was away for longer than the log is kept is told to begin anew ([`fanfare_registry::RelayNode::begin`]).
//!
//! What it deliberately does not know: connections, HTTP, rights, what a message says.

mod answer;
mod cursor;
mod envelope;
pub mod redis;
mod script;

pub use redis::{RedisAddress, RedisSettings, Relay};
