//! The node's side of an engine: with it a publication is posted to a log that nodes share, and takes its place here when it comes back.
//!
//! What a publisher is told of waits with its post, by number ([`Outgoing`]). Nothing here knows what kind of log it is: the relay, on a thread
//! of its own, calls what [`RelayNode`] says.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_fanout::{Delivery, LaneId, Receipt, RoomId};
use fanfare_protocol::{Position, RoomName};
use fanfare_registry::{
    Act, Applied, Draft, Entry, Outgoing, OutgoingLimits, Portion, Post, PublishError, RelayNode, RelayStats, Stamped,
};

use crate::Hub;
use crate::shard::Order;
use crate::wall_clock::wall_clock;

/// What may wait to come back from the log, as much as a shard's intake may hold.
const OUTGOING: OutgoingLimits = OutgoingLimits { posts_max: 65_536, bytes_max: 64 * 1024 * 1024 };

/// What the edge is told of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineSettings {
    /// How long a post may take to come back.
    pub timeout: Duration,
}

/// Why something that was posted, or was to be, has not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unpublished {
    /// Nobody has it.
    #[error("the engine is away; this was not published, try again")]
    Away,
    /// It was sent, and nobody knows what became of it.
    #[error("the engine is away; this may or may not have been published")]
    Unknown,
    /// Too much waits to come back.
    #[error("{}", PublishError::Overloaded)]
    Full,
    /// The room would be one too many.
    #[error("{}", PublishError::RoomsMax)]
    RoomsMax,
    /// `limits.message_bytes_max` was raised while this runs, and the engine cannot follow.
    #[error("the engine takes messages of {max} bytes at most; this one is longer")]
    TooLong {
        /// Bytes it takes.
        max: usize,
    },
}

/// Called when a post has come back, with where its publication stands, before the receipt reports; or with why it has not.
pub(crate) type OnReturn = Box<dyn FnOnce(Result<Position, Unpublished>) + Send>;

/// What waits for a post to come back.
struct Pending {
    on_return: OnReturn,
    receipt: Option<Arc<Receipt>>,
}

/// The node's side of an engine.
pub(crate) struct Engine {
    outgoing: Outgoing<Pending>,
    stats: RelayStats,
    timeout: Duration,
    /// When there was a connection last: milliseconds of the node's clock. Written by the relay's thread.
    connected_ms: AtomicU64,
    /// Tells this run of the node from all others.
    number: u64,
}

impl Engine {
    pub(crate) fn new(settings: EngineSettings, number: u64) -> Self {
        Self {
            outgoing: Outgoing::new(OUTGOING),
            stats: RelayStats::default(),
            timeout: settings.timeout,
            connected_ms: AtomicU64::new(0),
            number,
        }
    }

