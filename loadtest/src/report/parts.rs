//! The parts of a report, each drawn from the facts that it is about.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::facts::{Facts, Samples};
use crate::dialect::Dialect;
use crate::scenario::{Pace, Plan, Via};
use crate::swarm::Measured;

/// What was asked for.
#[derive(Debug, Serialize)]
pub struct Config {
    /// Address of the first room.
    pub url: String,
    /// Connections.
    pub connections: usize,
    /// Rooms.
    pub rooms: usize,
    /// Publishers of each room.
    pub publishers_per_room: usize,
    /// `ws` or `http`.
    pub publishers: &'static str,
    /// What the connections spoke.
    pub dialect: Dialect,
    /// Publications a second, where a rate was asked for.
    pub rate: Option<f64>,
    /// Publications of a publisher on their way at a time, in saturation.
    pub outstanding: Option<usize>,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Seconds.
    pub duration_seconds: f64,
    /// Worker threads.
    pub threads: usize,
}

/// A storm.
#[derive(Debug, Serialize)]
pub struct Storm {
    /// From the beginning until all were back, seconds.
    pub seconds: f64,
    /// Connections that came back a second.
    pub per_second: f64,
    /// Attempts that failed and were repeated.
    pub retries: u64,
    /// CPU time of the gateway for each connection that came back, microseconds.
    pub gateway_cpu_us_each: Option<f64>,
}

/// Connections that come and go.
#[derive(Debug, Serialize)]
pub struct Churn {
    /// `command` or `connection`: how they join and leave.
    pub by: &'static str,
    /// Stays.
    pub joins: u64,
    /// Stays a second; each is a join and a leave.
    pub per_second: f64,
    /// From asking to join to its confirmation, microseconds.
    pub joining_us: Quantiles,
    /// CPU time of the gateway for each stay, deliveries included, microseconds.
    pub gateway_cpu_us_each: Option<f64>,
}

/// Connections that come back with their positions.
#[derive(Debug, Serialize)]
pub struct Returning {
    /// How often one came back.
    pub returns: u64,
    /// Of these, how often all that was missed followed.
    pub recovered: u64,
    /// Of these, how often the gateway said that what was missed is not to be had.
    pub gaps: u64,
    /// Publications that lie in those gaps, over all connections.
    pub in_gaps: u64,
    /// Attempts that failed and were repeated.
    pub retries: u64,
    /// Publications that the gateway refused.
    pub refused: u64,
    /// Connections that were not subscribed at the end.
    pub stayed_away: u64,
}

/// A small room beside a big one.
#[derive(Debug, Serialize)]
pub struct Fairness {
    /// Members of the small room.
    pub members: usize,
    /// Publications a second in the small room.
    pub rate: f64,
    /// From the time a publication of the small room was due to each arrival, microseconds.
    pub latency_us: Quantiles,
    /// From the time a publication of the small room was due to its sending, microseconds: how late this program was.
    pub send_lag_us: Quantiles,
    /// Deliveries a second in the big room.
    pub big_delivered_per_second: f64,
}

/// Quantiles of a histogram.
#[derive(Debug, Default, Serialize)]
pub struct Quantiles {
    /// Values recorded.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

/// Connections that ended alike.
#[derive(Debug, Serialize)]
pub struct Close {
    /// Close code.
    pub code: u16,
    /// The gateway's words.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// Sums of receipts.
#[derive(Debug, Serialize)]
pub struct Receipts {
    /// Told to be delivered.
    pub delivered: u64,
    /// Told to be dropped.
    pub dropped: u64,
    /// Told to be evicted.
    pub evicted: u64,
}

/// The gateway's process.
#[derive(Debug, Serialize)]
pub struct Gateway {
    /// CPU time from the start of publishing to the last delivery, microseconds.
    pub cpu_us: u64,
    /// The same per delivery.
    pub cpu_us_per_delivery: f64,
    /// Of it, the part that the kernel spent: 0 to 1.
    pub kernel_share: f64,
    /// Resident memory before any connection, KiB.
    pub rss_kib_before: u64,
    /// Resident memory with all connections open, KiB.
    pub rss_kib_open: u64,
    /// Resident memory after the last delivery, KiB.
    pub rss_kib_end: u64,
    /// The most that was seen while publishing, KiB.
    pub rss_kib_peak: u64,
    /// Resident memory when all had left, KiB, where that was waited for.
    pub rss_kib_after: Option<u64>,
    /// Growth of resident memory per open connection, bytes.
    pub bytes_per_connection: f64,
    /// CPU time to open one connection, microseconds.
    pub cpu_us_per_connection: f64,
}

impl Config {
    pub(super) fn of(plan: &Plan) -> Self {
        let (rate, outstanding) = match plan.pace {
            Pace::Rate(schedule) => (Some(schedule.rate), None),
            Pace::Outstanding { window, .. } => (None, Some(window)),
        };
        Self {
            url: plan.rooms[0].url.to_string(),
            connections: plan.connections,
            rooms: plan.rooms.len(),
            publishers_per_room: plan.publishers_per_room,
            publishers: if matches!(plan.via, Via::Members) { "ws" } else { "http" },
            dialect: plan.dialect,
            rate,
            outstanding,
            payload_bytes: plan.payload_bytes,
            duration_seconds: plan.duration.as_secs_f64(),
            threads: plan.threads,
        }
    }
}

impl Quantiles {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let us = |ns: u64| ns as f64 / 1_000.0;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1_000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: us(histogram.max()),
        }
    }
}

