//! What must hold: now and then, for every client that goes, and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use fanfare_protocol::UserName;
use fanfare_registry::Presence;

use super::{Client, End, INTAKE, Logged, OUTBOX, SHARDS, World, options};
use crate::frames::PLAIN;

impl World {
    pub(super) fn check_totals(&mut self) {
        let stats = self.registry.stats();
        assert_eq!(stats.rooms.load(Ordering::Relaxed), self.directory.len());
        let subscriptions: usize = self.here.iter().map(|&n| self.clients[n].rooms.len()).sum();
        assert_eq!(stats.subscriptions.load(Ordering::Relaxed), subscriptions);
        assert_eq!(stats.published.load(Ordering::Relaxed), self.publications.len() as u64);
        assert_eq!(stats.overloaded.load(Ordering::Relaxed), self.totals.overloaded);
        assert_eq!(stats.reaped.load(Ordering::Relaxed), self.totals.reaped);
        assert_eq!(self.stats.evicted.load(Ordering::Relaxed), self.totals.evicted);
        let mut queued = 0;
        for &n in &self.here {
            let client = &self.clients[n];
            let shard = &self.shards[client.shard].0;
            let waiting = shard.queued(client.lane);
            queued += waiting.bytes;
            assert!(waiting.bytes <= OUTBOX.outbox_bytes_max && waiting.messages <= OUTBOX.outbox_messages_max);
            assert_eq!(shard.rooms_of(client.lane).count(), client.rooms.len());
        }
        assert_eq!(self.budget.used(), queued, "the budget is what is queued");
        let rooms = self.registry.list("", "", usize::MAX);
        assert_eq!(rooms.len(), self.directory.len());
        for info in rooms {
            let name = self.names.iter().position(|name| *name == info.name).expect("a name of this run");
            let life = &self.lives[self.directory[&name]];
            assert_eq!((info.occupancy, info.created), (life.members.len() as u64, life.created));
            assert_eq!(info.position.offset, life.offset);
            let room = self.registry.get(&info.name).expect("a room of the list");
            let Presence { count, members, has_more } = room.presence("", usize::MAX);
            assert_eq!((count, has_more), (life.members.len() as u64, false));
            let mut users: Vec<UserName> = life.users.keys().map(|&user| self.users[user].clone()).collect();
            users.sort_unstable();
            // Where only comings and goings are told, users are counted but not listed.
            if !room.options().presence {
                users.clear();
            }
            assert_eq!(members, users, "who is in {}", info.name);
        }
        for (at, intake) in self.registry.shards().iter().enumerate() {
            let (items, bytes) = self.owed[at];
            let is_pressed = items >= INTAKE.intake_items_max / 4 || bytes >= INTAKE.intake_bytes_max / 4;
            assert_eq!(intake.is_pressed(), is_pressed, "what shard {at} owes");
        }
    }

    /// What a client should get of a name, in order.
    pub(super) fn expected(&self, client: &Client, n: usize, name: usize) -> Vec<String> {
        let room = &self.names[name];
        let mut expected = Vec::new();
        for stay in client.stays.get(&name).map_or(&[][..], Vec::as_slice) {
            let life = &self.lives[stay.life];
            let to = stay.to.or(life.closed_at).unwrap_or(life.log.len());
            for said in &life.log[stay.from..to.max(stay.from)] {
                let user = |user: usize| &self.users[user];
                match said {
                    Logged::Message { number, offset, except } if *except != Some(n) => {
                        let offset = if options(name).offsets { offset.to_string() } else { String::new() };
                        expected.push(format!("{room}|M|{offset}|{number}"));
                    }
                    Logged::Message { .. } => {}
                    Logged::Joined(_) | Logged::Left(_) if client.variant == PLAIN => {}
                    Logged::Joined(who) => expected.push(format!("{room}|J|{}", user(*who))),
                    Logged::Left(who) => {
                        expected.push(format!("{room}|L|{}", who.map_or(String::new(), |who| user(who).to_string())));
                    }
                    Logged::Closed => expected.push(format!("{room}|C")),
                }
            }
        }
        expected
    }

    /// Everything a client received, against the logs of its rooms. Without an end it must be all there was; with one, all up
    /// to a point, and the reason.
    pub(super) fn check_stream(&mut self, n: usize) {
        let client = &self.clients[n];
        let stream = match &client.received {
            Some(received) => received.as_slice(),
            None => self.shards[client.shard].1.0[&client.lane.index].received.as_slice(),
        };
        let (frames, words, rest) = parse(stream);
        let mut got = BTreeMap::<&str, Vec<&str>>::new();
        for frame in &frames {
            let room = frame.split('|').next().expect("a frame names its room");
            got.entry(room).or_default().push(frame.trim_end_matches('-'));
        }
        let mut all = 0;
        for &name in client.stays.keys() {
            let expected = self.expected(client, n, name);
            let got = got.remove(self.names[name].as_str()).unwrap_or_default();
            assert_eq!(got, expected[..got.len().min(expected.len())], "order in a room of client {n}");
            all += expected.len();
        }
        assert!(got.is_empty(), "client {n} got something of a room it never was in: {got:?}");
        let Some((end, _)) = client.ended else {
            assert_eq!((frames.len(), words, rest), (all, None, 0), "client {n} stayed and must have everything");
            self.totals.received += all as u64;
            return;
        };
        if let Some(words) = words {
            assert_eq!((end, words, rest), (End::Evicted, client.words.as_slice(), 0), "the reason comes last");
        } else {
            // Who was closed before its last words could be written has only its part.
            assert!(client.received.is_some(), "client {n} must be told why");
        }
        self.totals.received += frames.len() as u64;
        self.totals.lost += (all - frames.len()) as u64;
    }

