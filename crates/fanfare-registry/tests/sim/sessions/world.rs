//! The run: clients, gateway and the model of both, a step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_fanout::{Budget, Delivery, FlushQuota, Intake, IntakeLimits, OutboxLimits, Shard, ShardStats};
use fanfare_protocol::{
    CloseReason, Dialect, MessageLimits, Mode, Payload, Position, Published, ReplyId, RoomEvent, RoomName, Session,
    UserName, Variant,
};
use fanfare_registry::{Joined, Registry, RegistryLimits, RoomOptions, Said};
use parking_lot::Mutex;

use super::client::{Asked, BAD_MAX, Client, Due, FRAGMENTS_MAX, MESSAGE_BYTES_MAX};
use super::shell::{Ack, Connection, Phase};
use crate::dice::Dice;
use crate::seeds;
use crate::wires::{Wire, Wires};

const SHARDS: usize = 3;
const NAMES: usize = 12;
const ROOMS_MAX: usize = 9;
const USERS: usize = 10;
const CLIENTS_MAX: usize = 24;
const STEPS: usize = 4_000;
pub(super) const ROOMS_PER_CLIENT: usize = 5;
pub(super) const REPLY_PAUSE: usize = 900;
pub(super) const ACKS_RESERVE_BYTES: usize = 0;
pub(super) const LIMITS: MessageLimits =
    MessageLimits { message_bytes_max: MESSAGE_BYTES_MAX, fragments_max: FRAGMENTS_MAX, bad_messages_max: BAD_MAX };
const INTAKE: IntakeLimits = IntakeLimits { intake_items_max: 60, intake_bytes_max: 3_000 };
pub(super) const OUTBOX: OutboxLimits = OutboxLimits { outbox_bytes_max: 2_500, outbox_messages_max: 24 };
const BUDGET: usize = 7_000;
pub(super) const PING: Duration = Duration::from_secs(5);
pub(super) const PONG: Duration = Duration::from_secs(2);
pub(super) const WRITE: Duration = Duration::from_secs(3);
pub(super) const CLOSE: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_secs(1);

/// One life of a room.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) name: usize,
    epoch: Option<u64>,
    offset: u64,
    /// Nobody is told what follows.
    is_closed: bool,
    members: Vec<usize>,
    users: BTreeMap<String, u32>,
}

/// A publication that was accepted.
#[derive(Debug)]
pub(super) struct Publication {
    /// Whom it is for.
    pub(super) wanted_by: Vec<usize>,
}

seeds::totals! {
    connected,
    ended,
    evicted,
    timeouts,
    rude,
    reaped,
    closed_rooms,
    overloaded,
    published,
    received,
    acks,
    /// Evictions that publishers were told of.
    evictions_told,
    /// Bytes that clients who were closed did not get.
    lost,
    /// Clients that could have heard why they were closed, and were not told.
    untold,
    /// Times that a client's account was found to be exact.
    exact,
}

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: Duration,
    next_sweep: Duration,
    pub(super) clock: Arc<AtomicU64>,
    pub(super) registry: Registry<Ack>,
    pub(super) shards: Vec<(Shard<Said>, Wires)>,
    pub(super) budget: Arc<Budget>,
    pub(super) stats: Arc<ShardStats>,
    pub(super) names: Vec<RoomName>,
    users: Vec<UserName>,
    pub(super) clients: Vec<Client>,
    /// By client; none before and after its connection.
    pub(super) connections: Vec<Option<Connection>>,
    pub(super) by_lane: BTreeMap<(usize, u32), usize>,
    /// By shard and room: the life that has members there, and how many.
    pub(super) local: Vec<BTreeMap<usize, (fanfare_fanout::RoomId, usize)>>,
    pub(super) lives: Vec<Life>,
    /// The life that has the name.
    pub(super) directory: BTreeMap<usize, usize>,
    pub(super) by_id: BTreeMap<u64, usize>,
    pub(super) publications: Vec<Publication>,
    /// The publication that an ack of a client is about, by the command's id.
    pub(super) acks: BTreeMap<(usize, u64), usize>,
    pub(super) told: Arc<Mutex<BTreeMap<usize, (Delivery, u64)>>>,
    /// When each client ended.
    pub(super) ends: BTreeMap<usize, u64>,
    next_number: usize,
    pub(super) totals: Totals,
}

