//! The gateway: what the edge does for those who come, go and come back.

use std::io::Write;

use fanfare_fanout::{FlushQuota, Lane, LaneEvent, RoomId};
use fanfare_protocol::{Payload, Position, RoomEvent};
use fanfare_registry::{Draft, Item, KEPT_OVERHEAD_BYTES, Missed};

use super::{Client, ROOMS, SHARDS, World, options};
use crate::frames::{Spelled, spell};
use crate::wires::Wire;

impl World {
    pub(super) fn connect(&mut self, n: usize) {
        let at = self.clients[n].shard;
        let lane = self.shards[at].0.open(0);
        self.shards[at].1.0.insert(lane.index, Wire::default());
        self.by_lane.insert((at, lane.index), n);
        self.clients[n].lane = Some(lane);
        for room in self.clients[n].memories.keys().copied().collect::<Vec<_>>() {
            self.subscribe(n, room);
        }
    }

    pub(super) fn subscribe(&mut self, n: usize, room: usize) {
        let Client { shard, lane: Some(lane), ref mut memories, .. } = self.clients[n] else { return };
        let Some(memory) = memories.get_mut(&room).filter(|memory| !memory.is_in) else { return };
        memory.is_in = true;
        let since = memory.position;
        let joined = self.registry.rejoin(&self.names[room], options(room), shard, None, since, self.now);
        let joined = joined.expect("there is room for a room");
        let life = self.lives.entry(joined.position.epoch).or_default();
        assert_eq!(joined.position.offset, life.0.len() as u64);
        if let Some(since) = since {
            let is_kept = since.epoch == joined.position.epoch && since.offset + 1 >= life.first_kept(room, self.now);
            assert!(joined.recovered == is_kept || (!joined.recovered && !self.is_plenty), "the truth about {since}");
            self.totals.resumes += 1;
            *(if joined.recovered { &mut self.totals.recovered } else { &mut self.totals.unrecovered }) += 1;
        }
        let Position { epoch, offset } = joined.position;
        self.reply(n, format!("[{room}|S|{epoch}|{offset}|{}]", joined.recovered).as_bytes());
        self.clients[n].rooms.insert(room, joined.room);
        // The first part goes out at once where nothing waits, as the rest will.
        if joined.missed.seq.is_some() || self.shards[shard].0.queued(lane).bytes == 0 {
            self.replay(n, room, joined.missed);
        } else if let Some(since) = since {
            self.clients[n].behind.push_back((room, since.offset));
        }
    }

    /// Tells part of what was missed; after the last part live events follow.
    pub(super) fn replay(&mut self, n: usize, room: usize, missed: Missed) {
        let Client { shard, lane: Some(lane), .. } = self.clients[n] else { return };
        let mut frames = Vec::new();
        if let Some((from, to)) = missed.lost {
            write!(frames, "[{room}|G|{from}|{to}]").expect("memory takes everything");
        }
        for kept in missed.messages {
            if kept.except == Some((shard, lane)) {
                self.totals.skipped += 1;
                continue;
            }
            spell(&RoomEvent::Message(self.names[room].clone(), kept.published), 0, &mut frames);
        }
        self.reply(n, &frames);
        let Some(member) = self.clients[n].rooms.get(&room).filter(|_| self.clients[n].lane == Some(lane)) else {
            return;
        };
        match missed.seq {
            Some(seq) => assert!(self.shards[shard].0.join(lane, member.id(), seq), "a member of it from here on"),
            None => {
                self.totals.parts += 1;
                self.clients[n].behind.push_front((room, missed.offset));
            }
        }
    }

    /// The next part for every client that has taken the one before.
    pub(super) fn replay_more(&mut self, at: usize) {
        for n in (0..self.clients.len()).filter(|n| n % SHARDS == at) {
            let Some(lane) = self.clients[n].lane else { continue };
            if self.shards[at].0.queued(lane).bytes > 0 {
                continue;
            }
            if let Some((room, after)) = self.clients[n].behind.pop_front() {
                let missed = self.registry.missed(&self.clients[n].rooms[&room], after, self.now);
                self.replay(n, room, missed);
            }
        }
    }

