//! Clients that lose their connection again and again and come back with the last position they saw, while rooms go on: over 10,000
//! times a run, in virtual time. Each client checks every number it hears: what it was not told comes next, exactly once, or a gap with
//! its numbers; and each room's word that all was recovered is held against a model of what it keeps.
//!
//! `SIM_SEEDS=n` makes n runs with different seeds; `SIM_SEED=s` repeats one.
#![cfg(not(loom))]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{IoSlice, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_fanout::{
    Budget, Encode, FlushQuota, Intake, IntakeLimits, Lane, LaneEvent, LaneId, OutboxLimits, Outcome, Shard,
    ShardStats, Sink,
};
use fanfare_protocol::{Payload, Position, Published, RoomEvent, RoomName};
use fanfare_registry::{
    Draft, HistoryLimits, Item, KEPT_OVERHEAD_BYTES, Missed, Portion, Registry, RegistryLimits, Room, RoomOptions, Said,
};

const SHARDS: usize = 3;
const CLIENTS: usize = 90;
const RESUMES: usize = 10_000;
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const REPLAY: Portion = Portion { messages_max: 5, bytes_max: 700 };
const OUTBOX: OutboxLimits = OutboxLimits { outbox_bytes_max: 2_500, outbox_messages_max: 50 };
/// Enough for what these rooms keep; and so little that all of them feel it.
const PLENTY: usize = 10_000_000;
const SCARCE: usize = 60_000;

/// What the rooms keep: messages, bytes, milliseconds.
const ROOMS: [(u32, usize, u64); 9] = [
    (1_000, 1_000_000, 0),
    (60, 1_000_000, 0),
    (1, 1_000_000, 0),
    (100, 6 * (KEPT_OVERHEAD_BYTES + 20), 0),
    (1_000, 1_000_000, 5_000),
    (1_000, 1_000_000, 300),
    (0, 0, 0),
    (300, 1_000_000, 0),
    (1, 1_000_000, 0),
];
const COMES_AND_GOES: usize = 7;
const LAST_VALUE: usize = 8;

fn options(room: usize) -> RoomOptions {
    let (messages_max, bytes_max, age_ms) = ROOMS[room];
    let history = HistoryLimits { messages_max, bytes_max, age_max: Duration::from_millis(age_ms) };
    let (join_leave, last_value) = (room == COMES_AND_GOES, room == LAST_VALUE);
    RoomOptions { join_leave, last_value, offsets: true, history, ..RoomOptions::default() }
}

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
}

/// `[room|M|offset|text]`, `[room|J]`, `[room|L]`, `[room|C]`.
struct Spelled(Arc<Said>);

fn spell(event: &RoomEvent, out: &mut Vec<u8>) {
    match event {
        RoomEvent::Message(room, Published { offset, payload, .. }) => {
            let (Payload::Text(text) | Payload::Json(text) | Payload::Binary(text)) = payload;
            let offset = offset.expect("every room of this run tells numbers");
            write!(out, "[{room}|M|{offset}|{}]", String::from_utf8_lossy(text))
        }
        RoomEvent::Joined(room, _) => write!(out, "[{room}|J]"),
        RoomEvent::Left(room, _) => write!(out, "[{room}|L]"),
        RoomEvent::RoomClosed(room) => write!(out, "[{room}|C]"),
    }
    .expect("memory takes everything");
}

impl Encode for Spelled {
    const VARIANTS: u8 = 1;
    type Tools = ();
    type Room = ();

    fn encode(&self, _variant: u8, _tools: &mut (), out: &mut Vec<u8>) {
        spell(&self.0.event, out);
    }

    fn payload_bytes(&self) -> usize {
        self.0.payload_bytes()
    }
}

/// The sockets of a shard: how much more each takes (`None`: everything), and what it took.
#[derive(Debug, Default)]
struct Wires(BTreeMap<u32, (Option<usize>, Vec<u8>)>);