pub(super) fn run(seed: u64) -> Totals {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        world.check_step();
    }
    world.check_end();
    world.totals
}

impl World {
    fn new(seed: u64) -> Self {
        let intakes = (0..SHARDS).map(|_| Arc::new(Intake::new(INTAKE, || {}))).collect();
        let budget = Arc::new(Budget::new(BUDGET));
        let stats = Arc::new(ShardStats::default());
        let shard = |_| (Shard::new(OUTBOX, 2_000, budget.clone(), stats.clone()), Wires::default());
        Self {
            dice: Dice(seed),
            now: Duration::ZERO,
            next_sweep: SWEEP,
            clock: Arc::default(),
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
            connections: Vec::new(),
            by_lane: BTreeMap::new(),
            local: vec![BTreeMap::new(); SHARDS],
            lives: Vec::new(),
            directory: BTreeMap::new(),
            by_id: BTreeMap::new(),
            publications: Vec::new(),
            acks: BTreeMap::new(),
            told: Arc::default(),
            ends: BTreeMap::new(),
            next_number: 0,
            totals: Totals::default(),
        }
    }

    pub(super) fn options(&self, room: usize) -> RoomOptions {
        RoomOptions {
            presence: room % 4 == 1,
            join_leave: room.is_multiple_of(4),
            offsets: room.is_multiple_of(2),
            ..RoomOptions::default()
        }
    }

    // ---- steps ----

    fn step(&mut self) {
        self.clock.fetch_add(1, Ordering::Relaxed);
        self.now += Duration::from_millis(self.dice.below(25) as u64);
        if self.now >= self.next_sweep {
            self.next_sweep = self.now + SWEEP;
            self.sweep();
        }
        self.see_to_deadlines();
        let here: Vec<usize> = (0..self.clients.len()).filter(|&n| self.connections[n].is_some()).collect();
        let die = self.dice.below(1_000);
        let Some(n) = self.dice.pick(&here).filter(|_| die >= 30) else { return self.connect(here.len()) };
        match die {
            0..380 => self.speak(n),
            380..384 if self.clients[n].may_speak() => self.clients[n].be_rude(&mut self.dice),
            384..388 if self.clients[n].may_speak() => self.clients[n].close(),
            388..391 => self.clients[n].has_hung_up = true,
            391..393 => self.wire(n).is_broken = true,
            393..423 => self.wire(n).takes = Some(0),
            423..530 => {
                let takes = self.dice.percent(15).then(|| self.dice.below(700));
                self.wire(n).takes = takes;
                self.writable(n);
            }
            530..780 => {
                let count = 1 + self.dice.below(300);
                self.read(n, count);
            }
            780..783 => {
                let room = self.dice.below(NAMES);
                self.close_room(room);
            }
            783..786 => (0..60).for_each(|_| self.speak(n)),
            _ => self.turn(),
        }
    }

    fn wire(&mut self, n: usize) -> &mut Wire {
        let connection = self.connections[n].as_ref().expect("a connected client");
        self.shards[connection.shard].1.at(connection.lane)
    }

    fn connect(&mut self, here: usize) {
        if here >= CLIENTS_MAX {
            return;
        }
        let name = self.dice.below(NAMES);
        let (own, dialect, variant) = match self.dice.below(10) {
            0..6 => (None, Dialect::Json, Variant::JsonRooms),
            6 | 7 => (Some(name), Dialect::Json, Variant::JsonRoom),
            8 => (Some(name), Dialect::Text, Variant::Text),
            _ => (Some(name), Dialect::TextJoined, Variant::TextJoined),
        };
        let mode = own.map_or(Mode::Rooms, |room| Mode::Room(self.names[room].clone()));
        let user = self.dice.percent(70).then(|| self.users[self.dice.below(USERS)].clone());
        let n = self.clients.len();
        self.clients.push(Client::new(variant, own));
        self.connections.push(None);
        self.totals.connected += 1;
        let shard = self.dice.below(SHARDS);
        self.admit(n, shard, Session::new(mode, dialect), user);
    }

