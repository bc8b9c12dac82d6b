//! What the hub asks of shards, and how long it waits for an answer.

use std::time::Duration;

use fanfare_protocol::{CloseReason, UserName};
use fanfare_registry::Item;
use tokio::sync::oneshot;

use super::{ConnectionId, Hub};
use crate::shard::Order;

/// So long a shard may take to answer who asks it. One that has ended, at the end of a drain, never does.
pub(crate) const SHARD_ANSWER_MAX: Duration = Duration::from_secs(5);

impl Hub {
    /// Asks a shard. `None`: there is no such shard, or it has ended, or says nothing for [`SHARD_ANSWER_MAX`].
    pub(crate) async fn ask<T>(&self, shard: usize, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.registry.shards().get(shard)?.push(Item::Order(order(tell)));
        tokio::time::timeout(SHARD_ANSWER_MAX, told).await.ok()?.ok()
    }

    /// Ends a connection. Says whether it was there, and open until now.
    pub(crate) async fn end_connection(&self, connection: ConnectionId, reason: CloseReason) -> bool {
        let lane = connection.lane;
        let end = |told| Order::End { lane, reason, told: Some(told) };
        self.ask(connection.shard, end).await.unwrap_or(false)
    }

    /// Ends all connections on which a user of an application has signed in. A shard that does not answer in time ends them later.
    pub(crate) async fn end_app_user(&self, app: u32, user: &UserName) -> u64 {
        let mut asked = Vec::new();
        for shard in self.registry.shards() {
            let (told, answer) = oneshot::channel();
            shard.push(Item::Order(Order::EndAppUser { app, user: user.clone(), told }));
            asked.push(answer);
        }
        let mut ended = 0;
        for answer in asked {
            let answer = tokio::time::timeout(SHARD_ANSWER_MAX, answer).await;
            ended += answer.ok().and_then(Result::ok).unwrap_or(0);
        }
        ended
    }

    /// Waits until every shard has taken a turn: without end for one that hangs, or has ended.
    pub async fn every_shard_turns(&self) {
        let asked: Vec<_> = self
            .registry
            .shards()
            .iter()
            .map(|shard| {
                let (tell, told) = oneshot::channel();
                shard.push(Item::Order(Order::Turn(tell)));
                told
            })
            .collect();
        for told in asked {
            let _ = told.await;
        }
    }

    /// Keeps a shard from accepting, to see what then happens. Only in builds for tests.
    #[cfg(feature = "faults")]
    pub fn deafen(&self, shard: usize, time: Duration) {
        self.registry.shards()[shard].push(Item::Order(Order::Deafen { time }));
    }

    /// Holds a shard's loop up for this time, or until what is returned is dropped, to see what then happens. Only in builds for tests.
    #[cfg(feature = "faults")]
    #[must_use = "the loop goes on once this is dropped"]
    pub fn wedge(&self, shard: usize, time: Duration) -> crate::Wedge {
        let (held, holds) = std::sync::mpsc::sync_channel(0);
        self.registry.shards()[shard].push(Item::Order(Order::Wedge { time, holds }));
        crate::Wedge { _held: held }
    }
}
