//! The log in NATS: a stream of JetStream, whose sequence is the order. JetStream has no scripts, so what Redis decides when it appends,
//! every node decides when it reads, by the same rules from the same messages: see `tally.rs`.
//!
//! - Stream `{prefix}-log`, subject `{prefix}.log`: the messages of `frame.rs`.
//! - Stream `{prefix}-counts`, subjects `{prefix}.counts.LIFE.NUMBER.NODE.PART`: tallies that were written down (`written.rs`), for who starts when the
//!   log has trimmed what they count. LIFE tells a log from another that had its name before.
//!
//! An epoch is the time when the log was made, or what a message in it says.

mod address;
mod appending;
mod counts;
mod frame;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod reading;
mod tally;
mod written;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::header::NATS_EXPECTED_LAST_SEQUENCE;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::{Config, Info, LastRawMessageErrorKind, StorageType, Stream};
use async_nats::jetstream::{Context, ContextBuilder};
use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, Event, HeaderMap};
use fanfare_protocol::RoomName;
use tokio::sync::Notify;
use tracing::error;

pub use address::NatsAddress;

use crate::cursor::{Cursor, Place, Resume};
use crate::relay::{Broken, Following, Log, LogSettings};
use appending::Appending;
use counts::Counts;
use frame::{Frame, What};
use reading::{Message, Reader};
use tally::{Head, Ruling, Tally};

/// What a message takes besides what its publisher has written, bytes at most: an envelope with a room and a user, and a frame.
const AROUND_MESSAGE_BYTES_MAX: usize = 1_024;

/// So long an answer of NATS is waited for, at least.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// A log in NATS, and how far it was read.
pub(crate) struct NatsLog {
    address: NatsAddress,
    names: Names,
    pace: Pace,
    /// Time to connect, and for an answer.
    patience: Duration,
    message_bytes_max: usize,
    replicas: usize,
    /// Tells this run of the node from all others.
    node: u64,
    /// Which log was read.
    life: u64,
    /// What was read; a connection that follows on works on the same. `None`: it has to begin.
    read: Option<Rc<RefCell<Tally>>>,
    /// Nothing may be read from before this entry: there is a hole, which is not at the log's beginning.
    floor: u64,
}

/// The names of a log's streams and subjects.
#[derive(Debug)]
struct Names {
    log: String,
    posts: String,
    counts: String,
    /// What the subjects of written tallies begin with.
    written: String,
}

/// How far what happens at different times may be apart, in entries. A tally is written down before the log trims what it counts: with up to 32 nodes
/// even where all of them append as fast as they may.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// What the log keeps: half as much again as was asked for, so that a tally that is still covered leaves as many to be read.
    kept: u64,
    /// From so many on a tally should be written down.
    due: u64,
    /// From so many on nothing is appended before one is.
    closed: u64,
    /// What a node may have appended and not read back yet.
    window: usize,
}

impl Pace {
    fn new(log_entries_max: u64) -> Self {
        let window = (log_entries_max / 32).clamp(1, 1_024) as usize;
        Self {
            kept: log_entries_max + log_entries_max / 2,
            due: log_entries_max / 4,
            closed: log_entries_max / 2,
            window,
        }
    }
}

/// What reader, appender and who writes tallies know of each other. All three are one task.
struct Shared {
    life: u64,
    /// What was read and given to the node. No borrow outlives a statement or two.
    tally: Rc<RefCell<Tally>>,
    /// The last post of this node that was seen in the log.
    seen: Cell<u64>,
    /// Something was read.
    moved: Notify,
    /// A tally should be written down.
    due: Notify,
    /// Reading cannot go on here; and nothing may be read from before this entry.
    over: Cell<Option<u64>>,
}

impl Shared {
    /// Reading cannot go on where it is.
    fn ends(&self, floor: u64, reason: &'static str) -> Broken {
        self.over.set(Some(floor));
        Broken::Anew(reason)
    }
}

