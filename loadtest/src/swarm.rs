//! The connections: each is a task on one of at most two current-thread runtimes, which owns its socket and its audit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use fanfare_client::{
    CloseCode, Command, ConnectOptions, Connection, Error, Event, HttpPublisher, Incoming, Message, Receipt, connect,
};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::LocalSet;

use crate::audit::Receiver;
use crate::pace::Window;
use crate::scenario::{Pace, Plan, Via, Wire};
use crate::stamp::Stamp;

/// Connections from one loopback address; one has some 28,000 ports to give.
const CONNECTIONS_PER_SOURCE: usize = 25_000;

/// A publisher stops sending while this much waits for its socket; what is due meanwhile becomes late, not lost.
const QUEUED_BYTES_MAX: usize = 1 << 20;

/// A publication that has not reached all members after this time no longer holds up its publisher.
const STALL: Duration = Duration::from_secs(1);

/// How long the gateway may take to answer the first ping, and to answer a close frame.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the swarm is to do.
#[derive(Debug, Clone, Copy)]
pub enum Phase {
    /// Connect and wait.
    Opening,
    /// Publish.
    Publishing {
        /// Time zero of the schedule.
        start: Instant,
    },
    /// Send a ping: whatever was on its way is here when its pong is.
    Flushing,
    /// Close every connection properly and end.
    Closing,
    /// End at once.
    Abandoned,
}

/// What all threads see.
#[derive(Debug)]
pub struct Shared {
    pub(crate) plan: Plan,
    /// Time zero of all stamps.
    pub(crate) origin: Instant,
    /// One per thread; written by its thread.
    pub(crate) lanes: Vec<Lane>,
    /// By publisher; written by the publisher's thread, but for the window and the waking.
    pub(crate) publishers: Vec<Publisher>,
    /// Open connections by room.
    present: Vec<AtomicUsize>,
    /// The first failure to open.
    pub(crate) failure: Mutex<Option<anyhow::Error>>,
}

/// Running counts of one thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Lane {
    pub(crate) ready: AtomicU64,
    pub(crate) arrivals: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) announced: AtomicU64,
    /// Nanoseconds from the origin to the last delivery.
    pub(crate) last_ns: AtomicU64,
    /// Pongs after the flush, and connections that are gone and send none.
    pub(crate) flushed: AtomicU64,
}

/// What is shared about one publisher.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// Publications sent.
    pub(crate) published: AtomicU64,
    pub(crate) done: AtomicBool,
    pub(crate) wake: Notify,
    window: Option<Window>,
    pub(crate) written_off: AtomicU64,
    /// Its connection ended, or a request broke off, so that the gateway may not have got the last publications.
    pub(crate) cut_off: AtomicBool,
}

/// What one thread measured.
#[derive(Debug)]
pub struct Measured {
    /// From the time a publication was due to its arrival, nanoseconds.
    pub latency: Histogram<u64>,
    /// From the time a publication was due to its sending, nanoseconds.
    pub lag: Histogram<u64>,
    /// Connections closed before the end, by code and reason.
    pub closes: BTreeMap<(u16, String), u64>,
    /// Everything else that went wrong, by text.
    pub errors: BTreeMap<String, u64>,
    /// Sum of the receipts, where publications go over HTTP.
    pub receipts: Receipt,
}

/// How one connection ended.
#[derive(Debug)]
pub struct Ended {
    /// Its room.
    pub room: usize,
    /// Its audit.
    pub receiver: Receiver,
    /// It was open until the end.
    pub throughout: bool,
}

