//! The registry and several shards in virtual time: many clients that join, leave, publish, stall, are evicted and go, and a
//! check of everything each of them received against one log per life of a room.
//!
//! One run is 100,000 joins and leaves. `SIM_SEEDS=n` makes n runs with different seeds; `SIM_SEED=s` repeats one.
#![cfg(not(loom))]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IoSlice, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::{
    Budget, Delivery, Encode, FlushQuota, Intake, IntakeLimits, LaneEvent, LaneId, OutboxLimits, Outcome, Receipt,
    RoomId, Shard, ShardStats, Sink,
};
use fanfare_protocol::{Payload, RoomEvent, RoomName, UserName};
use fanfare_registry::{
    Draft, Item, JoinError, Presence, PublishError, Receipted, Registry, RegistryLimits, Room, RoomOptions, Said,
};
use parking_lot::Mutex;

const SHARDS: usize = 3;
const NAMES: usize = 150;
const ROOMS_MAX: usize = 110;
const USERS: usize = 60;
const CLIENTS_MAX: usize = 300;
const ROOMS_PER_CLIENT_MAX: usize = 12;
const JOINS_AND_LEAVES: usize = 100_000;
const SWEEP_EVERY: Duration = Duration::from_secs(10);
const INTAKE: IntakeLimits = IntakeLimits { intake_items_max: 80, intake_bytes_max: 800 };
const OUTBOX: OutboxLimits = OutboxLimits { outbox_bytes_max: 3_000, outbox_messages_max: 60 };

/// Enough dice for a test, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())])
    }
}

// ---- what is said, and where it goes ----

/// The variant that has no word for who comes and goes.
const PLAIN: u8 = 2;

/// Frames that say what they are: `[room|M|offset|text]`, `[room|J|user]`, `[room|L|user]`, `[room|C]`.
struct Spelled(Arc<Said>);

impl Encode for Spelled {
    const VARIANTS: u8 = 3;
    type Tools = ();
    type Room = ();

    fn encode(&self, variant: u8, _tools: &mut (), out: &mut Vec<u8>) {
        let user = |user: &Option<UserName>| user.as_ref().map_or(String::new(), ToString::to_string);
        match &self.0.event {
            RoomEvent::Message(room, published) => {
                let offset = published.offset.map_or(String::new(), |offset| offset.to_string());
                let (Payload::Text(text) | Payload::Json(text) | Payload::Binary(text)) = &published.payload;
                write!(out, "[{room}|M|{offset}|{}]", String::from_utf8_lossy(text))
            }
            RoomEvent::Joined(..) | RoomEvent::Left(..) if variant == PLAIN => Ok(()),
            RoomEvent::Joined(room, who) => write!(out, "[{room}|J|{}]", user(who)),
            RoomEvent::Left(room, who) => write!(out, "[{room}|L|{}]", user(who)),
            RoomEvent::RoomClosed(room) => write!(out, "[{room}|C]"),
        }
        .expect("memory takes everything");
    }

    fn payload_bytes(&self) -> usize {
        self.0.payload_bytes()
    }
}

#[derive(Debug, Default)]
struct Wire {
    /// How much more it takes; `None`: everything.
    takes: Option<usize>,
    received: Vec<u8>,
}

/// The connections of one shard.
#[derive(Debug, Default)]
struct Wires(BTreeMap<u32, Wire>);

impl Wires {
    fn at(&mut self, lane: LaneId) -> &mut Wire {
        self.0.get_mut(&lane.index).expect("an open lane has a wire")
    }
}

impl Sink for Wires {
    fn send(&mut self, lane: u32, bytes: &[u8]) -> Outcome {
        let wire = self.0.get_mut(&lane).expect("only open lanes are offered anything");
        let taken = wire.takes.map_or(bytes.len(), |left| left.min(bytes.len()));
        wire.takes = wire.takes.map(|left| left - taken);
        wire.received.extend_from_slice(&bytes[..taken]);
        Outcome::Taken(taken)
    }

    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.send(lane, &bytes)
    }
}

// ---- the model ----

