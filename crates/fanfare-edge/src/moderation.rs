//! Publications that wait for a moderator, and what moderation has done so far.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fanfare_fanout::LaneId;
use fanfare_guard::{Cause, Finding, Ruling};
use fanfare_protocol::{Payload, RoomName, UserName};
use parking_lot::Mutex;

/// What senders are told of a message that was refused. Not which word: that would teach the way around.
pub(crate) const REJECTED: &str = "moderation refused this message";

/// What senders are told when no more publications may wait.
pub(crate) const HELD_FULL: &str = "too many messages wait for a moderator; try again later";

/// Labels of what was done, in the order of [`ModerationStats::done`].
pub const MODERATION_ACTIONS: [&str; 4] = ["observe", "mask", "reject", "hold"];

/// Labels of how waiting ended, in the order of [`ModerationStats::held`].
pub const HELD_OUTCOMES: [&str; 3] = ["released", "discarded", "refused"];

/// How waiting for a moderator ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldOutcome {
    Released = 0,
    Discarded = 1,
    /// It never began: the queue was full.
    Refused = 2,
}

/// Totals since start.
#[derive(Debug, Default)]
pub struct ModerationStats {
    /// Messages by what was done, in the order of [`MODERATION_ACTIONS`], and by [`Cause`].
    pub done: [[AtomicU64; Cause::LABELS.len()]; MODERATION_ACTIONS.len()],
    /// Publications that were to wait, by what became of them, in the order of [`HELD_OUTCOMES`].
    pub held: [AtomicU64; HELD_OUTCOMES.len()],
}

impl ModerationStats {
    pub(crate) fn ruled(&self, ruling: &Ruling) {
        let (action, finding) = match ruling {
            Ruling::Pass => return,
            Ruling::Observe(finding) => (0, finding),
            Ruling::Mask(finding, _) => (1, finding),
            Ruling::Reject(finding) => (2, finding),
            Ruling::Hold(finding) => (3, finding),
        };
        self.done[action][finding.cause.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, outcome: HeldOutcome) {
        self.held[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// A publication that waits.
#[derive(Debug, Clone)]
pub(crate) struct HeldPublication {
    pub(crate) room: RoomName,
    pub(crate) user: Option<UserName>,
    pub(crate) payload: Payload,
    /// The connection it is not for.
    pub(crate) except: Option<(usize, LaneId)>,
    pub(crate) finding: Finding,
    /// When it came, on the node's clock.
    pub(crate) at: Duration,
}

/// Publications that wait for a moderator: so many of a node at most, the next is refused. They do not outlive the process.
#[derive(Debug)]
pub struct HeldQueue {
    /// Written by a reload.
    max: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last_id: u64,
    by_id: BTreeMap<u64, HeldPublication>,
}

impl HeldQueue {
    pub(crate) fn new(max: usize) -> Self {
        Self { max: AtomicUsize::new(max), waiting: Mutex::default() }
    }

    /// Another bound from here on. What waits stays.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.lock().by_id.len()
    }

    /// True when none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its number, or nothing when the queue is full.
    pub(crate) fn hold(&self, publication: HeldPublication) -> Option<u64> {
        let mut waiting = self.waiting.lock();
        if waiting.by_id.len() >= self.max.load(Ordering::Relaxed) {
            return None;
        }
        waiting.last_id += 1;
        let id = waiting.last_id;
        waiting.by_id.insert(id, publication);
        Some(id)
    }

    /// Takes one out.
    pub(crate) fn take(&self, id: u64) -> Option<HeldPublication> {
        self.waiting.lock().by_id.remove(&id)
    }

    /// Puts one back that could not be released. If its place was taken meanwhile there is one more than may be: as many more at
    /// most as releases were under way.
    pub(crate) fn put_back(&self, id: u64, publication: HeldPublication) {
        self.waiting.lock().by_id.insert(id, publication);
    }

    /// Up to `limit` of them, the oldest first, those behind number `after`.
    pub(crate) fn list(&self, after: u64, limit: usize) -> Vec<(u64, HeldPublication)> {
        let waiting = self.waiting.lock();
        let behind = waiting.by_id.range(after.saturating_add(1)..);
        behind.take(limit).map(|(&id, publication)| (id, publication.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(text: &'static str) -> HeldPublication {
        HeldPublication {
            room: RoomName::parse("lobby").expect("a valid name"),
            user: None,
            payload: Payload::Text(bytes::Bytes::from_static(text.as_bytes())),
            except: None,
            finding: Finding { cause: Cause::Words, word: Some("bad".into()), spam: None },
            at: Duration::ZERO,
        }
    }

    #[test]
    fn the_queue_is_bounded_and_keeps_its_order() {
        let queue = HeldQueue::new(2);
        assert_eq!((queue.hold(publication("a")), queue.hold(publication("b"))), (Some(1), Some(2)));
        assert_eq!(queue.hold(publication("c")), None);
        let taken = queue.take(1).expect("it waits");
        assert!(queue.take(1).is_none());
        assert_eq!(queue.hold(publication("c")), Some(3), "numbers are not used twice");
        queue.put_back(1, taken);
        let ids = |after, limit| queue.list(after, limit).iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!((ids(0, 10), ids(0, 2), ids(1, 10), ids(3, 10)), (vec![1, 2, 3], vec![1, 2], vec![2, 3], vec![]));
        assert!(ids(u64::MAX, 10).is_empty());
        assert_eq!(queue.len(), 3);
        queue.set_max(4);
        assert_eq!((queue.hold(publication("d")), queue.hold(publication("e"))), (Some(4), None), "another bound");
        queue.set_max(1);
        assert_eq!((queue.hold(publication("e")), queue.len()), (None, 4), "what waits stays");
    }

    #[test]
    fn labels_are_those_of_the_outcomes() {
        for (outcome, label) in [
            (HeldOutcome::Released, "released"),
            (HeldOutcome::Discarded, "discarded"),
            (HeldOutcome::Refused, "refused"),
        ] {
            assert_eq!(HELD_OUTCOMES[outcome as usize], label);
        }
        let stats = ModerationStats::default();
        let finding = || Finding { cause: Cause::Both, word: None, spam: None };
        let masked = Payload::Text(bytes::Bytes::new());
        for (label, ruling) in [
            ("observe", Ruling::Observe(finding())),
            ("mask", Ruling::Mask(finding(), masked)),
            ("reject", Ruling::Reject(finding())),
            ("hold", Ruling::Hold(finding())),
        ] {
            stats.ruled(&ruling);
            let place = MODERATION_ACTIONS.iter().position(|action| *action == label).expect("a label");
            assert_eq!(stats.done[place][Cause::Both.index()].load(Ordering::Relaxed), 1, "{label}");
        }
        stats.ruled(&Ruling::Pass);
        assert_eq!(stats.done.iter().flatten().map(|count| count.load(Ordering::Relaxed)).sum::<u64>(), 4);
    }
}
