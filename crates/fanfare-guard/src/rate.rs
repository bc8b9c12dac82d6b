//! A token bucket that is told the time.

use std::time::Duration;

/// Lets through `burst` at once and `rate` per second in the long run.
///
/// It keeps one moment instead of a count of tokens: the one at which it would be full again if nothing more were taken.
/// That is exact in whole nanoseconds, needs no refill step, and makes a bucket 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// When it is full again, nanoseconds since the start.
    full_at: u64,
    /// At least 1.
    rate_per_second: u32,
    burst: u32,
}

impl Bucket {
    /// A full bucket. A rate of 0 counts as 1, one over 10⁹ as 10⁹. To have no bound, have no bucket.
    #[must_use]
    pub const fn new(rate_per_second: u32, burst: u32) -> Self {
        Self { full_at: 0, rate_per_second: if rate_per_second == 0 { 1 } else { rate_per_second }, burst }
    }

    /// Takes `n` at `now`, the time since some fixed start. False, and nothing taken, where that many are not there; more
    /// than the burst never are.
    #[must_use]
    pub fn take(&mut self, now: Duration, n: u32) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let full_at = self.full_at.max(now).saturating_add(self.time_for(n));
        let is_there = full_at - now <= self.time_for(self.burst);
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }

    /// Nanoseconds in which `n` come in; rounded up for each, so that rounding never exceeds the rate.
    fn time_for(&self, n: u32) -> u64 {
        u64::from(n) * 1_000_000_000_u64.div_ceil(self.rate_per_second.into())
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
