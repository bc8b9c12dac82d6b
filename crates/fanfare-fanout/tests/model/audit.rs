//! What must hold, after every step and in the end.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_fanout::{Gap, LaneEvent, Slow};

use crate::account::Account;
use crate::said::{id_of, parse};
use crate::wires::Takes;
use crate::world::{Before, Count, Due, GIVEN, GIVEN_OR_DROPPED, Life, World};

impl World {
    pub(crate) fn act_on_events(&mut self, before: &[Before]) {
        let mut events = Vec::new();
        self.shard.take_events(&mut events);
        let mut has_blocked = BTreeSet::new();
        let mut evicted = Vec::new();
        for event in events {
            let (LaneEvent::Blocked(lane) | LaneEvent::Evicted(lane, ..) | LaneEvent::Gone(lane)) = event;
            let n = self.clients.iter().position(|c| c.lane == lane && c.life != Life::Closed).expect("an open lane");
            let was = before.get(n).copied().unwrap_or(Before { pushed: 0, has_queue: false });
            match event {
                LaneEvent::Blocked(_) => {
                    assert!(has_blocked.insert(n) && !was.has_queue, "said to be blocked though it was");
                    self.clients[n].is_watched = true;
                }
                LaneEvent::Evicted(_, queued, slow) => {
                    assert_eq!(self.clients[n].life, Life::Open, "evicted twice");
                    let mut policies = self.clients[n].dues.iter().map(|due| self.policies[due.said.room as usize]);
                    assert!(slow == Slow::Evict || policies.any(|own| own == slow), "{slow:?} is none of its rooms'");
                    assert!(queued.messages <= self.limits.outbox_messages_max.max(1));
                    // The budget may have needed what was queued for it: what of that had been counted as delivered is not known here.
                    self.clients[n].may_miss |= self.is_budget_small;
                    let pushed = if was.has_queue || has_blocked.contains(&n) {
                        self.standing(n).pushed
                    } else {
                        self.wires.at(lane).before_last_send - self.clients[n].reply_bytes
                    };
                    self.settle(n, Life::Evicted, pushed);
                    self.evictions += 1;
                    evicted.push(n);
                }
                LaneEvent::Gone(_) => {
                    assert_ne!(self.clients[n].life, Life::Gone, "gone twice");
                    let taken = self.wires.at(lane).received.len();
                    let pushed =
                        if was.has_queue { was.pushed } else { taken.saturating_sub(self.clients[n].reply_bytes) };
                    self.settle(n, Life::Gone, pushed);
                }
            }
        }
        for n in evicted {
            if self.dice.percent(60) {
                self.last_words(n);
            }
        }
    }

    /// A client ended after `pushed` bytes of room events had been given to it or queued: now it is known what each receipt
    /// must say about it.
    pub(crate) fn settle(&mut self, n: usize, life: Life, pushed: usize) {
        let was = self.clients[n].life;
        let client = &mut self.clients[n];
        client.life = life;
        let is_told = |due: &Due| self.told_before.contains(&(due.said.room, due.said.seq));
        if was != Life::Open {
            // Whom a flush does not find any more is not counted; whether it came before is not known here.
            let is_removed = matches!(life, Life::Closed | Life::Gone);
            for due in client.dues.iter_mut().filter(|due| is_removed && due.left_at.is_none() && !is_told(due)) {
                due.counts = due.counts.map(|(delivered, all)| (delivered, (delivered.0, all.1)));
            }
            return;
        }
        let rest = u64::from(life == Life::Evicted);
        if client.may_miss {
            self.is_all_told = false;
            for due in &mut client.dues {
                let is_given = is_told(due) || due.left_at.is_some_and(|at| at <= self.step_began);
                due.counts = Some(if is_given { GIVEN_OR_DROPPED } else { ((0, 1), (rest, 1)) });
            }
            return;
        }
        let (not_given, perhaps) = (((0, 0), (rest, rest)), ((0, 1), (rest, 1)));
        let total: usize = client.dues.iter().map(|due| due.size).sum();
        assert!(pushed <= total, "more was said to a client than there was: {pushed} of {total}");
        let mut end = 0;
        for due in &mut client.dues {
            end += due.size;
            // Who leaves is offered everything first, unless it is evicted at that very offer.
            let is_given = is_told(due) || due.left_at.is_some_and(|at| at <= self.step_began);
            due.counts = Some(match (end.cmp(&pushed), self.is_single || pushed == total) {
                _ if is_given => GIVEN,
                (std::cmp::Ordering::Greater, true) => not_given,
                // An event without bytes may wait in one of several rooms while later ones of another have been given.
                (std::cmp::Ordering::Less, true) if due.size > 0 || self.is_single => GIVEN,
                (std::cmp::Ordering::Equal, true) if due.size > 0 => GIVEN,
                // An event without bytes at the very end, or one of several rooms.
                _ => perhaps,
            });
        }
        let ends = client.dues.iter().scan(0, |end, due| {
            *end += due.size;
            Some(*end)
        });
        assert!(
            !self.is_single || pushed == 0 || ends.into_iter().any(|end| end == pushed),
            "part of an event was counted"
        );
    }

