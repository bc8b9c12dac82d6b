//! The log in a Redis, followed over two connections: one appends what the node posts, the other reads the log to its end.
//!
//! Either connection's failure ends both, and both are made again together, so that nothing is appended before it is known whether the log
//! is still the one that was read. Posts wait with the node meanwhile, and entries with Redis.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanfare_registry::{Act, Portion, Post, RelayNode};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisError, TlsCertificates, cmd};
use tokio::sync::Notify;
use tracing::error;

use crate::answer::{counters, range, read};
use crate::cursor::{Cursor, Follows, Place, Resume};
use crate::envelope;
use crate::relay::{Broken, Following, Log, LogSettings};
use crate::script;

/// What one call appends at most: its script holds Redis up for as long.
const APPEND: Portion = Portion { messages_max: 128, bytes_max: 1 << 20 };

/// So long a read waits for the next entry. Then the relay looks whether the log is still there.
const BLOCK_MS: u64 = 1_000;

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

/// A log in a Redis, and how far it was read.
pub(crate) struct RedisLog {
    address: RedisAddress,
    log_entries_max: u64,
    timeout: Duration,
    keys: Keys,
    /// How far it has read. `None`: it has to begin.
    cursor: Option<Cursor>,
}

impl Log for RedisLog {
    async fn follow(&mut self, following: &Following) -> Broken {
        let Err(broken) = self.follow(following).await;
        broken
    }
}

impl RedisLog {
    /// `node` tells this run of its node from all others.
    pub(crate) fn new(address: RedisAddress, settings: &LogSettings, node: u64) -> Self {
        let &LogSettings { log_entries_max, timeout, .. } = settings;
        Self { address, log_entries_max, timeout, keys: Keys::new(&settings.prefix, node), cursor: None }
    }

    async fn connect(&self, answer_max: Duration) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(answer_max));
        self.address.0.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Connects, and follows the log until that breaks.
    async fn follow(&mut self, following: &Following) -> Result<std::convert::Infallible, Broken> {
        let mut reader = self.connect(self.timeout + Duration::from_millis(BLOCK_MS)).await?;
        let mut writer = self.connect(self.timeout).await?;
        let append = cmd("SCRIPT").arg("LOAD").arg(script::APPEND).query_async::<String>(&mut writer).await?;
        let cursor = self.take_place(&mut reader, following).await?;
        following.is_at(cursor.place);
        let appending = Appending {
            node: &*following.node,
            keys: &self.keys,
            posted: &following.posted,
            log_entries_max: self.log_entries_max,
            epoch: cursor.place.epoch,
            script: &append,
        };
        tokio::select! {
            broken = read_on(following, &self.keys, &mut reader, &mut self.cursor) => broken,
            broken = appending.append_all(&mut writer) => broken,
        }
    }

    /// Goes on where it stopped, or begins anew, where that cannot be.
    async fn take_place(&mut self, redis: &mut MultiplexedConnection, following: &Following) -> Result<Cursor, Broken> {
        let mut last = self.begin(redis, "", following).await?;
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
                    last = self.begin(redis, &cursor.place.epoch.to_string(), following).await?;
                }
            }
        }
        self.cursor = None;
        following.begins();
        let cursor = self.read_past(redis, last.epoch, following).await?;
        self.cursor = Some(cursor);
        Ok(cursor)
    }

    /// Where the log stands; it is made if it is not there, or is of the epoch that is to be replaced.
    async fn begin(
        &self,
        redis: &mut MultiplexedConnection,
        replaced: &str,
        following: &Following,
    ) -> Result<Place, Broken> {
        let mut begin = cmd("EVAL");
        begin.arg(script::BEGIN).arg(2).arg(&self.keys.state).arg(&self.keys.log).arg(replaced);
        let (epoch, number): (u64, u64) = begin.query_async(redis).await?;
        following.node.relay_stats().known.store(number, Ordering::Relaxed);
        Ok(Place { epoch, number })
    }

    /// Reads all there is. Counters first: so what is read after them is at least as far.
    async fn read_past(
        &self,
        redis: &mut MultiplexedConnection,
        epoch: u64,
        following: &Following,
    ) -> Result<Cursor, Broken> {
        let stats = following.node.relay_stats();
        stats.is_caught_up.store(false, Ordering::Release);
        let offsets = counters(redis, &self.keys.state).await?;
        let (now, last): (Option<u64>, Option<u64>) =
            cmd("HMGET").arg(&self.keys.state).arg("@epoch").arg("@n").query_async(redis).await?;
        let (Some(last), true) = (last, now == Some(epoch)) else {
            return Err(Broken::Anew("another epoch has begun"));
        };
        following.node.begin(epoch, offsets);
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
                        cursor = following.give(place, found.into_entry()).await;
                    }
                }
            }
        }
        following.node.caught_up();
        stats.is_caught_up.store(true, Ordering::Release);
        Ok(cursor)
    }
}

/// Reads the log and gives it to the node, for as long as nothing is wrong with it.
async fn read_on(
    following: &Following,
    keys: &Keys,
    redis: &mut MultiplexedConnection,
    place: &mut Option<Cursor>,
) -> Result<std::convert::Infallible, Broken> {
    loop {
        let Some(mut cursor) = *place else { return Err(Broken::Answer) };
        let found = read(redis, &keys.log, &cursor.place.to_string(), Some(BLOCK_MS)).await?;
        if found.is_empty() {
            look_after(&*following.node, keys, redis, cursor).await?;
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
                    cursor = following.give(at, entry).await;
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
            _ => error.into(),
        })?;
        let stats = self.node.relay_stats();
        stats.appended.fetch_add(taken, Ordering::Relaxed);
        stats.known.fetch_max(known, Ordering::Relaxed);
        Ok(())
    }
}
