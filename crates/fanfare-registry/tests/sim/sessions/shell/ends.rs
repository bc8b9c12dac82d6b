//! The end of a connection.

use fanfare_protocol::wire::close_frame;
use fanfare_protocol::{CloseReason, sse};

use super::super::world::{CLOSE, World};
use super::Phase;

impl World {
    pub(in super::super) fn end(&mut self, n: usize, reason: CloseReason) {
        if !self.is_open(n) {
            return;
        }
        let rooms: Vec<usize> = self.connections[n].as_ref().map_or(vec![], |c| c.rooms.keys().copied().collect());
        for room in rooms {
            self.leave_room(n, room, false, reason.waits_for_queue());
        }
        self.note_end(n, reason);
        let deadline = self.now + CLOSE;
        let connection = self.connections[n].as_mut().expect("it is open");
        let (shard, lane) = (connection.shard, connection.lane);
        connection.phase = Phase::Closing { deadline, peer_has_closed: false, is_deaf: false };
        let only_listens = self.clients[n].only_listens();
        // Who only listened and has gone hears nothing more.
        if reason == CloseReason::ConnectionLost || (only_listens && reason == CloseReason::ClientClosed) {
            return self.remove(n);
        }
        let mut words = Vec::new();
        if only_listens {
            sse::close_event(reason, &mut words);
        } else {
            close_frame(reason, &mut words);
        }
        self.clients[n].due_bytes += words.len() as u64;
        let (fanout, wires) = &mut self.shards[shard];
        if reason.waits_for_queue() {
            fanout.last_words_after_queue(lane, &words, wires);
        } else {
            fanout.last_words(lane, &words, wires);
        }
        self.after_last_words(n);
        self.see_to_lanes(shard);
    }

    pub(in super::super) fn fail(&mut self, n: usize, reason: CloseReason) {
        self.end(n, reason);
        if let Some(connection) = &mut self.connections[n]
            && let Phase::Closing { is_deaf, .. } = &mut connection.phase
        {
            *is_deaf = true;
        }
    }

    pub(in super::super) fn on_peer_close(&mut self, n: usize) {
        if self.is_open(n) {
            self.end(n, CloseReason::ClientClosed);
        }
        if let Some(connection) = &mut self.connections[n]
            && let Phase::Closing { peer_has_closed, .. } = &mut connection.phase
        {
            *peer_has_closed = true;
        }
        self.after_last_words(n);
    }

    pub(in super::super) fn after_last_words(&mut self, n: usize) {
        let Some(connection) = &self.connections[n] else { return };
        let is_out = self.shards[connection.shard].0.queued(connection.lane).bytes == 0;
        if is_out && matches!(connection.phase, Phase::Closing { peer_has_closed: true, .. }) {
            self.remove(n);
        }
    }

    pub(in super::super) fn remove(&mut self, n: usize) {
        let Some(connection) = &self.connections[n] else { return };
        let (shard, lane) = (connection.shard, connection.lane);
        assert!(connection.rooms.is_empty(), "rooms are left when a connection ends");
        assert!(self.shards[shard].0.close(lane).is_empty(), "the shard agrees");
        self.hear(n);
        let wire = self.shards[shard].1.0.remove(&lane.index).expect("an open lane has a wire");
        self.part_with(n);
        let could_hear = wire.takes.is_none() && !wire.is_broken;
        let client = &self.clients[n];
        let was_lost = client.ended == Some(CloseReason::ConnectionLost)
            || (client.only_listens() && client.ended == Some(CloseReason::ClientClosed));
        // The rest of a frame that there was no budget for: nothing may follow it.
        self.totals.untold += u64::from(client.told.is_none() && could_hear && !was_lost);
        self.by_lane.remove(&(shard, lane.index));
        self.connections[n] = None;
    }
}