/// A log as it was found.
struct Found {
    log: Stream,
    counts: Counts,
    life: u64,
    first: u64,
    last: u64,
}

impl Log for NatsLog {
    async fn follow(&mut self, following: &Following) -> Broken {
        let Err(broken) = self.try_follow(following).await;
        broken
    }
}

impl NatsLog {
    /// `node` tells this run of its node from all others.
    pub(crate) fn new(address: NatsAddress, settings: &LogSettings, node: u64) -> Self {
        let prefix = &settings.prefix;
        Self {
            address,
            names: Names {
                log: format!("{prefix}-log"),
                posts: format!("{prefix}.log"),
                counts: format!("{prefix}-counts"),
                written: format!("{prefix}.counts"),
            },
            pace: Pace::new(settings.log_entries_max),
            patience: patience(settings.timeout),
            message_bytes_max: settings.message_bytes_max,
            replicas: settings.replicas,
            node,
            life: 0,
            read: None,
            floor: 0,
        }
    }

    /// Connects, and follows the log until that breaks.
    async fn try_follow(&mut self, following: &Following) -> Result<std::convert::Infallible, Broken> {
        let lost = Arc::new(Notify::new());
        let context = self.connect(lost.clone()).await?;
        let bytes_max = context.client().max_payload() - AROUND_MESSAGE_BYTES_MAX;
        following.node.relay_stats().message_bytes_max.store(bytes_max, Ordering::Relaxed);
        tokio::select! {
            // The library would connect again by itself; what had been sent by then would not be known.
            () = lost.notified() => Err(Broken::Away("the connection was lost".into())),
            broken = self.follow_over(&context, following) => broken,
        }
    }

    async fn connect(&self, lost: Arc<Notify>) -> Result<Context, Broken> {
        let options = ConnectOptions::new()
            .name("fanfare")
            .connection_timeout(self.patience)
            .request_timeout(Some(self.patience))
            .ping_interval(self.patience)
            .ignore_discovered_servers()
            .max_reconnects(self.address.servers().len())
            .event_callback(move |event| {
                let is_lost = matches!(event, Event::Disconnected | Event::Closed | Event::LameDuckMode);
                let lost = lost.clone();
                async move {
                    if is_lost {
                        lost.notify_one();
                    }
                }
            });
        let client = self
            .address
            .authenticate(options)
            .connect(self.address.servers())
            .await
            .map_err(|error| refused(&error))?;
        let bytes = client.max_payload();
        let needed = self.message_bytes_max.max(counts::PART_BYTES_MAX) + AROUND_MESSAGE_BYTES_MAX;
        if bytes < needed {
            return Err(Broken::Away(
                format!("it takes {bytes} bytes at most; set its max_payload to {needed}").into(),
            ));
        }
        Ok(ContextBuilder::new().timeout(self.patience).ack_timeout(self.patience).build(client))
    }

    async fn follow_over(
        &mut self,
        context: &Context,
        following: &Following,
    ) -> Result<std::convert::Infallible, Broken> {
        let found = self.find(context).await?;
        following.node.relay_stats().known.store(found.last, Ordering::Relaxed);
        let tally = self.take_place(context, &found, following).await?;
        let Head { epoch, number, .. } = tally.borrow().head();
        following.is_at(Place { epoch, number });
        let shared = Shared {
            life: found.life,
            tally,
            seen: Cell::new(0),
            moved: Notify::new(),
            due: Notify::new(),
            over: Cell::new(None),
        };
        let appending = Appending { context, names: &self.names, pace: self.pace, shared: &shared, following };
        let broken = tokio::select! {
            broken = reading::read_on(&found.log, &shared, self.pace, following) => broken,
            broken = appending.append_all() => broken,
            broken = appending.write_tallies(&found) => broken,
        };
        if let Some(floor) = shared.over.get() {
            self.read = None;
            self.floor = self.floor.max(floor);
        }
        broken
    }

