//! One connection as its shard's loop keeps it. Small: an idle client is this, a lane and a socket.

use std::time::Duration;

use fanfare_fanout::LaneId;
use fanfare_guard::{Bucket, Identity};
use fanfare_protocol::{CloseReason, Session, UserName, wire::Decoder};

use super::heartbeat::Heartbeat;
use super::leaving::Tenths;
use crate::gate::Permit;
use crate::token::HeldToken;

/// A connection from adoption to its end. Owned by the loop; no lock.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) lane: LaneId,
    pub(super) session: Session,
    pub(super) identity: Identity,
    /// When it began, on the node's clock, milliseconds.
    pub(super) began_ms: u64,
    /// What is kept of the token it came with.
    pub(super) token: Option<Box<HeldToken>>,
    /// The name under which the directory of users has it.
    pub(super) known_as: Option<UserName>,
    pub(super) decoder: Decoder,
    pub(super) heartbeat: Heartbeat,
    pub(super) phase: Phase,
    /// The timer entry that counts; others are stale.
    pub(super) armed: Duration,
    /// Waiting in the loop's queue of connections to read.
    pub(super) is_ready: bool,
    /// The peer has ended its side: read until the end is seen.
    pub(super) has_hung_up: bool,
    /// Not read until its own replies, or the shards it publishes to, have room again.
    pub(super) is_paused: bool,
    /// In the loop's list of those paused because a shard is behind: only that ends its pause, whatever it takes or is told meanwhile.
    pub(super) is_pressed: bool,
    /// What had been read when it was paused, at most one read's worth: seen to first when it goes on.
    pub(super) unread: Option<Box<[u8]>>,
    /// What it has sent although it may only listen, bytes.
    pub(super) ignored_bytes: u16,
    /// Acks it asked for that have not come back from the shards yet.
    pub(super) acks_owed: u32,
    /// When it last said something. What it is told is known by its rooms.
    pub(super) spoke: Tenths,
    /// Messages it may still send, where that is bounded.
    pub(super) rate: Option<Box<Bucket>>,
    /// Its place at the gate, and where its client is.
    pub(super) permit: Permit,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The close frame is out or on its way; until `deadline` the peer may answer it.
    Closing {
        reason: CloseReason,
        deadline: Duration,
        peer_has_closed: bool,
        /// Its bytes make no sense any more: they are read and let go.
        is_deaf: bool,
    },
}

impl Connection {
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }
}
