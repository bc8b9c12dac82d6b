//! A shard: one thread, one runtime, one loop over its own poll set.
//!
//! A turn of the loop: 1. ask the poll set what happened; 2. read what is readable, let sessions decide, perform it; 3. hear newcomers and
//! accept more, a bounded number; 4. take what came in at the intake and append it to the rooms' batches; 5. flush rooms, a bounded number
//! of members; 6. see to deadlines. Between turns the runtime serves its tasks: HTTP.

mod again;
mod allowance;
mod begin;
mod connection;
mod crowd;
mod deadlines;
mod end;
mod event_stream;
mod handshake;
mod heartbeat;
mod inspect;
mod leaving;
mod moment;
mod newcomers;
mod orders;
mod people;
mod perform;
mod publish;
mod pusher;
mod read;
mod recovery;
mod reload;
mod rooms;
mod shared;
mod sight;
mod signed_in;
mod slow;
mod sockets;
mod start;
mod timers;
mod token;
mod visitor;

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fanfare_fanout::{FlushQuota, Intake, LaneEvent, LaneId, Shard};
use fanfare_guard::Buckets;
use fanfare_protocol::CloseReason;
use fanfare_protocol::wire::{History, Inflater};
use fanfare_registry::{Absence, Item, Said};
use mio::{Events, Poll, Token};
use tokio::io::unix::AsyncFd;

use self::connection::Connection;
use self::crowd::Crowd;
use self::handshake::Entrance;
use self::leaving::Leaving;
use self::newcomers::Newcomers;
use self::pusher::Seat;
use self::recovery::Behind;
use self::rooms::LocalRooms;
use self::sight::Sight;
use self::signed_in::SignedIn;
use self::sockets::Sockets;
use self::timers::Timers;
use crate::ending::Ending;
use crate::engine::Engine;
use crate::head::HeadLimits;
use crate::hub::Hub;
use crate::listener::Transport;
use crate::settings::Settings;

pub(crate) use self::begin::Adopted;
pub(crate) use self::inspect::{Inspected, Inspection, Seen, Wanted};
pub use self::orders::Order;
pub use self::start::{ShardHandle, start_shards};

/// The poll set's token for the wake-up; a connection's token is its lane's index.
const WAKE: Token = Token(usize::MAX);

/// The poll set's token for the listener.
const LISTENER: Token = Token(usize::MAX - 1);

/// Size of the shard's read buffer, bytes. Also what one read may take: a quota.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Reads in one turn.
const READS_PER_TURN: usize = 256;

/// Items taken from the intake in one turn.
const ITEMS_PER_TURN: usize = 1_024;

/// Events taken from the poll set in one turn.
const EVENTS_PER_TURN: usize = 1_024;

/// A connection whose own replies pile up to this is not read until it has taken them.
const REPLY_BYTES_PAUSE: usize = 64 * 1024;

/// A connection that is owed so many acks is not read until some have come back. On another shard they may wait for a while; they must
/// not then come to more than a connection may have queued.
const ACKS_OWED_PAUSE: u32 = 1_024;

/// Publishers that were paused because a shard is behind are looked at again after this.
const PRESSURE_RETRY: Duration = Duration::from_millis(2);

