//! Subscribing to a room one is in already: the answer says where the stream stands, in its place among the room's messages.

use fanfare_fanout::{LaneId, RoomId};
use fanfare_protocol::{ErrorCode, Event, Position, ReplyId, RoomName};
use fanfare_registry::PublishError;

use super::ShardLoop;
use super::orders::Order;

/// A question that travels through the intake, behind what the room has said before it.
#[derive(Debug)]
pub struct Again {
    lane: LaneId,
    room: RoomId,
    name: RoomName,
    since: Option<Position>,
    id: Option<Box<str>>,
    /// Where the stream stood when it was asked.
    position: Position,
    /// Number of the room's last event then.
    seq: u64,
}

impl ShardLoop {
    /// Asks where the stream of a room stands that the lane is in.
    pub(super) fn subscribe_again(
        &mut self,
        lane: LaneId,
        room: RoomId,
        name: &RoomName,
        since: Option<Position>,
        id: ReplyId<'_>,
    ) {
        let Some(known) = self.rooms.by_id(room).cloned() else { return };
        if let Some(position) = self.behind.position(lane, room, known.info().position) {
            return self.stands_at(lane, name, position, since, id);
        }
        // Its place in the intake, until it is taken out.
        if self.intake.reserve(0).is_err() {
            return self.refuse(lane, ErrorCode::Overloaded, &PublishError::Overloaded.to_string(), id);
        }
        let (name, id) = (name.clone(), id.0.map(Into::into));
        self.hub.registry().mark(&known, self.index, |position, seq| {
            Order::Again(Box::new(Again { lane, room, name, since, id, position, seq }))
        });
    }

    /// The room has said here exactly what it had said when it was asked.
    pub(super) fn answer_again(&mut self, again: Again) {
        self.intake.release(1, 0);
        let Again { lane, room, name, since, id, position, seq } = again;
        let id = ReplyId(id.as_deref());
        if !self.is_open(lane) {
            return;
        }
        // What was answered before goes out before.
        self.send_replies(lane);
        if !self.fanout.is_member(lane, room) {
            // It has left meanwhile, or the room has ended: this is a new subscription.
            return self.subscribe(lane, &name, since, id);
        }
        // What waits to be flushed goes to this lane now; the others' turn comes.
        self.fanout.leave(lane, room, &mut self.sockets);
        self.fanout.join(lane, room, seq);
        if let Some(known) = self.rooms.by_id(room).cloned() {
            self.set_rules(&known);
        }
        self.stands_at(lane, &name, position, since, id);
    }

    fn stands_at(
        &mut self,
        lane: LaneId,
        room: &RoomName,
        position: Position,
        since: Option<Position>,
        id: ReplyId<'_>,
    ) {
        let recovered = since.is_none_or(|since| since == position);
        self.answer(lane, &Event::Subscribed { room, position, recovered, id });
    }
}
