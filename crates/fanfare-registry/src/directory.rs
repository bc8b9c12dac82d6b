//! Name → room. Touched on join, first publish by name, and reaping; no guard leaves a function of this file.

use std::sync::Arc;

use fanfare_protocol::RoomName;

use crate::room::Room;

#[cfg(not(loom))]
#[derive(Debug, Default)]
pub(crate) struct Directory(dashmap::DashMap<RoomName, Arc<Room>>);

#[cfg(not(loom))]
impl Directory {
    pub(crate) fn get(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.0.get(name).map(|room| room.clone())
    }

    /// The room of this name, made if there is none; `None` when `make` refuses.
    pub(crate) fn get_or_make(&self, name: &RoomName, make: impl FnOnce() -> Option<Arc<Room>>) -> Option<Arc<Room>> {
        if let Some(room) = self.get(name) {
            return Some(room);
        }
        match self.0.entry(name.clone()) {
            dashmap::Entry::Occupied(entry) => Some(entry.get().clone()),
            dashmap::Entry::Vacant(entry) => Some(entry.insert(make()?).clone()),
        }
    }

    /// Removes `room` if it is still the one of its name and `ends` agrees. The stripe is locked while `ends` is asked, so nobody can
    /// fetch the room between the answer and the removal.
    pub(crate) fn remove_if(&self, room: &Arc<Room>, ends: impl FnOnce(&Room) -> bool) -> bool {
        self.0.remove_if(room.name(), |_, current| Arc::ptr_eq(current, room) && ends(current)).is_some()
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<Room>)) {
        for entry in &self.0 {
            visit(entry.value());
        }
    }

    pub(crate) fn shrink(&self) {
        self.0.shrink_to_fit();
    }
}

/// The same over one of loom's locks: what the models run on.
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct Directory(crate::sync::Mutex<std::collections::HashMap<RoomName, Arc<Room>>>);

#[cfg(loom)]
impl Default for Directory {
    fn default() -> Self {
        Self(crate::sync::Mutex::new(std::collections::HashMap::new()))
    }
}

#[cfg(loom)]
impl Directory {
    pub(crate) fn get(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.0.lock().get(name).cloned()
    }

    pub(crate) fn get_or_make(&self, name: &RoomName, make: impl FnOnce() -> Option<Arc<Room>>) -> Option<Arc<Room>> {
        if let Some(room) = self.get(name) {
            return Some(room);
        }
        let mut rooms = self.0.lock();
        if let Some(room) = rooms.get(name) {
            return Some(room.clone());
        }
        let room = make()?;
        rooms.insert(name.clone(), room.clone());
        Some(room)
    }

    pub(crate) fn remove_if(&self, room: &Arc<Room>, ends: impl FnOnce(&Room) -> bool) -> bool {
        let mut rooms = self.0.lock();
        let is_it = rooms.get(room.name()).is_some_and(|current| Arc::ptr_eq(current, room));
        is_it && ends(room) && rooms.remove(room.name()).is_some()
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<Room>)) {
        self.0.lock().values().for_each(&mut visit);
    }

    pub(crate) fn shrink(&self) {}
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::RoomOptions;
    use fanfare_fanout::RoomId;
    use std::time::Duration;

    #[test]
    fn a_room_is_removed_only_while_it_is_the_one_of_its_name() {
        let name = RoomName::parse("lobby").expect("a valid name");
        let room = |id| Arc::new(Room::new(RoomId(id), name.clone(), id, RoomOptions::default(), 1, Duration::ZERO));
        let (old, new) = (room(1), room(2));
        let directory = Directory::default();
        assert!(directory.get_or_make(&name, || None).is_none());
        assert!(directory.get_or_make(&name, || Some(old.clone())).is_some_and(|made| Arc::ptr_eq(&made, &old)));
        assert!(directory.get_or_make(&name, || Some(new.clone())).is_some_and(|found| Arc::ptr_eq(&found, &old)));
        assert!(!directory.remove_if(&old, |_| false), "it was not to end");
        assert!(directory.remove_if(&old, |_| true));
        assert!(!directory.remove_if(&old, |_| true), "it is removed once");
        assert!(directory.get_or_make(&name, || Some(new.clone())).is_some_and(|made| Arc::ptr_eq(&made, &new)));
        assert!(!directory.remove_if(&old, |_| true), "the room that has the name by then stays");
        assert!(directory.get(&name).is_some_and(|found| Arc::ptr_eq(&found, &new)));
    }
}
