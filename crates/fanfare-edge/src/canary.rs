//! Readiness that proves delivery. Each shard has two canaries, in rooms that nobody sees.
//!
//! One never leaves: a subscriber at the far end of a socket pair. What is said in its room must come back over that socket, through the room's lock,
//! the shard's intake, its loop, its batches and its sends. The other comes anew each time, by the listener, as clients do (`visit`). The first tells that a
//! shard does not turn, the second that it lets nobody in.

mod visit;
mod way;

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream as Pair;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_fanout::Latencies;
use fanfare_protocol::RoomName;
use fanfare_registry::Room;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

pub(crate) use self::way::Visit;
use self::way::{Visits, Way};
use crate::hub::Hub;
use crate::listener::SharedListener;

/// The canaries of a node.
#[derive(Debug)]
pub(crate) struct Canaries {
    /// How often each is sent; `None`: never.
    period: Option<Duration>,
    pub(crate) shards: Box<[Canary]>,
    ways: Box<[Way]>,
    pub(crate) visits: Visits,
}

/// One shard's canaries.
#[derive(Debug)]
pub struct Canary {
    /// Of the one that never leaves.
    pub(crate) room: Arc<Room>,
    /// Of those that come by the listener.
    pub(crate) visited: Arc<Room>,
    /// When it was asked what has not come back, milliseconds on the node's clock and one; 0: nothing is under way.
    asked: AtomicU64,
    /// From asking to the answer at the far end.
    pub latencies: Latencies,
    /// From connecting to the listener to the answer.
    pub visits: Latencies,
    /// The shard's end, until it takes it; and the far end, until it is watched.
    ends: Mutex<(Option<Pair>, Option<Pair>)>,
}

/// What is late, and for how long nothing has come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Late {
    what: What,
    waited: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// This shard does not deliver.
    Shard(usize),
    /// These shards let nobody in.
    Listener(Vec<usize>),
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.waited.as_millis();
        match &self.what {
            What::Shard(shard) => write!(f, "shard {shard} has not delivered for {ms} ms"),
            What::Listener(shards) => match &shards[..] {
                [shard] => write!(f, "shard {shard} has let nobody in for {ms} ms"),
                shards => {
                    let numbers: Vec<_> = shards.iter().map(usize::to_string).collect();
                    write!(f, "shards {} have let nobody in for {ms} ms", numbers.join(", "))
                }
            },
        }
    }
}

impl Canaries {
    /// For the shards of `hub`, which accept from these sockets.
    pub(crate) fn new(hub: &Hub, listeners: Vec<SharedListener>) -> io::Result<Self> {
        let shards = hub.registry().shards().len();
        Ok(Self {
            period: hub.settings().canary,
            shards: (0..shards).map(|shard| Canary::new(hub, shard)).collect::<Result<_, _>>()?,
            ways: Way::all(listeners),
            visits: Visits::default(),
        })
    }

    /// After how long without an answer it is late: with the period before it was asked, two and a half of them.
    fn patience(&self) -> Duration {
        self.period.map_or(Duration::MAX, |period| period + period / 2)
    }

    fn late(&self, now: Duration) -> Option<Late> {
        let is_late = |waited: &Duration| *waited > self.patience();
        let late = |what, waited| Late { what, waited };
        let mut shards = self.shards.iter().enumerate();
        let shard =
            shards.find_map(|(shard, canary)| Some(late(What::Shard(shard), canary.waited(now).filter(is_late)?)));
        shard.or_else(|| {
            let way = |way: &Way| Some(late(What::Listener(way.shards.clone()), way.waited(now).filter(is_late)?));
            self.ways.iter().find_map(way)
        })
    }
}

impl Canary {
    /// For one shard of `hub`.
    fn new(hub: &Hub, shard: usize) -> io::Result<Self> {
        let (near, far) = Pair::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let name = RoomName::parse("canary").map_err(io::Error::other)?;
        let room = || hub.registry().hidden_room(name.clone(), shard, hub.now());
        Ok(Self {
            room: room(),
            visited: room(),
            asked: AtomicU64::new(0),
            latencies: Latencies::default(),
            visits: Latencies::default(),
            ends: Mutex::new((Some(near), Some(far))),
        })
    }

    /// The shard's end. Once.
    pub(crate) fn take_near(&self) -> Option<Pair> {
        self.ends.lock().0.take()
    }

    /// How long nothing has come back.
    fn waited(&self, now: Duration) -> Option<Duration> {
        let asked = self.asked.load(Ordering::Acquire).checked_sub(1)?;
        Some(now.saturating_sub(Duration::from_millis(asked)))
    }
}

/// Starts to ask every shard, on the runtime of whoever calls.
pub(crate) fn watch(hub: &Arc<Hub>) {
    let Some(period) = hub.canaries_of_node().and_then(|canaries| canaries.period) else { return };
    tokio::task::spawn_local(visit::keep_visiting(hub.clone(), period));
    for shard in 0..hub.canaries().len() {
        let hub = hub.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = watch_shard(&hub, shard, period).await
                && !hub.drain().has_begun()
            {
                // It stays late: what cannot be proved is not claimed.
                warn!(shard, %error, "the canary's socket failed");
            }
        });
    }
}

async fn watch_shard(hub: &Hub, shard: usize, period: Duration) -> io::Result<()> {
    let canary = &hub.canaries()[shard];
    let Some(far) = canary.ends.lock().1.take() else { return Ok(()) };
    let mut far = UnixStream::from_std(far)?;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = hub.now();
        canary.asked.store(asked.as_millis() as u64 + 1, Ordering::Release);
        hub.registry().say_hidden(&canary.room);
        // A short frame of the server's: a byte of flags, a byte of length, and what is said (RFC 6455 section 5.2).
        let mut header = [0; 2];
        far.read_exact(&mut header).await?;
        let mut said = [0; 125];
        let length = usize::from(header[1]).min(said.len());
        far.read_exact(&mut said[..length]).await?;
        canary.latencies.record(hub.now().saturating_sub(asked));
        canary.asked.store(0, Ordering::Release);
    }
}

/// How often who asks looks again before he is told that something is late.
const LOOKS: u32 = 10;

/// What is late. What has come back already is taken first: this thread itself may have been held up, with the answers waiting for it.
pub(crate) async fn late(hub: &Hub) -> Option<Late> {
    for _ in 0..LOOKS {
        seems_late(hub)?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    seems_late(hub)
}

/// The same, not sure: the answer may have come, and wait for the thread that asks.
pub(crate) fn seems_late(hub: &Hub) -> Option<Late> {
    hub.canaries_of_node()?.late(hub.now())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the period before it is asked, what hangs is named after two periods and a half.
    #[test]
    fn an_answer_is_late_after_a_period_and_a_half() {
        let of = |period| Canaries { period, shards: Box::default(), ways: Box::default(), visits: Visits::default() };
        assert_eq!(of(Some(Duration::from_secs(1))).patience(), Duration::from_millis(1_500));
        assert_eq!(of(None).patience(), Duration::MAX);
    }
}
