//! What was said before: pages of history, and members that come back.
//!
//! Who comes back is in its room at once, but a member of this shard's part of it only when it has been told all it missed: until then
//! live events are not for it. A long absence is made up for in parts, each when the one before was taken, so that nothing piles up
//! for somebody who reads slowly; meanwhile the room goes on, and what it says is read from its history like the rest.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_fanout::{LaneId, RoomId};
use fanfare_guard::Verdict;
use fanfare_protocol::{CloseReason, ErrorCode, Event, Mode, Position, ReplyId, RoomEvent, Target};
use fanfare_registry::{Missed, PageQuery, Portion, Room};

use super::begin::variant;
use super::people::Parting;
use super::{READ_BYTES_MAX, ShardLoop};

/// Bytes of messages in one page of history.
const PAGE_BYTES_MAX: usize = 64 * 1024;

/// Parts told in one turn.
const PARTS_PER_TURN: usize = 16;

/// After so long those are looked at again who are ahead of this node; and so much later for each of them.
const AHEAD_RETRY: Duration = Duration::from_millis(2);
const AHEAD_EACH: Duration = Duration::from_micros(10);

/// Memberships that are behind, by lane. At most as many as a connection may have rooms, each a few words.
#[derive(Debug, Default)]
pub(super) struct Behind {
    by_lane: HashMap<LaneId, Lagging>,
    /// Lanes that may have taken what they were told. One that has not is looked at again when it is writable.
    ready: VecDeque<LaneId>,
    /// Lanes that were further on another node than this one is: looked at again in a moment.
    ahead: Vec<LaneId>,
    /// When that is.
    look_at: Duration,
}

/// A lane that is behind in some rooms, and told what it missed of one after the other.
#[derive(Debug, Default)]
struct Lagging {
    rooms: VecDeque<CatchUp>,
    /// Waiting in the queue of those that may be told more.
    is_ready: bool,
    /// Among those that are ahead of this node.
    is_ahead: bool,
}

/// A membership that is behind.
#[derive(Debug)]
struct CatchUp {
    room: Arc<Room>,
    /// Number up to which it has been told everything.
    after: u64,
}

impl Behind {
    /// True when somebody may be told more at once.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When those are looked at again who wait until this node is where they were on another.
    pub(super) fn next_look(&self) -> Option<Duration> {
        (!self.ahead.is_empty()).then_some(self.look_at)
    }

    /// Those who wait may be told more by now.
    pub(super) fn look_at_ahead(&mut self, now: Duration) {
        if self.ahead.is_empty() || now < self.look_at {
            return;
        }
        for lane in std::mem::take(&mut self.ahead) {
            if let Some(lagging) = self.by_lane.get_mut(&lane) {
                lagging.is_ahead = false;
            }
            self.on_writable(lane);
        }
    }

    /// It goes on where it was once this node is there. The more wait the less often they are looked at.
    fn wait(&mut self, lane: LaneId, catch_up: CatchUp, now: Duration) {
        let lagging = self.by_lane.entry(lane).or_default();
        lagging.rooms.push_back(catch_up);
        if !std::mem::replace(&mut lagging.is_ahead, true) {
            self.ahead.push(lane);
            self.look_at = now + AHEAD_RETRY + AHEAD_EACH * self.ahead.len() as u32;
        }
    }

    /// The lane takes bytes again.
    pub(super) fn on_writable(&mut self, lane: LaneId) {
        let Some(lagging) = self.by_lane.get_mut(&lane) else { return };
        if !std::mem::replace(&mut lagging.is_ready, true) {
            self.ready.push_back(lane);
        }
    }

    /// Whether the lane is in the room without being a member of this shard's part yet.
    pub(super) fn contains(&self, lane: LaneId, room: RoomId) -> bool {
        self.rooms_of(lane).any(|id| id == room)
    }

    /// How far the lane has been told what it missed of a room, which stands at `stands` now; `None` where it misses nothing.
    pub(super) fn position(&self, lane: LaneId, room: RoomId, stands: Position) -> Option<Position> {
        let told = self.by_lane.get(&lane)?.rooms.iter().find(|catch_up| catch_up.room.id() == room)?;
        Some(Position { offset: told.after, ..stands })
    }

    fn rooms_of(&self, lane: LaneId) -> impl Iterator<Item = RoomId> {
        let rooms = self.by_lane.get(&lane).into_iter().flat_map(|lagging| &lagging.rooms);
        rooms.map(|catch_up| catch_up.room.id())
    }

    fn push_front(&mut self, lane: LaneId, catch_up: CatchUp) {
        self.by_lane.entry(lane).or_default().rooms.push_front(catch_up);
        self.on_writable(lane);
    }

    fn push_back(&mut self, lane: LaneId, catch_up: CatchUp) {
        self.by_lane.entry(lane).or_default().rooms.push_back(catch_up);
        self.on_writable(lane);
    }

    /// The next lane that may be told more.
    fn pop_ready(&mut self) -> Option<LaneId> {
        let lane = self.ready.pop_front()?;
        if let Some(lagging) = self.by_lane.get_mut(&lane) {
            lagging.is_ready = false;
        }
        Some(lane)
    }

    fn pop_front(&mut self, lane: LaneId) -> Option<CatchUp> {
        let lagging = self.by_lane.get_mut(&lane)?;
        let first = lagging.rooms.pop_front();
        if lagging.rooms.is_empty() {
            self.by_lane.remove(&lane);
        }
        first
    }

    /// Ends one of its memberships. `false` if there was none.
    pub(super) fn remove(&mut self, lane: LaneId, room: RoomId) -> bool {
        let Some(lagging) = self.by_lane.get_mut(&lane) else { return false };
        let before = lagging.rooms.len();
        lagging.rooms.retain(|catch_up| catch_up.room.id() != room);
        let was_there = lagging.rooms.len() < before;
        if lagging.rooms.is_empty() {
            self.by_lane.remove(&lane);
        }
        was_there
    }

