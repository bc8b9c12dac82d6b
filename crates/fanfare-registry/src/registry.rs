//! The registry: the doors through which connections and the API reach rooms.

mod hidden;
mod recovery;
mod shared;

pub use shared::Stamped;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fanfare_fanout::{Delivery, Intake, LaneId, Overloaded, Receipt, RoomId};
use fanfare_protocol::{Payload, Position, Published, RoomEvent, RoomName, UserName};
use smallvec::SmallVec;

use crate::bounds::Beyond;
use crate::directory::Directory;
use crate::history::{Missed, Portion};
use crate::item::{Item, Said};
use crate::keeping::Keeping;
use crate::room::{Exit, Life, Room, RoomBounds, RoomInfo, RoomOptions, State};
use crate::sync::{Mutex, MutexGuard};

/// Rooms that wait for a sweep at most; the next one brings the sweep forward.
const VACATED_MAX: usize = 65_536;

/// Bounds of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistryLimits {
    /// Rooms at the same time. Beyond, the vacant room with a history that nobody has used for longest makes place; where there is
    /// none, joining and publishing to a new room are refused.
    pub rooms_max: usize,
    /// What is beyond `rooms_max`, or beyond what a room takes on, is let pass all the same, and counted; rooms when no other can make place.
    pub observes: bool,
    /// Bytes of all histories together. Beyond, vacant rooms make place in the same way, then a room's own oldest messages.
    pub history_bytes_max: usize,
    /// How much of what somebody missed is read in one go.
    pub replay: Portion,
}

impl Default for RegistryLimits {
    fn default() -> Self {
        let replay = Portion { messages_max: 256, bytes_max: 64 * 1024 };
        Self { rooms_max: 1_000_000, observes: false, history_bytes_max: usize::MAX, replay }
    }
}

/// Totals, readable from any thread.
#[derive(Debug, Default)]
pub struct RegistryStats {
    /// Rooms now.
    pub rooms: AtomicUsize,
    /// Subscriptions now.
    pub subscriptions: AtomicUsize,
    /// Publications accepted.
    pub published: AtomicU64,
    /// Publications refused because a shard was over its bound.
    pub overloaded: AtomicU64,
    /// Rooms reaped.
    pub reaped: AtomicU64,
    /// Of these, rooms that had a history and made place for others.
    pub evicted: AtomicU64,
    /// Publications that were not kept, or not for as long as their room would have, because of the bound on all histories.
    pub cut: AtomicU64,
    /// Rooms that were one too many.
    pub beyond_rooms: Beyond,
    /// Subscribers that were one too many for their room.
    pub beyond_subscribers: Beyond,
    /// Publications that came too fast for their room.
    pub beyond_rate: Beyond,
    /// Members that came back and were given all they had missed.
    pub recovered: AtomicU64,
    /// Members that came back and had missed what was not kept any more.
    pub unrecovered: AtomicU64,
    /// Publications of a shared log that were delivered and not kept, because whoever posted them keeps nothing in their rooms.
    pub unnumbered: AtomicU64,
}

/// A user whose last connection in a room ended: he has left once [`Registry::miss`] finds him still away.
#[derive(Debug)]
#[must_use = "somebody has to look whether he came back"]
pub struct Absence {
    room: Arc<Room>,
    user: UserName,
    /// Which of the room's absences it is: he may have been back and away again.
    number: u64,
}

/// A place in a room.
#[derive(Debug)]
pub struct Joined {
    /// The room; whoever joined must leave through [`Registry::leave`].
    pub room: Arc<Room>,
    /// Number of the room's last event before the place was taken: the member gets what comes after.
    pub seq: u64,
    /// Where the stream stood then.
    pub position: Position,
    /// Nothing was missed, or all of it is in `missed` and what follows that.
    pub recovered: bool,
    /// The first of what was missed. While its `seq` is none, [`Registry::missed`] has more, and live events must wait.
    pub missed: Missed,
}

/// Why a place in a room was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The node has as many rooms as it may have.
    #[error("this node has as many rooms as it may have")]
    RoomsMax,
    /// The room has as many subscribers as it may have.
    #[error("this room has as many subscribers as it may have")]
    SubscribersMax,
}

