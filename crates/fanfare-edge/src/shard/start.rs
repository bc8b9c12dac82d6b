//! Starting shards: their poll sets first, then the hub that knows them, then their threads.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use fanfare_fanout::{Intake, Shard};
use fanfare_guard::Buckets;
use fanfare_protocol::wire::{Deflater, Inflater};
use fanfare_protocol::{Variant, WireForm};
use mio::{Events, Poll, Waker};
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tracing::error;

use super::crowd::Crowd;
use super::handshake::Entrance;
use super::newcomers::Newcomers;
use super::recovery::Behind;
use super::reload::{head_limits, reply_bytes_max};
use super::rooms::LocalRooms;
use super::sight::Sight;
use super::signed_in::SignedIn;
use super::sockets::Sockets;
use super::timers::Timers;
use super::{Dice, EVENTS_PER_TURN, LISTENER, READ_BYTES_MAX, Replies, ShardLoop, WAKE};
use crate::Settings;
use crate::ending::Ending;
use crate::hub::{Hub, MetricsPage};
use crate::listener::{Listeners, ShardListener};
use crate::tls::Bare;

/// A running shard.
pub struct ShardHandle {
    thread: thread::JoinHandle<()>,
    ended: oneshot::Receiver<Result<(), String>>,
}

impl fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardHandle").finish_non_exhaustive()
    }
}

impl ShardHandle {
    /// Waits for the shard to end. A shard that fails must take the process down: it must never leave a part of the
    /// clients without service.
    ///
    /// # Errors
    /// What ended it, if that was not a drain.
    pub async fn ended(self) -> Result<(), String> {
        let result = self.ended.await.unwrap_or_else(|_| Err("a shard panicked".to_owned()));
        if result.is_ok() && self.thread.join().is_err() {
            return Err("a shard panicked while ending".to_owned());
        }
        result
    }
}

/// Starts one shard for each of the listeners. `seed` is the dice.
///
/// # Errors
/// When the system refuses a poll set or a thread.
pub fn start_shards(
    settings: Settings,
    listeners: Listeners,
    seed: u64,
    metrics: MetricsPage,
) -> io::Result<(Arc<Hub>, Vec<ShardHandle>)> {
    let (shared, shards) = (listeners.shared(), listeners.into_shards());
    let mut polls = Vec::with_capacity(shards.len());
    let mut intakes = Vec::with_capacity(shards.len());
    for _ in &shards {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        polls.push(poll);
        // A wake-up that fails would leave a shard asleep for good: say so rather than hang.
        let notify = move || waker.wake().expect("an eventfd takes a wake-up");
        intakes.push(Arc::new(Intake::new(settings.intake, notify)));
    }
    let hub = Arc::new(Hub::new(settings, intakes, seed, metrics));
    hub.make_canaries(shared)?;
    let mut handles = Vec::with_capacity(polls.len());
    for (index, (poll, listeners)) in polls.into_iter().zip(shards).enumerate() {
        handles.push(start_shard(hub.clone(), index, poll, listeners, seed)?);
    }
    Ok((hub, handles))
}

fn start_shard(hub: Arc<Hub>, index: usize, poll: Poll, listener: ShardListener, seed: u64) -> io::Result<ShardHandle> {
    let (tell, ended) = oneshot::channel();
    let thread = thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        let result = run_shard(hub, index, poll, listener, seed).map_err(|error| error.to_string());
        if let Err(error) = &result {
            error!(shard = index, %error, "a shard failed");
        }
        // Nobody waits any more when the process is already going down.
        let _ = tell.send(result);
    })?;
    Ok(ShardHandle { thread, ended })
}

fn run_shard(hub: Arc<Hub>, index: usize, poll: Poll, listener: ShardListener, seed: u64) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async move { ShardLoop::new(hub, index, poll, listener, seed)?.run().await })
}

impl ShardLoop {
    fn new(hub: Arc<Hub>, index: usize, poll: Poll, listener: ShardListener, seed: u64) -> io::Result<Self> {
        let settings_version = hub.settings_version();
        let settings = hub.settings_kept();
        // A shard that cannot accept fails as a whole: it must not look alive and be deaf.
        let listener = listener.into_polled(poll.registry(), LISTENER)?;
        let stats = hub.shard_stats()[index].clone();
        let mut fanout = Shard::new(settings.outbox, reply_bytes_max(&settings), hub.budget().clone(), stats);
        if let Some(compression) = settings.compression {
            *fanout.tools() = Deflater::new(compression.deflater);
        }
        let mut sockets = Sockets::new(settings.send_path);
        if let Some(canary) = hub.canaries().get(index)
            && let Some(near) = canary.take_near()
        {
            // A lane like others, without a connection: it is not counted, not closed by a drain, and nothing is read of it.
            let lane = fanout.open(WireForm::new(Variant::JsonRooms, None).index());
            sockets.insert(lane.index, Bare { socket: near.into(), tls: None });
            fanout.join(lane, canary.room.id(), 0);
        }
        Ok(Self {
            index,
            intake: hub.registry().shards()[index].clone(),
            poll: watch(poll)?,
            events: Events::with_capacity(EVENTS_PER_TURN),
            fanout,
            sockets,
            transport: listener.transport(),
            entrance: Some(Entrance::new(listener)),
            newcomers: Newcomers::new(settings.handshake),
            head_limits: head_limits(&settings),
            connections: Vec::new(),
            live: 0,
            open: 0,
            crowd: Crowd::default(),
            control_frames: Buckets::default(),
            rooms: LocalRooms::default(),
            seats: HashMap::new(),
            signed_in: SignedIn::default(),
            behind: Behind::default(),
            absences: VecDeque::new(),
            timers: Timers::default(),
            arrivals: VecDeque::new(),
            ready: VecDeque::new(),
            unread: HashMap::new(),
            pressed: Vec::new(),
            lane_events: Vec::new(),
            read_buffer: vec![0; READ_BYTES_MAX],
            inflater: Inflater::new(),
            inflated_bytes: 0,
            histories: HashMap::new(),
            discard: vec![0; 4_096],
            replies: Replies::default(),
            leaving: None,
            has_ended: false,
            is_over: Rc::default(),
            http: Ending::new(),
            dice: Dice(seed ^ index as u64),
            now: hub.now(),
            sight: Sight::default(),
            hub,
            settings,
            settings_version,
        })
    }
}

/// The poll set as one descriptor of the runtime.
#[expect(
    deprecated,
    reason = "the safe constructor is deprecated because it cannot see that a descriptor stays open; `Poll` owns its own \
              until it is dropped, and its successor needs `unsafe`"
)]
fn watch(poll: Poll) -> io::Result<AsyncFd<Poll>> {
    AsyncFd::new(poll)
}
