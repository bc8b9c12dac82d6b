//! Tokens that were taken back: one list for the node, asked at each handshake and refresh, and the word to all shards.

use std::sync::Arc;
use std::time::Duration;

use fanfare_guard::{Revocation, Revocations, RevocationsFull, Revoked, TokenMark};
use fanfare_registry::Item;
use parking_lot::RwLock;
use tokio::sync::oneshot;

use crate::hub::{Hub, SHARD_ANSWER_MAX};
use crate::shard::Order;

/// What is revoked on this node. It does not outlive the process.
#[derive(Debug)]
pub struct RevocationList {
    /// A leaf: nothing is locked while it is held.
    list: RwLock<Revocations>,
}

impl RevocationList {
    pub(crate) fn new(max: usize) -> Self {
        Self { list: RwLock::new(Revocations::new(max)) }
    }

    /// Another bound from here on.
    pub(crate) fn set_max(&self, max: usize) {
        self.list.write().set_max(max);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.read().len()
    }

    /// True when nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.read().is_empty()
    }

    /// How many there may be.
    #[must_use]
    pub fn max(&self) -> usize {
        self.list.read().max()
    }

    pub(crate) fn covers(&self, token: TokenMark<'_>) -> bool {
        self.list.read().covers(token)
    }

    pub(crate) fn lift(&self, whose: &Revoked) -> bool {
        self.list.write().lift(whose)
    }

    /// Up to `limit` of them behind `after`, without those whose tokens have ended by `now`.
    pub(crate) fn page(&self, after: Option<&Revoked>, limit: usize, now: Duration) -> Vec<Revocation> {
        let mut list = self.list.write();
        list.forget_ended(now);
        list.after(after).take(limit).cloned().collect()
    }
}

impl Hub {
    /// Takes tokens back: those that come are refused from here on, and connections that came with one are closed. Returns what holds and
    /// how many connections were closed.
    ///
    /// # Errors
    /// [`RevocationsFull`]: nothing was revoked.
    pub(crate) async fn revoke(&self, revocation: Revocation) -> Result<(Revocation, u64), RevocationsFull> {
        let at = revocation.at;
        let revocation = self.revocations().list.write().revoke(revocation, at)?;
        // After the list has it: whoever was let in before is found by the shard, and whoever comes later is refused.
        let order = Arc::new(revocation.clone());
        let mut answers = Vec::new();
        for shard in self.registry().shards() {
            let (tell, told) = oneshot::channel();
            shard.push(Item::Order(Order::Revoke { revocation: order.clone(), told: tell }));
            answers.push(told);
        }
        let mut closed = 0;
        for answer in answers {
            // A shard that has ended has no connections left to close.
            closed += tokio::time::timeout(SHARD_ANSWER_MAX, answer).await.ok().and_then(Result::ok).unwrap_or(0);
        }
        Ok((revocation, closed))
    }
}
