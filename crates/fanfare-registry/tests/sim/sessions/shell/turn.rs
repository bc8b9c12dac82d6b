//! The loop of a shard: items, flushes, sockets that take bytes again, deadlines.

use fanfare_fanout::{Delivery, FlushQuota, Lane, LaneEvent, LaneId, RoomId, Slow};
use fanfare_protocol::wire::{Opcode, frame};
use fanfare_protocol::{CloseReason, Event, ReplyId, sse};
use fanfare_registry::Item;

use super::super::world::{ACKS_RESERVE_BYTES, PING, PONG, WRITE, World};
use super::{Connection, Order, Phase};

impl World {
    pub(in super::super) fn take_items(&mut self, shard: usize, items: usize) {
        let intake = self.registry.shards()[shard].clone();
        for _ in 0..items {
            let Some(item) = intake.pop() else { break };
            match item {
                Item::Event { room, seq, event, except, receipt } => {
                    self.shards[shard].0.accept(room, seq, &event, except, receipt);
                }
                Item::CloseRoom(room) => self.end_room(shard, room),
                Item::Order(Order::Again(again)) => {
                    intake.release(1, 0);
                    if let Some(n) = self.client_of(shard, again.lane) {
                        self.answer_again(n, again);
                    }
                }
                Item::Order(Order::Ack { lane, id, delivery }) => {
                    intake.release(1, ACKS_RESERVE_BYTES);
                    let Some(n) = self.client_of(shard, lane) else { continue };
                    let Delivery { delivered, dropped, evicted } = delivery;
                    let ack = Event::Ack { offset: None, delivered, dropped, evicted, id: ReplyId(Some(&id)) };
                    if self.is_open(n) {
                        self.answer(n, &ack, Lane::Control);
                    }
                }
            }
        }
        self.release(shard);
        self.see_to_lanes(shard);
    }

    pub(in super::super) fn end_room(&mut self, shard: usize, id: RoomId) {
        let (fanout, wires) = &mut self.shards[shard];
        fanout.flush_room(id, wires);
        for lane in self.shards[shard].0.members(id) {
            let room = self.lives[self.by_id[&id.0]].name;
            // The end of one member may have been the end of another's socket.
            let Some(n) = self.client_of(shard, lane).filter(|&n| self.is_in(n, room)) else { continue };
            self.leave_room(n, room, false, false);
            if self.clients[n].own.is_some() {
                self.end(n, CloseReason::RoomClosed);
            }
        }
        self.end_room_behind(shard, id);
        self.see_to_lanes(shard);
    }

    pub(in super::super) fn flush(&mut self, shard: usize, quota: FlushQuota) {
        let (fanout, wires) = &mut self.shards[shard];
        fanout.tell_time(self.now);
        fanout.flush(wires, quota);
        self.release(shard);
        self.see_to_lanes(shard);
        self.replay_more(shard);
    }

    pub(in super::super) fn release(&mut self, shard: usize) {
        let released = self.shards[shard].0.take_released();
        self.registry.shards()[shard].release(released.items, released.bytes);
    }

    pub(in super::super) fn client_of(&self, shard: usize, lane: LaneId) -> Option<usize> {
        let n = *self.by_lane.get(&(shard, lane.index))?;
        self.connections[n].as_ref().is_some_and(|connection| connection.lane == lane).then_some(n)
    }

    pub(in super::super) fn see_to_lanes(&mut self, shard: usize) {
        let mut events = Vec::new();
        self.shards[shard].0.take_events(&mut events);
        while let Some(event) = events.pop() {
            match event {
                LaneEvent::Blocked(lane) => {
                    let now = self.now;
                    if let Some(n) = self.client_of(shard, lane) {
                        self.connections[n].as_mut().expect("it is there").moved = Some(now);
                    }
                }
                LaneEvent::Evicted(lane, queued, slow) => {
                    let (bytes, messages) = (queued.bytes, queued.messages);
                    self.totals.evicted += 1;
                    if let Some(n) = self.client_of(shard, lane) {
                        let reason = match slow {
                            Slow::EvictResumable => CloseReason::SlowConsumerResumable { bytes, messages },
                            Slow::Evict | Slow::DropOldest | Slow::Latest => {
                                CloseReason::SlowConsumer { bytes, messages }
                            }
                        };
                        self.end(n, reason);
                    }
                }
                LaneEvent::Gone(lane) => {
                    if let Some(n) = self.client_of(shard, lane) {
                        self.on_end(n);
                    }
                }
            }
            self.shards[shard].0.take_events(&mut events);
        }
    }

    /// A client takes bytes again.
    pub(in super::super) fn writable(&mut self, n: usize) {
        let now = self.now;
        let Some(Connection { shard, lane, .. }) = self.connections[n] else { return };
        let (fanout, wires) = &mut self.shards[shard];
        let progress = fanout.writable(lane, wires);
        if let Some(connection) = &mut self.connections[n] {
            if progress.taken > 0 {
                connection.moved = Some(now);
            }
            if progress.is_empty {
                connection.moved = None;
            }
        }
        self.after_last_words(n);
        self.see_to_lanes(shard);
    }

    /// Heartbeats and deadlines.
    pub(in super::super) fn see_to_deadlines(&mut self) {
        let now = self.now;
        for n in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[n] else { continue };
            let lane = connection.lane;
            match connection.phase {
                Phase::Closing { deadline, .. } if now >= deadline => self.remove(n),
                Phase::Open if connection.moved.is_some_and(|moved| now >= moved + WRITE) => {
                    let queued = self.shards[connection.shard].0.queued(lane);
                    if queued.bytes > 0 {
                        self.totals.timeouts += 1;
                        let (bytes, messages) = (queued.bytes, queued.messages);
                        self.end(n, CloseReason::WriteTimeout { bytes, messages });
                    }
                }
                Phase::Open if connection.pinged.is_some_and(|pinged| now >= pinged + PONG) => {
                    self.totals.timeouts += 1;
                    self.end(n, CloseReason::PongTimeout { ms: PONG.as_millis() as u64 });
                }
                Phase::Open if connection.pinged.is_none() && now >= connection.heard + PING => {
                    let mut ping = Vec::new();
                    if self.clients[n].only_listens() {
                        // Nobody answers it.
                        connection.heard = now;
                        ping.extend_from_slice(sse::HEARTBEAT);
                    } else {
                        connection.pinged = Some(now);
                        frame(Opcode::Ping, &[], &mut ping);
                    }
                    self.reply(n, &ping, Lane::Control);
                }
                Phase::Open | Phase::Closing { .. } => {}
            }
        }
    }
}
