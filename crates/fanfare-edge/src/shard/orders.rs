//! What arrives at the intake: publications, rooms that close, and orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_fanout::{Delivery, Lane, LaneId, Receipt, RoomId};
use fanfare_guard::Revocation;
use fanfare_protocol::{CloseReason, Event, Mode, ReplyId, UserName};
use fanfare_registry::Item;
use tokio::sync::oneshot;

use super::ShardLoop;
use super::again::Again;
use super::begin::Adopted;
use super::inspect::Inspection;
use super::people::Parting;
use crate::direct::{Direct, Sent};
use crate::engine::Unpublished;

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
    /// End all connections on which a user of an application has signed in.
    #[doc(hidden)]
    EndAppUser {
        /// The application's place among all.
        app: u32,
        /// The user.
        user: UserName,
        /// Where to say how many they were.
        told: oneshot::Sender<u64>,
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
            Item::Order(Order::EndAppUser { app, user, told }) => {
                // As above.
                let _ = told.send(self.end_app_user(app, user));
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
}
