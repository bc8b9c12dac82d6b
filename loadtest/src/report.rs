//! What the run showed, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::audit::Tally;
use crate::dialect::Dialect;
use crate::process::Usage;
use crate::scenario::{Pace, Plan, Via};
use crate::swarm::{Ended, Measured};

/// Everything the report is drawn up from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What was to be done.
    pub plan: &'a Plan,
    /// Time to open all connections.
    pub opening: Duration,
    /// From the beginning of the storm until all were back.
    pub storm: Option<Duration>,
    /// How long connections came and went.
    pub churning: Duration,
    /// How often one that comes and goes came.
    pub joins: u64,
    /// From the start of publishing to the last delivery.
    pub delivering: Duration,
    /// Publications by publisher.
    pub published: Vec<u64>,
    /// By publisher: it was cut off, and the gateway may not have got its last publications.
    pub cut_off: Vec<bool>,
    /// Publications that stopped holding up their publisher before they had arrived everywhere.
    pub written_off: u64,
    /// Every open connection answered the last ping.
    pub flushed: bool,
    /// CPU time and memory on the way.
    pub samples: Samples,
    /// The audits.
    pub ended: Vec<Ended>,
    /// The measurements.
    pub measured: Measured,
}

/// CPU time and memory on the way; absent where they could not be read.
#[derive(Debug, Clone, Copy)]
pub struct Samples {
    /// The gateway before any connection.
    pub before: Option<Usage>,
    /// The gateway with all connections open and nothing published.
    pub open: Option<Usage>,
    /// The gateway when publishing began.
    pub calm: Option<Usage>,
    /// The gateway after the last delivery.
    pub end: Option<Usage>,
    /// The gateway when all had left.
    pub after: Option<Usage>,
    /// The most resident memory that was seen while publishing, KiB.
    pub peak_kib: u64,
    /// This program before any connection.
    pub ours_first: Option<Usage>,
    /// This program when all connections were open.
    pub ours_open: Option<Usage>,
    /// This program, when publishing began.
    pub ours_before: Option<Usage>,
    /// This program, after the last delivery.
    pub ours_end: Option<Usage>,
}

/// The report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Tag of the run, in its rooms' names and payloads.
    pub run: String,
    /// What was asked for.
    pub config: Config,
    /// Time to open all connections, milliseconds.
    pub opening_ms: f64,
    /// Connections opened a second.
    pub opened_per_second: f64,
    /// From connecting to the finished upgrade, microseconds.
    pub handshake_us: Quantiles,
    /// With a storm: what it took to come back.
    pub storm: Option<Storm>,
    /// With connections that come and go: how they did.
    pub churn: Option<Churn>,
    /// With subscribers that do not read: how the others fared.
    pub slow: Option<Slow>,
    /// From the start of publishing to the last delivery, seconds.
    pub seconds: f64,
    /// Publications.
    pub published: u64,
    /// Publications a second.
    pub published_per_second: f64,
    /// Deliveries a second.
    pub delivered_per_second: f64,
    /// At a fixed rate: publications that were due and could not be sent.
    pub unsent: u64,
    /// Publications of publishers that were cut off which reached nobody: the gateway may never have got them.
    pub in_doubt: u64,
    /// In saturation: publications that did not arrive everywhere within a second.
    pub written_off: u64,
    /// The audit.
    pub audit: Tally,
    /// Rooms whose members got everything, but not in one order.
    pub rooms_without_one_order: u64,
    /// From the time a publication was due to each arrival, microseconds.
    pub latency_us: Quantiles,
    /// From the time a publication was due to its sending, microseconds: how late this program itself was.
    pub send_lag_us: Quantiles,
    /// Connections closed before the end.
    pub closes: Vec<Close>,
    /// Everything else that went wrong.
    pub errors: BTreeMap<String, u64>,
    /// Sums of the receipts, where publications go over HTTP.
    pub receipts: Option<Receipts>,
    /// The gateway's process, with `--pid`.
    pub gateway: Option<Gateway>,
    /// CPU time of this program while publishing, microseconds per delivery.
    pub own_cpu_us_per_delivery: Option<f64>,
    /// CPU time of this program to open one connection, microseconds.
    pub own_cpu_us_per_connection: Option<f64>,
    /// True when there is no fault.
    pub accounted: bool,
    /// Why it is not.
    pub faults: Vec<String>,
}

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

