//! Rooms that are in no directory: nobody can enter, list or count them, but what is said in them takes the same way as everything else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_fanout::RoomId;
use fanfare_protocol::{RoomEvent, RoomName};

use super::Registry;
use crate::room::{Room, RoomOptions};

impl<O> Registry<O> {
    /// A hidden room with one subscriber, on this shard.
    pub fn hidden_room(&self, name: RoomName, shard: usize, now: Duration) -> Arc<Room> {
        let id = RoomId(self.ids.fetch_add(1, Ordering::Relaxed));
        let room = Arc::new(Room::new(id, name, 0, RoomOptions::default(), self.shards.len(), now));
        room.lock().enter(shard, None, false);
        room
    }

    /// Says something in it that is no publication: under its lock, through the shard's intake, into a batch, to its subscriber.
    pub fn say_hidden(&self, room: &Arc<Room>) {
        let mut state = room.lock();
        let woken = self.say(room, &mut state, RoomEvent::Left(room.name().clone(), None));
        drop(state);
        self.wake(&woken);
    }
}