impl Shared {
    /// The state of a run that has not begun.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let window = match plan.pace {
            Pace::Rate(_) => None,
            Pace::Outstanding { window, .. } => Some(window),
        };
        let publisher = |_| Publisher {
            published: AtomicU64::new(0),
            done: AtomicBool::new(false),
            wake: Notify::new(),
            window: window.map(Window::new),
            written_off: AtomicU64::new(0),
            cut_off: AtomicBool::new(false),
        };
        Self {
            origin: Instant::now(),
            lanes: (0..plan.threads).map(|_| Lane::default()).collect(),
            publishers: (0..plan.publishers()).map(publisher).collect(),
            present: (0..plan.rooms.len()).map(|_| AtomicUsize::new(0)).collect(),
            failure: Mutex::new(None),
            plan,
        }
    }

    fn fail(&self, error: anyhow::Error) {
        self.failure.lock().get_or_insert(error);
    }

    /// The sum of a count over all threads.
    pub(crate) fn sum(&self, count: impl Fn(&Lane) -> &AtomicU64) -> u64 {
        self.lanes.iter().map(|lane| count(lane).load(Ordering::Relaxed)).sum()
    }
}

impl Measured {
    /// Nothing measured yet.
    #[must_use]
    pub fn new() -> Self {
        // 1 µs to 10 minutes, three digits.
        let histogram =
            || Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("the bounds of the histogram are valid");
        Self {
            latency: histogram(),
            lag: histogram(),
            closes: BTreeMap::new(),
            errors: BTreeMap::new(),
            receipts: Receipt::default(),
        }
    }

    /// Adds what another thread measured.
    pub fn add(&mut self, other: Self) {
        const SAME: &str = "all histograms have the same bounds";
        self.latency.add(other.latency).expect(SAME);
        self.lag.add(other.lag).expect(SAME);
        for (close, count) in other.closes {
            *self.closes.entry(close).or_default() += count;
        }
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.add_receipt(&other.receipts);
    }

    fn add_receipt(&mut self, receipt: &Receipt) {
        self.receipts.delivered += receipt.delivered;
        self.receipts.dropped += receipt.dropped;
        self.receipts.evicted += receipt.evicted;
    }

    fn error(&mut self, text: String) {
        *self.errors.entry(text).or_default() += 1;
    }
}

impl Default for Measured {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs the connections and publishers of one thread until the phase says to end.
///
/// # Errors
/// The runtime cannot be started.
pub fn work(
    shared: &Arc<Shared>,
    phase: watch::Receiver<Phase>,
    thread: usize,
) -> anyhow::Result<(Vec<Ended>, Measured)> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let measured = Rc::new(RefCell::new(Measured::new()));
    let lane = Rc::new(Work { shared: shared.clone(), thread, measured: measured.clone() });
    let ended = LocalSet::new().block_on(&runtime, everything(lane, phase));
    // The tasks are gone, and with them their handles on the measurements.
    drop(runtime);
    let measured = Rc::try_unwrap(measured).map_err(|_| anyhow!("a task outlived its runtime"))?;
    Ok((ended, measured.into_inner()))
}

/// What the tasks of one thread share.
struct Work {
    shared: Arc<Shared>,
    thread: usize,
    measured: Rc<RefCell<Measured>>,
}

impl Work {
    fn lane(&self) -> &Lane {
        &self.shared.lanes[self.thread]
    }
}

async fn everything(work: Rc<Work>, phase: watch::Receiver<Phase>) -> Vec<Ended> {
    let plan = &work.shared.plan;
    let opening = Rc::new(Semaphore::new((plan.opening / plan.threads).max(1)));
    let mine = (0..plan.connections).filter(|&connection| plan.thread_of(connection) == work.thread);
    let members: Vec<_> = mine
        .map(|connection| tokio::task::spawn_local(member(work.clone(), opening.clone(), phase.clone(), connection)))
        .collect();
    let mut backends = Vec::new();
    if let Via::Http { admin, key } = &plan.via {
        for publisher in (0..plan.publishers()).filter(|publisher| publisher % plan.threads == work.thread) {
            let http = HttpPublisher::new(admin.clone(), key.clone());
            backends.push(tokio::task::spawn_local(backend(work.clone(), phase.clone(), publisher, http)));
        }
    }
    let mut abandoned = phase;
    tokio::select! {
        ended = join(members, backends) => ended,
        _ = abandoned.wait_for(|phase| matches!(phase, Phase::Abandoned)) => Vec::new(),
    }
}

