//! Who may do something how often: token buckets that are told the time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_protocol::{Rate, nanos};

/// Lets through `burst` at once and `rate` per second in the long run, for one who is counted by one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// When it is full again, nanoseconds since the start.
    full_at: u64,
    rate: Rate,
}

impl Bucket {
    /// A full bucket. A rate of 0 counts as 1, one over 10⁹ as 10⁹. To have no bound, have no bucket.
    #[must_use]
    pub const fn new(rate_per_second: u32, burst: u32) -> Self {
        Self { full_at: 0, rate: Rate::new(rate_per_second, burst) }
    }

    /// Takes `n` at `now`, the time since some fixed start. False, and nothing taken, where that many are not there; more
    /// than the burst never are.
    #[must_use]
    pub fn take(&mut self, now: Duration, n: u32) -> bool {
        let taken = self.rate.take(self.full_at, now, n);
        self.full_at = taken.unwrap_or(self.full_at);
        taken.is_some()
    }
}

/// What several threads take from at the same time, each with the rate that it knows of: eight bytes, full when new.
#[derive(Debug, Default)]
pub struct SharedBucket {
    full_at: AtomicU64,
}

impl SharedBucket {
    /// Takes one at `now`. False, and nothing taken, where none is there. Threads whose clocks differ a little are off by as much.
    #[must_use]
    pub fn take(&self, rate: Rate, now: Duration) -> bool {
        // Nothing else is read on the strength of it.
        let take = |full_at| rate.take(full_at, now, 1);
        self.full_at.try_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// Buckets of many, most of whom are never seen again: there is an entry only for those whose bucket is not full. Bounded.
#[derive(Debug)]
pub struct Buckets<K> {
    /// When each is full again.
    full_at: HashMap<K, u64>,
    /// Those that are full are let go once there are so many.
    sweep_at: usize,
    /// And not before this moment: a flood must not make everybody look through all of it.
    rest_until: u64,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { full_at: HashMap::new(), sweep_at: SWEEP_MIN, rest_until: 0 }
    }
}

/// Fewer entries are not worth a sweep.
const SWEEP_MIN: usize = 1_024;

/// Between two sweeps, nanoseconds.
const REST: u64 = 100_000_000;

impl<K: Hash + Eq> Buckets<K> {
    /// Entries at most. Who has none beyond is let through and not counted: a flood from more sources than these is not stopped by counting
    /// each, and must not keep others out.
    pub const ENTRIES_MAX: usize = 65_536;

    /// Takes one from the bucket of `key` at `now`. False, and nothing taken, where none is there.
    #[must_use]
    pub fn take(&mut self, key: K, rate: Rate, now: Duration) -> bool {
        if let Some(full_at) = self.full_at.get_mut(&key) {
            let taken = rate.take(*full_at, now, 1);
            *full_at = taken.unwrap_or(*full_at);
            return taken.is_some();
        }
        if self.full_at.len() >= self.sweep_at && nanos(now) >= self.rest_until {
            self.sweep(now);
        }
        let Some(full_at) = rate.take(0, now, 1) else { return false };
        if self.full_at.len() < Self::ENTRIES_MAX {
            self.full_at.insert(key, full_at);
        }
        true
    }

    /// Lets those go that are full. The next sweep comes when there are twice as many as stay, so each entry is looked at about once.
    pub fn sweep(&mut self, now: Duration) {
        let now = nanos(now);
        self.rest_until = now.saturating_add(REST);
        self.full_at.retain(|_, full_at| *full_at > now);
        self.sweep_at = (2 * self.full_at.len()).clamp(SWEEP_MIN, Self::ENTRIES_MAX);
        if self.full_at.capacity() > 8 * self.sweep_at {
            self.full_at.shrink_to(self.sweep_at);
        }
    }

    /// Entries now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.full_at.len()
    }