/// Subscribers that do not read.
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
    /// Most resident memory of the gateway in the run without them, KiB.
    pub peak_kib_without: Option<u64>,
    /// The same with them.
    pub peak_kib_with: Option<u64>,
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

impl Report {
    /// Draws up the report.
    #[must_use]
    pub fn new(mut facts: Facts<'_>) -> Self {
        let plan = facts.plan;
        let in_doubt = facts.leave_out_doubtful();
        let audit = tally(&facts);
        let published: u64 = facts.published.iter().sum();
        let seconds = facts.delivering.as_secs_f64();
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let mut report = Self {
            scenario: plan.name,
            handshake_us: Quantiles::of(&facts.measured.handshake),
            storm: Storm::of(&facts),
            churn: Churn::of(&facts),
            slow: (plan.stalled > 0).then(|| Slow::of(&facts)),
            run: format!("{:08x}", plan.run),
            config: Config::of(plan),
            opening_ms: facts.opening.as_secs_f64() * 1_000.0,
            opened_per_second: plan.connections as f64 / facts.opening.as_secs_f64().max(1e-9),
            seconds,
            published,
            published_per_second: per_second(published),
            delivered_per_second: per_second(audit.delivered),
            unsent: unsent(plan, published),
            in_doubt,
            written_off: facts.written_off,
            rooms_without_one_order: rooms_without_one_order(&facts),
            latency_us: Quantiles::of(&facts.measured.latency),
            send_lag_us: Quantiles::of(&facts.measured.lag),
            receipts: Receipts::of(plan, &facts.measured),
            gateway: Gateway::of(&facts.samples, plan.connections, audit.delivered),
            own_cpu_us_per_delivery: own_cpu(&facts.samples, audit.delivered),
            own_cpu_us_per_connection: own_cpu_opening(&facts.samples, plan.connections),
            closes: closes(&facts.measured),
            errors: facts.measured.errors,
            audit,
            accounted: false,
            faults: Vec::new(),
        };
        report.faults = report.find_faults(plan.allow_closes, facts.flushed);
        report.accounted = report.faults.is_empty();
        report
    }

    /// An earlier run was the same but for what this one is about.
    pub(crate) fn compare(&mut self, earlier: &Self) {
        if let Some(slow) = &mut self.slow {
            slow.p99_us_without = earlier.latency_us.p99;
            slow.ratio = slow.p99_us_with / slow.p99_us_without.max(1e-9);
            slow.peak_kib_without = earlier.gateway.as_ref().map(|gateway| gateway.rss_kib_peak);
        }
        self.faults.extend(earlier.faults.iter().map(|fault| format!("without stalled subscribers: {fault}")));
        self.accounted = self.faults.is_empty();
    }

    fn find_faults(&self, allow_closes: bool, flushed: bool) -> Vec<String> {
        let audit = &self.audit;
        let mut faults = Vec::new();
        let mut fault = |count: u64, what: &str| {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        };
        fault(audit.missing, "missing");
        fault(audit.overannounced, "announced as missing beyond what is missing");
        fault(audit.duplicate, "duplicate");
        fault(audit.out_of_order, "out of order");
        fault(audit.corrupt, "corrupt");
        fault(audit.foreign, "foreign");
        fault(self.rooms_without_one_order, "rooms without one order");
        fault(self.unsent, "publications that could not be sent");
        fault(self.errors.values().sum(), "errors");
        let stalled = self.slow.as_ref().map_or(0, |slow| slow.closed);
        let closed = self.closes.iter().map(|close| close.count).sum::<u64>() - stalled;
        fault(if allow_closes { 0 } else { closed }, "connections closed before the end");
        if closed == 0 && stalled == 0 && self.churn.is_none() {
            let told = self.receipts.as_ref().map_or(audit.delivered, |receipts| receipts.delivered);
            fault(told.abs_diff(audit.delivered), "deliveries by which the receipts differ from the audit");
        }
        if !flushed {
            faults.push("some connections did not answer the last ping".to_owned());
        }
        if audit.delivered == 0 {
            faults.push("nothing was delivered".to_owned());
        }
        faults
    }
}

