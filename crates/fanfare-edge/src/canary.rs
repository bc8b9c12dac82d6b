//! Readiness that proves delivery: a subscriber on each shard that nobody sees, at the far end of a socket. What is said in its room must
//! come back over that socket: through the room's lock, the shard's intake, its loop, its batches and its sends.
//!
//! The socket is a pair made at the start, not one from the listener: over TCP the kernel chooses the shard of a connection, and a listener
//! may expect TLS or a proxy's header. So it says nothing about `accept`.

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

use crate::hub::Hub;

/// How often each shard is asked.
const PERIOD: Duration = Duration::from_secs(1);

/// A shard that has not answered for so long is late. With [`PERIOD`] the longest until that is seen: two seconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// One shard's canary.
#[derive(Debug)]
pub struct Canary {
    pub(crate) room: Arc<Room>,
    /// When it was asked what has not come back, milliseconds on the node's clock and one; 0: nothing is under way.
    asked: AtomicU64,
    /// From asking to the answer at the far end.
    pub latencies: Latencies,
    /// The shard's end, until it takes it; and the far end, until it is watched.
    ends: Mutex<(Option<Pair>, Option<Pair>)>,
}

impl Canary {
    /// For one shard of `hub`.
    pub(crate) fn new(hub: &Hub, shard: usize) -> io::Result<Self> {
        let (near, far) = Pair::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let name = RoomName::parse("canary").map_err(io::Error::other)?;
        let room = hub.registry().hidden_room(name, shard, hub.now());
        Ok(Self {
            room,
            asked: AtomicU64::new(0),
            latencies: Latencies::default(),
            ends: Mutex::new((Some(near), Some(far))),
        })
    }

    /// The shard's end. Once.
    pub(crate) fn take_near(&self) -> Option<Pair> {
        self.ends.lock().0.take()
    }

    /// How late the answer is, if it is late.
    fn lateness(&self, now: Duration) -> Option<Duration> {
        let asked = self.asked.load(Ordering::Acquire).checked_sub(1)?;
        let waited = now.saturating_sub(Duration::from_millis(asked));
        (waited > PATIENCE).then_some(waited)
    }
}

/// Starts to ask every shard, on the runtime of whoever calls.
pub(crate) fn watch(hub: &Arc<Hub>) {
    for shard in 0..hub.canaries().len() {
        let hub = hub.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = watch_shard(&hub, shard).await
                && !hub.drain().has_begun()
            {
                // It stays late: what cannot be proved is not claimed.
                warn!(shard, %error, "the canary's socket failed");
            }
        });
    }
}

async fn watch_shard(hub: &Hub, shard: usize) -> io::Result<()> {
    let canary = &hub.canaries()[shard];
    let Some(far) = canary.ends.lock().1.take() else { return Ok(()) };
    let mut far = UnixStream::from_std(far)?;
    let mut ticks = interval(PERIOD);
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

/// A shard whose canary is late, and by how much. What has come back already is taken first.
pub(crate) async fn late_shard(hub: &Hub) -> Option<(usize, Duration)> {
    for _ in 0..3 {
        seems_late(hub)?;
        // This thread itself may have been held up, with the answer waiting for it.
        tokio::task::yield_now().await;
    }
    seems_late(hub)
}

/// The same, not sure: the answer may have come, and wait for the thread that asks.
pub(crate) fn seems_late(hub: &Hub) -> Option<(usize, Duration)> {
    let now = hub.now();
    hub.canaries().iter().enumerate().find_map(|(shard, canary)| Some((shard, canary.lateness(now)?)))
}
