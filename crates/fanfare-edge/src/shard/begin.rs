//! The beginning of a connection: in its shard's loop, whether the loop answered its handshake or hyper did.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fanfare_fanout::{LaneId, Queued};
use fanfare_guard::Identity;
use fanfare_protocol::{CloseReason, Dialect, Event, Mode, Position, Session, Variant, WireForm, wire::Decoder};
use tracing::{debug, warn};

use super::ShardLoop;
use super::allowance::Allowance;
use super::connection::{Connection, Person, Phase};
use super::heartbeat::{Beat, Heartbeat};
use super::leaving::tenths;
use super::moment::Moment;
use crate::admission::Admission;
use crate::gate::Permit;
use crate::hub::ConnectionId;
use crate::ledger::Closed;
use crate::tls::Bare;
use crate::token::HeldToken;

/// A socket whose handshake hyper has answered, or is about to.
#[derive(Debug)]
pub struct Adopted {
    pub(crate) socket: Bare,
    /// Bytes that came with the handshake.
    pub(crate) leftover: Bytes,
    /// What is still to be said of the answer to its request: the head of an event stream.
    pub(crate) opening: Vec<u8>,
    pub(crate) admission: Admission,
    pub(crate) permit: Permit,
}

impl ShardLoop {
    /// Takes over the sockets whose handshakes are done.
    pub(super) fn adopt_arrivals(&mut self) {
        while let Some(adopted) = self.arrivals.pop_front() {
            self.adopt(*adopted);
        }
    }

    fn adopt(&mut self, adopted: Adopted) {
        let Adopted { socket, leftover, opening, mut admission, permit } = adopted;
        let lane = self.fanout.open(wire_form(&admission.session).index());
        if let Err(error) = self.watch_socket(&socket.socket, lane) {
            // Its handshake was counted, so its end is: it goes without a close frame, because it could not be heard.
            warn!(%error, "a connection could not be polled");
            let closed = Closed {
                at: self.now,
                connection: ConnectionId { shard: self.index, lane },
                user: admission.identity.user,
                address: permit.address(),
                reason: CloseReason::Internal,
                room: admission.session.room().cloned(),
                age: Duration::ZERO,
                queued: Queued::default(),
            };
            self.hub.record_close(closed);
            self.close_lane(lane);
            return;
        }
        self.sockets.insert(lane.index, socket);
        // Its token may have been taken back since it was checked, and the word of that have been here before it.
        if admission.refused.is_none() {
            admission.refused = self.refused_meanwhile(&admission.identity, admission.token.as_deref());
        }
        self.begin(lane, admission, permit, |out| out.extend_from_slice(&opening), &mut Vec::from(leftover));
    }

    /// A connection begins. What is still to be said of the answer to its request (`opening`) and the first words on it are one write; then what came
    /// with the request is read.
    pub(super) fn begin(
        &mut self,
        lane: LaneId,
        admission: Admission,
        permit: Permit,
        opening: impl FnOnce(&mut Vec<u8>),
        early: &mut [u8],
    ) {
        let Admission { session, identity, token, refused, since } = admission;
        self.insert(lane, session, (identity, token), permit);
        debug_assert!(self.replies.owner.is_none(), "no connection begins within a read");
        self.replies.owner = Some(lane);
        opening(&mut self.replies.data);
        match refused {
            Some(reason) => self.end(lane, reason),
            None => self.greet(lane, since),
        }
        // A new socket takes some KiB. Were the kernel out of memory even for these, a ping could overtake the answer and the client would fail the
        // handshake: it is lost then, and sees it.
        self.send_replies(lane);
        self.replies.end();
        if !early.is_empty() {
            self.on_bytes(lane, early);
        }
        self.see_to_lanes();
    }

    /// It is one of this shard's from here on.
    fn insert(
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
    fn greet(&mut self, lane: LaneId, since: Option<Position>) {
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
