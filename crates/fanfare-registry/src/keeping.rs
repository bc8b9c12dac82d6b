//! Rooms with a history: when to look at them because of its age, and which of the vacant ones goes first when there is no room
//! left for another.
//!
//! One lock, taken under a room's and under no other; nothing is locked while it is held.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_fanout::Budget;
use fanfare_protocol::RoomName;

use crate::room::{Life, Room, State};
use crate::sync::Mutex;

/// Where rooms with a history are listed, and what all histories may cost together.
#[derive(Debug)]
pub(crate) struct Keeping {
    pub(crate) budget: Budget,
    lists: Mutex<Lists>,
    /// The number that the next vacant room is listed under.
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Lists {
    /// By the time when something of their history has been kept long enough, and by id. That time may have passed for other
    /// reasons by then; it is never later than it should be.
    aging: BTreeMap<(Duration, u64), Arc<Room>>,
    /// Vacant rooms with a history, in the order in which they became that.
    idle: BTreeMap<u64, Arc<Room>>,
}

/// A room's places in the lists, in the room's own state.
#[derive(Debug, Default)]
pub(crate) struct Places {
    aging: Option<Duration>,
    idle: Option<u64>,
    /// Somebody has published since it was listed as idle.
    is_used: bool,
}

/// Rooms that were published to after they became vacant, passed over in one look for the one that goes.
const PASSED_OVER_MAX: usize = 32;

impl Places {
    /// Somebody publishes. A room nobody is in is then not the next to go.
    pub(crate) fn note_use(&mut self) {
        self.is_used = self.idle.is_some();
    }
}

impl Keeping {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { budget: Budget::new(bytes_max), lists: Mutex::new(Lists::default()), next: AtomicU64::new(1) }
    }

    /// Makes the lists agree with a room whose life or history may have changed. The room is locked.
    pub(crate) fn settle(&self, room: &Arc<Room>, state: &mut State) {
        let limits = room.options().history;
        if !limits.is_on() {
            return;
        }
        let is_over = state.life == Life::Reaped;
        let is_kept = !is_over && !state.history.is_empty();
        let is_idle = is_kept && state.life == Life::Vacant;
        let due = state.history.due(&limits).filter(|_| is_kept && state.places.aging.is_none());
        let id = room.id().0;
        if due.is_none() && is_idle == state.places.idle.is_some() && !(is_over && state.places.aging.is_some()) {
            return;
        }
        let mut lists = self.lists.lock();
        if let Some(due) = due {
            state.places.aging = Some(due);
            lists.aging.insert((due, id), room.clone());
        }
        if is_idle && state.places.idle.is_none() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            (state.places.idle, state.places.is_used) = (Some(number), false);
            lists.idle.insert(number, room.clone());
        }
        if !is_idle && let Some(number) = state.places.idle.take() {
            lists.idle.remove(&number);
        }
        if is_over && let Some(due) = state.places.aging.take() {
            lists.aging.remove(&(due, id));
        }
    }

    /// Takes out the rooms of whose history something has been kept long enough; each must be told [`Self::looked_at`].
    pub(crate) fn take_due(&self, now: Duration) -> Vec<Arc<Room>> {
        let mut lists = self.lists.lock();
        let later = lists.aging.split_off(&(now.saturating_add(Duration::from_nanos(1)), 0));
        std::mem::replace(&mut lists.aging, later).into_values().collect()
    }

    /// A room that was taken out is listed again if something is left of its history. The room is locked.
    pub(crate) fn looked_at(&self, room: &Arc<Room>, state: &mut State) {
        state.places.aging = None;
        self.settle(room, state);
    }

    /// The vacant room that nobody has used for longest, but for the one of this name.
    pub(crate) fn longest_idle(&self, unless: Option<&RoomName>) -> Option<Arc<Room>> {
        for _ in 0..PASSED_OVER_MAX {
            let room = self.first_idle(unless)?;
            let mut state = room.lock();
            let Some(number) = state.places.idle.filter(|_| state.places.is_used) else {
                drop(state);
                return Some(room);
            };
            // It goes to the end.
            let last = self.next.fetch_add(1, Ordering::Relaxed);
            (state.places.idle, state.places.is_used) = (Some(last), false);
            let mut lists = self.lists.lock();
            lists.idle.remove(&number);
            lists.idle.insert(last, room.clone());
        }
        self.first_idle(unless)
    }

    fn first_idle(&self, unless: Option<&RoomName>) -> Option<Arc<Room>> {
        self.lists.lock().idle.values().find(|room| Some(room.name()) != unless).cloned()
    }

    /// Rooms listed by age, and vacant ones.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let lists = self.lists.lock();
        (lists.aging.len(), lists.idle.len())
    }
}
