//! What is agreed with each connection: compression and heartbeat.

use crate::config::value::choice;

use super::section::section;

choice! {
    /// Which messages are compressed.
    pub(crate) Compress {
        /// None: clients' offers are declined.
        Off = "off",
        /// Every message that compression makes shorter.
        On = "on",
        /// Of those, the ones from `threshold_bytes` on.
        Threshold = "threshold",
    }
}

section! {
    /// Compression of messages (permessage-deflate, RFC 7692) for clients that offer it, as browsers do. A publication is
    /// compressed once for all of them. What a message inflates to is bounded by `limits.message_bytes_max`.
    Compression {
        /// Which messages are sent compressed: `off` (offers are declined), `on` (all that become shorter), or `threshold`
        /// (those from `threshold_bytes` on).
        mode: Compress = Compress::Threshold,
        /// With `mode = "threshold"`, bytes from which a message is compressed.
        threshold_bytes: u64 = 1_024,
        /// How hard, from 1, the fastest, to 9, the shortest.
        level: u64 = 3,
        /// Whether clients may compress with reference to what they have sent before. Costs up to 32 KiB of memory for each
        /// connection that does.
        client_context_takeover: bool = false,
    }
}

section! {
    /// How the node finds out that a client is gone.
    Heartbeat {
        /// Time between pings, milliseconds.
        ping_ms: u64 = 25_000,
        /// Time a pong may take, milliseconds; then the connection is closed with 4504.
        pong_ms: u64 = 10_000,
        /// Time queued bytes may wait without the client taking any, milliseconds; then it is closed with 4508.
        write_ms: u64 = 10_000,
        /// Time a client has to answer a close, milliseconds; then the socket is closed without it.
        close_ms: u64 = 5_000,
    }
}
