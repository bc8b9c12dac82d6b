//! A connection and its user: the name it is known by, from its first words to its end, and the rooms he is missed in.

use std::sync::Arc;

use fanfare_fanout::{Delivery, Lane, LaneId, Receipt};
use fanfare_guard::{Verdict, may_send};
use fanfare_protocol::{CloseReason, Dialect, ErrorCode, Event, Mode, PayloadRef, ReplyId, UserName};
use fanfare_registry::{Item, NotLetIn, Owner, Place, Room};

use super::ShardLoop;
use super::allowance::Allowance;
use super::orders::Order;
use crate::direct::{Direct, OVERLOADED};
use crate::moderation::REJECTED;
use crate::observed::Limit;
use crate::people::Known;

/// Users missed in one turn.
const MISSED_PER_TURN: usize = 256;

/// How a member parts from its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parting {
    /// It tells the others.
    Says,
    /// It wants to be there no more, or the room has ended.
    Unsaid,
    /// Its connection has ended: its user may be back in a moment.
    Lost,
}

impl ShardLoop {
    /// Makes a connection known under its user's name.
    ///
    /// # Errors
    /// Why it must end: the name is somebody else's, or its user has connections enough.
    pub(super) fn take_name(&mut self, lane: LaneId) -> Result<(), CloseReason> {
        let (hub, now, settings) = (self.hub.clone(), self.now, self.settings.clone());
        let place = self.place(lane);
        let Some(connection) = self.connection(lane) else { return Ok(()) };
        // Nobody is met there.
        if matches!(connection.session.mode(), Mode::Echo | Mode::HelloWorld | Mode::App(_)) {
            return Ok(());
        }
        let Some(person) = connection.person.as_deref_mut() else { return Ok(()) };
        let Some(user) = &person.identity.user else { return Ok(()) };
        let owner = person.identity.guest.map_or(Owner::Token, Owner::Guest);
        let mut bucket = None;
        let who = |former| {
            let mut known = Known::now(person.identity.clone(), former);
            bucket = (settings.messages_per_second_per_user_max > 0).then(|| known.bucket());
            known
        };
        let max = if settings.connections_per_user_max == 0 { usize::MAX } else { settings.connections_per_user_max };
        let bound = if settings.observes { usize::MAX } else { max };
        let came = match hub.users().come(user, (owner, who), place, bound, now) {
            Ok(came) => came,
            Err(NotLetIn::NameTaken) => return Err(CloseReason::NameTaken),
            Err(NotLetIn::ConnectionsMax) => {
                hub.count_beyond(Limit::ConnectionsPerUser, false);
                return Err(CloseReason::TooManyConnections { max });
            }
        };
        if came.connections > max {
            hub.count_beyond(Limit::ConnectionsPerUser, true);
        }
        person.is_known = true;
        Allowance::set_users(&mut connection.allowance, bucket);
        hub.end_places(&came.displaced, CloseReason::NameTaken);
        Ok(())
    }

    /// The connection ends.
    pub(super) fn give_name_back(&mut self, lane: LaneId) {
        let place = self.place(lane);
        let (hub, now) = (self.hub.clone(), self.now);
        let Some(person) = self.connection(lane).and_then(|connection| connection.person.as_deref_mut()) else {
            return;
        };
        if let Some(user) = person.identity.user.as_ref().filter(|_| std::mem::take(&mut person.is_known)) {
            hub.users().go(user, place, now);
        }
    }

    /// A member has parted from its room. The others miss a user whose connection was lost when he has not come back in time.
    pub(super) fn part(&mut self, room: &Arc<Room>, user: Option<&UserName>, parting: Parting) {
        let registry = self.hub.registry();
        let debounce = self.hub.settings().presence_debounce;
        match user {
            Some(user) if parting == Parting::Lost && !debounce.is_zero() => {
                if let Some(absence) = registry.lose(room, self.index, user) {
                    self.absences.push_back((self.now + debounce, absence));
                }
            }
            _ => registry.leave(room, self.index, user, parting == Parting::Says),
        }
    }

