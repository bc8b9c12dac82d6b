//! What the run showed, for people and for programs.

mod facts;
mod parts;
mod shards;
mod slow;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::audit::Tally;
use crate::scenario::{Plan, Stalled};

pub use facts::{Facts, Samples};
pub use parts::{Churn, Close, Config, Fairness, Gateway, Quantiles, Receipts, Returning, Storm};
pub use shards::{Capacity, Shards};
pub use slow::Slow;

use facts::{rooms_without_one_order, tally};
use parts::closes;

/// The report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Tag of the run, in its rooms' names and payloads.
    pub run: String,
    /// What was asked for.
    pub config: Config,
    /// Version and cipher suite of TLS, where it was spoken.
    pub tls: Option<String>,
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
    /// With connections that come back: what they were told.
    pub returning: Option<Returning>,
    /// With subscribers that do not read: how the others fared, by how many they are.
    pub slow: Vec<Slow>,
    /// With a small room beside a big one: how it fared. All other latencies are the big one's.
    pub fairness: Option<Fairness>,
    /// With bursts: what the gateways can send.
    pub shards: Option<Shards>,
    /// Connections on each shard of the gateway, where it says so.
    pub connections_by_shard: BTreeMap<u32, u64>,
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
    /// Of these, subscribers that did not read.
    pub closes_of_stalled: u64,
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
            returning: Returning::of(&facts),
            slow: Vec::new(),
            fairness: Fairness::of(&facts),
            shards: None,
            connections_by_shard: by_shard(&facts),
            run: format!("{:08x}", plan.run),
            config: Config::of(plan),
            tls: facts.measured.tls.clone(),
            opening_ms: facts.opening.as_secs_f64() * 1_000.0,
            opened_per_second: plan.connections as f64 / facts.opening.as_secs_f64().max(1e-9),
            seconds,
            published,
            published_per_second: per_second(published),
            delivered_per_second: per_second(audit.delivered),
            unsent: unsent(&facts),
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
            closes_of_stalled: facts.measured.closes_of_stalled,
            errors: facts.measured.errors,
            audit,
            accounted: false,
            faults: Vec::new(),
        };
        let faults = report.find_faults(plan, facts.flushed);
        report.set_faults(faults);
        report
    }

    /// Says what is at fault, if anything is.
    pub(crate) fn set_faults(&mut self, faults: Vec<String>) {
        self.accounted = faults.is_empty();
        self.faults = faults;
    }

    fn find_faults(&self, plan: &Plan, flushed: bool) -> Vec<String> {
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
        let refused = self.returning.as_ref().map_or(0, |returning| returning.refused);
        fault(self.unsent.saturating_sub(refused), "publications that could not be sent");
        fault(self.errors.values().sum(), "errors");
        let stalled = if matches!(plan.stalled, Stalled::Slow(_)) { self.closes_of_stalled } else { 0 };
        let closed = self.closes.iter().map(|close| close.count).sum::<u64>() - stalled;
        let allowed = plan.allow_closes || self.returning.is_some();
        fault(if allowed { 0 } else { closed }, "connections closed before the end");
        if let Some(returning) = &self.returning {
            fault(returning.stayed_away, "connections that did not come back");
            fault(plan.returns_min.unwrap_or(0).saturating_sub(returning.returns), "fewer returns than asked for");
        }
        if self.returning.is_none() && closed == 0 && stalled == 0 && self.churn.is_none() {
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

/// At fixed rates, what was due and not sent.
fn unsent(facts: &Facts<'_>) -> u64 {
    let due = |(publisher, &published): (usize, &u64)| {
        let scheduled = facts.plan.schedule_of(publisher).is_some();
        if scheduled { facts.plan.quota(publisher) - published } else { 0 }
    };
    facts.published.iter().enumerate().map(due).sum()
}

fn by_shard(facts: &Facts<'_>) -> BTreeMap<u32, u64> {
    let mut count = BTreeMap::new();
    for shard in facts.ended.iter().filter_map(|ended| ended.shard) {
        *count.entry(shard).or_default() += 1;
    }
    count
}

fn own_cpu(samples: &Samples, delivered: u64) -> Option<f64> {
    let used = samples.ours_end?.cpu_us.saturating_sub(samples.ours_before?.cpu_us);
    Some(used as f64 / delivered.max(1) as f64)
}

fn own_cpu_opening(samples: &Samples, connections: usize) -> Option<f64> {
    let used = samples.ours_open?.cpu_us.saturating_sub(samples.ours_first?.cpu_us);
    Some(used as f64 / connections as f64)
}
