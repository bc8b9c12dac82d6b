//! How the others fared, and what it cost the gateway, while some subscribers did not read.

use serde::Serialize;

use super::Report;
use crate::scenario::Plan;

/// Subscribers that do not read, beside a run in which all did.
#[derive(Debug, Serialize)]
pub struct Slow {
    /// How many they are.
    pub stalled: usize,
    /// Of them, how many the gateway closed.
    pub closed: u64,
    /// Of the others: 99 % of latencies, microseconds, in the run without them.
    pub p99_us_without: f64,
    /// The same with them.
    pub p99_us_with: f64,
    /// One by the other.
    pub ratio: f64,
    /// How much the gateway's memory grew while publications went out, at most, in the run without them, KiB.
    pub grown_kib_without: Option<u64>,
    /// The same with them.
    pub grown_kib_with: Option<u64>,
    /// How much it may grow, KiB, where that was said.
    pub memory_max_kib: Option<u64>,
}

impl Slow {
    pub(crate) fn of(plan: &Plan, without: &Report, with: &Report) -> Self {
        let grown = |report: &Report| {
            report.gateway.as_ref().map(|gateway| gateway.rss_kib_peak.saturating_sub(gateway.rss_kib_open))
        };
        let (p99_us_without, p99_us_with) = (without.latency_us.p99, with.latency_us.p99);
        Self {
            stalled: plan.stalled.count(),
            closed: with.closes_of_stalled,
            p99_us_without,
            p99_us_with,
            ratio: p99_us_with / p99_us_without.max(1e-9),
            grown_kib_without: grown(without),
            grown_kib_with: grown(with),
            memory_max_kib: plan.memory_max.map(|bytes| bytes / 1_024),
        }
    }

    /// The gateway took more memory than it may.
    pub(crate) fn fault(&self) -> Option<String> {
        let (grown, most) = (self.grown_kib_with?, self.memory_max_kib?);
        let too_much = grown > most;
        too_much.then(|| format!("with {} stalled its memory grew by {grown} KiB, more than {most}", self.stalled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_beyond_the_limit_is_a_fault() {
        let fault = |grown_kib_with, memory_max_kib| {
            let (p99_us_without, p99_us_with, ratio, grown_kib_without) = (1.0, 1.0, 1.0, None);
            let slow = Slow {
                stalled: 3,
                closed: 0,
                p99_us_without,
                p99_us_with,
                ratio,
                grown_kib_without,
                grown_kib_with,
                memory_max_kib,
            };
            slow.fault()
        };
        assert_eq!((fault(Some(9), Some(9)), fault(None, Some(9)), fault(Some(9), None)), (None, None, None));
        assert_eq!(fault(Some(10), Some(9)).as_deref(), Some("with 3 stalled its memory grew by 10 KiB, more than 9"));
    }
}
