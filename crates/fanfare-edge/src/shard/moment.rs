//! Times that are kept once for each connection.

use std::num::NonZeroU64;
use std::time::Duration;

/// A time on the node's clock in eight bytes, where a `Duration` has sixteen, and `None` in the same eight: nanoseconds and one.
/// They last for 584 years; what is later is never.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(NonZeroU64);

impl Moment {
    /// Later than all others.
    pub(super) const NEVER: Self = Self(NonZeroU64::MAX);
}

impl From<Duration> for Moment {
    fn from(time: Duration) -> Self {
        let nanoseconds = time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into());
        Self(NonZeroU64::MIN.saturating_add(nanoseconds))
    }
}

impl From<Moment> for Duration {
    fn from(moment: Moment) -> Self {
        Self::from_nanos(moment.0.get() - 1)
    }
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Duration::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_comes_back_as_it_went_in_until_there_is_no_end_to_it() {
        assert_eq!((size_of::<Moment>(), size_of::<Option<Moment>>()), (8, 8));
        let times = [0, 1, 999_999_999, 1_000_000_000, u64::MAX - 1].map(Duration::from_nanos);
        for time in times {
            assert_eq!(Duration::from(Moment::from(time)), time);
        }
        assert!(times.is_sorted_by_key(|&time| Moment::from(time)));
        assert_eq!(Moment::from(Duration::from_nanos(u64::MAX)), Moment::NEVER);
        assert_eq!(Moment::from(Duration::MAX), Moment::NEVER);
    }
}
