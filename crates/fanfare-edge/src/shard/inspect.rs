//! What is told of connections to operators: a slice of the table at a time, so that a look at all of them holds nobody up for long.

use std::net::IpAddr;
use std::time::Duration;

use fanfare_fanout::{LaneId, Queued};
use fanfare_protocol::{Dialect, Mode, RoomName, UserName};
use tokio::sync::oneshot;

use super::ShardLoop;
use super::connection::Connection;
use crate::hub::ConnectionId;

/// Places of the table looked at for one question.
const SLICE: usize = 4_096;

/// Rooms of a connection that are named.
pub(crate) const ROOMS_NAMED_MAX: usize = 10;

/// A question about connections.
#[derive(Debug)]
pub struct Inspection {
    pub(crate) wanted: Wanted,
    /// Place in the table to begin at.
    pub(crate) from: u32,
    /// Connections told at most.
    pub(crate) limit: usize,
    pub(crate) told: oneshot::Sender<Inspected>,
}

/// Which connections are meant.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// All, or those of a user, in the order of the table.
    All(Option<UserName>),
    /// Those with something queued, or those of them that are a user's; the longest queues of the slice.
    Slow(Option<UserName>),
    /// One.
    One(LaneId),
}

/// The answer.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub(crate) connections: Vec<Seen>,
    /// Where to go on; nothing at the end of the table.
    pub(crate) next: Option<u32>,
}

/// A connection, as it was a moment ago.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) id: ConnectionId,
    pub(crate) user: Option<UserName>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) mode: Mode,
    pub(crate) dialect: Dialect,
    /// How many rooms it is in.
    pub(crate) rooms: usize,
    /// Some of them, [`ROOMS_NAMED_MAX`] at most.
    pub(crate) room_names: Vec<RoomName>,
    pub(crate) age: Duration,
    pub(crate) queued: Queued,
}

impl ShardLoop {
    /// Answers a question about connections. Those that are closing are gone for the outside.
    pub(super) fn inspect(&mut self, inspection: Inspection) {
        let Inspection { wanted, from, limit, told } = inspection;
        let inspected = match wanted {
            Wanted::One(lane) => {
                let connection = self.table(lane.index as usize, 1).find(|connection| connection.lane == lane);
                Inspected {
                    connections: connection.map(|connection| self.seen(connection)).into_iter().collect(),
                    next: None,
                }
            }
            Wanted::All(user) => self.inspect_in_order(user.as_ref(), from as usize, limit),
            Wanted::Slow(user) => self.inspect_slow(user.as_ref(), from as usize, limit),
        };
        // Whoever asked may have gone.
        let _ = told.send(inspected);
    }

    /// The open connections in a part of the table.
    fn table(&self, from: usize, places: usize) -> impl Iterator<Item = &Connection> {
        let places = self.connections.iter().skip(from).take(places);
        places.filter_map(|place| place.as_deref()).filter(|connection| connection.is_open())
    }

    fn after_slice(&self, from: usize) -> Option<u32> {
        let next = from + SLICE;
        (next < self.connections.len()).then_some(next as u32)
    }

    fn inspect_in_order(&self, user: Option<&UserName>, from: usize, limit: usize) -> Inspected {
        let mut connections = Vec::new();
        for connection in self.table(from, SLICE).filter(|connection| is_of(connection, user)) {
            if connections.len() == limit {
                return Inspected { connections, next: Some(connection.lane.index) };
            }
            connections.push(self.seen(connection));
        }
        Inspected { connections, next: self.after_slice(from) }
    }

    fn inspect_slow(&self, user: Option<&UserName>, from: usize, limit: usize) -> Inspected {
        let queued = |connection: &Connection| self.fanout.queued(connection.lane).bytes;
        let mine = self.table(from, SLICE).filter(|connection| is_of(connection, user));
        let mut slow: Vec<_> =
            mine.map(|connection| (queued(connection), connection)).filter(|(bytes, _)| *bytes > 0).collect();
        slow.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let connections = slow.into_iter().take(limit).map(|(_, connection)| self.seen(connection)).collect();
        Inspected { connections, next: self.after_slice(from) }
    }

    fn seen(&self, connection: &Connection) -> Seen {
        let rooms = self.rooms_of(connection.lane);
        let names = rooms.iter().filter_map(|&room| Some(self.rooms.by_id(room)?.name().clone()));
        Seen {
            id: ConnectionId { shard: self.index, lane: connection.lane },
            user: connection.user().cloned(),
            address: connection.permit.address(),
            mode: connection.session.mode().clone(),
            dialect: connection.session.dialect(),
            rooms: rooms.len(),
            room_names: names.take(ROOMS_NAMED_MAX).collect(),
            age: connection.age(self.now),
            queued: self.fanout.queued(connection.lane),
        }
    }
}

fn is_of(connection: &Connection, user: Option<&UserName>) -> bool {
    user.is_none() || user == connection.user()
}
