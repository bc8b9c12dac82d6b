//! The connections: on at most two threads, each of which polls its sockets and owns the audits of its receivers.
//!
//! One read serves one shared buffer, frames are parsed where they lie, and a payload that came before is compared and not
//! read again: what a delivery costs here bounds what can be measured there.

mod backend;
mod connect;
mod core;
mod member;
mod socket;
mod speaker;
mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use fanfare_client::Receipt;
use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::audit::Receiver;
use crate::pace::Window;
use crate::scenario::Plan;

pub use worker::work;

/// Times that the swarm is asked for an answer: when it is open, after a storm, and at the end.
pub(crate) const QUESTIONS_MAX: usize = 3;

/// What the swarm is to do.
#[derive(Debug, Clone, Copy)]
pub enum Phase {
    /// Connect and wait.
    Opening,
    /// Ask for an answer: whatever was on its way is here when it is.
    Asking,
    /// Publish.
    Publishing {
        /// Time zero of the schedule.
        start: Instant,
    },
    /// Drop every connection at once and come back.
    Storm,
    /// Those that come and go stop doing so.
    Calming,
    /// Close every connection properly and end.
    Closing,
    /// End at once.
    Abandoned,
}

/// What all threads see.
#[derive(Debug)]
pub struct Shared {
    pub(crate) plan: Plan,
    /// Where the gateway listens.
    pub(crate) gateway: SocketAddr,
    /// Time zero of all stamps.
    pub(crate) origin: Instant,
    /// One per thread; written by its thread.
    pub(crate) lanes: Vec<Lane>,
    /// By publisher; written by the publisher's thread, but for the window.
    pub(crate) publishers: Vec<Publisher>,
    /// Open connections by room that are waited for.
    present: Vec<AtomicUsize>,
    /// The first failure to open.
    pub(crate) failure: Mutex<Option<anyhow::Error>>,
    phase: Mutex<Phase>,
    /// Counts the phases; a thread that sees another number than its own looks at `phase`.
    turn: AtomicU32,
}

/// Running counts of one thread.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Lane {
    /// Connections opened, storms included.
    pub(crate) ready: AtomicU64,
    pub(crate) arrivals: AtomicU64,
    /// To those that are waited for.
    pub(crate) delivered: AtomicU64,
    pub(crate) announced: AtomicU64,
    /// Nanoseconds from the origin to the last delivery.
    pub(crate) last_ns: AtomicU64,
    /// Answers to each question, and connections that are gone and give none.
    pub(crate) answers: [AtomicU64; QUESTIONS_MAX],
    /// Stays that began, of those that come and go.
    pub(crate) joins: AtomicU64,
    /// Those that come and go and have stopped.
    pub(crate) calm: AtomicU64,
    /// Publishers whose windows another thread has opened.
    pub(crate) opened: Mutex<Vec<usize>>,
    pub(crate) waker: mio::Waker,
}

/// What is shared about one publisher.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// Publications sent.
    pub(crate) published: AtomicU64,
    pub(crate) done: AtomicBool,
    pub(crate) window: Option<Window>,
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
    /// The same two of the room beside the others.
    pub latency_beside: Histogram<u64>,
    /// See there.
    pub lag_beside: Histogram<u64>,
    /// From connecting to the finished upgrade, nanoseconds.
    pub handshake: Histogram<u64>,
    /// From asking to join to its confirmation, nanoseconds.
    pub joining: Histogram<u64>,
    /// Connections closed before the end, by code and reason.
    pub closes: BTreeMap<(u16, String), u64>,
    /// Of these, connections that had been told to stall.
    pub closes_of_stalled: u64,
    /// Everything else that went wrong, by text.
    pub errors: BTreeMap<String, u64>,
    /// Attempts to come back that failed and were repeated.
    pub retries: u64,
    /// Connections that came back with their positions.
    pub returns: Returns,
    /// Sum of the receipts, where publications go over HTTP.
    pub receipts: Receipt,
    /// Version and cipher suite of TLS, where it is spoken.
    pub tls: Option<String>,
}

/// Connections that came back with their positions, and what they were told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Returns {
    /// What they had missed follows.
    pub recovered: u64,
    /// What they had missed is not to be had.
    pub gaps: u64,
    /// Publications that the gateway refused meanwhile.
    pub refused: u64,
}

