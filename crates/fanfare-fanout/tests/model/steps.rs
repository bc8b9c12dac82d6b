//! What is done to the shard: one thing in a step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fanfare_fanout::{Delivery, Encode, FlushQuota, Lane, LaneId, Receipt, RoomId};

use crate::said::{MERGING, SPARSE, Said, parse};
use crate::wires::{Takes, Wire};
use crate::world::{Client, Due, GIVEN_OR_DROPPED, Life, World};

impl World {
    pub(crate) fn open(&mut self) {
        if self.clients.iter().filter(|c| c.life != Life::Closed).count() >= 12 {
            return;
        }
        let variant = self.dice.below(4) as u8;
        let lane = self.shard.open(variant);
        let takes = if self.dice.percent(50) { Takes::All } else { Takes::Only(self.dice.below(600)) };
        let wire = Wire { takes, received: Vec::new(), before_last_send: 0, is_short: false, has_failed: false };
        assert!(self.wires.0.insert(lane.index, wire).is_none(), "a place that is in use was given away");
        self.clients.push(Client {
            lane,
            variant,
            life: Life::Open,
            rooms: BTreeMap::new(),
            dues: Vec::new(),
            control: Vec::new(),
            data: Vec::new(),
            may_miss: false,
            got: BTreeSet::new(),
            reply_bytes: 0,
            is_watched: false,
            words: None,
            bytes_in_the_end: None,
            received: Vec::new(),
        });
    }

    pub(crate) fn close(&mut self, n: usize) {
        let pushed = self.standing(n).pushed;
        self.settle(n, Life::Closed, pushed);
        let lane = self.clients[n].lane;
        let mut left: Vec<u64> = self.shard.close(lane).into_iter().map(|room| room.0).collect();
        left.sort_unstable();
        assert_eq!(left, self.clients[n].rooms.keys().copied().collect::<Vec<_>>(), "the rooms that were left");
        assert!(!self.shard.is_open(lane) && self.shard.close(lane).is_empty());
        self.clients[n].rooms.clear();
        let wire = self.wires.0.remove(&lane.index).expect("an open lane has a wire");
        self.clients[n].received = wire.received;
        self.announced += self.check_stream(n, true);
    }

    pub(crate) fn join(&mut self, n: usize, room: u64) {
        let from_seq = *self.seqs.entry(room).or_insert(0);
        let is_in = self.clients[n].rooms.contains_key(&room);
        if self.is_single && !is_in && !self.clients[n].rooms.is_empty() {
            return;
        }
        assert_eq!(self.shard.join(self.clients[n].lane, RoomId(room), from_seq), !is_in);
        let slow = self.policies[room as usize];
        self.shard.set_slow(RoomId(room), slow, room);
        self.clients[n].may_miss |= slow.drops() && ![MERGING, SPARSE].contains(&self.clients[n].variant);
        self.clients[n].rooms.entry(room).or_insert(from_seq);
        assert!(self.shard.is_member(self.clients[n].lane, RoomId(room)));
    }

    /// As the loop does it: what was said before reaches the shard before the leave does.
    pub(crate) fn leave(&mut self, n: usize, room: u64) {
        self.accept(usize::MAX);
        let now = self.tick();
        let is_in = self.clients[n].rooms.remove(&room).is_some();
        assert_eq!(self.shard.leave(self.clients[n].lane, RoomId(room), &mut self.wires), is_in);
        assert!(!self.shard.is_member(self.clients[n].lane, RoomId(room)));
        for due in self.clients[n].dues.iter_mut().filter(|due| due.said.room == room && due.left_at.is_none()) {
            due.left_at = Some(now);
        }
    }

