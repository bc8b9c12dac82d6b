//! What the rooms must know, say and let go of, written down beside every deed of the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fanfare_fanout::{LaneId, Slow};
use fanfare_protocol::{Payload, Position, Published, ReplyId, RoomEvent, UserName, Variant};
use fanfare_registry::{HistoryLimits, Joined, KEPT_OVERHEAD_BYTES, Missed, RoomOptions};

use super::client::{Due, Owed};
use super::hear::number_in;
use super::world::{NAMES, REPLAY, ROOMS_MAX, World};

/// What the rooms do about members that do not keep up.
const SLOW: [Slow; NAMES] = [
    Slow::DropOldest,
    Slow::Evict,
    Slow::Latest,
    Slow::EvictResumable,
    Slow::Latest,
    Slow::Evict,
    Slow::Latest,
    Slow::DropOldest,
    Slow::Evict,
    Slow::EvictResumable,
    Slow::DropOldest,
    Slow::Latest,
];

/// What the rooms keep: messages, bytes, milliseconds.
const KEPT: [(u32, usize, u64); NAMES] = [
    (40, 1_000_000, 0),
    (0, 0, 0),
    (0, 0, 0),
    (1_000, 8 * (KEPT_OVERHEAD_BYTES + 60), 0),
    (0, 0, 0),
    (0, 0, 0),
    (1_000, 1_000_000, 900),
    (0, 0, 0),
    (3, 1_000_000, 0),
    (4, 1_000_000, 0),
    (0, 0, 0),
    (0, 0, 0),
];

/// Who enters this one is told the last value.
const LAST_VALUE: usize = 9;

/// One life of a room.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) name: usize,
    pub(super) epoch: Option<u64>,
    pub(super) offset: u64,
    /// Nobody is told what follows.
    pub(super) is_closed: bool,
    pub(super) members: Vec<usize>,
    /// Members that have not been told all they missed: what is said now comes to them later.
    pub(super) behind: BTreeSet<usize>,
    users: BTreeMap<String, u32>,
    /// All publications, where some are kept.
    log: Vec<Logged>,
    /// Number of the oldest that is still kept; the next one's where none is.
    first: u64,
}

#[derive(Debug)]
struct Logged {
    published: Published,
    charge: usize,
    at: Duration,
    except: Option<(usize, LaneId)>,
}

impl Life {
    fn new(name: usize) -> Self {
        Self {
            name,
            epoch: None,
            offset: 0,
            is_closed: false,
            members: Vec::new(),
            behind: BTreeSet::new(),
            users: BTreeMap::new(),
            log: Vec::new(),
            first: 1,
        }
    }

    /// It would be there for nobody, were it not for what it knows.
    pub(super) fn is_only_kept(&self) -> bool {
        self.members.is_empty() && self.first <= self.offset
    }

    /// Bytes that what it keeps is charged.
    pub(super) fn kept_bytes(&self) -> usize {
        self.log.iter().skip(self.first as usize - 1).map(|logged| logged.charge).sum()
    }

    /// Lets go of what its bounds do not let it keep.
    fn forget(&mut self, limits: &HistoryLimits, now: Duration) {
        let (mut first, mut bytes) = (self.offset + 1, 0);
        while first > self.first && self.offset + 1 - first < u64::from(limits.messages_max) {
            let Logged { charge, at, .. } = &self.log[first as usize - 2];
            bytes += charge;
            if bytes > limits.bytes_max || (!limits.age_max.is_zero() && *at + limits.age_max <= now) {
                break;
            }
            first -= 1;
        }
        self.first = first;
    }
}

/// What somebody who enters or has been behind asks a room for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    Nothing,
    LastValue,
    /// What follows this number.
    After(u64),
}

/// A publication that was accepted.
#[derive(Debug)]
pub(super) struct Publication {
    /// Whom it is for.
    pub(super) wanted_by: Vec<usize>,
    /// Its room drops messages.
    pub(super) may_be_dropped: bool,
}

/// What a room does about slow members.
pub(super) fn slow(room: usize) -> Slow {
    SLOW[room]
}