impl Sink for Wires {
    fn send(&mut self, lane: u32, bytes: &[u8]) -> Outcome {
        let (takes, received) = self.0.get_mut(&lane).expect("only open lanes are offered anything");
        let taken = takes.map_or(bytes.len(), |left| left.min(bytes.len()));
        *takes = takes.map(|left| left - taken);
        received.extend_from_slice(&bytes[..taken]);
        Outcome::Taken(taken)
    }

    fn send_vectored(&mut self, lane: u32, slices: &[IoSlice<'_>]) -> Outcome {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.send(lane, &bytes)
    }
}

/// One life of a room, as it must be: what each number says, what keeping it is charged, and when it was said.
#[derive(Debug, Default)]
struct Life(Vec<(String, usize, Duration)>);

impl Life {
    /// Number of the oldest that a room with these options still knows.
    fn first_kept(&self, room: usize, now: Duration) -> u64 {
        let HistoryLimits { messages_max, bytes_max, age_max } = options(room).history;
        let (mut first, mut bytes) = (self.0.len(), 0);
        while first > 0 && self.0.len() - first < messages_max as usize {
            let (_, charge, at) = &self.0[first - 1];
            bytes += charge;
            if bytes > bytes_max || (!age_max.is_zero() && *at + age_max <= now) {
                break;
            }
            first -= 1;
        }
        first as u64 + 1
    }
}

/// What a client remembers of a room, over all its connections.
#[derive(Debug, Default)]
struct Memory {
    /// The last position it saw.
    position: Option<Position>,
    /// It has asked to be in the room, and not heard of its end.
    is_in: bool,
    /// It is told the last value first, which it may know.
    may_hear_again: bool,
}

#[derive(Debug)]
struct Client {
    shard: usize,
    lane: Option<LaneId>,
    memories: BTreeMap<usize, Memory>,
    // The gateway's side of its connection.
    rooms: BTreeMap<usize, Arc<Room>>,
    /// Rooms in which it has not been told all it missed, and up to where it was.
    behind: VecDeque<(usize, u64)>,
}

#[derive(Debug, Default)]
struct Totals {
    heard: usize,
    resumes: usize,
    disconnects: usize,
    recovered: usize,
    unrecovered: usize,
    parts: usize,
    gaps: u64,
    evicted: usize,
    closed: usize,
    skipped: usize,
}

struct World {
    dice: Dice,
    now: Duration,
    next_sweep: Duration,
    registry: Registry<()>,
    shards: Vec<(Shard<Spelled>, Wires)>,
    names: Vec<RoomName>,
    clients: Vec<Client>,
    by_lane: BTreeMap<(usize, u32), usize>,
    lives: BTreeMap<u64, Life>,
    /// Publications that were not for the connection they came from.
    not_for: BTreeSet<(u64, u64, usize, u32, u32)>,
    /// The model knows what is kept only where the node's bound is out of reach.
    is_plenty: bool,
    totals: Totals,
}

impl World {
    fn new(seed: u64, history_bytes_max: usize) -> Self {
        let intakes = (0..SHARDS).map(|_| Arc::new(Intake::new(IntakeLimits::default(), || {}))).collect();
        let (budget, stats) = (Arc::new(Budget::new(1 << 30)), Arc::new(ShardStats::default()));
        let shard = |_| (Shard::new(OUTBOX, 4_000, budget.clone(), stats.clone()), Wires::default());
        let limits = RegistryLimits { rooms_max: 100, history_bytes_max, replay: REPLAY, ..RegistryLimits::default() };
        let mut dice = Dice(seed);
        let clients = (0..CLIENTS).map(|n| Client {
            shard: n % SHARDS,
            lane: None,
            memories: (0..1 + n % 3).map(|_| (dice.below(ROOMS.len()), Memory::default())).collect(),
            rooms: BTreeMap::new(),
            behind: VecDeque::new(),
        });
        Self {
            clients: clients.collect(),
            now: Duration::ZERO,
            next_sweep: SWEEP_EVERY,
            registry: Registry::new(intakes, limits, seed),
            shards: (0..SHARDS).map(shard).collect(),
            names: (0..ROOMS.len()).map(|n| RoomName::parse(&n.to_string()).expect("a valid name")).collect(),
            by_lane: BTreeMap::new(),
            lives: BTreeMap::new(),
            not_for: BTreeSet::new(),
            is_plenty: history_bytes_max == PLENTY,
            totals: Totals::default(),
            dice,
        }
    }

