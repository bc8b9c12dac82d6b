//! What the edge does around the core crates, without sockets: bytes to inputs, actions performed, items taken, connections ended.
//! Beside every deed stands what the model notes about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_fanout::{Delivery, FlushQuota, Lane, LaneEvent, LaneId, Receipt, RoomId};
use fanfare_protocol::wire::{Decoder, Input, Opcode, close_frame, frame};
use fanfare_protocol::{
    Action, CloseReason, Dialect, ErrorCode, Event, Mode, PayloadRef, ReplyId, RoomEvent, RoomName, Session, Target,
    UserName,
};
use fanfare_registry::{Draft, Item, JoinError, Presence, PublishError, Room};

use super::client::Due;
use super::world::{ACKS_RESERVE_BYTES, CLOSE, LIMITS, PING, PONG, REPLY_PAUSE, ROOMS_PER_CLIENT, WRITE, World};
use crate::wires::Wire;

/// Tell a publisher what became of its publication.
#[derive(Debug)]
pub(super) struct Ack {
    lane: LaneId,
    id: Box<str>,
    delivery: Delivery,
}

/// The gateway's side of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shard: usize,
    pub(super) lane: LaneId,
    pub(super) session: Session,
    pub(super) user: Option<UserName>,
    pub(super) rooms: BTreeMap<usize, Arc<Room>>,
    pub(super) phase: Phase,
    decoder: Decoder,
    heard: Duration,
    pinged: Option<Duration>,
    /// When its queue last moved, while there is one.
    moved: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closing { deadline: Duration, peer_has_closed: bool, is_deaf: bool },
}

impl World {
    pub(super) fn admit(&mut self, n: usize, shard: usize, session: Session, user: Option<UserName>) {
        let lane = self.shards[shard].0.open(self.clients[n].variant as u8);
        self.shards[shard].1.0.insert(lane.index, Wire::default());
        self.by_lane.insert((shard, lane.index), n);
        let own = self.clients[n].own;
        self.connections[n] = Some(Connection {
            shard,
            lane,
            session,
            user,
            rooms: BTreeMap::new(),
            phase: Phase::Open,
            decoder: Decoder::new(),
            heard: self.now,
            pinged: None,
            moved: None,
        });
        match own {
            None => {
                let name = format!("c{n}");
                let user = self.connections[n].as_ref().and_then(|connection| connection.user.clone());
                let welcome = Event::Welcome {
                    connection: &name,
                    heartbeat_ms: 5_000,
                    user: user.as_ref(),
                    token: None,
                    node: "sim",
                };
                self.answer(n, &welcome, Lane::Data);
            }
            Some(room) => {
                if self.join(n, room).is_err() {
                    self.end(n, CloseReason::Overloaded);
                }
            }
        }
    }

    // ---- reading ----

    /// Reads up to `count` bytes of what a client has sent.
    pub(super) fn read(&mut self, n: usize, count: usize) {
        let Some(Connection { shard, lane, .. }) = self.connections[n] else { return };
        if self.shards[shard].0.reply_bytes(lane) >= REPLY_PAUSE {
            return;
        }
        let uplink = &mut self.clients[n].uplink;
        let mut bytes: Vec<u8> = uplink.drain(..count.min(uplink.len())).collect();
        if bytes.is_empty() {
            if self.clients[n].has_hung_up {
                self.on_end(n);
            }
            return;
        }
        let now = self.now;
        let Some(connection) = &mut self.connections[n] else { return };
        (connection.heard, connection.pinged) = (now, None);
        let mut decoder = std::mem::take(&mut connection.decoder);
        let mut rest = &mut bytes[..];
        while self.wants_input(n) {
            let used = match decoder.next(rest, &LIMITS) {
                Ok((used, Some(input))) => {
                    self.on_input(n, input);
                    used
                }
                Ok((_, None)) => break,
                Err(reason) => {
                    self.fail(n, reason);
                    break;
                }
            };
            rest = &mut rest[used..];
        }
        if let Some(connection) = &mut self.connections[n] {
            connection.decoder = decoder;
        }
        let client = &self.clients[n];
        assert!(
            client.rude.is_none() || !client.uplink.is_empty() || !self.is_open(n),
            "client {n} broke a rule ({:?}) and is still there",
            client.rude
        );
    }

