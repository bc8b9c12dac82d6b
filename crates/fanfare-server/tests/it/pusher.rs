//! The Pusher dialect and its HTTP API, as its clients and server libraries speak them.

mod api;
mod cache;
mod channels;
mod connecting;
mod presence;
mod saying;
mod support;
mod users;
