//! How a node leaves service, as its connections see it: readiness goes, newcomers are taken for the grace, then all are closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use fanfare_protocol::CloseReason;
use fanfare_registry::Item;

use super::Hub;
use crate::drain::DrainPlan;
use crate::shard::Order;

impl Hub {
    /// Begins to leave service: readiness goes at once, newcomers are taken for the grace, then all connections are closed over `window`,
    /// or over the configured one. Once begun, `window` may only bring the end nearer, and without one what is left is halved.
    pub fn leave(&self, window: Option<Duration>) {
        let now = self.now();
        if self.drain.has_begun() {
            return match window {
                Some(window) => self.drain.shorten(now, window),
                None => self.drain.halve(now),
            };
        }
        let settings = self.settings().drain;
        let accept_until = now + settings.grace;
        self.drain.begin(DrainPlan {
            since: now,
            since_wall: SystemTime::now(),
            accept_until,
            ends: accept_until + window.unwrap_or(settings.window),
            open_at_start: self.connections_open(),
        });
    }

    /// Leaves service without a grace: another process accepts from the same listeners.
    pub fn hand_over(&self) {
        if !self.drain.has_begun() {
            self.leave(None);
        }
        let now = self.now();
        self.drain.hand_over(now);
        self.drain.shorten(now, self.settings().drain.window);
    }

    /// WebSocket connections that have not been told to close.
    #[must_use]
    pub fn connections_open(&self) -> usize {
        self.counters.connections.load(Ordering::Relaxed).try_into().unwrap_or(0)
    }

    /// Connections that the drain has closed.
    #[must_use]
    pub(crate) fn drained(&self) -> u64 {
        self.counters.closes[CloseReason::Drain.index()].load(Ordering::Relaxed)
    }

    /// Asks every shard to close its connections evenly until `ends`, on the node's clock, then to end. May be asked again.
    pub fn close_connections(&self, ends: Duration) {
        for shard in self.registry.shards() {
            shard.push(Item::Order(Order::Drain { ends }));
        }
    }

    /// Counts a handshake on `shard` until the guard is dropped: a shard that leaves service waits for those who were let in.
    pub(crate) fn begin_handshake(self: &Arc<Self>, shard: usize) -> PendingHandshake {
        self.handshakes[shard].fetch_add(1, Ordering::Relaxed);
        PendingHandshake { hub: self.clone(), shard }
    }

    pub(crate) fn has_handshakes(&self, shard: usize) -> bool {
        self.handshakes[shard].load(Ordering::Relaxed) > 0
    }
}

/// A handshake that was answered and is not a connection yet.
#[derive(Debug)]
pub(crate) struct PendingHandshake {
    hub: Arc<Hub>,
    shard: usize,
}

impl Drop for PendingHandshake {
    fn drop(&mut self) {
        self.hub.handshakes[self.shard].fetch_sub(1, Ordering::Relaxed);
    }
}
