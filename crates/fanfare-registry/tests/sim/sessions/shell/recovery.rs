//! Members that come back: what they missed, part by part, each when the one before was taken.

use fanfare_fanout::{Lane, RoomId};
use fanfare_protocol::{CloseReason, Event, Position, RoomEvent};
use fanfare_registry::Missed;

use super::super::client::Due;
use super::super::model::Wanted;
use super::super::world::{REPLAY_PAUSE, World};

impl World {
    /// The first part: at once, unless so much is waiting for the client that this has to wait, too.
    pub(super) fn replay_first(&mut self, n: usize, room: usize, since: Option<Position>, missed: Missed) {
        let Some(connection) = self.connections[n].as_mut().filter(|connection| connection.rooms.contains_key(&room))
        else {
            return;
        };
        let waiting = self.shards[connection.shard].0.queued(connection.lane).bytes;
        match since {
            Some(since) if !missed.messages.is_empty() && waiting >= REPLAY_PAUSE => {
                connection.behind.push_back((room, since.offset));
            }
            _ => self.replay(n, room, missed),
        }
    }

    /// Tells part of what was missed. After the last part live events follow.
    fn replay(&mut self, n: usize, room: usize, missed: Missed) {
        self.owe_missed(n, room, &missed);
        let Some(connection) = &self.connections[n] else { return };
        let itself = (connection.shard, connection.lane);
        let Missed { lost, messages, offset, seq } = missed;
        let name = self.names[room].clone();
        if let Some((from, to)) = lost {
            self.answer(n, &Event::Gap { room: &name, from, to, count: to + 1 - from }, Lane::Data);
        }
        let (variant, mut frames) = (self.clients[n].variant, Vec::new());
        for kept in messages.into_iter().filter(|kept| kept.except != Some(itself)) {
            variant.encode(&RoomEvent::Message(name.clone(), kept.published), &mut frames);
        }
        self.reply(n, &frames, Lane::Data);
        // The replies may have been too much for it.
        let Some(connection) = &mut self.connections[n] else { return };
        let Some(id) = connection.rooms.get(&room).map(|room| room.id()) else { return };
        let Some(seq) = seq else { return connection.behind.push_front((room, offset)) };
        let (shard, lane) = itself;
        assert!(self.shards[shard].0.join(lane, id, seq), "a member of it from here on");
        self.set_rules(shard, id, room);
        self.note_level(n, self.by_id[&id.0]);
    }

    /// The next part for every client of the shard that has taken the one before.
    pub(super) fn replay_more(&mut self, shard: usize) {
        for n in 0..self.connections.len() {
            let Some(connection) = self.connections[n].as_mut().filter(|connection| connection.shard == shard) else {
                continue;
            };
            if self.shards[shard].0.queued(connection.lane).bytes > 0 {
                continue;
            }
            let Some((room, after)) = connection.behind.pop_front() else { continue };
            let here = connection.rooms[&room].clone();
            let missed = self.registry.missed(&here, after, self.now);
            self.check_missed(self.by_id[&here.id().0], Wanted::After(after), &missed);
            self.replay(n, room, missed);
        }
    }

    /// The room has ended: those who were still behind are told as its members were.
    pub(super) fn end_room_behind(&mut self, shard: usize, id: RoomId) {
        let Some(&life) = self.by_id.get(&id.0) else { return };
        let room = self.lives[life].name;
        for n in self.lives[life].behind.clone() {
            if self.connections[n].as_ref().is_none_or(|connection| connection.shard != shard) {
                continue;
            }
            self.clients[n].owe(room, Due::Closed);
            let mut frames = Vec::new();
            self.clients[n].variant.encode(&RoomEvent::RoomClosed(self.names[room].clone()), &mut frames);
            self.reply(n, &frames, Lane::Data);
            // It may have been one frame too many.
            if self.lives[life].behind.contains(&n) {
                self.leave_room(n, room, false, false);
            }
            if self.clients[n].own.is_some() {
                self.end(n, CloseReason::RoomClosed);
            }
        }
    }
}
