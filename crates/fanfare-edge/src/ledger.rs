//! The close ledger: why connections were closed, the latest of them each with what was known of it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fanfare_fanout::Queued;
use fanfare_protocol::{CloseReason, RoomName, UserName};
use parking_lot::Mutex;

use crate::hub::ConnectionId;

/// Entries looked at under one lock: a shard that closes connections waits for so many at most.
const SCAN: usize = 1_024;

/// A connection that was closed.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    /// When, on the node's clock.
    pub(crate) at: Duration,
    pub(crate) connection: ConnectionId,
    pub(crate) user: Option<UserName>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) reason: CloseReason,
    /// The room of its path, where it had one.
    pub(crate) room: Option<RoomName>,
    /// How long it was open.
    pub(crate) age: Duration,
    /// What it had not taken.
    pub(crate) queued: Queued,
}

/// Which closes are meant; what is `None` is not asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sought {
    pub(crate) user: Option<UserName>,
    pub(crate) connection: Option<ConnectionId>,
    /// Place of a reason in [`CloseReason::LABELS`].
    pub(crate) reason: Option<usize>,
}

impl Sought {
    fn is_met_by(&self, closed: &Closed) -> bool {
        let is_his = self.user.is_none() || self.user == closed.user;
        is_his
            && self.connection.is_none_or(|connection| connection == closed.connection)
            && self.reason.is_none_or(|reason| reason == closed.reason.index())
    }
}

/// Closes with their numbers, the oldest first.
type Ring = VecDeque<(u64, Closed)>;

/// The latest closes of each shard, so many of the node at most: one more, and the shard's oldest is forgotten. How often each
/// reason closed a connection is counted apart, for ever.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// By shard, each with its own lock and written by that shard alone; numbers grow within each.
    shards: Box<[Mutex<Ring>]>,
    /// Written by a reload.
    shard_max: AtomicUsize,
    /// The last number given: closes since the start.
    last: AtomicU64,
}

impl Ledger {
    /// For a number of shards, of whose closes `closes_max` are kept together.
    pub(crate) fn new(shards: usize, closes_max: usize) -> Self {
        let ledgers = (0..shards).map(|_| Mutex::default()).collect();
        let ledger = Self { shards: ledgers, shard_max: AtomicUsize::new(0), last: AtomicU64::new(0) };
        ledger.set_max(closes_max);
        ledger
    }

    /// Another bound from here on: what is beyond it is forgotten at each shard's next close.
    pub(crate) fn set_max(&self, closes_max: usize) {
        self.shard_max.store(closes_max / self.shards.len().max(1), Ordering::Relaxed);
    }

    /// Remembers a close. Called by the shard's own thread alone.
    pub(crate) fn record(&self, closed: Closed) {
        let mut kept = self.shards[closed.connection.shard].lock();
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let shard_max = self.shard_max.load(Ordering::Relaxed);
        if shard_max > 0 {
            kept.push_back((number, closed));
        }
        if kept.len() > shard_max {
            let beyond = kept.len() - shard_max;
            kept.drain(..beyond);
        }
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|kept| kept.lock().len()).sum()
    }

    /// Up to `limit` of those that are sought, by number, the latest first; of those before the number `before`, if it is given.
    pub(crate) fn find(&self, sought: &Sought, before: Option<u64>, limit: usize) -> Vec<(u64, Closed)> {
        let mut found = Vec::new();
        for kept in &self.shards {
            let mut of_shard = Vec::new();
            let mut before = before.unwrap_or(u64::MAX);
            loop {
                let kept = kept.lock();
                let end = kept.partition_point(|(number, _)| *number < before);
                let begin = end.saturating_sub(SCAN);
                let meeting = kept.range(begin..end).rev().filter(|(_, closed)| sought.is_met_by(closed));
                of_shard.extend(meeting.take(limit - of_shard.len()).cloned());
                if begin == 0 || of_shard.len() == limit {
                    break;
                }
                before = kept[begin].0;
            }
            found.extend(of_shard);
        }
        found.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        found.truncate(limit);
        found
    }
}

#[cfg(test)]
mod tests {
    use fanfare_fanout::LaneId;

    use super::*;

    fn closed(shard: usize, index: u32, user: &str, reason: CloseReason) -> Closed {
        Closed {
            at: Duration::ZERO,
            connection: ConnectionId { shard, lane: LaneId { index, generation: 1 } },
            user: UserName::parse(user).ok(),
            address: None,
            reason,
            room: None,
            age: Duration::ZERO,
            queued: Queued::default(),
        }
    }

    fn numbers(ledger: &Ledger, sought: &Sought, before: Option<u64>, limit: usize) -> Vec<u64> {
        ledger.find(sought, before, limit).into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn the_latest_are_kept_and_told_first() {
        let ledger = Ledger::new(2, 6);
        for n in 0..10 {
            ledger.record(closed(usize::from(n >= 8), n, "al", CloseReason::Left));
        }
        let all = Sought::default();
        assert_eq!(ledger.len(), 5);
        assert_eq!(numbers(&ledger, &all, None, 100), [10, 9, 8, 7, 6], "each shard keeps its own latest");
        assert_eq!(numbers(&ledger, &all, None, 2), [10, 9]);
        assert_eq!(numbers(&ledger, &all, Some(9), 2), [8, 7]);
        assert_eq!(numbers(&ledger, &all, Some(1), 2), [0; 0]);
        let none = Ledger::new(2, 0);
        none.record(closed(0, 0, "al", CloseReason::Left));
        assert_eq!((none.len(), none.find(&all, None, 10).len()), (0, 0));
        // Another bound holds from each shard's next close on.
        ledger.set_max(2);
        ledger.record(closed(0, 10, "al", CloseReason::Left));
        assert_eq!(numbers(&ledger, &all, None, 100), [11, 10, 9]);
        ledger.set_max(0);
        for shard in 0..2 {
            ledger.record(closed(shard, 11, "al", CloseReason::Left));
        }
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn what_is_sought_is_found_however_far_back() {
        let ledger = Ledger::new(1, 10_000);
        for n in 0..5_000_u32 {
            let user = if n % 2_000 == 7 { "bo" } else { "al" };
            let reason = if n % 2_500 == 0 { CloseReason::Kicked } else { CloseReason::Drain };
            ledger.record(closed(0, n, user, reason));
        }
        let bo = Sought { user: UserName::parse("bo").ok(), ..Sought::default() };
        assert_eq!(numbers(&ledger, &bo, None, 10), [4_008, 2_008, 8]);
        assert_eq!(numbers(&ledger, &bo, None, 2), [4_008, 2_008]);
        assert_eq!(numbers(&ledger, &bo, Some(4_008), 1), [2_008]);
        let kicked = Sought { reason: Some(CloseReason::Kicked.index()), ..Sought::default() };
        assert_eq!(numbers(&ledger, &kicked, None, 10), [2_501, 1]);
        let one = Sought { connection: Some(closed(0, 77, "al", CloseReason::Left).connection), ..Sought::default() };
        assert_eq!(numbers(&ledger, &one, None, 10), [78]);
        assert_eq!(numbers(&ledger, &Sought { user: bo.user, ..one }, None, 10), [0; 0]);
    }
}
