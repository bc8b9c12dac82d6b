//! The relay: a thread of its own that drives a log for its node. What is the same for every kind of log is here; what is not, a [`Log`] does.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use fanfare_registry::{Applied, Entry, RelayNode};
use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::cursor::{Cursor, Place};
use crate::nats::{NatsAddress, NatsLog};
use crate::redis::{RedisAddress, RedisLog};

/// An entry for which there was no place is given again after this time.
const BUSY_RETRY: Duration = Duration::from_millis(2);

/// Posts are looked through for those that waited too long.
const OVERDUE_PERIOD: Duration = Duration::from_millis(50);

/// Between attempts to connect: the first, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Where a log is, and of which kind. It is shown without what is secret.
#[derive(Debug, Clone)]
pub enum LogAddress {
    /// In a Redis.
    Redis(RedisAddress),
    /// In NATS.
    Nats(NatsAddress),
}

impl fmt::Display for LogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(address) => address.fmt(f),
            Self::Nats(address) => address.fmt(f),
        }
    }
}

/// What a relay is told.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// Where the log is.
    pub address: LogAddress,
    /// What its names begin with there. Nodes with the same one share a log.
    pub prefix: String,
    /// Entries the log keeps, and a few more.
    pub log_entries_max: u64,
    /// How long what is published may take to come back.
    pub timeout: Duration,
    /// The longest message that is published, bytes: what keeps the log must take it.
    pub message_bytes_max: usize,
    /// Servers that keep a copy, where the log is made by whoever finds none.
    pub replicas: usize,
}

/// A driver of one kind of log. What all of them promise, and `tests/it/engine.rs` of the server asks of each:
///
/// - Posts of the node are appended in the order of their numbers, each once, however often they have to be sent.
/// - Entries are given to the node in the log's order, the same on every node, with offsets that are dense in each room that counts.
/// - What cannot be read any more, because the log has trimmed or lost it, is noticed whether or not anything is published: the node begins anew.
///   Where entries are lost that some node may have been given, a later epoch begins for all.
pub(crate) trait Log {
    /// Connects, takes its place in the log, says so ([`Following::is_at`]), and follows the log until that breaks. Called again then, with
    /// whatever this value remembers of its place.
    async fn follow(&mut self, following: &Following) -> Broken;
}

/// Why a log is not followed any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The connection, or what keeps the log, has failed.
    #[error("{0}")]
    Away(Box<dyn std::error::Error + Send + Sync>),
    #[error("what it answered is not understood")]
    Answer,
    /// Nothing is wrong with the connection; the log is not the one that was read any more.
    #[error("{0}")]
    Anew(&'static str),
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    thread: thread::JoinHandle<()>,
    stop: oneshot::Sender<Duration>,
    ended: oneshot::Receiver<std::convert::Infallible>,
}

impl Relay {
    /// Starts to follow the log for `node`, on a thread of its own, whether or not it can be reached now.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(settings: LogSettings, node: Arc<dyn RelayNode>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (alive, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("relay".to_owned()).spawn(move || {
            let _alive = alive;
            let following = Following::new(node, settings.address.to_string());
            runtime.block_on(async {
                match settings.address.clone() {
                    LogAddress::Redis(address) => {
                        following.run(RedisLog::new(address, &settings, following.node.number()), stopped).await;
                    }
                    LogAddress::Nats(address) => {
                        following.run(NatsLog::new(address, &settings, following.node.number()), stopped).await;
                    }
                }
            });
        })?;
        Ok(Self { thread, stop, ended })
    }

    /// Ends it once all that its node has posted has come back, or after `time_max`; waits for that. Says whether it had not failed.
    #[must_use]
    pub fn stop(self, time_max: Duration) -> bool {
        // It may have ended by a panic; joining it says so.
        let _ = self.stop.send(time_max);
        self.thread.join().is_ok()
    }

    /// Waits for its end. It ends by itself only by failing, and then the node must not go on: it would serve what is no news any more.
    pub async fn ended(&mut self) {
        // Nothing is ever said: it ends by being dropped.
        let _ = (&mut self.ended).await;
    }
}

