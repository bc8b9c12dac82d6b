//! The one place where configured values get their meaning: from [`Raw`] to [`Config`], or the reasons why not.
//!
//! A file of `typed/` has the rules of one subject as methods of its [`Check`], which is handed from one to the next.

mod auth;
mod check;
mod connection;
mod limits;
mod namespaces;
mod node;
mod pusher;
mod relations;
mod traces;
mod unavailable;
mod warnings;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fanfare_backplane::LogSettings;
use fanfare_edge::{FileMode, ProxySettings, TlsTerms};
use fanfare_fanout::{IntakeLimits, OutboxLimits};
use fanfare_guard::{Moderation, Namespaces, OriginPolicy, Right, TokenKeys};
use fanfare_protocol::{HeartbeatLimits, MessageLimits};
use fanfare_registry::InboxLimits;

use crate::key_set::KeyOrigin;
use crate::traces::TraceTerms;

pub(super) use connection::Compression;
pub use limits::Limits;
pub use node::{Diagnostics, Drain};
pub use pusher::PusherApps;
pub(super) use relations::later;
#[cfg(test)]
pub(super) use unavailable::UNAVAILABLE;
pub(super) use unavailable::is_unavailable;

use super::changes::Configured;
use super::machine::Machine;
use super::raw::{LogFormat, Raw, SendChoice};
use super::value::Secret;
use super::{Address, ConfigError, Problem, Program, door, engine, inboxes, moderation, tls};

use check::{Check, HOUR_MS};
use namespaces::right;

/// Everything a node is told at its start. Values are valid and agree with each other.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: Address,
    /// Where health, metrics and the API are served.
    pub admin: Address,
    /// Permissions of the client listener's file, where it is a Unix socket.
    pub listen_mode: Option<FileMode>,
    /// The same of the admin listener.
    pub admin_mode: Option<FileMode>,
    /// Where a successor asks for the listeners, and this node asked for those of its predecessor.
    pub handover: Option<PathBuf>,
    /// Threads that carry connections.
    pub shards: NonZeroUsize,
    /// How frames reach the kernel.
    pub send_path: SendChoice,
    /// Web origins that may connect.
    pub origins: OriginPolicy,
    /// Name of this node; never empty.
    pub node: String,
    /// Limits at the door.
    pub limits: Limits,
    /// Proxies before this node.
    pub proxy: ProxySettings,
    /// TLS on the client listener.
    pub tls: Option<TlsTerms>,
    /// What one client may send.
    pub messages: MessageLimits,
    /// How messages are compressed; `None`: not at all.
    pub compression: Option<Compression>,
    /// What one connection may have queued.
    pub outbox: OutboxLimits,
    /// Bytes all connections together may have queued.
    pub outbox_total_bytes_max: usize,
    /// Bytes the histories of all rooms together may have.
    pub history_total_bytes_max: usize,
    /// What a shard may owe its audience.
    pub intake: IntakeLimits,
    /// How clients are found to be gone.
    pub heartbeat: HeartbeatLimits,
    /// Rules by namespace.
    pub namespaces: Namespaces,
    /// Applications of the Pusher dialect; `None`: it is not spoken.
    pub pusher: Option<PusherApps>,
    /// What the filters of namespaces know.
    pub moderation: Arc<Moderation>,
    /// Messages that may wait for a moderator.
    pub held_max: usize,
    /// Whether clients may connect without a token.
    pub guests: bool,
    /// Who may send to users from a connection.
    pub send: Right,
    /// Bounds of what is kept for users who are away.
    pub inboxes: InboxLimits,
    /// What guests' tokens are signed with; `None`: one is made at start.
    pub guest_secret: Option<Secret>,
    /// Keys that tokens are checked with.
    pub tokens: TokenKeys,
    /// Where further public keys are published.
    pub key_set: Option<KeyOrigin>,
    /// How long before its token ends a connection is told so; zero: it is not.
    pub expiry_warning: Duration,
    /// Revocations that are remembered.
    pub revocations_max: usize,
    /// Keys that open the API. Without any, [`Config::api_open`] decides.
    pub api_keys: Vec<Secret>,
    /// Whether the API answers without a key: only in `fanfare dev`, and only while no key is configured. When this is
    /// false and there is no key, every call of the API is refused.
    pub api_open: bool,
    /// Whether the API is served on the client listener too.
    pub api_on_client_listener: bool,
    /// Idempotency keys that are remembered.
    pub idempotency_max: usize,
    /// For how long.
    pub idempotency: Duration,
    /// Closed connections that are remembered.
    pub closes_max: usize,
    /// Interval of the sweep that removes vacant rooms.
    pub reap: Duration,
    /// A user who comes back within this time has not left.
    pub presence_debounce: Duration,
    /// Pages and paths for trying things out.
    pub diagnostics: Diagnostics,
    /// How often each shard's canaries are sent; `None`: never.
    pub canary: Option<Duration>,
    /// A log that several nodes share; `None`: this node is alone.
    pub engine: Option<LogSettings>,
    /// How service is left.
    pub drain: Drain,
    /// Where spans of calls that publish go; `None`: there are none.
    pub traces: Option<TraceTerms>,
    /// How log lines are written.
    pub log: LogFormat,
    /// What is logged: directives of `tracing_subscriber::EnvFilter`, known to parse.
    pub log_level: String,
    /// Memory this process may use, bytes: the machine's or its control group's.
    pub memory_bytes: u64,
    /// Every key as it was configured, to compare with another configuration.
    pub(crate) configured: Configured,
}

