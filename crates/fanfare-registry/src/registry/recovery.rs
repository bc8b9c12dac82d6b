//! The registry's doors to what was said before: keeping it, giving it to who comes back, and letting go of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_fanout::LaneId;
use fanfare_protocol::pusher::is_client_event;
use fanfare_protocol::{Position, Published, RoomName};

use super::life::is_newly_vacant;
use super::{JoinError, Registry};
use crate::history::{KEPT_OVERHEAD_BYTES, Kept, Missed, Page, PageQuery};
use crate::room::{Life, Room, RoomOptions, State};

/// Rooms that make place for one publication at most.
const EVICTED_AT_ONCE_MAX: usize = 64;

/// Rooms that make place in one sweep at most, where the bound on all histories has become lower.
const EVICTED_BY_SWEEP_MAX: usize = 10_000;

impl<O> Registry<O> {
    /// What somebody gets of what was said before, and whether that is all of it.
    pub(super) fn recover(&self, room: &Room, state: &State, since: Option<Position>) -> (bool, Missed) {
        let (offset, seq) = (state.offset, state.seq);
        let nothing = Missed { lost: None, messages: Vec::new(), offset, seq: Some(seq) };
        match since {
            None if room.options().history.is_cache() => (true, state.history.cached_value(offset, seq)),
            None if room.options().last_value => (true, state.history.last_value(offset, seq)),
            None => (true, nothing),
            Some(since) if since.epoch == room.epoch() && state.history.reaches(since.offset, offset) => {
                (true, state.history.missed(since.offset, offset, seq, &self.limits.replay))
            }
            // It saw more on another node than this one has seen yet: nothing is missed, and nothing is told until this one is there.
            Some(since) if self.is_ahead(room, since, offset) => {
                (true, Missed { offset: since.offset, seq: None, ..nothing })
            }
            // What is kept is not what was asked for: who starts over reads the history instead.
            Some(_) => (false, nothing),
        }
    }

    /// More of what a member that came back has missed: what follows number `after`.
    pub fn missed(&self, room: &Room, after: u64, now: Duration) -> Missed {
        let mut state = room.lock();
        if state.life == Life::Reaped {
            // It was closed. Its end is in the intake of every shard that has members.
            return Missed { lost: None, messages: Vec::new(), offset: after, seq: None };
        }
        state.history.expire(now, &room.options().history, &self.keeping.budget);
        state.history.missed(after, state.offset, state.seq, &self.limits.replay)
    }

    /// The last event of a cache channel, while it is kept, and for how much longer.
    pub fn cached(&self, name: &RoomName, now: Duration) -> Option<(Kept, Duration)> {
        let room = self.rooms.get(name)?;
        let age_max = Duration::from_millis(room.options().history.cached_ms_max.into());
        let kept = room.lock().history.cached().cloned()?;
        let left = (kept.at + age_max).checked_sub(now).filter(|left| !left.is_zero())?;
        Some((kept, left))
    }

    /// Reads a room's history. A room that is not there is made, as it would be by who enters it: so the answer has a position from
    /// which one can enter without a gap.
    ///
    /// # Errors
    /// [`JoinError`] when the room would be one too many.
    pub fn history(
        &self,
        name: &RoomName,
        options: RoomOptions,
        query: &PageQuery,
        now: Duration,
    ) -> Result<Page, JoinError> {
        self.in_room(name, options, now, |room, mut state| {
            state.history.expire(now, &room.options().history, &self.keeping.budget);
            let page = state.history.page(query, room.position(&state));
            let is_vacated = is_newly_vacant(&mut state);
            drop(state);
            if is_vacated {
                self.list_vacated(room);
            }
            page
        })
        .ok_or(JoinError::RoomsMax)
    }

    /// Keeps a publication for those who come back, or, in a cache channel, for those who come. The room is locked.
    pub(super) fn keep(
        &self,
        room: &Arc<Room>,
        state: &mut State,
        published: &Published,
        except: Option<(usize, LaneId)>,
        now: Duration,
    ) {
        state.places.note_use();
        let (limits, budget) = (room.options().history, &self.keeping.budget);
        let mut cut = 0;
        // What clients say to each other is not the channel's last event.
        if limits.is_cache() && !is_client_event(&published.payload) {
            // Who comes in later is another connection, or may want to know all the same.
            let kept = Kept { published: published.clone(), at: now, except: None };
            cut += usize::from(!state.history.cache(kept, budget));
        }
        if limits.has_pages() {
            let published = Published { offset: Some(state.offset), ..published.clone() };
            cut += state.history.push(Kept { published, at: now, except }, &limits, budget);
        }
        if cut > 0 {
            self.stats.cut.fetch_add(cut as u64, Ordering::Relaxed);
        }
        self.keeping.settle(room, state);
    }

    /// Vacant rooms go, as long as the histories have no place for another message of this length.
    pub(super) fn make_place(&self, name: &RoomName, bytes: usize) {
        let (bytes, budget) = (bytes + KEPT_OVERHEAD_BYTES, &self.keeping.budget);
        for _ in 0..EVICTED_AT_ONCE_MAX {
            if budget.used().saturating_add(bytes) <= budget.bytes_max() || !self.evict_idle(Some(name)) {
                return;
            }
        }
    }

    /// The vacant room with a history that nobody has used for longest makes place. `false` when there is none but this one.
    pub(super) fn evict_idle(&self, unless: Option<&RoomName>) -> bool {
        for _ in 0..EVICTED_AT_ONCE_MAX {
            let Some(room) = self.keeping.longest_idle(unless) else { return false };
            // Refused when somebody entered meanwhile: then another is next.
            if self.remove(&room, |_| room.try_evict(&self.keeping)) {
                self.stats.reaped.fetch_add(1, Ordering::Relaxed);
                self.stats.evicted.fetch_add(1, Ordering::Relaxed);
                return true;
            }
        }
        false
    }

    /// Lets go of what all rooms have kept long enough, and removes those that were there for nothing else. Returns how many. Where the
    /// bound on all histories has become lower, vacant rooms make place.
    pub fn expire(&self, now: Duration) -> usize {
        let due = self.keeping.take_due(now);
        let is_over =
            |room: &&Arc<Room>| room.age(now, &self.keeping) && self.remove(room, |_| room.try_reap(&self.keeping));
        let reaped = due.iter().filter(is_over).count();
        self.count_reaped(reaped);
        let budget = &self.keeping.budget;
        for _ in 0..EVICTED_BY_SWEEP_MAX {
            if budget.used() <= budget.bytes_max() || !self.evict_idle(None) {
                break;
            }
        }
        reaped
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
