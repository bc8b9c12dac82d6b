//! A histogram that one thread writes and any thread reads.

use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets, microseconds. The last bucket has none.
pub const LATENCY_BOUNDS_US: [u64; 15] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// Counts of durations by bucket, and their sum.
#[derive(Debug, Default)]
pub struct Latencies {
    /// One more than [`LATENCY_BOUNDS_US`]: the last counts what is over all bounds.
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Latencies {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|&bound| bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Adds the counts of each bucket, not cumulated, to `into`, and returns the sum in microseconds.
    pub fn add_to(&self, into: &mut [u64; LATENCY_BOUNDS_US.len() + 1]) -> u64 {
        for (total, bucket) in into.iter_mut().zip(&self.buckets) {
            *total += bucket.load(Ordering::Relaxed);
        }
        self.sum_us.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_do_not_pass() {
        let latencies = Latencies::default();
        for us in [0, 50, 51, 5_000_000, 5_000_001] {
            latencies.record(Duration::from_micros(us));
        }
        let mut counts = [0; LATENCY_BOUNDS_US.len() + 1];
        assert_eq!(latencies.add_to(&mut counts), 10_000_102);
        assert_eq!((counts[0], counts[1], counts[14], counts[15]), (2, 1, 1, 1));
    }
}
