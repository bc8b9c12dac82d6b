//! What gateways can send when nothing else needs the cores: several bursts to each, and their medians.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Report;

/// One gateway, or two of which the second has more shards.
#[derive(Debug, Serialize)]
pub struct Shards {
    /// Bursts to each.
    pub bursts: usize,
    /// The first.
    pub one: Capacity,
    /// The second.
    pub other: Option<Capacity>,
    /// Deliveries a second of the second by those of the first.
    pub ratio: Option<f64>,
}

/// What one gateway can send.
#[derive(Debug, Serialize)]
pub struct Capacity {
    /// Deliveries a second, from the first publication of a burst to the last arrival at those who read: the median.
    pub delivered_per_second: f64,
    /// Of each burst.
    pub bursts: Vec<f64>,
    /// CPU time of the gateway per delivery, microseconds: the median.
    pub cpu_us_per_delivery: Option<f64>,
    /// Members of the room on each shard, in the last burst; empty where the gateway does not say.
    pub connections_by_shard: BTreeMap<u32, u64>,
}

impl Shards {
    /// The last report, with what the bursts to `gateways` gateways, in turn, came to.
    pub(crate) fn sum_up(mut reports: Vec<Report>, gateways: usize) -> Option<Report> {
        let of = |which: usize| Capacity::of(&reports.iter().skip(which).step_by(gateways).collect::<Vec<_>>());
        let (one, other) = (of(0), (gateways > 1).then(|| of(1)));
        let mut faults: Vec<String> = Vec::new();
        for (report, number) in reports.iter().zip(0..) {
            let (burst, gateway) = (number / gateways + 1, number % gateways + 1);
            faults.extend(report.faults.iter().map(|fault| format!("burst {burst} to gateway {gateway}: {fault}")));
        }
        faults.extend(other.as_ref().and_then(Capacity::fault));
        let ratio = other.as_ref().map(|other| other.delivered_per_second / one.delivered_per_second.max(1e-9));
        let bursts = one.bursts.len();
        let mut report = reports.pop()?;
        report.shards = Some(Self { bursts, one, other, ratio });
        report.set_faults(faults);
        Some(report)
    }
}

impl Capacity {
    /// Two shards were to be measured. A gateway that says nothing of its shards is believed.
    fn fault(&self) -> Option<String> {
        let alone = self.connections_by_shard.len() == 1;
        alone.then(|| "all members were on one shard of the second gateway".to_owned())
    }

    fn of(reports: &[&Report]) -> Self {
        let bursts: Vec<f64> = reports.iter().map(|report| report.delivered_per_second).collect();
        let cpu = reports.iter().filter_map(|report| Some(report.gateway.as_ref()?.cpu_us_per_delivery)).collect();
        Self {
            delivered_per_second: median(bursts.clone()).unwrap_or(0.0),
            bursts,
            cpu_us_per_delivery: median(cpu),
            connections_by_shard: reports.last().map(|last| last.connections_by_shard.clone()).unwrap_or_default(),
        }
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (last, middle) = (values.len().checked_sub(1)?, values.len() / 2);
    Some(f64::midpoint(values[last / 2], values[middle]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_shards_of_which_one_is_empty_are_a_fault() {
        let fault = |shards: &[(u32, u64)]| {
            let connections_by_shard = shards.iter().copied().collect();
            let bursts = Vec::new();
            Capacity { delivered_per_second: 1.0, bursts, cpu_us_per_delivery: None, connections_by_shard }.fault()
        };
        assert_eq!((fault(&[]), fault(&[(0, 5), (1, 4)])), (None, None));
        assert!(fault(&[(1, 9)]).is_some());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }
}
