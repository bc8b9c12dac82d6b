//! Who is in which room.

use std::time::Duration;

use fanfare_fanout::{Lane, RoomId};
use fanfare_protocol::{CloseReason, ErrorCode, Event, Position, ReplyId, RoomName, Target, sse};
use fanfare_registry::{JoinError, Joined, Missed};

use super::super::client::Due;
use super::super::model::slow;
use super::super::world::{ROOMS_PER_CLIENT, World};
use super::{Again, Connection, Order, number_of};

impl World {
    /// Makes a client a member of the room of its path; if it may not, the connection ends.
    pub(in super::super) fn enter_own_room(&mut self, n: usize, room: usize, since: Option<Position>) {
        let joined = match self.join(n, room, since) {
            Ok(Some(joined)) => joined,
            Ok(None) => return,
            Err(JoinError::RoomsMax) => return self.end(n, CloseReason::Overloaded),
            Err(JoinError::SubscribersMax | JoinError::MembersMax | JoinError::ListMax) => {
                unreachable!("no room has a bound here")
            }
        };
        let Joined { position, recovered, missed, .. } = joined;
        let name = self.names[room].clone();
        let subscribed = Event::Subscribed { room: &name, position, recovered, id: ReplyId(None) };
        if since.is_some() {
            self.clients[n].resumes.insert(0);
        }
        if since.is_some() || self.clients[n].only_listens() {
            let Position { epoch, offset } = position;
            self.clients[n].owe(room, Due::Subscribed { epoch, offset, recovered, id: 0 });
        }
        if self.clients[n].only_listens() {
            self.begin_stream(n, position, &missed, &subscribed);
        } else if since.is_some() {
            self.answer(n, &subscribed, Lane::Data);
        }
        self.replay_first(n, room, since, missed);
    }

    /// First words on a stream.
    fn begin_stream(&mut self, n: usize, position: Position, missed: &Missed, subscribed: &Event<'_>) {
        let next = missed.messages.first().map(|kept| kept.published.position.offset);
        let resume = Position { offset: next.map_or(position.offset, |next| next - 1), ..position };
        let mut opening = Vec::new();
        sse::opening(1_000, resume, subscribed, &mut opening);
        self.reply(n, &opening, Lane::Data);
    }

    pub(in super::super) fn subscribe(&mut self, n: usize, name: &RoomName, since: Option<Position>, id: ReplyId<'_>) {
        let room = self.place_of(name);
        let Some(connection) = &self.connections[n] else { return };
        if connection.rooms.contains_key(&room) {
            return self.subscribe_again(n, room, since, id);
        }
        if connection.rooms.len() >= ROOMS_PER_CLIENT {
            return self.refuse(n, ErrorCode::LimitReached, id);
        }
        let joined = match self.join(n, room, since) {
            Ok(Some(joined)) => joined,
            Ok(None) => return,
            Err(JoinError::RoomsMax) => return self.refuse(n, ErrorCode::LimitReached, id),
            Err(JoinError::SubscribersMax | JoinError::MembersMax | JoinError::ListMax) => {
                unreachable!("no room has a bound here")
            }
        };
        let Joined { position, recovered, missed, .. } = joined;
        let Position { epoch, offset } = position;
        self.clients[n].owe(room, Due::Subscribed { epoch, offset, recovered, id: number_of(id) });
        self.answer(n, &Event::Subscribed { room: name, position, recovered, id }, Lane::Data);
        self.replay_first(n, room, since, missed);
    }

    /// Who asks again is told where the stream stands, in the place of the question among what the room says.
    fn subscribe_again(&mut self, n: usize, room: usize, since: Option<Position>, reply_id: ReplyId<'_>) {
        let Some(connection) = &self.connections[n] else { return };
        let (shard, lane, name) = (connection.shard, connection.lane, self.names[room].clone());
        let here = connection.rooms[&room].clone();
        let told = connection.behind.iter().find(|(other, _)| *other == room).map(|(_, after)| *after);
        let id = number_of(reply_id);
        if let Some(offset) = told {
            let position = Position { offset, ..here.info().position };
            self.owe_standing(n, room, position, since, id);
            return self.stands_at(n, room, position, since, id);
        }
        if self.registry.shards()[shard].reserve(0).is_err() {
            return self.refuse(n, ErrorCode::Overloaded, reply_id);
        }
        let life = self.by_id[&here.id().0];
        self.registry.mark(&here, shard, |position, seq| {
            Order::Again(Again { lane, room: here.id(), name, since, id, position, seq })
        });
        // Where the room has been closed by then, this is a new subscription.
        if !self.lives[life].is_closed {
            self.owe_standing(n, room, here.info().position, since, id);
        }
    }

    fn owe_standing(&mut self, n: usize, room: usize, position: Position, since: Option<Position>, id: u64) {
        let recovered = since.is_none_or(|since| since == position);
        let Position { epoch, offset } = position;
        self.clients[n].owe(room, Due::Subscribed { epoch, offset, recovered, id });
    }

    fn stands_at(&mut self, n: usize, room: usize, position: Position, since: Option<Position>, id: u64) {
        let (name, written) = (self.names[room].clone(), written(id));
        let recovered = since.is_none_or(|since| since == position);
        let id = ReplyId(Some(&written));
        self.answer(n, &Event::Subscribed { room: &name, position, recovered, id }, Lane::Data);
    }

