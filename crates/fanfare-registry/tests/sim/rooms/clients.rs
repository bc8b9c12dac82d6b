//! Clients and rooms: what is done to the registry, and beside it what the model notes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fanfare_fanout::Receipt;
use fanfare_protocol::Payload;
use fanfare_registry::{Draft, JoinError, PublishError, Receipted};

use super::{
    Client, End, INTAKE, Life, Logged, Publication, ROOMS_PER_CLIENT_MAX, SHARDS, Stay, USERS, World, options,
};
use crate::wires::Wire;

impl World {
    // ---- clients ----

    pub(super) fn connect(&mut self) {
        if self.here.len() >= self.shape.clients_max {
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
    pub(super) fn disconnect(&mut self, n: usize) {
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
    pub(super) fn life_of(&mut self, name: usize) -> Option<usize> {
        if let Some(&life) = self.directory.get(&name) {
            return Some(life);
        }
        if self.directory.len() >= self.shape.rooms_max {
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
    pub(super) fn log(&mut self, life: usize, said: Logged) {
        for at in 0..SHARDS {
            self.owed[at].0 += usize::from(self.lives[life].audience[at] > 0);
        }
        self.lives[life].log.push(said);
    }

    pub(super) fn join(&mut self, n: usize, name: usize) {
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

    pub(super) fn leave(&mut self, n: usize, name: usize) {
        // What was said before must reach the shard first; that may end the membership, too.
        let Client { shard, lane, .. } = self.clients[n];
        // Who is evicted over it leaves its rooms, and that is said before, too.
        while !self.registry.shards()[shard].is_empty() {
            self.take_items(shard, usize::MAX);
        }
        let Some((life, room)) = self.clients[n].rooms.get(&name).map(|(life, room)| (*life, room.id())) else {
            return;
        };
        let (fan_out, wires) = &mut self.shards[shard];
        assert!(fan_out.leave(lane, room, wires));
        self.leave_registry(n, life);
        self.act_on_events(shard);
    }

    /// The shard has let the client go; the room lets it go, too.
    pub(super) fn leave_registry(&mut self, n: usize, life: usize) {
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

    pub(super) fn publish(&mut self) {
        let publisher = self.dice.pick(&self.here).filter(|_| self.dice.below(5) > 0);
        let own: Vec<usize> = publisher.map_or_else(Vec::new, |n| self.clients[n].rooms.keys().copied().collect());
        let name = self.dice.pick(&own).unwrap_or_else(|| self.dice.below(self.shape.names));
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

    pub(super) fn check_publish(
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

    pub(super) fn close_room(&mut self) {
        let name = self.dice.below(self.shape.names);
        let life = self.directory.remove(&name);
        assert_eq!(self.registry.close(&self.names[name]), life.is_some());
        let Some(life) = life else { return };
        self.log(life, Logged::Closed);
        self.lives[life].closed_at = Some(self.lives[life].log.len());
        self.totals.closed += 1;
        assert!(self.registry.get(&self.names[name]).is_none());
    }

    pub(super) fn sweep(&mut self) {
        let vacant: Vec<usize> = self
            .directory
            .iter()
            .filter(|(_, life)| self.lives[**life].members.is_empty())
            .map(|(name, _)| *name)
            .collect();
        self.directory.retain(|name, _| !vacant.contains(name));
        assert_eq!(self.registry.reap(), vacant.len(), "what was vacant is reaped, and nothing else");
        self.totals.reaped += vacant.len() as u64;
        assert!(self.registry.list("", "", usize::MAX).iter().all(|room| room.occupancy > 0), "a vacant room stays");
    }
}
