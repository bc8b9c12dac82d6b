//! The run: clients, gateway and the model of both, a step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_fanout::{Budget, Delivery, FlushQuota, Intake, IntakeLimits, OutboxLimits, Shard, ShardStats};
use fanfare_protocol::wire::{Agreement, Deflater, DeflaterSettings, Window};
use fanfare_protocol::{CloseReason, Dialect, MessageLimits, Mode, RoomName, Session, UserName, Variant};
use fanfare_registry::{Portion, Registry, RegistryLimits, Said};
use parking_lot::Mutex;

use super::client::{Asked, BAD_MAX, Client, FRAGMENTS_MAX, IGNORED_BYTES_MAX, MESSAGE_BYTES_MAX, Memory};
use super::model::{Life, Publication};
use super::shell::{Connection, Order, Phase};
use crate::dice::Dice;
use crate::seeds;
use crate::wires::{Wire, Wires};

const SHARDS: usize = 3;
pub(super) const NAMES: usize = 12;
pub(super) const ROOMS_MAX: usize = 9;
const USERS: usize = 10;
const CLIENTS_MAX: usize = 24;
const STEPS: usize = 4_000;
/// Connections that ended and may be taken up again.
const AWAY_MAX: usize = 20;
pub(super) const ROOMS_PER_CLIENT: usize = 5;
pub(super) const REPLY_PAUSE: usize = 900;
pub(super) const REPLAY: Portion = Portion { messages_max: 5, bytes_max: 700 };
/// With so much waiting for it, who comes back is told later what it missed, bytes.
pub(super) const REPLAY_PAUSE: usize = 400;
/// From so many bytes on messages are compressed.
pub(super) const THRESHOLD: usize = 60;
pub(super) const ACKS_RESERVE_BYTES: usize = 0;
pub(super) const LIMITS: MessageLimits =
    MessageLimits { message_bytes_max: MESSAGE_BYTES_MAX, fragments_max: FRAGMENTS_MAX, bad_messages_max: BAD_MAX };
const INTAKE: IntakeLimits = IntakeLimits { intake_items_max: 60, intake_bytes_max: 5_000 };
/// By seed: little, so that much is dropped and evicted, or so much that queues become long.
const OUTBOXES: [OutboxLimits; 3] = [
    OutboxLimits { outbox_bytes_max: 1_500, outbox_messages_max: 10 },
    OutboxLimits { outbox_bytes_max: 3_000, outbox_messages_max: 24 },
    OutboxLimits { outbox_bytes_max: 9_000, outbox_messages_max: 80 },
];
/// For all outboxes together, by seed.
const BUDGETS: [usize; 2] = [6_000, 40_000];
pub(super) const PING: Duration = Duration::from_secs(5);
pub(super) const PONG: Duration = Duration::from_secs(2);
pub(super) const WRITE: Duration = Duration::from_secs(3);
pub(super) const CLOSE: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_secs(1);

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
    /// Came back, and were told all they had missed, or that they were not.
    recovered,
    unrecovered,
    /// Messages that were told again.
    replayed,
    /// Gaps that clients were told of, and publications that were missing by them because their rooms drop.
    gaps,
    missed,
    /// Messages that came compressed.
    inflated,
    /// Clients of event streams.
    streamed,
    /// Rooms that made place for others.
    rooms_evicted,
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
    pub(super) registry: Registry<Order>,
    pub(super) shards: Vec<(Shard<Said>, Wires)>,
    pub(super) outbox: OutboxLimits,
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
    /// Those who may come back.
    pub(super) away: Vec<Memory>,
    /// Makes the frames that shards should make.
    pub(super) deflater: Deflater,
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

fn deflater() -> Deflater {
    Deflater::new(DeflaterSettings { threshold_bytes: THRESHOLD, ..DeflaterSettings::default() })
}

