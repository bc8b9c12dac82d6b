//! The loop of a shard.

use fanfare_fanout::{FlushQuota, LaneEvent, RoomId};
use fanfare_registry::Item;

use super::{Client, End, SHARDS, World};
use crate::frames::Spelled;

impl World {
    pub(super) fn take_items(&mut self, at: usize, items: usize) {
        let intake = self.registry.shards()[at].clone();
        for _ in 0..items {
            let Some(item) = intake.pop() else { break };
            let (shard, wires) = &mut self.shards[at];
            match item {
                Item::Event { room, seq, event, except, receipt } => {
                    shard.accept(room, seq, &Spelled(event), except, receipt);
                }
                Item::CloseRoom(room) => {
                    shard.flush_room(room, wires);
                    for lane in shard.members(room) {
                        let (shard, wires) = &mut self.shards[at];
                        assert!(shard.leave(lane, room, wires));
                        self.leave_registry(self.by_lane[&(at, lane.index)], self.by_id[&room.0]);
                    }
                }
                Item::Order(()) => {}
            }
        }
        self.release(at);
        self.act_on_events(at);
    }

    pub(super) fn release(&mut self, at: usize) {
        let released = self.shards[at].0.take_released();
        self.owed[at].0 -= released.items;
        self.owed[at].1 -= released.bytes;
        self.registry.shards()[at].release(released.items, released.bytes);
    }

    pub(super) fn flush(&mut self, at: usize) {
        let quota = FlushQuota { members_per_slice: 1 + self.dice.below(6), members_per_turn: 1 + self.dice.below(60) };
        let (shard, wires) = &mut self.shards[at];
        shard.flush(wires, quota);
        self.release(at);
        self.act_on_events(at);
    }

    pub(super) fn turn(&mut self) {
        let at = self.dice.below(SHARDS);
        let items = self.dice.below(60);
        self.take_items(at, items);
        for _ in 0..self.dice.below(4) {
            self.flush(at);
        }
    }

    /// An evicted client is told so, leaves its rooms, and is closed later.
    pub(super) fn act_on_events(&mut self, at: usize) {
        let mut events = Vec::new();
        self.shards[at].0.take_events(&mut events);
        for event in events {
            let LaneEvent::Evicted(lane, queued, _) = event else {
                assert!(matches!(event, LaneEvent::Blocked(_)), "no connection fails here: {event:?}");
                continue;
            };
            let n = self.by_lane[&(at, lane.index)];
            assert_eq!(self.clients[n].ended, None, "evicted once");
            self.clients[n].ended = Some((End::Evicted, self.clock()));
            self.totals.evicted += 1;
            let words = format!("<slow:{}:{}>", queued.bytes, queued.messages).into_bytes();
            let (shard, wires) = &mut self.shards[at];
            shard.last_words(lane, &words, wires);
            self.clients[n].words = words;
            let rooms: Vec<(usize, RoomId)> =
                self.clients[n].rooms.values().map(|(life, room)| (*life, room.id())).collect();
            for (life, room) in rooms {
                let (shard, wires) = &mut self.shards[at];
                assert!(shard.leave(lane, room, wires));
                self.leave_registry(n, life);
            }
            self.release(at);
        }
    }

    pub(super) fn unblock(&mut self, n: usize) {
        let Client { shard: at, lane, .. } = self.clients[n];
        let takes = self.dice.percent(20).then(|| self.dice.below(2_000));
        let (shard, wires) = &mut self.shards[at];
        wires.at(lane).takes = takes;
        shard.writable(lane, wires);
    }
}
