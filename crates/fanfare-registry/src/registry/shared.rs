//! Rooms whose order is made elsewhere: by a log that several nodes share. What is in the log is applied here, with the numbers it has
//! there, and cannot be refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_fanout::RoomId;
use fanfare_protocol::{Position, RoomName};

use super::publish::audience;
use super::{Draft, Receipted, Registry};
use crate::item::Item;
use crate::room::{Life, Room, RoomOptions, State};
use crate::sync::MutexGuard;

/// So far ahead of this node somebody may be who was on another one before.
const AHEAD_MAX: u64 = 1 << 20;

/// What is known of the log that this node follows.
#[derive(Debug)]
pub(super) struct FollowedLog {
    /// The epoch of all rooms with a history.
    pub(super) epoch: u64,
    /// How far rooms have counted that are not here.
    offsets: HashMap<RoomName, u64>,
    /// Entries from before the node began are still to come: rooms begin with what these say.
    is_reading: bool,
}

/// What the log says of a publication besides what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamped {
    /// Its number in its room, where the log counts.
    pub offset: Option<u64>,
    /// When the log took it, on the registry's clock.
    pub at: Duration,
    /// It is this node's own: a room is made for it, like for any publication.
    pub is_own: bool,
}

impl<O> Registry<O> {
    /// Follows a log of this epoch from here on. All rooms end; `lost` makes the order that tells shards with members of one.
    pub fn share(&self, epoch: u64, offsets: HashMap<RoomName, u64>, lost: impl Fn(RoomId) -> O) {
        // First, so that a room that is made meanwhile has the new epoch.
        *self.shared.lock() = Some(FollowedLog { epoch, offsets, is_reading: true });
        self.is_shared.store(true, Ordering::Release);
        let mut rooms = Vec::new();
        self.rooms.for_each(|room| rooms.push(room.clone()));
        for room in rooms {
            self.end_lost(&room, room.lock(), &lost);
        }
    }

    /// All that was in the log when the node began is applied. Rooms of which the log has counted more than it kept know nothing.
    pub fn caught_up(&self, lost: impl Fn(RoomId) -> O) {
        let mut rooms = Vec::new();
        self.rooms.for_each(|room| {
            if room.options().history.is_on() {
                rooms.push(room.clone());
            }
        });
        for room in rooms {
            let mut state = room.lock();
            let counted = self.counted(&room);
            if state.life == Life::Reaped || counted <= state.offset {
                continue;
            }
            if state.occupancy > 0 {
                // Entered too early to know where it stands.
                self.note_counted(&room, counted);
                self.end_lost(&room, state, &lost);
                continue;
            }
            state.history.clear(&self.keeping.budget);
            state.offset = counted;
            self.keeping.settle(&room, &mut state);
        }
        if let Some(log) = &mut *self.shared.lock() {
            log.is_reading = false;
        }
    }

    /// Whether a publication to this room would find a place for it now: what the log has taken cannot be refused.
    #[must_use]
    pub fn has_place_for(&self, name: &RoomName) -> bool {
        self.stats.rooms.load(Ordering::Relaxed) < self.rooms_max.load(Ordering::Relaxed)
            || self.observes.load(Ordering::Relaxed)
            || self.rooms.get(name).is_some()
            || self.keeping.longest_idle(Some(name)).is_some()
    }

    /// Applies a publication that the log has taken. The part of its receipt that is owed by whoever publishes is not reported yet.
    ///
    /// # Errors
    /// The draft, when a shard is over its bound. Nothing was done.
    pub fn apply(
        &self,
        name: &RoomName,
        options: RoomOptions,
        draft: Draft,
        stamped: &Stamped,
        lost: impl Fn(RoomId) -> O,
        now: Duration,
    ) -> Result<Receipted, Draft> {
        let is_kept = options.history.is_on();
        let nowhere = || Receipted {
            position: Position {
                epoch: self.shared_epoch().unwrap_or_default(),
                offset: stamped.offset.unwrap_or_default(),
            },
            is_pressed: false,
        };
        if !is_kept && !stamped.is_own && self.rooms.get(name).is_none() {
            return Ok(nowhere());
        }
        if is_kept {
            self.make_place(name, draft.payload.len());
        }
        let mut draft = draft;
        loop {
            let fit = self
                .in_room(name, options, now, |room, state| self.apply_locked(room, state, draft, stamped, &lost, now));
            match fit {
                Some(Fit::Applied(receipted)) => return Ok(receipted),
                Some(Fit::Busy(draft)) => return Err(draft),
                // A new room is made.
                Some(Fit::Lost(again)) => draft = again,
                // No place for the room: nobody is in it, and it will know later how far it has counted.
                None => {
                    self.note_offset(name, stamped.offset.filter(|_| is_kept));
                    return Ok(nowhere());
                }
            }
        }
    }

