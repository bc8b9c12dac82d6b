//! The one integration binary: real sockets on port 0, and the rules of the house.
#![allow(clippy::unwrap_used)]

mod api;
mod arrows;
mod bounds;
mod closes;
mod deflate;
mod deploy;
mod dialect;
mod drain;
mod frames;
mod handshake;
mod heartbeat;
mod history;
mod idempotency;
mod inspect;
mod leaks;
mod limits;
mod metrics;
mod moderation;
mod people;
mod policies;
mod process;
mod proxies;
mod races;
mod refresh;
mod revoke;
mod script;
mod security;
mod slow;
mod sse;
mod support;
mod tidy;
mod tls;
mod tokens;
mod tutorials;
