//! Limits that are only counted: what each would have refused if it held.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::debug;

/// Labels of [`WouldReject`]: the limits that can be observed, each by its key under `limits`.
pub const OBSERVED_LIMITS: [&str; 5] = [
    "connections_max",
    "connections_per_ip_max",
    "rooms_max",
    "subscriptions_per_connection_max",
    "messages_per_second_max",
];

/// A limit that can be observed. Those that bound what one stranger may make the node keep in memory always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Connections = 0,
    ConnectionsPerIp = 1,
    /// Counted by the registry.
    Rooms = 2,
    Subscriptions = 3,
    MessagesPerSecond = 4,
}

/// Counts of what was let pass although it was beyond a limit. Zero for ever where limits hold.
#[derive(Debug, Default)]
pub struct WouldReject {
    counts: [AtomicU64; OBSERVED_LIMITS.len()],
}

impl WouldReject {
    /// One more was let pass.
    pub(crate) fn count(&self, limit: Limit) {
        self.counts[limit as usize].fetch_add(1, Ordering::Relaxed);
        debug!(limit = OBSERVED_LIMITS[limit as usize], "would be refused if limits held");
    }

    /// Totals since start in the order of [`OBSERVED_LIMITS`]; `rooms` is what the registry has let pass.
    #[must_use]
    pub fn totals(&self, rooms: u64) -> [u64; OBSERVED_LIMITS.len()] {
        let mut totals = std::array::from_fn(|limit| self.counts[limit].load(Ordering::Relaxed));
        totals[Limit::Rooms as usize] += rooms;
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_observed_limit_has_its_own_label() {
        for (limit, label) in [
            (Limit::Connections, "connections_max"),
            (Limit::ConnectionsPerIp, "connections_per_ip_max"),
            (Limit::Rooms, "rooms_max"),
            (Limit::Subscriptions, "subscriptions_per_connection_max"),
            (Limit::MessagesPerSecond, "messages_per_second_max"),
        ] {
            assert_eq!(OBSERVED_LIMITS[limit as usize], label);
        }
    }
}
