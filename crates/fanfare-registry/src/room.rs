//! One room: its life, its order and its occupancy, under one short lock.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::RoomId;
use fanfare_protocol::pusher::member_bytes;
use fanfare_protocol::{Position, Rate, RoomName, UserName};
use smallvec::SmallVec;

use crate::history::{History, HistoryLimits};
use crate::keeping::{Keeping, Places};
use crate::sync::{Mutex, MutexGuard};

/// What a room does besides passing messages on. Fixed for one life of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoomOptions {
    /// Users are counted and can be asked for.
    pub presence: bool,
    /// Members are told who comes and goes.
    pub join_leave: bool,
    /// Members are told offsets.
    pub offsets: bool,
    /// What it keeps of what was said.
    pub history: HistoryLimits,
    /// Who comes in is told the last that was said, if it is kept.
    pub last_value: bool,
    /// How much it takes on. Not fixed: whoever enters or speaks brings the bounds that hold by then.
    pub bounds: RoomBounds,
}

/// How much a room takes on. The default is as much as comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoomBounds {
    /// Subscribers at the same time; 0: no bound.
    pub subscribers_max: u32,
    /// Publications; none: no bound.
    pub rate: Option<Rate>,
}

/// A named place to publish and subscribe.
pub struct Room {
    id: RoomId,
    name: RoomName,
    epoch: u64,
    options: RoomOptions,
    created: Duration,
    state: Mutex<State>,
}

/// Where a room is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Occupied,
    Vacant,
    /// Out of the directory, or about to be in the same step. Nobody enters any more.
    Reaped,
}

/// What the room's lock protects.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) life: Life,
    /// Number of the last event of any kind: the room's one order.
    pub(crate) seq: u64,
    /// Number of the last publication.
    pub(crate) offset: u64,
    /// When its rate would let a whole burst through again, nanoseconds on the registry's clock.
    pub(crate) full_at: u64,
    /// Subscribers on each shard.
    pub(crate) audience: SmallVec<[u32; 4]>,
    /// Subscribers on all shards.
    pub(crate) occupancy: u64,
    /// Users by name, where they are counted.
    pub(crate) members: BTreeMap<UserName, Member>,
    /// Number of the last absence of any of them.
    absences: u64,
    /// In the registry's list of rooms to look at.
    pub(crate) is_listed_vacant: bool,
    /// What was said and is still known.
    pub(crate) history: History,
    /// Where it is listed because of its history. Changed by [`Keeping`] alone.
    pub(crate) places: Places,
}

/// A user in a room.
#[derive(Debug)]
pub(crate) struct Member {
    /// His subscribers. None while he is away and may be back in a moment.
    subscribers: u32,
    /// Number of his last absence.
    absence: u64,
    /// What an application says of him. In a box: most rooms have no such members.
    info: Option<Box<Arc<str>>>,
}

/// How somebody left a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// As nobody that is counted.
    Uncounted,
    /// His user has other subscribers here.
    OneOfSeveral,
    /// His user is not here any more.
    Last,
    /// His user's last connection ended; he may be back before this absence is looked at.
    Away(u64),
}

/// Who is in a room: a page of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Subscribers, of all users and of none.
    pub count: u64,
    /// Users in the order of their names, where presence is on.
    pub members: Vec<UserName>,
    /// More follow.
    pub has_more: bool,
}

/// What is told about a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomInfo {
    /// Its name.
    pub name: RoomName,
    /// Subscribers.
    pub occupancy: u64,
    /// Where its stream stands.
    pub position: Position,
    /// When it began, on the registry's clock.
    pub created: Duration,
}

impl Room {
    pub(crate) fn new(
        id: RoomId,
        name: RoomName,
        epoch: u64,
        options: RoomOptions,
        shards: usize,
        created: Duration,
    ) -> Self {
        let state = State {
            life: Life::Vacant,
            seq: 0,
            offset: 0,
            full_at: 0,
            audience: SmallVec::from_elem(0, shards),
            occupancy: 0,
            members: BTreeMap::new(),
            absences: 0,
            is_listed_vacant: false,
            history: History::default(),
            places: Places::default(),
        };
        Self { id, name, epoch, options, created, state: Mutex::new(state) }
    }

    /// This life of the room.
    #[must_use]
    pub fn id(&self) -> RoomId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &RoomName {
        &self.name
    }

    /// The tag of this life.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What it does besides passing messages on.
    #[must_use]
    pub fn options(&self) -> RoomOptions {
        self.options
    }

    /// What is told about it.
    #[must_use]
    pub fn info(&self) -> RoomInfo {
        let state = self.state.lock();
        RoomInfo {
            name: self.name.clone(),
            occupancy: state.occupancy,
            position: self.position(&state),
            created: self.created,
        }
    }

