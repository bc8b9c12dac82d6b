//! The relay over Redis: a thread of its own that appends what its node posts and reads the log to its end, over two connections.
//!
//! Either connection's failure ends both, and both are made again together, so that nothing is appended before it is known whether the log
//! is still the one that was read. Posts wait with the node meanwhile, and entries with Redis.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use fanfare_registry::{Act, Applied, Entry, Portion, Post, RelayNode, RelayStats};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisError, TlsCertificates, cmd};
use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

use crate::answer::{Broken, counters, range, read};
use crate::cursor::{Cursor, Follows, Place, Resume};
use crate::envelope;
use crate::script;

/// What one call appends at most: its script holds Redis up for as long.
const APPEND: Portion = Portion { messages_max: 128, bytes_max: 1 << 20 };

/// So long a read waits for the next entry. Then the relay looks whether the log is still there.
const BLOCK_MS: u64 = 1_000;

/// An entry for which there was no place is given again after this time.
const BUSY_RETRY: Duration = Duration::from_millis(2);

/// Posts are looked through for those that waited too long.
const OVERDUE_PERIOD: Duration = Duration::from_millis(50);

/// Between attempts to connect: the first, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Where a Redis is. It is shown without its password.
#[derive(Clone)]
pub struct RedisAddress(Client);

impl RedisAddress {
    /// Reads `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS, or `unix:///path`.
    ///
    /// # Errors
    /// When it is none of these. The text does not repeat the address: there may be a password in it.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let problem = "write redis://[user:password@]host[:port][/database], rediss:// for TLS, or unix:///path";
        let info = url.into_connection_info().map_err(|_| problem)?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
            return Err("#insecure is not taken: name the file of the server's authority in engine.ca_file");
        }
        Client::open(info).map(Self).map_err(|_| problem)
    }

    /// The same, where only a certificate counts that an authority in this PEM has signed, not one that the system trusts.
    ///
    /// # Errors
    /// When TLS is not spoken there, or this is no PEM.
    pub fn trusting(self, authorities: Vec<u8>) -> Result<Self, &'static str> {
        let info = self.0.get_connection_info().clone();
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err("it vouches for nobody: `engine.url` is not rediss://");
        }
        let certificates = TlsCertificates { client_tls: None, root_cert: Some(authorities) };
        Client::build_with_tls(info, certificates).map(Self).map_err(|_| "it holds no certificate in PEM")
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.get_connection_info().addr())
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisAddress({self})")
    }
}

/// What a relay over Redis is told.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Where it is.
    pub address: RedisAddress,
    /// What its keys begin with. Nodes with the same one share a log.
    pub prefix: String,
    /// Entries the log keeps, and a few more.
    pub log_entries_max: u64,
    /// Time to connect, and for an answer.
    pub timeout: Duration,
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    thread: thread::JoinHandle<()>,
    stop: oneshot::Sender<Duration>,
    ended: oneshot::Receiver<std::convert::Infallible>,
}