    // ---- the gateway ----

    fn connect(&mut self, n: usize) {
        let at = self.clients[n].shard;
        let lane = self.shards[at].0.open(0);
        self.shards[at].1.0.insert(lane.index, (None, Vec::new()));
        self.by_lane.insert((at, lane.index), n);
        self.clients[n].lane = Some(lane);
        for room in self.clients[n].memories.keys().copied().collect::<Vec<_>>() {
            self.subscribe(n, room);
        }
    }

    fn subscribe(&mut self, n: usize, room: usize) {
        let Client { shard, lane: Some(lane), ref mut memories, .. } = self.clients[n] else { return };
        let Some(memory) = memories.get_mut(&room).filter(|memory| !memory.is_in) else { return };
        memory.is_in = true;
        let since = memory.position;
        let joined = self.registry.rejoin(&self.names[room], options(room), shard, None, since, self.now);
        let joined = joined.expect("there is room for a room");
        let life = self.lives.entry(joined.position.epoch).or_default();
        assert_eq!(joined.position.offset, life.0.len() as u64);
        if let Some(since) = since {
            let is_kept = since.epoch == joined.position.epoch && since.offset + 1 >= life.first_kept(room, self.now);
            assert!(joined.recovered == is_kept || (!joined.recovered && !self.is_plenty), "the truth about {since}");
            self.totals.resumes += 1;
            *(if joined.recovered { &mut self.totals.recovered } else { &mut self.totals.unrecovered }) += 1;
        }
        let Position { epoch, offset } = joined.position;
        self.reply(n, format!("[{room}|S|{epoch}|{offset}|{}]", joined.recovered).as_bytes());
        self.clients[n].rooms.insert(room, joined.room);
        // The first part goes out at once where nothing waits, as the rest will.
        if joined.missed.seq.is_some() || self.shards[shard].0.queued(lane).bytes == 0 {
            self.replay(n, room, joined.missed);
        } else if let Some(since) = since {
            self.clients[n].behind.push_back((room, since.offset));
        }
    }

    /// Tells part of what was missed; after the last part live events follow.
    fn replay(&mut self, n: usize, room: usize, missed: Missed) {
        let Client { shard, lane: Some(lane), .. } = self.clients[n] else { return };
        let mut frames = Vec::new();
        if let Some((from, to)) = missed.lost {
            write!(frames, "[{room}|G|{from}|{to}]").expect("memory takes everything");
        }
        for kept in missed.messages {
            if kept.except == Some((shard, lane)) {
                self.totals.skipped += 1;
                continue;
            }
            spell(&RoomEvent::Message(self.names[room].clone(), kept.published), &mut frames);
        }
        self.reply(n, &frames);
        let Some(member) = self.clients[n].rooms.get(&room).filter(|_| self.clients[n].lane == Some(lane)) else {
            return;
        };
        match missed.seq {
            Some(seq) => assert!(self.shards[shard].0.join(lane, member.id(), seq), "a member of it from here on"),
            None => {
                self.totals.parts += 1;
                self.clients[n].behind.push_front((room, missed.offset));
            }
        }
    }