    pub(super) fn reply(&mut self, n: usize, frames: &[u8]) {
        let Client { shard, lane: Some(lane), .. } = self.clients[n] else { return };
        let (fanout, wires) = &mut self.shards[shard];
        fanout.reply(lane, Lane::Data, frames, wires);
    }

    /// The connection ends, and what was under way may be lost: from anywhere, in the middle of a frame.
    pub(super) fn disconnect(&mut self, n: usize) {
        let Some(lane) = self.clients[n].lane else { return };
        let at = self.clients[n].shard;
        let received = &mut self.shards[at].1.at(lane).received;
        if self.dice.percent(70) {
            let heard = self.dice.below(received.len() + 1);
            received.truncate(heard);
        }
        self.hear(n);
        self.shards[at].0.close(lane);
        self.shards[at].1.0.remove(&lane.index);
        self.by_lane.remove(&(at, lane.index));
        self.clients[n].lane = None;
        self.clients[n].behind.clear();
        self.clients[n].memories.values_mut().for_each(|memory| memory.is_in = false);
        for room in std::mem::take(&mut self.clients[n].rooms).into_values() {
            self.registry.leave(&room, at, None, false);
        }
        self.totals.disconnects += 1;
    }

    pub(super) fn publish(&mut self) {
        let room = self.dice.below(ROOMS.len());
        let sender = self.dice.below(self.clients.len());
        let except = self.clients[sender].lane.filter(|_| self.dice.percent(20));
        let except = except.map(|lane| (self.clients[sender].shard, lane));
        let text = format!("#{}{}", self.dice.0 % 100_000, "-".repeat(self.dice.below(20)));
        let charge = text.len() + KEPT_OVERHEAD_BYTES;
        let payload = Payload::Text(text.clone().into_bytes().into());
        let draft = Draft { user: None, payload, except, receipt: None };
        let said =
            self.registry.publish(&self.names[room], options(room), draft, self.now).expect("it is not over a bound");
        let Position { epoch, offset } = said.position;
        let life = self.lives.entry(epoch).or_default();
        life.0.push((text, charge, self.now));
        assert_eq!(offset, life.0.len() as u64, "dense from 1");
        if let Some((shard, lane)) = except {
            self.not_for.insert((epoch, offset, shard, lane.index, lane.generation));
        }
    }

    pub(super) fn turn(&mut self, at: usize, items: usize) {
        for _ in 0..items {
            match self.registry.shards()[at].pop() {
                Some(Item::Event { room, seq, event, except, receipt }) => {
                    self.shards[at].0.accept(room, seq, &Spelled(event), except, receipt);
                }
                Some(Item::CloseRoom(room)) => {
                    let (fanout, wires) = &mut self.shards[at];
                    fanout.flush_room(room, wires);
                    for n in (0..self.clients.len()).filter(|n| n % SHARDS == at) {
                        self.leave_closed(n, room);
                    }
                }
                Some(Item::Order(())) | None => break,
            }
        }
        let (fanout, wires) = &mut self.shards[at];
        fanout.flush(wires, FlushQuota { members_per_slice: 5, members_per_turn: 40 });
        let released = fanout.take_released();
        self.registry.shards()[at].release(released.items, released.bytes);
        self.replay_more(at);
        let mut events = Vec::new();
        self.shards[at].0.take_events(&mut events);
        for event in events {
            if let LaneEvent::Evicted(lane, ..) = event {
                self.totals.evicted += 1;
                self.disconnect(self.by_lane[&(at, lane.index)]);
            }
        }
    }

    pub(super) fn leave_closed(&mut self, n: usize, id: RoomId) {
        let Some((&room, member)) = self.clients[n].rooms.iter().find(|(_, room)| room.id() == id) else { return };
        let (member, lane) = (member.clone(), self.clients[n].lane.expect("a member is connected"));
        let at = self.clients[n].shard;
        if !self.shards[at].0.leave_unsent(lane, id) {
            // Who was still behind is no member there yet, and is told by hand.
            self.clients[n].behind.retain(|(other, _)| *other != room);
            self.reply(n, format!("[{room}|C]").as_bytes());
        }
        self.clients[n].rooms.remove(&room);
        self.registry.leave(&member, at, None, false);
    }
}
