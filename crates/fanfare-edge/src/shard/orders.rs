//! What arrives at the intake: publications, rooms that close, and orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::{Delivery, Lane, LaneId, Queued, Receipt, RoomId};
use fanfare_guard::{Identity, Revocation};
use fanfare_protocol::{
    CloseReason, Dialect, Event, Mode, Position, ReplyId, Session, Variant, WireForm, wire::Decoder,
};
use fanfare_registry::Item;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::ShardLoop;
use super::again::Again;
use super::allowance::Allowance;
use super::connection::{Connection, Person, Phase};
use super::heartbeat::{Beat, Heartbeat};
use super::inspect::Inspection;
use super::leaving::tenths;
use super::moment::Moment;
use super::people::Parting;
use crate::direct::{Direct, Sent};
use crate::engine::Unpublished;
use crate::gate::Permit;
use crate::hub::ConnectionId;
use crate::ledger::Closed;
use crate::tls::Bare;
use crate::token::HeldToken;

/// What shards are told besides publications.
#[derive(Debug)]
pub enum Order {
    /// Take over a socket whose handshake is done.
    #[doc(hidden)]
    Adopt(Box<Adopted>),
    /// Tell a publisher what became of its publication.
    #[doc(hidden)]
    Ack {
        /// The publisher.
        lane: LaneId,
        /// The command's id.
        id: Box<str>,
        /// The publication's number, where its room tells them. Written by the shard that takes this order.
        offset: Option<Arc<AtomicU64>>,
        /// What became of it.
        delivery: Delivery,
    },
    /// Tell a publisher that what it posted to the engine has not come back.
    #[doc(hidden)]
    Unpublished {
        /// The publisher.
        lane: LaneId,
        /// The command's id.
        id: Option<Box<str>>,
        /// Why.
        why: Unpublished,
    },
    /// A room has ended because not all of what it says is known here.
    #[doc(hidden)]
    LostRoom {
        /// Which.
        room: RoomId,
    },
    /// Say that this shard turns.
    #[doc(hidden)]
    Turn(oneshot::Sender<()>),
    /// Tell of connections.
    #[doc(hidden)]
    Inspect(Box<Inspection>),
    /// Tell a member where its room's stream stands.
    #[doc(hidden)]
    Again(Box<Again>),
    /// End a connection.
    #[doc(hidden)]
    End {
        /// Which one.
        lane: LaneId,
        /// Why.
        reason: CloseReason,
        /// Where to say whether it was there, and open; nowhere, if nobody asks.
        told: Option<oneshot::Sender<bool>>,
    },
    /// Close the connections whose tokens were taken back.
    #[doc(hidden)]
    Revoke {
        /// Which.
        revocation: Arc<Revocation>,
        /// Where to say how many they were.
        told: oneshot::Sender<u64>,
    },
    /// Do nothing for a while.
    #[cfg(feature = "faults")]
    Wedge {
        /// How long at most.
        time: Duration,
        /// Hung up when it is to go on.
        holds: std::sync::mpsc::Receiver<std::convert::Infallible>,
    },
    /// Accept nobody for a while.
    #[cfg(feature = "faults")]
    Deafen {
        /// How long.
        time: Duration,
    },
    /// Tell a connection something that was said to its user.
    #[doc(hidden)]
    Direct {
        /// The connection.
        lane: LaneId,
        /// What was said.
        direct: Arc<Direct>,
        /// Where to report whether it was told.
        receipt: Arc<Receipt>,
    },
    /// Tell a sender what became of a message to a user.
    #[doc(hidden)]
    Sent {
        /// The sender.
        lane: LaneId,
        /// The command's id.
        id: Box<str>,
        /// What became of it.
        sent: Sent,
    },
    /// Close all connections, evenly from now on, then end.
    Drain {
        /// When all are to be closed, on the node's clock.
        ends: Duration,
    },
}

/// A socket whose handshake is done.
#[derive(Debug)]
pub struct Adopted {
    pub(crate) socket: Bare,
    /// Bytes that came with the handshake.
    pub(crate) leftover: Bytes,
    /// What is still to be said of the answer to its request: the head of an event stream.
    pub(crate) opening: Vec<u8>,
    pub(crate) session: Session,
    pub(crate) identity: Identity,
    /// What is kept of its token, if it brought one.
    pub(crate) token: Option<Box<HeldToken>>,
    /// Why it is closed at once: browsers are told a close code, but not the status of a refused handshake.
    pub(crate) refused: Option<CloseReason>,
    /// Where the client was before, if it wants what it missed.
    pub(crate) since: Option<Position>,
    pub(crate) permit: Permit,
}