async fn join(
    members: Vec<tokio::task::JoinHandle<Option<Ended>>>,
    backends: Vec<tokio::task::JoinHandle<()>>,
) -> Vec<Ended> {
    const PANIC: &str = "a task of the swarm panicked";
    let mut ended = Vec::new();
    for member in members {
        ended.extend(member.await.expect(PANIC));
    }
    for backend in backends {
        backend.await.expect(PANIC);
    }
    ended
}

/// One connection from opening to end. `None` when it could not be opened; the run is abandoned then.
async fn member(work: Rc<Work>, opening: Rc<Semaphore>, phase: watch::Receiver<Phase>, index: usize) -> Option<Ended> {
    let permit = opening.acquire().await.expect("the semaphore is never closed");
    let connection = match Box::pin(open(&work.shared.plan, index)).await {
        Ok(connection) => connection,
        Err(error) => {
            let of = work.shared.plan.connections;
            work.shared.fail(error.context(format!("connection {} of {of} could not be opened", index + 1)));
            return None;
        }
    };
    drop(permit);
    let plan = &work.shared.plan;
    let room = plan.room_of(index);
    work.shared.present[room].fetch_add(1, Ordering::Relaxed);
    work.lane().ready.fetch_add(1, Ordering::Relaxed);
    let member = Member {
        receiver: Receiver::new(plan.run, room as u32, plan.publishers_per_room),
        speaker: plan.publisher_of(index).map(|publisher| Speaker::new(plan, publisher)),
        room,
        connection,
        phase,
        work: work.clone(),
        flushing: false,
        flushed: false,
    };
    Some(member.run().await)
}

/// Connects, and waits for the answer to a ping: the gateway has then finished with everything before it, the
/// subscription included.
async fn open(plan: &Plan, index: usize) -> anyhow::Result<Connection> {
    let mut options = ConnectOptions::new(plan.rooms[plan.room_of(index)].url.clone());
    options.token.clone_from(&plan.token);
    options.message_bytes_max = plan.payload_bytes * 2 + 65_536;
    let source = index / CONNECTIONS_PER_SOURCE;
    if plan.spread_sources && source > 0 {
        let last = u8::try_from(source + 1).context("more loopback addresses than one network has")?;
        options.local_address = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
    }
    let mut connection = connect(&options).await.map_err(explain)?;
    connection.queue_ping(b"open")?;
    let pong = async {
        loop {
            match connection.next().await? {
                Incoming::Pong(_) => return Ok(()),
                Incoming::Closed { code, reason } => bail!("the gateway closed it with {}: {reason}", code.0),
                Incoming::Text(_) | Incoming::Binary(_) => {}
            }
        }
    };
    tokio::time::timeout(ANSWER_TIMEOUT, pong).await.context("the gateway did not answer a ping")??;
    Ok(connection)
}

fn explain(error: Error) -> anyhow::Error {
    match &error {
        Error::NothingListening { .. } => anyhow!("{error}: start the gateway with `fanfare dev`"),
        _ => error.into(),
    }
}

/// An open connection with its audit.
struct Member {
    work: Rc<Work>,
    room: usize,
    connection: Connection,
    receiver: Receiver,
    /// Present where this member publishes.
    speaker: Option<Speaker>,
    phase: watch::Receiver<Phase>,
    /// The ping of the flush was sent and its pong counts.
    flushing: bool,
    /// That pong came.
    flushed: bool,
}

/// What happens next to a member.
enum Step {
    Incoming(Result<Incoming, Error>),
    /// A publication is due at this time since the origin, or none ever again.
    Due(Option<Duration>),
    Phase,
    /// The socket took what was queued; there is room to publish again.
    Drained,
}

