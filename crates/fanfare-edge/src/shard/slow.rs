//! What rooms do about members that do not keep up: the namespace's policy, as fan-out is told it and as the client sees it.

use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::{Queued, Slow};
use fanfare_guard::SlowPolicy;
use fanfare_protocol::CloseReason;
use fanfare_registry::Room;

use super::ShardLoop;

impl ShardLoop {
    /// Tells fan-out the rules of a room that has members here.
    pub(super) fn set_rules(&mut self, room: &Arc<Room>) {
        let policy = self.hub.policy(room.name());
        let (slow, coalesce_ms) = (slow(policy.slow), policy.coalesce_ms);
        self.fanout.set_coalesce(room.id(), Duration::from_millis(coalesce_ms));
        self.fanout.set_slow(room.id(), slow, room.name().clone());
    }
}

fn slow(policy: SlowPolicy) -> Slow {
    match policy {
        SlowPolicy::Evict => Slow::Evict,
        SlowPolicy::DropOldest => Slow::DropOldest,
        SlowPolicy::Latest => Slow::Latest,
        SlowPolicy::EvictResumable => Slow::EvictResumable,
    }
}

/// Why a connection is closed that reached a bound over a room with this policy.
pub(super) fn close_reason(queued: Queued, slow: Slow) -> CloseReason {
    let Queued { bytes, messages } = queued;
    match slow {
        Slow::EvictResumable => CloseReason::SlowConsumerResumable { bytes, messages },
        // A room that drops closes, too, where the client's dialect cannot be told, or not even a gap has a place.
        Slow::Evict | Slow::DropOldest | Slow::Latest => CloseReason::SlowConsumer { bytes, messages },
    }
}