/// Something a room said, in the room's order.
#[derive(Debug)]
enum Logged {
    Message { number: usize, offset: u64, except: Option<usize> },
    Joined(usize),
    Left(Option<usize>),
    Closed,
}

/// One life of a room.
#[derive(Debug)]
struct Life {
    name: usize,
    epoch: Option<u64>,
    created: Duration,
    log: Vec<Logged>,
    /// Length of the log when it was closed for all: nobody gets what follows.
    closed_at: Option<usize>,
    offset: u64,
    members: BTreeSet<usize>,
    audience: [u32; SHARDS],
    users: BTreeMap<usize, u32>,
}

/// A stay in a room: which life, and from where to where in its log.
#[derive(Debug, Clone, Copy)]
struct Stay {
    life: usize,
    from: usize,
    to: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Evicted,
    Disconnected,
}

#[derive(Debug)]
struct Client {
    shard: usize,
    lane: LaneId,
    variant: u8,
    user: Option<usize>,
    /// Life and room of each name it is in.
    rooms: BTreeMap<usize, (usize, Arc<Room>)>,
    stays: BTreeMap<usize, Vec<Stay>>,
    ended: Option<(End, u64)>,
    words: Vec<u8>,
    /// What was received, once the connection is closed.
    received: Option<Vec<u8>>,
}

/// A publication that was accepted.
#[derive(Debug)]
struct Publication {
    /// Whom it is for.
    wanted_by: Vec<usize>,
    has_receipt: bool,
}

#[derive(Debug, Default)]
struct Totals {
    joins: usize,
    leaves: usize,
    refused_rooms: usize,
    overloaded: u64,
    reaped: usize,
    closed: usize,
    evicted: usize,
    received: usize,
    lost: usize,
}

struct World {
    dice: Dice,
    registry: Registry<()>,
    shards: Vec<(Shard<Spelled>, Wires)>,
    budget: Arc<Budget>,
    stats: Arc<ShardStats>,
    names: Vec<RoomName>,
    users: Vec<UserName>,
    clients: Vec<Client>,
    /// Clients whose lanes are open.
    here: Vec<usize>,
    by_lane: BTreeMap<(usize, u32), usize>,
    lives: Vec<Life>,
    /// The life that has the name.
    directory: BTreeMap<usize, usize>,
    by_id: BTreeMap<u64, usize>,
    /// Reserved at each intake: items and bytes.
    owed: [(usize, usize); SHARDS],
    publications: Vec<Publication>,
    told: Arc<Mutex<BTreeMap<usize, (Delivery, u64)>>>,
    clock: Arc<AtomicU64>,
    now: Duration,
    next_sweep: Duration,
    totals: Totals,
}

