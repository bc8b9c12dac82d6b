//! When a crowd has left. A plain value that is told the time.

use std::time::Duration;

/// Fewer connections than this are no crowd: what they leave behind is soon used by others.
const CROWD_MIN: usize = 256;

/// So long after: mostly those who leave together leave within moments, and some come back at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Once more after this time: mimalloc lets one thread at a time give pages back, and passes over what another asks for meanwhile; what is left
/// then it would give back only while it is used (`mi_arenas_try_purge`).
const AGAIN: Duration = Duration::from_secs(4);

/// Watches how many connections there are, to say when the memory that most of them needed is worth giving back.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// The most there were since memory was last given back.
    most: usize,
    /// When to look whether most of them have left.
    due: Option<Duration>,
    /// It is looked at once more.
    again: bool,
}

impl Crowd {
    /// Somebody came; so many are here.
    pub(super) fn came(&mut self, live: usize) {
        self.most = self.most.max(live);
    }

    /// Somebody left; so many are here.
    pub(super) fn left(&mut self, live: usize, now: Duration) {
        if self.has_thinned(live) {
            self.due.get_or_insert(now + PATIENCE);
        }
    }

    /// When to ask again.
    pub(super) fn next(&self) -> Option<Duration> {
        self.due
    }

    /// True twice for each crowd of which at most a quarter is left.
    pub(super) fn is_over(&mut self, live: usize, now: Duration) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        self.due = None;
        if !self.has_thinned(live) {
            return std::mem::take(&mut self.again);
        }
        self.most = live;
        self.again = true;
        self.due = Some(now + AGAIN);
        true
    }

    fn has_thinned(&self, live: usize) -> bool {
        self.most >= CROWD_MIN && live <= self.most / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(live: std::ops::Range<usize>, crowd: &mut Crowd, now: Duration) {
        live.rev().for_each(|live| crowd.left(live, now));
    }

    #[test]
    fn a_crowd_that_left_is_told_twice_and_after_a_moment() {
        let second = Duration::from_secs;
        let mut crowd = Crowd::default();
        (1..=1_000).for_each(|live| crowd.came(live));
        after(251..1_000, &mut crowd, second(10));
        assert_eq!(crowd.next(), None);
        after(100..251, &mut crowd, second(20));
        assert_eq!(crowd.next(), Some(second(21)));
        assert!(!crowd.is_over(100, second(20)));
        assert!(crowd.is_over(100, second(21)) && !crowd.is_over(100, second(22)));
        assert_eq!(crowd.next(), Some(second(25)));
        assert!(crowd.is_over(100, second(25)) && !crowd.is_over(100, second(26)));
        // Those who are left are no crowd.
        after(0..100, &mut crowd, second(30));
        assert_eq!(crowd.next(), None);
    }

    #[test]
    fn who_comes_back_at_once_keeps_the_memory() {
        let second = Duration::from_secs;
        let mut crowd = Crowd::default();
        (1..=1_000).for_each(|live| crowd.came(live));
        after(0..1_000, &mut crowd, second(10));
        (1..=1_000).for_each(|live| crowd.came(live));
        assert!(!crowd.is_over(1_000, second(11)));
        assert_eq!(crowd.next(), None);
        after(0..1_000, &mut crowd, second(20));
        assert!(crowd.is_over(0, second(21)));
    }
}