    fn wants_input(&self, n: usize) -> bool {
        self.connections[n].as_ref().is_some_and(|connection| match connection.phase {
            Phase::Open => true,
            Phase::Closing { peer_has_closed, is_deaf, .. } => !peer_has_closed && !is_deaf,
        })
    }

    fn on_input(&mut self, n: usize, input: Input<'_>) {
        let is_open = self.is_open(n);
        match input {
            Input::Close(_) => self.on_peer_close(n),
            Input::Ping(payload) if is_open => {
                let mut pong = Vec::new();
                frame(Opcode::Pong, payload, &mut pong);
                self.reply(n, &pong, Lane::Control);
            }
            Input::Message(message) if is_open => {
                let connection = self.connections[n].as_mut().expect("it is open");
                let action = connection.session.handle(message, &LIMITS);
                self.perform(n, action);
            }
            _ => {}
        }
    }

    fn on_end(&mut self, n: usize) {
        if self.is_open(n) {
            self.end(n, CloseReason::ConnectionLost);
        } else {
            self.remove(n);
        }
    }

    pub(super) fn is_open(&self, n: usize) -> bool {
        self.connections[n].as_ref().is_some_and(|connection| connection.phase == Phase::Open)
    }

    // ---- performing ----

    fn perform(&mut self, n: usize, action: Action<'_>) {
        match action {
            Action::Publish { room, payload, except_self, id } => self.publish(n, &room, payload, except_self, id),
            Action::Subscribe { room, id, .. } => self.subscribe(n, &room, id),
            Action::Unsubscribe { room, id } => self.unsubscribe(n, &room, id, false),
            Action::Leave { room, id } => self.unsubscribe(n, &room, id, true),
            Action::Send { .. } => unreachable!("no client of this run sends to a user"),
            Action::Presence { room, after, limit, id } => {
                assert_eq!((after, limit), (None, 1_000), "no client of this run asks for a page");
                self.presence(n, &room, id);
            }
            Action::CloseRoom { room, id } => {
                let room = self.named(n, &room);
                if self.close_room(room) {
                    // Its answer is that everybody is told.
                    self.clients[n].asked.remove(&number_of(id));
                } else {
                    self.refuse(n, ErrorCode::NotSubscribed, id);
                }
            }
            Action::Pong { id } => self.answer(n, &Event::Pong { id }, Lane::Control),
            Action::Refuse { code, id, .. } => self.refuse(n, code, id),
            Action::Close(reason) => self.end(n, reason),
            Action::Said(_) | Action::Reply(_) | Action::History { .. } | Action::Refresh { .. } => {
                panic!("no client of this run says that")
            }
        }
    }

    fn named(&self, n: usize, target: &Target) -> usize {
        match target {
            Target::Own => self.clients[n].own.expect("only a connection of one room leaves its name out"),
            Target::Named(name) => self.place_of(name),
        }
    }

    fn place_of(&self, name: &RoomName) -> usize {
        self.names.iter().position(|known| known == name).expect("clients of this run know no other names")
    }

    /// Sends frames that are for one client alone.
    fn reply(&mut self, n: usize, frames: &[u8], kind: Lane) {
        let Some(Connection { shard, lane, .. }) = self.connections[n] else { return };
        if frames.is_empty() {
            return;
        }
        self.clients[n].due_bytes += frames.len() as u64;
        let (fanout, wires) = &mut self.shards[shard];
        fanout.reply(lane, kind, frames, wires);
        self.see_to_lanes(shard);
    }

    fn answer(&mut self, n: usize, event: &Event<'_>, kind: Lane) {
        let Some(connection) = &self.connections[n] else { return };
        let is_named = !matches!(connection.session.mode(), Mode::Room(_));
        let mut frame = Vec::new();
        connection.session.dialect().encode_event(event, is_named, &mut frame);
        self.reply(n, &frame, kind);
    }

    fn refuse(&mut self, n: usize, code: ErrorCode, id: ReplyId<'_>) {
        let Some(connection) = &self.connections[n] else { return };
        if connection.session.dialect() == Dialect::Json {
            return self.answer(n, &Event::Error { code, message: "no", id }, Lane::Control);
        }
        self.end(n, CloseReason::Overloaded);
    }