impl Member {
    async fn run(mut self) -> Ended {
        loop {
            match self.step().await {
                Step::Incoming(Ok(Incoming::Closed { code, reason })) => return self.closed(code, reason),
                Step::Incoming(Ok(incoming)) => self.arrived(&incoming),
                Step::Incoming(Err(error)) => return self.closed(CloseCode(1002), format!("by this program: {error}")),
                Step::Due(Some(due)) => self.publish(due),
                Step::Due(None) | Step::Drained => {}
                Step::Phase => {
                    let phase = *self.phase.borrow_and_update();
                    match phase {
                        Phase::Opening | Phase::Abandoned => {}
                        Phase::Publishing { start } => self.speaker.iter_mut().for_each(|speaker| speaker.start(start)),
                        Phase::Flushing => self.flush(),
                        Phase::Closing => return self.close().await,
                    }
                }
            }
        }
    }

    /// Cancel safe in every branch.
    async fn step(&mut self) -> Step {
        let (connection, phase) = (&mut self.connection, &mut self.phase);
        match &mut self.speaker {
            Some(speaker) if speaker.start.is_some() && connection.queued_bytes() < QUEUED_BYTES_MAX => {
                // In random order: a stream of arrivals must not keep the publisher from its schedule.
                tokio::select! {
                    incoming = connection.next() => Step::Incoming(incoming),
                    due = speaker.due(&self.work.shared) => Step::Due(due),
                    _ = phase.changed() => Step::Phase,
                }
            }
            speaker => {
                let blocked = speaker.as_ref().is_some_and(|speaker| speaker.start.is_some());
                tokio::select! {
                    biased;
                    step = next_or_drained(connection, blocked) => step,
                    _ = phase.changed() => Step::Phase,
                }
            }
        }
    }

    fn publish(&mut self, due: Duration) {
        let Some(speaker) = &mut self.speaker else { return };
        let payload = speaker.begin(&self.work, due);
        let queued = match self.work.shared.plan.wire {
            Wire::Text => self.connection.queue_text(&payload),
            Wire::Json => {
                let message = format!("\"{payload}\"");
                let command = Command::Publish { room: None, message: &message, except_self: false };
                self.connection.queue_text(&command.encode(None))
            }
        };
        // It fails only after the end, which the next step brings.
        if let Err(error) = queued {
            self.work.measured.borrow_mut().error(format!("publishing: {error}"));
        }
    }