fn options(name: usize) -> RoomOptions {
    RoomOptions {
        presence: name % 4 == 1,
        join_leave: name.is_multiple_of(4),
        offsets: name.is_multiple_of(2),
        ..RoomOptions::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let intakes = (0..SHARDS).map(|_| Arc::new(Intake::new(INTAKE, || {}))).collect();
        let budget = Arc::new(Budget::new(400_000));
        let stats = Arc::new(ShardStats::default());
        let shard = |_| (Shard::new(OUTBOX, 1_000, budget.clone(), stats.clone()), Wires::default());
        Self {
            dice: Dice(seed),
            registry: Registry::new(
                intakes,
                RegistryLimits { rooms_max: ROOMS_MAX, ..RegistryLimits::default() },
                seed,
            ),
            shards: (0..SHARDS).map(shard).collect(),
            budget,
            stats,
            names: (0..NAMES).map(|n| RoomName::parse(&format!("room:{n}")).expect("a valid name")).collect(),
            users: (0..USERS).map(|n| UserName::guest(&format!("user {n}")).expect("a valid name")).collect(),
            clients: Vec::new(),
            here: Vec::new(),
            by_lane: BTreeMap::new(),
            lives: Vec::new(),
            directory: BTreeMap::new(),
            by_id: BTreeMap::new(),
            owed: [(0, 0); SHARDS],
            publications: Vec::new(),
            told: Arc::default(),
            clock: Arc::default(),
            now: Duration::ZERO,
            next_sweep: SWEEP_EVERY,
            totals: Totals::default(),
        }
    }

    fn clock(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    // ---- clients ----

    fn connect(&mut self) {
        if self.here.len() >= CLIENTS_MAX {
            return;
        }
        let at = self.dice.below(SHARDS);
        let variant = self.dice.below(3) as u8;
        let lane = self.shards[at].0.open(variant);
        self.shards[at].1.0.insert(lane.index, Wire::default());
        let user = self.dice.percent(70).then(|| self.dice.below(USERS));
        let n = self.clients.len();
        self.by_lane.insert((at, lane.index), n);
        self.here.push(n);
        self.clients.push(Client {
            shard: at,
            lane,
            variant,
            user,
            rooms: BTreeMap::new(),
            stays: BTreeMap::new(),
            ended: None,
            words: Vec::new(),
            received: None,
        });
    }

    /// The connection is closed: whatever rooms it was in are left without another word.
    fn disconnect(&mut self, n: usize) {
        let Client { shard, lane, .. } = self.clients[n];
        self.clients[n].ended.get_or_insert((End::Disconnected, self.clock.load(Ordering::Relaxed)));
        for room in self.shards[shard].0.close(lane) {
            self.leave_registry(n, self.by_id[&room.0]);
        }
        assert!(self.clients[n].rooms.is_empty(), "the shard knew all its rooms");
        self.here.retain(|&other| other != n);
        self.by_lane.remove(&(shard, lane.index));
        let wire = self.shards[shard].1.0.remove(&lane.index).expect("an open lane has a wire");
        self.clients[n].received = Some(wire.received);
        self.check_stream(n);
    }

    // ---- rooms ----

    /// The life of the name that the registry must use now; made if there is none, `None` at the bound on rooms.
    fn life_of(&mut self, name: usize) -> Option<usize> {
        if let Some(&life) = self.directory.get(&name) {
            return Some(life);
        }
        if self.directory.len() >= ROOMS_MAX {
            return None;
        }
        let life = self.lives.len();
        self.lives.push(Life {
            name,
            epoch: None,
            created: self.now,
            log: Vec::new(),
            closed_at: None,
            offset: 0,
            members: BTreeSet::new(),
            audience: [0; SHARDS],
            users: BTreeMap::new(),
        });
        self.directory.insert(name, life);
        Some(life)
    }

    /// An event without payload enters the log and the intakes.
    fn log(&mut self, life: usize, said: Logged) {
        for at in 0..SHARDS {
            self.owed[at].0 += usize::from(self.lives[life].audience[at] > 0);
        }
        self.lives[life].log.push(said);
    }

    fn join(&mut self, n: usize, name: usize) {
        let Client { shard, lane, user, .. } = self.clients[n];
        let is_full = self.clients[n].rooms.len() >= ROOMS_PER_CLIENT_MAX;
        if self.clients[n].ended.is_some() || is_full || self.clients[n].rooms.contains_key(&name) {
            return;
        }
        let user_name = user.map(|user| self.users[user].clone());
        let expected = self.life_of(name);
        let joined = self.registry.join(&self.names[name], options(name), shard, user_name.as_ref(), self.now);
        let Some(life) = expected else {
            assert_eq!(joined.err(), Some(JoinError::RoomsMax));
            self.totals.refused_rooms += 1;
            return;
        };
        let joined = joined.expect("there is room for a room");
        if let Some(user) = user
            && options(name).join_leave
            && !self.lives[life].users.contains_key(&user)
        {
            self.log(life, Logged::Joined(user));
        }
        let state = &mut self.lives[life];
        state.members.insert(n);
        state.audience[shard] += 1;
        if let Some(user) = user.filter(|_| options(name).join_leave || options(name).presence) {
            *state.users.entry(user).or_insert(0) += 1;
        }
        assert_eq!(joined.seq, state.log.len() as u64, "the number of the last event");
        assert_eq!(joined.position.offset, state.offset);
        assert_eq!(*state.epoch.get_or_insert(joined.position.epoch), joined.position.epoch, "one life, one epoch");
        assert_eq!(*self.by_id.entry(joined.room.id().0).or_insert(life), life, "one life, one id");
        assert!(self.shards[shard].0.join(lane, joined.room.id(), joined.seq));
        self.clients[n].rooms.insert(name, (life, joined.room));
        self.clients[n].stays.entry(name).or_default().push(Stay { life, from: joined.seq as usize, to: None });
        self.totals.joins += 1;
    }

    fn leave(&mut self, n: usize, name: usize) {
        // What was said before must reach the shard first; that may end the membership, too.
        let Client { shard, lane, .. } = self.clients[n];
        self.take_items(shard, usize::MAX);
        let Some((life, room)) = self.clients[n].rooms.get(&name).map(|(life, room)| (*life, room.id())) else {
            return;
        };
        let (fan_out, wires) = &mut self.shards[shard];
        assert!(fan_out.leave(lane, room, wires));
        self.leave_registry(n, life);
        self.act_on_events(shard);
    }

    /// The shard has let the client go; the room lets it go, too.
    fn leave_registry(&mut self, n: usize, life: usize) {
        let Client { shard, user, .. } = self.clients[n];
        let name = self.lives[life].name;
        let (_, room) = self.clients[n].rooms.remove(&name).expect("a member");
        let says_so = self.dice.percent(10);
        let user_name = user.map(|user| self.users[user].clone());
        self.registry.leave(&room, shard, user_name.as_ref(), says_so);
        let state = &mut self.lives[life];
        let stay = self.clients[n].stays.get_mut(&name).and_then(|stays| stays.last_mut()).expect("a stay");
        stay.to = Some(state.closed_at.unwrap_or(state.log.len()));
        assert!(state.members.remove(&n));
        state.audience[shard] -= 1;
        // `None`: nobody that is counted.
        let mut was_last = None;
        if let Some(user) = user
            && let Some(connections) = state.users.get_mut(&user)
        {
            *connections -= 1;
            was_last = Some(*connections == 0);
            if *connections == 0 {
                state.users.remove(&user);
            }
        }
        if was_last.map_or(says_so, |was_last| was_last && (says_so || options(name).join_leave)) {
            self.log(life, Logged::Left(user));
        }
        self.totals.leaves += 1;
    }

    fn publish(&mut self) {
        let publisher = self.dice.pick(&self.here).filter(|_| self.dice.below(5) > 0);
        let own: Vec<usize> = publisher.map_or_else(Vec::new, |n| self.clients[n].rooms.keys().copied().collect());
        let name = self.dice.pick(&own).unwrap_or_else(|| self.dice.below(NAMES));
        let except = publisher.filter(|_| self.dice.percent(30));
        let number = self.publications.len();
        let text = format!("{number}{}", "-".repeat(self.dice.below(40)));
        let has_receipt = self.dice.percent(40);
        let receipt = has_receipt.then(|| {
            let (told, clock) = (self.told.clone(), self.clock.clone());
            Arc::new(Receipt::new(move |delivery| {
                let before = told.lock().insert(number, (delivery, clock.load(Ordering::Relaxed)));
                assert!(before.is_none(), "a receipt was told twice");
            }))
        });
        let draft = Draft {
            user: None,
            payload: Payload::Text(Bytes::from(text.clone().into_bytes())),
            except: except.map(|n| (self.clients[n].shard, self.clients[n].lane)),
            receipt,
        };
        let expected = self.life_of(name);
        let answer = self.registry.publish(&self.names[name], options(name), draft, self.now);
        let Some(life) = expected else {
            assert_eq!(answer, Err(PublishError::RoomsMax));
            self.totals.refused_rooms += 1;
            return;
        };
        self.check_publish(life, number, text.len(), except, has_receipt, answer);
    }

    fn check_publish(
        &mut self,
        life: usize,
        number: usize,
        bytes: usize,
        except: Option<usize>,
        has_receipt: bool,
        answer: Result<Receipted, PublishError>,
    ) {
        let state = &mut self.lives[life];
        let targets: Vec<usize> = (0..SHARDS).filter(|&at| state.audience[at] > 0).collect();
        let is_over = |&at: &usize| {
            let (items, owed_bytes) = self.owed[at];
            items >= INTAKE.intake_items_max || owed_bytes + bytes > INTAKE.intake_bytes_max
        };
        if targets.iter().any(is_over) {
            assert_eq!(answer, Err(PublishError::Overloaded));
            self.totals.overloaded += 1;
            return;
        }
        let position = answer.expect("nothing is over its bound").position;
        state.offset += 1;
        assert_eq!(position.offset, state.offset, "dense from 1");
        assert_eq!(*state.epoch.get_or_insert(position.epoch), position.epoch, "one life, one epoch");
        state.log.push(Logged::Message { number, offset: state.offset, except });
        for at in targets {
            self.owed[at].0 += 1;
            self.owed[at].1 += bytes;
        }
        let wanted_by = state.members.iter().copied().filter(|&n| except != Some(n)).collect();
        self.publications.push(Publication { wanted_by, has_receipt });
    }

    fn close_room(&mut self) {
        let name = self.dice.below(NAMES);
        let life = self.directory.remove(&name);
        assert_eq!(self.registry.close(&self.names[name]), life.is_some());
        let Some(life) = life else { return };
        self.log(life, Logged::Closed);
        self.lives[life].closed_at = Some(self.lives[life].log.len());
        self.totals.closed += 1;
        assert!(self.registry.get(&self.names[name]).is_none());
    }

    fn sweep(&mut self) {
        let vacant: Vec<usize> = self
            .directory
            .iter()
            .filter(|(_, life)| self.lives[**life].members.is_empty())
            .map(|(name, _)| *name)
            .collect();
        self.directory.retain(|name, _| !vacant.contains(name));
        assert_eq!(self.registry.reap(), vacant.len(), "what was vacant is reaped, and nothing else");
        self.totals.reaped += vacant.len();
        assert!(self.registry.list("", "", usize::MAX).iter().all(|room| room.occupancy > 0), "a vacant room stays");
    }

    // ---- the loop of a shard ----

    fn take_items(&mut self, at: usize, items: usize) {
        let intake = self.registry.shards()[at].clone();
        for _ in 0..items {
            let Some(item) = intake.pop() else { break };
            let (shard, wires) = &mut self.shards[at];
            match item {
                Item::Event { room, seq, event, except, receipt } => {
                    shard.accept(room, seq, &Spelled(event), except, receipt);
                }
                Item::CloseRoom(room) => {
                    shard.flush_room(room, wires);
                    for lane in shard.members(room) {
                        let (shard, wires) = &mut self.shards[at];
                        assert!(shard.leave(lane, room, wires));
                        self.leave_registry(self.by_lane[&(at, lane.index)], self.by_id[&room.0]);
                    }
                }
                Item::Order(()) => {}
            }
        }
        self.release(at);
        self.act_on_events(at);
    }

    fn release(&mut self, at: usize) {
        let released = self.shards[at].0.take_released();
        self.owed[at].0 -= released.items;
        self.owed[at].1 -= released.bytes;
        self.registry.shards()[at].release(released.items, released.bytes);
    }

    fn flush(&mut self, at: usize) {
        let quota = FlushQuota { members_per_slice: 1 + self.dice.below(6), members_per_turn: 1 + self.dice.below(60) };
        let (shard, wires) = &mut self.shards[at];
        shard.flush(wires, quota);
        self.release(at);
        self.act_on_events(at);
    }

    fn turn(&mut self) {
        let at = self.dice.below(SHARDS);
        let items = self.dice.below(60);
        self.take_items(at, items);
        for _ in 0..self.dice.below(4) {
            self.flush(at);
        }
    }

    /// An evicted client is told so, leaves its rooms, and is closed later.
    fn act_on_events(&mut self, at: usize) {
        let mut events = Vec::new();
        self.shards[at].0.take_events(&mut events);
        for event in events {
            let LaneEvent::Evicted(lane, queued, _) = event else {
                assert!(matches!(event, LaneEvent::Blocked(_)), "no connection fails here: {event:?}");
                continue;
            };
            let n = self.by_lane[&(at, lane.index)];
            assert_eq!(self.clients[n].ended, None, "evicted once");
            self.clients[n].ended = Some((End::Evicted, self.clock()));
            self.totals.evicted += 1;
            let words = format!("<slow:{}:{}>", queued.bytes, queued.messages).into_bytes();
            let (shard, wires) = &mut self.shards[at];
            shard.last_words(lane, &words, wires);
            self.clients[n].words = words;
            let rooms: Vec<(usize, RoomId)> =
                self.clients[n].rooms.values().map(|(life, room)| (*life, room.id())).collect();
            for (life, room) in rooms {
                let (shard, wires) = &mut self.shards[at];
                assert!(shard.leave(lane, room, wires));
                self.leave_registry(n, life);
            }
            self.release(at);
        }
    }

    fn unblock(&mut self, n: usize) {
        let Client { shard: at, lane, .. } = self.clients[n];
        let takes = self.dice.percent(20).then(|| self.dice.below(2_000));
        let (shard, wires) = &mut self.shards[at];
        wires.at(lane).takes = takes;
        shard.writable(lane, wires);
    }

    fn step(&mut self) {
        self.clock.fetch_add(1, Ordering::Relaxed);
        self.now += Duration::from_millis(self.dice.below(20) as u64);
        if self.now >= self.next_sweep {
            self.next_sweep = self.now + SWEEP_EVERY;
            self.sweep();
        }
        let die = self.dice.below(1_000);
        let Some(n) = self.dice.pick(&self.here).filter(|_| die >= 15) else { return self.connect() };
        match die {
            0..15 => {}
            15..20 => self.disconnect(n),
            20..25 if self.clients[n].ended.is_some() => self.disconnect(n),
            20..400 => {
                let name = self.dice.below(NAMES);
                self.join(n, name);
            }
            400..680 => {
                let rooms: Vec<usize> = self.clients[n].rooms.keys().copied().collect();
                self.dice.pick(&rooms).into_iter().for_each(|name| self.leave(n, name));
            }
            680..797 => self.publish(),
            // Faster than any shard's turn.
            797..800 => (0..40).for_each(|_| self.publish()),
            800..930 => self.turn(),
            930..938 => self.shards[self.clients[n].shard].1.at(self.clients[n].lane).takes = Some(0),
            938..994 => self.unblock(n),
            994..997 => self.close_room(),
            _ => self.check_totals(),
        }
    }

    // ---- what must hold ----

    fn check_totals(&mut self) {
        let stats = self.registry.stats();
        assert_eq!(stats.rooms.load(Ordering::Relaxed), self.directory.len());
        let subscriptions: usize = self.here.iter().map(|&n| self.clients[n].rooms.len()).sum();
        assert_eq!(stats.subscriptions.load(Ordering::Relaxed), subscriptions);
        assert_eq!(stats.published.load(Ordering::Relaxed), self.publications.len() as u64);
        assert_eq!(stats.overloaded.load(Ordering::Relaxed), self.totals.overloaded);
        assert_eq!(stats.reaped.load(Ordering::Relaxed), self.totals.reaped as u64);
        assert_eq!(self.stats.evicted.load(Ordering::Relaxed), self.totals.evicted as u64);
        let mut queued = 0;
        for &n in &self.here {
            let client = &self.clients[n];
            let shard = &self.shards[client.shard].0;
            let waiting = shard.queued(client.lane);
            queued += waiting.bytes;
            assert!(waiting.bytes <= OUTBOX.outbox_bytes_max && waiting.messages <= OUTBOX.outbox_messages_max);
            assert_eq!(shard.rooms_of(client.lane).count(), client.rooms.len());
        }
        assert_eq!(self.budget.used(), queued, "the budget is what is queued");
        let rooms = self.registry.list("", "", usize::MAX);
        assert_eq!(rooms.len(), self.directory.len());
        for info in rooms {
            let name = self.names.iter().position(|name| *name == info.name).expect("a name of this run");
            let life = &self.lives[self.directory[&name]];
            assert_eq!((info.occupancy, info.created), (life.members.len() as u64, life.created));
            assert_eq!(info.position.offset, life.offset);
            let room = self.registry.get(&info.name).expect("a room of the list");
            let Presence { count, members, has_more } = room.presence("", usize::MAX);
            assert_eq!((count, has_more), (life.members.len() as u64, false));
            let mut users: Vec<UserName> = life.users.keys().map(|&user| self.users[user].clone()).collect();
            users.sort_unstable();
            // Where only comings and goings are told, users are counted but not listed.
            if !room.options().presence {
                users.clear();
            }
            assert_eq!(members, users, "who is in {}", info.name);
        }
        for (at, intake) in self.registry.shards().iter().enumerate() {
            let (items, bytes) = self.owed[at];
            let is_pressed = items >= INTAKE.intake_items_max / 4 || bytes >= INTAKE.intake_bytes_max / 4;
            assert_eq!(intake.is_pressed(), is_pressed, "what shard {at} owes");
        }
    }

    /// What a client should get of a name, in order.
    fn expected(&self, client: &Client, n: usize, name: usize) -> Vec<String> {
        let room = &self.names[name];
        let mut expected = Vec::new();
        for stay in client.stays.get(&name).map_or(&[][..], Vec::as_slice) {
            let life = &self.lives[stay.life];
            let to = stay.to.or(life.closed_at).unwrap_or(life.log.len());
            for said in &life.log[stay.from..to.max(stay.from)] {
                let user = |user: usize| &self.users[user];
                match said {
                    Logged::Message { number, offset, except } if *except != Some(n) => {
                        let offset = if options(name).offsets { offset.to_string() } else { String::new() };
                        expected.push(format!("{room}|M|{offset}|{number}"));
                    }
                    Logged::Message { .. } => {}
                    Logged::Joined(_) | Logged::Left(_) if client.variant == PLAIN => {}
                    Logged::Joined(who) => expected.push(format!("{room}|J|{}", user(*who))),
                    Logged::Left(who) => {
                        expected.push(format!("{room}|L|{}", who.map_or(String::new(), |who| user(who).to_string())));
                    }
                    Logged::Closed => expected.push(format!("{room}|C")),
                }
            }
        }
        expected
    }

    /// Everything a client received, against the logs of its rooms. Without an end it must be all there was; with one, all up
    /// to a point, and the reason.
    fn check_stream(&mut self, n: usize) {
        let client = &self.clients[n];
        let stream = match &client.received {
            Some(received) => received.as_slice(),
            None => self.shards[client.shard].1.0[&client.lane.index].received.as_slice(),
        };
        let (frames, words, rest) = parse(stream);
        let mut got = BTreeMap::<&str, Vec<&str>>::new();
        for frame in &frames {
            let room = frame.split('|').next().expect("a frame names its room");
            got.entry(room).or_default().push(frame.trim_end_matches('-'));
        }
        let mut all = 0;
        for &name in client.stays.keys() {
            let expected = self.expected(client, n, name);
            let got = got.remove(self.names[name].as_str()).unwrap_or_default();
            assert_eq!(got, expected[..got.len().min(expected.len())], "order in a room of client {n}");
            all += expected.len();
        }
        assert!(got.is_empty(), "client {n} got something of a room it never was in: {got:?}");
        let Some((end, _)) = client.ended else {
            assert_eq!((frames.len(), words, rest), (all, None, 0), "client {n} stayed and must have everything");
            self.totals.received += all;
            return;
        };
        if let Some(words) = words {
            assert_eq!((end, words, rest), (End::Evicted, client.words.as_slice(), 0), "the reason comes last");
        } else {
            // Who was closed before its last words could be written has only its part.
            assert!(client.received.is_some(), "client {n} must be told why");
        }
        self.totals.received += frames.len();
        self.totals.lost += all - frames.len();
    }

    fn check_receipts(&self) {
        let told = self.told.lock();
        for (number, publication) in self.publications.iter().enumerate().filter(|(_, p)| p.has_receipt) {
            let (delivery, told_at) = told.get(&number).expect("every receipt is told");
            let has_ended = |&&n: &&usize| self.clients[n].ended.is_some_and(|(_, at)| at <= *told_at);
            let most = publication.wanted_by.len() as u64;
            let least = most - publication.wanted_by.iter().filter(has_ended).count() as u64;
            assert!(delivery.delivered >= least, "publication {number}: {delivery:?} of {least} to {most}");
            assert!((least..=most).contains(&(delivery.delivered + delivery.evicted)), "publication {number}");
            assert_eq!(delivery.dropped, 0);
        }
    }

    /// Everything is let through.
    fn settle(&mut self) {
        for n in self.here.clone() {
            let Client { shard: at, lane, .. } = self.clients[n];
            let (shard, wires) = &mut self.shards[at];
            wires.at(lane).takes = None;
            assert!(shard.writable(lane, wires).is_empty);
        }
        // What one shard lets go may be news to another.
        while (0..SHARDS).any(|at| !self.registry.shards()[at].is_empty() || !self.shards[at].0.is_flushed()) {
            for at in 0..SHARDS {
                self.take_items(at, usize::MAX);
                self.flush(at);
            }
        }
        (0..SHARDS).for_each(|at| self.release(at));
    }

    fn check_end(&mut self) {
        self.settle();
        self.check_totals();
        self.here.clone().into_iter().for_each(|n| self.check_stream(n));
        self.check_receipts();
        assert_eq!(self.budget.used(), 0);
        let epochs: BTreeSet<u64> = self.lives.iter().filter_map(|life| life.epoch).collect();
        assert_eq!(epochs.len(), self.lives.iter().filter(|life| life.epoch.is_some()).count(), "epochs differ");
    }

    /// Everybody goes, and nothing stays.
    fn check_nothing_stays(&mut self) {
        for n in self.here.clone() {
            while let Some((&name, _)) = self.clients[n].rooms.first_key_value() {
                if self.dice.percent(50) {
                    break;
                }
                self.leave(n, name);
            }
            let Client { shard, lane, .. } = self.clients[n];
            for room in self.shards[shard].0.close(lane) {
                self.leave_registry(n, self.by_id[&room.0]);
            }
            self.here.retain(|&other| other != n);
        }
        self.settle();
        self.sweep();
        self.check_totals();
        assert_eq!(self.registry.stats().rooms.load(Ordering::Relaxed), 0);
        assert_eq!(self.registry.stats().subscriptions.load(Ordering::Relaxed), 0);
        for (at, intake) in self.registry.shards().iter().enumerate() {
            assert_eq!(self.shards[at].0.counts(), (0, 0), "lanes and rooms of shard {at}");
            assert_eq!(self.owed[at], (0, 0));
            assert!(!intake.is_pressed());
            assert_eq!(intake.reserve(INTAKE.intake_bytes_max), Ok(()), "all bytes came back");
            for _ in 1..INTAKE.intake_items_max {
                assert_eq!(intake.reserve(0), Ok(()), "all items came back");
            }
            assert!(intake.reserve(0).is_err());
        }
        let totals = &self.totals;
        let is_rich = totals.evicted > 50 && totals.reaped > 100 && totals.closed > 50 && totals.overloaded > 50;
        assert!(is_rich && totals.refused_rooms > 50, "a run in which too little happened: {totals:?}");
        assert!(totals.received > 10 * totals.lost, "most of it must arrive: {totals:?}");
    }
}

/// Splits a stream into what its frames say, the last words, and the number of bytes of a frame that was not finished.
fn parse(mut stream: &[u8]) -> (Vec<&str>, Option<&[u8]>, usize) {
    let mut frames = Vec::new();
    while let Some(&open) = stream.first() {
        let close = if open == b'<' { b'>' } else { b']' };
        let Some(end) = stream.iter().position(|&b| b == close) else { return (frames, None, stream.len()) };
        if open == b'<' {
            assert_eq!(end + 1, stream.len(), "something follows the last words");
            return (frames, Some(stream), 0);
        }
        assert_eq!(open, b'[', "a frame begins");
        frames.push(std::str::from_utf8(&stream[1..end]).expect("test frames are text"));
        stream = &stream[end + 1..];
    }
    (frames, None, 0)
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    while world.totals.joins + world.totals.leaves < JOINS_AND_LEAVES {
        world.step();
    }
    world.check_end();
    world.check_nothing_stays();
}

#[test]
fn sim_registry_and_shards() {
    let read = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seeds = match read("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..read("SIM_SEEDS").unwrap_or(1),
    };
    for seed in seeds {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            panic!("seed {seed} failed; repeat with SIM_SEED={seed}");
        }
    }
}