    pub(super) fn check_receipts(&self) {
        let told = self.told.lock();
        for (number, publication) in self.publications.iter().enumerate().filter(|(_, p)| p.has_receipt) {
            let (delivery, told_at) = told.get(&number).expect("every receipt is told");
            let has_ended = |&&n: &&usize| self.clients[n].ended.is_some_and(|(_, at)| at <= *told_at);
            let most = publication.wanted_by.len() as u64;
            let least = most - publication.wanted_by.iter().filter(has_ended).count() as u64;
            assert!(delivery.delivered >= least, "publication {number}: {delivery:?} of {least} to {most}");
            assert!((least..=most).contains(&(delivery.delivered + delivery.evicted)), "publication {number}");
            assert_eq!(delivery.dropped, 0);
        }
    }

    /// Everything is let through.
    pub(super) fn settle(&mut self) {
        for n in self.here.clone() {
            let Client { shard: at, lane, .. } = self.clients[n];
            let (shard, wires) = &mut self.shards[at];
            wires.at(lane).takes = None;
            assert!(shard.writable(lane, wires).is_empty);
        }
        // What one shard lets go may be news to another.
        while (0..SHARDS).any(|at| !self.registry.shards()[at].is_empty() || !self.shards[at].0.is_flushed()) {
            for at in 0..SHARDS {
                self.take_items(at, usize::MAX);
                self.flush(at);
            }
        }
        (0..SHARDS).for_each(|at| self.release(at));
    }

    pub(super) fn check_end(&mut self) {
        self.settle();
        self.check_totals();
        self.here.clone().into_iter().for_each(|n| self.check_stream(n));
        self.check_receipts();
        assert_eq!(self.budget.used(), 0);
        let epochs: BTreeSet<u64> = self.lives.iter().filter_map(|life| life.epoch).collect();
        assert_eq!(epochs.len(), self.lives.iter().filter(|life| life.epoch.is_some()).count(), "epochs differ");
    }

    /// Everybody goes, and nothing stays.
    pub(super) fn check_nothing_stays(&mut self) {
        for n in self.here.clone() {
            while let Some((&name, _)) = self.clients[n].rooms.first_key_value() {
                if self.dice.percent(50) {
                    break;
                }
                self.leave(n, name);
            }
            let Client { shard, lane, .. } = self.clients[n];
            for room in self.shards[shard].0.close(lane) {
                self.leave_registry(n, self.by_id[&room.0]);
            }
            self.here.retain(|&other| other != n);
        }
        self.settle();
        self.sweep();
        self.check_totals();
        assert_eq!(self.registry.stats().rooms.load(Ordering::Relaxed), 0);
        assert_eq!(self.registry.stats().subscriptions.load(Ordering::Relaxed), 0);
        for (at, intake) in self.registry.shards().iter().enumerate() {
            assert_eq!(self.shards[at].0.counts(), (0, 0), "lanes and rooms of shard {at}");
            assert_eq!(self.owed[at], (0, 0));
            assert!(!intake.is_pressed());
            assert_eq!(intake.reserve(INTAKE.intake_bytes_max), Ok(()), "all bytes came back");
            for _ in 1..INTAKE.intake_items_max {
                assert_eq!(intake.reserve(0), Ok(()), "all items came back");
            }
            assert!(intake.reserve(0).is_err());
        }
    }
}

/// Splits a stream into what its frames say, the last words, and the number of bytes of a frame that was not finished.
fn parse(mut stream: &[u8]) -> (Vec<&str>, Option<&[u8]>, usize) {
    let mut frames = Vec::new();
    while let Some(&open) = stream.first() {
        let close = if open == b'<' { b'>' } else { b']' };
        let Some(end) = stream.iter().position(|&b| b == close) else { return (frames, None, stream.len()) };
        if open == b'<' {
            assert_eq!(end + 1, stream.len(), "something follows the last words");
            return (frames, Some(stream), 0);
        }
        assert_eq!(open, b'[', "a frame begins");
        frames.push(std::str::from_utf8(&stream[1..end]).expect("test frames are text"));
        stream = &stream[end + 1..];
    }
    (frames, None, 0)
}
