//! Limits that can be observed, and what was beyond each: refused where it holds, let pass and counted where it is only observed.

use std::sync::atomic::{AtomicU64, Ordering};

use fanfare_registry::RegistryStats;
use tracing::debug;

/// Labels of `BeyondLimits`: the limits that can be observed, each by its key under `limits`, or in a namespace.
pub const OBSERVED_LIMITS: [&str; 11] = [
    "connections_max",
    "connections_per_ip_max",
    "rooms_max",
    "subscriptions_per_connection_max",
    "messages_per_second_max",
    "handshakes_per_second_per_ip_max",
    "connections_per_user_max",
    "messages_per_second_per_user_max",
    "namespaces.subscribers_max",
    "namespaces.messages_per_second_max",
    "control_frames_per_second_max",
];

/// A limit that can be observed. Those that bound what one stranger may make the node keep in memory always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Connections = 0,
    ConnectionsPerIp = 1,
    /// Counted by the registry, as what rooms take on.
    Rooms = 2,
    Subscriptions = 3,
    MessagesPerSecond = 4,
    HandshakesPerIp = 5,
    ConnectionsPerUser = 6,
    MessagesPerUser = 7,
    Subscribers = 8,
    Publications = 9,
    ControlFrames = 10,
}

/// Counts of what was beyond a limit, each in the order of [`OBSERVED_LIMITS`].
#[derive(Debug, Default)]
pub(crate) struct BeyondLimits {
    refused: [AtomicU64; OBSERVED_LIMITS.len()],
    let_pass: [AtomicU64; OBSERVED_LIMITS.len()],
}

impl BeyondLimits {
    /// One more was beyond the limit, which is only observed or holds. Says whether it is let pass.
    pub(crate) fn count(&self, limit: Limit, observes: bool) -> bool {
        let counts = if observes { &self.let_pass } else { &self.refused };
        counts[limit as usize].fetch_add(1, Ordering::Relaxed);
        debug!(limit = OBSERVED_LIMITS[limit as usize], observes, "beyond a limit");
        observes
    }

    /// What was refused since the start, and what was let pass.
    pub(crate) fn totals(&self, rooms: &RegistryStats) -> [[u64; OBSERVED_LIMITS.len()]; 2] {
        let mut totals = [&self.refused, &self.let_pass]
            .map(|counts| std::array::from_fn(|limit| counts[limit].load(Ordering::Relaxed)));
        for (limit, beyond) in [
            (Limit::Rooms, &rooms.beyond_rooms),
            (Limit::Subscribers, &rooms.beyond_subscribers),
            (Limit::Publications, &rooms.beyond_rate),
        ] {
            let counted: [u64; 2] = beyond.totals();
            for (total, counted) in totals.iter_mut().zip(counted) {
                total[limit as usize] += counted;
            }
        }
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
            (Limit::HandshakesPerIp, "handshakes_per_second_per_ip_max"),
            (Limit::ConnectionsPerUser, "connections_per_user_max"),
            (Limit::MessagesPerUser, "messages_per_second_per_user_max"),
            (Limit::Subscribers, "namespaces.subscribers_max"),
            (Limit::Publications, "namespaces.messages_per_second_max"),
            (Limit::ControlFrames, "control_frames_per_second_max"),
        ] {
            assert_eq!(OBSERVED_LIMITS[limit as usize], label);
        }
    }
}
