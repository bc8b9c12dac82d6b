//! What a run does, as one value that the swarm carries out.

pub mod echo;
pub mod rooms;

use std::time::Duration;

use fanfare_client::{RoomName, Url};

use crate::cli::{Common, Format};
use crate::pace::Schedule;

/// A run: who connects where, who publishes when, and what is expected.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the scenario.
    pub name: &'static str,
    /// Random tag that keeps this run's publications apart from others'.
    pub run: u32,
    /// One per room: where its members connect, and its name for publishing over HTTP.
    pub rooms: Vec<Room>,
    /// Connections; connection `i` is a member of room `i % rooms`.
    pub connections: usize,
    /// Publishers of each room.
    pub publishers_per_room: usize,
    /// How publications get to the gateway.
    pub via: Via,
    /// What the connections speak.
    pub wire: Wire,
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
    /// Token to connect with.
    pub token: Option<String>,
    /// Connect from several loopback addresses where one has too few ports.
    pub spread_sources: bool,
    /// Process of the gateway.
    pub pid: Option<u32>,
    /// Connections that the gateway closes are no failure.
    pub allow_closes: bool,
}

/// One room of a [`Plan`].
#[derive(Debug, Clone)]
pub struct Room {
    /// Where its members connect.
    pub url: Url,
    /// Its name. `None` where the path is no room (echo).
    pub name: Option<RoomName>,
}

/// How publications get to the gateway.
#[derive(Debug, Clone)]
pub enum Via {
    /// The first members of each room send them.
    Members,
    /// `POST /api/publish`.
    Http {
        /// The admin listener.
        admin: Url,
        /// API key.
        key: Option<String>,
    },
}

/// What the connections speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// The JSON dialect.
    Json,
    /// Payloads as they are.
    Text,
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
    /// Publishers in all.
    #[must_use]
    pub fn publishers(&self) -> usize {
        self.rooms.len() * self.publishers_per_room
    }

    /// Room of a connection.
    #[must_use]
    pub fn room_of(&self, connection: usize) -> usize {
        connection % self.rooms.len()
    }

    /// Members of a room.
    #[must_use]
    pub fn members(&self, room: usize) -> usize {
        (self.connections + self.rooms.len() - 1 - room) / self.rooms.len()
    }

    /// Publisher that a connection is: its index over all rooms, or none.
    #[must_use]
    pub fn publisher_of(&self, connection: usize) -> Option<usize> {
        let within = connection / self.rooms.len();
        let publishes = matches!(self.via, Via::Members) && within < self.publishers_per_room;
        publishes.then(|| self.room_of(connection) * self.publishers_per_room + within)
    }

    /// Thread that runs a connection: members of a room share one where there are rooms enough.
    #[must_use]
    pub fn thread_of(&self, connection: usize) -> usize {
        if self.rooms.len() >= self.threads {
            self.room_of(connection) % self.threads
        } else {
            connection % self.threads
        }
    }

    /// Publications of a publisher at most.
    #[must_use]
    pub fn quota(&self, publisher: usize) -> u64 {
        match self.pace {
            Pace::Rate(schedule) => schedule.quota(publisher as u64),
            Pace::Outstanding { quota, .. } => quota,
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

impl From<Format> for Wire {
    fn from(format: Format) -> Self {
        match format {
            Format::Json => Self::Json,
            Format::Text => Self::Text,
        }
    }
}