/// How one connection ended.
#[derive(Debug)]
pub struct Ended {
    /// Its room.
    pub room: usize,
    /// The publisher within its room that it is, where a sender does not get its own publications.
    pub deaf_to: Option<usize>,
    /// Its audit.
    pub receiver: Receiver,
    /// It was subscribed until the end.
    pub throughout: bool,
    /// It was subscribed at the end.
    pub at_the_end: bool,
    /// The gateway's shard that it was on, where the gateway says so.
    pub shard: Option<u32>,
}

impl Shared {
    /// The state of a run that has not begun, and a poll for each thread.
    ///
    /// # Errors
    /// The gateway's address is none, or the system refuses a poll.
    pub fn new(plan: Plan) -> anyhow::Result<(Self, Vec<mio::Poll>)> {
        let publisher = |index| Publisher {
            published: AtomicU64::new(0),
            done: AtomicBool::new(false),
            window: plan.window_of(index).map(Window::new),
            written_off: AtomicU64::new(0),
            cut_off: AtomicBool::new(false),
        };
        let polls =
            (0..plan.threads).map(|_| mio::Poll::new()).collect::<Result<Vec<_>, _>>().context("cannot make a poll")?;
        let lane = |poll: &mio::Poll| {
            Ok(Lane {
                ready: AtomicU64::new(0),
                arrivals: AtomicU64::new(0),
                delivered: AtomicU64::new(0),
                announced: AtomicU64::new(0),
                last_ns: AtomicU64::new(0),
                answers: Default::default(),
                joins: AtomicU64::new(0),
                calm: AtomicU64::new(0),
                opened: Mutex::new(Vec::new()),
                waker: mio::Waker::new(poll.registry(), worker::WAKER)?,
            })
        };
        let lanes = polls.iter().map(lane).collect::<std::io::Result<_>>().context("cannot make a waker")?;
        let shared = Self {
            gateway: resolve(&plan.rooms[0].url)?,
            origin: Instant::now(),
            lanes,
            publishers: (0..plan.publishers()).map(publisher).collect(),
            present: (0..plan.rooms.len()).map(|_| AtomicUsize::new(0)).collect(),
            failure: Mutex::new(None),
            phase: Mutex::new(Phase::Opening),
            turn: AtomicU32::new(0),
            plan,
        };
        Ok((shared, polls))
    }

    /// Begins a phase.
    pub(crate) fn enter(self: &Arc<Self>, phase: Phase) {
        *self.phase.lock() = phase;
        self.turn.fetch_add(1, Ordering::Release);
        for lane in &self.lanes {
            lane.wake();
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

impl Lane {
    pub(crate) fn wake(&self) {
        // It fails only when the poll is gone, and with it the thread.
        let _ = self.waker.wake();
    }
}

pub(crate) fn resolve(url: &fanfare_client::Url) -> anyhow::Result<SocketAddr> {
    let found = std::net::ToSocketAddrs::to_socket_addrs(&(url.host(), url.port()));
    let mut found = found.with_context(|| format!("{} cannot be resolved", url.authority()))?;
    // A name with both kinds of addresses: the gateway listens on the first of IPv4 by default.
    let first = found.next();
    found.chain(first).find(SocketAddr::is_ipv4).or(first).with_context(|| format!("{} has no address", url.host()))
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
            latency_beside: histogram(),
            lag_beside: histogram(),
            handshake: histogram(),
            joining: histogram(),
            closes: BTreeMap::new(),
            closes_of_stalled: 0,
            errors: BTreeMap::new(),
            retries: 0,
            returns: Returns::default(),
            receipts: Receipt::default(),
            tls: None,
        }
    }

    /// Adds what another thread measured.
    pub fn add(&mut self, other: Self) {
        const SAME: &str = "all histograms have the same bounds";
        self.latency.add(other.latency).expect(SAME);
        self.lag.add(other.lag).expect(SAME);
        self.latency_beside.add(other.latency_beside).expect(SAME);
        self.lag_beside.add(other.lag_beside).expect(SAME);
        self.handshake.add(other.handshake).expect(SAME);
        self.joining.add(other.joining).expect(SAME);
        for (close, count) in other.closes {
            *self.closes.entry(close).or_default() += count;
        }
        self.closes_of_stalled += other.closes_of_stalled;
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.retries += other.retries;
        self.returns.recovered += other.returns.recovered;
        self.returns.gaps += other.returns.gaps;
        self.returns.refused += other.returns.refused;
        self.add_receipt(&other.receipts);
        self.tls = self.tls.take().or(other.tls);
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

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
