//! When publications are due: at a fixed rate, or as soon as an earlier one has reached everybody.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A fixed rate over all publishers in turn. The times are computed, never measured, so a stall of the gateway or of this
/// program delays nothing on paper: latency is counted from the time a publication was due (no coordinated omission).
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Publications a second, over all publishers.
    pub rate: f64,
    /// Publications in all.
    pub total: u64,
    /// Publishers that take turns.
    pub publishers: u64,
}

impl Schedule {
    /// Publications of publisher `index`.
    #[must_use]
    pub fn quota(&self, index: u64) -> u64 {
        (self.total + self.publishers - 1 - index) / self.publishers
    }

    /// When publication `seq` of publisher `index` is due, after the start.
    #[must_use]
    pub fn due(&self, index: u64, seq: u64) -> Duration {
        self.turn(seq * self.publishers + index)
    }

    fn turn(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / self.rate)
    }
}

/// Lets the waits of this thread end when they should: Linux adds 50 µs otherwise. Refused, it costs just that.
pub fn wait_precisely() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
}

/// Lets the other threads of this program go first: the thread that reads everything must not delay the one that measures.
/// Refused, or elsewhere than on Linux, where that is a matter of whole processes, the figures are worse than they could be.
pub fn give_way() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
}

/// At most a fixed number of publications of one publisher that have not reached all members of the room.
#[derive(Debug)]
pub struct Window {
    /// One per publication outstanding, at `seq % len`: the low bits of `seq`, and how many subscribers have not got it.
    slots: Box<[AtomicU64]>,
    /// Publications that may be made.
    free: AtomicUsize,
}

const SUBSCRIBER_BITS: u32 = 24;
const SUBSCRIBER_MASK: u64 = (1 << SUBSCRIBER_BITS) - 1;

impl Window {
    /// Most subscribers a room may have.
    pub const SUBSCRIBERS_MAX: usize = SUBSCRIBER_MASK as usize;

    /// A window of `outstanding` publications.
    #[must_use]
    pub fn new(outstanding: usize) -> Self {
        let slots = (0..outstanding).map(|_| AtomicU64::new(0)).collect();
        Self { slots, free: AtomicUsize::new(outstanding) }
    }

    /// Takes room in the window, where there is some.
    pub fn try_acquire(&self) -> bool {
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1)).is_ok()
    }

    /// Publication `seq` is on its way to `subscribers`. One for nobody has arrived already.
    pub fn begin(&self, seq: u64, subscribers: usize) {
        debug_assert!(subscribers <= Self::SUBSCRIBERS_MAX);
        self.slot(seq).store(seq << SUBSCRIBER_BITS | subscribers as u64, Ordering::Release);
        if subscribers == 0 {
            self.free.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// A subscriber got publication `seq`. The last one makes room: true then. What was overwritten meanwhile, because it
    /// was written off, is left alone.
    #[must_use]
    pub fn delivered(&self, seq: u64) -> bool {
        let tag = seq << SUBSCRIBER_BITS;
        let one_less = |slot: u64| (slot & !SUBSCRIBER_MASK == tag && slot & SUBSCRIBER_MASK > 0).then(|| slot - 1);
        let before = self.slot(seq).fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
        let last = before.is_ok_and(|slot| slot & SUBSCRIBER_MASK == 1);
        if last {
            self.free.fetch_add(1, Ordering::AcqRel);
        }
        last
    }

    fn slot(&self, seq: u64) -> &AtomicU64 {
        &self.slots[(seq % self.slots.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_take_turns_and_the_quotas_add_up() {
        for (total, publishers) in [(0, 1), (1, 3), (10, 3), (9, 3), (5, 7)] {
            let schedule = Schedule { rate: 1_000.0, total, publishers };
            let mut numbers: Vec<u64> = Vec::new();
            for index in 0..publishers {
                for seq in 0..schedule.quota(index) {
                    numbers.push((schedule.due(index, seq).as_secs_f64() * 1_000.0).round() as u64);
                }
            }
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..total), "{total} over {publishers}");
        }
    }

    #[test]
    fn a_window_opens_when_the_last_subscriber_has_it() {
        let window = Window::new(2);
        assert!(window.try_acquire());
        window.begin(0, 2);
        assert!(!window.delivered(0));
        assert_eq!(window.free.load(Ordering::Relaxed), 1);
        assert!(window.delivered(0));
        assert_eq!(window.free.load(Ordering::Relaxed), 2);
        assert!(!window.delivered(0) && !window.delivered(2), "a duplicate or a stranger makes no room");
        assert!(window.try_acquire() && window.try_acquire() && !window.try_acquire());
    }

    #[test]
    fn a_straggler_of_a_written_off_publication_makes_no_room() {
        let window = Window::new(1);
        assert!(window.try_acquire());
        window.begin(0, 2);
        window.begin(1, 1);
        assert!(!window.delivered(0) && !window.delivered(0) && !window.try_acquire());
        assert!(window.delivered(1) && window.try_acquire());
    }
}
