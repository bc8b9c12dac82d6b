//! Publishing by a command: the right to, the words, a receipt where one is asked for, then the room. Or a refusal, and a publisher that is slowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfare_fanout::{LaneId, Overloaded, Receipt};
use fanfare_guard::{Ruling, Verdict};
use fanfare_protocol::{ErrorCode, Event, PayloadRef, ReplyId, RoomName, Target, UserName};
use fanfare_registry::{Draft, Item, PublishError};

use super::ShardLoop;
use super::orders::Order;
use crate::hub::Hub;
use crate::moderation::{HELD_FULL, HeldPublication, REJECTED};

impl ShardLoop {
    pub(super) fn publish(
        &mut self,
        lane: LaneId,
        target: &Target,
        payload: PayloadRef<'_>,
        except_self: bool,
        id: ReplyId<'_>,
    ) {
        let Some(name) = self.named(lane, target) else { return };
        let hub = self.hub.clone();
        let Some(connection) = self.connection(lane) else { return };
        if let Verdict::Deny(why) = hub.policy(&name).may_publish(connection.identity(), &name) {
            return self.refuse(lane, ErrorCode::NotAllowed, why, id);
        }
        let user = connection.user().cloned();
        self.publish_allowed(lane, name, user, payload, except_self, id);
    }

    /// Publishes what may be published, if moderation has nothing against it.
    pub(super) fn publish_allowed(
        &mut self,
        lane: LaneId,
        name: RoomName,
        user: Option<UserName>,
        payload: PayloadRef<'_>,
        except_self: bool,
        id: ReplyId<'_>,
    ) {
        let hub = self.hub.clone();
        let except = except_self.then_some((self.index, lane));
        let payload = match hub.judge(&name, payload) {
            Ruling::Pass | Ruling::Observe(_) => payload.to_payload(),
            Ruling::Mask(_, masked) => masked,
            Ruling::Reject(_) => return self.refuse(lane, ErrorCode::Rejected, REJECTED, id),
            Ruling::Hold(finding) => {
                let (payload, at) = (payload.to_payload(), self.now);
                return self.hold(lane, HeldPublication { room: name, user, payload, except, finding, at }, id);
            }
        };
        let draft = Draft { user, payload, except, receipt: None };
        match hub.engine() {
            Some(engine) => self.publish_shared(lane, &hub, engine, name, draft, id),
            None => self.publish_here(lane, &hub, &name, draft, id),
        }
    }

    /// Keeps a publication back for a moderator, where there is room for it.
    fn hold(&mut self, lane: LaneId, publication: HeldPublication, id: ReplyId<'_>) {
        if self.hub.hold(publication).is_none() {
            return self.refuse(lane, ErrorCode::Overloaded, HELD_FULL, id);
        }
        if id.0.is_some() {
            self.answer(lane, &Event::Held { id });
        }
    }

    /// Publishes where this node makes the order of rooms.
    fn publish_here(&mut self, lane: LaneId, hub: &Hub, name: &RoomName, draft: Draft, id: ReplyId<'_>) {
        let options = hub.room_options(name);
        // Told with the ack, which comes back to this thread: by then it is set.
        let offset = (options.offsets && id.0.is_some()).then(Arc::<AtomicU64>::default);
        let Ok(receipt) = self.receipt_for(lane, id, offset.clone()) else {
            hub.registry().stats().overloaded.fetch_add(1, Ordering::Relaxed);
            return self.refuse_publication(lane, PublishError::Overloaded, id);
        };
        let has_receipt = receipt.is_some();
        let mentions = hub.may_mention(name, &draft.payload).then(|| (draft.user.clone(), draft.payload.clone()));
        let receipted = match hub.registry().publish(name, options, Draft { receipt, ..draft }, self.now) {
            Ok(receipted) => receipted,
            Err(error) => {
                if has_receipt {
                    self.intake.release(1, 0);
                }
                return self.refuse_publication(lane, error, id);
            }
        };
        if let Some(offset) = offset {
            offset.store(receipted.position.offset, Ordering::Relaxed);
        }
        self.owe_acks(lane, u32::from(has_receipt));
        if let Some((user, payload)) = mentions {
            hub.keep_mentions(name, user.as_ref(), &payload);
        }
        if receipted.is_pressed || self.intake.is_pressed() {
            self.pause_publisher(lane);
        }
    }

    fn refuse_publication(&mut self, lane: LaneId, error: PublishError, id: ReplyId<'_>) {
        let code = match error {
            PublishError::Overloaded => ErrorCode::Overloaded,
            PublishError::RoomsMax => ErrorCode::LimitReached,
            PublishError::TooFast => ErrorCode::TooFast,
        };
        self.refuse(lane, code, &error.to_string(), id);
        if error == PublishError::Overloaded {
            self.pause_publisher(lane);
        }
    }

    /// A receipt that comes back to this shard as an order once all shards have reported, where the command asks for one. Its place in the intake is
    /// reserved from here on, until the ack is taken out of it: a room nobody is in answers as fast as it is asked.
    pub(super) fn receipt_for(
        &self,
        lane: LaneId,
        id: ReplyId<'_>,
        offset: Option<Arc<AtomicU64>>,
    ) -> Result<Option<Arc<Receipt>>, Overloaded> {
        let Some(id) = id.0 else { return Ok(None) };
        self.intake.reserve(0)?;
        let id: Box<str> = id.into();
        let intake = self.intake.clone();
        Ok(Some(Arc::new(Receipt::new(move |delivery| {
            intake.push(Item::Order(Order::Ack { lane, id, offset, delivery }));
        }))))
    }

    /// Slows a publisher by not reading its socket.
    pub(super) fn pause_publisher(&mut self, lane: LaneId) {
        let Some(connection) = self.connection(lane) else { return };
        connection.is_paused = true;
        if !std::mem::replace(&mut connection.is_pressed, true) {
            self.pressed.push(lane);
        }
    }
}