    /// The next part for every client that has taken the one before.
    fn replay_more(&mut self, at: usize) {
        for n in (0..CLIENTS).filter(|n| n % SHARDS == at) {
            let Some(lane) = self.clients[n].lane else { continue };
            if self.shards[at].0.queued(lane).bytes > 0 {
                continue;
            }
            if let Some((room, after)) = self.clients[n].behind.pop_front() {
                let missed = self.registry.missed(&self.clients[n].rooms[&room], after, self.now);
                self.replay(n, room, missed);
            }
        }
    }

    fn reply(&mut self, n: usize, frames: &[u8]) {
        let Client { shard, lane: Some(lane), .. } = self.clients[n] else { return };
        let (fanout, wires) = &mut self.shards[shard];
        fanout.reply(lane, Lane::Data, frames, wires);
    }

    /// The connection ends, and what was under way may be lost: from anywhere, in the middle of a frame.
    fn disconnect(&mut self, n: usize) {
        let Some(lane) = self.clients[n].lane else { return };
        let at = self.clients[n].shard;
        let received = &mut self.shards[at].1.0.get_mut(&lane.index).expect("an open lane has a wire").1;
        if self.dice.percent(70) {
            let heard = self.dice.below(received.len() + 1);
            received.truncate(heard);
        }
        self.hear(n);
        self.shards[at].0.close(lane);
        self.shards[at].1.0.remove(&lane.index);
        self.by_lane.remove(&(at, lane.index));
        self.clients[n].lane = None;
        self.clients[n].behind.clear();
        self.clients[n].memories.values_mut().for_each(|memory| memory.is_in = false);
        for room in std::mem::take(&mut self.clients[n].rooms).into_values() {
            self.registry.leave(&room, at, None, false);
        }
        self.totals.disconnects += 1;
    }

    fn publish(&mut self) {
        let room = self.dice.below(ROOMS.len());
        let sender = self.dice.below(CLIENTS);
        let except = self.clients[sender].lane.filter(|_| self.dice.percent(20));
        let except = except.map(|lane| (self.clients[sender].shard, lane));
        let text = format!("#{}{}", self.dice.0 % 100_000, "-".repeat(self.dice.below(20)));
        let charge = text.len() + KEPT_OVERHEAD_BYTES;
        let payload = Payload::Text(text.clone().into_bytes().into());
        let draft = Draft { user: None, payload, except, receipt: None };
        let said =
            self.registry.publish(&self.names[room], options(room), draft, self.now).expect("it is not over a bound");
        let Position { epoch, offset } = said.position;
        let life = self.lives.entry(epoch).or_default();
        life.0.push((text, charge, self.now));
        assert_eq!(offset, life.0.len() as u64, "dense from 1");
        if let Some((shard, lane)) = except {
            self.not_for.insert((epoch, offset, shard, lane.index, lane.generation));
        }
    }

    fn turn(&mut self, at: usize, items: usize) {
        for _ in 0..items {
            match self.registry.shards()[at].pop() {
                Some(Item::Event { room, seq, event, except, receipt }) => {
                    self.shards[at].0.accept(room, seq, &Spelled(event), except, receipt);
                }
                Some(Item::CloseRoom(room)) => {
                    let (fanout, wires) = &mut self.shards[at];
                    fanout.flush_room(room, wires);
                    for n in (0..CLIENTS).filter(|n| n % SHARDS == at) {
                        self.leave_closed(n, room);
                    }
                }
                Some(Item::Order(())) | None => break,
            }
        }
        let (fanout, wires) = &mut self.shards[at];
        fanout.flush(wires, FlushQuota { members_per_slice: 5, members_per_turn: 40 });
        let released = fanout.take_released();
        self.registry.shards()[at].release(released.items, released.bytes);
        self.replay_more(at);
        let mut events = Vec::new();
        self.shards[at].0.take_events(&mut events);
        for event in events {
            if let LaneEvent::Evicted(lane, ..) = event {
                self.totals.evicted += 1;
                self.disconnect(self.by_lane[&(at, lane.index)]);
            }
        }
    }