impl ShardLoop {
    /// Takes up to `items_max` items. `true` when none is left.
    pub(super) fn take_items(&mut self, items_max: usize) -> bool {
        for _ in 0..items_max {
            match self.intake.pop() {
                Some(item) => self.take_item(item),
                None => return true,
            }
        }
        self.intake.is_empty()
    }

    fn take_item(&mut self, item: Item<Order>) {
        match item {
            Item::Event { room, seq, event, except, receipt } => {
                self.fanout.accept(room, seq, &event, except, receipt);
            }
            Item::CloseRoom(room) => self.close_room(room),
            // Taken over between reads, never within one: what came with a handshake may itself make items be taken.
            Item::Order(Order::Adopt(adopted)) => self.arrivals.push_back(adopted),
            Item::Order(Order::Ack { lane, id, offset, delivery }) => {
                self.intake.release(1, 0);
                let Delivery { delivered, dropped, evicted } = delivery;
                let offset = offset.map(|offset| offset.load(Ordering::Relaxed));
                let ack = Event::Ack { offset, delivered, dropped, evicted, id: ReplyId(Some(&id)) };
                self.send_event(lane, Lane::Control, &ack);
                self.count_ack(lane);
            }
            Item::Order(Order::Unpublished { lane, id, why }) => self.tell_unpublished(lane, id.as_deref(), why),
            Item::Order(Order::LostRoom { room }) => self.lose_room(room),
            // Who asked may have gone.
            Item::Order(Order::Turn(told)) => _ = told.send(()),
            Item::Order(Order::Inspect(inspection)) => self.inspect(*inspection),
            Item::Order(Order::Again(again)) => self.answer_again(*again),
            Item::Order(Order::Direct { lane, direct, receipt }) => self.tell_user(lane, &direct, &receipt),
            Item::Order(Order::Sent { lane, id, sent: Sent { delivered, queued } }) => {
                self.intake.release(1, 0);
                let ack = Event::Sent { delivered, queued, id: ReplyId(Some(&id)) };
                self.send_event(lane, Lane::Control, &ack);
                self.count_ack(lane);
            }
            Item::Order(Order::End { lane, reason, told }) => {
                let is_open = self.is_open(lane);
                if is_open {
                    self.end(lane, reason);
                }
                if let Some(told) = told {
                    // Whoever asked may have gone; the connection ends all the same.
                    let _ = told.send(is_open);
                }
            }
            #[cfg(feature = "faults")]
            Item::Order(Order::Wedge { time, holds }) => {
                // Time that is up and a hold that was dropped are the same here.
                let _ = holds.recv_timeout(time);
            }
            #[cfg(feature = "faults")]
            Item::Order(Order::Deafen { time }) => self.deafen(time),
            Item::Order(Order::Drain { ends }) => self.leave_by(ends),
            Item::Order(Order::Revoke { revocation, told }) => {
                // Whoever asked may have gone; they are closed all the same.
                let _ = told.send(self.revoke(&revocation));
            }
        }
    }

    /// The room has ended: its members are told, one-room connections are closed.
    fn close_room(&mut self, room: RoomId) {
        self.fanout.flush_room(room, &mut self.sockets);
        for lane in self.fanout.members(room) {
            self.leave_room(lane, room, Parting::Unsaid, false);
            let is_its_room = self.connection(lane).is_some_and(|c| matches!(c.session.mode(), Mode::Room(_)));
            if is_its_room {
                self.end(lane, CloseReason::RoomClosed);
            }
        }
        self.close_room_behind(room);
        self.see_to_lanes();
    }

    /// Takes over the sockets whose handshakes are done.
    pub(super) fn adopt_arrivals(&mut self) {
        while let Some(adopted) = self.arrivals.pop_front() {
            self.adopt(*adopted);
        }
    }