    pub(crate) fn check_step(&mut self) {
        if self.told_before.len() < self.told.lock().len() {
            self.told_before = self.told.lock().keys().copied().collect();
        }
        let mut sum = 0;
        for client in self.clients.iter().filter(|c| c.life != Life::Closed) {
            let queued = self.shard.queued(client.lane);
            let reply_bytes = self.shard.reply_bytes(client.lane);
            sum += queued.bytes;
            assert!(reply_bytes <= queued.bytes);
            if client.life == Life::Open {
                assert!(queued.messages <= self.limits.outbox_messages_max, "{queued:?}");
                assert!(queued.bytes - reply_bytes <= self.limits.outbox_bytes_max, "{queued:?}");
                assert!(reply_bytes <= self.reply_bytes_max);
                assert!(queued.bytes == 0 || client.is_watched, "something is queued and nobody was told");
            }
            assert!(client.life != Life::Gone || queued.bytes == 0);
            let mut rooms: Vec<u64> = self.shard.rooms_of(client.lane).map(|room| room.0).collect();
            rooms.sort_unstable();
            assert!(rooms.iter().eq(client.rooms.keys()), "the rooms of a lane");
        }
        assert_eq!(self.budget.used(), sum, "the budget is what is queued");
        assert!(sum <= self.budget.bytes_max());
        let part = self.shard.take_released();
        self.released.items += part.items;
        self.released.bytes += part.bytes;
        assert!(self.released.items <= self.accepted.items && self.released.bytes <= self.accepted.bytes);
        if self.shard.is_flushed() {
            assert_eq!(self.released, self.accepted, "what is flushed is released");
            if self.backlog.is_empty() {
                let now = self.tick();
                self.flushed.push(now);
            }
        }
    }

    /// Everything a client received, against everything it should have. `is_cut`: its connection ended before its queue.
    /// Returns how many publications it was told it missed.
    pub(crate) fn check_stream(&mut self, n: usize, is_cut: bool) -> u64 {
        let mut got = BTreeSet::new();
        let announced = self.account(n, is_cut, &mut got);
        self.clients[n].got = got;
        announced
    }

    pub(crate) fn account(&self, n: usize, is_cut: bool, got: &mut BTreeSet<(u64, u64)>) -> u64 {
        let client = &self.clients[n];
        let (items, rest) = parse(&client.received);
        let mut by_room = BTreeMap::<u64, Account<'_>>::new();
        let (mut control, mut data) = (Vec::new(), Vec::new());
        let mut seen_until = 0;
        let mut words_at = None;
        for (at, item) in items.iter().enumerate() {
            if let Some(reply) = item.strip_prefix("c:") {
                control.push(id_of(reply));
            } else if let Some(reply) = item.strip_prefix("d:") {
                let id = id_of(reply);
                assert!(seen_until < id, "a reply after events that were published after it");
                data.push(id);
            } else if item.starts_with("w:") {
                assert_eq!(format!("<{item}>").as_bytes(), client.words.as_deref().expect("words were given"));
                words_at = Some(at);
            } else if let Some(gap) = item.strip_prefix("g:") {
                let numbers: Vec<u64> = gap.split(':').map(|number| number.parse().expect("a number")).collect();
                let [room, from, to, count] = numbers[..] else { panic!("{item} is no gap") };
                assert!(self.policies[room as usize].drops(), "a gap in a room that drops nothing");
                by_room.entry(room).or_insert_with(|| Account::of(client, room)).miss(Gap { from, to, count });
            } else {
                let room = id_of(item);
                let due = by_room.entry(room).or_insert_with(|| Account::of(client, room)).get(item, client.variant);
                got.insert((room, due.said.seq));
                seen_until = seen_until.max(due.published_at);
                let reply_at = data.last().copied().unwrap_or(0);
                assert!(reply_at < self.out_by(due), "an event that had gone out before a reply comes after it");
            }
        }
        assert!(words_at.is_none_or(|at| at + 1 == items.len() && rest == 0), "something follows the last words");
        assert!(client.control.starts_with(&control), "control replies of client {n}");
        let expected_data: Vec<u64> = client.data.iter().map(|&(id, _)| id).collect();
        assert!(expected_data.starts_with(&data), "data replies of client {n}");
        if client.life == Life::Open && !is_cut {
            assert_eq!(rest, 0, "half a frame");
            assert_eq!((control, data), (client.control.clone(), expected_data), "replies of client {n}");
            for room in 0..self.rooms {
                let account = by_room.entry(room).or_insert_with(|| Account::of(client, room));
                assert!(account.is_settled(), "client {n} missed something of room {room}: {account:?}");
            }
        }
        if matches!(client.life, Life::Evicted | Life::Closing) && !is_cut {
            // Where the budget is used up, words that are not taken at once cannot be kept.
            assert!(words_at.is_some() || self.is_budget_small, "client {n} did not get its last words");
            assert!(rest == 0 || (words_at.is_none() && self.is_budget_small), "half a frame");
            assert!(client.bytes_in_the_end.is_none_or(|bytes| bytes == client.received.len()));
        }
        by_room.values().map(|account| account.announced).sum()
    }