    /// A client says something; the gateway will read it later.
    fn speak(&mut self, n: usize) {
        let client = &mut self.clients[n];
        // Who is not read is not told to go on for ever.
        if !client.may_speak() || client.uplink.len() > 20_000 {
            return;
        }
        let dice = &mut self.dice;
        let number = self.next_number;
        let text = format!("#{number}#{}", "-".repeat(dice.below(60)));
        if !client.speaks_json() {
            self.next_number += 1;
            let is_text = dice.percent(80);
            return client.send(if is_text { 1 } else { 2 }, text.as_bytes(), dice);
        }
        // Some rooms are busier than others.
        let room = client.own.unwrap_or_else(|| dice.below(NAMES).min(dice.below(NAMES)));
        let named =
            if client.own.is_some() && dice.percent(60) { String::new() } else { format!(",\"room\":\"room:{room}\"") };
        let wants = |dice: &mut Dice, asked| dice.percent(60).then_some(asked);
        match dice.below(100) {
            0..45 => {
                self.next_number += 1;
                let asked = wants(dice, Asked::Publish);
                let is_for_others = dice.percent(30);
                if is_for_others {
                    client.not_for_itself.insert(number);
                }
                let name = if is_for_others { "publish_no_self" } else { "publish" };
                client.command(name, &format!("{named},\"message\":{{\"text\":\"{text}\"}}"), asked, dice);
            }
            45..70 => _ = client.command("subscribe", &named, Some(Asked::Subscribe), dice),
            70..82 => _ = client.command("unsubscribe", &named, Some(Asked::Unsubscribe), dice),
            82..86 => _ = client.command("leave", &named, Some(Asked::Unsubscribe), dice),
            86..91 => _ = client.command("presence", &named, Some(Asked::Presence), dice),
            91..92 => _ = client.command("close", &named, Some(Asked::CloseRoom), dice),
            92..94 => _ = client.command("ping", "", Some(Asked::Ping), dice),
            94..96 => client.ping(dice),
            96 => _ = client.command("fly", "", Some(Asked::Unknown), dice),
            97 if client.own.is_none() => {
                _ = client.command("presence", ",\"room\":\"a b\"", Some(Asked::BadRoom), dice);
            }
            _ => {
                client.bad.0 += 1;
                client.send(1, b"?", dice);
                // Another one would not be the next in a row.
                client.command("ping", "", Some(Asked::Ping), dice);
            }
        }
    }

    fn turn(&mut self) {
        let shard = self.dice.below(SHARDS);
        let items = self.dice.below(50);
        self.take_items(shard, items);
        for _ in 0..self.dice.below(4) {
            let members_per_slice = 1 + self.dice.below(4);
            let quota = FlushQuota { members_per_slice, members_per_turn: 1 + self.dice.below(30) };
            self.flush(shard, quota);
        }
    }

    fn sweep(&mut self) {
        let vacant: Vec<usize> = self
            .directory
            .iter()
            .filter(|(_, life)| self.lives[**life].members.is_empty())
            .map(|(name, _)| *name)
            .collect();
        self.directory.retain(|name, _| !vacant.contains(name));
        assert_eq!(self.registry.reap(), vacant.len(), "what is vacant is reaped, and nothing else");
        assert!(self.registry.list("", "", usize::MAX).iter().all(|room| room.occupancy > 0), "a vacant room stays");
        self.totals.reaped += vacant.len() as u64;
    }

    // ---- what the model notes ----