    fn publish(&mut self, n: usize, target: &Target, payload: PayloadRef<'_>, except_self: bool, id: ReplyId<'_>) {
        let room = self.named(n, target);
        let Some(Connection { shard, lane, .. }) = self.connections[n] else { return };
        let intake = self.registry.shards()[shard].clone();
        let number = self.publications.len();
        let receipt = match id.0 {
            None => None,
            Some(_) if intake.reserve(ACKS_RESERVE_BYTES).is_err() => {
                self.totals.overloaded += 1;
                return self.refuse(n, ErrorCode::Overloaded, id);
            }
            Some(id) => {
                let (id, told, clock) = (Box::<str>::from(id), self.told.clone(), self.clock.clone());
                let acks = intake.clone();
                Some(Arc::new(Receipt::new(move |delivery| {
                    let before = told.lock().insert(number, (delivery, clock.load(Ordering::Relaxed)));
                    assert!(before.is_none(), "a receipt was told twice");
                    acks.push(Item::Order(Ack { lane, id, delivery }));
                })))
            }
        };
        let has_receipt = receipt.is_some();
        let user = self.connections[n].as_ref().and_then(|connection| connection.user.clone());
        let payload = payload.to_payload();
        let except = except_self.then_some((shard, lane));
        let draft = Draft { user: user.clone(), payload: payload.clone(), except, receipt };
        let expected = self.life_of(room);
        let published = self.registry.publish(&self.names[room], self.options(room), draft, self.now);
        match published {
            Ok(receipted) => {
                let life = expected.expect("at the bound on rooms none is made");
                self.note_publication(n, life, user, payload, except_self, receipted.position);
                if has_receipt {
                    self.note_ack(n, id, number);
                }
            }
            Err(error) => {
                if has_receipt {
                    intake.release(1, ACKS_RESERVE_BYTES);
                }
                assert_eq!(error == PublishError::RoomsMax, expected.is_none());
                let code =
                    if error == PublishError::RoomsMax { ErrorCode::LimitReached } else { ErrorCode::Overloaded };
                self.totals.overloaded += u64::from(error == PublishError::Overloaded);
                self.refuse(n, code, id);
            }
        }
    }

    fn subscribe(&mut self, n: usize, name: &RoomName, id: ReplyId<'_>) {
        let room = self.place_of(name);
        let Some(connection) = &self.connections[n] else { return };
        let was_member = connection.rooms.contains_key(&room);
        if !was_member {
            if connection.rooms.len() >= ROOMS_PER_CLIENT {
                return self.refuse(n, ErrorCode::LimitReached, id);
            }
            if self.join(n, room).is_err() {
                return self.refuse(n, ErrorCode::LimitReached, id);
            }
        }
        let Some(position) = self.connections[n].as_ref().and_then(|c| c.rooms.get(&room)).map(|r| r.info().position)
        else {
            return;
        };
        // Who asks again is told where the stream stands, ahead of what is on its way.
        if was_member {
            self.clients[n].asked_again.insert(number_of(id));
        } else {
            let due = Due::Subscribed { epoch: position.epoch, offset: position.offset, id: number_of(id) };
            self.clients[n].due.entry(room).or_default().push_back(due);
        }
        self.answer(n, &Event::Subscribed { room: name, position, recovered: true, id }, Lane::Data);
    }

