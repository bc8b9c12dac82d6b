//! Rooms, their rules by namespace, and the words in them.

use crate::config::value::choice;

use super::auth::Who;
use super::section::section;

section! {
    /// The life of rooms.
    Rooms {
        /// Interval of the sweep that removes empty rooms, milliseconds: an empty room is gone after at most this time.
        reap_ms: u64 = 10_000,
        /// A user whose last connection ends has left after this time, unless he is back by then, milliseconds: reloading a page is
        /// not leaving. So long a guest's name stays his, too. 0: at once.
        presence_debounce_ms: u64 = 1_000,
    }
}

choice! {
    /// What happens to a subscriber whose outbox is full.
    pub(crate) Slow {
        /// Its connection is closed with 4508.
        Evict = "evict",
        /// The oldest queued messages are dropped and announced as a gap.
        DropOldest = "drop_oldest",
        /// Only the newest message of each room is kept.
        Latest = "latest",
        /// Closed with 4508, and what it missed follows when it comes back.
        EvictResumable = "evict_resumable",
    }
}

choice! {
    /// What happens to a message that the word filter finds fault with.
    pub(crate) Filter {
        /// Nothing is looked at.
        Off = "off",
        /// It is counted.
        Observe = "observe",
        /// The words are replaced.
        Mask = "mask",
        /// It is refused.
        Reject = "reject",
        /// It waits for a moderator.
        Hold = "hold",
    }
}

section! {
    /// Rules of the rooms whose name begins with the namespace and a colon. `[namespaces.default]` holds for rooms
    /// without a colon and for namespaces that have no table of their own; a key that another namespace's table
    /// leaves out is taken from `[namespaces.default]`.
    Namespace {
        /// Who may subscribe.
        subscribe: Who = Who::Anyone,
        /// Who may publish from a connection. The HTTP API always may.
        publish: Who = Who::Anyone,
        /// Messages kept for those who come back or ask for them, per room. 0: none.
        history_size: u64 = 0,
        /// Time messages are kept, milliseconds. 0: no limit but `history_size`.
        history_ms: u64 = 0,
        /// Bytes of messages kept per room, each counted with 256 bytes and its user's name. At least `limits.message_bytes_max` +
        /// 1024, so that one message always fits.
        history_bytes_max: u64 = 1_048_576,
        /// Whether the reply to `presence` lists the users; the number of subscribers it tells always.
        presence: bool = false,
        /// Whether subscribers are told who enters and leaves.
        join_leave: bool = false,
        /// Time a message may wait for others to be sent along with it, milliseconds. 0: none.
        coalesce_ms: u64 = 0,
        /// What happens to a subscriber whose outbox is full: its connection is closed (4508); the oldest messages queued for it are
        /// dropped and announced as a gap; only the newest of a room is ever queued, and a gap tells what it replaced; or it is closed
        /// to come back for what it missed, which needs `history_size`. Text clients, who cannot be told of a gap, are closed.
        slow: Slow = Slow::Evict,
        /// Interval at which the node publishes the time into every occupied room, milliseconds. 0: never.
        ticker_ms: u64 = 0,
        /// What happens to messages that `[moderation]` finds fault with: nothing is looked at, they are counted, their words
        /// are replaced by `*`, they are refused, or they wait for a moderator.
        filter: Filter = Filter::Off,
        /// Mentions (`@name`) in these rooms kept for a user who is away; in `[namespaces.default]` also direct messages, of all users.
        /// 0: none.
        inbox_size: u64 = 0,
        /// Whether clients may close a room for everybody with the `close` command.
        client_close: bool = false,
        /// Subscribers of a room at the same time; one more is refused (`room_full`). 0: off. An observed limit, see `limits.mode`.
        subscribers_max: u64 = 0,
        /// Messages a second in a room, from clients and over HTTP, and so many at once; one more is refused (`too_fast`, over HTTP 429).
        /// 0: off. An observed limit, see `limits.mode`. Not checked with an engine, which makes the order of its rooms elsewhere; `subscribers_max`
        /// is each node's own.
        messages_per_second_max: u64 = 0,
    }
}

section! {
    /// What the filters of namespaces know.
    Moderation {
        /// File with a word a line, UTF-8; `#` begins a comment. Relative to the working directory.
        words_file: String = String::new(),
        /// File with a trained model, written by `fanfare train`.
        model_file: String = String::new(),
        /// Messages that may wait for a moderator on this node (`filter = "hold"`); the next is refused.
        held_max: u64 = 1_000,
    }
}
