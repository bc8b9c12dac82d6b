//! Other nodes.

use crate::config::value::choice;

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
        /// What carries them.
        kind: EngineKind = EngineKind::Memory,
        /// Its address.
        url: String = String::new(),
    }
}
