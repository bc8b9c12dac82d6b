//! One connection as its shard's loop keeps it. Small: an idle client is this, a lane and a socket.

use std::time::Duration;

use fanfare_fanout::LaneId;
use fanfare_guard::Identity;
use fanfare_protocol::{Session, UserName, wire::Decoder};

use super::allowance::Allowance;
use super::heartbeat::Heartbeat;
use super::leaving::Tenths;
use super::moment::Moment;
use crate::gate::Permit;
use crate::token::HeldToken;

/// A connection from adoption to its end. Owned by the loop; no lock.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) lane: LaneId,
    pub(super) session: Session,
    /// `None` for the many of whom nobody knows who they are.
    pub(super) person: Option<Box<Person>>,
    /// When it began.
    pub(super) began: Moment,
    pub(super) decoder: Decoder,
    pub(super) phase: Phase,
    /// The timer entry that counts; others are stale.
    pub(super) armed: Moment,
    /// Waiting in the loop's queue of connections to read.
    pub(super) is_ready: bool,
    /// The peer has ended its side: read until the end is seen.
    pub(super) has_hung_up: bool,
    /// Not read until its own replies, or the shards it publishes to, have room again.
    pub(super) is_paused: bool,
    /// In the loop's list of those paused because a shard is behind: only that ends its pause, whatever it takes or is told meanwhile.
    pub(super) is_pressed: bool,
    /// The loop has what had been read when it was paused: seen to first when it goes on.
    pub(super) has_unread: bool,
    /// What it has sent although it may only listen, bytes.
    pub(super) ignored_bytes: u16,
    /// Acks it asked for that have not come back from the shards yet.
    pub(super) acks_owed: u32,
    /// When it last said something. What it is told is known by its rooms.
    pub(super) spoke: Tenths,
    /// Messages it and its user may still send, where that is bounded.
    pub(super) allowance: Option<Box<Allowance>>,
    /// Its place at the gate, and where its client is.
    pub(super) permit: Permit,
}

/// There are a million of these: what only some connections need is behind a box, or in a table of the loop's by the index of their lane.
/// The next size that the allocator has is a fifth more.
const _: () = assert!(size_of::<Connection>() <= 160);

/// Who a connection belongs to.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) identity: Identity,
    /// What is kept of the token it came with.
    pub(super) token: Option<Box<HeldToken>>,
    /// The directory of users has the connection under its user's name.
    pub(super) is_known: bool,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// It is served, for as long as its client lives.
    Open(Heartbeat),
    /// The close frame is out or on its way; until `deadline` the peer may answer it.
    Closing {
        deadline: Moment,
        peer_has_closed: bool,
        /// Its bytes make no sense any more: they are read and let go.
        is_deaf: bool,
    },
}

/// Somebody of whom nothing is known.
static NOBODY: Identity = Identity { user: None, grants: None, guest: None };

impl Person {
    /// `None`: it is nobody.
    pub(super) fn new(identity: Identity, token: Option<Box<HeldToken>>) -> Option<Box<Self>> {
        let is_somebody = token.is_some() || identity != NOBODY;
        is_somebody.then(|| Box::new(Self { identity, token, is_known: false }))
    }
}

impl Connection {
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    pub(super) fn identity(&self) -> &Identity {
        self.person.as_deref().map_or(&NOBODY, |person| &person.identity)
    }

    /// The user it belongs to.
    pub(super) fn user(&self) -> Option<&UserName> {
        self.identity().user.as_ref()
    }

    /// What is kept of the token it came with.
    pub(super) fn token(&self) -> Option<&HeldToken> {
        self.person.as_deref()?.token.as_deref()
    }

    pub(super) fn token_mut(&mut self) -> Option<&mut HeldToken> {
        self.person.as_deref_mut()?.token.as_deref_mut()
    }

    /// Whether its client lives, while it is served.
    pub(super) fn heartbeat(&mut self) -> Option<&mut Heartbeat> {
        match &mut self.phase {
            Phase::Open(heartbeat) => Some(heartbeat),
            Phase::Closing { .. } => None,
        }
    }

    /// How long it has been here.
    pub(super) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.began.into())
    }
}