/// Makes the configuration. `problems` holds what the sources already got wrong.
pub(super) fn build(
    program: Program,
    raw: &Raw,
    machine: &Machine,
    mut problems: Vec<Problem>,
) -> Result<Config, ConfigError> {
    unavailable::refuse(raw, &mut problems);
    let mut check = Check { problems };
    let config = check.config(program, raw, machine);
    // Relations are looked at last and alone: between values of which one is wrong they would only mislead.
    if check.problems.is_empty() {
        check.relations(raw, &config);
    }
    if check.problems.is_empty() {
        check.program(program, raw, &config);
    }
    if check.problems.is_empty() {
        Ok(Config { configured: Configured::of(raw), ..config })
    } else {
        Err(ConfigError::new(check.problems))
    }
}

impl Check {
    fn config(&mut self, program: Program, raw: &Raw, machine: &Machine) -> Config {
        let node = &raw.node;
        let limits = &raw.limits;
        let api_keys = self.api_keys(&raw.api.keys);
        Config {
            listen: self.address("listen", &node.listen),
            admin: self.address("admin", &node.admin),
            listen_mode: door::file_mode("listen_mode", &node.listen_mode, &node.listen, &mut self.problems),
            admin_mode: door::file_mode("admin_mode", &node.admin_mode, &node.admin, &mut self.problems),
            handover: door::handover(&node.handover, &mut self.problems),
            shards: NonZeroUsize::new(self.count("shards", &node.shards, 0..=1_024)).unwrap_or(machine.cores),
            origins: self.origins(&node.origins),
            node: self.node_name(&node.node, &machine.host_name),
            limits: self.limits(limits),
            proxy: door::proxy(&raw.proxy, &mut self.problems),
            tls: tls::load(&raw.tls, &mut self.problems),
            messages: self.messages(limits),
            compression: self.compression(&raw.compression),
            outbox: self.outbox(limits),
            outbox_total_bytes_max: self.total(
                "limits.outbox_total_bytes_max",
                &limits.outbox_total_bytes_max,
                machine.memory_bytes / 4,
            ),
            history_total_bytes_max: self.total(
                "limits.history_total_bytes_max",
                &limits.history_total_bytes_max,
                machine.memory_bytes / 8,
            ),
            intake: IntakeLimits::default(),
            heartbeat: self.heartbeat(&raw.heartbeat),
            namespaces: self.namespaces(raw),
            pusher: self.pusher(&raw.pusher),
            moderation: moderation::load(&raw.moderation, &mut self.problems),
            held_max: self.count("moderation.held_max", &raw.moderation.held_max, 1..=1_000_000),
            guests: raw.auth.guests.value,
            send: right(raw.auth.send.value),
            inboxes: inboxes::limits(raw, machine, &mut self.problems),
            guest_secret: raw.auth.keys.value.iter().find(|key| !key.expose().contains("-----BEGIN")).cloned(),
            tokens: self.tokens(&raw.auth),
            key_set: self.key_set(&raw.auth),
            expiry_warning: self.time("auth.expiry_warning_ms", &raw.auth.expiry_warning_ms, 0..=HOUR_MS),
            revocations_max: self.count("auth.revocations_max", &raw.auth.revocations_max, 1..=1_000_000),
            api_open: program == Program::Dev && api_keys.is_empty(),
            api_keys,
            api_on_client_listener: raw.api.on_client_listener.value,
            idempotency_max: self.count("api.idempotency_max", &raw.api.idempotency_max, 0..=10_000_000),
            idempotency: Duration::from_millis(raw.api.idempotency_ms.value),
            closes_max: self.count("api.closes_max", &raw.api.closes_max, 0..=10_000_000),
            reap: self.time("rooms.reap_ms", &raw.rooms.reap_ms, 10..=24 * HOUR_MS),
            presence_debounce: self.time(
                "rooms.presence_debounce_ms",
                &raw.rooms.presence_debounce_ms,
                0..=HOUR_MS / 60,
            ),
            diagnostics: Diagnostics { echo: raw.diagnostics.echo.value, page: raw.diagnostics.page.value },
            canary: self.canary(&raw.readiness),
            engine: engine::log(raw, &mut self.problems),
            drain: self.drain(&raw.drain),
            traces: self.traces(&raw.traces),
            log: node.log.value,
            send_path: node.send_path.value,
            log_level: self.log_level(&node.log_level),
            memory_bytes: machine.memory_bytes,
            // That of one that holds comes last: it writes every key down.
            configured: Configured::default(),
        }
    }
}
