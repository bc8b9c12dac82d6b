//! Rooms, and what is published in them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfare_edge::{Compressed, Counters, Hub};
use fanfare_fanout::Slow;

use super::Writer;

impl Writer<'_> {
    pub(super) fn rooms(&mut self, hub: &Hub) -> fmt::Result {
        let (counters, stats, shards) = (hub.counters(), hub.registry().stats(), hub.shard_stats());
        self.gauge("connections", "WebSocket connections open", counters.connections.load(Ordering::Relaxed))?;
        self.gauge("rooms", "Rooms, vacant ones included", stats.rooms.load(Ordering::Relaxed) as i64)?;
        let subscriptions = stats.subscriptions.load(Ordering::Relaxed) as i64;
        self.gauge("subscriptions", "Subscriptions of all connections", subscriptions)?;
        self.count("published", "Publications accepted", &stats.published)?;
        self.count("received", "Messages received from clients", &counters.received)?;
        self.compressed(counters)?;
        let delivered = shards.iter().map(|shard| shard.delivered.load(Ordering::Relaxed)).sum();
        self.counter("delivered", "Publications written to or queued for a subscriber", delivered)?;
        let dropped = |slow: Slow| shards.iter().map(|shard| shard.dropped(slow)).sum();
        let dropped = Slow::ALL.map(|slow| (slow.label(), dropped(slow)));
        self.labelled("dropped", "Publications not delivered to a subscriber that stays", "policy", &dropped)?;
        let evicted = shards.iter().map(|shard| shard.evicted.load(Ordering::Relaxed)).sum();
        self.counter("evicted", "Connections closed because they could not take what was sent", evicted)?;
        self.count("overloaded", "Publications refused because a shard was behind", &stats.overloaded)?;
        self.count("rooms_reaped", "Vacant rooms removed", &stats.reaped)
    }

    fn compressed(&mut self, counters: &Counters) -> fmt::Result {
        let Counters { deflated, inflated, .. } = counters;
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

    pub(super) fn publish_to_write(&mut self, hub: &Hub) -> fmt::Result {
        let help = "Time from a publication to the end of its writes on a shard";
        let shards = hub.shard_stats().iter().map(|shard| &shard.publish_to_write);
        self.durations("publish_to_write_seconds", help, shards)
    }
}