    /// Takes a place in a room, in the registry and on the shard.
    fn join(&mut self, n: usize, room: usize) -> Result<(), JoinError> {
        let Some(connection) = &self.connections[n] else { return Ok(()) };
        let (shard, lane, user) = (connection.shard, connection.lane, connection.user.clone());
        let mut tries = 0;
        let joined = loop {
            tries += 1;
            assert!(tries < 4, "a former life of {room} does not end");
            let expected = self.life_of(room);
            let options = self.options(room);
            let joined = self.registry.join(&self.names[room], options, shard, user.as_ref(), self.now);
            let Some(life) = expected else {
                assert_eq!(joined.err(), Some(JoinError::RoomsMax));
                return Err(JoinError::RoomsMax);
            };
            let joined = joined.expect("there is room for a room");
            self.note_join(n, life, user.as_ref(), &joined);
            let others = self.local[shard].get(&room).map(|(id, _)| *id);
            if others.is_none_or(|id| id == joined.room.id()) {
                break joined;
            }
            // A former life of the room still has members on this shard: its end is in the intake.
            self.registry.leave(&joined.room, shard, user.as_ref(), false);
            self.note_leave(n, life, user.as_ref(), false);
            self.take_items(shard, usize::MAX);
            if !self.is_open(n) {
                return Ok(());
            }
        };
        let (fanout, _) = &mut self.shards[shard];
        assert!(fanout.join(lane, joined.room.id(), joined.seq), "membership is checked before joining");
        fanout.set_coalesce(joined.room.id(), Duration::from_millis([0, 0, 40][room % 3]));
        self.local[shard].entry(room).or_insert((joined.room.id(), 0)).1 += 1;
        self.connections[n].as_mut().expect("it is there").rooms.insert(room, joined.room);
        Ok(())
    }

    fn unsubscribe(&mut self, n: usize, target: &Target, id: ReplyId<'_>, says_so: bool) {
        let room = self.named(n, target);
        let Some(Connection { shard, .. }) = self.connections[n] else { return };
        // What was said before this command reaches the leaver first.
        self.take_items(shard, usize::MAX);
        if !self.is_in(n, room) {
            if self.is_open(n) {
                self.refuse(n, ErrorCode::NotSubscribed, id);
            }
            return;
        }
        self.leave_room(n, room, says_so, true);
        self.clients[n].due.entry(room).or_default().push_back(Due::Unsubscribed { id: number_of(id) });
        let name = self.names[room].clone();
        self.answer(n, &Event::Unsubscribed { room: &name, id }, Lane::Data);
        self.see_to_lanes(shard);
        if self.clients[n].own.is_some() && says_so {
            self.end(n, CloseReason::Left);
        }
    }

    fn is_in(&self, n: usize, room: usize) -> bool {
        self.connections[n].as_ref().is_some_and(|connection| connection.rooms.contains_key(&room))
    }

    fn leave_room(&mut self, n: usize, room: usize, says_so: bool, gets_rest: bool) {
        let connection = self.connections[n].as_mut().expect("a member is connected");
        let (shard, lane, user) = (connection.shard, connection.lane, connection.user.clone());
        let left = connection.rooms.remove(&room).expect("a member");
        let (fanout, wires) = &mut self.shards[shard];
        let was_member =
            if gets_rest { fanout.leave(lane, left.id(), wires) } else { fanout.leave_unsent(lane, left.id()) };
        assert!(was_member, "shard and connection agree about who is where");
        let (_, members) = self.local[shard].get_mut(&room).expect("a room with a member");
        *members -= 1;
        if *members == 0 {
            self.local[shard].remove(&room);
        }
        self.registry.leave(&left, shard, user.as_ref(), says_so);
        let life = self.by_id[&left.id().0];
        self.note_leave(n, life, user.as_ref(), says_so);
    }

    fn presence(&mut self, n: usize, target: &Target, id: ReplyId<'_>) {
        let room = self.named(n, target);
        let Some(here) = self.connections[n].as_ref().and_then(|connection| connection.rooms.get(&room)).cloned()
        else {
            return self.refuse(n, ErrorCode::NotSubscribed, id);
        };
        let Presence { count, members, has_more } = here.presence("", 1_000);
        assert!(!has_more);
        self.check_presence(self.by_id[&here.id().0], count, &members);
        self.answer(n, &Event::Presence { room: here.name(), count, members: &members, next: None, id }, Lane::Control);
    }

    /// Closes a room for all, if it exists.
    pub(super) fn close_room(&mut self, room: usize) -> bool {
        let life = self.directory.remove(&room);
        assert_eq!(self.registry.close(&self.names[room]), life.is_some());
        let Some(life) = life else { return false };
        self.say(life, &Due::Closed, None, &RoomEvent::RoomClosed(self.names[room].clone()));
        self.totals.closed_rooms += 1;
        true
    }

    // ---- the loop of a shard ----

