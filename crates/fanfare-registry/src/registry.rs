//! The registry: the doors through which connections and the API reach rooms.

mod hidden;
mod join;
mod life;
mod publish;
mod recovery;
mod shared;

pub use join::{Absence, JoinError, Joined, Members, NewMember};
pub use publish::{Draft, PublishError, Receipted};
pub use shared::Stamped;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use fanfare_fanout::Intake;
use fanfare_protocol::RoomName;

use crate::bounds::Beyond;
use crate::directory::Directory;
use crate::history::Portion;
use crate::item::Item;
use crate::keeping::Keeping;
use crate::room::{Room, RoomInfo};
use crate::sync::Mutex;

/// Bounds of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistryLimits {
    /// Rooms at the same time. Beyond, the vacant room with a history that nobody has used for longest makes place; where there is
    /// none, joining and publishing to a new room are refused.
    pub rooms_max: usize,
    /// What is beyond `rooms_max`, or beyond what a room takes on, is let pass all the same, and counted; rooms when no other can make place.
    pub observes: bool,
    /// Bytes of all histories together. Beyond, vacant rooms make place in the same way, then a room's own oldest messages.
    pub history_bytes_max: usize,
    /// How much of what somebody missed is read in one go.
    pub replay: Portion,
}

impl Default for RegistryLimits {
    fn default() -> Self {
        let replay = Portion { messages_max: 256, bytes_max: 64 * 1024 };
        Self { rooms_max: 1_000_000, observes: false, history_bytes_max: usize::MAX, replay }
    }
}

/// Totals, readable from any thread.
#[derive(Debug, Default)]
pub struct RegistryStats {
    /// Rooms now.
    pub rooms: AtomicUsize,
    /// Subscriptions now.
    pub subscriptions: AtomicUsize,
    /// Publications accepted.
    pub published: AtomicU64,
    /// Publications refused because a shard was over its bound.
    pub overloaded: AtomicU64,
    /// Rooms reaped.
    pub reaped: AtomicU64,
    /// Of these, rooms that had a history and made place for others.
    pub evicted: AtomicU64,
    /// Publications that were not kept, or not for as long as their room would have, because of the bound on all histories.
    pub cut: AtomicU64,
    /// Rooms that were one too many.
    pub beyond_rooms: Beyond,
    /// Subscribers that were one too many for their room.
    pub beyond_subscribers: Beyond,
    /// Publications that came too fast for their room.
    pub beyond_rate: Beyond,
    /// Members that came back and were given all they had missed.
    pub recovered: AtomicU64,
    /// Members that came back and had missed what was not kept any more.
    pub unrecovered: AtomicU64,
    /// Publications of a shared log that were delivered and not kept, because whoever posted them keeps nothing in their rooms.
    pub unnumbered: AtomicU64,
}

/// The rooms of this node. Shared by all shards and the API.
pub struct Registry<O> {
    rooms: Directory,
    shards: Box<[Arc<Intake<Item<O>>>]>,
    limits: RegistryLimits,
    /// Those of the limits that may change.
    rooms_max: AtomicUsize,
    observes: AtomicBool,
    stats: RegistryStats,
    ids: AtomicU64,
    epoch_seed: u64,
    /// Rooms that became vacant since the last sweep, each once.
    vacated: Mutex<Vec<Arc<Room>>>,
    /// Rooms with a history.
    keeping: Keeping,
    /// Whether there is something in `shared`; it is there for good then.
    is_shared: AtomicBool,
    /// The log whose order the rooms follow, if it is not made here. A leaf among the locks.
    shared: Mutex<Option<shared::FollowedLog>>,
}

impl<O> Registry<O> {
    /// An empty registry over these shards. `epoch_seed` is the dice: epochs of two runs must not be alike.
    pub fn new(shards: Vec<Arc<Intake<Item<O>>>>, limits: RegistryLimits, epoch_seed: u64) -> Self {
        Self {
            rooms: Directory::default(),
            shards: shards.into(),
            limits,
            rooms_max: AtomicUsize::new(limits.rooms_max),
            observes: AtomicBool::new(limits.observes),
            stats: RegistryStats::default(),
            ids: AtomicU64::new(1),
            epoch_seed,
            vacated: Mutex::new(Vec::new()),
            keeping: Keeping::new(limits.history_bytes_max),
            is_shared: AtomicBool::new(false),
            shared: Mutex::new(None),
        }
    }

    /// Other bounds from here on; `replay` stays as it was. Rooms beyond them stay. Histories beyond theirs make place with the next
    /// publications, and vacant rooms of theirs with the next [`Self::expire`].
    pub fn set_limits(&self, limits: &RegistryLimits) {
        self.rooms_max.store(limits.rooms_max, Ordering::Relaxed);
        self.observes.store(limits.observes, Ordering::Relaxed);
        self.keeping.budget.set_bytes_max(limits.history_bytes_max);
    }

    /// Bytes of all histories together, and how many there may be.
    #[must_use]
    pub fn history_bytes(&self) -> (usize, usize) {
        (self.keeping.budget.used(), self.keeping.budget.bytes_max())
    }

    /// Totals.
    #[must_use]
    pub fn stats(&self) -> &RegistryStats {
        &self.stats
    }

    /// The intakes, by shard.
    #[must_use]
    pub fn shards(&self) -> &[Arc<Intake<Item<O>>>] {
        &self.shards
    }

    /// The room of this name, if it exists.
    #[must_use]
    pub fn get(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.rooms.get(name)
    }

    /// Up to `limit` rooms whose names begin with `prefix` and come after `after`, in the order of their names.
    #[must_use]
    pub fn list(&self, prefix: &str, after: &str, limit: usize) -> Vec<RoomInfo> {
        let mut names = std::collections::BTreeMap::new();
        self.rooms.for_each(|room| {
            let name = room.name().as_str();
            if name.starts_with(prefix) && name > after {
                names.insert(room.name().clone(), room.clone());
                if names.len() > limit {
                    names.pop_last();
                }
            }
        });
        names.into_values().map(|room| room.info()).collect()
    }

    /// Rooms with somebody in them that `wanted` picks by name.
    #[must_use]
    pub fn occupied(&self, wanted: impl Fn(&RoomName) -> bool) -> Vec<RoomName> {
        let mut rooms = Vec::new();
        self.rooms.for_each(|room| {
            if wanted(room.name()) {
                rooms.push(room.clone());
            }
        });
        rooms.into_iter().filter(|room| room.lock().occupancy > 0).map(|room| room.name().clone()).collect()
    }

    /// Counts what is beyond a bound. Says whether it is let pass.
    #[cold]
    fn lets_pass(&self, beyond: &Beyond) -> bool {
        beyond.count(self.observes.load(Ordering::Relaxed))
    }
}

impl<O> fmt::Debug for Registry<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("stats", &self.stats).finish_non_exhaustive()
    }
}
