//! One frame into many bounded outboxes, and what happens at the bound.
//!
//! A [`Shard`] is the part of the node's audience that one thread serves. It holds a *lane* per connection (what is queued
//! for it, what it listens to) and the rooms that have members here. [`Shard::accept`] takes a publication and encodes it at
//! most once per variant into its room's *batch*, one contiguous buffer; [`Shard::flush`] offers that buffer to each member through a
//! [`Sink`]. A member that takes all of it costs nothing else: no queue, no reference count, no allocation. What a member does not take becomes
//! its *outbox*, bounded in messages and bytes. At the bound its room's policy ([`Slow`]) says what happens, to that member and nobody else: it
//! is closed, or it misses messages and is told which by a [`Gap`].
//!
//! Between threads there are three things: the [`Intake`] (a shard's bounded queue), the [`Wake`] that ends its sleep, and the
//! [`Receipt`] that shards fill with what became of a publication. Process-wide there is the [`Budget`].
//!
//! What this crate deliberately does not know: room names, users, JSON, WebSocket, sockets, clocks, tasks.

mod batch;
mod budget;
mod intake;
mod lane;
mod latencies;
mod outbox;
mod policy;
mod receipt;
mod room;
mod shard;
mod sink;
mod sync;

pub use batch::{Encode, VARIANTS_MAX};
pub use budget::Budget;
pub use intake::{Intake, IntakeLimits, Overloaded, Wake};
pub use lane::LaneId;
pub use latencies::{LATENCY_BOUNDS_US, Latencies};
pub use outbox::{Lane, OutboxLimits, Queued};
pub use policy::{Gap, Slow};
pub use receipt::{Delivery, Receipt};
pub use room::RoomId;
pub use shard::{FlushQuota, LaneEvent, Progress, Released, Shard, ShardStats};
pub use sink::{Offer, Outcome, Sink};
