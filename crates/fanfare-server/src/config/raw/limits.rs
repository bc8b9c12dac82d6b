//! What one node takes on.

use crate::config::value::choice;

use super::section::section;

choice! {
    /// What happens at a limit.
    pub(crate) Mode {
        /// The limit holds.
        Enforce = "enforce",
        /// The limit is only counted and logged.
        Observe = "observe",
    }
}

section! {
    /// What one node takes on. Whatever is over a limit is refused with a reason.
    Limits {
        /// Connections at once on this node.
        connections_max: u64 = 100_000,
        /// Connections at once from one address. 0: off.
        connections_per_ip_max: u64 = 0,
        /// New connections a second from one address, and so many at once; one more is refused with 429. 0: off. Here and in
        /// `connections_per_ip_max` a network of IPv6 (/64) counts as one address.
        handshakes_per_second_per_ip_max: u64 = 0,
        /// Connections at once of one user, a guest or the user of a token; one more is closed with 4429. 0: off. Who has no name is
        /// nobody's user.
        connections_per_user_max: u64 = 0,
        /// Time a request or WebSocket handshake may take, milliseconds.
        handshake_ms_max: u64 = 10_000,
        /// Header lines of a request.
        handshake_headers_max: u64 = 64,
        /// Bytes of a request's head: its first line and all header lines.
        header_bytes_max: u64 = 16_384,
        /// Bytes of one message, over all its fragments. Longer ones close the connection with 1009.
        message_bytes_max: u64 = 65_536,
        /// Fragments one message may come in.
        fragments_max: u64 = 16_384,
        /// Messages a second from one connection, and so many at once; one more closes it with 4429. 0: off.
        messages_per_second_max: u64 = 0,
        /// Pings and pongs a second from one connection, and so many at once; one more closes it with 4429. These are frames of WebSocket,
        /// which count as no message. 0: off.
        control_frames_per_second_max: u64 = 1_000,
        /// Messages a second of one user, from all his connections, and so many at once; the connection that sends one more is closed with
        /// 4429. 0: off.
        messages_per_second_per_user_max: u64 = 0,
        /// Rooms one connection may be subscribed to at once.
        subscriptions_per_connection_max: u64 = 1_000,
        /// Rooms at once on this node. A vacant room with a history makes place for a new one.
        rooms_max: u64 = 1_000_000,
        /// Bytes queued for one connection. At the bound the namespace's `slow` policy decides.
        /// At least `message_bytes_max` + 4096, so that one message always fits.
        outbox_bytes_max: u64 = 1_048_576,
        /// Messages queued for one connection. At the bound the namespace's `slow` policy decides.
        outbox_messages_max: u64 = 4_096,
        /// Bytes queued for all connections together. 0: a quarter of the machine's memory, or of the
        /// control group's memory limit where that is lower.
        outbox_total_bytes_max: u64 = 0,
        /// Bytes of the histories of all rooms together. Beyond, the vacant rooms that nobody has used for longest make place, then
        /// each room's own oldest messages. 0: an eighth of the machine's memory, or of the control group's memory limit where that
        /// is lower.
        history_total_bytes_max: u64 = 0,
        /// Bytes kept for one user who is away, direct messages and mentions together. At least `message_bytes_max` + 8192, and at
        /// most half of `outbox_bytes_max`: they are told in one go.
        inbox_bytes_max: u64 = 262_144,
        /// Bytes kept for all users who are away. Beyond, nothing more is kept but in the place of a user's own oldest. 0: a thirty-second
        /// of the machine's memory, or of the control group's memory limit where that is lower.
        inbox_total_bytes_max: u64 = 0,
        /// Time something is kept for a user who is away, and he is remembered for mentions, milliseconds.
        inbox_ms_max: u64 = 604_800_000,
        /// Whether limits hold, or what is beyond them is let pass and counted in `fanfare_would_reject_total`. Observed are those of
        /// connections, handshakes, rooms, subscriptions, subscribers, and messages, pings and pongs a second, in namespaces too. All others bound what a stranger can make this node keep in memory, and always hold.
        mode: Mode = Mode::Enforce,
    }
}
