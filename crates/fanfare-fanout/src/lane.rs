//! One connection as fan-out sees it.

use smallvec::SmallVec;

use crate::Slow;
use crate::outbox::Outbox;

/// A lane's place in its shard, and the life it had there: a reused place has another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneId {
    /// Place in the shard's tables; sinks and the connection table use the same.
    pub index: u32,
    /// Tells lives of one place apart.
    pub generation: u32,
}

/// A room a lane listens to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subscription {
    /// The room's place in the shard.
    pub(crate) room: u32,
    /// The lane's place among the room's members.
    pub(crate) position: u32,
}

/// Whether anything more is queued for a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It is.
    Open,
    /// It reached a bound; its owner has been told.
    Evicted,
    /// It has been given its last words.
    Closing,
    /// Its socket failed; its owner has been told.
    Gone,
}

impl End {
    /// True while a receipt speaks of the lane: as delivered, or as evicted. Who was said goodbye to for another reason, or
    /// failed, is no subscriber any more.
    pub(crate) fn counts(self) -> bool {
        matches!(self, Self::Open | Self::Evicted)
    }
}

/// What is queued for a connection, and what it listens to. Owned by its shard; no lock.
#[derive(Debug)]
pub(crate) struct LaneState {
    pub(crate) generation: u32,
    /// The last round of sends it was in.
    pub(crate) round: u32,
    pub(crate) variant: u8,
    pub(crate) end: End,
    /// The rest of a frame that was begun could not be kept: nothing may be written any more, not even a close frame.
    pub(crate) is_torn: bool,
    /// In the shard's list of lanes that have something queued.
    pub(crate) is_listed: bool,
    /// The policy of the room that it was last queued something of.
    pub(crate) slow: Slow,
    /// `None` while everything was taken.
    pub(crate) outbox: Option<Box<Outbox>>,
    pub(crate) subscriptions: SmallVec<[Subscription; 2]>,
}

impl LaneState {
    pub(crate) fn position_in(&self, room: u32) -> Option<u32> {
        self.subscriptions.iter().find(|s| s.room == room).map(|s| s.position)
    }
}
