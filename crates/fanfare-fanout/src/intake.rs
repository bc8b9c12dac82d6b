//! A shard's bounded queue of publications and orders from other threads, and the wake that ends its sleep.

use std::fmt;

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

#[cfg(not(loom))]
type Queue<T> = crossbeam::queue::SegQueue<T>;

/// A stand-in that loom can follow; the order of its operations is that of the real queue.
#[cfg(loom)]
struct Queue<T>(crate::sync::Mutex<std::collections::VecDeque<T>>);

#[cfg(loom)]
impl<T> Queue<T> {
    fn new() -> Self {
        Self(crate::sync::Mutex::new(std::collections::VecDeque::new()))
    }
    fn push(&self, item: T) {
        self.0.lock().push_back(item);
    }
    fn pop(&self) -> Option<T> {
        self.0.lock().pop_front()
    }
    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// Bounds of what a shard may owe its audience: accepted, not yet offered to every member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeLimits {
    /// Publications owed. Beyond: publishing is refused as overloaded.
    pub intake_items_max: usize,
    /// Payload bytes owed. Beyond: publishing is refused as overloaded.
    pub intake_bytes_max: usize,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self { intake_items_max: 65_536, intake_bytes_max: 64 << 20 }
    }
}

/// A shard is over its bound; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;

/// A shard's queue. Any thread pushes; the shard alone takes.
///
/// Room for a publication is reserved before it gets its place in the room's order and is released when every member here has been
/// offered it, so the bound covers queue and batches together. Orders (acks, closes) need no reservation: each answers something that is
/// bounded elsewhere.
pub struct Intake<T> {
    queue: Queue<T>,
    wake: Wake,
    /// Publications that are owed. Any thread adds, before it pushes; the shard takes away.
    items: AtomicUsize,
    /// Their payload, written with `items`.
    bytes: AtomicUsize,
    limits: IntakeLimits,
}

impl<T> Intake<T> {
    /// An empty intake; `notify` must end the shard's sleep, from any thread.
    pub fn new(limits: IntakeLimits, notify: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            queue: Queue::new(),
            wake: Wake::new(notify),
            items: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            limits,
        }
    }

    /// Reserves room for one publication of `bytes`.
    ///
    /// # Errors
    /// [`Overloaded`] when a bound would be passed.
    pub fn reserve(&self, bytes: usize) -> Result<(), Overloaded> {
        let items = self.items.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if items >= self.limits.intake_items_max || before.saturating_add(bytes) > self.limits.intake_bytes_max {
            self.release(1, bytes);
            return Err(Overloaded);
        }
        Ok(())
    }

    /// Counts an event that must not be refused: who came and went, a room's end. There is at most one per order a shard has
    /// taken from its own connections, so they are bounded where those are.
    pub fn reserve_always(&self, bytes: usize) {
        self.items.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what [`Self::reserve`] took, for `items` publications of `bytes` together.
    pub fn release(&self, items: usize, bytes: usize) {
        self.items.fetch_sub(items, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// True from a quarter of either bound on: publishers should be slowed by not reading their sockets.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.items.load(Ordering::Relaxed) >= self.limits.intake_items_max / 4
            || self.bytes.load(Ordering::Relaxed) >= self.limits.intake_bytes_max / 4
    }

    /// Appends an item and wakes the shard if it sleeps.
    pub fn push(&self, item: T) {
        self.queue.push(item);
        self.wake.wake();
    }

    /// Appends an item without waking; the caller wakes once, with [`Self::wake`], after it has released its locks.
    pub fn push_quietly(&self, item: T) {
        self.queue.push(item);
    }

    /// Wakes the shard if it sleeps.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Takes the oldest item. Only the shard calls this.
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// True when nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Announces sleep. `false` when there is something to take: then the shard must not sleep. `true`: any later push
    /// notifies. Only the shard calls this.
    #[must_use]
    pub fn prepare_sleep(&self) -> bool {
        self.wake.announce_sleep();
        if self.queue.is_empty() {
            return true;
        }
        self.wake.awake();
        false
    }

    /// Ends the announced sleep. Only the shard calls this.
    pub fn awake(&self) {
        self.wake.awake();
    }
}

impl<T> fmt::Debug for Intake<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("items", &self.items).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// A flag and a way to end a sleep. A wake costs a system call only when the sleeper sleeps.
///
/// Sleeper: announce, fence, look once more, sleep. Waker: push, fence, look at the flag. One of the two always sees the other
/// (the store–load pattern of Dekker); the loom model below checks it.
pub struct Wake {
    sleeping: AtomicBool,
    notify: Box<dyn Fn() + Send + Sync>,
}

impl Wake {
    /// A wake whose `notify` ends the sleep from any thread.
    pub fn new(notify: impl Fn() + Send + Sync + 'static) -> Self {
        Self { sleeping: AtomicBool::new(false), notify: Box::new(notify) }
    }

    fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Ends the sleep if there is one. Call after what should be seen was made visible.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            (self.notify)();
        }
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake").field("sleeping", &self.sleeping).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_bounded_in_items_and_bytes() {
        let intake = Intake::<()>::new(IntakeLimits { intake_items_max: 4, intake_bytes_max: 100 }, || {});
        assert_eq!(intake.reserve(101), Err(Overloaded));
        assert!(!intake.is_pressed());
        assert_eq!(intake.reserve(30), Ok(()));
        assert!(intake.is_pressed());
        assert_eq!(intake.reserve(70), Ok(()));
        assert_eq!(intake.reserve(1), Err(Overloaded));
        assert_eq!(intake.reserve(0), Ok(()));
        assert_eq!(intake.reserve(0), Ok(()));
        assert_eq!(intake.reserve(0), Err(Overloaded));
        intake.release(4, 100);
        assert_eq!(intake.reserve(100), Ok(()));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize as Count;
    use loom::thread;

    /// A shard that announces sleep either finds the item or is notified of it.
    #[test]
    fn loom_a_wake_is_never_lost() {
        loom::model(|| {
            let notified = Arc::new(Count::new(0));
            let counter = notified.clone();
            let intake = Arc::new(Intake::new(IntakeLimits::default(), move || {
                counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }));
            let pushers: Vec<_> = (0..2)
                .map(|n| {
                    let intake = intake.clone();
                    thread::spawn(move || intake.push(n))
                })
                .collect();
            let slept = intake.prepare_sleep();
            for pusher in pushers {
                pusher.join().expect("a pusher");
            }
            if slept {
                // Both pushes came after the look, or at least one of them: it must have notified, once.
                assert_eq!(notified.load(std::sync::atomic::Ordering::SeqCst), 1);
            }
            intake.awake();
            assert!(intake.pop().is_some() && intake.pop().is_some() && intake.pop().is_none());
        });
    }

    /// Reservations never pass the bound, and all of them come back.
    #[test]
    fn loom_reservations_add_up() {
        loom::model(|| {
            let limits = IntakeLimits { intake_items_max: 1, intake_bytes_max: 10 };
            let intake = Arc::new(Intake::<()>::new(limits, || {}));
            let other = intake.clone();
            let thread = thread::spawn(move || {
                if other.reserve(10).is_ok() {
                    other.release(1, 10);
                }
            });
            if intake.reserve(10).is_ok() {
                intake.release(1, 10);
            }
            thread.join().expect("the other publisher");
            assert_eq!(intake.reserve(10), Ok(()));
        });
    }
}