impl World {
    fn new(seed: u64) -> Self {
        let intakes = (0..SHARDS).map(|_| Arc::new(Intake::new(INTAKE, || {}))).collect();
        let budget = Arc::new(Budget::new(BUDGETS[(seed / 3 % 2) as usize]));
        let stats = Arc::new(ShardStats::default());
        let outbox = OUTBOXES[(seed % 3) as usize];
        let shard = |_| {
            let mut shard = Shard::new(outbox, 2_500, budget.clone(), stats.clone());
            *shard.tools() = deflater();
            (shard, Wires::default())
        };
        Self {
            dice: Dice(seed),
            now: Duration::ZERO,
            next_sweep: SWEEP,
            clock: Arc::default(),
            registry: Registry::new(
                intakes,
                RegistryLimits { rooms_max: ROOMS_MAX, replay: REPLAY, ..RegistryLimits::default() },
                seed,
            ),
            shards: (0..SHARDS).map(shard).collect(),
            outbox,
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
            away: Vec::new(),
            deflater: deflater(),
            next_number: 0,
            totals: Totals::default(),
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

    pub(super) fn wire(&mut self, n: usize) -> &mut Wire {
        let connection = self.connections[n].as_ref().expect("a connected client");
        self.shards[connection.shard].1.at(connection.lane)
    }

    fn connect(&mut self, here: usize) {
        if here >= CLIENTS_MAX {
            return;
        }
        let memory = if !self.away.is_empty() && self.dice.percent(60) {
            let place = self.dice.below(self.away.len());
            self.away.swap_remove(place)
        } else {
            self.stranger()
        };
        let (own, known) = (memory.own, memory.known.clone());
        let dialect = match memory.variant {
            Variant::JsonRoom | Variant::JsonRooms => Dialect::Json,
            Variant::Text => Dialect::Text,
            Variant::TextJoined => Dialect::TextJoined,
            Variant::Sse => Dialect::Sse,
            Variant::Pusher => Dialect::Pusher,
        };
        let deflate = memory.window.map(|window| Agreement { window, client_context: false });
        let mode = own.map_or(Mode::Rooms, |room| Mode::Room(self.names[room].clone()));
        let user = self.dice.percent(70).then(|| self.users[self.dice.below(USERS)].clone());
        let n = self.clients.len();
        self.clients.push(Client::new(memory));
        self.connections.push(None);
        self.totals.connected += 1;
        let shard = self.dice.below(SHARDS);
        let since = own.and_then(|own| known.get(&own).copied());
        self.admit(n, shard, Session::new(mode, dialect).with_deflate(deflate), user, since);
        if own.is_some() {
            return;
        }
        for (room, since) in known {
            let fields = format!(",\"room\":\"room:{room}\",\"since\":\"{since}\"");
            let id = self.clients[n].command("subscribe", &fields, Some(Asked::Subscribe), &mut self.dice);
            self.clients[n].resumes.insert(id);
        }
    }

    /// Somebody who was never here.
    fn stranger(&mut self) -> Memory {
        let room = self.dice.below(NAMES).min(self.dice.below(NAMES));
        let (own, variant) = match self.dice.below(12) {
            0..6 => (None, Variant::JsonRooms),
            6 | 7 => (Some(room), Variant::JsonRoom),
            8 => (Some(room), Variant::Text),
            9 => (Some(room), Variant::TextJoined),
            _ => (Some(room), Variant::Sse),
        };
        let is_deflated = !matches!(variant, Variant::Sse | Variant::TextJoined) && self.dice.percent(40);
        let window = is_deflated.then(|| Window::ALL[self.dice.below(Window::ALL.len())]);
        Memory { variant, window, own, known: BTreeMap::new() }
    }

    /// A connection is over; whoever had it may come back to where it was.
    pub(super) fn part_with(&mut self, n: usize) {
        let Client { variant, window, own, ref known, .. } = self.clients[n];
        if !known.is_empty() && self.away.len() < AWAY_MAX {
            self.away.push(Memory { variant, window, own, known: known.clone() });
        }
    }

    /// A client says something; the gateway will read it later.
    fn speak(&mut self, n: usize) {
        let client = &mut self.clients[n];
        // Who is not read is not told to go on for ever.
        if !client.may_speak() || client.uplink.len() > 20_000 {
            return;
        }
        let dice = &mut self.dice;
        if client.only_listens() {
            // A little of what it says is passed over.
            if client.said < IGNORED_BYTES_MAX {
                client.said += 1;
                client.uplink.push_back(b'?');
            }
            return;
        }
        let number = self.next_number;
        let text = text(number, dice);
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
        let over = self.note_sweep();
        assert_eq!(
            self.registry.reap() + self.registry.expire(self.now),
            over,
            "what is over is reaped, and nothing else"
        );
        self.totals.reaped += over as u64;
        let is_wanted = |name: &RoomName| {
            let room = self.names.iter().position(|known| known == name).and_then(|name| self.directory.get(&name));
            room.is_some_and(|&life| !self.lives[life].members.is_empty() || self.lives[life].is_only_kept())
        };
        assert!(self.registry.list("", "", usize::MAX).iter().all(|room| is_wanted(&room.name)), "a vacant room stays");
    }

    pub(super) fn note_end(&mut self, n: usize, reason: CloseReason) {
        let client = &mut self.clients[n];
        assert_eq!(client.ended, None, "a connection ends once");
        let is_rude = matches!(
            reason,
            CloseReason::ProtocolError(_)
                | CloseReason::BinaryNotAllowed
                | CloseReason::BadUtf8
                | CloseReason::BadDeflate
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

    /// Rooms, subscriptions, publications and queued bytes, by the model and by the counters.
    pub(super) fn check_totals(&self) {
        let stats = self.registry.stats();
        assert_eq!(stats.rooms.load(Ordering::Relaxed), self.directory.len());
        let subscriptions: usize = self.connections.iter().flatten().map(|connection| connection.rooms.len()).sum();
        assert_eq!(stats.subscriptions.load(Ordering::Relaxed), subscriptions);
        assert_eq!(stats.published.load(Ordering::Relaxed), self.totals.published);
        assert_eq!(stats.reaped.load(Ordering::Relaxed), self.totals.reaped);
        assert_eq!(self.stats.evicted.load(Ordering::Relaxed), self.totals.evicted);
        assert_eq!(stats.recovered.load(Ordering::Relaxed), self.totals.recovered);
        assert_eq!(stats.unrecovered.load(Ordering::Relaxed), self.totals.unrecovered);
        assert_eq!(stats.evicted.load(Ordering::Relaxed), self.totals.rooms_evicted);
        let kept: usize = self.directory.values().map(|&life| self.lives[life].kept_bytes()).sum();
        assert_eq!(self.registry.history_bytes().0, kept, "the histories are what the rooms keep");
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
        (0..NAMES).for_each(|room| _ = self.close_room(room));
        self.sweep();
        self.check_totals();
        self.check_dropped();
        assert!(self.directory.is_empty() && self.registry.list("", "", 10).is_empty(), "a room stays");
    }

    /// True while a connection is open on the gateway's side.
    pub(super) fn phase(&self, n: usize) -> Option<Phase> {
        self.connections[n].as_ref().map(|connection| connection.phase)
    }
}

/// What is said: mostly short; or so long that a large window finds again at its end what a small one has forgotten.
fn text(number: usize, dice: &mut Dice) -> String {
    if !dice.percent(4) {
        return format!("#{number}#{}", "-".repeat(dice.below(60)));
    }
    let block: String = (0..540).map(|_| char::from(b'a' + dice.below(16) as u8)).collect();
    format!("#{number}#{block}{}", &block[..90])
}
