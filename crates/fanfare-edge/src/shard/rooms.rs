//! The rooms that have members on this shard, by id and by name, so that the directory is not asked for them.

use std::collections::HashMap;
use std::sync::Arc;

use fanfare_fanout::RoomId;
use fanfare_protocol::RoomName;
use fanfare_registry::Room;

/// The shard's own map. Kept in step with fan-out's members by whoever joins and leaves.
#[derive(Debug, Default)]
pub(super) struct LocalRooms {
    /// Each with its members here.
    by_id: HashMap<RoomId, (Arc<Room>, usize)>,
    by_name: HashMap<RoomName, RoomId>,
}

impl LocalRooms {
    /// One more member.
    pub(super) fn entered(&mut self, room: &Arc<Room>) {
        let (_, members) = self.by_id.entry(room.id()).or_insert_with(|| (room.clone(), 0));
        *members += 1;
        self.by_name.insert(room.name().clone(), room.id());
    }

    /// One member less. Returns its room.
    pub(super) fn left(&mut self, id: RoomId) -> Option<Arc<Room>> {
        let (room, members) = self.by_id.get_mut(&id)?;
        *members -= 1;
        let room = room.clone();
        if *members == 0 {
            self.by_id.remove(&id);
            // A new life of the room may have taken the name.
            if self.by_name.get(room.name()) == Some(&id) {
                self.by_name.remove(room.name());
            }
        }
        Some(room)
    }

    pub(super) fn by_id(&self, id: RoomId) -> Option<&Arc<Room>> {
        self.by_id.get(&id).map(|(room, _)| room)
    }

    pub(super) fn id_of(&self, name: &RoomName) -> Option<RoomId> {
        self.by_name.get(name).copied()
    }
}
