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
    /// The names are those that the first member brought: what this shard's members share is not in use by other shards.
    by_name: HashMap<RoomName, RoomId>,
}

impl LocalRooms {
    /// One more member, who calls the room by this name.
    pub(super) fn entered(&mut self, room: &Arc<Room>, name: &RoomName) {
        let (_, members) = self.by_id.entry(room.id()).or_insert_with(|| (room.clone(), 0));
        *members += 1;
        self.by_name.insert(name.clone(), room.id());
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

    /// The name as members of the room share it.
    pub(super) fn shared_name(&self, name: &RoomName) -> Option<&RoomName> {
        self.by_name.get_key_value(name).map(|(shared, _)| shared)
    }

    pub(super) fn id_of(&self, name: &RoomName) -> Option<RoomId> {
        self.by_name.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fanfare_fanout::{Intake, IntakeLimits};
    use fanfare_registry::{Item, Registry, RegistryLimits, RoomOptions};

    use super::*;

    #[test]
    fn members_share_the_name_that_the_first_one_brought() {
        let intake: Arc<Intake<Item<()>>> = Arc::new(Intake::new(IntakeLimits::default(), || {}));
        let registry = Registry::new(vec![intake], RegistryLimits::default(), 1);
        let mut rooms = LocalRooms::default();
        let enter = |rooms: &mut LocalRooms| {
            let name = RoomName::parse("lobby").expect("a valid name");
            let joined = registry.join(&name, RoomOptions::default(), 0, None, Duration::ZERO).expect("a place");
            rooms.entered(&joined.room, &name);
            (joined.room.id(), rooms.shared_name(&name).expect("a member is there").clone())
        };
        let (id, first) = enter(&mut rooms);
        let (_, second) = enter(&mut rooms);
        assert!(std::ptr::eq(first.as_str(), second.as_str()), "one copy for both");
        assert!(rooms.left(id).is_some() && rooms.shared_name(&first).is_some());
        assert!(rooms.left(id).is_some() && rooms.shared_name(&first).is_none());
    }
}