    pub(crate) fn publish(&mut self) {
        let room = self.some_room();
        let members: Vec<usize> =
            (0..self.clients.len()).filter(|&n| self.clients[n].rooms.contains_key(&room)).collect();
        let seq = self.seqs.entry(room).or_insert(0);
        *seq += 1;
        let seq = *seq;
        if members.is_empty() && !self.dice.percent(20) {
            return;
        }
        let pad_max = if self.dice.percent(10) { self.pad_max * 4 } else { self.pad_max };
        let pad = self.dice.below(pad_max);
        let is_notice = self.dice.percent(10);
        let said = Said { room, seq, pad, is_alone: self.dice.percent(15), is_rare: self.dice.percent(40), is_notice };
        // Usually a member, sometimes anybody who ever was.
        let except = match self.dice.below(100) {
            0..25 => self.dice.pick(&members).map(|n| self.clients[n].lane),
            25..30 => Some(self.dice.below(self.clients.len())).and_then(|n| self.clients.get(n)).map(|c| c.lane),
            _ => None,
        };
        let receipt = self.dice.percent(60).then(|| {
            self.receipts_asked.insert((room, seq));
            let told = self.told.clone();
            let receipt = Receipt::new(move |delivery| told.lock().entry((room, seq)).or_default().push(delivery));
            receipt.expect();
            receipt.report(Delivery::default());
            Arc::new(receipt)
        });
        let published_at = self.tick();
        for n in members {
            let client = &mut self.clients[n];
            if except == Some(client.lane) {
                continue;
            }
            let mut frame = Vec::new();
            said.encode(client.variant, &mut (), &mut frame);
            let counts = match client.life {
                Life::Open => client.may_miss.then_some(GIVEN_OR_DROPPED),
                Life::Evicted => Some(((0, 0), (1, 1))),
                Life::Closing | Life::Gone | Life::Closed => Some(((0, 0), (0, 0))),
            };
            client.dues.push(Due { said, size: frame.len(), published_at, left_at: None, counts });
        }
        self.backlog.push_back((said, except, receipt));
    }

    pub(crate) fn accept(&mut self, items: usize) {
        for _ in 0..items {
            let Some((said, except, receipt)) = self.backlog.pop_front() else { return };
            self.accepted.items += 1;
            self.accepted.bytes += said.pad;
            self.shard.accept(RoomId(said.room), said.seq, &said, except, receipt);
        }
    }

    pub(crate) fn flush(&mut self) {
        let most = if self.dice.percent(50) { 2 } else { 8 };
        let members_per_slice = 1 + self.dice.below(most);
        let members_per_turn = 1 + self.dice.below(most);
        let is_more = self.shard.flush(&mut self.wires, FlushQuota { members_per_slice, members_per_turn });
        assert_eq!(is_more, !self.shard.is_flushed());
    }

    pub(crate) fn reply(&mut self, n: usize) {
        let id = self.tick();
        let kind = if self.dice.percent(50) { Lane::Control } else { Lane::Data };
        let letter = if kind == Lane::Control { 'c' } else { 'd' };
        let frame = format!("<{letter}:{id}:{}>", "r".repeat(self.dice.below(60)));
        let before = self.before();
        let was_open = self.clients[n].life == Life::Open;
        if was_open {
            match kind {
                Lane::Control => self.clients[n].control.push(id),
                Lane::Data => self.clients[n].data.push((id, id)),
            }
        }
        self.shard.reply(self.clients[n].lane, kind, frame.as_bytes(), &mut self.wires);
        self.act_on_events(&before);
        if was_open && self.clients[n].life == Life::Open {
            self.clients[n].reply_bytes += frame.len();
        }
    }

    pub(crate) fn last_words(&mut self, n: usize) {
        if self.clients[n].words.is_some() {
            return;
        }
        let before = self.before();
        if self.clients[n].life == Life::Open {
            self.settle(n, Life::Closing, before[n].pushed);
        }
        let frame = format!("<w:{}:!>", self.tick()).into_bytes();
        let is_done = self.shard.last_words(self.clients[n].lane, &frame, &mut self.wires);
        assert_eq!(
            is_done,
            self.shard.queued(self.clients[n].lane).bytes == 0,
            "whether there is something to wait for"
        );
        let wire = self.wires.at(self.clients[n].lane);
        if wire.takes == Takes::All && parse(&wire.received).1 == 0 {
            assert!(wire.received.ends_with(&frame), "who takes everything gets the last words");
        }
        self.clients[n].words = Some(frame);
        self.act_on_events(&before);
    }

