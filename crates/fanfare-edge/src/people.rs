//! What the hub does for users: guests' numbers and tokens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_guard::{Identity, SharedBucket};
use fanfare_protocol::{CloseReason, UserName};
use fanfare_registry::{Item, Owner, Place, Places, UserRules};
use tokio::sync::oneshot;

use crate::Settings;
use crate::hub::{Hub, SHARD_ANSWER_MAX};
use crate::shard::Order;
use crate::wall_clock::wall_clock;

/// A user's bucket is full again so long after he has said his last, whatever his rate: it holds one second's worth.
const BUCKET_FULL: Duration = Duration::from_secs(1);

/// What is known of a user besides his name.
#[derive(Debug)]
pub struct Known {
    /// As he was last seen.
    pub(crate) identity: Identity,
    /// What all his connections take from, where that is bounded.
    bucket: Option<Arc<SharedBucket>>,
}

impl Known {
    /// Somebody of whom `former` was known before, if anything.
    pub(crate) fn now(identity: Identity, former: Option<Self>) -> Self {
        Self { identity, bucket: former.and_then(|former| former.bucket) }
    }

    /// What all his connections take from.
    pub(crate) fn bucket(&mut self) -> Arc<SharedBucket> {
        self.bucket.get_or_insert_default().clone()
    }
}

/// What holds for all users.
pub(crate) fn user_rules(settings: &Settings) -> UserRules {
    UserRules {
        grace: settings.presence_debounce,
        // Who comes back at once must not find it full.
        known: BUCKET_FULL,
        // Where there are tokens a name that was never here may be that of one: no guest gets what waits for it.
        unseen: (!settings.tokens.is_empty() || settings.key_source.is_some()).then_some(Owner::Token),
        inboxes: settings.inboxes,
    }
}

impl Hub {
    /// The number of a guest who was not here before.
    pub(crate) fn next_guest(&self) -> u64 {
        // Two runs do not begin at the same number, so a token of one means nobody in another.
        self.guests.fetch_add(1, Ordering::Relaxed)
    }

    /// Has these connections ended by their shards.
    pub(crate) fn end_places(&self, places: &Places, reason: CloseReason) {
        for Place { shard, lane, .. } in places.iter() {
            self.registry().shards()[shard].push(Item::Order(Order::End { lane, reason, told: None }));
        }
    }

    /// Ends all connections that a user has now. Says how many were open until then.
    pub(crate) async fn end_user(&self, user: &UserName, reason: CloseReason) -> usize {
        let end = |Place { shard, lane, .. }| {
            let (tell, told) = oneshot::channel();
            self.registry().shards()[shard].push(Item::Order(Order::End { lane, reason, told: Some(tell) }));
            told
        };
        // All are told before the first is waited for.
        let ends: Vec<_> = self.users().places(user).iter().map(end).collect();
        let mut ended = 0;
        let all = async {
            for told in ends {
                ended += usize::from(told.await.unwrap_or(false));
            }
        };
        // A shard that has ended at the end of a drain never answers.
        let _ = tokio::time::timeout(SHARD_ANSWER_MAX, all).await;
        ended
    }

    /// The token that brings a guest back as the same user.
    pub(crate) fn guest_token(&self, user: &UserName, guest: u64) -> Option<String> {
        self.settings().guest_key.mint(user, guest, wall_clock())
    }
}
