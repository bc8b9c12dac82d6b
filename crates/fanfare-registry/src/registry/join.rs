//! The doors in and out of a room.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_protocol::pusher::member_bytes;
use fanfare_protocol::{Position, RoomEvent, RoomName, UserName};
use smallvec::SmallVec;

use super::Registry;
use super::life::is_newly_vacant;
use super::publish::Targets;
use crate::history::Missed;
use crate::room::{Exit, Life, Room, RoomBounds, RoomOptions, State};
use crate::sync::MutexGuard;

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
    /// The room has as many members as it may have.
    #[error("this room has as many members as it may have")]
    MembersMax,
    /// A list of the room's members would be longer than what may wait for a connection.
    #[error("the list of this room's members would be longer than what may be queued for a connection")]
    ListMax,
}

/// All members of a room, each with what an application says of him.
pub type Members = Vec<(UserName, Option<Arc<str>>)>;

/// Who wants to be a member of an application's channel.
#[derive(Debug, Clone, Copy)]
pub struct NewMember<'a> {
    /// The user.
    pub user: &'a UserName,
    /// What the application says of him: JSON as text.
    pub info: &'a Arc<str>,
    /// Users in the room at the same time.
    pub members_max: usize,
    /// What a list of all of them may come to, bytes.
    pub list_bytes_max: usize,
}

/// Who enters a room.
#[derive(Clone, Copy)]
struct Newcomer<'a> {
    user: Option<&'a UserName>,
    info: Option<&'a Arc<str>>,
    members_max: usize,
    list_bytes_max: usize,
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

impl<O> Registry<O> {
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
        let newcomer = Newcomer { user, info: None, members_max: usize::MAX, list_bytes_max: usize::MAX };
        self.enter(name, options, shard, newcomer, since, now).map(|(joined, _)| joined)
    }

    /// The same for a member of an application's channel, of whom it says `info`. All members come with the place, this one among them:
    /// who comes or goes afterwards is told in the room's order, so that applying it to them always gives the truth.
    ///
    /// # Errors
    /// [`JoinError`]; a user who is a member already is not one too many.
    pub fn join_as_member(
        &self,
        name: &RoomName,
        options: RoomOptions,
        shard: usize,
        member: NewMember<'_>,
        now: Duration,
    ) -> Result<(Joined, Members), JoinError> {
        let NewMember { user, info, members_max, list_bytes_max } = member;
        let newcomer = Newcomer { user: Some(user), info: Some(info), members_max, list_bytes_max };
        self.enter(name, options, shard, newcomer, None, now)
    }

    fn enter(
        &self,
        name: &RoomName,
        options: RoomOptions,
        shard: usize,
        newcomer: Newcomer<'_>,
        since: Option<Position>,
        now: Duration,
    ) -> Result<(Joined, Members), JoinError> {
        let Newcomer { user, info, members_max, list_bytes_max } = newcomer;
        self.in_room(name, options, now, |room, mut state| {
            let RoomBounds { subscribers_max, .. } = options.bounds;
            let is_full = subscribers_max > 0 && state.occupancy >= subscribers_max.into();
            if is_full && !self.lets_pass(&self.stats.beyond_subscribers) {
                return Err(JoinError::SubscribersMax);
            }
            let is_one_more = user.is_some_and(|user| !state.members.contains_key(user));
            if is_one_more && state.members.len() >= members_max {
                return Err(JoinError::MembersMax);
            }
            // Who comes is told all of them in one message.
            if let (Some(user), Some(info)) = (user, info) {
                let more = if is_one_more { member_bytes(user, Some(&**info)) } else { 0 };
                if state.list_bytes() + more > list_bytes_max {
                    return Err(JoinError::ListMax);
                }
            }
            let is_new_user = user.is_some_and(|user| room.options().join_leave && !state.members.contains_key(user));
            let mut woken = SmallVec::new();
            if is_new_user {
                let event = match (user, info) {
                    (Some(user), Some(info)) => {
                        RoomEvent::MemberJoined(room.name().clone(), user.clone(), info.clone())
                    }
                    _ => RoomEvent::Joined(room.name().clone(), user.cloned()),
                };
                woken = self.say(room, &mut state, event);
            }
            let options = room.options();
            state.enter(shard, user, options.presence || options.join_leave);
            let members = match (user, info) {
                (Some(user), Some(info)) => {
                    state.describe(user, info);
                    state.described()
                }
                _ => Members::new(),
            };
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
            Ok((joined, members))
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
}
