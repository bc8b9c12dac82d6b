//! How rooms begin and end: they are made when somebody needs them, and reaped when nobody does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_fanout::RoomId;
use fanfare_protocol::{Position, RoomEvent, RoomName};

use super::Registry;
use crate::item::Item;
use crate::room::{Life, Room, RoomOptions, State};
use crate::sync::MutexGuard;

/// Rooms that wait for a sweep at most; the next one brings the sweep forward.
const VACATED_MAX: usize = 65_536;

impl<O> Registry<O> {
    /// Does something with a room while it is locked and alive; one that is not there is made. `None`: it would be one too many.
    pub(super) fn in_room<R>(
        &self,
        name: &RoomName,
        options: RoomOptions,
        now: Duration,
        act: impl FnOnce(&Arc<Room>, MutexGuard<'_, State>) -> R,
    ) -> Option<R> {
        loop {
            let room = self.room(name, options, now)?;
            let state = room.lock();
            if state.life != Life::Reaped {
                return Some(act(&room, state));
            }
            drop(state);
            // Whoever reaped it takes it out in the same step; help, so that this loop cannot wait for a sleeper.
            self.forget(&room);
        }
    }

    /// The room of this name, made if there is none. `None` at the bound on rooms, when no other can make place.
    fn room(&self, name: &RoomName, options: RoomOptions, now: Duration) -> Option<Arc<Room>> {
        loop {
            let room = self.try_room(name, options, now, self.rooms_max.load(Ordering::Relaxed));
            if room.is_some() {
                return room;
            }
            if !self.evict_idle(Some(name)) {
                let rooms_max = if self.lets_pass(&self.stats.beyond_rooms) { usize::MAX } else { return None };
                return self.try_room(name, options, now, rooms_max);
            }
        }
    }

    fn try_room(&self, name: &RoomName, options: RoomOptions, now: Duration, rooms_max: usize) -> Option<Arc<Room>> {
        self.rooms.get_or_make(name, || {
            if self.stats.rooms.fetch_add(1, Ordering::Relaxed) >= rooms_max {
                self.stats.rooms.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            let id = self.ids.fetch_add(1, Ordering::Relaxed);
            let shared = if options.history.is_on() { self.begins_at(name) } else { None };
            let begins =
                shared.unwrap_or_else(|| Position { epoch: splitmix64(self.epoch_seed.wrapping_add(id)), offset: 0 });
            let room = Room::new(RoomId(id), name.clone(), begins.epoch, options, self.shards.len(), now);
            room.lock().offset = begins.offset;
            Some(Arc::new(room))
        })
    }

    /// Closes a room for all: everyone in it is told, then must leave. `false` when there is none.
    pub fn close(&self, name: &RoomName) -> bool {
        let Some(room) = self.rooms.get(name) else { return false };
        let mut state = room.lock();
        if state.life == Life::Reaped {
            return false;
        }
        room.end(&mut state, &self.keeping);
        let woken = self.say(&room, &mut state, RoomEvent::RoomClosed(room.name().clone()));
        for &shard in &woken {
            self.shards[shard].push_quietly(Item::CloseRoom(room.id()));
        }
        drop(state);
        self.forget(&room);
        self.wake(&woken);
        true
    }

    /// Has the next sweep look at a room. A list that has grown long is swept at once, so that it is bounded between sweeps too.
    pub(super) fn list_vacated(&self, room: &Arc<Room>) {
        let mut vacated = self.vacated.lock();
        vacated.push(room.clone());
        let is_long = vacated.len() >= VACATED_MAX;
        drop(vacated);
        if is_long {
            self.reap();
        }
    }

    /// Removes the rooms that are vacant and know nothing of what was said. Returns how many.
    pub fn reap(&self) -> usize {
        let listed = std::mem::take(&mut *self.vacated.lock());
        let reaped = listed.iter().filter(|room| self.remove(room, |_| room.try_reap(&self.keeping))).count();
        self.count_reaped(reaped);
        reaped
    }

    pub(super) fn count_reaped(&self, reaped: usize) {
        self.stats.reaped.fetch_add(reaped as u64, Ordering::Relaxed);
        // A burst of rooms should not leave its table behind.
        if reaped > 1_000 && reaped > self.stats.rooms.load(Ordering::Relaxed) {
            self.rooms.shrink();
        }
    }

    /// Takes a reaped room out of the directory, if it is still in.
    pub(super) fn forget(&self, room: &Arc<Room>) {
        self.remove(room, |_| true);
    }

    /// Removes a room that is still the one of its name, if `ends` agrees. It is uncounted in the same step, so that nobody is
    /// refused a room while there is a place for it.
    pub(super) fn remove(&self, room: &Arc<Room>, ends: impl FnOnce(&Room) -> bool) -> bool {
        self.rooms.remove_if(room, |room| {
            let is_over = ends(room);
            if is_over {
                self.remember(room);
            }
            self.stats.rooms.fetch_sub(usize::from(is_over), Ordering::Relaxed);
            is_over
        })
    }
}

/// A vacant room that has no history and is not listed yet: the next sweep must look at it. It counts as listed from here on.
pub(super) fn is_newly_vacant(state: &mut State) -> bool {
    let is_over = state.life == Life::Vacant && state.history.is_empty();
    is_over && !std::mem::replace(&mut state.is_listed_vacant, true)
}

/// Spreads a counter over 64 bits (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
