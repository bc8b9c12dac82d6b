//! The seam to the backplane: what a node puts into the log that nodes share, what comes back out of it, and what the relay, the
//! driver of that log, asks of its node. Who implements which half is introduced to the other by the server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use fanfare_protocol::{Payload, RoomName, UserName};

use crate::history::Portion;

/// What a node asks the log to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// The room.
    pub room: RoomName,
    /// What is to happen in it.
    pub act: Act,
}

/// What a post does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Something is said.
    Publish {
        /// Who says it.
        user: Option<UserName>,
        /// What is said.
        payload: Payload,
        /// The connection of the posting node to leave out: three numbers that mean something to that node alone.
        except: Option<[u32; 3]>,
        /// The room keeps what is said: the log counts its publications.
        is_kept: bool,
    },
    /// The room is closed for all.
    Close,
}

impl Post {
    /// Bytes it is charged in queues: what the user wrote, and a round sum for the rest.
    #[must_use]
    pub fn charge(&self) -> usize {
        const OVERHEAD_BYTES: usize = 256;
        match &self.act {
            Act::Publish { payload, .. } => payload.len() + OVERHEAD_BYTES,
            Act::Close => OVERHEAD_BYTES,
        }
    }
}

/// A post that the log has taken: every node gets it, at the same place of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The node that posted it.
    pub node: u64,
    /// Its number among that node's posts.
    pub number: u64,
    /// When the log took it: milliseconds since 1970, on the log's clock.
    pub at_ms: u64,
    /// The publication's number in its room, where the log counts them: dense from 1.
    pub offset: Option<u64>,
    /// What was posted.
    pub post: Post,
}

/// What a node did with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an entry that was not applied must be given again"]
pub enum Applied {
    /// It is applied.
    Done,
    /// A shard is over its bound. Nothing was done: give it again in a moment, and nothing else before it.
    Busy,
}

/// A node, as its relay sees it. All but `posts_after` and `on_post` is called by the relay's one thread, in the log's order.
pub trait RelayNode: Send + Sync {
    /// Tells this run of this node from all others.
    fn number(&self) -> u64;

    /// Posts with higher numbers than `number`, the oldest first. They stay with the node until they come back as entries, or are overdue.
    fn posts_after(&self, number: u64, portion: &Portion) -> Vec<(u64, Post)>;

    /// Calls `wake` whenever there is another post, on the thread that posts. Set once.
    fn on_post(&self, wake: Box<dyn Fn() + Send + Sync>);

    /// Begins to follow a log of this epoch, from its oldest entry on. Whatever the node knew of rooms is over, and who was in them is told
    /// to come back. `offsets` says how far each room has counted by now: entries that tell of it may come, or may be kept no more.
    fn begin(&self, epoch: u64, offsets: HashMap<RoomName, u64>);

    /// The next entry.
    fn apply(&self, entry: &Entry) -> Applied;

    /// All there was when the node began is applied: it may serve.
    fn caught_up(&self);

    /// Posts that have waited too long are given up, and their publishers told. Called every now and then.
    fn tell_overdue(&self);

    /// Posts that have not come back yet.
    fn posts_waiting(&self) -> usize;

    /// What there is to see of it.
    fn relay_stats(&self) -> &RelayStats;
}

/// What a relay does, for whoever looks. Written by its thread.
#[derive(Debug, Default)]
pub struct RelayStats {
    /// There is a connection.
    pub is_connected: AtomicBool,
    /// What the log knew when the node began to follow it is applied.
    pub is_caught_up: AtomicBool,
    /// Times a connection was lost, or could not be made.
    pub failures: AtomicU64,
    /// Posts of this node that the log has taken.
    pub appended: AtomicU64,
    /// Entries applied, of all nodes.
    pub applied: AtomicU64,
    /// Number of the last entry applied.
    pub position: AtomicU64,
    /// Number of the last entry that the log is known to have.
    pub known: AtomicU64,
    /// Times the node had to begin anew, because part of the log was gone before it was read, or all of it.
    pub restarts: AtomicU64,
    /// Entries that could not be understood.
    pub unreadable: AtomicU64,
    /// Posts that were given up.
    pub overdue: AtomicU64,
    /// The longest message that the log takes, bytes; 0: any.
    pub message_bytes_max: AtomicUsize,
}
