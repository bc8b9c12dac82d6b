//! What is kept: histories, inboxes, what is queued, and what waits for a moderator.

use std::fmt;
use std::sync::atomic::Ordering;

use fanfare_edge::{HELD_OUTCOMES, Hub, MODERATION_ACTIONS};
use fanfare_guard::Cause;
use fanfare_guard::words::WordList;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::counter::ConstCounter;

use super::Writer;

impl Writer<'_> {
    pub(super) fn histories(&mut self, hub: &Hub) -> fmt::Result {
        let (bytes, bytes_max) = hub.registry().history_bytes();
        let stats = hub.registry().stats();
        self.gauge("history_bytes", "Bytes of the histories of all rooms", bytes as i64)?;
        self.gauge("history_bytes_max", "Bytes they may have", bytes_max as i64)?;
        let help = "Publications not kept for as long as their rooms would, for lack of bytes";
        self.count("history_cut", help, &stats.cut)?;
        self.count("rooms_evicted", "Vacant rooms with a history that made place for others", &stats.evicted)?;
        let results = [("recovered", &stats.recovered), ("gap", &stats.unrecovered)];
        let results = results.map(|(result, count)| (result, count.load(Ordering::Relaxed)));
        self.labelled("recoveries", "Subscriptions from a position, by what became of them", "result", &results)?;
        self.count("replayed", "Publications told to subscribers that came back", &hub.counters().replayed)
    }

    pub(super) fn inboxes(&mut self, hub: &Hub) -> fmt::Result {
        let users = hub.users();
        self.gauge("users", "Users with a connection", users.online() as i64)?;
        let (bytes, bytes_max) = users.inbox_bytes();
        self.gauge("inbox_bytes", "Bytes kept for users who are away", bytes as i64)?;
        self.gauge("inbox_bytes_max", "Bytes that may be kept for them", bytes_max as i64)?;
        let stats = users.inbox_stats();
        self.count("inbox_kept", "Direct messages and mentions kept for users who are away", &stats.kept)?;
        self.count("inbox_told", "Of these, told on return", &stats.told)?;
        self.count("inbox_dropped", "Of these, let go for lack of place or time", &stats.dropped)
    }

    pub(super) fn idempotency(&mut self, hub: &Hub) -> fmt::Result {
        let (keys, forgotten) = hub.idempotency_keys();
        self.gauge("idempotency_keys", "Idempotency keys that are remembered", keys as i64)?;
        let help = "Idempotency keys forgotten before their time, for lack of places";
        self.counter("idempotency_forgotten", help, forgotten)
    }

    pub(super) fn outboxes(&mut self, hub: &Hub) -> fmt::Result {
        let budget = hub.budget();
        self.gauge("outbox_bytes", "Bytes queued for all connections", budget.used() as i64)?;
        let help = "Bytes that may be queued for all connections";
        self.gauge("outbox_bytes_max", help, budget.bytes_max() as i64)
    }

    pub(super) fn moderation(&mut self, hub: &Hub) -> fmt::Result {
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
        let help = "Publications that were to wait for a moderator, by what became of them";
        self.counts("held_ended", help, "outcome", HELD_OUTCOMES, &stats.held)?;
        let moderation = hub.settings().moderation.load();
        let words = moderation.words().map_or(0, WordList::len).to_string();
        let labels = [
            ("words_version", moderation.words_version()),
            ("model_version", moderation.model_version()),
            ("words", words.as_str()),
        ];
        let help = "What moderation knows: the files by the beginning of their SHA-256";
        self.info("moderation_info", help, &labels, 1)
    }
}