    pub(super) fn take_items(&mut self, shard: usize, items: usize) {
        let intake = self.registry.shards()[shard].clone();
        for _ in 0..items {
            let Some(item) = intake.pop() else { break };
            match item {
                Item::Event { room, seq, event, except, receipt } => {
                    self.shards[shard].0.accept(room, seq, &event, except, receipt);
                }
                Item::CloseRoom(room) => self.end_room(shard, room),
                Item::Order(Ack { lane, id, delivery }) => {
                    intake.release(1, ACKS_RESERVE_BYTES);
                    let Some(n) = self.client_of(shard, lane) else { continue };
                    let Delivery { delivered, dropped, evicted } = delivery;
                    let ack = Event::Ack { offset: None, delivered, dropped, evicted, id: ReplyId(Some(&id)) };
                    if self.is_open(n) {
                        self.answer(n, &ack, Lane::Control);
                    }
                }
            }
        }
        self.release(shard);
        self.see_to_lanes(shard);
    }

    fn end_room(&mut self, shard: usize, id: RoomId) {
        let (fanout, wires) = &mut self.shards[shard];
        fanout.flush_room(id, wires);
        for lane in self.shards[shard].0.members(id) {
            let room = self.lives[self.by_id[&id.0]].name;
            // The end of one member may have been the end of another's socket.
            let Some(n) = self.client_of(shard, lane).filter(|&n| self.is_in(n, room)) else { continue };
            self.leave_room(n, room, false, false);
            if self.clients[n].own.is_some() {
                self.end(n, CloseReason::RoomClosed);
            }
        }
        self.see_to_lanes(shard);
    }

    pub(super) fn flush(&mut self, shard: usize, quota: FlushQuota) {
        let (fanout, wires) = &mut self.shards[shard];
        fanout.tell_time(self.now);
        fanout.flush(wires, quota);
        self.release(shard);
        self.see_to_lanes(shard);
    }

    fn release(&mut self, shard: usize) {
        let released = self.shards[shard].0.take_released();
        self.registry.shards()[shard].release(released.items, released.bytes);
    }

    fn client_of(&self, shard: usize, lane: LaneId) -> Option<usize> {
        let n = *self.by_lane.get(&(shard, lane.index))?;
        self.connections[n].as_ref().is_some_and(|connection| connection.lane == lane).then_some(n)
    }

    fn see_to_lanes(&mut self, shard: usize) {
        let mut events = Vec::new();
        self.shards[shard].0.take_events(&mut events);
        while let Some(event) = events.pop() {
            match event {
                LaneEvent::Blocked(lane) => {
                    let now = self.now;
                    if let Some(n) = self.client_of(shard, lane) {
                        self.connections[n].as_mut().expect("it is there").moved = Some(now);
                    }
                }
                LaneEvent::Evicted(lane, queued, _) => {
                    let (bytes, messages) = (queued.bytes, queued.messages);
                    self.totals.evicted += 1;
                    if let Some(n) = self.client_of(shard, lane) {
                        self.end(n, CloseReason::SlowConsumer { bytes, messages });
                    }
                }
                LaneEvent::Gone(lane) => {
                    if let Some(n) = self.client_of(shard, lane) {
                        self.on_end(n);
                    }
                }
            }
            self.shards[shard].0.take_events(&mut events);
        }
    }

    /// A client takes bytes again.
    pub(super) fn writable(&mut self, n: usize) {
        let now = self.now;
        let Some(Connection { shard, lane, .. }) = self.connections[n] else { return };
        let (fanout, wires) = &mut self.shards[shard];
        let progress = fanout.writable(lane, wires);
        if let Some(connection) = &mut self.connections[n] {
            if progress.taken > 0 {
                connection.moved = Some(now);
            }
            if progress.is_empty {
                connection.moved = None;
            }
        }
        self.after_last_words(n);
        self.see_to_lanes(shard);
    }