    /// Whether this node knows the rooms: it has read what the log had when it began.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.stats.is_caught_up.load(Ordering::Acquire)
    }

    /// Whether publishers should be slowed.
    pub(crate) fn is_pressed(&self) -> bool {
        self.outgoing.is_pressed()
    }

    fn is_away(&self, now: Duration) -> bool {
        !self.stats.is_connected.load(Ordering::Acquire)
            && now > Duration::from_millis(self.connected_ms.load(Ordering::Relaxed)) + self.timeout
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl Hub {
    /// Posts a publication to the engine; `on_return` is called once it has come back, or has not in time. `true`: publishers should be slowed.
    ///
    /// # Errors
    /// When it is not posted: then nothing is called, and nothing was published.
    pub(crate) fn post(
        &self,
        engine: &Engine,
        room: RoomName,
        draft: Draft,
        on_return: OnReturn,
    ) -> Result<bool, Unpublished> {
        let Draft { user, payload, except, receipt } = draft;
        let max = engine.stats.message_bytes_max.load(Ordering::Relaxed);
        if max > 0 && payload.len() > max {
            return Err(Unpublished::TooLong { max });
        }
        // What has come back cannot be refused any more, so what is clear now is said now.
        if !self.registry().has_place_for(&room) {
            return Err(Unpublished::RoomsMax);
        }
        let is_kept = self.room_options(&room).history.is_on();
        let except = except.map(|(shard, lane)| [shard as u32, lane.index, lane.generation]);
        let act = Act::Publish { user, payload, except, is_kept };
        self.post_act(engine, Post { room, act }, Pending { on_return, receipt })
    }

    /// Posts that a room is closed for all.
    ///
    /// # Errors
    /// When it is not posted.
    pub(crate) fn post_close(&self, engine: &Engine, room: RoomName, on_return: OnReturn) -> Result<bool, Unpublished> {
        self.post_act(engine, Post { room, act: Act::Close }, Pending { on_return, receipt: None })
    }

    fn post_act(&self, engine: &Engine, post: Post, pending: Pending) -> Result<bool, Unpublished> {
        let now = self.now();
        if engine.is_away(now) {
            return Err(Unpublished::Away);
        }
        engine.outgoing.post(post, pending, now).map_err(|_| Unpublished::Full)
    }

    /// Whether rooms may be entered: without an engine always, with one once it is known where they stand.
    pub(crate) fn knows_rooms(&self) -> bool {
        self.engine().is_none_or(Engine::is_caught_up)
    }

    /// What there is to see of the engine's relay, where there is one, and how many posts have not come back.
    #[must_use]
    pub fn relay(&self) -> Option<(&RelayStats, usize)> {
        self.engine().map(|engine| (&engine.stats, engine.outgoing.len()))
    }

    /// This node, as its relay is to see it; `None` without an engine.
    #[must_use]
    pub fn relay_node(self: &Arc<Self>) -> Option<Arc<dyn RelayNode>> {
        let engine = self.engine_kept()?;
        Some(Arc::new(EngineNode { hub: self.clone(), engine }))
    }
}

/// A node that follows a log.
struct EngineNode {
    hub: Arc<Hub>,
    engine: Arc<Engine>,
}

impl EngineNode {
    fn apply_publication(&self, entry: &Entry) -> Applied {
        let Act::Publish { user, payload, except, .. } = &entry.post.act else { return Applied::Done };
        let Self { hub, engine } = self;
        let room = &entry.post.room;
        let is_own = entry.node == engine.number;
        let except = except.filter(|_| is_own);
        let except = except.map(|[shard, index, generation]| (shard as usize, LaneId { index, generation }));
        let look = |pending: &Pending| pending.receipt.clone();
        let receipt = if is_own { engine.outgoing.peek(entry.number, look).flatten() } else { None };
        let draft = Draft { user: user.clone(), payload: payload.clone(), except, receipt };
        let now = hub.now();
        let stamped = Stamped { offset: entry.offset, at: self.node_time(entry.at_ms, now), is_own };
        let applied = hub.registry().apply(room, hub.room_options(room), draft, &stamped, lost, now);
        let Ok(receipted) = applied else { return Applied::Busy };
        if is_own {
            hub.registry().stats().published.fetch_add(1, Ordering::Relaxed);
            self.settle(entry.number, receipted.position);
        }
        // Whoever is mentioned has his inbox where he was last. What is read of the past was looked at when it was said.
        if engine.is_caught_up() && hub.may_mention(room, payload) {
            hub.keep_mentions(room, user.as_ref(), payload);
        }
        Applied::Done
    }

    /// A post of this node has come back: whoever waits for it is told where it stands, and then what became of it.
    fn settle(&self, number: u64, position: Position) {
        let Some(Pending { on_return, receipt }) = self.engine.outgoing.settle(number) else { return };
        on_return(Ok(position));
        if let Some(receipt) = receipt {
            receipt.report(Delivery::default());
        }
    }

    /// A time since 1970 on the node's clock; not later than now.
    fn node_time(&self, at_ms: u64, now: Duration) -> Duration {
        now.saturating_sub(wall_clock().saturating_sub(Duration::from_millis(at_ms)))
    }
}

fn lost(room: RoomId) -> Order {
    Order::LostRoom { room }
}

impl RelayNode for EngineNode {
    fn number(&self) -> u64 {
        self.engine.number
    }

    fn posts_after(&self, number: u64, portion: &Portion) -> Vec<(u64, Post)> {
        self.engine.outgoing.after(number, portion)
    }

    fn on_post(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.engine.outgoing.on_post(wake);
    }

    fn begin(&self, epoch: u64, offsets: HashMap<RoomName, u64>) {
        self.hub.registry().share(epoch, offsets, lost);
    }

    fn apply(&self, entry: &Entry) -> Applied {
        match &entry.post.act {
            Act::Publish { .. } => return self.apply_publication(entry),
            Act::Close => _ = self.hub.registry().close(&entry.post.room),
        }
        if entry.node == self.engine.number {
            self.settle(entry.number, Position { epoch: 0, offset: 0 });
        }
        Applied::Done
    }

    fn caught_up(&self) {
        self.hub.registry().caught_up(lost);
    }

    fn tell_overdue(&self) {
        let Engine { outgoing, stats, timeout, connected_ms, .. } = &*self.engine;
        let now = self.hub.now();
        if stats.is_connected.load(Ordering::Acquire) {
            connected_ms.store(now.as_millis() as u64, Ordering::Relaxed);
        }
        for overdue in outgoing.overdue(now, *timeout) {
            stats.overdue.fetch_add(1, Ordering::Relaxed);
            (overdue.pending.on_return)(Err(if overdue.was_sent { Unpublished::Unknown } else { Unpublished::Away }));
        }
    }

    fn posts_waiting(&self) -> usize {
        self.engine.outgoing.len()
    }

    fn relay_stats(&self) -> &RelayStats {
        &self.engine.stats
    }
}
