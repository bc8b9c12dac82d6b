//! What sessions decided, done.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fanfare_fanout::{Lane, Receipt};
use fanfare_protocol::{
    Action, CloseReason, Dialect, ErrorCode, Event, Mode, PayloadRef, ReplyId, RoomEvent, RoomName, Target,
};
use fanfare_registry::{Draft, Item, Presence, PublishError};

use super::super::client::Due;
use super::super::world::{ACKS_RESERVE_BYTES, World};
use super::{Connection, Order, number_of};

impl World {
    pub(in super::super) fn perform(&mut self, n: usize, action: Action<'_>) {
        match action {
            Action::Publish { room, payload, except_self, id } => self.publish(n, &room, payload, except_self, id),
            Action::Subscribe { room, since, id } => self.subscribe(n, &room, since, id),
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
            Action::Said(_)
            | Action::Reply(_)
            | Action::History { .. }
            | Action::Refresh { .. }
            | Action::Pusher(_) => {
                panic!("no client of this run says that")
            }
        }
    }

    pub(in super::super) fn named(&self, n: usize, target: &Target) -> usize {
        match target {
            Target::Own => self.clients[n].own.expect("only a connection of one room leaves its name out"),
            Target::Named(name) => self.place_of(name),
        }
    }

    pub(in super::super) fn place_of(&self, name: &RoomName) -> usize {
        self.names.iter().position(|known| known == name).expect("clients of this run know no other names")
    }

    /// Sends frames that are for one client alone.
    pub(in super::super) fn reply(&mut self, n: usize, frames: &[u8], kind: Lane) {
        let Some(Connection { shard, lane, .. }) = self.connections[n] else { return };
        if frames.is_empty() {
            return;
        }
        self.clients[n].due_bytes += frames.len() as u64;
        let (fanout, wires) = &mut self.shards[shard];
        fanout.reply(lane, kind, frames, wires);
        self.see_to_lanes(shard);
    }

    pub(in super::super) fn answer(&mut self, n: usize, event: &Event<'_>, kind: Lane) {
        let Some(connection) = &self.connections[n] else { return };
        let is_named = !matches!(connection.session.mode(), Mode::Room(_));
        let mut frame = Vec::new();
        connection.session.dialect().encode_event(event, is_named, &mut frame);
        self.reply(n, &frame, kind);
    }

    pub(in super::super) fn refuse(&mut self, n: usize, code: ErrorCode, id: ReplyId<'_>) {
        let Some(connection) = &self.connections[n] else { return };
        if connection.session.dialect() == Dialect::Json {
            return self.answer(n, &Event::Error { code, message: "no", id }, Lane::Control);
        }
        self.end(n, CloseReason::Overloaded);
    }

    pub(in super::super) fn publish(
        &mut self,
        n: usize,
        target: &Target,
        payload: PayloadRef<'_>,
        except_self: bool,
        id: ReplyId<'_>,
    ) {
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
                    acks.push(Item::Order(Order::Ack { lane, id, delivery }));
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
        self.note_evicted();
        match published {
            Ok(receipted) => {
                let life = expected.expect("at the bound on rooms none is made");
                self.note_publication(n, life, user, payload, except, receipted.position);
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

    pub(in super::super) fn presence(&mut self, n: usize, target: &Target, id: ReplyId<'_>) {
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
    pub(in super::super) fn close_room(&mut self, room: usize) -> bool {
        let life = self.directory.remove(&room);
        assert_eq!(self.registry.close(&self.names[room]), life.is_some());
        let Some(life) = life else { return false };
        self.say(life, &Due::Closed, None, None, &RoomEvent::RoomClosed(self.names[room].clone()));
        self.totals.closed_rooms += 1;
        true
    }
}
