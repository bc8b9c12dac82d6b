//! Other nodes.

use crate::config::value::{Secret, choice};

use super::section::section;

choice! {
    /// What carries publications between nodes.
    pub(crate) EngineKind {
        /// Nothing: one node.
        Memory = "memory",
        /// A Redis server.
        Redis = "redis",
        /// A NATS server.
        Nats = "nats",
    }
}

section! {
    /// How publications travel between nodes.
    Engine {
        /// What carries them: `memory`, nothing, for one node; `redis` or `nats`, a log that several nodes share there, so that they are one gateway.
        kind: EngineKind = EngineKind::Memory,
        /// Its address: `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS, or `unix:///path`; `nats://[user:password@]host[:port]`,
        /// `tls://` for TLS, a token in place of `user:password`, several servers with commas between them. Never printed.
        url: Secret = Secret::new(""),
        /// File with the certificate authorities, PEM, that alone vouch for the server of a `rediss://` or `tls://` address; empty: those that the
        /// system trusts.
        ca_file: String = String::new(),
        /// What its keys, or streams and subjects, begin with. Nodes with the same prefix are one gateway.
        prefix: String = "fanfare".to_owned(),
        /// Time for what is published to come back from it, milliseconds; then the publisher is told that it is away.
        timeout_ms: u64 = 5_000,
        /// Entries of its log that are kept, for nodes that start or were away: as many as are published while a node may be away,
        /// and what the histories of rooms should have after a start. At least 2,000, twice the longest batch.
        log_entries_max: u64 = 100_000,
        /// Servers of a NATS cluster that keep a copy of the log, 1 to 5. It counts where the streams are made; those that are there stay as they are.
        replicas: u64 = 1,
    }
}