    /// The life of the name that the registry must use now; made if there is none, `None` at the bound on rooms.
    pub(super) fn life_of(&mut self, name: usize) -> Option<usize> {
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
            offset: 0,
            is_closed: false,
            members: Vec::new(),
            users: BTreeMap::new(),
        });
        self.directory.insert(name, life);
        Some(life)
    }

    /// A room says something: it is due to every member but one.
    pub(super) fn say(&mut self, life: usize, due: &Due, except: Option<usize>, event: &RoomEvent) {
        let state = &self.lives[life];
        let name = state.name;
        if state.is_closed {
            return;
        }
        for &n in state.members.iter().filter(|&&n| except != Some(n)) {
            let client = &mut self.clients[n];
            let mut frame = Vec::new();
            client.variant.encode(event, &mut frame);
            if !frame.is_empty() {
                client.due.entry(name).or_default().push_back(due.clone());
                client.due_bytes += frame.len() as u64;
            }
        }
        self.lives[life].is_closed = matches!(event, RoomEvent::RoomClosed(_));
    }

    pub(super) fn note_join(&mut self, n: usize, life: usize, user: Option<&UserName>, joined: &Joined) {
        let name = self.lives[life].name;
        let options = self.options(name);
        if let Some(user) = user
            && options.join_leave
            && !self.lives[life].users.contains_key(user.as_str())
        {
            let event = RoomEvent::Joined(self.names[name].clone(), Some(user.clone()));
            self.say(life, &Due::Joined(Some(user.to_string())), None, &event);
        }
        let state = &mut self.lives[life];
        state.members.push(n);
        if let Some(user) = user.filter(|_| options.join_leave || options.presence) {
            *state.users.entry(user.to_string()).or_insert(0) += 1;
        }
        assert_eq!(joined.position.offset, state.offset);
        assert_eq!(*state.epoch.get_or_insert(joined.position.epoch), joined.position.epoch, "one life, one epoch");
        assert_eq!(*self.by_id.entry(joined.room.id().0).or_insert(life), life, "one life, one id");
    }

    pub(super) fn note_leave(&mut self, n: usize, life: usize, user: Option<&UserName>, says_so: bool) {
        let name = self.lives[life].name;
        let state = &mut self.lives[life];
        let place = state.members.iter().position(|&member| member == n).expect("a member");
        state.members.swap_remove(place);
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
            self.say(life, &Due::Left(user.map(ToString::to_string)), None, &event);
        }
    }

    pub(super) fn note_publication(
        &mut self,
        n: usize,
        life: usize,
        user: Option<UserName>,
        payload: Payload,
        except_self: bool,
        position: Position,
    ) {
        let (Payload::Json(bytes) | Payload::Text(bytes) | Payload::Binary(bytes)) = &payload;
        let number = super::audit::number_in(bytes);
        let name = self.lives[life].name;
        let state = &mut self.lives[life];
        state.offset += 1;
        assert_eq!(position.offset, state.offset, "dense from 1");
        assert_eq!(*state.epoch.get_or_insert(position.epoch), position.epoch, "one life, one epoch");
        let except = except_self.then_some(n);
        let wanted_by = state.members.iter().copied().filter(|&member| except != Some(member)).collect();
        let offset = self.options(name).offsets.then_some(position.offset);
        self.publications.push(Publication { wanted_by });
        self.totals.published += 1;
        let due = Due::Message { number, offset, user: user.as_ref().map(ToString::to_string) };
        let event = RoomEvent::Message(self.names[name].clone(), Published { position, offset, user, payload });
        self.say(life, &due, except, &event);
    }

    pub(super) fn note_ack(&mut self, n: usize, id: ReplyId<'_>, number: usize) {
        let id = id.0.expect("a receipt is wanted").trim_matches('"').parse().expect("ids are numbers");
        self.acks.insert((n, id), number);
    }

    pub(super) fn note_end(&mut self, n: usize, reason: CloseReason) {
        let client = &mut self.clients[n];
        assert_eq!(client.ended, None, "a connection ends once");
        let is_rude = matches!(
            reason,
            CloseReason::ProtocolError(_)
                | CloseReason::BinaryNotAllowed
                | CloseReason::BadUtf8
                | CloseReason::BadMessages
                | CloseReason::TooManyFragments
                | CloseReason::MessageTooBig { .. }
        );
        assert!(!is_rude || client.rude == Some(reason), "client {n} was closed for {reason:?}: {:?}", client.rude);
        self.totals.rude += u64::from(is_rude);
        client.ended = Some(reason);
        self.ends.insert(n, self.clock.load(Ordering::Relaxed));
        self.totals.ended += 1;
    }

    pub(super) fn check_presence(&self, life: usize, count: u64, members: &[UserName]) {
        let state = &self.lives[life];
        assert_eq!(count, state.members.len() as u64);
        let listed: Vec<&str> = members.iter().map(UserName::as_str).collect();
        let expected: Vec<&str> = state.users.keys().map(String::as_str).collect();
        assert_eq!(listed, if self.options(state.name).presence { expected } else { vec![] });
    }

    /// Rooms, subscriptions, publications and queued bytes, by the model and by the counters.
    pub(super) fn check_totals(&self) {
        let stats = self.registry.stats();
        assert_eq!(stats.rooms.load(Ordering::Relaxed), self.directory.len());
        let subscriptions: usize = self.connections.iter().flatten().map(|connection| connection.rooms.len()).sum();
        assert_eq!(stats.subscriptions.load(Ordering::Relaxed), subscriptions);
        assert_eq!(stats.published.load(Ordering::Relaxed), self.totals.published);
        assert_eq!(stats.reaped.load(Ordering::Relaxed), self.totals.reaped);
        assert_eq!(self.stats.evicted.load(Ordering::Relaxed), self.totals.evicted);
        for info in self.registry.list("", "", usize::MAX) {
            let name = self.names.iter().position(|name| *name == info.name).expect("a name of this run");
            let life = &self.lives[self.directory[&name]];
            assert_eq!((info.occupancy, info.position.offset), (life.members.len() as u64, life.offset));
        }
    }

    /// Everything is let through, and time passes until nothing more happens.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.clock.fetch_add(1, Ordering::Relaxed);
            self.now += Duration::from_millis(50);
            for n in 0..self.clients.len() {
                if self.connections[n].is_some() {
                    self.wire(n).takes = None;
                    self.writable(n);
                }
                self.read(n, usize::MAX);
            }
            for shard in 0..SHARDS {
                self.take_items(shard, usize::MAX);
                self.flush(shard, FlushQuota { members_per_slice: 100, members_per_turn: usize::MAX });
            }
            self.see_to_deadlines();
            self.check_step();
        }
    }

    fn check_end(&mut self) {
        self.settle();
        self.check_totals();
        for (shard, intake) in self.registry.shards().iter().enumerate() {
            assert!(intake.is_empty() && self.shards[shard].0.is_flushed(), "shard {shard} has something left");
            assert_eq!(intake.reserve(INTAKE.intake_bytes_max), Ok(()), "all bytes came back");
            for _ in 1..INTAKE.intake_items_max {
                assert_eq!(intake.reserve(0), Ok(()), "all items came back");
            }
            intake.release(INTAKE.intake_items_max, INTAKE.intake_bytes_max);
        }
        assert_eq!(self.budget.used(), 0, "nothing is queued");
        (0..self.clients.len()).for_each(|n| self.check_client(n));
        self.check_receipts();
        let epochs: BTreeSet<u64> = self.lives.iter().filter_map(|life| life.epoch).collect();
        assert_eq!(epochs.len(), self.lives.iter().filter(|life| life.epoch.is_some()).count(), "lives have epochs");
        // Everybody goes, and nothing stays.
        for n in 0..self.clients.len() {
            self.end(n, CloseReason::Kicked);
            self.remove(n);
        }
        for shard in 0..SHARDS {
            self.take_items(shard, usize::MAX);
            self.flush(shard, FlushQuota::default());
            assert_eq!(self.shards[shard].0.counts(), (0, 0), "lanes and rooms of shard {shard}");
        }
        self.sweep();
        self.check_totals();
        assert!(self.directory.is_empty() && self.registry.list("", "", 10).is_empty(), "a room stays");
    }

    /// True while a connection is open on the gateway's side.
    pub(super) fn phase(&self, n: usize) -> Option<Phase> {
        self.connections[n].as_ref().map(|connection| connection.phase)
    }
}