/// A publication that has not been accepted yet.
#[derive(Debug)]
pub struct Draft {
    /// Who says it.
    pub user: Option<UserName>,
    /// What is said.
    pub payload: Payload,
    /// The connection to leave out: its shard and its lane.
    pub except: Option<(usize, LaneId)>,
    /// Where to report what became of it, if anybody asks.
    pub receipt: Option<Arc<Receipt>>,
}

/// A publication that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it carries the truth about a publication"]
pub struct Receipted {
    /// Where it stands in its room's stream.
    pub position: Position,
    /// A shard it went to is under pressure: slow the publisher by not reading its socket.
    pub is_pressed: bool,
}

/// Why a publication was refused. Nothing of it was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The node has as many rooms as it may have.
    #[error("this node has as many rooms as it may have")]
    RoomsMax,
    /// A shard with members of the room is over its bound.
    #[error("this node cannot take more publications now; try again")]
    Overloaded,
    /// The room is told more than it may be in this time.
    #[error("this room takes no more messages in this second; try again later")]
    TooFast,
}

/// The rooms of this node. Shared by all shards and the API.
pub struct Registry<O> {
    rooms: Directory,
    shards: Box<[Arc<Intake<Item<O>>>]>,
    limits: RegistryLimits,
    /// Those of the limits that may change.
    rooms_max: AtomicUsize,
    observes: AtomicBool,
    stats: RegistryStats,
    ids: AtomicU64,
    epoch_seed: u64,
    /// Rooms that became vacant since the last sweep, each once.
    vacated: Mutex<Vec<Arc<Room>>>,
    /// Rooms with a history.
    keeping: Keeping,
    /// Whether there is something in `shared`; it is there for good then.
    is_shared: AtomicBool,
    /// The log whose order the rooms follow, if it is not made here. A leaf among the locks.
    shared: Mutex<Option<shared::Shared>>,
}

impl<O> Registry<O> {
    /// An empty registry over these shards. `epoch_seed` is the dice: epochs of two runs must not be alike.
    pub fn new(shards: Vec<Arc<Intake<Item<O>>>>, limits: RegistryLimits, epoch_seed: u64) -> Self {
        Self {
            rooms: Directory::default(),
            shards: shards.into(),
            limits,
            rooms_max: AtomicUsize::new(limits.rooms_max),
            observes: AtomicBool::new(limits.observes),
            stats: RegistryStats::default(),
            ids: AtomicU64::new(1),
            epoch_seed,
            vacated: Mutex::new(Vec::new()),
            keeping: Keeping::new(limits.history_bytes_max),
            is_shared: AtomicBool::new(false),
            shared: Mutex::new(None),
        }
    }

    /// Another bound on rooms from here on, and whether it and what rooms take on are only observed. Rooms beyond it stay.
    pub fn set_rooms_max(&self, rooms_max: usize, observes: bool) {
        self.rooms_max.store(rooms_max, Ordering::Relaxed);
        self.observes.store(observes, Ordering::Relaxed);
    }

    /// Bytes of all histories together, and how many there may be.
    #[must_use]
    pub fn history_bytes(&self) -> (usize, usize) {
        (self.keeping.budget.used(), self.keeping.budget.bytes_max())
    }

    /// Totals.
    #[must_use]
    pub fn stats(&self) -> &RegistryStats {
        &self.stats
    }

    /// The intakes, by shard.
    #[must_use]
    pub fn shards(&self) -> &[Arc<Intake<Item<O>>>] {
        &self.shards
    }

    /// The room of this name, if it exists.
    #[must_use]
    pub fn get(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.rooms.get(name)
    }

    /// Up to `limit` rooms whose names begin with `prefix` and come after `after`, in the order of their names.
    #[must_use]
    pub fn list(&self, prefix: &str, after: &str, limit: usize) -> Vec<RoomInfo> {
        let mut names = std::collections::BTreeMap::new();
        self.rooms.for_each(|room| {
            let name = room.name().as_str();
            if name.starts_with(prefix) && name > after {
                names.insert(room.name().clone(), room.clone());
                if names.len() > limit {
                    names.pop_last();
                }
            }
        });
        names.into_values().map(|room| room.info()).collect()
    }

    /// Rooms with somebody in them that `wanted` picks by name.
    #[must_use]
    pub fn occupied(&self, wanted: impl Fn(&RoomName) -> bool) -> Vec<RoomName> {
        let mut rooms = Vec::new();
        self.rooms.for_each(|room| {
            if wanted(room.name()) {
                rooms.push(room.clone());
            }
        });
        rooms.into_iter().filter(|room| room.lock().occupancy > 0).map(|room| room.name().clone()).collect()
    }

