//! The rooms of this node: who decides their order, who is in them, and when they end.
//!
//! A [`Registry`] maps names to [`Room`]s. A room's short lock is the one place where its order is made: a publication gets its
//! number there and one reference to it goes to the [`Intake`](fanfare_fanout::Intake) of every shard that has members, so all shards, all
//! subscribers and all offsets agree. What a shard does with it is `fanfare-fanout`'s affair.
//!
//! A room may keep the latest of what was said, bounded by count, bytes and age. Who comes back takes what it missed and its place in one
//! step under that lock, so what follows begins exactly where it ends.
//!
//! A room is occupied, vacant or reaped; it is reaped when it is vacant and keeps nothing any more. Joining a reaped room fails, and the registry makes a new one with a new epoch; so no member can
//! enter a room that is being taken away.
//!
//! Where several nodes share a log, the order is made there: what comes out of it is applied with the numbers it has ([`Registry::apply`]), and
//! [`RelayNode`] is the seam to whoever reads it.
//!
//! [`Users`] knows who is here: the connections of each user, and whose a name is.
//!
//! What this crate deliberately does not know: sockets, dialects, rights, time of day, tasks.

mod bounds;
mod directory;
mod history;
mod item;
mod keeping;
#[cfg(all(test, loom))]
mod loom_history_tests;
#[cfg(all(test, loom))]
mod loom_tests;
mod outgoing;
mod registry;
mod relay;
mod room;
mod sync;
mod users;

pub use bounds::Beyond;
pub use history::{HistoryLimits, KEPT_OVERHEAD_BYTES, Kept, Missed, Page, PageQuery, Portion};
pub use item::{Item, Said};
pub use outgoing::{Outgoing, OutgoingFull, OutgoingLimits, Overdue};
pub use registry::{
    Absence, Draft, JoinError, Joined, Members, NewMember, PublishError, Receipted, Registry, RegistryLimits,
    RegistryStats, Stamped,
};
pub use relay::{Act, Applied, Entry, Post, RelayNode, RelayStats};
pub use room::{Presence, Room, RoomBounds, RoomInfo, RoomOptions};
pub use users::{
    Came, Inbox, InboxLimits, InboxStats, LETTER_OVERHEAD_BYTES, Letter, Mentioned, NotLetIn, Owner, Place, Places,
    REMEMBERED_BYTES, Ring, Routed, UserRules, Users,
};