    /// The streams; they are made if they are not there.
    async fn find(&self, context: &Context) -> Result<Found, Broken> {
        let kept = i64::try_from(self.pace.kept).unwrap_or(i64::MAX);
        let config = Config {
            name: self.names.log.clone(),
            subjects: vec![self.names.posts.clone()],
            max_messages: kept,
            storage: StorageType::File,
            num_replicas: self.replicas,
            ..Config::default()
        };
        let log = context.get_or_create_stream(config).await.map_err(away)?;
        let info = log.get_info().await.map_err(away)?;
        if info.config.max_messages != kept {
            // Whatever else somebody has set, such as replicas, is left alone.
            context.update_stream(Config { max_messages: kept, ..info.config.clone() }).await.map_err(away)?;
        }
        let counts = Counts::open(context, &self.names, &log, self.replicas).await?;
        let (life, first, last) = bounds(&info);
        Ok(Found { log, counts, life, first, last })
    }

    /// Goes on where it stopped, or begins anew, where that cannot be.
    async fn take_place(
        &mut self,
        context: &Context,
        found: &Found,
        following: &Following,
    ) -> Result<Rc<RefCell<Tally>>, Broken> {
        let mut lost_end = None;
        if self.life != found.life {
            (self.life, self.floor, self.read) = (found.life, 0, None);
        }
        if let Some(read) = &self.read {
            let head = read.borrow().head();
            match resume(found, head).await? {
                Resume::On => return Ok(read.clone()),
                Resume::Anew => {}
                Resume::LostEnd => lost_end = Some(head.epoch),
            }
        }
        let (start, end) = self.survey(context, found).await?;
        if lost_end == Some(end.epoch) {
            error!("the engine has lost entries that were read already: all rooms begin anew, on all nodes");
            self.begin_epoch(context, end.number, end.epoch).await?;
            return Err(Broken::Anew("another epoch has begun"));
        }
        let tally = self.read_past(found, following, start, &end).await?;
        Ok(self.read.insert(Rc::new(RefCell::new(tally))).clone())
    }

    /// Where to begin, and what is known at the log's end.
    async fn survey(&mut self, context: &Context, found: &Found) -> Result<(Tally, Tally), Broken> {
        let Some(mut start) = self.beginning(found).await? else {
            error!("the engine does not know any more how far rooms had counted: all begin anew, on all nodes");
            self.begin_epoch(context, found.last, 0).await?;
            return Err(Broken::Anew("another epoch has begun"));
        };
        let mut end = start.clone();
        let mut reader = Reader::open(&found.log, start.number + 1, found.last, self.patience).await?;
        while let Some(message) = self.next_of_past(&mut reader).await? {
            if message.count(&mut end) == Ruling::Epoch {
                start = end.clone();
            }
        }
        Ok((start, end))
    }

    /// The earliest tally from which all that follows can be read. `None`: there is none.
    async fn beginning(&mut self, found: &Found) -> Result<Option<Tally>, Broken> {
        let first = found.first.max(self.floor);
        if first <= 1 {
            return Ok(Some(Tally::begun(found.life, 0, 0)));
        }
        if let Some(tally) = found.counts.earliest(found, first).await? {
            return Ok(Some(tally));
        }
        let mut reader = Reader::open(&found.log, first, found.last, self.patience).await?;
        while let Some(message) = self.next_of_past(&mut reader).await? {
            let mut nothing = Tally::begun(0, message.number - 1, 0);
            if message.count(&mut nothing) == Ruling::Epoch {
                return Ok(Some(nothing));
            }
        }
        Ok(None)
    }

    /// The next message; remembers where a hole was.
    async fn next_of_past(&mut self, reader: &mut Reader) -> Result<Option<Message>, Broken> {
        let next = reader.next().await;
        self.floor = self.floor.max(reader.hole().unwrap_or(0));
        next
    }

