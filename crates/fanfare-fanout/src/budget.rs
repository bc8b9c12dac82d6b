//! The process's bound on queued bytes.

use std::sync::atomic::AtomicUsize as Bound;

use crate::sync::atomic::{AtomicUsize, Ordering};

/// Bytes queued in all outboxes of the process, and how many may be. Exact: a charge that would pass the bound is refused.
#[derive(Debug)]
pub struct Budget {
    /// Written by a reload. No order with `used` is asked for, so models need not look into it: each charge is held to one bound.
    bytes_max: Bound,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max: Bound::new(bytes_max), used: AtomicUsize::new(0) }
    }

    /// Another bound from here on. What is charged beyond it stays so, and nothing more is until enough was given back.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Takes `bytes` from the budget; `false`, taking nothing, when they are not there.
    #[must_use]
    pub fn charge(&self, bytes: usize) -> bool {
        let bytes_max = self.bytes_max();
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= bytes_max)
            })
            .is_ok()
    }

    /// Gives `bytes` back.
    pub fn release(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "released more than was charged");
    }

    /// Bytes charged now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The bound, bytes.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_charge_over_the_bound_takes_nothing() {
        let budget = Budget::new(10);
        assert!(budget.charge(7));
        assert!(!budget.charge(4));
        assert_eq!(budget.used(), 7);
        assert!(budget.charge(3));
        budget.release(10);
        assert_eq!(budget.used(), 0);
        assert!(!budget.charge(usize::MAX));
    }

    #[test]
    fn another_bound_holds_for_the_next_charge() {
        let budget = Budget::new(10);
        assert!(budget.charge(8));
        budget.set_bytes_max(5);
        assert_eq!((budget.charge(1), budget.used(), budget.bytes_max()), (false, 8, 5), "what is charged stays");
        budget.release(4);
        assert!(budget.charge(1) && !budget.charge(1));
        budget.set_bytes_max(20);
        assert!(budget.charge(15) && !budget.charge(1));
    }
}
