//! What a run does, as one value that the swarm carries out.

pub mod echo;
pub mod fairness;
pub mod rooms;
pub mod shards;
pub mod slow;

use std::time::Duration;

use fanfare_client::{RoomName, Trust, Url};

use crate::cli::Common;
use crate::dialect::{Dialect, PusherApp};
use crate::pace::Schedule;
use crate::report::Report;

/// Runs to be carried out one after the other, and what their reports come to.
#[derive(Debug)]
pub struct Task {
    /// The runs.
    pub plans: Vec<Plan>,
    /// Makes one report of those of the runs, in the same order.
    pub sum_up: SumUp,
}

/// Makes one report of several. There is at least one.
pub type SumUp = fn(&[Plan], Vec<Report>) -> Option<Report>;

impl Task {
    /// A single run.
    #[must_use]
    pub fn of(plan: Plan) -> Self {
        Self { plans: vec![plan], sum_up: |_, mut reports| reports.pop() }
    }
}

/// A run: who connects where, who publishes when, and what is expected.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the scenario.
    pub name: &'static str,
    /// Random tag that keeps this run's publications apart from others'.
    pub run: u32,
    /// One per room: where its members connect, and its name for publishing over HTTP.
    pub rooms: Vec<Room>,
    /// Connections; connection `i` subscribes to room `i % rooms`.
    pub connections: usize,
    /// The last of them, which come and go while the others stay.
    pub roamers: usize,
    /// The last of those that stay, which do not read while publications go out.
    pub stalled: Stalled,
    /// A room apart from the others, with members and a pace of its own: the last one.
    pub beside: Option<Beside>,
    /// Publishers of each room.
    pub publishers_per_room: usize,
    /// How publications get to the gateway.
    pub via: Via,
    /// What the connections speak.
    pub dialect: Dialect,
    /// Credentials of a Pusher application.
    pub pusher: Option<PusherApp>,
    /// When publications are due.
    pub pace: Pace,
    /// How long publishing lasts.
    pub duration: Duration,
    /// Length of each payload, bytes.
    pub payload_bytes: usize,
    /// Worker threads.
    pub threads: usize,
    /// Connections being opened at a time, over all threads.
    pub opening: usize,
    /// Longest time without an arrival after the last publication.
    pub settle: Duration,
    /// Whose certificates count, where TLS is spoken with anybody.
    pub trust: Option<Trust>,
    /// Token to connect with.
    pub token: Option<String>,
    /// Connect from several loopback addresses where one has too few ports.
    pub spread_sources: bool,
    /// Process of the gateway.
    pub pid: Option<u32>,
    /// By how much the gateway's memory may grow while publications go out, bytes.
    pub memory_max: Option<u64>,
    /// Connections that the gateway closes are no failure.
    pub allow_closes: bool,
    /// Connections that the gateway sends away, or that break, come back with their positions; at least so many do.
    pub returns_min: Option<u64>,
    /// Between opening and publishing, all connections are dropped at once and come back.
    pub storms: bool,
    /// Between opening and publishing, nothing happens for this time.
    pub hold: Option<Duration>,
    /// After the end, memory is looked at for this time.
    pub leaving: Option<Duration>,
}

/// Subscribers that do not read while publications go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stalled {
    /// So many, of whom the gateway may close whom it likes.
    Slow(usize),
    /// So many, whose sockets take everything that is sent: they cost this program nothing, and none may be closed.
    Sinks {
        /// How many.
        count: usize,
        /// What the socket of each must take, bytes, the kernel's own included.
        bytes: usize,
    },
}

impl Stalled {
    /// Nobody.
    pub const NONE: Self = Self::Slow(0);

    /// How many.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::Slow(count) | Self::Sinks { count, .. } => count,
        }
    }
}

/// A small room beside the others: a thread of this program is there for it alone, so that its latencies are the
/// gateway's and not those of reading everything else.
#[derive(Debug, Clone, Copy)]
pub struct Beside {
    /// Its members; the first of them publishes.
    pub members: usize,
    /// When its publications are due.
    pub schedule: Schedule,
}

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Stays and reads.
    Stays,
    /// Stays, and does not read while publications go out.
    Stalls,
    /// Joins and leaves.
    Roams,
}

/// One room of a [`Plan`].
#[derive(Debug, Clone)]
pub struct Room {
    /// Where its subscribers connect.
    pub url: Url,
    /// Where those connect that join and leave by command; `None` where there is no such thing.
    pub commands_url: Option<Url>,
    /// Its name.
    pub name: Option<RoomName>,
}

/// How publications get to the gateway.
#[derive(Debug, Clone)]
pub enum Via {
    /// The first members of each room send them.
    Members,
    /// A request each.
    Http {
        /// The admin listener.
        api: Url,
        /// API key.
        key: Option<String>,
    },
}

/// When publications are due.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// At computed times.
    Rate(Schedule),
    /// As soon as the window of a publisher has room.
    Outstanding {
        /// Publications of a publisher that have not reached all members.
        window: usize,
        /// Publications of each publisher at most.
        quota: u64,
    },
}