    /// The shard has come to the question.
    pub(super) fn answer_again(&mut self, n: usize, again: Again) {
        let Again { lane, room, name, since, id, position, seq } = again;
        let Some(connection) = self.connections[n].as_ref().filter(|_| self.is_open(n)) else { return };
        let shard = connection.shard;
        let (fanout, wires) = &mut self.shards[shard];
        if !fanout.is_member(lane, room) {
            return self.subscribe(n, &name, since, ReplyId(Some(&written(id))));
        }
        fanout.leave(lane, room, wires);
        fanout.join(lane, room, seq);
        let place = self.place_of(&name);
        self.set_rules(shard, room, place);
        self.stands_at(n, place, position, since, id);
    }

    pub(super) fn set_rules(&mut self, shard: usize, id: RoomId, room: usize) {
        let (fanout, _) = &mut self.shards[shard];
        fanout.set_coalesce(id, Duration::from_millis([0, 0, 40][room % 3]));
        fanout.set_slow(id, slow(room), self.names[room].clone());
    }

    /// Takes a place in a room. What was missed must be told next: that makes it a member on the shard. `None`: the connection has ended
    /// meanwhile.
    fn join(&mut self, n: usize, room: usize, since: Option<Position>) -> Result<Option<Joined>, JoinError> {
        let Some(connection) = &self.connections[n] else { return Ok(None) };
        let (shard, user) = (connection.shard, connection.user.clone());
        let mut tries = 0;
        let joined = loop {
            tries += 1;
            assert!(tries < 4, "a former life of {room} does not end");
            let expected = self.life_of(room);
            let options = self.options(room);
            let joined = self.registry.rejoin(&self.names[room], options, shard, user.as_ref(), since, self.now);
            self.note_evicted();
            let Some(life) = expected else {
                assert_eq!(joined.err(), Some(JoinError::RoomsMax));
                return Err(JoinError::RoomsMax);
            };
            let joined = joined.expect("there is room for a room");
            self.note_join(n, life, user.as_ref(), since, &joined);
            let others = self.local[shard].get(&room).map(|(id, _)| *id);
            if others.is_none_or(|id| id == joined.room.id()) {
                break joined;
            }
            // A former life of the room still has members on this shard: its end is in the intake.
            self.registry.leave(&joined.room, shard, user.as_ref(), false);
            self.note_leave(n, life, user.as_ref(), false);
            self.take_items(shard, usize::MAX);
            if !self.is_open(n) {
                return Ok(None);
            }
        };
        self.local[shard].entry(room).or_insert((joined.room.id(), 0)).1 += 1;
        self.connections[n].as_mut().expect("it is there").rooms.insert(room, joined.room.clone());
        Ok(Some(joined))
    }

    pub(in super::super) fn unsubscribe(&mut self, n: usize, target: &Target, id: ReplyId<'_>, says_so: bool) {
        let room = self.named(n, target);
        let Some(Connection { shard, .. }) = self.connections[n] else { return };
        // What was said before this command reaches the leaver first; who is evicted over it leaves its rooms, and says so, too.
        while !self.registry.shards()[shard].is_empty() {
            self.take_items(shard, usize::MAX);
        }
        if !self.is_in(n, room) {
            if self.is_open(n) {
                self.refuse(n, ErrorCode::NotSubscribed, id);
            }
            return;
        }
        self.leave_room(n, room, says_so, true);
        self.clients[n].owe(room, Due::Unsubscribed { id: number_of(id) });
        let name = self.names[room].clone();
        self.answer(n, &Event::Unsubscribed { room: &name, id }, Lane::Data);
        self.see_to_lanes(shard);
        if self.clients[n].own.is_some() && says_so {
            self.end(n, CloseReason::Left);
        }
    }

    pub(in super::super) fn is_in(&self, n: usize, room: usize) -> bool {
        self.connections[n].as_ref().is_some_and(|connection| connection.rooms.contains_key(&room))
    }

    pub(in super::super) fn leave_room(&mut self, n: usize, room: usize, says_so: bool, gets_rest: bool) {
        let connection = self.connections[n].as_mut().expect("a member is connected");
        let (shard, lane, user) = (connection.shard, connection.lane, connection.user.clone());
        let left = connection.rooms.remove(&room).expect("a member");
        connection.behind.retain(|(other, _)| *other != room);
        let life = self.by_id[&left.id().0];
        let (fanout, wires) = &mut self.shards[shard];
        let was_member =
            if gets_rest { fanout.leave(lane, left.id(), wires) } else { fanout.leave_unsent(lane, left.id()) };
        assert_ne!(was_member, self.lives[life].behind.contains(&n), "shard and model agree about who is where");
        let (_, members) = self.local[shard].get_mut(&room).expect("a room with a member");
        *members -= 1;
        if *members == 0 {
            self.local[shard].remove(&room);
        }
        self.registry.leave(&left, shard, user.as_ref(), says_so);
        self.note_leave(n, life, user.as_ref(), says_so);
    }
}

/// An id as a client writes it.
fn written(number: u64) -> String {
    if number.is_multiple_of(2) { format!("{number}") } else { format!("\"{number}\"") }
}