    pub(crate) fn last_words_after_queue(&mut self, n: usize) {
        if self.clients[n].life != Life::Open {
            return;
        }
        let before = self.before();
        let frame = format!("<w:{}:!>", self.tick()).into_bytes();
        self.shard.last_words_after_queue(self.clients[n].lane, &frame, &mut self.wires);
        let length = frame.len();
        self.clients[n].words = Some(frame);
        self.act_on_events(&before);
        if self.clients[n].life == Life::Open {
            self.settle(n, Life::Closing, before[n].pushed);
            let bytes = before[n].pushed + self.clients[n].reply_bytes + length;
            self.clients[n].bytes_in_the_end = (!self.clients[n].may_miss).then_some(bytes);
        } else if self.clients[n].life == Life::Evicted {
            // They were refused; the owner says others.
            self.clients[n].words = None;
        }
    }

    pub(crate) fn writable(&mut self, n: usize) {
        let lane = self.clients[n].lane;
        let before = self.before();
        let queued = self.shard.queued(lane).bytes;
        let progress = self.shard.writable(lane, &mut self.wires);
        let left = self.shard.queued(lane).bytes;
        assert_eq!(progress.is_empty, left == 0);
        // Gaps are counted as long as they may become.
        let is_all = progress.taken + left == queued || (self.clients[n].may_miss && progress.taken + left < queued);
        assert!(is_all || self.wires.at(lane).has_failed, "bytes were lost on the way");
        if left == 0 {
            self.clients[n].is_watched = false;
        }
        self.act_on_events(&before);
    }

    /// What was an identity is none any more: all of it must do nothing.
    pub(crate) fn use_a_stale_lane(&mut self) {
        let closed: Vec<LaneId> = self.clients.iter().filter(|c| c.life == Life::Closed).map(|c| c.lane).collect();
        let Some(lane) = self.dice.pick(&closed) else { return };
        let room = RoomId(self.some_room());
        assert!(!self.shard.join(lane, room, 0) && !self.shard.leave(lane, room, &mut self.wires));
        assert!(self.shard.last_words(lane, b"<x>", &mut self.wires));
        assert!(self.shard.last_words_after_queue(lane, b"<x>", &mut self.wires));
        self.shard.reply(lane, Lane::Control, b"<x>", &mut self.wires);
        assert!(self.shard.writable(lane, &mut self.wires).is_empty && self.shard.close(lane).is_empty());
        assert_eq!(self.shard.rooms_of(lane).count(), 0);
    }

    pub(crate) fn step(&mut self) {
        let die = self.dice.below(100);
        let Some(n) = self.some_client().filter(|_| die >= 5) else { return self.open() };
        self.step_began = self.clock;
        let before = self.before();
        match die {
            0..5 => {}
            5..7 => self.close(n),
            7..17 => {
                let room = self.some_room();
                self.join(n, room);
            }
            17..23 => {
                let rooms: Vec<u64> = self.clients[n].rooms.keys().copied().collect();
                let room = if self.dice.percent(90) { self.dice.pick(&rooms) } else { Some(self.some_room()) };
                room.into_iter().for_each(|room| self.leave(n, room));
            }
            23..45 => self.publish(),
            45..60 => {
                let items = self.dice.below(6);
                self.accept(items);
            }
            60..77 => self.flush(),
            77..78 => {
                let room = RoomId(self.some_room());
                self.shard.flush_room(room, &mut self.wires);
            }
            78..83 => self.reply(n),
            83..93 => {
                self.change_wire(n);
                self.writable(n);
            }
            93..98 => self.change_wire(n),
            98 => match self.dice.below(4) {
                0 => self.last_words(n),
                1 => self.last_words_after_queue(n),
                2 => self.wires.at(self.clients[n].lane).takes = Takes::Fails,
                _ => self.use_a_stale_lane(),
            },
            _ => self.use_a_stale_lane(),
        }
        self.act_on_events(&before);
    }

    pub(crate) fn change_wire(&mut self, n: usize) {
        let takes = match self.dice.below(10) {
            0..3 => Takes::All,
            3..5 => Takes::Only(0),
            5..8 => Takes::Only(self.dice.below(40)),
            _ => Takes::Only(self.dice.below(5_000)),
        };
        let wire = self.wires.at(self.clients[n].lane);
        if wire.takes != Takes::Fails {
            wire.takes = takes;
        }
    }
}
