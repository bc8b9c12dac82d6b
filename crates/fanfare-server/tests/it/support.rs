//! What the integration tests share: waiting, addresses of their own, a node in this process ([`TestNode`]), an independent WebSocket client
//! ([`Client`]), and a socket to which bytes are written by hand ([`Raw`]). Every wait ends after [`PATIENCE`].

mod client;
mod node;
mod raw;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

pub(crate) use self::client::Client;
pub(crate) use self::node::{TestNode, metric, until_ready};
pub(crate) use self::raw::{Answer, Frame, Raw, close_frame, frame, handshake, request};

/// The longest a test waits for anything. It is there so that a test that hangs fails and says at what: no machine that runs the tests at
/// all may be too slow for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The future's value; a failed test when it does not come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}

/// A deadline of the node's that a test has to keep. A machine may be too slow for that; then the test has shown nothing, and tries again
/// with a longer one. So what is asserted holds on every machine, and is asserted on a quick one within the first.
pub(crate) struct Deadline {
    time: Duration,
    last: Instant,
    is_kept: bool,
}

impl Deadline {
    /// From here on it has to be kept.
    pub(crate) fn begin(&mut self) {
        self.last = Instant::now();
    }

    /// The test kept the deadline here. What it then expects of the node it may assert, if it [`Self::was_kept`].
    pub(crate) fn keep(&mut self) {
        self.is_kept &= self.last.elapsed() < self.time / 2;
        self.last = Instant::now();
    }

    /// Whether there was never more than half of it between two calls of [`Self::keep`], and is not now.
    pub(crate) fn was_kept(&mut self) -> bool {
        self.keep();
        self.is_kept
    }

    pub(crate) fn ms(&self) -> u128 {
        self.time.as_millis()
    }
}

/// Runs a test with a deadline of so many milliseconds; while it says that it could not keep that, with twice as many.
pub(crate) async fn with_deadline(first_ms: u64, mut test: impl AsyncFnMut(&mut Deadline) -> bool) {
    let mut time = Duration::from_millis(first_ms);
    loop {
        let mut deadline = Deadline { time, last: Instant::now(), is_kept: true };
        if test(&mut deadline).await {
            return;
        }
        assert!(time < PATIENCE / 2, "this machine is too slow for a deadline of {time:?}");
        time *= 2;
    }
}

/// An address of the loopback network that no other test listens on, nor connects from: a port of it that was closed is nobody else's.
pub(crate) fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = std::process::id().wrapping_mul(64).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    let [_, high, middle, low] = number.to_be_bytes();
    // Neither the network's own numbers nor 127.0.0.…, which tests use as it is.
    format!("127.{}.{middle}.{}:0", high | 1, low.clamp(1, 254))
}

/// A port that nobody listens on for as long as this is kept.
pub(crate) struct Unused {
    pub(crate) address: SocketAddr,
    _bound: TcpSocket,
}

impl Unused {
    pub(crate) fn port() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        Self { address: socket.local_addr().expect("its address"), _bound: socket }
    }
}

/// Asks until it holds.
pub(crate) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
