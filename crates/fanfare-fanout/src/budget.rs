//! The process's bound on queued bytes.

use crate::sync::atomic::{AtomicUsize, Ordering};

/// Bytes queued in all outboxes of the process, and how many may be. Exact: a charge that would pass the bound is refused.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, used: AtomicUsize::new(0) }
    }

    /// Takes `bytes` from the budget; `false`, taking nothing, when they are not there.
    #[must_use]
    pub fn charge(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= self.bytes_max)
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
        self.bytes_max
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
}