impl Facts<'_> {
    /// Of a publisher that was cut off, only what reached somebody counts as published. Returns how much that leaves out.
    fn leave_out_doubtful(&mut self) -> u64 {
        let per_room = self.plan.publishers_per_room;
        let mut reached = vec![0; self.published.len()];
        for ended in &self.ended {
            for within in 0..per_room {
                let reached = &mut reached[ended.room * per_room + within];
                *reached = ended.receiver.next(within).max(*reached);
            }
        }
        let mut doubtful = 0;
        for ((published, reached), cut_off) in self.published.iter_mut().zip(reached).zip(&self.cut_off) {
            if *cut_off && reached < *published {
                doubtful += *published - reached;
                *published = reached;
            }
        }
        doubtful
    }
}

fn tally(facts: &Facts<'_>) -> Tally {
    let mut sum = Tally::default();
    for ended in &facts.ended {
        sum.add(&owed(facts, ended));
    }
    sum
}

/// What one receiver was owed and got. What a sender does not hear of itself it is not owed.
fn owed(facts: &Facts<'_>, ended: &Ended) -> Tally {
    let published = published_in(facts, ended.room);
    match ended.deaf_to {
        None => ended.receiver.tally(published, ended.throughout),
        Some(deaf_to) => {
            let mut published = published.to_vec();
            published[deaf_to] = 0;
            ended.receiver.tally(&published, ended.throughout)
        }
    }
}

fn published_in<'a>(facts: &'a Facts<'_>, room: usize) -> &'a [u64] {
    let publishers = facts.plan.publishers_per_room;
    &facts.published[room * publishers..(room + 1) * publishers]
}

/// Members that got everything must have got it in the same order; the others are already at fault elsewhere.
fn rooms_without_one_order(facts: &Facts<'_>) -> u64 {
    let mut orders: Vec<Option<u64>> = vec![None; facts.plan.rooms.len()];
    let mut disordered = vec![false; orders.len()];
    for ended in facts.ended.iter().filter(|ended| ended.throughout && ended.deaf_to.is_none()) {
        let tally = ended.receiver.tally(published_in(facts, ended.room), true);
        if !tally.is_accounted() || tally.announced > 0 {
            continue;
        }
        let order = ended.receiver.order();
        disordered[ended.room] |= *orders[ended.room].get_or_insert(order) != order;
    }
    disordered.into_iter().filter(|&disordered| disordered).count() as u64
}

fn unsent(plan: &Plan, published: u64) -> u64 {
    match plan.pace {
        Pace::Rate(schedule) => schedule.total - published,
        Pace::Outstanding { .. } => 0,
    }
}

fn closes(measured: &Measured) -> Vec<Close> {
    let close = |(&(code, ref reason), &count): (&(u16, String), &u64)| Close { code, reason: reason.clone(), count };
    measured.closes.iter().map(close).collect()
}

fn own_cpu(samples: &Samples, delivered: u64) -> Option<f64> {
    let used = samples.ours_end?.cpu_us.saturating_sub(samples.ours_before?.cpu_us);
    Some(used as f64 / delivered.max(1) as f64)
}

fn own_cpu_opening(samples: &Samples, connections: usize) -> Option<f64> {
    let used = samples.ours_open?.cpu_us.saturating_sub(samples.ours_first?.cpu_us);
    Some(used as f64 / connections as f64)
}