    /// Subscribers, and up to `limit` of the users whose names come after `after`. The lock is held for as many as are told.
    #[must_use]
    pub fn presence(&self, after: &str, limit: usize) -> Presence {
        let state = self.state.lock();
        let count = state.occupancy;
        if !self.options.presence {
            return Presence { count, members: Vec::new(), has_more: false };
        }
        // Names are not empty: after none of them comes the first.
        let mut behind = state.members.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        let members = behind.by_ref().take(limit).map(|(name, _)| name.clone()).collect();
        Presence { count, members, has_more: behind.next().is_some() }
    }

    /// Users in it, where they are counted.
    #[must_use]
    pub fn users(&self) -> Vec<UserName> {
        self.state.lock().members.keys().cloned().collect()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn position(&self, state: &State) -> Position {
        Position { epoch: self.epoch, offset: state.offset }
    }

    /// Becomes reaped if it is vacant and knows nothing any more. Asked by the reaper alone, with the directory's stripe locked.
    pub(crate) fn try_reap(self: &Arc<Self>, keeping: &Keeping) -> bool {
        let mut state = self.state.lock();
        state.is_listed_vacant = false;
        let is_over = state.life == Life::Vacant && state.history.is_empty();
        if is_over {
            self.end(&mut state, keeping);
        }
        is_over
    }

    /// Becomes reaped if it is vacant, whatever it knows: another needs its place. With the directory's stripe locked.
    pub(crate) fn try_evict(self: &Arc<Self>, keeping: &Keeping) -> bool {
        let mut state = self.state.lock();
        let is_over = state.life == Life::Vacant;
        if is_over {
            self.end(&mut state, keeping);
        }
        is_over
    }

    /// Nobody enters any more, and what it knew is let go.
    pub(crate) fn end(self: &Arc<Self>, state: &mut State, keeping: &Keeping) {
        state.life = Life::Reaped;
        state.history.clear(&keeping.budget);
        keeping.settle(self, state);
    }

    /// Lets go of what has been kept long enough. `true` when nothing is left to live on for. For rooms that [`Keeping`] gave out.
    pub(crate) fn age(self: &Arc<Self>, now: Duration, keeping: &Keeping) -> bool {
        let mut state = self.state.lock();
        state.history.expire(now, &self.options.history, &keeping.budget);
        keeping.looked_at(self, &mut state);
        state.life == Life::Vacant && state.history.is_empty()
    }
}

impl State {
    /// Counts one subscriber in. The room must not be reaped.
    pub(crate) fn enter(&mut self, shard: usize, user: Option<&UserName>, counts_users: bool) {
        debug_assert_ne!(self.life, Life::Reaped, "nobody enters a reaped room");
        self.life = Life::Occupied;
        self.audience[shard] += 1;
        self.occupancy += 1;
        let Some(user) = user.filter(|_| counts_users) else { return };
        let member = self.members.entry(user.clone()).or_insert(Member { subscribers: 0, absence: 0, info: None });
        member.subscribers += 1;
    }

    /// Notes what an application says of a user who has entered, unless it has been said before: one user is one member.
    pub(crate) fn describe(&mut self, user: &UserName, info: &Arc<str>) {
        if let Some(member) = self.members.get_mut(user) {
            member.info.get_or_insert_with(|| Box::new(info.clone()));
        }
    }

    /// Bytes that a list of all members takes, with what an application says of each.
    pub(crate) fn list_bytes(&self) -> usize {
        let told =
            |(user, member): (&UserName, &Member)| member_bytes(user, member.info.as_deref().map(|info| &**info));
        self.members.iter().map(told).sum()
    }

    /// Users, each with what an application says of him.
    pub(crate) fn described(&self) -> Vec<(UserName, Option<Arc<str>>)> {
        self.members.iter().map(|(user, member)| (user.clone(), member.info.as_deref().cloned())).collect()
    }

    /// Counts one subscriber out. `may_return`: a user whose last it was stays a member until [`Self::miss`].
    pub(crate) fn exit(&mut self, shard: usize, user: Option<&UserName>, may_return: bool) -> Exit {
        assert!(self.audience[shard] > 0, "a subscriber leaves a shard it was never counted in");
        self.audience[shard] -= 1;
        self.occupancy -= 1;
        if self.occupancy == 0 && self.life == Life::Occupied {
            self.life = Life::Vacant;
        }
        let Some((user, member)) = user.and_then(|user| Some((user, self.members.get_mut(user)?))) else {
            return Exit::Uncounted;
        };
        member.subscribers -= 1;
        if member.subscribers > 0 {
            return Exit::OneOfSeveral;
        }
        if may_return {
            self.absences += 1;
            member.absence = self.absences;
            return Exit::Away(member.absence);
        }
        self.members.remove(user);
        Exit::Last
    }

    /// Counts a user out who is still away. `false`: he is back, or has been.
    pub(crate) fn miss(&mut self, user: &UserName, absence: u64) -> bool {
        let is_away = self.members.get(user).is_some_and(|member| member.subscribers == 0 && member.absence == absence);
        if is_away {
            self.members.remove(user);
        }
        is_away
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}