impl Relay {
    /// Starts to follow the log for `node`, on a thread of its own, whether or not Redis can be reached now.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(settings: RedisSettings, node: Arc<dyn RelayNode>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (alive, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("relay".to_owned()).spawn(move || {
            let _alive = alive;
            runtime.block_on(run(settings, node, stopped));
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

async fn run(settings: RedisSettings, node: Arc<dyn RelayNode>, stopped: oneshot::Receiver<Duration>) {
    let posted = Arc::new(Notify::new());
    let wake = posted.clone();
    node.on_post(Box::new(move || wake.notify_one()));
    let follower = Follower {
        keys: Keys::new(&settings.prefix, node.number()),
        settings,
        node: node.clone(),
        posted,
        cursor: None,
        has_begun: false,
    };
    tokio::select! {
        never = follower.follow_for_ever() => match never {},
        never = give_up_overdue(&*node) => match never {},
        () = until_stopped(stopped, &*node) => {}
    }
}

async fn give_up_overdue(node: &dyn RelayNode) -> std::convert::Infallible {
    let mut ticks = interval(OVERDUE_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        node.tell_overdue();
    }
}

async fn until_stopped(stopped: oneshot::Receiver<Duration>, node: &dyn RelayNode) {
    // A node that goes without a word waits for nothing.
    let time_max = stopped.await.unwrap_or_default();
    let all_came_back = async {
        while node.posts_waiting() > 0 {
            sleep(BUSY_RETRY).await;
        }
    };
    if timeout(time_max, all_came_back).await.is_err() {
        warn!(posts = node.posts_waiting(), "the engine did not take all posts before this node ended");
    }
}

/// The keys of a log.
#[derive(Debug)]
struct Keys {
    state: String,
    log: String,
    node: String,
}

impl Keys {
    fn new(prefix: &str, node: u64) -> Self {
        Self {
            state: format!("{{{prefix}}}:state"),
            log: format!("{{{prefix}}}:log"),
            node: format!("{{{prefix}}}:node:{node:016x}"),
        }
    }
}

struct Follower {
    settings: RedisSettings,
    keys: Keys,
    node: Arc<dyn RelayNode>,
    posted: Arc<Notify>,
    /// How far it has read. `None`: it has to begin.
    cursor: Option<Cursor>,
    /// It has read a log before.
    has_begun: bool,
}

impl Follower {
    async fn follow_for_ever(mut self) -> std::convert::Infallible {
        let mut backoff = BACKOFF_MIN;
        let mut away_since: Option<Instant> = None;
        loop {
            let Err(broken) = self.follow(&mut away_since).await;
            let was_connected = self.stats().is_connected.swap(false, Ordering::AcqRel);
            if was_connected {
                backoff = BACKOFF_MIN;
            }
            if let Broken::Anew(reason) = broken {
                warn!("the engine's log is read anew: {reason}");
                sleep(BACKOFF_MIN).await;
                continue;
            }
            self.stats().failures.fetch_add(1, Ordering::Relaxed);
            // Said once; what follows is counted.
            if away_since.is_none() {
                away_since = Some(Instant::now());
                let address = &self.settings.address;
                warn!("the engine at {address} is away: {broken}; nothing can be published until it is back");
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn stats(&self) -> &RelayStats {
        self.node.relay_stats()
    }

    async fn connect(&self, answer_max: Duration) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.timeout))
            .set_response_timeout(Some(answer_max));
        self.settings.address.0.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Connects, and follows the log until that breaks.
    async fn follow(&mut self, away_since: &mut Option<Instant>) -> Result<std::convert::Infallible, Broken> {
        let mut reader = self.connect(self.settings.timeout + Duration::from_millis(BLOCK_MS)).await?;
        let mut writer = self.connect(self.settings.timeout).await?;
        let append = cmd("SCRIPT").arg("LOAD").arg(script::APPEND).query_async::<String>(&mut writer).await?;
        let cursor = self.take_place(&mut reader).await?;
        let node = self.node.clone();
        let address = &self.settings.address;
        match away_since.take() {
            None => info!("the engine at {address} is followed from entry {}", cursor.place),
            Some(since) => {
                info!("the engine at {address} is back after {:.1?}, at entry {}", since.elapsed(), cursor.place);
            }
        }
        node.relay_stats().is_connected.store(true, Ordering::Release);
        let appending = Appending {
            node: &*node,
            keys: &self.keys,
            posted: &self.posted,
            log_entries_max: self.settings.log_entries_max,
            epoch: cursor.place.epoch,
            script: &append,
        };
        tokio::select! {
            broken = read_on(&*node, &self.keys, &mut reader, &mut self.cursor) => broken,
            broken = appending.append_all(&mut writer) => broken,
        }
    }

    /// Goes on where it stopped, or begins anew, where that cannot be.
    async fn take_place(&mut self, redis: &mut MultiplexedConnection) -> Result<Cursor, Broken> {
        let mut last = self.begin(redis, "").await?;
        if let Some(cursor) = self.cursor {
            // The entry of number 0 says nothing.
            let marked = match cursor.place.number {
                0 => None,
                _ => range(redis, &self.keys.log, &cursor.place.to_string()).await?,
            };
            let marked = marked.and_then(|found| found.into_entry().map(|entry| (entry.node, entry.number)));
            let first = range(redis, &self.keys.log, "-").await?.map(|found| found.place);
            match cursor.resumes(last, marked, first) {
                Resume::On => return Ok(cursor),
                Resume::Anew => {}
                Resume::LostEnd => {
                    error!("the engine has lost entries that were read already: all rooms begin anew, on all nodes");
                    last = self.begin(redis, &cursor.place.epoch.to_string()).await?;
                }
            }
        }
        self.cursor = None;
        if std::mem::replace(&mut self.has_begun, true) {
            self.stats().restarts.fetch_add(1, Ordering::Relaxed);
            warn!("part of the engine's log was gone before it was read: whoever is in a room has to come back");
        }
        let cursor = self.read_past(redis, last.epoch).await?;
        self.cursor = Some(cursor);
        Ok(cursor)
    }

    /// Where the log stands; it is made if it is not there, or is of the epoch that is to be replaced.
    async fn begin(&self, redis: &mut MultiplexedConnection, replaced: &str) -> Result<Place, Broken> {
        let mut begin = cmd("EVAL");
        begin.arg(script::BEGIN).arg(2).arg(&self.keys.state).arg(&self.keys.log).arg(replaced);
        let (epoch, number): (u64, u64) = begin.query_async(redis).await?;
        self.stats().known.store(number, Ordering::Relaxed);
        Ok(Place { epoch, number })
    }

    /// Reads all there is. Counters first: so what is read after them is at least as far.
    async fn read_past(&self, redis: &mut MultiplexedConnection, epoch: u64) -> Result<Cursor, Broken> {
        let stats = self.stats();
        stats.is_caught_up.store(false, Ordering::Release);
        let offsets = counters(redis, &self.keys.state).await?;
        let (now, last): (Option<u64>, Option<u64>) =
            cmd("HMGET").arg(&self.keys.state).arg("@epoch").arg("@n").query_async(redis).await?;
        let (Some(last), true) = (last, now == Some(epoch)) else {
            return Err(Broken::Anew("another epoch has begun"));
        };
        self.node.begin(epoch, offsets);
        let mut cursor = Cursor { place: Place { epoch, number: 0 }, mark: None };
        while cursor.place.number < last {
            let found = read(redis, &self.keys.log, &cursor.place.to_string(), None).await?;
            if found.is_empty() {
                // The log was taken away; what it counted was not.
                cursor = Cursor { place: Place { epoch, number: last }, mark: None };
            }
            for found in found {
                match cursor.follows(found.place) {
                    Follows::OtherEpoch => return Err(Broken::Anew("another epoch has begun")),
                    Follows::Nothing => {}
                    // What is gone by now was gone before it was here: rooms begin with what there is.
                    Follows::Next | Follows::Hole => {
                        let place = found.place;
                        cursor = give(&*self.node, place, found.into_entry()).await;
                    }
                }
            }
        }
        self.node.caught_up();
        stats.is_caught_up.store(true, Ordering::Release);
        Ok(cursor)
    }
}

/// Reads the log and gives it to the node, for as long as nothing is wrong with it.
async fn read_on(
    node: &dyn RelayNode,
    keys: &Keys,
    redis: &mut MultiplexedConnection,
    place: &mut Option<Cursor>,
) -> Result<std::convert::Infallible, Broken> {
    loop {
        let Some(mut cursor) = *place else { return Err(Broken::Answer) };
        let found = read(redis, &keys.log, &cursor.place.to_string(), Some(BLOCK_MS)).await?;
        if found.is_empty() {
            look_after(node, keys, redis, cursor).await?;
        }
        for found in found {
            let at = found.place;
            match cursor.follows(at) {
                Follows::Nothing => {}
                Follows::Next => {
                    let entry = found.into_entry();
                    if entry.is_none() {
                        // Begun anew, it is one of the past, and rooms learn from the counters whether they miss it.
                        *place = None;
                        return Err(Broken::Anew("an entry could not be understood"));
                    }
                    cursor = give(node, at, entry).await;
                    *place = Some(cursor);
                }
                Follows::Hole => return Err(Broken::Anew("entries were gone before they were read")),
                Follows::OtherEpoch => return Err(Broken::Anew("another epoch has begun")),
            }
        }
    }
}

/// Nothing has come for a while: is the log still there?
async fn look_after(
    node: &dyn RelayNode,
    keys: &Keys,
    redis: &mut MultiplexedConnection,
    cursor: Cursor,
) -> Result<(), Broken> {
    let (epoch, number): (Option<u64>, Option<u64>) =
        cmd("HMGET").arg(&keys.state).arg("@epoch").arg("@n").query_async(redis).await?;
    if epoch != Some(cursor.place.epoch) {
        return Err(Broken::Anew("it was taken away"));
    }
    let number = number.unwrap_or(0);
    node.relay_stats().known.store(number, Ordering::Relaxed);
    if number < cursor.place.number { Err(Broken::Anew("it has lost its end")) } else { Ok(()) }
}

/// Gives an entry to the node, however long it takes to find a place: the log is the queue.
async fn give(node: &dyn RelayNode, place: Place, entry: Option<Entry>) -> Cursor {
    let stats = node.relay_stats();
    let Some(entry) = entry else {
        stats.unreadable.fetch_add(1, Ordering::Relaxed);
        return Cursor { place, mark: None };
    };
    while node.apply(&entry) == Applied::Busy {
        sleep(BUSY_RETRY).await;
    }
    stats.applied.fetch_add(1, Ordering::Relaxed);
    stats.position.store(place.number, Ordering::Relaxed);
    stats.known.fetch_max(place.number, Ordering::Relaxed);
    Cursor { place, mark: Some((entry.node, entry.number)) }
}

/// What appending needs besides a connection.
struct Appending<'a> {
    node: &'a dyn RelayNode,
    keys: &'a Keys,
    posted: &'a Notify,
    log_entries_max: u64,
    epoch: u64,
    /// Its SHA-1, as Redis knows it.
    script: &'a str,
}

impl Appending<'_> {
    /// Appends all that the node has posted, from the oldest on that has not come back: what was taken before is left out there.
    async fn append_all(&self, redis: &mut MultiplexedConnection) -> Result<std::convert::Infallible, Broken> {
        let mut sent = 0;
        loop {
            let posts = self.node.posts_after(sent, &APPEND);
            let Some(&(last, _)) = posts.last() else {
                self.posted.notified().await;
                continue;
            };
            self.append(redis, &posts).await?;
            sent = last;
        }
    }

    async fn append(&self, redis: &mut MultiplexedConnection, posts: &[(u64, Post)]) -> Result<(), Broken> {
        let mut append = cmd("EVALSHA");
        append.arg(self.script).arg(3).arg(&self.keys.state).arg(&self.keys.log).arg(&self.keys.node);
        append.arg(self.epoch).arg(self.log_entries_max);
        for (number, post) in posts {
            let is_kept = matches!(post.act, Act::Publish { is_kept: true, .. });
            let counted = if is_kept { post.room.as_str() } else { "" };
            append.arg(*number).arg(counted).arg(envelope::encode(self.node.number(), *number, post));
        }
        let (known, taken): (u64, u64) = append.query_async(redis).await.map_err(|error| match error.code() {
            Some("EPOCH") => Broken::Anew("another epoch has begun"),
            _ => Broken::Redis(error),
        })?;
        let stats = self.node.relay_stats();
        stats.appended.fetch_add(taken, Ordering::Relaxed);
        stats.known.fetch_max(known, Ordering::Relaxed);
        Ok(())
    }
}
