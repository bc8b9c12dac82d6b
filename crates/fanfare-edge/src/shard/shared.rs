//! Publishing where several nodes share a log: what is published is posted, and takes its place when it comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfare_fanout::{LaneId, RoomId};
use fanfare_protocol::{CloseReason, Dialect, ErrorCode, Position, ReplyId, RoomName};
use fanfare_registry::{Draft, Item};

use super::ShardLoop;
use super::orders::Order;
use super::people::Parting;
use crate::engine::{Engine, Unpublished};
use crate::hub::Hub;

/// What those are told who would enter a room before it is known where it stands.
pub(super) const ENGINE_UNREAD: &str = "this node has not read the log of its engine yet; try again";

impl ShardLoop {
    /// Posts a publication. Its ack comes once it has come back and all shards have reported, or an error when it has not in time.
    pub(super) fn publish_shared(
        &mut self,
        lane: LaneId,
        hub: &Hub,
        engine: &Engine,
        room: RoomName,
        draft: Draft,
        id: ReplyId<'_>,
    ) {
        let tells_offset = id.0.is_some() && hub.room_options(&room).offsets;
        let offset = tells_offset.then(Arc::<AtomicU64>::default);
        let Ok(receipt) = self.receipt_for(lane, id, offset.clone()) else {
            hub.registry().stats().overloaded.fetch_add(1, Ordering::Relaxed);
            self.pause_publisher(lane);
            return self.refuse_unpublished(lane, id, Unpublished::Full);
        };
        let has_receipt = receipt.is_some();
        let tell = self.unpublished_to(lane, id);
        let on_return = Box::new(move |result: Result<Position, Unpublished>| match (result, offset) {
            (Ok(position), Some(offset)) => offset.store(position.offset, Ordering::Relaxed),
            (Ok(_), None) => {}
            (Err(why), _) => tell(why),
        });
        match hub.post(engine, room, Draft { receipt, ..draft }, on_return) {
            Ok(is_pressed) => {
                self.owe_acks(lane, u32::from(has_receipt));
                if is_pressed || self.intake.is_pressed() {
                    self.pause_publisher(lane);
                }
            }
            Err(why) => {
                if has_receipt {
                    self.intake.release(1, 0);
                }
                if why == Unpublished::Full {
                    hub.registry().stats().overloaded.fetch_add(1, Ordering::Relaxed);
                    self.pause_publisher(lane);
                }
                self.refuse_unpublished(lane, id, why);
            }
        }
    }

    /// Posts that a room is closed.
    pub(super) fn close_shared(&mut self, lane: LaneId, hub: &Hub, engine: &Engine, room: RoomName, id: ReplyId<'_>) {
        // Nobody waits for its ack, so an error has no place in the intake either.
        let tell = self.unpublished_to(lane, ReplyId(None));
        let on_return = Box::new(move |result| _ = Result::map_err(result, tell));
        if let Err(why) = hub.post_close(engine, room, on_return) {
            self.refuse_unpublished(lane, id, why);
        }
    }

    /// Sends this shard the order to tell a publisher. The place in the intake is that of its ack; where none was to come it takes one.
    fn unpublished_to(&self, lane: LaneId, id: ReplyId<'_>) -> impl FnOnce(Unpublished) + Send + use<> {
        let (intake, id) = (self.intake.clone(), id.0.map(Box::<str>::from));
        move |why| {
            if id.is_none() {
                intake.reserve_always(0);
            }
            intake.push(Item::Order(Order::Unpublished { lane, id, why }));
        }
    }

    pub(super) fn tell_unpublished(&mut self, lane: LaneId, id: Option<&str>, why: Unpublished) {
        self.intake.release(1, 0);
        if !self.is_open(lane) {
            return;
        }
        self.refuse_unpublished(lane, ReplyId(id), why);
        if id.is_some() {
            self.count_ack(lane);
        }
    }

    fn refuse_unpublished(&mut self, lane: LaneId, id: ReplyId<'_>, why: Unpublished) {
        let dialect = self.connection(lane).map(|connection| connection.session.dialect());
        if let (Unpublished::TooLong { max }, Some(Dialect::Text | Dialect::TextJoined)) = (why, dialect) {
            return self.end(lane, CloseReason::MessageTooBig { max });
        }
        let code = match why {
            Unpublished::Away | Unpublished::Unknown => ErrorCode::EngineAway,
            Unpublished::Full => ErrorCode::Overloaded,
            Unpublished::RoomsMax | Unpublished::TooLong { .. } => ErrorCode::LimitReached,
        };
        self.refuse(lane, code, &why.to_string(), id);
    }

    /// Not all that a room says is known here: whoever is in it is told to come back, and hears then what it missed, or that it did.
    pub(super) fn lose_room(&mut self, room: RoomId) {
        self.fanout.flush_room(room, &mut self.sockets);
        let lanes = self.fanout.members(room).into_iter().chain(self.behind.lanes_in(room));
        for lane in lanes.collect::<Vec<_>>() {
            self.leave_room(lane, room, Parting::Unsaid, false);
            if self.is_open(lane) {
                self.end(lane, CloseReason::EngineLost);
            }
        }
        self.see_to_lanes();
    }
}
