//! Public keys that somebody else publishes: the newest set that was had, and the wish for a newer one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use fanfare_guard::KeySet;
use tokio::sync::Notify;

/// A token with the name of an unknown key makes the set be asked for again, at most this often.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Where a published key set is kept between whoever fetches it and whoever checks tokens with it. Times are on the node's clock.
#[derive(Debug, Default)]
pub struct KeySource {
    /// The last good one; nothing before the first.
    set: ArcSwapOption<KeySet>,
    wanted: Notify,
    is_asking: AtomicBool,
    /// When it was asked for last, milliseconds; 0: never.
    asked_ms: AtomicU64,
    /// When the set was had.
    had_ms: AtomicU64,
    /// How often it was had.
    pub had: AtomicU64,
    /// How often it was not.
    pub failed: AtomicU64,
}

impl KeySource {
    /// The set that holds.
    #[must_use]
    pub fn set(&self) -> Guard<Option<Arc<KeySet>>> {
        self.set.load()
    }

    /// How old it is.
    #[must_use]
    pub fn age(&self, now: Duration) -> Option<Duration> {
        self.set.load().as_ref()?;
        Some(now.saturating_sub(Duration::from_millis(self.had_ms.load(Ordering::Relaxed))))
    }

    /// The set is being asked for.
    pub fn ask(&self, now: Duration) {
        self.asked_ms.store((now.as_millis() as u64).max(1), Ordering::Relaxed);
        self.is_asking.store(true, Ordering::Release);
    }

    /// It was had: tokens are checked with it from here on. What is not in it any more checks nothing any more.
    pub fn replace(&self, set: KeySet, now: Duration) {
        self.set.store(Some(Arc::new(set)));
        self.had_ms.store(now.as_millis() as u64, Ordering::Relaxed);
        self.had.fetch_add(1, Ordering::Relaxed);
        self.is_asking.store(false, Ordering::Release);
    }

    /// It was not had: the last good one holds on.
    pub fn keep(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.is_asking.store(false, Ordering::Release);
    }

    /// The next unknown key asks, however short the time since the last.
    pub fn forget_asked(&self) {
        self.asked_ms.store(0, Ordering::Relaxed);
    }

    /// Waits until it should be asked for before its time.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Whether it may be asked for out of turn.
    #[must_use]
    pub fn may_ask(&self, now: Duration) -> bool {
        let asked = self.asked_ms.load(Ordering::Relaxed);
        asked == 0 || now >= Duration::from_millis(asked) + ASK_AGAIN
    }

    /// A token names a key that is not in the set. True when a newer set is on its way: the client may come back.
    pub(crate) fn is_coming(&self, now: Duration) -> bool {
        if self.is_asking.load(Ordering::Acquire) {
            return true;
        }
        let may_ask = self.may_ask(now);
        if may_ask {
            self.wanted.notify_one();
        }
        may_ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_ask_at_most_every_ten_seconds() {
        let source = KeySource::default();
        let s = Duration::from_secs;
        assert!(source.is_coming(s(1)));
        source.ask(s(1));
        assert!(source.is_coming(s(2)), "it is under way");
        source.replace(KeySet::default(), s(3));
        assert!(!source.is_coming(s(10)), "asked for 9 s ago, and the key was not in it");
        assert!(source.is_coming(s(11)));
        assert_eq!(source.age(s(13)), Some(s(10)));
    }

    #[test]
    fn a_failure_keeps_the_last_good_set() {
        let source = KeySource::default();
        assert!(source.set().is_none() && source.age(Duration::ZERO).is_none());
        let (set, _) = KeySet::parse(br#"{"keys":[]}"#).expect("a set");
        source.ask(Duration::ZERO);
        source.replace(set, Duration::ZERO);
        source.ask(Duration::from_secs(20));
        source.keep();
        assert!(source.set().is_some());
        assert_eq!(source.failed.load(Ordering::Relaxed), 1);
    }
}