    /// Heartbeats and deadlines.
    pub(super) fn see_to_deadlines(&mut self) {
        let now = self.now;
        for n in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[n] else { continue };
            let lane = connection.lane;
            match connection.phase {
                Phase::Closing { deadline, .. } if now >= deadline => self.remove(n),
                Phase::Open if connection.moved.is_some_and(|moved| now >= moved + WRITE) => {
                    let queued = self.shards[connection.shard].0.queued(lane);
                    if queued.bytes > 0 {
                        self.totals.timeouts += 1;
                        let (bytes, messages) = (queued.bytes, queued.messages);
                        self.end(n, CloseReason::WriteTimeout { bytes, messages });
                    }
                }
                Phase::Open if connection.pinged.is_some_and(|pinged| now >= pinged + PONG) => {
                    self.totals.timeouts += 1;
                    self.end(n, CloseReason::PongTimeout { ms: PONG.as_millis() as u64 });
                }
                Phase::Open if connection.pinged.is_none() && now >= connection.heard + PING => {
                    connection.pinged = Some(now);
                    let mut ping = Vec::new();
                    frame(Opcode::Ping, &[], &mut ping);
                    self.reply(n, &ping, Lane::Control);
                }
                Phase::Open | Phase::Closing { .. } => {}
            }
        }
    }

    // ---- ends ----

    pub(super) fn end(&mut self, n: usize, reason: CloseReason) {
        if !self.is_open(n) {
            return;
        }
        let rooms: Vec<usize> = self.connections[n].as_ref().map_or(vec![], |c| c.rooms.keys().copied().collect());
        for room in rooms {
            self.leave_room(n, room, false, reason.waits_for_queue());
        }
        self.note_end(n, reason);
        let deadline = self.now + CLOSE;
        let connection = self.connections[n].as_mut().expect("it is open");
        let (shard, lane) = (connection.shard, connection.lane);
        connection.phase = Phase::Closing { deadline, peer_has_closed: false, is_deaf: false };
        if reason == CloseReason::ConnectionLost {
            return self.remove(n);
        }
        let mut words = Vec::new();
        close_frame(reason, &mut words);
        self.clients[n].due_bytes += words.len() as u64;
        let (fanout, wires) = &mut self.shards[shard];
        if reason.waits_for_queue() {
            fanout.last_words_after_queue(lane, &words, wires);
        } else {
            fanout.last_words(lane, &words, wires);
        }
        self.after_last_words(n);
        self.see_to_lanes(shard);
    }

    fn fail(&mut self, n: usize, reason: CloseReason) {
        self.end(n, reason);
        if let Some(connection) = &mut self.connections[n]
            && let Phase::Closing { is_deaf, .. } = &mut connection.phase
        {
            *is_deaf = true;
        }
    }

    fn on_peer_close(&mut self, n: usize) {
        if self.is_open(n) {
            self.end(n, CloseReason::ClientClosed);
        }
        if let Some(connection) = &mut self.connections[n]
            && let Phase::Closing { peer_has_closed, .. } = &mut connection.phase
        {
            *peer_has_closed = true;
        }
        self.after_last_words(n);
    }

    fn after_last_words(&mut self, n: usize) {
        let Some(connection) = &self.connections[n] else { return };
        let is_out = self.shards[connection.shard].0.queued(connection.lane).bytes == 0;
        if is_out && matches!(connection.phase, Phase::Closing { peer_has_closed: true, .. }) {
            self.remove(n);
        }
    }

    pub(super) fn remove(&mut self, n: usize) {
        let Some(connection) = &self.connections[n] else { return };
        let (shard, lane) = (connection.shard, connection.lane);
        assert!(connection.rooms.is_empty(), "rooms are left when a connection ends");
        assert!(self.shards[shard].0.close(lane).is_empty(), "the shard agrees");
        self.hear(n);
        let wire = self.shards[shard].1.0.remove(&lane.index).expect("an open lane has a wire");
        let could_hear = wire.takes.is_none() && !wire.is_broken;
        let client = &self.clients[n];
        let was_lost = client.ended == Some(CloseReason::ConnectionLost);
        // The rest of a frame that there was no budget for: nothing may follow it.
        self.totals.untold += u64::from(client.told.is_none() && could_hear && !was_lost);
        self.by_lane.remove(&(shard, lane.index));
        self.connections[n] = None;
    }
}

/// The number that a client gave as its command's id; 0 without one.
fn number_of(id: ReplyId<'_>) -> u64 {
    id.0.map_or(0, |raw| raw.trim_matches('"').parse().expect("ids of this run are numbers"))
}