    /// Begins another epoch than this one, behind this entry. Where the log has gone on meanwhile, it does nothing.
    async fn begin_epoch(&self, context: &Context, last: u64, epoch: u64) -> Result<(), Broken> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        let number = now.max(epoch + 1);
        let frame = Frame { what: What::Epoch, node: self.node, number, after: 0, room: "", body: &[] };
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SEQUENCE, last.to_string().as_str());
        let sent = context.publish_with_headers(self.names.posts.clone(), headers, frame.encode().into()).await;
        match sent.map_err(away)?.await {
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
                Err(Broken::Anew("it has gone on meanwhile"))
            }
            sent => sent.map(|_| ()).map_err(away),
        }
    }

    /// Gives the node all there is.
    async fn read_past(
        &mut self,
        found: &Found,
        following: &Following,
        start: Tally,
        end: &Tally,
    ) -> Result<Tally, Broken> {
        let stats = following.node.relay_stats();
        self.read = None;
        following.begins();
        stats.is_caught_up.store(false, Ordering::Release);
        let offsets = end.rooms.iter().filter_map(|(room, &count)| Some((RoomName::parse_made(room).ok()?, count)));
        following.node.begin(end.epoch, offsets.collect());
        let mut tally = start;
        let mut reader = Reader::open(&found.log, tally.number + 1, end.number, self.patience).await?;
        while let Some(message) = self.next_of_past(&mut reader).await? {
            let ruling = message.count(&mut tally);
            // What cannot be understood is one of the past: its room knows from the counters that it misses something.
            let _ = message.give(ruling, tally.epoch, following).await;
        }
        following.node.caught_up();
        stats.is_caught_up.store(true, Ordering::Release);
        Ok(tally)
    }
}

/// A log's life, its oldest entry and its last.
fn bounds(info: &Info) -> (u64, u64, u64) {
    let life = u64::try_from(info.created.unix_timestamp_nanos() / 1_000).unwrap_or_default();
    (life, info.state.first_sequence, info.state.last_sequence)
}

/// How somebody goes on who has read this far.
async fn resume(found: &Found, head: Head) -> Result<Resume, Broken> {
    let at = |number| Place { epoch: head.epoch, number };
    let cursor = Cursor { place: at(head.number), mark: Some((head.mark_ns, 0)) };
    let mut marked = None;
    if head.number > 0 && (found.first..=found.last).contains(&head.number) {
        marked = mark_ns(&found.log, head.number).await?.map(|mark_ns| (mark_ns, 0));
    }
    Ok(cursor.resumes(at(found.last), marked, Some(at(found.first.max(1)))))
}

/// When the log took an entry; `None`: it is not there.
async fn mark_ns(log: &Stream, number: u64) -> Result<Option<u64>, Broken> {
    match log.get_raw_message(number).await {
        Ok(message) => Ok(u64::try_from(message.time.unix_timestamp_nanos()).ok()),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(away(error)),
    }
}

/// How long NATS may take for one answer. Less than a publisher waits: when a server or a stream's leader is lost, and with it an answer, what was
/// posted is sent again to another one in time.
fn patience(timeout: Duration) -> Duration {
    (timeout / 4).max(PATIENCE_MIN).min(timeout)
}

/// Why there is no connection, and what helps where TLS or a login fails.
fn refused(error: &ConnectError) -> Broken {
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let hint = match () {
        () if says(&["UnknownIssuer", "BadSignature"]) => {
            "; name the file of the authority that signed its certificate in engine.ca_file"
        }
        () if says(&["InvalidContentType", "corrupt message"]) => {
            "; what answers there does not speak TLS: use nats://"
        }
        () if error.kind() == ConnectErrorKind::AuthorizationViolation => {
            "; it does not let this user, password or token in: see engine.url"
        }
        () => "",
    };
    Broken::Away(format!("{text}{hint}").into())
}

fn away(error: impl Error + Send + Sync + 'static) -> Broken {
    Broken::Away(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_up_long_before_a_publisher_is_told() {
        let of = |timeout| patience(Duration::from_millis(timeout)).as_millis();
        assert_eq!([of(20_000), of(5_000), of(2_000), of(500)], [5_000, 1_250, 1_000, 500]);
    }
}