    fn arrived(&mut self, incoming: &Incoming) {
        let work = &self.work;
        work.lane().arrivals.fetch_add(1, Ordering::Relaxed);
        let text = match incoming {
            Incoming::Text(text) => text,
            Incoming::Pong(_) if self.flushing => {
                self.flushing = false;
                self.flushed = true;
                work.lane().flushed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Incoming::Pong(_) | Incoming::Closed { .. } => return,
            Incoming::Binary(_) => return self.receiver.take_corrupt(),
        };
        match work.shared.plan.wire {
            Wire::Text => self.deliver(text.as_bytes()),
            Wire::Json => self.event(text),
        }
    }

    fn event(&mut self, text: &str) {
        match Event::parse(text) {
            Ok(Event::Message { message, .. }) => {
                // The payload has no character that JSON escapes; anything but the plain string is a changed message.
                let raw = message.get().as_bytes();
                self.deliver(raw.strip_prefix(b"\"").and_then(|raw| raw.strip_suffix(b"\"")).unwrap_or_default());
            }
            Ok(Event::Gap { count, .. }) => {
                self.receiver.announce(count);
                self.work.lane().announced.fetch_add(count, Ordering::Relaxed);
            }
            Ok(Event::Error { code, message, .. }) => {
                self.work.measured.borrow_mut().error(format!("the gateway answered {code}: {message}"));
            }
            Ok(_) => {}
            Err(_) => self.receiver.take_corrupt(),
        }
    }

    fn deliver(&mut self, payload: &[u8]) {
        let Some(stamp) = self.receiver.take(payload) else { return };
        let shared = &self.work.shared;
        let now_ns = nanoseconds(shared.origin.elapsed());
        self.work.measured.borrow_mut().latency.saturating_record(now_ns.saturating_sub(stamp.due_ns));
        let lane = self.work.lane();
        lane.delivered.fetch_add(1, Ordering::Relaxed);
        lane.last_ns.store(now_ns, Ordering::Relaxed);
        let publisher = self.room * shared.plan.publishers_per_room + stamp.publisher as usize;
        if let Some(window) = &shared.publishers[publisher].window {
            window.delivered(stamp.seq);
        }
    }

    fn flush(&mut self) {
        self.flushing = self.connection.queue_ping(b"flush").is_ok();
    }

    /// The gateway, or a broken rule, ended the connection early.
    fn closed(self, code: CloseCode, reason: String) -> Ended {
        let shared = &self.work.shared;
        shared.present[self.room].fetch_sub(1, Ordering::Relaxed);
        if let Some(speaker) = &self.speaker {
            let publisher = &shared.publishers[speaker.publisher];
            publisher.cut_off.store(true, Ordering::Release);
            publisher.done.store(true, Ordering::Release);
        }
        if !self.flushed {
            // No pong will come.
            self.work.lane().flushed.fetch_add(1, Ordering::Relaxed);
        }
        *self.work.measured.borrow_mut().closes.entry((code.0, reason)).or_default() += 1;
        Ended { room: self.room, receiver: self.receiver, throughout: false }
    }

    /// Ends the connection properly. What still arrives is audited.
    async fn close(mut self) -> Ended {
        self.connection.queue_close(CloseCode(1000), "the load test is over");
        let answer = async {
            loop {
                match self.connection.next().await? {
                    Incoming::Closed { code, reason } => return Ok::<_, Error>((code, reason)),
                    incoming => self.arrived(&incoming),
                }
            }
        };
        let complaint = match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok((CloseCode(1000), _))) => None,
            Ok(Ok((code, reason))) => Some(format!("the close handshake ended with {}: {reason}", code.0)),
            Ok(Err(error)) => Some(format!("the close handshake failed: {error}")),
            Err(_) => Some("the gateway did not answer a close frame".to_owned()),
        };
        if let Some(complaint) = complaint {
            self.work.measured.borrow_mut().error(complaint);
        }
        Ended { room: self.room, receiver: self.receiver, throughout: true }
    }
}

