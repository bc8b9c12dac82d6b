//! The small async client that tests, the load generator and users share.
//!
//! - [`connect`] opens a WebSocket and gives a [`Connection`]: [`Connection::next`] for what comes in, `send_…` for what
//!   goes out. Both are cancel safe, so they may stand in `select!`.
//! - [`Event`] reads the JSON dialect, [`Command`] writes it. The text dialect needs neither.
//! - [`ApiClient`] asks the HTTP API of the admin listener.
//! - [`HttpPublisher`] publishes through the admin listener and returns the [`Receipt`].
//! - [`Backoff`] and [`may_return`] say whether and when to come back after a close.
//! - [`Trust`] says whose certificates count where the address is `wss://` or `https://`.
//!
//! It never reconnects by itself, keeps no queue of its own beyond the bytes that wait to be written, and rolls no dice: the
//! caller passes them in.
//!
//! What it deliberately does not know: how the gateway works. It shares names, positions and close codes with it, and reads and writes frames by a codec of
//! its own, so that a mistake of one side is not made by both.

mod backoff;
mod connection;
mod dialect;
mod error;
mod handshake;
mod http;
mod pump;
mod stream;
mod tls;
mod url;

pub use backoff::{Backoff, advice, may_return};
pub use connection::{Connection, Incoming};
pub use dialect::{Command, Event};
pub use error::{Error, Refusal};
pub use fanfare_protocol::{CloseCode, NameError, Position, RoomName};
pub use handshake::{ConnectOptions, connect};
pub use http::{ApiClient, HttpPublisher, Message, Receipt};
pub use tls::{TlsFailure, Trust};
pub use url::Url;