/// The loop's state. One thread owns it; what others share is in the [`Hub`].
struct ShardLoop {
    hub: Arc<Hub>,
    /// Those of the turn, and how often they had been replaced by then.
    settings: Arc<Settings>,
    settings_version: u64,
    index: usize,
    intake: Arc<Intake<Item<Order>>>,
    poll: AsyncFd<Poll>,
    events: Events,
    fanout: Shard<Said>,
    sockets: Sockets,
    /// `None` once the node leaves service.
    entrance: Option<Entrance>,
    /// What its sockets are.
    transport: Transport,
    newcomers: Newcomers,
    head_limits: HeadLimits,
    /// By the index of their lane. In boxes: the table is small, so little is copied while it grows, and who stays keeps nobody's memory.
    connections: Vec<Option<Box<Connection>>>,
    /// How many of them there are.
    live: usize,
    /// Of these, those that have not been told to close.
    open: usize,
    crowd: Crowd,
    /// Pings and pongs that connections may still send which have sent some a moment ago: who is idle has no entry.
    control_frames: Buckets<LaneId>,
    rooms: LocalRooms,
    /// By the index of their lane: connections of applications of the Pusher dialect.
    seats: HashMap<u32, Box<Seat>>,
    signed_in: SignedIn,
    /// Connections that have not been told all they missed.
    behind: Behind,
    /// Users whose last connection in a room ended here, with the time when they are missed there; in that order.
    absences: VecDeque<(Duration, Absence)>,
    timers: Timers,
    /// Sockets to take over. Each was let in by the gate.
    arrivals: VecDeque<Box<Adopted>>,
    /// Connections to read, each once.
    ready: VecDeque<u32>,
    /// What had been read of a connection when it was paused, at most one read's worth, by the index of its lane.
    unread: HashMap<u32, Box<[u8]>>,
    /// Connections not read because a shard they publish to is behind, each once.
    pressed: Vec<LaneId>,
    lane_events: Vec<LaneEvent>,
    read_buffer: Vec<u8>,
    inflater: Inflater,
    /// What has been inflated during the read under way.
    inflated_bytes: usize,
    /// By the index of their lane: connections whose messages may refer to former ones.
    histories: HashMap<u32, History>,
    /// Where unread bytes of a closed connection go.
    discard: Vec<u8>,
    /// Replies to the connection that is being read, sent when its read is done.
    replies: Replies,
    /// Once the node leaves service.
    leaving: Option<Leaving>,
    has_ended: bool,
    /// The same, for the tasks that speak HTTP: they go on for as long as they have something to answer.
    is_over: Rc<Cell<bool>>,
    http: Ending,
    dice: Dice,
    /// The coarse clock: read once per turn, before the poll set is asked.
    now: Duration,
    sight: Sight,
}

/// Frames for one connection, made while it is being read: what is answered to any other goes out at once.
#[derive(Debug, Default)]
struct Replies {
    owner: Option<LaneId>,
    control: Vec<u8>,
    data: Vec<u8>,
}