impl Config {
    fn of(plan: &Plan) -> Self {
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
    fn of(histogram: &Histogram<u64>) -> Self {
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
    fn of(facts: &Facts<'_>) -> Option<Self> {
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
    fn of(facts: &Facts<'_>) -> Option<Self> {
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

impl Slow {
    /// What one run alone can tell.
    fn of(facts: &Facts<'_>) -> Self {
        let peak = facts.samples.end.map(|end| end.rss_kib.max(facts.samples.peak_kib));
        Self {
            stalled: facts.plan.stalled,
            closed: facts.measured.closes_of_stalled,
            p99_us_without: 0.0,
            p99_us_with: Quantiles::of(&facts.measured.latency).p99,
            ratio: 0.0,
            peak_kib_without: None,
            peak_kib_with: peak,
        }
    }
}

impl Receipts {
    fn of(plan: &Plan, measured: &Measured) -> Option<Self> {
        let sums = &measured.receipts;
        let told = matches!(plan.via, Via::Http { .. });
        told.then_some(Self { delivered: sums.delivered, dropped: sums.dropped, evicted: sums.evicted })
    }
}

impl Gateway {
    fn of(samples: &Samples, connections: usize, delivered: u64) -> Option<Self> {
        let (before, open, calm, end) = (samples.before?, samples.open?, samples.calm?, samples.end?);
        let cpu_us = end.cpu_us.saturating_sub(calm.cpu_us);
        Some(Self {
            cpu_us,
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { connections, rooms, payload_bytes, publishers, .. } = &self.config;
        writeln!(
            f,
            "{} {} · {connections} connections · {rooms} rooms · {payload_bytes} bytes · publishers over {publishers}",
            self.scenario, self.run
        )?;
        writeln!(f, "opened     {:.0} ms, {:.0} connections a second", self.opening_ms, self.opened_per_second)?;
        self.write_besides(f)?;
        writeln!(
            f,
            "published  {} in {:.2} s, {:.0} a second; {:.0} deliveries a second",
            self.published, self.seconds, self.published_per_second, self.delivered_per_second
        )?;
        writeln!(f, "latency    {}", self.latency_us)?;
        writeln!(f, "send lag   {}", self.send_lag_us)?;
        self.write_costs(f)?;
        self.write_audit(f)
    }
}

impl Report {
    /// What happened besides publishing.
    fn write_besides(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Storm { seconds, per_second, retries, .. }) = self.storm {
            writeln!(f, "storm      all back in {seconds:.3} s, {per_second:.0} a second, {retries} retries")?;
        }
        if let Some(Churn { by, joins, per_second, joining_us, .. }) = &self.churn {
            writeln!(f, "churn      {joins} stays by {by}, {per_second:.0} a second; joining {joining_us}")?;
        }
        if let Some(Slow { stalled, closed, p99_us_without, p99_us_with, ratio, .. }) = self.slow {
            writeln!(
                f,
                "slow       {stalled} stalled, {closed} of them closed; p99 of the others {p99_us_with:.0} µs, without them {p99_us_without:.0} µs: × {ratio:.2}"
            )?;
        }
        Ok(())
    }

    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(gateway) = &self.gateway {
            let Gateway { cpu_us_per_delivery, rss_kib_before, rss_kib_open, rss_kib_end, .. } = gateway;
            let bytes = gateway.bytes_per_connection;
            writeln!(
                f,
                "gateway    {cpu_us_per_delivery:.2} µs CPU per delivery; {rss_kib_before} KiB before, {rss_kib_open} KiB with connections open ({bytes:.0} bytes each), {rss_kib_end} KiB at the end, {} KiB at most",
                gateway.rss_kib_peak
            )?;
            if let Some(after) = gateway.rss_kib_after {
                writeln!(f, "left       {after} KiB when all had left")?;
            }
        }
        if let Some(cpu) = self.own_cpu_us_per_delivery {
            writeln!(f, "load       {cpu:.2} µs CPU per delivery of this program")?;
        }
        Ok(())
    }

    fn write_audit(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { expected, delivered, missing, announced, duplicate, out_of_order, corrupt, foreign, .. } =
            self.audit;
        writeln!(
            f,
            "audit      expected {expected}, delivered {delivered}, missing {missing}, announced {announced}, duplicate {duplicate}, out of order {out_of_order}, corrupt {corrupt}, foreign {foreign}"
        )?;
        if self.in_doubt > 0 {
            writeln!(f, "in doubt   {} publications of publishers that were cut off reached nobody", self.in_doubt)?;
        }
        if self.written_off > 0 {
            writeln!(f, "stalls     {} publications took more than a second to arrive everywhere", self.written_off)?;
        }
        for Close { code, reason, count } in &self.closes {
            writeln!(f, "closed     {count} × {code} {reason:?}")?;
        }
        for (error, count) in &self.errors {
            writeln!(f, "error      {count} × {error}")?;
        }
        match self.accounted {
            true => writeln!(f, "result     everything is accounted for"),
            false => writeln!(f, "result     FAILED: {}", self.faults.join(", ")),
        }
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p90, p99, p999, max, .. } = self;
        write!(f, "p50 {p50:.0} µs · p90 {p90:.0} µs · p99 {p99:.0} µs · p99.9 {p999:.0} µs · max {max:.0} µs")
    }
}
