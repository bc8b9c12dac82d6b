//! Bounds that the core crates are told. Every one is named `<thing>_<unit>_max`.

use std::time::Duration;

/// What one client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// Longest message, bytes of payload over all its fragments. Beyond: close 1009.
    pub message_bytes_max: usize,
    /// Most fragments a message may come in. Beyond: close 1008.
    pub fragments_max: usize,
    /// Bad messages in a row that are answered with an error before the connection is closed.
    pub bad_messages_max: u8,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self { message_bytes_max: 65_536, fragments_max: 16_384, bad_messages_max: 10 }
    }
}

/// How often a connection is asked whether it lives, and how long each answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatLimits {
    /// Time between pings.
    pub ping: Duration,
    /// Time a pong may take. Beyond: close 4504.
    pub pong: Duration,
    /// Time queued bytes may wait without one of them being taken by the peer. Beyond: close 4508.
    pub write: Duration,
    /// Time a peer has to answer our close frame.
    pub close: Duration,
}

impl Default for HeartbeatLimits {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(10),
            write: Duration::from_secs(10),
            close: Duration::from_secs(5),
        }
    }
}
