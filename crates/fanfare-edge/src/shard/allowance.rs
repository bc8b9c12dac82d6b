//! How fast a connection may speak, and its user over all his connections: counted before a message costs anything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_fanout::LaneId;
use fanfare_guard::{Bucket, SharedBucket};
use fanfare_protocol::{CloseReason, Rate};

use super::ShardLoop;
use crate::observed::Limit;
use crate::settings::Settings;

/// What a connection's messages are taken from.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// Its own, where that is bounded.
    own: Option<Bucket>,
    /// That of its user, where that is bounded.
    users: Option<Arc<SharedBucket>>,
}

impl Allowance {
    /// What bounds one connection, where it is bounded; its user is not known yet.
    pub(super) fn of_connection(per_second: u32) -> Option<Box<Self>> {
        bucket(per_second).map(|own| Box::new(Self { own: Some(own), users: None }))
    }

    /// Puts the bucket of the connection's user into its allowance, or takes it out of it.
    pub(super) fn set_users(allowance: &mut Option<Box<Self>>, users: Option<Arc<SharedBucket>>) {
        match allowance {
            Some(allowance) => allowance.users = users,
            None => *allowance = users.map(|users| Box::new(Self { own: None, users: Some(users) })),
        }
    }

    fn has_own(&mut self, now: Duration) -> bool {
        self.own.as_mut().is_none_or(|own| own.take(now, 1))
    }

    fn has_users(&self, rate: Option<Rate>, now: Duration) -> bool {
        rate.zip(self.users.as_deref()).is_none_or(|(rate, users)| users.take(rate, now))
    }
}

fn bucket(per_second: u32) -> Option<Bucket> {
    (per_second > 0).then(|| Bucket::new(per_second, per_second))
}

impl ShardLoop {
    /// Counts a message. One that came too fast ends the connection, before it costs anything.
    pub(super) fn lets_in(&mut self, lane: LaneId) -> bool {
        self.hub.counters().received.fetch_add(1, Ordering::Relaxed);
        let now = self.now;
        let users = Rate::per_second(self.settings.messages_per_second_per_user_max);
        let Some(allowance) = self.connection(lane).and_then(|connection| connection.allowance.as_mut()) else {
            return true;
        };
        let (has_own, has_users) = (allowance.has_own(now), allowance.has_users(users, now));
        if !has_own && !self.hub.lets_pass(Limit::MessagesPerSecond) {
            self.end(lane, CloseReason::TooFast);
            return false;
        }
        if !has_users && !self.hub.lets_pass(Limit::MessagesPerUser) {
            self.end(lane, CloseReason::UserTooFast);
            return false;
        }
        true
    }

    /// Counts a ping or a pong, which is no message. One that came too fast ends the connection before it is answered.
    pub(super) fn lets_control_in(&mut self, lane: LaneId) -> bool {
        let (now, rate) = (self.now, self.settings.control_frames_max);
        if rate.is_none_or(|rate| self.control_frames.take(lane, rate, now)) {
            return true;
        }
        let is_let_in = self.hub.lets_pass(Limit::ControlFrames);
        if !is_let_in {
            self.end(lane, CloseReason::PingsTooFast);
        }
        is_let_in
    }

    /// Other rates hold from here on, for those who are here too.
    pub(super) fn replace_allowances(&mut self, before: &Settings, settings: &Settings) {
        let per_second = settings.messages_per_second_max;
        let has_changed = per_second != before.messages_per_second_max;
        // Another rate is taken from the same buckets.
        let counts_users = settings.messages_per_second_per_user_max > 0;
        let begins_to = counts_users && before.messages_per_second_per_user_max == 0;
        if !has_changed && !begins_to {
            return;
        }
        for connection in self.connections.iter_mut().flatten() {
            let users = if begins_to {
                let person = connection.person.as_deref().filter(|person| person.is_known);
                person
                    .and_then(|person| person.identity.user.as_ref())
                    .and_then(|user| self.hub.users().know(user, |known| known.bucket()))
            } else {
                connection.allowance.take().and_then(|allowance| allowance.users)
            };
            connection.allowance = Allowance::of_connection(per_second);
            Allowance::set_users(&mut connection.allowance, users);
        }
    }
}
