//! When publications are due: at a fixed rate, or as soon as an earlier one has reached everybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

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

    /// Wakes each publisher when its turn has come; returns after the last turn, or when `stop` says so. Runs on a thread
    /// of its own: the timers of the runtime are a millisecond coarse, which would be most of the latency measured.
    pub fn run<'a>(&self, start: Instant, wake: impl Fn(u64) -> &'a Notify, stop: impl Fn() -> bool) {
        sleep_precisely();
        for number in 0..self.total {
            let due = start + self.turn(number);
            while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
                if stop() {
                    return;
                }
                std::thread::sleep(wait.min(Duration::from_millis(100)));
            }
            wake(number % self.publishers).notify_one();
        }
    }
}

/// Lets the sleeps of this thread end when they should: Linux adds 50 µs otherwise. Refused, it costs just that.
fn sleep_precisely() {
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
}

/// At most a fixed number of publications of one publisher that have not reached all members of the room.
#[derive(Debug)]
pub struct Window {
    /// One per publication outstanding, at `seq % len`: the low bits of `seq`, and how many members have not got it.
    slots: Box<[AtomicU64]>,
    free: Semaphore,
}

const MEMBER_BITS: u32 = 24;
const MEMBER_MASK: u64 = (1 << MEMBER_BITS) - 1;

impl Window {
    /// Most members a room may have.
    pub const MEMBERS_MAX: usize = MEMBER_MASK as usize;

    /// A window of `outstanding` publications.
    #[must_use]
    pub fn new(outstanding: usize) -> Self {
        let slots = (0..outstanding).map(|_| AtomicU64::new(0)).collect();
        Self { slots, free: Semaphore::new(outstanding) }
    }

    /// Waits for room in the window and takes it. Cancel safe.
    pub async fn acquire(&self) {
        self.free.acquire().await.expect("the semaphore is never closed").forget();
    }

    /// Publication `seq` is on its way to `members` members. One for nobody has arrived already.
    pub fn begin(&self, seq: u64, members: usize) {
        debug_assert!(members <= Self::MEMBERS_MAX);
        self.slot(seq).store(seq << MEMBER_BITS | members as u64, Ordering::Release);
        if members == 0 {
            self.free.add_permits(1);
        }
    }

    /// A member got publication `seq`. The last one makes room. What was overwritten meanwhile, because it was written off,
    /// is left alone.
    pub fn delivered(&self, seq: u64) {
        let tag = seq << MEMBER_BITS;
        let one_less = |slot: u64| (slot & !MEMBER_MASK == tag && slot & MEMBER_MASK > 0).then(|| slot - 1);
        let before = self.slot(seq).fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
        if before.is_ok_and(|slot| slot & MEMBER_MASK == 1) {
            self.free.add_permits(1);
        }
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
    fn the_pacer_wakes_everyone_in_turn_and_never_early() {
        let wakes: Vec<Notify> = (0..3).map(|_| Notify::new()).collect();
        let woken = std::cell::RefCell::new(Vec::new());
        let schedule = Schedule { rate: 2_000.0, total: 7, publishers: 3 };
        let start = Instant::now();
        let wake = |index: u64| {
            woken.borrow_mut().push((index, start.elapsed()));
            &wakes[index as usize]
        };
        schedule.run(start, wake, || false);
        let woken = woken.into_inner();
        assert!(woken.iter().map(|&(index, _)| index).eq([0, 1, 2, 0, 1, 2, 0]));
        assert!(woken.iter().enumerate().all(|(number, &(_, at))| at >= schedule.turn(number as u64)));
        let slow = Schedule { rate: 0.001, ..schedule };
        slow.run(Instant::now(), |index| &wakes[index as usize], || true);
    }

    #[test]
    fn a_window_opens_when_the_last_member_has_it() {
        let window = Window::new(2);
        assert!(window.free.try_acquire().map(|permit| permit.forget()).is_ok());
        window.begin(0, 2);
        window.delivered(0);
        assert_eq!(window.free.available_permits(), 1);
        window.delivered(0);
        assert_eq!(window.free.available_permits(), 2);
        window.delivered(0);
        window.delivered(2);
        assert_eq!(window.free.available_permits(), 2, "a duplicate or a stranger makes no room");
    }

    #[test]
    fn a_straggler_of_a_written_off_publication_makes_no_room() {
        let window = Window::new(1);
        window.begin(0, 2);
        window.begin(1, 1);
        window.delivered(0);
        window.delivered(0);
        assert_eq!(window.free.available_permits(), 1);
        window.delivered(1);
        assert_eq!(window.free.available_permits(), 2);
    }
}
