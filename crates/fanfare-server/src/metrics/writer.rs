//! How a metric is written.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfare_fanout::{LATENCY_BOUNDS_US, Latencies};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Writes one metric after the other. Names have no prefix here, and counters no `_total`.
pub(super) struct Writer<'a> {
    pub(super) encoder: DescriptorEncoder<'a>,
}

impl Writer<'_> {
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let metric = self.encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(metric)
    }

    /// A gauge whose labels say more than its value.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: i64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let mut family = self.encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(family.encode_family(&labels)?)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let metric = self.encoder.encode_descriptor(name, help, None, counter.metric_type())?;
        counter.encode(metric)
    }

    pub(super) fn count(&mut self, name: &str, help: &str, count: &AtomicU64) -> fmt::Result {
        self.counter(name, help, count.load(Ordering::Relaxed))
    }

    pub(super) fn labelled(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let metric_type = ConstCounter::new(0u64).metric_type();
        let mut family = self.encoder.encode_descriptor(name, help, None, metric_type)?;
        for &(value, count) in values {
            ConstCounter::new(count).encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    /// A count for each of `values`, in their order.
    pub(super) fn counts<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = &'l str>,
        counts: &[AtomicU64],
    ) -> fmt::Result {
        let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
        self.labelled(name, help, label, &values.into_iter().zip(counts).collect::<Vec<_>>())
    }

    /// Durations of all of `parts` together, in seconds.
    pub(super) fn durations<'l>(
        &mut self,
        name: &str,
        help: &str,
        parts: impl Iterator<Item = &'l Latencies>,
    ) -> fmt::Result {
        let metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        histogram(metric, parts)
    }

    /// Durations of each shard, in seconds.
    pub(super) fn durations_by_shard<'l>(
        &mut self,
        name: &str,
        help: &str,
        shards: impl Iterator<Item = &'l Latencies>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (shard, latencies) in shards.enumerate() {
            histogram(family.encode_family(&[("shard", shard.to_string())])?, std::iter::once(latencies))?;
        }
        Ok(())
    }
}

fn histogram<'l>(mut metric: MetricEncoder<'_>, parts: impl Iterator<Item = &'l Latencies>) -> fmt::Result {
    let mut counts = [0; LATENCY_BOUNDS_US.len() + 1];
    let sum_us: u64 = parts.map(|part| part.add_to(&mut counts)).sum();
    let bounds = LATENCY_BOUNDS_US.iter().map(|&us| us as f64 / 1e6).chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(counts).collect();
    metric.encode_histogram::<NoLabelSet>(sum_us as f64 / 1e6, counts.iter().sum(), &buckets, None)
}
