//! Leaving service: a state everyone can read, and the pace at which a shard closes its connections.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Steps of leaving service, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Step {
    Serving = 0,
    /// Not ready, still accepting.
    Draining = 1,
    /// Listeners are closed.
    Closed = 2,
}

/// Whether this node is leaving service.
#[derive(Debug)]
pub struct Drain {
    step: AtomicU8,
}

impl Default for Drain {
    fn default() -> Self {
        Self { step: AtomicU8::new(Step::Serving as u8) }
    }
}

impl Drain {
    /// Withdraws readiness. `false` if it was withdrawn before.
    pub fn begin(&self) -> bool {
        self.step.fetch_max(Step::Draining as u8, Ordering::Relaxed) < Step::Draining as u8
    }

    /// True once readiness is withdrawn.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.step.load(Ordering::Relaxed) >= Step::Draining as u8
    }

    /// Closes the listeners. A shard sees it in its next turn, at the latest when it is told to close its connections.
    pub fn stop_accepting(&self) {
        self.step.fetch_max(Step::Closed as u8, Ordering::Relaxed);
    }

    /// True until listeners are to be closed.
    pub(crate) fn is_accepting(&self) -> bool {
        self.step.load(Ordering::Relaxed) < Step::Closed as u8
    }
}

/// The pace of one shard: how many connections may still be open at a time within the window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    started: Duration,
    window: Duration,
    connections: usize,
}

impl Pace {
    pub(crate) fn new(started: Duration, window: Duration, connections: usize) -> Self {
        Self { started, window, connections }
    }

    /// Connections that may be open at `now`: a straight line from all to none.
    pub(crate) fn open_max(&self, now: Duration) -> usize {
        let gone = now.saturating_sub(self.started);
        let Some(left) = self.window.checked_sub(gone).filter(|left| !left.is_zero()) else { return 0 };
        (self.connections as f64 * left.as_secs_f64() / self.window.as_secs_f64()).ceil() as usize
    }

    /// When the window is over.
    pub(crate) fn ends_at(&self) -> Duration {
        self.started + self.window
    }

    /// When the next connection is due.
    pub(crate) fn next_step(&self, now: Duration) -> Duration {
        let step = self.window.div_f64(self.connections.max(1) as f64);
        now + step.clamp(Duration::from_millis(1), Duration::from_millis(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_a_straight_line() {
        let ms = Duration::from_millis;
        let pace = Pace::new(ms(1_000), ms(20_000), 4_000);
        for (now, open) in [(1_000, 4_000), (1_100, 3_980), (11_000, 2_000), (20_900, 20), (21_000, 0), (90_000, 0)] {
            assert_eq!(pace.open_max(ms(now)), open, "at {now}");
        }
        assert_eq!(Pace::new(ms(0), ms(0), 7).open_max(ms(0)), 0);
    }
}