/// Whether messages of the room are dropped for a client of this variant.
fn drops(room: usize, variant: Variant) -> bool {
    SLOW[room].drops() && !matches!(variant, Variant::Text | Variant::TextJoined)
}

impl World {
    pub(super) fn options(&self, room: usize) -> RoomOptions {
        let (messages_max, bytes_max, age_ms) = KEPT[room];
        let history =
            HistoryLimits { messages_max, bytes_max, age_max: Duration::from_millis(age_ms), cached_ms_max: 0 };
        RoomOptions {
            presence: room % 4 == 1,
            join_leave: room.is_multiple_of(4),
            offsets: history.is_on() || room.is_multiple_of(2),
            history,
            last_value: room == LAST_VALUE,
            ..RoomOptions::default()
        }
    }

    /// The life of the name that the registry must use now; made if there is none. `None` at the bound on rooms, unless one that
    /// nobody is in makes place: [`Self::note_evicted`] finds out which.
    pub(super) fn life_of(&mut self, name: usize) -> Option<usize> {
        if let Some(&life) = self.directory.get(&name) {
            return Some(life);
        }
        let may_go = self.directory.values().any(|&life| self.lives[life].is_only_kept());
        if self.directory.len() >= ROOMS_MAX && !may_go {
            return None;
        }
        let life = self.lives.len();
        self.lives.push(Life::new(name));
        self.directory.insert(name, life);
        Some(life)
    }

    /// One room more than there may be has been made: one that nobody was in has gone for it, and no other.
    pub(super) fn note_evicted(&mut self) {
        if self.directory.len() <= ROOMS_MAX {
            return;
        }
        let is_gone = |(&name, &life): (&usize, &usize)| {
            let id = self.registry.get(&self.names[name]).map(|room| room.id().0);
            id.is_none_or(|id| self.by_id.get(&id).is_some_and(|&other| other != life))
        };
        let gone: Vec<usize> = self.directory.iter().filter(|&entry| is_gone(entry)).map(|(&name, _)| name).collect();
        assert_eq!(gone.len(), 1, "one makes place for one");
        let life = self.directory.remove(&gone[0]).expect("it was there");
        assert!(self.lives[life].is_only_kept(), "nobody is in a room that makes place");
        self.totals.reaped += 1;
        self.totals.rooms_evicted += 1;
    }

    /// Removes what is over: nobody is in it, and it knows nothing.
    pub(super) fn note_sweep(&mut self) -> usize {
        for &life in self.directory.values() {
            let options = self.options(self.lives[life].name);
            if options.history.is_on() {
                self.lives[life].forget(&options.history, self.now);
            }
        }
        let before = self.directory.len();
        self.directory.retain(|_, life| !self.lives[*life].members.is_empty() || self.lives[*life].is_only_kept());
        before - self.directory.len()
    }

    /// A room says something: it is due to every member but one, and to those who are behind when they get so far.
    pub(super) fn say(
        &mut self,
        life: usize,
        due: &Due,
        at: Option<Position>,
        except: Option<usize>,
        event: &RoomEvent,
    ) {
        let state = &self.lives[life];
        let name = state.name;
        if state.is_closed {
            return;
        }
        let mut bytes_by_form = BTreeMap::<u8, u64>::new();
        let mut frame = Vec::new();
        for &n in state.members.iter().filter(|&&n| except != Some(n) && !state.behind.contains(&n)) {
            let client = &mut self.clients[n];
            let form = client.form();
            let bytes = *bytes_by_form.entry(form.index()).or_insert_with(|| {
                frame.clear();
                form.encode(event, &mut self.deflater, &mut frame);
                frame.len() as u64
            });
            if bytes > 0 {
                let droppable = at.and(drops(name, client.variant).then_some(bytes));
                client.owe(name, Owed { due: due.clone(), position: at, droppable });
                client.due_bytes += bytes;
            }
        }
        self.lives[life].is_closed = matches!(event, RoomEvent::RoomClosed(_));
    }

    // ---- who is where ----