/// The next message; or, for a publisher that was `blocked` by its own backlog, the news that it has shrunk.
async fn next_or_drained(connection: &mut Connection, blocked: bool) -> Step {
    poll_fn(|cx| match connection.poll_next(cx) {
        Poll::Ready(incoming) => Poll::Ready(Step::Incoming(incoming)),
        Poll::Pending if blocked && connection.queued_bytes() < QUEUED_BYTES_MAX => Poll::Ready(Step::Drained),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// One publisher: knows what is due and writes its stamps.
struct Speaker {
    /// Index over all rooms.
    publisher: usize,
    seq: u64,
    quota: u64,
    /// Time zero of the schedule; absent before it begins and after the last publication.
    start: Option<Instant>,
    /// When the window last had room.
    moved: Instant,
}

impl Speaker {
    fn new(plan: &Plan, publisher: usize) -> Self {
        Self { publisher, seq: 0, quota: plan.quota(publisher), start: None, moved: Instant::now() }
    }

    fn start(&mut self, start: Instant) {
        self.start = Some(start);
        self.moved = start;
    }

    /// Waits until the next publication is due and returns that time, since the origin; `None` after the last one.
    /// Cancel safe.
    async fn due(&mut self, shared: &Shared) -> Option<Duration> {
        let due = match self.start {
            Some(start) if self.seq < self.quota => self.next_due(shared, start).await,
            _ => None,
        };
        if due.is_none() {
            self.start = None;
            shared.publishers[self.publisher].done.store(true, Ordering::Release);
        }
        due
    }

    async fn next_due(&mut self, shared: &Shared, start: Instant) -> Option<Duration> {
        let publisher = &shared.publishers[self.publisher];
        let window = match (&shared.plan.pace, &publisher.window) {
            (Pace::Rate(schedule), _) => {
                let due = start + schedule.due(self.publisher as u64, self.seq);
                while Instant::now() < due {
                    publisher.wake.notified().await;
                }
                return Some(due - shared.origin);
            }
            (Pace::Outstanding { .. }, window) => window.as_ref().expect("a publisher that saturates has a window"),
        };
        let end = start + shared.plan.duration;
        let stalled = self.moved + STALL;
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(end.into()) => None,
            () = window.acquire() => {
                self.moved = Instant::now();
                Some(self.moved - shared.origin)
            }
            () = tokio::time::sleep_until(stalled.into()) => {
                publisher.written_off.fetch_add(1, Ordering::Relaxed);
                self.moved = Instant::now();
                Some(self.moved - shared.origin)
            }
        }
    }

    /// Counts the next publication as sent and returns its payload.
    fn begin(&mut self, work: &Work, due: Duration) -> String {
        let shared = &work.shared;
        let plan = &shared.plan;
        let (room, within) = (self.publisher / plan.publishers_per_room, self.publisher % plan.publishers_per_room);
        let mut payload = String::new();
        let stamp = Stamp {
            run: plan.run,
            room: room as u32,
            publisher: within as u32,
            seq: self.seq,
            due_ns: nanoseconds(due),
        };
        stamp.encode(plan.payload_bytes, &mut payload);
        let publisher = &shared.publishers[self.publisher];
        if let Some(window) = &publisher.window {
            window.begin(self.seq, shared.present[room].load(Ordering::Relaxed));
        }
        self.seq += 1;
        publisher.published.store(self.seq, Ordering::Release);
        let lag = shared.origin.elapsed().saturating_sub(due);
        work.measured.borrow_mut().lag.saturating_record(nanoseconds(lag));
        payload
    }

    /// The gateway said that it did not take the last publication.
    fn take_back(&mut self, shared: &Shared) {
        self.seq -= 1;
        shared.publishers[self.publisher].published.store(self.seq, Ordering::Release);
    }
}

/// A publisher that goes through the admin listener. It stops at the first failure.
async fn backend(work: Rc<Work>, mut phase: watch::Receiver<Phase>, publisher: usize, mut http: HttpPublisher) {
    let Ok(start) = phase
        .wait_for(|phase| matches!(phase, Phase::Publishing { .. }))
        .await
        .map(|phase| if let Phase::Publishing { start } = *phase { start } else { Instant::now() })
    else {
        return;
    };
    let shared = &work.shared;
    let room = &shared.plan.rooms[publisher / shared.plan.publishers_per_room];
    let name = room.name.as_ref().expect("only rooms with names are published to over HTTP");
    let mut speaker = Speaker::new(&shared.plan, publisher);
    speaker.start(start);
    while let Some(due) = speaker.due(shared).await {
        let payload = speaker.begin(&work, due);
        match http.publish(name, Message::Text(&payload)).await {
            Ok(receipt) => work.measured.borrow_mut().add_receipt(&receipt),
            Err(error) => {
                if matches!(error, Error::Refused(_) | Error::NothingListening { .. } | Error::Unreachable { .. }) {
                    speaker.take_back(shared);
                } else {
                    shared.publishers[publisher].cut_off.store(true, Ordering::Release);
                }
                work.measured.borrow_mut().error(format!("publishing: {:#}", explain(error)));
                shared.publishers[publisher].done.store(true, Ordering::Release);
                return;
            }
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
