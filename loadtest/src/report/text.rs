//! The report as a person reads it.

use std::fmt;

use super::{Capacity, Churn, Close, Config, Fairness, Gateway, Quantiles, Report, Returning, Shards, Slow, Storm};
use crate::audit::Tally;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { connections, rooms, payload_bytes, publishers, .. } = &self.config;
        writeln!(
            f,
            "{} {} · {connections} connections · {rooms} rooms · {payload_bytes} bytes · publishers over {publishers}",
            self.scenario, self.run
        )?;
        if let Some(tls) = &self.tls {
            writeln!(f, "tls        {tls}; every handshake a whole one")?;
        }
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
        if let Some(Returning { returns, recovered, gaps, in_gaps, retries, refused, .. }) = &self.returning {
            writeln!(
                f,
                "returning  {returns} came back, {recovered} recovered, {gaps} were told of a gap; {in_gaps} deliveries lie in gaps; {retries} retries, {refused} publications refused"
            )?;
        }
        for Slow { stalled, closed, p99_us_without, p99_us_with, ratio, grown_kib_with, .. } in &self.slow {
            write!(
                f,
                "slow       {stalled} stalled, {closed} of them closed; p99 of the others {p99_us_with:.0} µs, without them {p99_us_without:.0} µs: × {ratio:.2}"
            )?;
            grown_kib_with.map_or(Ok(()), |grown| write!(f, "; memory grew by {grown} KiB"))?;
            writeln!(f)?;
        }
        if let Some(Fairness { members, rate, latency_us, send_lag_us, big_delivered_per_second }) = &self.fairness {
            writeln!(f, "beside     {members} members, {rate} a second: {latency_us}")?;
            writeln!(f, "           this program was late by {send_lag_us}")?;
            writeln!(f, "big room   {big_delivered_per_second:.0} deliveries a second")?;
        }
        if let Some(Shards { bursts, one, other, ratio }) = &self.shards {
            writeln!(f, "shards     {bursts} bursts: {one}")?;
            if let (Some(other), Some(ratio)) = (other, ratio) {
                writeln!(f, "           the second gateway: {other}: × {ratio:.2}")?;
            }
        }
        Ok(())
    }

    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(gateway) = &self.gateway {
            let Gateway { cpu_us_per_delivery, rss_kib_before, rss_kib_open, rss_kib_end, .. } = gateway;
            let bytes = gateway.bytes_per_connection;
            writeln!(
                f,
                "gateway    {cpu_us_per_delivery:.2} µs CPU per delivery, {:.0} % of it in the kernel; {rss_kib_before} KiB before, {rss_kib_open} KiB with connections open ({bytes:.0} bytes each), {rss_kib_end} KiB at the end, {} KiB at most",
                gateway.kernel_share * 100.0,
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

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} deliveries a second", self.delivered_per_second)?;
        if let Some(cpu) = self.cpu_us_per_delivery {
            write!(f, ", {cpu:.3} µs CPU each")?;
        }
        for (shard, count) in &self.connections_by_shard {
            write!(f, ", {count} members on shard {shard}")?;
        }
        Ok(())
    }
}