impl Plan {
    /// One of which everything but rooms, publishers and pace is as the arguments say.
    ///
    /// # Errors
    /// Authorities that cannot be read.
    fn new(name: &'static str, common: &Common, base: &Url, run: u32) -> anyhow::Result<Self> {
        let pusher = PusherApp { key: common.pusher_key.clone(), secret: common.pusher_secret.clone() };
        Ok(Self {
            name,
            run,
            rooms: Vec::new(),
            connections: 0,
            roamers: 0,
            stalled: Stalled::NONE,
            beside: None,
            publishers_per_room: 1,
            via: Via::Members,
            dialect: common.dialect,
            pusher: (common.dialect == Dialect::Pusher).then_some(pusher),
            pace: Pace::Outstanding { window: 1, quota: 0 },
            duration: common.duration,
            payload_bytes: common.payload.unwrap_or(128),
            threads: common.threads.into(),
            opening: common.opening as usize,
            settle: common.settle,
            trust: if base.is_tls() { Some(common.trust()?) } else { None },
            token: common.token.clone(),
            spread_sources: Common::is_loopback(base),
            pid: common.pid,
            memory_max: None,
            allow_closes: common.allow_closes,
            returns_min: None,
            storms: false,
            hold: None,
            leaving: None,
        })
    }

    /// Publishers in all.
    #[must_use]
    pub fn publishers(&self) -> usize {
        self.rooms.len() * self.publishers_per_room
    }

    /// The room beside the others.
    #[must_use]
    pub fn is_beside(&self, room: usize) -> bool {
        self.beside.is_some() && room + 1 == self.rooms.len()
    }

    /// Rooms, connections: without those of the room beside.
    fn main(&self) -> (usize, usize) {
        match self.beside {
            Some(beside) => (self.rooms.len() - 1, self.connections - beside.members),
            None => (self.rooms.len(), self.connections),
        }
    }

    /// Room of a connection.
    #[must_use]
    pub fn room_of(&self, connection: usize) -> usize {
        let (rooms, connections) = self.main();
        if connection < connections { connection % rooms } else { rooms }
    }

    /// What a connection does.
    #[must_use]
    pub fn role_of(&self, connection: usize) -> Role {
        let staying = self.connections - self.roamers;
        match connection {
            roams if roams >= staying => Role::Roams,
            stalls if stalls >= staying - self.stalled.count() => Role::Stalls,
            _ => Role::Stays,
        }
    }

    /// Those of a room that stay and read.
    #[must_use]
    pub fn waited_for(&self, room: usize) -> usize {
        match self.beside {
            Some(beside) if self.is_beside(room) => beside.members,
            _ => {
                let (rooms, connections) = self.main();
                (connections - self.roamers - self.stalled.count() + rooms - 1 - room) / rooms
            }
        }
    }

    /// A publisher does not get what it publishes.
    #[must_use]
    pub fn hears_itself_not(&self) -> bool {
        matches!(self.via, Via::Members) && !self.dialect.sender_included()
    }

    /// Publisher that a connection is: its index over all rooms, or none.
    #[must_use]
    pub fn publisher_of(&self, connection: usize) -> Option<usize> {
        let (rooms, connections) = self.main();
        let within = if connection < connections { connection / rooms } else { connection - connections };
        let publishes = matches!(self.via, Via::Members) && within < self.publishers_per_room;
        publishes.then(|| self.room_of(connection) * self.publishers_per_room + within)
    }

    /// Thread that runs a connection: those of a room share one where there are rooms enough.
    #[must_use]
    pub fn thread_of(&self, connection: usize) -> usize {
        if self.rooms.len() >= self.threads {
            self.room_of(connection) % self.threads
        } else {
            connection % self.threads
        }
    }

    /// When the publications of a publisher are due, and which of the schedule's publishers it is; `None` in saturation.
    #[must_use]
    pub fn schedule_of(&self, publisher: usize) -> Option<(Schedule, u64)> {
        match (self.beside, self.pace) {
            (Some(beside), _) if self.is_beside(publisher / self.publishers_per_room) => Some((beside.schedule, 0)),
            (_, Pace::Rate(schedule)) => Some((schedule, publisher as u64)),
            (_, Pace::Outstanding { .. }) => None,
        }
    }

    /// Publications of a publisher that may be on their way at a time, in saturation.
    #[must_use]
    pub fn window_of(&self, publisher: usize) -> Option<usize> {
        match self.pace {
            Pace::Outstanding { window, .. } if self.schedule_of(publisher).is_none() => Some(window),
            Pace::Outstanding { .. } | Pace::Rate(_) => None,
        }
    }

    /// Publications of a publisher at most.
    #[must_use]
    pub fn quota(&self, publisher: usize) -> u64 {
        match (self.schedule_of(publisher), self.pace) {
            (Some((schedule, index)), _) => schedule.quota(index),
            (None, Pace::Outstanding { quota, .. }) => quota,
            (None, Pace::Rate(_)) => 0,
        }
    }

    /// Descriptors that carrying it out takes.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        let publishers = if matches!(self.via, Via::Http { .. }) { self.publishers() } else { 0 };
        // Standard streams, runtimes, /proc, the report.
        (self.connections + publishers + 64) as u64
    }
}

/// The pace that the arguments ask for.
fn pace(common: &Common, rate: Option<f64>, outstanding: Option<u32>, publishers: usize) -> anyhow::Result<Pace> {
    if let Some(rate) = rate {
        let total = (rate * common.duration.as_secs_f64()).floor().max(1.0) as u64;
        let total = common.publications.map_or(total, |asked| asked.min(total));
        return Ok(Pace::Rate(Schedule { rate, total, publishers: publishers as u64 }));
    }
    let quota = match common.publications {
        None => u64::MAX >> 1,
        Some(asked) if asked.is_multiple_of(publishers as u64) => asked / publishers as u64,
        Some(asked) => anyhow::bail!(
            "{asked} publications cannot be shared evenly by {publishers} publishers: take a multiple of {publishers}"
        ),
    };
    Ok(Pace::Outstanding { window: outstanding.unwrap_or(1) as usize, quota })
}