    /// True when every bucket is full.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.full_at.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_at_once_then_the_rate() {
        let at = Duration::from_millis;
        let mut bucket = Bucket::new(10, 3);
        let takes = [
            (0, 4, false),
            (0, 1, true),
            (0, 2, true),
            (0, 1, false),
            (0, 0, true),
            (99, 1, false),
            (100, 1, true),
            (199, 1, false),
            (350, 2, true),
            (350, 1, false),
            (60_000, 4, false),
            (60_000, 3, true),
            (60_000, 1, false),
            // A clock that steps back gives nothing away.
            (0, 1, false),
            (60_100, 1, true),
        ];
        for (step, (ms, n, expected)) in takes.into_iter().enumerate() {
            assert_eq!(bucket.take(at(ms), n), expected, "step {step}: {n} at {ms} ms");
        }
    }

    #[test]
    fn a_bucket_is_small_and_its_ends_hold() {
        assert!(size_of::<Bucket>() <= 16);
        let mut widest = Bucket::new(u32::MAX, u32::MAX);
        assert!(widest.take(Duration::ZERO, u32::MAX));
        assert!(!widest.take(Duration::ZERO, 1));
        let mut narrowest = Bucket::new(0, 1);
        let late = Duration::from_secs(500 * 365 * 86_400);
        assert!(narrowest.take(late, 1) && !narrowest.take(late, 1));
        assert!(narrowest.take(late + Duration::from_secs(1), 1));
        assert!(!Bucket::new(9, 0).take(late, 1));
    }

    #[test]
    fn threads_that_share_a_bucket_take_no_more_than_there_is() {
        let bucket = SharedBucket::default();
        let rate = Rate::new(1, 1_000);
        let take = || (0..1_000).filter(|_| bucket.take(rate, Duration::from_millis(5))).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it counts")).sum()
        });
        assert_eq!(taken, 1_000);
        assert!(bucket.take(rate, Duration::from_millis(1_006)), "a second later there is one more");
    }

    #[test]
    fn each_key_has_a_bucket_and_full_ones_are_forgotten() {
        let mut buckets = Buckets::default();
        let rate = Rate::new(2, 2);
        let at = Duration::from_millis;
        assert!(buckets.take(1, rate, at(0)) && buckets.take(1, rate, at(0)) && !buckets.take(1, rate, at(0)));
        assert!(buckets.take(2, rate, at(0)), "another has its own");
        assert!(buckets.take(1, rate, at(500)) && !buckets.take(1, rate, at(500)));
        buckets.sweep(at(600));
        assert_eq!(buckets.len(), 1, "the other's is full again");
        buckets.sweep(at(1_500));
        assert!(buckets.is_empty());
    }

    #[test]
    fn sources_without_end_cost_a_bounded_table_that_shrinks() {
        let mut buckets = Buckets::default();
        let rate = Rate::new(1, 1);
        for key in 0..200_000_u32 {
            assert!(buckets.take(key, rate, Duration::ZERO), "nobody is kept out by others");
            assert!(buckets.len() <= Buckets::<u32>::ENTRIES_MAX);
        }
        assert!(!buckets.take(0, rate, Duration::ZERO), "who has an entry is counted all the while");
        // A second later all are full: whoever comes lets them go.
        assert!(buckets.take(9, rate, Duration::from_secs(2)));
        assert!(buckets.take(1_000_000, rate, Duration::from_secs(2)));
        assert!(buckets.len() <= 2 && buckets.full_at.capacity() < 20_000, "{}", buckets.full_at.capacity());
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            rate in 1u32..5_000,
            burst in 1u32..100,
            takes in proptest::collection::vec((0u64..50_000_000, 0u32..20), 1..200),
        ) {
            let mut bucket = Bucket::new(rate, burst);
            let (mut now, mut taken) = (0u64, 0u64);
            for (pause, n) in takes {
                now += pause;
                if bucket.take(Duration::from_nanos(now), n) {
                    taken += u64::from(n);
                }
                let came = u128::from(now) * u128::from(rate) / 1_000_000_000;
                prop_assert!(u128::from(taken) <= u128::from(burst) + came, "{taken} in {now} ns");
            }
            let rested = Duration::from_nanos(now) + Duration::from_secs(u64::from(burst) + 1);
            prop_assert!(bucket.take(rested, burst), "full again after a rest");
        }
    }
}