    fn adopt(&mut self, adopted: Adopted) {
        let Adopted { socket, leftover, opening, session, identity, token, refused, since, permit } = adopted;
        let lane = self.fanout.open(wire_form(&session).index());
        if let Err(error) = self.watch_socket(&socket.socket, lane) {
            // Its handshake was counted, so its end is: it goes without a close frame, because it could not be heard.
            warn!(%error, "a connection could not be polled");
            let closed = Closed {
                at: self.now,
                connection: ConnectionId { shard: self.index, lane },
                user: identity.user,
                address: permit.address(),
                reason: CloseReason::Internal,
                room: session.room().cloned(),
                age: Duration::ZERO,
                queued: Queued::default(),
            };
            self.hub.record_close(closed);
            self.close_lane(lane);
            return;
        }
        self.sockets.insert(lane.index, socket);
        // Its token may have been taken back since it was checked, and the word of that have been here before it.
        let refused = refused.or_else(|| self.refused_meanwhile(&identity, token.as_deref()));
        self.insert(lane, session, (identity, token), permit);
        debug_assert!(self.replies.owner.is_none(), "a socket is not taken over within a read");
        self.replies.owner = Some(lane);
        self.replies.data.extend_from_slice(&opening);
        match refused {
            Some(reason) => self.end(lane, reason),
            None => self.greet(lane, since),
        }
        self.send_replies(lane);
        self.replies.end();
        let mut leftover = Vec::from(leftover);
        if !leftover.is_empty() {
            self.on_bytes(lane, &mut leftover);
        }
        self.see_to_lanes();
    }

    /// A connection begins.
    pub(super) fn insert(
        &mut self,
        lane: LaneId,
        session: Session,
        (identity, token): (Identity, Option<Box<HeldToken>>),
        permit: Permit,
    ) {
        let settings = &self.settings;
        let mut heartbeat = Heartbeat::new(self.now, &settings.heartbeat, self.dice.roll());
        let due = match heartbeat.beat(self.now, &settings.heartbeat) {
            Beat::Wait(until) => until.min(token.as_deref().map_or(Duration::MAX, HeldToken::due)),
            Beat::Ping | Beat::PongTimeout(_) | Beat::WriteTimeout(_) => self.now,
        };
        debug!(connection = %ConnectionId { shard: self.index, lane }, client = ?permit.address(), "connection admitted");
        let connection = Connection {
            lane,
            session,
            person: Person::new(identity, token),
            began: self.now.into(),
            decoder: Decoder::new(),
            phase: Phase::Open(heartbeat),
            armed: Moment::NEVER,
            is_ready: false,
            has_hung_up: false,
            is_paused: false,
            is_pressed: false,
            has_unread: false,
            ignored_bytes: 0,
            acks_owed: 0,
            spoke: tenths(self.now),
            allowance: Allowance::of_connection(settings.messages_per_second_max),
            permit,
        };
        let index = lane.index as usize;
        if index >= self.connections.len() {
            self.connections.resize_with(index + 1, || None);
        }
        self.connections[index] = Some(Box::new(connection));
        self.live += 1;
        self.open += 1;
        self.crowd.came(self.live);
        self.hub.counters().connections.fetch_add(1, Ordering::Relaxed);
        self.arm(lane, due);
    }

    /// First words: `welcome` on `/ws`; the room is joined on `/room/{room}`.
    pub(super) fn greet(&mut self, lane: LaneId, since: Option<Position>) {
        let hub = self.hub.clone();
        if let Err(reason) = self.take_name(lane) {
            return self.end(lane, reason);
        }
        let Some(connection) = self.connection(lane) else { return };
        match connection.session.mode().clone() {
            Mode::Rooms => {
                let user = connection.user().cloned();
                let token = connection.identity().guest.and_then(|guest| hub.guest_token(user.as_ref()?, guest));
                let heartbeat_ms = self.settings.heartbeat.ping.as_millis() as u64;
                let name = ConnectionId { shard: self.index, lane }.to_string();
                let settings = self.settings.clone();
                let (user, token, node) = (user.as_ref(), token.as_deref(), &settings.node);
                self.answer(lane, &Event::Welcome { connection: &name, heartbeat_ms, user, token, node });
            }
            Mode::Room(room) => self.enter_own_room(lane, &room, since),
            Mode::App(app) => self.greet_app(lane, app),
            Mode::Echo | Mode::HelloWorld => {}
        }
        self.tell_inbox(lane);
    }
}

/// The form in which a session is spoken to.
pub(super) fn wire_form(session: &Session) -> WireForm {
    WireForm::new(variant(session), session.deflate().map(|agreement| agreement.window))
}

/// The same, before compression.
pub(super) fn variant(session: &Session) -> Variant {
    match (session.dialect(), session.mode()) {
        (Dialect::Json, Mode::Room(_)) => Variant::JsonRoom,
        (Dialect::Json, _) => Variant::JsonRooms,
        (Dialect::Text, _) => Variant::Text,
        (Dialect::TextJoined, _) => Variant::TextJoined,
        (Dialect::Sse, _) => Variant::Sse,
        (Dialect::Pusher, _) => Variant::Pusher,
    }
}