impl Storm {
    pub(super) fn of(facts: &Facts<'_>) -> Option<Self> {
        let (seconds, connections) = (facts.storm?.as_secs_f64(), facts.plan.connections as f64);
        let used = |samples: &Samples| Some(samples.calm?.cpu_us.saturating_sub(samples.open?.cpu_us));
        Some(Self {
            seconds,
            per_second: connections / seconds.max(1e-9),
            retries: facts.measured.retries,
            gateway_cpu_us_each: used(&facts.samples).map(|cpu_us| cpu_us as f64 / connections),
        })
    }
}

impl Churn {
    pub(super) fn of(facts: &Facts<'_>) -> Option<Self> {
        let plan = facts.plan;
        if plan.roamers == 0 {
            return None;
        }
        let used = |samples: &Samples| Some(samples.end?.cpu_us.saturating_sub(samples.calm?.cpu_us));
        Some(Self {
            by: if plan.rooms[0].commands_url.is_some() { "command" } else { "connection" },
            joins: facts.joins,
            per_second: facts.joins as f64 / facts.churning.as_secs_f64().max(1e-9),
            joining_us: Quantiles::of(&facts.measured.joining),
            gateway_cpu_us_each: used(&facts.samples).map(|cpu_us| cpu_us as f64 / facts.joins.max(1) as f64),
        })
    }
}

impl Returning {
    pub(super) fn of(facts: &Facts<'_>) -> Option<Self> {
        facts.plan.returns_min?;
        let told = &facts.measured.returns;
        Some(Self {
            returns: told.recovered + told.gaps,
            recovered: told.recovered,
            gaps: told.gaps,
            in_gaps: facts.ended.iter().map(|ended| ended.receiver.skipped()).sum(),
            retries: facts.measured.retries,
            refused: told.refused,
            stayed_away: facts.ended.iter().filter(|ended| !ended.at_the_end).count() as u64,
        })
    }
}

impl Fairness {
    pub(super) fn of(facts: &Facts<'_>) -> Option<Self> {
        let beside = facts.plan.beside?;
        let measured = &facts.measured;
        Some(Self {
            members: beside.members,
            rate: beside.schedule.rate,
            latency_us: Quantiles::of(&measured.latency_beside),
            send_lag_us: Quantiles::of(&measured.lag_beside),
            big_delivered_per_second: measured.latency.len() as f64 / facts.delivering.as_secs_f64().max(1e-9),
        })
    }
}

impl Receipts {
    pub(super) fn of(plan: &Plan, measured: &Measured) -> Option<Self> {
        let sums = &measured.receipts;
        let told = matches!(plan.via, Via::Http { .. });
        told.then_some(Self { delivered: sums.delivered, dropped: sums.dropped, evicted: sums.evicted })
    }
}

impl Gateway {
    pub(super) fn of(samples: &Samples, connections: usize, delivered: u64) -> Option<Self> {
        let (before, open, calm, end) = (samples.before?, samples.open?, samples.calm?, samples.end?);
        let cpu_us = end.cpu_us.saturating_sub(calm.cpu_us);
        let system_us = end.system_us.saturating_sub(calm.system_us);
        Some(Self {
            cpu_us,
            kernel_share: system_us as f64 / cpu_us.max(1) as f64,
            cpu_us_per_delivery: cpu_us as f64 / delivered.max(1) as f64,
            rss_kib_before: before.rss_kib,
            rss_kib_open: open.rss_kib,
            rss_kib_end: end.rss_kib,
            rss_kib_peak: samples.peak_kib.max(end.rss_kib),
            rss_kib_after: samples.after.map(|after| after.rss_kib),
            cpu_us_per_connection: open.cpu_us.saturating_sub(before.cpu_us) as f64 / connections as f64,
            bytes_per_connection: open.rss_kib.saturating_sub(before.rss_kib) as f64 * 1_024.0 / connections as f64,
        })
    }
}

pub(super) fn closes(measured: &Measured) -> Vec<Close> {
    let close = |(&(code, ref reason), &count): (&(u16, String), &u64)| Close { code, reason: reason.clone(), count };
    measured.closes.iter().map(close).collect()
}