    fn leave_closed(&mut self, n: usize, id: fanfare_fanout::RoomId) {
        let Some((&room, member)) = self.clients[n].rooms.iter().find(|(_, room)| room.id() == id) else { return };
        let (member, lane) = (member.clone(), self.clients[n].lane.expect("a member is connected"));
        let at = self.clients[n].shard;
        if !self.shards[at].0.leave_unsent(lane, id) {
            // Who was still behind is no member there yet, and is told by hand.
            self.clients[n].behind.retain(|(other, _)| *other != room);
            self.reply(n, format!("[{room}|C]").as_bytes());
        }
        self.clients[n].rooms.remove(&room);
        self.registry.leave(&member, at, None, false);
    }

    // ---- the clients ----

    /// A client takes in all whole frames.
    fn hear(&mut self, n: usize) {
        let Client { shard, lane: Some(lane), .. } = self.clients[n] else { return };
        let received = &mut self.shards[shard].1.0.get_mut(&lane.index).expect("an open lane has a wire").1;
        let whole = received.iter().rposition(|&byte| byte == b']').map_or(0, |end| end + 1);
        let frames: Vec<u8> = received.drain(..whole).collect();
        for frame in frames.split(|&byte| byte == b']').filter(|frame| !frame.is_empty()) {
            let frame = std::str::from_utf8(&frame[1..]).expect("text").to_owned();
            let fields: Vec<&str> = frame.split('|').collect();
            self.hear_frame(n, lane, &fields);
        }
    }

    fn hear_frame(&mut self, n: usize, lane: LaneId, fields: &[&str]) {
        let number = |at: usize| fields[at].parse::<u64>().expect("a number");
        let room = number(0) as usize;
        let shard = self.clients[n].shard;
        let memory = self.clients[n].memories.get_mut(&room).expect("a room it asked for");
        if fields[1] == "S" {
            let told = Position { epoch: number(2), offset: number(3) };
            memory.may_hear_again = memory.position.is_none() && room == LAST_VALUE;
            match memory.position {
                Some(known) if fields[4] == "true" => {
                    assert!(known.epoch == told.epoch && known.offset <= told.offset, "{known} is before {told}");
                }
                _ => memory.position = Some(told),
            }
            return;
        }
        let position = memory.position.as_mut().expect("`subscribed` comes first");
        let is_for =
            |offset: u64| !self.not_for.contains(&(position.epoch, offset, shard, lane.index, lane.generation));
        let next = (position.offset + 1..).find(|&offset| is_for(offset)).expect("there is an end");
        match fields[1] {
            "M" => {
                let is_known = std::mem::take(&mut memory.may_hear_again) && number(2) == position.offset;
                assert!(is_known || number(2) == next, "client {n} in {room} after {position}: {fields:?}, not {next}");
                position.offset = number(2);
                assert_eq!(fields[3], self.lives[&position.epoch].0[number(2) as usize - 1].0);
                self.totals.heard += 1;
            }
            "G" => {
                assert!((position.offset + 1..=next).contains(&number(2)), "a gap begins where the stream ended");
                assert!(number(3) >= number(2));
                self.totals.gaps += number(3) + 1 - number(2);
                position.offset = number(3);
            }
            "C" => memory.is_in = false,
            "J" | "L" => {}
            other => panic!("a frame {other}"),
        }
    }

    // ---- the run ----

