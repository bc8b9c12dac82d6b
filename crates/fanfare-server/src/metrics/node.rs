//! The node itself: its build, its configuration, and whether it is well.

use std::fmt;

use fanfare_edge::Hub;

use super::Writer;
use crate::commands::version::{COMMIT, VERSION};

impl Writer<'_> {
    pub(super) fn canaries(&mut self, hub: &Hub) -> fmt::Result {
        let help = "Time until what was said to a shard's canary had come back over its socket";
        self.durations_by_shard("canary_seconds", help, hub.canaries().iter().map(|canary| &canary.latencies))?;
        let help = "Time until a canary that came by the listener had what it said come back";
        self.durations_by_shard("canary_visit_seconds", help, hub.canaries().iter().map(|canary| &canary.visits))
    }

    pub(super) fn readiness(&mut self, hub: &Hub) -> fmt::Result {
        let help = "1 while /readyz says so: until the node leaves service, and not while a shard is late";
        self.gauge("ready", help, i64::from(hub.is_ready()))
    }

    /// Where traces are configured.
    pub(super) fn spans(&mut self, hub: &Hub) -> fmt::Result {
        let settings = hub.settings();
        let Some(traces) = &settings.traces else { return Ok(()) };
        let stats = traces.stats();
        self.count("spans_exported", "Spans of traces that the collector has taken", &stats.exported)?;
        self.labelled("spans_dropped", "Spans of traces that were lost, by cause", "cause", &stats.dropped())
    }

    pub(super) fn configuration(&mut self, hub: &Hub) -> fmt::Result {
        let version = hub.reloads().version();
        let help = "How often the running configuration has changed, from 1 on; the digest tells configurations apart";
        self.info("config_version", help, &[("digest", version.digest.as_str())], version.version as i64)?;
        let [taken, refused] = hub.reloads().counts();
        let results = [("ok", taken), ("refused", refused)];
        self.labelled("config_reloads", "Reloads of the configuration, by result", "result", &results)
    }

    pub(super) fn build_info(&mut self, hub: &Hub) -> fmt::Result {
        let send_path = hub.settings().send_path.as_str();
        let labels = [("version", VERSION), ("commit", COMMIT), ("send_path", send_path)];
        self.info("build_info", "This build", &labels, 1)
    }
}