    /// Takes a place in a room for a connection of `shard`, making the room if there is none.
    ///
    /// # Errors
    /// [`JoinError`] when the room, or its subscriber, would be one too many.
    pub fn join(
        &self,
        name: &RoomName,
        options: RoomOptions,
        shard: usize,
        user: Option<&UserName>,
        now: Duration,
    ) -> Result<Joined, JoinError> {
        self.rejoin(name, options, shard, user, None, now)
    }

    /// The same for somebody who was here before: what was said `since` then comes with the place, and between both nothing can be
    /// said.
    ///
    /// # Errors
    /// [`JoinError`] when the room, or its subscriber, would be one too many.
    pub fn rejoin(
        &self,
        name: &RoomName,
        options: RoomOptions,
        shard: usize,
        user: Option<&UserName>,
        since: Option<Position>,
        now: Duration,
    ) -> Result<Joined, JoinError> {
        self.in_room(name, options, now, |room, mut state| {
            let RoomBounds { subscribers_max, .. } = options.bounds;
            let is_full = subscribers_max > 0 && state.occupancy >= subscribers_max.into();
            if is_full && !self.lets_pass(&self.stats.beyond_subscribers) {
                return Err(JoinError::SubscribersMax);
            }
            let is_new_user = user.is_some_and(|user| room.options().join_leave && !state.members.contains_key(user));
            let mut woken = SmallVec::new();
            if is_new_user {
                let event = RoomEvent::Joined(room.name().clone(), user.cloned());
                woken = self.say(room, &mut state, event);
            }
            let options = room.options();
            state.enter(shard, user, options.presence || options.join_leave);
            state.history.expire(now, &options.history, &self.keeping.budget);
            self.keeping.settle(room, &mut state);
            let (recovered, missed) = self.recover(room, &state, since);
            // Who was on a node that is ahead of this one stands where it was.
            let position = Position { offset: missed.offset.max(state.offset), ..room.position(&state) };
            let joined = Joined { seq: state.seq, position, room: room.clone(), recovered, missed };
            drop(state);
            self.wake(&woken);
            self.stats.subscriptions.fetch_add(1, Ordering::Relaxed);
            // An epoch of zero is no room's: it asks where the stream stands, and nothing was missed.
            if since.is_some_and(|since| since.epoch != 0) {
                let counter = if recovered { &self.stats.recovered } else { &self.stats.unrecovered };
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Ok(joined)
        })
        .ok_or(JoinError::RoomsMax)?
    }

    /// Gives a place in a room back. `says_so`: the others are told even where `join_leave` is off. A user who has other places there
    /// has not left.
    pub fn leave(&self, room: &Arc<Room>, shard: usize, user: Option<&UserName>, says_so: bool) {
        let mut state = room.lock();
        let is_told = match state.exit(shard, user, false) {
            Exit::Uncounted => says_so,
            Exit::Last => says_so || room.options().join_leave,
            Exit::OneOfSeveral | Exit::Away(_) => false,
        };
        let mut woken = SmallVec::new();
        if is_told {
            let event = RoomEvent::Left(room.name().clone(), user.cloned());
            woken = self.say(room, &mut state, event);
        }
        self.after_exit(room, state, &woken);
    }

    /// Gives back the place of a connection that has ended. Its user may be back in a moment: where he was the last of his, the
    /// others are told only after somebody has waited and has called [`Self::miss`].
    pub fn lose(&self, room: &Arc<Room>, shard: usize, user: &UserName) -> Option<Absence> {
        let mut state = room.lock();
        let exit = state.exit(shard, Some(user), true);
        self.after_exit(room, state, &SmallVec::new());
        match exit {
            Exit::Away(number) => Some(Absence { room: room.clone(), user: user.clone(), number }),
            Exit::Uncounted | Exit::OneOfSeveral | Exit::Last => None,
        }
    }

    /// Somebody has been away for long enough: unless he is back, or has been, he has left.
    pub fn miss(&self, absence: Absence) {
        let Absence { room, user, number } = absence;
        let mut state = room.lock();
        // Who was in a room that has ended is in none any more.
        if state.life == Life::Reaped || !state.miss(&user, number) || !room.options().join_leave {
            return;
        }
        let woken = self.say(&room, &mut state, RoomEvent::Left(room.name().clone(), Some(user)));
        drop(state);
        self.wake(&woken);
    }

    fn after_exit(&self, room: &Arc<Room>, mut state: MutexGuard<'_, State>, woken: &Targets) {
        self.keeping.settle(room, &mut state);
        let is_vacated = is_newly_vacant(&mut state);
        drop(state);
        self.wake(woken);
        self.stats.subscriptions.fetch_sub(1, Ordering::Relaxed);
        if is_vacated {
            self.list_vacated(room);
        }
    }

    /// Publishes to a room by name, making it if there is none, so that every receipt has a position.
    ///
    /// # Errors
    /// [`PublishError`]; then nothing was delivered to anybody.
    pub fn publish(
        &self,
        name: &RoomName,
        options: RoomOptions,
        draft: Draft,
        now: Duration,
    ) -> Result<Receipted, PublishError> {
        if options.history.is_on() {
            self.make_place(name, draft.payload.len());
        }
        let rate = options.bounds.rate;
        self.in_room(name, options, now, |room, state| {
            // A room that was made for this has its whole burst: none is left behind by a refusal.
            let full_at = rate.map_or(Some(0), |rate| rate.take(state.full_at, now, 1));
            if full_at.is_none() && !self.lets_pass(&self.stats.beyond_rate) {
                return Err(PublishError::TooFast);
            }
            self.publish_locked(room, state, draft, full_at, now)
        })
        .ok_or(PublishError::RoomsMax)?
    }

    fn publish_locked(
        &self,
        room: &Arc<Room>,
        mut state: MutexGuard<'_, State>,
        draft: Draft,
        full_at: Option<u64>,
        now: Duration,
    ) -> Result<Receipted, PublishError> {
        let targets = audience(&state);
        if self.reserve(&targets, draft.payload.len()).is_err() {
            self.stats.overloaded.fetch_add(1, Ordering::Relaxed);
            return Err(PublishError::Overloaded);
        }
        state.offset += 1;
        state.full_at = full_at.unwrap_or(state.full_at);
        let receipt = draft.receipt.clone();
        let receipted = self.give_out(room, state, draft, &targets, true, (now, now));
        self.stats.published.fetch_add(1, Ordering::Relaxed);
        if let Some(receipt) = receipt {
            receipt.report(Delivery::default());
        }
        Ok(receipted)
    }

    /// Reserves room for a publication in every intake it goes to, or in none.
    #[inline]
    fn reserve(&self, targets: &Targets, bytes: usize) -> Result<(), Overloaded> {
        for (reserved, &shard) in targets.iter().enumerate() {
            if let Err(overloaded) = self.shards[shard].reserve(bytes) {
                targets[..reserved].iter().for_each(|&shard| self.shards[shard].release(1, bytes));
                return Err(overloaded);
            }
        }
        Ok(())
    }

    /// Gives a publication that has its number and its reservations to the room's audience. One without a number of its own is not kept;
    /// `kept_at` is the time it is kept under.
    #[inline]
    fn give_out(
        &self,
        room: &Arc<Room>,
        mut state: MutexGuard<'_, State>,
        draft: Draft,
        targets: &Targets,
        is_numbered: bool,
        (kept_at, now): (Duration, Duration),
    ) -> Receipted {
        let Draft { user, payload, except, receipt } = draft;
        let position = room.position(&state);
        let offset = (room.options().offsets && is_numbered).then_some(state.offset);
        let published = Published { position, offset, user, payload };
        if room.options().history.is_on() && is_numbered {
            self.keep(room, &mut state, &published, except, kept_at);
        }
        let event = RoomEvent::Message(room.name().clone(), published);
        let said = Said::new(event, Some(now)).numbered(state.offset);
        self.push(room.id(), &mut state, targets, said, except, receipt.as_ref());
        // A room made by publishing is vacant from the start: the next sweep must look at it.
        let is_vacated = is_newly_vacant(&mut state);
        drop(state);
        self.wake(targets);
        if is_vacated {
            self.list_vacated(room);
        }
        Receipted { position, is_pressed: targets.iter().any(|&shard| self.shards[shard].is_pressed()) }
    }

    /// Does something with a room while it is locked and alive; one that is not there is made. `None`: it would be one too many.
    fn in_room<R>(
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

    /// Sends a shard an order that has its place in the room's order: `order` is told where the stream stands there, and the number of
    /// the last event before it.
    pub fn mark(&self, room: &Room, shard: usize, order: impl FnOnce(Position, u64) -> O) {
        let state = room.lock();
        self.shards[shard].push_quietly(Item::Order(order(room.position(&state), state.seq)));
        drop(state);
        self.shards[shard].wake();
    }

    /// Has the next sweep look at a room. A list that has grown long is swept at once, so that it is bounded between sweeps too.
    fn list_vacated(&self, room: &Arc<Room>) {
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

    fn count_reaped(&self, reaped: usize) {
        self.stats.reaped.fetch_add(reaped as u64, Ordering::Relaxed);
        // A burst of rooms should not leave its table behind.
        if reaped > 1_000 && reaped > self.stats.rooms.load(Ordering::Relaxed) {
            self.rooms.shrink();
        }
    }

    /// The room of this name, made if there is none. `None` at the bound on rooms, when no other can make place.
    fn room(&self, name: &RoomName, options: RoomOptions, now: Duration) -> Option<Arc<Room>> {
        loop {
            let room = self.try_room(name, options, now, self.rooms_max.load(Ordering::Relaxed));
            if room.is_some() {
                return room;
            }
            if !self.evict_idle(name) {
                let rooms_max = if self.lets_pass(&self.stats.beyond_rooms) { usize::MAX } else { return None };
                return self.try_room(name, options, now, rooms_max);
            }
        }
    }

    /// Counts what is beyond a bound. Says whether it is let pass.
    #[cold]
    fn lets_pass(&self, beyond: &Beyond) -> bool {
        beyond.count(self.observes.load(Ordering::Relaxed))
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

    /// Takes a reaped room out of the directory, if it is still in.
    fn forget(&self, room: &Arc<Room>) {
        self.remove(room, |_| true);
    }

    /// Removes a room that is still the one of its name, if `ends` agrees. It is uncounted in the same step, so that nobody is
    /// refused a room while there is a place for it.
    fn remove(&self, room: &Arc<Room>, ends: impl FnOnce(&Room) -> bool) -> bool {
        self.rooms.remove_if(room, |room| {
            let is_over = ends(room);
            if is_over {
                self.remember(room);
            }
            self.stats.rooms.fetch_sub(usize::from(is_over), Ordering::Relaxed);
            is_over
        })
    }

    /// Says something that cannot be refused. Returns the shards to wake once the room is unlocked.
    fn say(&self, room: &Arc<Room>, state: &mut State, event: RoomEvent) -> Targets {
        let targets = audience(state);
        targets.iter().for_each(|&shard| self.shards[shard].reserve_always(0));
        self.push(room.id(), state, &targets, Said::new(event, None), None, None);
        targets
    }

    /// Gives an event its number and each shard a reference to it. The room is locked, so every shard sees one order.
    fn push(
        &self,
        room: RoomId,
        state: &mut State,
        targets: &Targets,
        event: Said,
        except: Option<(usize, LaneId)>,
        receipt: Option<&Arc<Receipt>>,
    ) {
        state.seq += 1;
        let event = Arc::new(event);
        for &shard in targets {
            if let Some(receipt) = receipt {
                receipt.expect();
            }
            self.shards[shard].push_quietly(Item::Event {
                room,
                seq: state.seq,
                event: event.clone(),
                except: except.filter(|(except_shard, _)| *except_shard == shard).map(|(_, lane)| lane),
                receipt: receipt.cloned(),
            });
        }
    }

    fn wake(&self, shards: &Targets) {
        shards.iter().for_each(|&shard| self.shards[shard].wake());
    }
}

/// A vacant room that has no history and is not listed yet: the next sweep must look at it. It counts as listed from here on.
fn is_newly_vacant(state: &mut State) -> bool {
    let is_over = state.life == Life::Vacant && state.history.is_empty();
    is_over && !std::mem::replace(&mut state.is_listed_vacant, true)
}

/// Shards by number.
type Targets = SmallVec<[usize; 8]>;

/// The shards that have members of the room.
fn audience(state: &State) -> Targets {
    state.audience.iter().enumerate().filter(|&(_, &members)| members > 0).map(|(shard, _)| shard).collect()
}

/// Spreads a counter over 64 bits (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<O> fmt::Debug for Registry<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("stats", &self.stats).finish_non_exhaustive()
    }
}
