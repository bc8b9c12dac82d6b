//! The metrics page: counters kept where the counting is done, read at each scrape.

mod doors;
mod engine;
mod node;
mod rooms;
mod stores;
mod writer;

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use fanfare_edge::{Hub, MetricsPage, MetricsText};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use self::writer::Writer;

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

impl Writer<'_> {
    /// The page, in its order.
    fn hub(mut self, hub: &Hub) -> fmt::Result {
        self.rooms(hub)?;
        self.histories(hub)?;
        self.engine(hub)?;
        self.inboxes(hub)?;
        self.closes(hub)?;
        self.tokens(hub)?;
        self.key_set(hub)?;
        self.doors(hub)?;
        self.tls(hub)?;
        self.proxies(hub)?;
        self.idempotency(hub)?;
        self.outboxes(hub)?;
        self.publish_to_write(hub)?;
        self.canaries(hub)?;
        self.moderation(hub)?;
        self.readiness(hub)?;
        self.spans(hub)?;
        self.configuration(hub)?;
        self.build_info(hub)
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