    fn step(&mut self) {
        self.now += Duration::from_millis(self.dice.below(8) as u64);
        if self.now >= self.next_sweep {
            self.next_sweep = self.now + SWEEP_EVERY;
            self.registry.reap();
            self.registry.expire(self.now);
            let (used, max) = self.registry.history_bytes();
            assert!(used <= max, "{used} bytes of {max}");
        }
        let (n, at) = (self.dice.below(CLIENTS), self.dice.below(SHARDS));
        let lane = self.clients[n].lane;
        match self.dice.below(100) {
            0..12 if lane.is_none() => self.connect(n),
            0..12 => {
                let room = self.dice.below(ROOMS.len());
                self.subscribe(n, room);
            }
            12..18 => self.disconnect(n),
            18..36 => self.publish(),
            36..37 => (0..40).for_each(|_| self.publish()),
            37..80 => {
                let items = self.dice.below(60);
                self.turn(at, items);
            }
            80..90 => self.hear(n),
            90..99 => {
                let takes = [None, Some(0), Some(self.dice.below(1_500))][self.dice.below(3)];
                self.let_through(n, takes);
            }
            _ if self.dice.percent(3) => {
                let room = self.dice.below(ROOMS.len());
                self.totals.closed += usize::from(self.registry.close(&self.names[room]));
            }
            _ => {}
        }
    }

    fn let_through(&mut self, n: usize, takes: Option<usize>) {
        let Client { shard, lane: Some(lane), .. } = self.clients[n] else { return };
        let (fanout, wires) = &mut self.shards[shard];
        wires.0.get_mut(&lane.index).expect("an open lane has a wire").0 = takes;
        fanout.writable(lane, wires);
    }

    /// Everything is let through: then everybody who is here knows all there is.
    fn check_end(&mut self) {
        for _ in 0..2_000 {
            (0..CLIENTS).for_each(|n| self.let_through(n, None));
            (0..SHARDS).for_each(|at| self.turn(at, usize::MAX));
        }
        for n in 0..CLIENTS {
            self.hear(n);
            let Client { shard, lane: Some(lane), .. } = self.clients[n] else { continue };
            assert!(self.clients[n].behind.is_empty(), "client {n} is still behind");
            for (room, member) in &self.clients[n].rooms {
                let position = self.clients[n].memories[room].position.expect("it was told");
                let here = member.info().position;
                let is_for = |offset| !self.not_for.contains(&(here.epoch, offset, shard, lane.index, lane.generation));
                assert_eq!(position.epoch, here.epoch);
                let missing = (position.offset + 1..=here.offset).filter(|&offset| is_for(offset)).count();
                assert_eq!(missing, 0, "client {n} in {room}: {position} of {here}");
            }
        }
        (0..CLIENTS).for_each(|n| self.disconnect(n));
        for name in self.names.clone() {
            self.registry.close(&name);
        }
        self.registry.reap();
        assert_eq!((self.registry.history_bytes().0, self.registry.stats().rooms.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(self.registry.stats().recovered.load(Ordering::Relaxed), self.totals.recovered as u64);
        assert_eq!(self.registry.stats().unrecovered.load(Ordering::Relaxed), self.totals.unrecovered as u64);
        let totals = &self.totals;
        let is_rich =
            totals.recovered > 2_000 && totals.unrecovered > 2_000 && totals.parts > 1_000 && totals.gaps > 20;
        assert!(is_rich && totals.evicted > 100 && totals.closed > 20, "too little happened: {totals:?}");
        assert!(totals.heard > 10 * totals.resumes && totals.skipped > 0, "too little was said: {totals:?}");
    }
}

fn run(seed: u64, history_bytes_max: usize) {
    let mut world = World::new(seed, history_bytes_max);
    while world.totals.resumes < RESUMES || world.totals.disconnects < RESUMES {
        world.step();
    }
    world.check_end();
    let cut = world.registry.stats().cut.load(Ordering::Relaxed);
    assert_eq!(cut == 0, world.is_plenty, "the node's bound is felt where it is meant to be");
}

#[test]
fn sim_ten_thousand_resumes_without_a_silent_gap_or_a_duplicate() {
    let read = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seeds = match read("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..read("SIM_SEEDS").unwrap_or(1),
    };
    for seed in seeds {
        for history_bytes_max in [PLENTY, SCARCE] {
            if std::panic::catch_unwind(|| run(seed, history_bytes_max)).is_err() {
                panic!("seed {seed} with {history_bytes_max} bytes failed; repeat with SIM_SEED={seed}");
            }
        }
    }
}