    pub(super) fn lanes_in(&self, room: RoomId) -> Vec<LaneId> {
        let is_in = |lagging: &Lagging| lagging.rooms.iter().any(|catch_up| catch_up.room.id() == room);
        self.by_lane.iter().filter(|(_, lagging)| is_in(lagging)).map(|(&lane, _)| lane).collect()
    }
}

impl ShardLoop {
    /// All rooms a lane is in.
    pub(super) fn rooms_of(&self, lane: LaneId) -> Vec<RoomId> {
        self.fanout.rooms_of(lane).chain(self.behind.rooms_of(lane)).collect()
    }

    /// Tells the first part of what was missed: at once, unless so much is waiting for the connection that this has to wait, too. Who
    /// comes back to many rooms at the same time is told of one after the other.
    pub(super) fn replay_first(&mut self, lane: LaneId, room: &Arc<Room>, since: Option<Position>, missed: Missed) {
        let waiting = self.fanout.queued(lane).bytes + self.replies_waiting(lane);
        match since {
            Some(since) if !missed.messages.is_empty() && waiting >= READ_BYTES_MAX => {
                self.behind.push_back(lane, CatchUp { room: room.clone(), after: since.offset });
            }
            _ => self.replay(lane, room, missed),
        }
    }

    /// Tells part of what was missed. After the last part live events follow, from the next one on.
    pub(super) fn replay(&mut self, lane: LaneId, room: &Arc<Room>, missed: Missed) {
        let Missed { lost, messages, offset, seq } = missed;
        if let Some((from, to)) = lost {
            self.answer(lane, &Event::Gap { room: room.name(), from, to, count: to + 1 - from });
        }
        let is_ahead = seq.is_none() && messages.is_empty() && lost.is_none();
        let shard = self.index;
        let told = messages.into_iter().filter(|kept| kept.except != Some((shard, lane)));
        let events = told.map(|kept| RoomEvent::Message(room.name().clone(), kept.published));
        self.tell(lane, events);
        let Some(seq) = seq else {
            let catch_up = CatchUp { room: room.clone(), after: offset };
            return if is_ahead {
                self.behind.wait(lane, catch_up, self.now);
            } else {
                self.behind.push_front(lane, catch_up);
            };
        };
        let is_new = self.fanout.join(lane, room.id(), seq);
        debug_assert!(is_new, "membership is checked before joining");
        self.set_rules(room);
    }

    /// Tells one connection what its room said, in its place among the connection's replies. Not compressed: that would be done for
    /// each who comes back.
    fn tell(&mut self, lane: LaneId, events: impl Iterator<Item = RoomEvent>) {
        let Some(connection) = self.connection(lane) else { return };
        let variant = variant(&connection.session);
        let (mut frames, mut count) = (Vec::new(), 0);
        for event in events {
            variant.encode(&event, &mut frames);
            count += 1;
        }
        self.hub.counters().replayed.fetch_add(count, Ordering::Relaxed);
        self.send_in_place(lane, &frames);
    }

    /// Tells those who have taken what they were told the next part of what they missed.
    pub(super) fn replay_more(&mut self) {
        for _ in 0..PARTS_PER_TURN.min(self.behind.ready.len()) {
            let Some(lane) = self.behind.pop_ready() else { break };
            if self.fanout.queued(lane).bytes > 0 {
                continue;
            }
            let Some(CatchUp { room, after }) = self.behind.pop_front(lane) else { continue };
            let missed = self.hub.registry().missed(&room, after, self.now);
            self.replay(lane, &room, missed);
        }
        self.see_to_lanes();
    }

    /// The room has ended: those who were still behind are told as its members were.
    pub(super) fn close_room_behind(&mut self, room: RoomId) {
        for lane in self.behind.lanes_in(room) {
            let Some(name) = self.rooms.by_id(room).map(|room| room.name().clone()) else { return };
            self.tell(lane, std::iter::once(RoomEvent::RoomClosed(name)));
            self.leave_room(lane, room, Parting::Unsaid, false);
            if self.connection(lane).is_some_and(|c| matches!(c.session.mode(), Mode::Room(_))) {
                self.end(lane, CloseReason::RoomClosed);
            }
        }
    }

    /// Answers `history`. It needs the right to subscribe, not a subscription.
    pub(super) fn history(
        &mut self,
        lane: LaneId,
        target: &Target,
        since: Option<Position>,
        limit: usize,
        id: ReplyId<'_>,
    ) {
        let Some(name) = self.named(lane, target) else { return };
        let hub = self.hub.clone();
        let Some(connection) = self.connection(lane) else { return };
        if let Verdict::Deny(why) = hub.policy(&name).may_subscribe(connection.identity(), &name) {
            return self.refuse(lane, ErrorCode::NotAllowed, why, id);
        }
        let options = hub.room_options(&name);
        if !options.history.has_pages() {
            let message = format!("no history is kept in the room {name}");
            return self.refuse(lane, ErrorCode::NotAvailable, &message, id);
        }
        let query = PageQuery { since, portion: Portion { messages_max: limit, bytes_max: PAGE_BYTES_MAX } };
        match hub.registry().history(&name, options, &query, self.now) {
            Ok(page) => {
                let page = hub.history_page(page, since.is_some());
                self.answer(lane, &Event::History { room: &name, page: &page, id });
                // Pages are long: who does not take them is not read until it does, whatever else it has asked in the same breath.
                self.send_long_replies(lane);
                self.pause_if_unread(lane);
            }
            Err(error) => self.refuse(lane, ErrorCode::LimitReached, &error.to_string(), id),
        }
    }
}
