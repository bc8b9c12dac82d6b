//! What sessions decided, done: the only caller of the registry besides the HTTP API and the tickers.

use fanfare_fanout::{Lane, LaneId, RoomId};
use fanfare_guard::Verdict;
use fanfare_protocol::pusher::PusherCommand;
use fanfare_protocol::wire::{Opcode, frame};
use fanfare_protocol::{
    Action, CloseReason, Dialect, ErrorCode, Event, Mode, PayloadRef, Position, ReplyId, RoomName, Target, UserName,
};
use fanfare_registry::{JoinError, Joined, Presence};
use tracing::debug;

use super::ShardLoop;
use super::people::Parting;
use super::shared::ENGINE_UNREAD;
use crate::hub::ConnectionId;
use crate::observed::Limit;

/// What a client is told who gets no place in a room.
fn refusal(error: JoinError) -> ErrorCode {
    match error {
        JoinError::RoomsMax => ErrorCode::LimitReached,
        JoinError::SubscribersMax | JoinError::MembersMax | JoinError::ListMax => ErrorCode::RoomFull,
    }
}

impl ShardLoop {
    pub(super) fn perform(&mut self, lane: LaneId, action: Action<'_>) {
        // Coming, going and closing say things to rooms that no bound may refuse: whoever causes them is slowed instead.
        let moves = matches!(
            action,
            Action::Subscribe { .. }
                | Action::Unsubscribe { .. }
                | Action::Leave { .. }
                | Action::CloseRoom { .. }
                | Action::Pusher(PusherCommand::Subscribe { .. } | PusherCommand::Unsubscribe { .. })
        );
        if moves && self.hub.registry().shards().iter().any(|shard| shard.is_pressed()) {
            self.pause_publisher(lane);
        }
        match action {
            Action::Publish { room, payload, except_self, id } => self.publish(lane, &room, payload, except_self, id),
            Action::Send { user, payload, id } => self.send(lane, user, payload, id),
            Action::Reply(payload) => {
                let (opcode, bytes) = match payload {
                    PayloadRef::Json(text) | PayloadRef::Text(text) => (Opcode::Text, text.as_bytes()),
                    PayloadRef::Binary(bytes) => (Opcode::Binary, bytes),
                };
                self.reply(lane, opcode, bytes);
            }
            Action::Subscribe { room, since, id } => self.subscribe(lane, &room, since, id),
            Action::Unsubscribe { room, id } => self.unsubscribe(lane, &room, id, false),
            Action::Leave { room, id } => self.unsubscribe(lane, &room, id, true),
            Action::Presence { room, after, limit, id } => self.presence(lane, &room, (after.as_deref(), limit), id),
            Action::History { room, since, limit, id } => self.history(lane, &room, since, limit, id),
            Action::CloseRoom { room, id } => self.close_room_by_command(lane, &room, id),
            Action::Refresh { token, id } => self.refresh(lane, &token, id),
            Action::Pusher(command) => self.perform_pusher(lane, command),
            Action::Pong { id } => self.answer(lane, &Event::Pong { id }),
            Action::Refuse { code, message, id } => self.refuse(lane, code, &message, id),
            Action::Said(message) => {
                debug!(connection = %ConnectionId { shard: self.index, lane }, message, "client said");
            }
            Action::Close(reason) => self.end(lane, reason),
        }
    }

    /// Answers the connection that is being read with a message of its own, compressed where that was agreed.
    fn reply(&mut self, lane: LaneId, opcode: Opcode, payload: &[u8]) {
        let agreement = self.connection(lane).and_then(|connection| connection.session.deflate());
        match agreement {
            Some(agreement) => self.fanout.tools().frame(opcode, payload, agreement.window, &mut self.replies.data),
            None => frame(opcode, payload, &mut self.replies.data),
        }
    }

    /// Answers a connection: among its replies while it is being read, at once otherwise.
    pub(super) fn answer(&mut self, lane: LaneId, event: &Event<'_>) {
        let keeps_place = matches!(
            event,
            Event::Subscribed { .. }
                | Event::Unsubscribed { .. }
                | Event::History { .. }
                | Event::Gap { .. }
                | Event::Drain { .. }
                | Event::Welcome { .. }
        );
        if self.replies.owner != Some(lane) {
            let kind = if keeps_place { Lane::Data } else { Lane::Control };
            return self.send_event(lane, kind, event);
        }
        let Some(connection) = self.connection(lane) else { return };
        let is_named = !matches!(connection.session.mode(), Mode::Room(_));
        let dialect = connection.session.dialect();
        dialect.encode_event(event, is_named, self.replies_of(lane, keeps_place));
    }

    /// Sends an event at once, to a connection that is not being read.
    pub(super) fn send_event(&mut self, lane: LaneId, kind: Lane, event: &Event<'_>) {
        let Some(connection) = self.connection(lane) else { return };
        let is_named = !matches!(connection.session.mode(), Mode::Room(_));
        let mut frame = Vec::with_capacity(128);
        connection.session.dialect().encode_event(event, is_named, &mut frame);
        self.fanout.reply(lane, kind, &frame, &mut self.sockets);
    }