/// The shard's dice: jitter needs no secrecy (splitmix64).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    /// A number from 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl ShardLoop {
    /// Runs until the drain is over.
    async fn run(mut self) -> std::io::Result<()> {
        loop {
            let has_more = self.turn()?;
            // At once: were a task to run in between, it could let somebody in whom nobody would serve.
            if self.has_ended {
                self.is_over.set(true);
                let Self { http, .. } = self;
                http.wait().await;
                return Ok(());
            }
            if has_more {
                tokio::task::yield_now().await;
            } else if self.intake.prepare_sleep() {
                self.sleep().await?;
                self.intake.awake();
            }
        }
    }

    /// Sleeps until a socket, a wake-up or a deadline.
    async fn sleep(&self) -> std::io::Result<()> {
        let deadline = self.next_deadline();
        let until = async {
            match deadline {
                Some(deadline) => tokio::time::sleep(deadline.saturating_sub(self.hub.now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            guard = self.poll.readable() => guard?.clear_ready(),
            () = until => {}
        }
        Ok(())
    }

    /// One turn. `true` when there is more to do at once.
    fn turn(&mut self) -> std::io::Result<bool> {
        // Before it asks: what it then finds did not come later.
        self.now = self.hub.now();
        let polled_all = self.take_events()?;
        self.take_settings();
        self.fanout.tell_time(self.now);
        self.resume_pressed();
        self.read_ready();
        self.sight.turn(self.now, polled_all && self.ready.is_empty(), self.settings.heartbeat.pong);
        self.hear_newcomers();
        self.accept_newcomers();
        let took_all = self.take_items(ITEMS_PER_TURN);
        self.adopt_arrivals();
        let is_unfinished = self.fanout.flush(&mut self.sockets, FlushQuota::default());
        self.fanout.measure(|| self.hub.now());
        self.after_flush();
        self.behind.look_at_ahead(self.now);
        self.replay_more();
        self.miss_absent();
        self.see_to_deadlines();
        self.keep_pace();
        self.give_back_if_left();
        Ok(!polled_all
            || !took_all
            || is_unfinished
            || !self.ready.is_empty()
            || self.has_newcomers()
            || self.behind.has_ready())
    }

    /// Asks the poll set. `false` when it may have more.
    fn take_events(&mut self) -> std::io::Result<bool> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.get_mut().poll(&mut events, Some(Duration::ZERO));
        let mut taken = 0;
        for event in &events {
            taken += 1;
            match event.token() {
                WAKE => continue,
                LISTENER => {
                    self.on_arrival();
                    continue;
                }
                Token(_) => {}
            }
            let index = event.token().0 as u32;
            if event.is_writable() {
                self.on_writable(index);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.on_readable(index, event.is_read_closed() || event.is_error());
            }
        }
        self.events = events;
        match polled {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => Err(error),
            _ => Ok(taken < EVENTS_PER_TURN),
        }
    }

    fn on_readable(&mut self, index: u32, has_hung_up: bool) {
        let Some(connection) = self.connection_at(index) else {
            return self.newcomers.on_readable(index, has_hung_up);
        };
        connection.has_hung_up |= has_hung_up;
        if !connection.is_ready {
            connection.is_ready = true;
            self.ready.push_back(index);
        }
    }

    fn on_writable(&mut self, index: u32) {
        // What TLS has made of former frames goes first.
        let had_pending = self.sockets.has_pending(index);
        if had_pending && !self.sockets.flush(index) {
            return;
        }
        let Some(connection) = self.connections.get_mut(index as usize).and_then(Option::as_mut) else { return };
        let lane = connection.lane;
        if self.fanout.queued(lane).bytes == 0 {
            if had_pending {
                self.after_last_words(lane);
            }
            return;
        }
        let progress = self.fanout.writable(lane, &mut self.sockets);
        if let Some(heartbeat) = connection.heartbeat() {
            if progress.is_empty {
                heartbeat.unblocked();
            } else if progress.taken > 0 {
                heartbeat.moved(self.now);
            }
        }
        if progress.is_empty {
            self.behind.on_writable(lane);
            self.after_last_words(lane);
        }
        self.resume_if_drained(lane);
    }

    /// A connection that was not read because of its own unread replies is read again once it took them.
    fn resume_if_drained(&mut self, lane: LaneId) {
        if self.fanout.reply_bytes(lane) >= REPLY_BYTES_PAUSE {
            return;
        }
        let Some(connection) = self.connection(lane) else { return };
        if connection.is_pressed || connection.acks_owed >= ACKS_OWED_PAUSE {
            return;
        }
        if std::mem::take(&mut connection.is_paused) {
            self.on_readable(lane.index, false);
        }
    }

    fn resume_pressed(&mut self) {
        let is_pressed = |hub: &Hub| {
            let engine = hub.engine().is_some_and(Engine::is_pressed);
            engine || hub.registry().shards().iter().any(|shard| shard.is_pressed())
        };
        if self.pressed.is_empty() || is_pressed(&self.hub) {
            return;
        }
        for lane in std::mem::take(&mut self.pressed) {
            if let Some(connection) = self.connection(lane) {
                connection.is_pressed = false;
            }
            self.resume_if_drained(lane);
        }
    }

    fn after_flush(&mut self) {
        let squeezed = self.fanout.tools().take_squeezed();
        if squeezed.messages > 0 {
            self.hub.counters().deflated.count(squeezed);
        }
        let released = self.fanout.take_released();
        if released.items > 0 {
            self.intake.release(released.items, released.bytes);
        }
        self.see_to_lanes();
    }

    /// Acts on what fan-out said about lanes.
    fn see_to_lanes(&mut self) {
        let mut lane_events = std::mem::take(&mut self.lane_events);
        self.fanout.take_events(&mut lane_events);
        while let Some(event) = lane_events.pop() {
            match event {
                LaneEvent::Blocked(lane) => {
                    let now = self.now;
                    let due = now + self.settings.heartbeat.write;
                    if let Some(heartbeat) = self.connection(lane).and_then(Connection::heartbeat) {
                        heartbeat.moved(now);
                        self.arm_by(lane, due);
                    }
                }
                LaneEvent::Evicted(lane, queued, slow) => self.end(lane, slow::close_reason(queued, slow)),
                LaneEvent::Gone(lane) => self.end(lane, CloseReason::ConnectionLost),
            }
            self.fanout.take_events(&mut lane_events);
        }
        self.lane_events = lane_events;
    }

    fn connection(&mut self, lane: LaneId) -> Option<&mut Connection> {
        self.connection_at(lane.index).filter(|connection| connection.lane == lane)
    }

    fn connection_at(&mut self, index: u32) -> Option<&mut Connection> {
        self.connections.get_mut(index as usize)?.as_deref_mut()
    }

    fn is_open(&mut self, lane: LaneId) -> bool {
        self.connection(lane).is_some_and(|connection| connection.is_open())
    }
}