    /// Looks at those who have been away for long enough, a bounded number.
    pub(super) fn miss_absent(&mut self) {
        for _ in 0..MISSED_PER_TURN {
            let now = self.now;
            let Some((_, absence)) = self.absences.pop_front_if(|(due, _)| *due <= now) else { return };
            self.hub.registry().miss(absence);
        }
    }

    fn place(&mut self, lane: LaneId) -> Place {
        let dialect = self.connection(lane).map(|connection| connection.session.dialect());
        // What is said to a user must not be taken for what a room says, and an event stream's ids are a room's.
        Place { shard: self.index, lane, hears: dialect == Some(Dialect::Json) }
    }

    /// Sends to a user what a client says to him.
    pub(super) fn send(&mut self, lane: LaneId, to: UserName, payload: PayloadRef<'_>, id: ReplyId<'_>) {
        let hub = self.hub.clone();
        let Some(connection) = self.connection(lane) else { return };
        if let Verdict::Deny(why) = may_send(hub.settings().send, connection.identity()) {
            return self.refuse(lane, ErrorCode::NotAllowed, why, id);
        }
        let from = connection.user().cloned();
        let Some(payload) = hub.judge_direct(payload) else {
            return self.refuse(lane, ErrorCode::Rejected, REJECTED, id);
        };
        let id_back: Option<Box<str>> = id.0.map(Into::into);
        // The word of what became of it has its place from here on.
        if id_back.is_some() && self.intake.reserve(0).is_err() {
            self.pause_publisher(lane);
            return self.refuse(lane, ErrorCode::Overloaded, OVERLOADED, id);
        }
        let (intake, has_id) = (self.intake.clone(), id_back.is_some());
        let done = move |sent| {
            if let Some(id) = id_back {
                intake.push(Item::Order(Order::Sent { lane, id, sent }));
            }
        };
        if hub.send_to_user(to, from.as_ref(), &payload, Box::new(done)) {
            self.owe_acks(lane, u32::from(has_id));
        } else {
            self.intake.release(usize::from(has_id), 0);
            self.refuse(lane, ErrorCode::Overloaded, OVERLOADED, id);
        }
        if self.intake.is_pressed() {
            self.pause_publisher(lane);
        }
    }

    /// Tells a connection what was said to its user, if it is still there.
    pub(super) fn tell_user(&mut self, lane: LaneId, direct: &Direct, receipt: &Receipt) {
        self.intake.release(1, direct.frame.len());
        if !self.is_open(lane) {
            return receipt.report(Delivery::default());
        }
        self.fanout.reply(lane, Lane::Data, &direct.frame, &mut self.sockets);
        self.see_to_lanes();
        receipt.report(Delivery { delivered: u64::from(self.is_open(lane)), ..Delivery::default() });
    }

    /// Tells a connection that has just come what waited for its user.
    pub(super) fn tell_inbox(&mut self, lane: LaneId) {
        let is_hearing = self.is_open(lane) && self.place(lane).hears;
        let person = self.connection(lane).and_then(|connection| connection.person.as_deref());
        let known_as = person.filter(|person| person.is_known).and_then(|person| person.identity.user.clone());
        let Some(user) = known_as.filter(|_| is_hearing) else { return };
        let inbox = self.hub.users().collect(&user, self.now);
        if inbox.is_empty() {
            return;
        }
        let mut frames = Vec::new();
        if inbox.dropped() > 0 {
            let (count, dropped) = (inbox.letters().len() as u64, inbox.dropped());
            Dialect::Json.encode_event(&Event::Inbox { count, dropped }, true, &mut frames);
        }
        for letter in inbox.letters() {
            frames.extend_from_slice(&letter.frame);
        }
        self.send_in_place(lane, &frames);
    }
}