    /// When an event must have been on its way: its client had left the room, or nothing waited for a flush.
    pub(crate) fn out_by(&self, due: &Due) -> u64 {
        let next = self.flushed.partition_point(|&at| at < due.published_at);
        let flushed_at = self.flushed.get(next).copied().unwrap_or(u64::MAX);
        due.left_at.map_or(flushed_at, |left_at| left_at.min(flushed_at)).max(due.published_at)
    }

    pub(crate) fn check_receipts(&self) {
        let told = self.told.lock();
        assert!(told.keys().eq(self.receipts_asked.iter()), "every receipt is told");
        let mut expected = BTreeMap::<(u64, u64), (Count, Count)>::new();
        for (client, due) in self.clients.iter().flat_map(|client| client.dues.iter().map(move |due| (client, due))) {
            // A room that drops may be entered after another.
            let usual = if client.may_miss { GIVEN_OR_DROPPED } else { GIVEN };
            let (mut delivered, all) = due.counts.unwrap_or(usual);
            // What arrived has not been counted as dropped; whoever was closed meanwhile may be counted nowhere.
            let has_arrived = client.may_miss && client.life == Life::Open;
            if has_arrived && client.got.contains(&(due.said.room, due.said.seq)) {
                delivered.0 = delivered.1;
            }
            let sum = expected.entry((due.said.room, due.said.seq)).or_default();
            *sum = (add(sum.0, delivered), add(sum.1, all));
        }
        for (event, deliveries) in told.iter() {
            assert_eq!(deliveries.len(), 1, "told once");
            let (delivered, all) = expected.get(event).copied().unwrap_or_default();
            let told = deliveries[0];
            let drops = self.policies[event.0 as usize].drops();
            let is_right = (delivered.0..=delivered.1).contains(&told.delivered)
                && (all.0..=all.1).contains(&(told.delivered + told.dropped + told.evicted))
                && (told.dropped == 0 || drops);
            assert!(is_right, "event {event:?}: {told:?}, expected delivered {delivered:?} of {all:?}");
        }
    }

    /// Everything is let through, then everybody goes.
    pub(crate) fn end(&mut self) {
        let before = self.before();
        self.accept(usize::MAX);
        while !self.shard.is_flushed() {
            self.flush();
        }
        self.act_on_events(&before);
        self.check_step();
        for n in 0..self.clients.len() {
            if self.clients[n].life == Life::Closed {
                continue;
            }
            if self.clients[n].life == Life::Evicted {
                self.last_words(n);
            }
            let wire = self.wires.at(self.clients[n].lane);
            if wire.takes != Takes::Fails {
                wire.takes = Takes::All;
            }
            self.writable(n);
            self.check_step();
            let wire = self.wires.at(self.clients[n].lane);
            let has_failed = wire.has_failed;
            self.clients[n].received.clone_from(&wire.received);
            self.announced += self.check_stream(n, has_failed);
        }
        assert_eq!(self.budget.used(), 0);
        self.check_receipts();
        assert_eq!(self.evictions, self.stats.evicted.load(std::sync::atomic::Ordering::Relaxed));
        let dropped = Slow::ALL.iter().map(|&slow| self.stats.dropped(slow)).sum::<u64>();
        assert!(self.announced <= dropped, "{} were announced, {dropped} dropped", self.announced);
        assert!(self.announced == dropped || !self.is_all_told, "{} of {dropped} were told", self.announced);
        for n in 0..self.clients.len() {
            if self.clients[n].life != Life::Closed {
                self.shard.close(self.clients[n].lane);
            }
        }
        assert_eq!(self.shard.counts(), (0, 0), "lanes and rooms in the end");
        assert!(self.shard.is_flushed());
    }
}

pub(crate) fn add(a: Count, b: Count) -> Count {
    (a.0 + b.0, a.1 + b.1)
}
