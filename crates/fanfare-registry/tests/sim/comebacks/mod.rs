//! Clients that lose their connection again and again and come back with the last position they saw, while rooms go on: over 10,000
//! times a run, in virtual time. Each client checks every number it hears: what it was not told comes next, exactly once, or a gap with
//! its numbers; and each room's word that all was recovered is held against a model of what it keeps.

mod clients;
mod gateway;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_fanout::{Budget, Intake, IntakeLimits, LaneId, OutboxLimits, Shard, ShardStats};
use fanfare_protocol::{Position, RoomName};
use fanfare_registry::{HistoryLimits, KEPT_OVERHEAD_BYTES, Portion, Registry, RegistryLimits, Room, RoomOptions};

use crate::dice::Dice;
use crate::frames::Spelled;
use crate::seeds;
use crate::wires::Wires;

const SHARDS: usize = 3;
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
    let history = HistoryLimits { messages_max, bytes_max, age_max: Duration::from_millis(age_ms), cached_ms_max: 0 };
    let (join_leave, last_value) = (room == COMES_AND_GOES, room == LAST_VALUE);
    RoomOptions { join_leave, last_value, offsets: true, history, ..RoomOptions::default() }
}

#[derive(Debug, Default)]
struct Life(Vec<(String, usize, Duration)>);

impl Life {
    /// Number of the oldest that a room with these options still knows.
    fn first_kept(&self, room: usize, now: Duration) -> u64 {
        let HistoryLimits { messages_max, bytes_max, age_max, .. } = options(room).history;
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

seeds::totals! {
    heard,
    resumes,
    disconnects,
    recovered,
    unrecovered,
    parts,
    gaps,
    evicted,
    closed,
    skipped,
    cut,
}

/// How many clients a world has, and how often they come back.
fn shape(seed: u64) -> (usize, u64) {
    if seeds::is_large(seed) { (90, 10_000) } else { ([90, 30, 9][(seed % 3) as usize], 1_000) }
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
        let clients = (0..shape(seed).0).map(|n| Client {
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
        let (n, at) = (self.dice.below(self.clients.len()), self.dice.below(SHARDS));
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
                self.totals.closed += u64::from(self.registry.close(&self.names[room]));
            }
            _ => {}
        }
    }

    fn let_through(&mut self, n: usize, takes: Option<usize>) {
        let Client { shard, lane: Some(lane), .. } = self.clients[n] else { return };
        let (fanout, wires) = &mut self.shards[shard];
        wires.at(lane).takes = takes;
        fanout.writable(lane, wires);
    }

    /// Everything is let through: then everybody who is here knows all there is.
    fn check_end(&mut self) {
        let mut rounds = 0;
        while rounds < 4 || !self.is_settled() {
            rounds += 1;
            assert!(rounds < 2_000, "it does not end");
            (0..self.clients.len()).for_each(|n| self.let_through(n, None));
            (0..SHARDS).for_each(|at| self.turn(at, usize::MAX));
        }
        for n in 0..self.clients.len() {
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
        (0..self.clients.len()).for_each(|n| self.disconnect(n));
        for name in self.names.clone() {
            self.registry.close(&name);
        }
        self.registry.reap();
        assert_eq!((self.registry.history_bytes().0, self.registry.stats().rooms.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(self.registry.stats().recovered.load(Ordering::Relaxed), self.totals.recovered);
        assert_eq!(self.registry.stats().unrecovered.load(Ordering::Relaxed), self.totals.unrecovered);
    }

    /// Nothing is under way to anybody.
    fn is_settled(&self) -> bool {
        let is_told = |client: &Client| {
            client.behind.is_empty()
                && client.lane.is_none_or(|lane| self.shards[client.shard].0.queued(lane).bytes == 0)
        };
        let is_idle = |at: usize| self.registry.shards()[at].is_empty() && self.shards[at].0.is_flushed();
        self.clients.iter().all(is_told) && (0..SHARDS).all(is_idle)
    }
}

fn run(seed: u64) -> Totals {
    // Large worlds have both, too: they are every hundredth.
    let is_plenty = (seed / 100 + seed).is_multiple_of(2);
    let mut world = World::new(seed, if is_plenty { PLENTY } else { SCARCE });
    let (_, resumes) = shape(seed);
    while world.totals.resumes < resumes || world.totals.disconnects < resumes {
        world.step();
    }
    world.check_end();
    world.totals.cut = world.registry.stats().cut.load(Ordering::Relaxed);
    assert!(world.totals.cut == 0 || !world.is_plenty, "the node's bound is felt only where it is meant to be");
    world.totals
}

#[test]
fn sim_comebacks_have_no_silent_gap_and_no_duplicate() {
    let Some(totals) = seeds::run("sim_comebacks_have_no_silent_gap_and_no_duplicate", 10, run) else { return };
    let is_rich = totals.recovered > 2_000 && totals.unrecovered > 2_000 && totals.parts > 1_000 && totals.gaps > 20;
    assert!(is_rich && totals.evicted > 100 && totals.closed > 20, "too little happened: {totals:?}");
    assert!(totals.cut > 0, "the node's bound on histories was never felt: {totals:?}");
    assert!(totals.heard > 10 * totals.resumes && totals.skipped > 0, "too little was said: {totals:?}");
}