/// What a driver is given: its node, and word of new posts.
pub(crate) struct Following {
    pub(crate) node: Arc<dyn RelayNode>,
    /// The node has posted something.
    pub(crate) posted: Arc<Notify>,
    address: String,
    /// Since when nothing is followed, once that was said.
    away_since: std::cell::Cell<Option<Instant>>,
    /// A log was read before.
    has_begun: std::cell::Cell<bool>,
}

impl Following {
    fn new(node: Arc<dyn RelayNode>, address: String) -> Self {
        let posted = Arc::new(Notify::new());
        let wake = posted.clone();
        node.on_post(Box::new(move || wake.notify_one()));
        Self { node, posted, address, away_since: std::cell::Cell::default(), has_begun: std::cell::Cell::default() }
    }

    async fn run(&self, log: impl Log, stopped: oneshot::Receiver<Duration>) {
        tokio::select! {
            never = self.follow_for_ever(log) => match never {},
            never = self.give_up_overdue() => match never {},
            () = self.until_stopped(stopped) => {}
        }
    }

    async fn follow_for_ever(&self, mut log: impl Log) -> std::convert::Infallible {
        let mut backoff = BACKOFF_MIN;
        let stats = self.node.relay_stats();
        loop {
            let broken = log.follow(self).await;
            let was_connected = stats.is_connected.swap(false, Ordering::AcqRel);
            if was_connected {
                backoff = BACKOFF_MIN;
            }
            if let Broken::Anew(reason) = broken {
                warn!("the engine's log is read anew: {reason}");
                sleep(BACKOFF_MIN).await;
                continue;
            }
            stats.failures.fetch_add(1, Ordering::Relaxed);
            // Said once; what follows is counted.
            if self.away_since.get().is_none() {
                self.away_since.set(Some(Instant::now()));
                warn!("the engine at {} is away: {broken}; nothing can be published until it is back", self.address);
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// The log is followed from this place on.
    pub(crate) fn is_at(&self, place: Place) {
        match self.away_since.take() {
            None => info!("the engine at {} is followed from entry {place}", self.address),
            Some(since) => {
                info!("the engine at {} is back after {:.1?}, at entry {place}", self.address, since.elapsed());
            }
        }
        self.node.relay_stats().is_connected.store(true, Ordering::Release);
    }

    /// The log is about to be read from its beginning. Where it was read before, part of it was missed.
    pub(crate) fn begins(&self) {
        if self.has_begun.replace(true) {
            self.node.relay_stats().restarts.fetch_add(1, Ordering::Relaxed);
            warn!("part of the engine's log was gone before it was read: whoever is in a room has to come back");
        }
    }

    /// Gives an entry to the node, however long it takes to find a place: the log is the queue. `None`: it was not understood.
    pub(crate) async fn give(&self, place: Place, entry: Option<Entry>) -> Cursor {
        let stats = self.node.relay_stats();
        let Some(entry) = entry else {
            stats.unreadable.fetch_add(1, Ordering::Relaxed);
            return Cursor { place, mark: None };
        };
        while self.node.apply(&entry) == Applied::Busy {
            sleep(BUSY_RETRY).await;
        }
        stats.applied.fetch_add(1, Ordering::Relaxed);
        stats.position.store(place.number, Ordering::Relaxed);
        stats.known.fetch_max(place.number, Ordering::Relaxed);
        Cursor { place, mark: Some((entry.node, entry.number)) }
    }

    async fn give_up_overdue(&self) -> std::convert::Infallible {
        let mut ticks = interval(OVERDUE_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.node.tell_overdue();
        }
    }

    async fn until_stopped(&self, stopped: oneshot::Receiver<Duration>) {
        // A node that goes without a word waits for nothing.
        let time_max = stopped.await.unwrap_or_default();
        let all_came_back = async {
            while self.node.posts_waiting() > 0 {
                sleep(BUSY_RETRY).await;
            }
        };
        if timeout(time_max, all_came_back).await.is_err() {
            warn!(posts = self.node.posts_waiting(), "the engine did not take all posts before this node ended");
        }
    }
}
