//! How often something may happen, decided by whoever is told the time.

use std::time::Duration;

/// Lets through `burst` at once and `per_second` in the long run.
///
/// What is counted is one moment instead of a number of tokens: the one at which all would be there again if nothing more were taken. That
/// is exact in whole nanoseconds, needs no refill step, and is eight bytes for each who is counted. A moment that has passed counts
/// nothing: whoever keeps it may forget it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    /// A rate of 0 counts as 1. To have no bound, have no rate.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second: if per_second == 0 { 1 } else { per_second }, burst }
    }

    /// One second's worth at once; `None` where `per_second` is 0, which stands for no bound.
    #[must_use]
    pub const fn per_second(per_second: u32) -> Option<Self> {
        if per_second == 0 { None } else { Some(Self::new(per_second, per_second)) }
    }

    /// Takes `n` at `now`, the time since some fixed start, from what is full again at `full_at`, nanoseconds since the same: when it is full
    /// after that. `None`: that many are not there; more than the burst never are.
    #[must_use]
    pub fn take(self, full_at: u64, now: Duration, n: u32) -> Option<u64> {
        let now = nanos(now);
        let full_at = full_at.max(now).saturating_add(self.time_for(n));
        (full_at - now <= self.time_for(self.burst)).then_some(full_at)
    }

    /// Nanoseconds in which `n` come in; rounded up for each, so that rounding never exceeds the rate.
    fn time_for(self, n: u32) -> u64 {
        u64::from(n) * 1_000_000_000_u64.div_ceil(self.per_second.into())
    }
}

/// A time since the start as whole nanoseconds: 584 years fit.
#[must_use]
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_none_is_no_bound_and_one_second_comes_at_once() {
        assert_eq!(Rate::per_second(0), None);
        let rate = Rate::per_second(2).expect("a bound");
        let s = Duration::from_secs;
        let mut full_at = 0;
        for (at, is_there) in [(0, true), (0, true), (0, false), (1, true), (1, true), (1, false), (9, true)] {
            let taken = rate.take(full_at, s(at), 1);
            assert_eq!(taken.is_some(), is_there, "at {at} s");
            full_at = taken.unwrap_or(full_at);
        }
        assert!(full_at > nanos(s(9)) && full_at <= nanos(s(10)), "forgotten a second later, nothing is lost");
    }
}