    pub(super) fn note_join(
        &mut self,
        n: usize,
        life: usize,
        user: Option<&UserName>,
        since: Option<Position>,
        joined: &Joined,
    ) {
        let name = self.lives[life].name;
        let options = self.options(name);
        if let Some(user) = user
            && options.join_leave
            && !self.lives[life].users.contains_key(user.as_str())
        {
            let event = RoomEvent::Joined(self.names[name].clone(), Some(user.clone()));
            self.say(life, &Due::Joined(Some(user.to_string())), None, None, &event);
        }
        let state = &mut self.lives[life];
        state.members.push(n);
        state.behind.insert(n);
        if let Some(user) = user.filter(|_| options.join_leave || options.presence) {
            *state.users.entry(user.to_string()).or_insert(0) += 1;
        }
        assert_eq!(joined.position.offset, state.offset);
        assert_eq!(*state.epoch.get_or_insert(joined.position.epoch), joined.position.epoch, "one life, one epoch");
        assert_eq!(*self.by_id.entry(joined.room.id().0).or_insert(life), life, "one life, one id");
        if options.history.is_on() {
            state.forget(&options.history, self.now);
        }
        let is_kept = |since: Position| {
            since.epoch == joined.position.epoch && since.offset <= state.offset && since.offset + 1 >= state.first
        };
        assert_eq!(joined.recovered, since.is_none_or(is_kept), "the truth about {since:?}");
        if since.is_some() {
            *(if joined.recovered { &mut self.totals.recovered } else { &mut self.totals.unrecovered }) += 1;
        }
        let wanted = match since {
            None if options.last_value => Wanted::LastValue,
            Some(since) if joined.recovered => Wanted::After(since.offset),
            None | Some(_) => Wanted::Nothing,
        };
        self.check_missed(life, wanted, &joined.missed);
    }

    /// A member has been told all it missed: live events follow.
    pub(super) fn note_level(&mut self, n: usize, life: usize) {
        let state = &mut self.lives[life];
        assert!(state.behind.remove(&n), "client {n} was behind");
        self.clients[n].may_miss |= drops(state.name, self.clients[n].variant);
    }

    pub(super) fn note_leave(&mut self, n: usize, life: usize, user: Option<&UserName>, says_so: bool) {
        let name = self.lives[life].name;
        let state = &mut self.lives[life];
        let place = state.members.iter().position(|&member| member == n).expect("a member");
        state.members.swap_remove(place);
        state.behind.remove(&n);
        // `None`: nobody that is counted.
        let mut was_last = None;
        if let Some(user) = user
            && let Some(connections) = state.users.get_mut(user.as_str())
        {
            *connections -= 1;
            was_last = Some(*connections == 0);
            if *connections == 0 {
                state.users.remove(user.as_str());
            }
        }
        if was_last.map_or(says_so, |was_last| was_last && (says_so || self.options(name).join_leave)) {
            let event = RoomEvent::Left(self.names[name].clone(), user.cloned());
            self.say(life, &Due::Left(user.map(ToString::to_string)), None, None, &event);
        }
    }

    // ---- what was missed ----

    /// Holds what the registry gives somebody who missed something against the log.
    pub(super) fn check_missed(&mut self, life: usize, wanted: Wanted, missed: &Missed) {
        let history = self.options(self.lives[life].name).history;
        let state = &mut self.lives[life];
        if history.is_on() && !state.is_closed {
            state.forget(&history, self.now);
        }
        let (first, last) = (state.first, state.offset);
        let (lost, from, count) = match wanted {
            Wanted::LastValue if first <= last => (None, last - 1, 1),
            Wanted::Nothing | Wanted::LastValue => (None, last, 0),
            // A room that was closed gives nothing any more; its end is on its way.
            Wanted::After(after) if state.is_closed => {
                assert_eq!((missed.lost, missed.messages.len(), missed.offset, missed.seq), (None, 0, after, None));
                return;
            }
            Wanted::After(after) => {
                let from = after.max(first - 1);
                let mut bytes = 0;
                let fits = |logged: &&Logged| {
                    let is_first = bytes == 0;
                    bytes += bytes_of(&logged.published.payload).len() + 64;
                    is_first || bytes <= REPLAY.bytes_max
                };
                let part = state.log.iter().skip(from as usize).take(REPLAY.messages_max).take_while(fits);
                ((after + 1 < first).then(|| (after + 1, first - 1)), from, part.count())
            }
        };
        assert_eq!(missed.lost, lost, "what was let go before it could be told");
        let logged = state.log.iter().skip(from as usize).take(count).map(|logged| (&logged.published, logged.except));
        let given = missed.messages.iter().map(|kept| (&kept.published, kept.except));
        assert!(given.eq(logged), "{count} from {from} of {last}, and not {missed:?}");
        assert_eq!((missed.offset, missed.seq.is_some()), (from + count as u64, from + count as u64 == last));
    }