    /// Tells a client that its command was refused. The text dialect has no word for that: there the connection ends with the reason, because
    /// a message that vanished would be a lie.
    pub(super) fn refuse(&mut self, lane: LaneId, code: ErrorCode, message: &str, id: ReplyId<'_>) {
        let dialect = self.connection(lane).map(|connection| connection.session.dialect());
        if matches!(dialect, Some(Dialect::Text | Dialect::TextJoined)) {
            let reason = match code {
                ErrorCode::NotAllowed => CloseReason::NotAllowed,
                ErrorCode::Rejected => CloseReason::Rejected,
                ErrorCode::EngineAway => CloseReason::EngineAway,
                ErrorCode::TooFast => CloseReason::RoomTooFast,
                _ => CloseReason::Overloaded,
            };
            return self.end(lane, reason);
        }
        self.answer(lane, &Event::Error { code, message, id });
    }

    /// The room a command means. `None` when the connection has none of its own; that cannot be said on such a path.
    pub(super) fn named(&mut self, lane: LaneId, target: &Target) -> Option<RoomName> {
        match target {
            Target::Named(name) => Some(name.clone()),
            Target::Own => match self.connection(lane)?.session.mode() {
                Mode::Room(name) => Some(name.clone()),
                Mode::Rooms | Mode::Echo | Mode::HelloWorld | Mode::App(_) => None,
            },
        }
    }

    pub(super) fn subscribe(&mut self, lane: LaneId, name: &RoomName, since: Option<Position>, id: ReplyId<'_>) {
        let max = self.settings.subscriptions_per_connection_max;
        if let Some(room) = self.member_room(lane, name) {
            return self.subscribe_again(lane, room, name, since, id);
        }
        if self.rooms_of(lane).len() >= max && !self.hub.lets_pass(Limit::Subscriptions) {
            let message = format!("this connection is in {max} rooms already; unsubscribe from one first");
            return self.refuse(lane, ErrorCode::LimitReached, &message, id);
        }
        match self.join(lane, name, since) {
            Ok(Joined { room, position, recovered, missed, .. }) => {
                self.answer(lane, &Event::Subscribed { room: name, position, recovered, id });
                self.replay_first(lane, &room, since, missed);
            }
            Err((code, message)) => self.refuse(lane, code, &message, id),
        }
    }

    /// Makes a one-room connection a member of its room; if it may not, the connection ends.
    pub(super) fn enter_own_room(&mut self, lane: LaneId, name: &RoomName, since: Option<Position>) {
        match self.join(lane, name, since) {
            Ok(Joined { room, position, recovered, missed, .. }) => {
                self.share_name(lane, name);
                let subscribed = Event::Subscribed { room: name, position, recovered, id: ReplyId(None) };
                if self.is_event_stream(lane) {
                    self.begin_stream(lane, position, &missed, &subscribed);
                } else if since.is_some() {
                    self.answer(lane, &subscribed);
                }
                self.replay_first(lane, &room, since, missed);
            }
            Err((ErrorCode::NotAllowed, _)) => self.end(lane, CloseReason::NotAllowed),
            Err((ErrorCode::EngineAway, _)) => self.end(lane, CloseReason::EngineAway),
            Err((ErrorCode::RoomFull, _)) => self.end(lane, CloseReason::RoomFull),
            Err(_) => self.end(lane, CloseReason::Overloaded),
        }
    }

    /// Has all members of a room on this shard keep one copy of its name.
    fn share_name(&mut self, lane: LaneId, name: &RoomName) {
        let Some(shared) = self.rooms.shared_name(name).cloned() else { return };
        if let Some(connection) = self.connection(lane) {
            connection.session.share_room(&shared);
        }
    }

    /// Takes a place in a room. What was missed must be told next: that makes it a member here.
    fn join(&mut self, lane: LaneId, name: &RoomName, since: Option<Position>) -> Result<Joined, (ErrorCode, String)> {
        let hub = self.hub.clone();
        let Some(connection) = self.connection(lane) else {
            return Err((ErrorCode::Overloaded, String::new()));
        };
        if let Verdict::Deny(why) = hub.policy(name).may_subscribe(connection.identity(), name) {
            return Err((ErrorCode::NotAllowed, why.to_owned()));
        }
        let user = connection.user().cloned();
        self.enter(lane, name, user.as_ref(), since)
    }

    /// The same for who may, as this user.
    pub(super) fn enter(
        &mut self,
        lane: LaneId,
        name: &RoomName,
        user: Option<&UserName>,
        since: Option<Position>,
    ) -> Result<Joined, (ErrorCode, String)> {
        let (hub, shard, now) = (self.hub.clone(), self.index, self.now);
        let take =
            || hub.registry().rejoin(name, hub.room_options(name), shard, user, since, now).map(|joined| (joined, ()));
        self.enter_by(lane, name, user, take).map(|(joined, ())| joined)
    }