    fn apply_locked(
        &self,
        room: &Arc<Room>,
        mut state: MutexGuard<'_, State>,
        draft: Draft,
        stamped: &Stamped,
        lost: &impl Fn(RoomId) -> O,
        now: Duration,
    ) -> Fit {
        let offset = stamped.offset.filter(|_| room.options().history.is_on());
        let fits = offset.is_none_or(|offset| offset == state.offset + 1);
        if !fits && state.occupancy > 0 {
            // Its members would miss something without a word.
            self.end_lost(room, state, lost);
            return Fit::Lost(draft);
        }
        let targets = audience(&state);
        if self.reserve(&targets, draft.payload.len()).is_err() {
            return Fit::Busy(draft);
        }
        if !fits {
            state.history.clear(&self.keeping.budget);
        }
        match offset {
            Some(offset) => state.offset = offset,
            None if room.options().history.is_on() => {
                // Posted by a node that is configured otherwise. It has no number, so nobody may rely on those that have one.
                state.history.clear(&self.keeping.budget);
                self.stats.unnumbered.fetch_add(1, Ordering::Relaxed);
            }
            None => state.offset += 1,
        }
        let is_numbered = offset.is_some() || !room.options().history.is_on();
        Fit::Applied(self.give_out(room, state, draft, &targets, is_numbered, (stamped.at.min(now), now)))
    }

    /// Ends a room whose members cannot be told all it said. Who is in it is told to come back.
    fn end_lost(&self, room: &Arc<Room>, mut state: MutexGuard<'_, State>, lost: &impl Fn(RoomId) -> O) {
        if state.life == Life::Reaped {
            return;
        }
        room.end(&mut state, &self.keeping);
        let targets = audience(&state);
        for &shard in &targets {
            self.shards[shard].push_quietly(Item::Order(lost(room.id())));
        }
        drop(state);
        self.forget(room);
        self.wake(&targets);
    }

    /// The epoch of rooms with a history, where a log is followed.
    fn shared_epoch(&self) -> Option<u64> {
        if !self.is_shared.load(Ordering::Acquire) {
            return None;
        }
        self.shared.lock().as_ref().map(|log| log.epoch)
    }

    /// Where a room with a history begins that is made now: its epoch, and how far the log has counted. The directory's stripe is locked.
    pub(super) fn begins_at(&self, name: &RoomName) -> Option<Position> {
        if !self.is_shared.load(Ordering::Acquire) {
            return None;
        }
        let mut log = self.shared.lock();
        let log = log.as_mut()?;
        let offset = if log.is_reading { None } else { log.offsets.remove(name) };
        Some(Position { epoch: log.epoch, offset: offset.unwrap_or(0) })
    }

    /// A room is not here any more: remembers how far it has counted. The directory's stripe is locked.
    pub(super) fn remember(&self, room: &Room) {
        if !self.is_shared.load(Ordering::Acquire) || !room.options().history.is_on() {
            return;
        }
        let offset = room.lock().offset;
        self.note_counted(room, offset);
    }

    /// How far the log has counted a room that is not here.
    fn note_offset(&self, name: &RoomName, offset: Option<u64>) {
        if let (Some(log), Some(offset)) = (&mut *self.shared.lock(), offset) {
            log.offsets.insert(name.clone(), offset);
        }
    }

    fn note_counted(&self, room: &Room, offset: u64) {
        let mut log = self.shared.lock();
        let Some(log) = log.as_mut().filter(|log| log.epoch == room.epoch()) else { return };
        // While the past is read, what is known of a room is later than what the room has seen.
        let known = log.offsets.entry(room.name().clone()).or_default();
        *known = offset.max(*known);
    }

    fn counted(&self, room: &Room) -> u64 {
        let mut log = self.shared.lock();
        let log = log.as_mut().filter(|log| log.epoch == room.epoch());
        log.and_then(|log| log.offsets.remove(room.name())).unwrap_or(0)
    }

    /// Whether somebody may be that far: it was on another node, which is ahead of this one.
    pub(super) fn is_ahead(&self, room: &Room, since: Position, offset: u64) -> bool {
        since.epoch == room.epoch()
            && since.offset > offset
            && since.offset - offset <= AHEAD_MAX
            && room.options().history.is_on()
            && self.is_shared.load(Ordering::Acquire)
    }
}

/// How an entry fits its room.
enum Fit {
    Applied(Receipted),
    Busy(Draft),
    /// The room has ended.
    Lost(Draft),
}

#[cfg(all(test, not(loom)))]
mod tests;
