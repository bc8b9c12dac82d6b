//! The words and the grammar of Fanfare: names, commands, events, dialects, WebSocket frames, and the session as a value.
//!
//! Everything here is a plain value. Nothing in this crate has a socket, a clock, a task or a source of randomness: bytes
//! come in as slices, time comes in as an argument, and what should happen comes out as an [`Action`]. That is what lets
//! proptest, the fuzzers and the seeded simulation drive a session at millions of steps a second.
//!
//! - [`wire`] is RFC 6455: an incremental [`wire::Decoder`] for what clients send, and functions that append server frames.
//! - [`Session`] is one client's conversation: a decoded message goes in, one [`Action`] comes out.
//! - [`RoomEvent`] and [`Event`] are what the gateway tells clients; a [`Variant`] turns them into wire-ready frames.
//! - [`pusher`] has the words of Pusher Channels, another dialect.
//! - [`Rate`] says how often something may happen.
//! - [`CloseReason`] names every way a connection can end: code, text and metric label in one table.
//!
//! What it deliberately does not know: who else is connected, which rooms exist, whether a command is allowed.

mod close;
mod command;
mod depth;
mod dialect;
mod event;
mod limits;
mod name;
mod payload;
pub mod pusher;
mod rate;
mod session;
pub mod wire;

pub use close::{CloseCode, CloseReason};
pub use command::{Action, ErrorCode, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, PRESENCE_LIMIT_MAX, ReplyId, Target};
pub use depth::{JSON_DEPTH_MAX, nests_deeper};
pub use dialect::{Dialect, VARIANTS, Variant, WIRE_FORMS, WireForm, sse};
pub use event::{Event, HistoryPage, Past, Position, Published, RoomEvent};
pub use limits::{HeartbeatLimits, MessageLimits};
pub use name::{NameError, RoomName, UserName};
pub use payload::{Payload, PayloadRef};
pub use rate::{Rate, nanos};
pub use session::{Mode, Session};
