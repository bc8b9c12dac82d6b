//! What must hold after every step, and at the end of a run.

use std::sync::atomic::Ordering;

use fanfare_fanout::Slow;
use fanfare_protocol::{CloseReason, Variant};

use super::client::Due;
use super::shell::Phase;
use super::world::World;

impl World {
    pub(super) fn check_step(&mut self) {
        let mut queued = 0;
        for n in 0..self.clients.len() {
            self.hear(n);
            queued += self.check_account(n);
        }
        assert_eq!(self.budget.used(), queued, "the budget is what is queued");
        if self.dice.percent(5) {
            self.check_totals();
        }
    }

    /// Received and queued is what is due, to the byte, where the shard has nothing left to do; never more. Returns what is queued.
    fn check_account(&mut self, n: usize) -> usize {
        let Some(connection) = &self.connections[n] else { return 0 };
        let (fanout, _) = &self.shards[connection.shard];
        let waiting = fanout.queued(connection.lane);
        assert!(waiting.messages <= self.outbox.outbox_messages_max, "client {n} has {waiting:?} queued");
        let queued = waiting.bytes;
        let client = &self.clients[n];
        // Joined messages are fewer bytes than the frames they are made of.
        if connection.phase != Phase::Open || client.variant == Variant::TextJoined {
            return queued;
        }
        // Where messages are dropped, what is queued shrinks: once nothing is, all that was dropped has been told.
        if client.may_miss && queued > 0 {
            return queued;
        }
        let has = client.reader.whole + client.reader.rest() + queued as u64;
        assert!(has <= client.due_bytes, "client {n} has {has} bytes of {}", client.due_bytes);
        let intake = &self.registry.shards()[connection.shard];
        if intake.is_empty() && fanout.is_flushed() && fanout.next_wait().is_none() {
            assert_eq!(has, client.due_bytes, "client {n} stayed and must have, or be owed, everything");
            self.totals.exact += 1;
        }
        queued
    }

    // ---- at the end of a run ----

    /// After everything was let through.
    pub(super) fn check_client(&mut self, n: usize) {
        let client = &self.clients[n];
        self.totals.streamed += u64::from(client.only_listens());
        let missing: usize = client.due.values().map(std::collections::VecDeque::len).sum();
        let Some(reason) = client.ended else {
            assert_eq!(missing, 0, "client {n} stayed and lacks something: {:?}", client.due);
            assert!(client.asked.is_empty(), "client {n} asked and was not answered: {:?}", client.asked);
            assert_eq!(client.bad.0, client.bad.1, "every bad message of client {n} is told");
            assert!(client.pings.is_empty(), "every ping of client {n} has its pong");
            assert_eq!(client.rude, None, "client {n} broke a rule and was not closed");
            assert_eq!(self.phase(n), Some(Phase::Open));
            return;
        };
        let got = client.reader.whole + client.reader.rest();
        self.totals.inflated += client.reader.inflated;
        self.totals.lost += client.due_bytes - got.min(client.due_bytes);
        match &client.told {
            Some(_) if reason == CloseReason::Left => assert_eq!(missing, 0, "client {n} left and lacks something"),
            Some(_) => assert_eq!(client.reader.rest(), 0, "part of a frame follows the last one"),
            // It was gone, did not read to the end, or could not be told; the run counts the last.
            None => {}
        }
    }

    pub(super) fn check_receipts(&mut self) {
        let told = self.told.lock();
        let last = self.clock.load(Ordering::Relaxed);
        for publication in self.acks.values() {
            let (delivery, told_at) = told.get(publication).expect("every receipt is told");
            assert!(*told_at <= last);
            let wanted_by = &self.publications[*publication].wanted_by;
            let has_ended = |n: &&usize| self.ends.get(n).is_some_and(|at| at <= told_at);
            let most = wanted_by.len() as u64;
            let least = most - wanted_by.iter().filter(has_ended).count() as u64;
            let given = delivery.delivered + delivery.dropped;
            let counted = given + delivery.evicted;
            assert!((least..=most).contains(&counted), "publication {publication}: {delivery:?} of {least}..={most}");
            assert!(given >= least, "publication {publication}: {delivery:?} of {least}..={most}");
            assert!(delivery.dropped == 0 || self.publications[*publication].may_be_dropped);
            self.totals.evictions_told += delivery.evicted;
        }
    }

    /// What clients were told that they missed is what was dropped, but for what nobody could tell those who had ended.
    pub(super) fn check_dropped(&self) {
        let dropped: u64 = [Slow::DropOldest, Slow::Latest].map(|slow| self.stats.dropped(slow)).iter().sum();
        let is_untold =
            |owed: &&super::client::Owed| owed.droppable.is_some() && matches!(owed.due, Due::Message { .. });
        let ended = self.clients.iter().filter(|client| client.ended.is_some());
        let untold = ended.flat_map(|client| client.due.values().flatten()).filter(is_untold).count() as u64;
        let told = self.totals.missed;
        assert!((told..=told + untold).contains(&dropped), "{dropped} dropped; {told} told, {untold} not");
    }
}
