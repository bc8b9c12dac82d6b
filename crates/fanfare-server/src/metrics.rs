//! The metrics page: counters kept where the counting is done, read at each scrape.

mod engine;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use fanfare_edge::{
    Compressed, Counters, HANDSHAKE_RESULTS, HELD_OUTCOMES, Hub, MODERATION_ACTIONS, MetricsPage, MetricsText,
    OBSERVED_LIMITS, TLS_RESULTS, VIA_PROXY,
};
use fanfare_fanout::{LATENCY_BOUNDS_US, Latencies, Slow};
use fanfare_guard::{Cause, TokenError, words::WordList};
use fanfare_protocol::CloseReason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::commands::version::{COMMIT, VERSION};

/// Where the hub is put once it exists: shards need the page before, the page needs the hub after.
pub(crate) type HubCell = Arc<OnceLock<Weak<Hub>>>;

/// The page over the hub that will be in `cell`.
pub(crate) fn page(cell: HubCell) -> MetricsPage {
    let mut registry = Registry::with_prefix("fanfare");
    registry.register_collector(Box::new(HubCollector(cell)));
    Box::new(move |is_open_metrics| {
        let mut text = String::new();
        // Writing to a String cannot fail; a collector that failed would leave a page without its end.
        let _ = encode(&mut text, &registry);
        if is_open_metrics {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            return MetricsText { content_type, body: text };
        }
        MetricsText { content_type: "text/plain; version=0.0.4; charset=utf-8", body: classic(&text) }
    })
}

/// The older Prometheus text format: there a counter's family is named as its sample, `_total` included, and nothing marks the end.
fn classic(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + 512);
    let mut help = None;
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Whether it is a counter is only said by the next line.
            help = rest.split_once(' ');
            continue;
        }
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let suffix = if kind == "counter" { "_total" } else { "" };
        if let Some((_, help)) = help.take() {
            out.push_str(&format!("# HELP {name}{suffix} {help}\n"));
        }
        out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
    }
    out
}

#[derive(Debug)]
struct HubCollector(HubCell);

impl Collector for HubCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        match self.0.get().and_then(Weak::upgrade) {
            Some(hub) => Writer { encoder }.hub(&hub),
            None => Ok(()),
        }
    }
}

struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Writer<'_> {
    fn hub(mut self, hub: &Hub) -> fmt::Result {
        let counters = hub.counters();
        let rooms = hub.registry().stats();
        let all_shards =
            |count: fn(&fanfare_fanout::ShardStats) -> u64| hub.shard_stats().iter().map(|s| count(s)).sum();
        self.gauge("connections", "WebSocket connections open", counters.connections.load(Ordering::Relaxed))?;
        self.gauge("rooms", "Rooms, vacant ones included", rooms.rooms.load(Ordering::Relaxed) as i64)?;
        self.gauge(
            "subscriptions",
            "Subscriptions of all connections",
            rooms.subscriptions.load(Ordering::Relaxed) as i64,
        )?;
        self.counter("published", "Publications accepted", rooms.published.load(Ordering::Relaxed))?;
        self.counter("received", "Messages received from clients", counters.received.load(Ordering::Relaxed))?;
        self.compressed(hub)?;
        let delivered = all_shards(|shard| shard.delivered.load(Ordering::Relaxed));
        self.counter("delivered", "Publications written to or queued for a subscriber", delivered)?;
        let dropped = |slow: Slow| hub.shard_stats().iter().map(|shard| shard.dropped(slow)).sum();
        let dropped = Slow::ALL.map(|slow| (slow.label(), dropped(slow)));
        self.labelled("dropped", "Publications not delivered to a subscriber that stays", "policy", &dropped)?;
        let evicted = all_shards(|shard| shard.evicted.load(Ordering::Relaxed));
        self.counter("evicted", "Connections closed because they could not take what was sent", evicted)?;
        let overloaded = rooms.overloaded.load(Ordering::Relaxed);
        self.counter("overloaded", "Publications refused because a shard was behind", overloaded)?;
        self.counter("rooms_reaped", "Vacant rooms removed", rooms.reaped.load(Ordering::Relaxed))?;
        self.histories(hub)?;
        self.engine(hub)?;
        self.inboxes(hub)?;
        let closes = counters.closes.iter().map(|count| count.load(Ordering::Relaxed));
        let closes: Vec<_> = CloseReason::LABELS.into_iter().zip(closes).collect();
        self.labelled("closes", "Connections closed, by reason", "reason", &closes)?;
        let tokens = counters.tokens.iter().map(|count| count.load(Ordering::Relaxed));
        let labels = std::iter::once("holds").chain(TokenError::ALL.into_iter().map(TokenError::label));
        let tokens: Vec<_> = labels.zip(tokens).collect();
        self.labelled("tokens", "Tokens checked, by result", "result", &tokens)?;
        self.gauge("revocations", "Revocations of tokens that are remembered", hub.revocations().len() as i64)?;
        self.key_set(hub)?;
        let handshakes = counters.handshakes.iter().map(|count| count.load(Ordering::Relaxed));
        let handshakes: Vec<_> = HANDSHAKE_RESULTS.into_iter().zip(handshakes).collect();
        self.labelled("handshakes", "WebSocket handshakes, by result", "result", &handshakes)?;
        self.counter("accept_errors", "Errors while accepting", counters.accept_errors.load(Ordering::Relaxed))?;
        self.counter("shed", "Sockets refused at the door", counters.shed.load(Ordering::Relaxed))?;
        let by_limit = hub.beyond_limits().map(|counts| OBSERVED_LIMITS.into_iter().zip(counts).collect::<Vec<_>>());
        self.labelled("rejected", "Refused because it was beyond a limit", "limit", &by_limit[0])?;
        let help = "Let pass although beyond a limit, because limits.mode is observe";
        self.labelled("would_reject", help, "limit", &by_limit[1])?;
        self.tls(hub)?;
        let via = counters.via.iter().map(|count| count.load(Ordering::Relaxed));
        let via: Vec<_> = VIA_PROXY.into_iter().zip(via).collect();
        self.labelled("via_proxy", "What proxies said of their clients, or did not", "result", &via)?;
        let (keys, forgotten) = hub.idempotency_keys();
        self.gauge("idempotency_keys", "Idempotency keys that are remembered", keys as i64)?;
        self.counter(
            "idempotency_forgotten",
            "Idempotency keys forgotten before their time, for lack of places",
            forgotten,
        )?;
        self.gauge("outbox_bytes", "Bytes queued for all connections", hub.budget().used() as i64)?;
        self.gauge(
            "outbox_bytes_max",
            "Bytes that may be queued for all connections",
            hub.budget().bytes_max() as i64,
        )?;
        self.publish_to_write(hub)?;
        self.canaries(hub)?;
        self.moderation(hub)?;
        self.gauge(
            "ready",
            "1 while /readyz says so: until the node leaves service, and not while a shard is late",
            i64::from(hub.is_ready()),
        )?;
        self.spans(hub)?;
        self.configuration(hub)?;
        self.build_info(hub.settings().send_path.as_str())
    }

    fn tls(&mut self, hub: &Hub) -> fmt::Result {
        let handshakes = hub.counters().tls.iter().map(|count| count.load(Ordering::Relaxed));
        let handshakes: Vec<_> = TLS_RESULTS.into_iter().zip(handshakes).collect();
        self.labelled("tls_handshakes", "TLS handshakes, by result", "result", &handshakes)?;
        let not_after = hub.settings().tls.as_ref().map(|tls| tls.not_after);
        let help = "When the certificate that is shown expires, seconds since 1970; there where TLS is on";
        not_after.map_or(Ok(()), |not_after| self.gauge("tls_certificate_expiry_timestamp_seconds", help, not_after))
    }

    fn gauge(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let metric = self.encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(metric)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let metric = self.encoder.encode_descriptor(name, help, None, counter.metric_type())?;
        counter.encode(metric)
    }

    fn labelled(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let metric_type = ConstCounter::new(0u64).metric_type();
        let mut family = self.encoder.encode_descriptor(name, help, None, metric_type)?;
        for &(value, count) in values {
            ConstCounter::new(count).encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    fn compressed(&mut self, hub: &Hub) -> fmt::Result {
        let Counters { deflated, inflated, .. } = hub.counters();
        let sides = [("sent", deflated), ("received", inflated)];
        let of = |count: fn(&Compressed) -> &AtomicU64| {
            sides.map(|(side, sums)| (side, count(sums).load(Ordering::Relaxed)))
        };
        let help = "Messages compressed, once for all they go to, and compressed messages received";
        self.labelled("compressed_messages", help, "side", &of(|sums| &sums.messages))?;
        let help = "Bytes of these messages before they were compressed";
        self.labelled("compressed_plain_bytes", help, "side", &of(|sums| &sums.plain_bytes))?;
        let help = "Bytes of these messages as they are on the wire";
        self.labelled("compressed_wire_bytes", help, "side", &of(|sums| &sums.deflated_bytes))
    }

    /// Where one is configured.
    fn key_set(&mut self, hub: &Hub) -> fmt::Result {
        let settings = hub.settings();
        let Some(source) = &settings.key_source else { return Ok(()) };
        let keys = source.set().as_ref().map_or(0, |set| set.len());
        self.gauge("jwks_keys", "Keys of the published set that can be used", keys as i64)?;
        if let Some(age) = source.age(hub.now()) {
            self.gauge("jwks_age_seconds", "Time since the published set was had last", age.as_secs() as i64)?;
        }
        let fetches = [("had", &source.had), ("failed", &source.failed)];
        let fetches = fetches.map(|(result, count)| (result, count.load(Ordering::Relaxed)));
        self.labelled("jwks_fetches", "Fetches of the published set, by result", "result", &fetches)
    }

    fn histories(&mut self, hub: &Hub) -> fmt::Result {
        let (bytes, bytes_max) = hub.registry().history_bytes();
        let stats = hub.registry().stats();
        self.gauge("history_bytes", "Bytes of the histories of all rooms", bytes as i64)?;
        self.gauge("history_bytes_max", "Bytes they may have", bytes_max as i64)?;
        let cut = stats.cut.load(Ordering::Relaxed);
        self.counter("history_cut", "Publications not kept for as long as their rooms would, for lack of bytes", cut)?;
        let evicted = stats.evicted.load(Ordering::Relaxed);
        self.counter("rooms_evicted", "Vacant rooms with a history that made place for others", evicted)?;
        let results = [("recovered", &stats.recovered), ("gap", &stats.unrecovered)];
        let results = results.map(|(result, count)| (result, count.load(Ordering::Relaxed)));
        self.labelled("recoveries", "Subscriptions from a position, by what became of them", "result", &results)?;
        let replayed = hub.counters().replayed.load(Ordering::Relaxed);
        self.counter("replayed", "Publications told to subscribers that came back", replayed)
    }

    fn inboxes(&mut self, hub: &Hub) -> fmt::Result {
        let users = hub.users();
        self.gauge("users", "Users with a connection", users.online() as i64)?;
        let (bytes, bytes_max) = users.inbox_bytes();
        self.gauge("inbox_bytes", "Bytes kept for users who are away", bytes as i64)?;
        self.gauge("inbox_bytes_max", "Bytes that may be kept for them", bytes_max as i64)?;
        let stats = users.inbox_stats();
        let kept = stats.kept.load(Ordering::Relaxed);
        self.counter("inbox_kept", "Direct messages and mentions kept for users who are away", kept)?;
        self.counter("inbox_told", "Of these, told on return", stats.told.load(Ordering::Relaxed))?;
        let dropped = stats.dropped.load(Ordering::Relaxed);
        self.counter("inbox_dropped", "Of these, let go for lack of place or time", dropped)
    }

    /// All shards together, in seconds.
    fn publish_to_write(&mut self, hub: &Hub) -> fmt::Result {
        let mut counts = [0; LATENCY_BOUNDS_US.len() + 1];
        let sum_us: u64 = hub.shard_stats().iter().map(|shard| shard.publish_to_write.add_to(&mut counts)).sum();
        let bounds = LATENCY_BOUNDS_US.iter().map(|&us| us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let help = "Time from a publication to the end of its writes on a shard";
        let mut metric =
            self.encoder.encode_descriptor("publish_to_write_seconds", help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum_us as f64 / 1e6, counts.iter().sum(), &buckets, None)
    }

    fn canaries(&mut self, hub: &Hub) -> fmt::Result {
        let help = "Time until what was said to a shard's canary had come back over its socket";
        self.canary("canary_seconds", help, hub.canaries().iter().map(|canary| &canary.latencies))?;
        let help = "Time until a canary that came by the listener had what it said come back";
        self.canary("canary_visit_seconds", help, hub.canaries().iter().map(|canary| &canary.visits))
    }

    fn canary<'l>(&mut self, name: &str, help: &str, shards: impl Iterator<Item = &'l Latencies>) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (shard, latencies) in shards.enumerate() {
            let mut counts = [0; LATENCY_BOUNDS_US.len() + 1];
            let sum_us = latencies.add_to(&mut counts);
            let bounds = LATENCY_BOUNDS_US.iter().map(|&us| us as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(counts).collect();
            let labels = [("shard", shard.to_string())];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(sum_us as f64 / 1e6, counts.iter().sum(), &buckets, None)?;
        }
        Ok(())
    }

    /// Where traces are configured.
    fn spans(&mut self, hub: &Hub) -> fmt::Result {
        let settings = hub.settings();
        let Some(traces) = &settings.traces else { return Ok(()) };
        let stats = traces.stats();
        let exported = stats.exported.load(Ordering::Relaxed);
        self.counter("spans_exported", "Spans of traces that the collector has taken", exported)?;
        self.labelled("spans_dropped", "Spans of traces that were lost, by cause", "cause", &stats.dropped())
    }

    fn moderation(&mut self, hub: &Hub) -> fmt::Result {
        let stats = hub.moderation_stats();
        let metric_type = ConstCounter::new(0u64).metric_type();
        let help = "Messages that moderation found fault with, by what was done";
        let mut family = self.encoder.encode_descriptor("moderation", help, None, metric_type)?;
        for (action, causes) in MODERATION_ACTIONS.into_iter().zip(&stats.done) {
            for (cause, count) in Cause::LABELS.into_iter().zip(causes) {
                let labels = [("action", action), ("cause", cause)];
                ConstCounter::new(count.load(Ordering::Relaxed)).encode(family.encode_family(&labels)?)?;
            }
        }
        self.gauge("held", "Publications that wait for a moderator", hub.held().len() as i64)?;
        let ended = stats.held.iter().map(|count| count.load(Ordering::Relaxed));
        let ended: Vec<_> = HELD_OUTCOMES.into_iter().zip(ended).collect();
        let help = "Publications that were to wait for a moderator, by what became of them";
        self.labelled("held_ended", help, "outcome", &ended)?;
        let moderation = hub.settings().moderation.load();
        let words = moderation.words().map_or(0, WordList::len).to_string();
        let labels = [
            ("words_version", moderation.words_version()),
            ("model_version", moderation.model_version()),
            ("words", words.as_str()),
        ];
        let gauge = ConstGauge::new(1i64);
        let help = "What moderation knows: the files by the beginning of their SHA-256";
        let mut family = self.encoder.encode_descriptor("moderation_info", help, None, gauge.metric_type())?;
        gauge.encode(family.encode_family(&labels)?)
    }

    fn configuration(&mut self, hub: &Hub) -> fmt::Result {
        let version = hub.reloads().version();
        let gauge = ConstGauge::new(version.version as i64);
        let help = "How often the running configuration has changed, from 1 on; the digest tells configurations apart";
        let mut family = self.encoder.encode_descriptor("config_version", help, None, gauge.metric_type())?;
        gauge.encode(family.encode_family(&[("digest", version.digest.as_str())])?)?;
        let [taken, refused] = hub.reloads().counts();
        let results = [("ok", taken), ("refused", refused)];
        self.labelled("config_reloads", "Reloads of the configuration, by result", "result", &results)
    }

    fn build_info(&mut self, send_path: &str) -> fmt::Result {
        let gauge = ConstGauge::new(1i64);
        let mut family = self.encoder.encode_descriptor("build_info", "This build", None, gauge.metric_type())?;
        gauge.encode(family.encode_family(&[("version", VERSION), ("commit", COMMIT), ("send_path", send_path)])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_format_names_counters_as_their_samples() {
        let open =
            "# HELP a_x Help of x.\n# TYPE a_x counter\na_x_total 3\n# HELP a_g G.\n# TYPE a_g gauge\na_g 1\n# EOF\n";
        let expected = "# HELP a_x_total Help of x.\n# TYPE a_x_total counter\na_x_total 3\n# HELP a_g G.\n# TYPE a_g gauge\na_g 1\n";
        assert_eq!(classic(open), expected);
    }
}