    /// The same by a door of its own, which gives something else with the place.
    pub(super) fn enter_by<T>(
        &mut self,
        lane: LaneId,
        name: &RoomName,
        user: Option<&UserName>,
        take: impl Fn() -> Result<(Joined, T), JoinError>,
    ) -> Result<(Joined, T), (ErrorCode, String)> {
        let (hub, shard) = (self.hub.clone(), self.index);
        if !hub.knows_rooms() {
            return Err((ErrorCode::EngineAway, ENGINE_UNREAD.to_owned()));
        }
        let (joined, more) = loop {
            let (joined, more) = take().map_err(|error| (refusal(error), error.to_string()))?;
            if self.rooms.id_of(name).is_none_or(|known| known == joined.room.id()) {
                break (joined, more);
            }
            // A former life of the room still has members here. Its end is in the intake already, and is told before the next begins.
            hub.registry().leave(&joined.room, shard, user, false);
            self.send_replies(lane);
            self.take_items(usize::MAX);
            if !self.is_open(lane) {
                return Err((ErrorCode::Overloaded, String::new()));
            }
        };
        self.rooms.entered(&joined.room, name);
        Ok((joined, more))
    }

    /// The room of this name that the lane is in.
    pub(super) fn member_room(&self, lane: LaneId, name: &RoomName) -> Option<RoomId> {
        let is_in = |room| self.fanout.is_member(lane, room) || self.behind.contains(lane, room);
        self.rooms.id_of(name).filter(|&room| is_in(room))
    }

    pub(super) fn unsubscribe(&mut self, lane: LaneId, target: &Target, id: ReplyId<'_>, says_so: bool) {
        let Some(name) = self.named(lane, target) else { return };
        // What was said before this command reaches the leaver first, so all of it must have come in; and what was answered before goes
        // out before a room that closes says its last.
        self.send_replies(lane);
        self.take_items(usize::MAX);
        let Some(room) = self.member_room(lane, &name) else {
            if self.is_open(lane) {
                let message = format!("this connection is not in the room {name}");
                self.refuse(lane, ErrorCode::NotSubscribed, &message, id);
            }
            return;
        };
        let parting = if says_so { Parting::Says } else { Parting::Unsaid };
        self.leave_room(lane, room, parting, true);
        self.answer(lane, &Event::Unsubscribed { room: &name, id });
        let Some(connection) = self.connection(lane) else { return };
        if matches!(connection.session.mode(), Mode::Room(_)) && says_so {
            self.end(lane, CloseReason::Left);
        }
    }

    /// Ends a membership on this shard and in the room. `gets_rest`: what the room said before goes to the lane first.
    pub(super) fn leave_room(&mut self, lane: LaneId, room: RoomId, parting: Parting, gets_rest: bool) {
        let was_member = if gets_rest {
            self.fanout.leave(lane, room, &mut self.sockets)
        } else {
            self.fanout.leave_unsent(lane, room)
        };
        if !was_member && !self.behind.remove(lane, room) {
            return;
        }
        let (user, parting) = match self.seats.get_mut(&lane.index) {
            // Members of channels are known by what their application says, and have left when their connection has.
            Some(seat) => (seat.leave(room), Parting::Unsaid),
            None => (self.connection(lane).and_then(|connection| connection.user().cloned()), parting),
        };
        if let Some(room) = self.rooms.left(room) {
            self.part(&room, user.as_ref(), parting);
        }
    }

    fn presence(&mut self, lane: LaneId, target: &Target, (after, limit): (Option<&str>, usize), id: ReplyId<'_>) {
        let Some(name) = self.named(lane, target) else { return };
        let Some(room) = self.member_room(lane, &name) else {
            let message = format!("subscribe to {name} before asking who is in it");
            return self.refuse(lane, ErrorCode::NotSubscribed, &message, id);
        };
        let Some(Presence { count, members, has_more }) =
            self.rooms.by_id(room).map(|room| room.presence(after.unwrap_or_default(), limit))
        else {
            return;
        };
        let next = members.last().filter(|_| has_more);
        self.answer(lane, &Event::Presence { room: &name, count, members: &members, next, id });
    }

    fn close_room_by_command(&mut self, lane: LaneId, target: &Target, id: ReplyId<'_>) {
        let Some(name) = self.named(lane, target) else { return };
        let hub = self.hub.clone();
        let Some(connection) = self.connection(lane) else { return };
        if let Verdict::Deny(why) = hub.policy(&name).may_moderate(connection.identity(), &name) {
            return self.refuse(lane, ErrorCode::NotAllowed, why, id);
        }
        if let Some(engine) = hub.engine() {
            return self.close_shared(lane, &hub, engine, name, id);
        }
        if !hub.registry().close(&name) {
            self.refuse(lane, ErrorCode::NotSubscribed, &format!("there is no room {name}"), id);
        }
    }
}
