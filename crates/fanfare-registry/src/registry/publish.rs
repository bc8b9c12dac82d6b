//! The door through which a room is told something: under its lock a number, and a reference into the intake of each shard with members.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_fanout::{Delivery, LaneId, Overloaded, Receipt, RoomId};
use fanfare_protocol::{Payload, Position, Published, RoomEvent, RoomName, UserName};
use smallvec::SmallVec;

use super::Registry;
use super::life::is_newly_vacant;
use crate::item::{Item, Said};
use crate::room::{Room, RoomOptions, State};
use crate::sync::MutexGuard;

/// A publication that has not been accepted yet.
#[derive(Debug)]
pub struct Draft {
    /// Who says it.
    pub user: Option<UserName>,
    /// What is said.
    pub payload: Payload,
    /// The connection to leave out: its shard and its lane.
    pub except: Option<(usize, LaneId)>,
    /// Where to report what became of it, if anybody asks.
    pub receipt: Option<Arc<Receipt>>,
}

/// A publication that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it carries the truth about a publication"]
pub struct Receipted {
    /// Where it stands in its room's stream.
    pub position: Position,
    /// A shard it went to is under pressure: slow the publisher by not reading its socket.
    pub is_pressed: bool,
}

/// Why a publication was refused. Nothing of it was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The node has as many rooms as it may have.
    #[error("this node has as many rooms as it may have")]
    RoomsMax,
    /// A shard with members of the room is over its bound.
    #[error("this node cannot take more publications now; try again")]
    Overloaded,
    /// The room is told more than it may be in this time.
    #[error("this room takes no more messages in this second; try again later")]
    TooFast,
}

impl<O> Registry<O> {
    /// Publishes to a room by name, making it if there is none, so that every receipt has a position.
    ///
    /// # Errors
    /// [`PublishError`]; then nothing was delivered to anybody.
    pub fn publish(
        &self,
        name: &RoomName,
        options: RoomOptions,
        draft: Draft,
        now: Duration,
    ) -> Result<Receipted, PublishError> {
        if options.history.is_on() {
            self.make_place(name, draft.payload.len());
        }
        let rate = options.bounds.rate;
        self.in_room(name, options, now, |room, state| {
            // A room that was made for this has its whole burst: none is left behind by a refusal.
            let full_at = rate.map_or(Some(0), |rate| rate.take(state.full_at, now, 1));
            if full_at.is_none() && !self.lets_pass(&self.stats.beyond_rate) {
                return Err(PublishError::TooFast);
            }
            self.publish_locked(room, state, draft, full_at, now)
        })
        .ok_or(PublishError::RoomsMax)?
    }

    fn publish_locked(
        &self,
        room: &Arc<Room>,
        mut state: MutexGuard<'_, State>,
        draft: Draft,
        full_at: Option<u64>,
        now: Duration,
    ) -> Result<Receipted, PublishError> {
        let targets = audience(&state);
        if self.reserve(&targets, draft.payload.len()).is_err() {
            self.stats.overloaded.fetch_add(1, Ordering::Relaxed);
            return Err(PublishError::Overloaded);
        }
        state.offset += 1;
        state.full_at = full_at.unwrap_or(state.full_at);
        let receipt = draft.receipt.clone();
        let receipted = self.give_out(room, state, draft, &targets, true, (now, now));
        self.stats.published.fetch_add(1, Ordering::Relaxed);
        if let Some(receipt) = receipt {
            receipt.report(Delivery::default());
        }
        Ok(receipted)
    }

    /// Reserves room for a publication in every intake it goes to, or in none.
    #[inline]
    pub(super) fn reserve(&self, targets: &Targets, bytes: usize) -> Result<(), Overloaded> {
        for (reserved, &shard) in targets.iter().enumerate() {
            if let Err(overloaded) = self.shards[shard].reserve(bytes) {
                targets[..reserved].iter().for_each(|&shard| self.shards[shard].release(1, bytes));
                return Err(overloaded);
            }
        }
        Ok(())
    }

    /// Gives a publication that has its number and its reservations to the room's audience. One without a number of its own is not kept;
    /// `kept_at` is the time it is kept under.
    #[inline]
    pub(super) fn give_out(
        &self,
        room: &Arc<Room>,
        mut state: MutexGuard<'_, State>,
        draft: Draft,
        targets: &Targets,
        is_numbered: bool,
        (kept_at, now): (Duration, Duration),
    ) -> Receipted {
        let Draft { user, payload, except, receipt } = draft;
        let position = room.position(&state);
        let offset = (room.options().offsets && is_numbered).then_some(state.offset);
        let published = Published { position, offset, user, payload };
        if room.options().history.is_on() && is_numbered {
            self.keep(room, &mut state, &published, except, kept_at);
        }
        let event = RoomEvent::Message(room.name().clone(), published);
        let said = Said::new(event, Some(now)).numbered(state.offset);
        self.push(room.id(), &mut state, targets, said, except, receipt.as_ref());
        // A room made by publishing is vacant from the start: the next sweep must look at it.
        let is_vacated = is_newly_vacant(&mut state);
        drop(state);
        self.wake(targets);
        if is_vacated {
            self.list_vacated(room);
        }
        Receipted { position, is_pressed: targets.iter().any(|&shard| self.shards[shard].is_pressed()) }
    }

    /// Says something that cannot be refused. Returns the shards to wake once the room is unlocked.
    pub(super) fn say(&self, room: &Arc<Room>, state: &mut State, event: RoomEvent) -> Targets {
        let targets = audience(state);
        targets.iter().for_each(|&shard| self.shards[shard].reserve_always(0));
        self.push(room.id(), state, &targets, Said::new(event, None), None, None);
        targets
    }

    /// Gives an event its number and each shard a reference to it. The room is locked, so every shard sees one order.
    fn push(
        &self,
        room: RoomId,
        state: &mut State,
        targets: &Targets,
        event: Said,
        except: Option<(usize, LaneId)>,
        receipt: Option<&Arc<Receipt>>,
    ) {
        state.seq += 1;
        let event = Arc::new(event);
        for &shard in targets {
            if let Some(receipt) = receipt {
                receipt.expect();
            }
            self.shards[shard].push_quietly(Item::Event {
                room,
                seq: state.seq,
                event: event.clone(),
                except: except.filter(|(except_shard, _)| *except_shard == shard).map(|(_, lane)| lane),
                receipt: receipt.cloned(),
            });
        }
    }

    /// Sends a shard an order that has its place in the room's order: `order` is told where the stream stands there, and the number of
    /// the last event before it.
    pub fn mark(&self, room: &Room, shard: usize, order: impl FnOnce(Position, u64) -> O) {
        let state = room.lock();
        self.shards[shard].push_quietly(Item::Order(order(room.position(&state), state.seq)));
        drop(state);
        self.shards[shard].wake();
    }

    pub(super) fn wake(&self, shards: &Targets) {
        shards.iter().for_each(|&shard| self.shards[shard].wake());
    }
}

/// Shards by number.
pub(super) type Targets = SmallVec<[usize; 8]>;

/// The shards that have members of the room.
pub(super) fn audience(state: &State) -> Targets {
    state.audience.iter().enumerate().filter(|&(_, &members)| members > 0).map(|(shard, _)| shard).collect()
}