    /// A client is about to be told what it missed.
    pub(super) fn owe_missed(&mut self, n: usize, room: usize, missed: &Missed) {
        let Some(connection) = &self.connections[n] else { return };
        let itself = (connection.shard, connection.lane);
        if let Some((from, to)) = missed.lost {
            self.clients[n].owe(room, Due::Lost { from, to });
        }
        for kept in missed.messages.iter().filter(|kept| kept.except != Some(itself)) {
            let Published { position, offset, user, payload } = &kept.published;
            let user = user.as_ref().map(ToString::to_string);
            let due = Due::Message { number: number_in(bytes_of(payload)), offset: *offset, user };
            self.clients[n].owe(room, Owed { due, position: Some(*position), droppable: None });
            self.totals.replayed += 1;
        }
    }

    // ---- what is said ----

    pub(super) fn note_publication(
        &mut self,
        n: usize,
        life: usize,
        user: Option<UserName>,
        payload: Payload,
        except: Option<(usize, LaneId)>,
        position: Position,
    ) {
        let number = number_in(bytes_of(&payload));
        let name = self.lives[life].name;
        let options = self.options(name);
        let state = &mut self.lives[life];
        state.offset += 1;
        assert_eq!(position.offset, state.offset, "dense from 1");
        assert_eq!(*state.epoch.get_or_insert(position.epoch), position.epoch, "one life, one epoch");
        let charge =
            bytes_of(&payload).len() + user.as_ref().map_or(0, |user| user.as_str().len()) + KEPT_OVERHEAD_BYTES;
        let mut published = Published { position, offset: Some(position.offset), user, payload };
        if options.history.is_on() {
            state.log.push(Logged { published: published.clone(), charge, at: self.now, except });
            state.forget(&options.history, self.now);
        } else {
            state.first = state.offset + 1;
        }
        let except = except.map(|_| n);
        let is_wanted = |member: &usize| except != Some(*member) && !state.behind.contains(member);
        let wanted_by = state.members.iter().copied().filter(is_wanted).collect();
        self.publications.push(Publication { wanted_by, may_be_dropped: SLOW[name].drops() });
        self.totals.published += 1;
        published.offset = options.offsets.then_some(position.offset);
        let user = published.user.as_ref().map(ToString::to_string);
        let due = Due::Message { number, offset: published.offset, user };
        let event = RoomEvent::Message(self.names[name].clone(), published);
        self.say(life, &due, Some(position), except, &event);
    }

    pub(super) fn note_ack(&mut self, n: usize, id: ReplyId<'_>, number: usize) {
        let id = id.0.expect("a receipt is wanted").trim_matches('"').parse().expect("ids are numbers");
        self.acks.insert((n, id), number);
    }

    pub(super) fn check_presence(&self, life: usize, count: u64, members: &[UserName]) {
        let state = &self.lives[life];
        assert_eq!(count, state.members.len() as u64);
        let listed: Vec<&str> = members.iter().map(UserName::as_str).collect();
        let expected: Vec<&str> = state.users.keys().map(String::as_str).collect();
        assert_eq!(listed, if self.options(state.name).presence { expected } else { vec![] });
    }
}

fn bytes_of(payload: &Payload) -> &[u8] {
    let (Payload::Json(bytes) | Payload::Text(bytes) | Payload::Binary(bytes)) = payload;
    bytes
}
