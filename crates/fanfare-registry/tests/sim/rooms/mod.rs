//! The registry and several shards in virtual time: many clients that join, leave, publish, stall, are evicted and go, and a
//! check of everything each of them received against one log per life of a room.

mod check;
mod clients;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_fanout::{Budget, Delivery, Intake, IntakeLimits, LaneId, OutboxLimits, Shard, ShardStats};
use fanfare_protocol::{RoomName, UserName};
use fanfare_registry::{Registry, RegistryLimits, Room, RoomOptions};
use parking_lot::Mutex;

use crate::dice::Dice;
use crate::frames::Spelled;
use crate::seeds;
use crate::wires::Wires;

const SHARDS: usize = 3;
const USERS: usize = 60;
const ROOMS_PER_CLIENT_MAX: usize = 12;
const SWEEP_EVERY: Duration = Duration::from_secs(10);
const INTAKE: IntakeLimits = IntakeLimits { intake_items_max: 80, intake_bytes_max: 800 };
const OUTBOX: OutboxLimits = OutboxLimits { outbox_bytes_max: 3_000, outbox_messages_max: 60 };

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

seeds::totals! {
    joins,
    leaves,
    refused_rooms,
    overloaded,
    reaped,
    closed,
    evicted,
    received,
    lost,
}

/// How large a world is.
#[derive(Debug, Clone, Copy)]
struct Shape {
    names: usize,
    rooms_max: usize,
    clients_max: usize,
    joins_and_leaves: u64,
}

impl Shape {
    /// Few names and clients meet more often; many fill the bounds.
    fn of(seed: u64) -> Self {
        let (names, rooms_max, clients_max) = match seed % 4 {
            1 | 2 => (40, 30, 60),
            3 if !seeds::is_large(seed) => (8, 6, 20),
            _ => (150, 110, 300),
        };
        Self { names, rooms_max, clients_max, joins_and_leaves: if seeds::is_large(seed) { 100_000 } else { 10_000 } }
    }
}

struct World {
    shape: Shape,
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
        let shape = Shape::of(seed);
        Self {
            shape,
            dice: Dice(seed),
            registry: Registry::new(
                intakes,
                RegistryLimits { rooms_max: shape.rooms_max, ..RegistryLimits::default() },
                seed,
            ),
            shards: (0..SHARDS).map(shard).collect(),
            budget,
            stats,
            names: (0..shape.names).map(|n| RoomName::parse(&format!("room:{n}")).expect("a valid name")).collect(),
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
                let name = self.dice.below(self.shape.names);
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
}

fn run(seed: u64) -> Totals {
    let mut world = World::new(seed);
    while world.totals.joins + world.totals.leaves < world.shape.joins_and_leaves {
        world.step();
    }
    world.check_end();
    world.check_nothing_stays();
    world.totals
}

#[test]
fn sim_rooms_and_shards() {
    let Some(totals) = seeds::run("sim_rooms_and_shards", 10, run) else { return };
    let is_rich = totals.evicted > 50 && totals.reaped > 100 && totals.closed > 50 && totals.overloaded > 50;
    assert!(is_rich && totals.refused_rooms > 50, "a run in which too little happened: {totals:?}");
    assert!(totals.received > 10 * totals.lost, "most of it must arrive: {totals:?}");
}
