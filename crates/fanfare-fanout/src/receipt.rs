//! What became of a publication, told once by all shards together.

use std::fmt;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What became of one publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "a delivery is the truth about a publication"]
pub struct Delivery {
    /// Subscribers it was written to, or queued for within their bounds.
    pub delivered: u64,
    /// Subscribers that stay but did not get it, by their room's slow policy.
    pub dropped: u64,
    /// Subscribers that were closed because they could not take it. Who was closing for another reason is counted nowhere.
    pub evicted: u64,
}

type Done = Box<dyn FnOnce(Delivery) + Send>;

/// Counts a publication's deliveries over all shards; the last shard to report runs the callback.
///
/// It starts with one part owed (the publisher's own), so that it cannot finish before all shards have been named.
pub struct Receipt {
    owed: AtomicU32,
    delivered: AtomicU64,
    dropped: AtomicU64,
    evicted: AtomicU64,
    done: Mutex<Option<Done>>,
}

impl Receipt {
    /// A receipt that calls `done` once, on the thread of whoever reports last.
    pub fn new(done: impl FnOnce(Delivery) + Send + 'static) -> Self {
        Self {
            owed: AtomicU32::new(1),
            delivered: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            done: Mutex::new(Some(Box::new(done))),
        }
    }

    /// One more part will report.
    pub fn expect(&self) {
        self.owed.fetch_add(1, Ordering::Relaxed);
    }

    /// One part reports. The last one runs the callback.
    pub fn report(&self, part: Delivery) {
        for (total, part) in
            [(&self.delivered, part.delivered), (&self.dropped, part.dropped), (&self.evicted, part.evicted)]
        {
            if part > 0 {
                total.fetch_add(part, Ordering::Relaxed);
            }
        }
        // Release publishes this part's counts; acquire makes all of them visible to the last one.
        if self.owed.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let done = self.done.lock().take();
        if let Some(done) = done {
            done(Delivery {
                delivered: self.delivered.load(Ordering::Relaxed),
                dropped: self.dropped.load(Ordering::Relaxed),
                evicted: self.evicted.load(Ordering::Relaxed),
            });
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("owed", &self.owed).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize as Count;
    use loom::thread;

    use super::*;

    /// The callback runs exactly once, with every shard's part in it.
    #[test]
    fn loom_a_receipt_is_told_once_and_whole() {
        loom::model(|| {
            let told = Arc::new(Count::new(0));
            let seen = told.clone();
            let receipt = Arc::new(Receipt::new(move |d: Delivery| {
                seen.fetch_add(d.delivered as usize + 100, std::sync::atomic::Ordering::SeqCst);
            }));
            let shards: Vec<_> = [2, 3]
                .into_iter()
                .map(|delivered| {
                    receipt.expect();
                    let receipt = receipt.clone();
                    thread::spawn(move || receipt.report(Delivery { delivered, ..Delivery::default() }))
                })
                .collect();
            receipt.report(Delivery::default());
            for shard in shards {
                shard.join().expect("a shard");
            }
            assert_eq!(told.load(std::sync::atomic::Ordering::SeqCst), 105);
        });
    }
}
