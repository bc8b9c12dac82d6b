//! What there is to see of an engine, where there is one.

use std::fmt;
use std::sync::atomic::Ordering;

use fanfare_edge::Hub;

use super::Writer;

impl Writer<'_> {
    pub(super) fn engine(&mut self, hub: &Hub) -> fmt::Result {
        let Some((stats, waiting)) = hub.relay() else { return Ok(()) };
        let connected = i64::from(stats.is_connected.load(Ordering::Acquire));
        self.gauge("engine_connected", "1 while this node is connected to its engine", connected)?;
        let position = stats.position.load(Ordering::Relaxed);
        let behind = stats.known.load(Ordering::Relaxed).saturating_sub(position);
        self.gauge(
            "engine_entries_behind",
            "Entries its log is known to have that are not applied here",
            behind as i64,
        )?;
        let help = "Publications of this node that have not come back from the engine yet";
        self.gauge("engine_posts_waiting", help, waiting as i64)?;
        let unnumbered = &hub.registry().stats().unnumbered;
        for (name, help, counter) in [
            ("engine_appended", "Publications of this node that the engine has taken", &stats.appended),
            ("engine_applied", "Entries of its log that were applied here, of all nodes", &stats.applied),
            ("engine_failures", "Times the connection to it was lost, or could not be made", &stats.failures),
            ("engine_restarts", "Times its log was read anew, because part of it was missed", &stats.restarts),
            ("engine_overdue", "Publications given up because they did not come back in time", &stats.overdue),
            ("engine_unreadable", "Entries of its log that were not understood", &stats.unreadable),
            ("engine_unnumbered", "Entries for a room with a history from a node that keeps none for it", unnumbered),
        ] {
            self.counter(name, help, counter.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}
