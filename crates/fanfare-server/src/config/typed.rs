//! The one place where configured values get their meaning: from [`Raw`] to [`Config`], or the reasons why not.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use fanfare_edge::{FileMode, ProxySettings, TlsTerms};
use fanfare_fanout::{IntakeLimits, OutboxLimits};
use fanfare_guard::{Moderation, NamespacePolicy, Namespaces, OriginPolicy, Right, SlowPolicy, TokenKeys, TokenRules};
use fanfare_protocol::{HeartbeatLimits, MessageLimits};
use fanfare_registry::InboxLimits;
use hyper::Uri;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::key_set::KeyOrigin;

use super::changes::Configured;
use super::machine::Machine;
use super::raw::{
    self, Compress, DEFAULT_NAMESPACE, LogFormat, Mode, NAMESPACES, Namespace, Raw, SendChoice, Who, key_path,
    namespace_path,
};
use super::value::{Origin, Secret, Setting, nearest};
use super::{Address, ConfigError, Problem, Program, door, history, inboxes, moderation, tls};

/// Bytes of an outbox that must remain beside the longest message: its frame header and the dialect's words around
/// it, so that a message that was accepted always fits an empty outbox.
pub(super) const OUTBOX_OVERHEAD_BYTES: u64 = 4_096;

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
    /// How service is left.
    pub drain: Drain,
    /// How log lines are written.
    pub log: LogFormat,
    /// What is logged: directives of `tracing_subscriber::EnvFilter`, known to parse.
    pub log_level: String,
    /// Memory this process may use, bytes: the machine's or its control group's.
    pub memory_bytes: u64,
    /// Every key as it was configured, to compare with another configuration.
    pub(crate) configured: Configured,
}

/// Limits at the door. `None`: off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address.
    pub connections_per_ip_max: Option<NonZeroUsize>,
    /// Time a request or handshake may take.
    pub handshake_max: Duration,
    /// Header lines of a request.
    pub handshake_headers_max: usize,
    /// Bytes of a request's head; at least 8,192, which hyper asks for.
    pub header_bytes_max: usize,
    /// Messages a second from one connection.
    pub messages_per_second_max: Option<NonZeroU32>,
    /// Rooms one connection may be subscribed to.
    pub subscriptions_per_connection_max: usize,
    /// Rooms at once.
    pub rooms_max: usize,
    /// Whether what is beyond some of these limits is let pass, and only counted.
    pub observes: bool,
}

/// How messages are compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// Shorter messages are sent as they are.
    pub threshold_bytes: usize,
    /// From 1, the fastest, to 9, the shortest.
    pub level: u8,
    /// Whether clients may refer to what they have sent before.
    pub client_context_takeover: bool,
}

/// Pages and paths for trying things out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// Whether `/echo` and `/helloworld` answer.
    pub echo: bool,
    /// Whether `/` serves the demo page.
    pub page: bool,
}

/// How service is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Time new connections are still accepted.
    pub grace: Duration,
    /// Time over which connections are closed.
    pub window: Duration,
    /// When clients are told to reconnect.
    pub retry: Duration,
}

impl Config {
    /// What an operator should know although the node can start, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.api_keys.is_empty() && !self.api_open {
            warnings.push("api.keys is empty: every call of the HTTP API is refused".to_owned());
        }
        if self.holds_messages() && self.api_keys.is_empty() && !self.api_open {
            warnings.push("messages are held for a moderator, but without api.keys nobody can release them".to_owned());
        }
        if self.limits.observes {
            warnings.push(
                "limits.mode is observe: connections, rooms, subscriptions and messages a second beyond their limits \
                 are let pass and counted in fanfare_would_reject_total"
                    .to_owned(),
            );
        }
        warnings.extend(self.tls.as_ref().and_then(tls::warning));
        if let Some(KeyOrigin::Url(url)) = &self.key_set
            && url.scheme_str() == Some("http")
            && !matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"))
        {
            warnings
                .push("auth.jwks_url is not https: whoever is on the way can put keys of their own into it".to_owned());
        }
        if !self.admin.is_local() {
            warnings.push(format!(
                "the admin listener {} can be reached from other machines: health and metrics need no key",
                self.admin
            ));
        }
        warnings
    }
}

/// Keys whose feature is not in this version: any value but the default is refused, so that nobody relies on a
/// promise that is not kept. `*` stands for any namespace. Whoever builds the feature deletes the row.
pub(super) const UNAVAILABLE: &[(&str, &str)] = &[("engine", "kind"), ("engine", "url")];

/// Whether any value but the default of this key is refused.
pub(super) fn is_unavailable(section: &str, key: &str) -> bool {
    let section = if is_namespace(section) { "namespaces.*" } else { section };
    UNAVAILABLE.contains(&(section, key))
}

fn is_namespace(section: &str) -> bool {
    section.strip_prefix(NAMESPACES).is_some_and(|rest| rest.starts_with('.'))
}

fn unavailable(raw: &Raw, problems: &mut Vec<Problem>) {
    let preset = Raw::default();
    let presets = preset.sections();
    let default_namespace = namespace_path(DEFAULT_NAMESPACE);
    for (name, section) in raw.sections() {
        let model = if is_namespace(&name) { &default_namespace } else { &name };
        let Some((_, preset)) = presets.iter().find(|(name, _)| name == model) else { continue };
        for (key, preset) in section.keys().into_iter().zip(preset.keys()) {
            if key.value != preset.value && is_unavailable(&name, key.name) {
                let path = key_path(&name, key.name);
                let (asked, only) = (key.value, preset.value);
                let text = format!("`{path} = {asked}` is not available in this version; only {only} is");
                problems.push(Problem { origin: Some(key.origin), text });
            }
        }
    }
}

/// Makes the configuration. `problems` holds what the sources already got wrong.
pub(super) fn build(
    program: Program,
    raw: &Raw,
    machine: &Machine,
    mut problems: Vec<Problem>,
) -> Result<Config, ConfigError> {
    unavailable(raw, &mut problems);
    let mut check = Check { problems };
    let config = check.config(program, raw, machine);
    // Relations are looked at last and alone: between values of which one is wrong they would only mislead.
    if check.problems.is_empty() {
        check.relations(raw, &config);
    }
    if check.problems.is_empty() {
        check.program(program, raw, &config);
    }
    if check.problems.is_empty() { Ok(config) } else { Err(ConfigError::new(check.problems)) }
}

/// Collects what is wrong; every method returns some valid value so that the rest can be looked at too.
struct Check {
    problems: Vec<Problem>,
}

const HOUR_MS: u64 = 3_600_000;
/// A year.
const HISTORY_MS_MAX: u64 = 365 * 24 * HOUR_MS;
const CONNECTIONS_MAX: u64 = 10_000_000;

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
            limits: self.limits(raw),
            proxy: door::proxy(&raw.proxy, &mut self.problems),
            tls: tls::load(&raw.tls, &mut self.problems),
            messages: MessageLimits {
                message_bytes_max: self.count("limits.message_bytes_max", &limits.message_bytes_max, 1..=64 << 20),
                fragments_max: self.count("limits.fragments_max", &limits.fragments_max, 1..=1 << 20),
                ..MessageLimits::default()
            },
            compression: self.compression(&raw.compression),
            outbox: OutboxLimits {
                outbox_bytes_max: self.count("limits.outbox_bytes_max", &limits.outbox_bytes_max, 1..=1 << 30),
                outbox_messages_max: self.count("limits.outbox_messages_max", &limits.outbox_messages_max, 1..=1 << 20),
            },
            outbox_total_bytes_max: match self.number(
                "limits.outbox_total_bytes_max",
                &limits.outbox_total_bytes_max,
                0..=1 << 44,
            ) {
                0 => as_usize(machine.memory_bytes / 4),
                bytes => as_usize(bytes),
            },
            history_total_bytes_max: match self.number(
                "limits.history_total_bytes_max",
                &limits.history_total_bytes_max,
                0..=1 << 44,
            ) {
                0 => as_usize(machine.memory_bytes / 8),
                bytes => as_usize(bytes),
            },
            intake: IntakeLimits::default(),
            heartbeat: HeartbeatLimits {
                ping: self.time("heartbeat.ping_ms", &raw.heartbeat.ping_ms, 10..=HOUR_MS),
                pong: self.time("heartbeat.pong_ms", &raw.heartbeat.pong_ms, 10..=HOUR_MS),
                write: self.time("heartbeat.write_ms", &raw.heartbeat.write_ms, 10..=HOUR_MS),
                close: self.time("heartbeat.close_ms", &raw.heartbeat.close_ms, 10..=HOUR_MS),
            },
            namespaces: self.namespaces(raw),
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
            drain: Drain {
                grace: self.time("drain.grace_ms", &raw.drain.grace_ms, 0..=HOUR_MS),
                window: self.time("drain.window_ms", &raw.drain.window_ms, 0..=HOUR_MS),
                retry: self.time("drain.retry_ms", &raw.drain.retry_ms, 0..=HOUR_MS),
            },
            log: node.log.value,
            send_path: node.send_path.value,
            log_level: self.log_level(&node.log_level),
            memory_bytes: machine.memory_bytes,
            configured: Configured::of(raw),
        }
    }

    fn limits(&mut self, raw: &Raw) -> Limits {
        let limits = &raw.limits;
        let per_second =
            self.number_u32("limits.messages_per_second_max", &limits.messages_per_second_max, 0..=1_000_000);
        Limits {
            connections_max: self.count("limits.connections_max", &limits.connections_max, 1..=CONNECTIONS_MAX),
            connections_per_ip_max: NonZeroUsize::new(self.count(
                "limits.connections_per_ip_max",
                &limits.connections_per_ip_max,
                0..=CONNECTIONS_MAX,
            )),
            handshake_max: self.time("limits.handshake_ms_max", &limits.handshake_ms_max, 10..=HOUR_MS),
            // A browser's handshake behind a proxy has about twenty lines.
            handshake_headers_max: self.count(
                "limits.handshake_headers_max",
                &limits.handshake_headers_max,
                16..=1_024,
            ),
            header_bytes_max: self.count("limits.header_bytes_max", &limits.header_bytes_max, 8_192..=1 << 20),
            messages_per_second_max: NonZeroU32::new(per_second),
            subscriptions_per_connection_max: self.count(
                "limits.subscriptions_per_connection_max",
                &limits.subscriptions_per_connection_max,
                1..=1_000_000,
            ),
            rooms_max: self.count("limits.rooms_max", &limits.rooms_max, 1..=100_000_000),
            observes: limits.mode.value == Mode::Observe,
        }
    }

    fn compression(&mut self, raw: &raw::Compression) -> Option<Compression> {
        let threshold = self.count("compression.threshold_bytes", &raw.threshold_bytes, 1..=1 << 20);
        let level = self.number("compression.level", &raw.level, 1..=9);
        let threshold_bytes = match raw.mode.value {
            Compress::Off => return None,
            Compress::On => 0,
            Compress::Threshold => threshold,
        };
        Some(Compression {
            threshold_bytes,
            level: u8::try_from(level).unwrap_or(9),
            client_context_takeover: raw.client_context_takeover.value,
        })
    }

    fn namespaces(&mut self, raw: &Raw) -> Namespaces {
        let fallback = &raw.namespaces[DEFAULT_NAMESPACE];
        let default = self.namespace(DEFAULT_NAMESPACE, fallback, fallback);
        let others = raw.namespaces.iter().filter(|(name, _)| *name != DEFAULT_NAMESPACE);
        let others = others.map(|(name, rules)| (name.clone(), self.namespace(name, rules, fallback))).collect();
        Namespaces::new(default, others)
    }

    /// The policy of one namespace; what its table leaves out comes from the default namespace.
    fn namespace(&mut self, name: &str, rules: &Namespace, fallback: &Namespace) -> NamespacePolicy {
        fn given<'a, T>(own: &'a Setting<T>, fallback: &'a Setting<T>) -> &'a Setting<T> {
            if own.is_given() { own } else { fallback }
        }
        let path = |key: &str| key_path(&namespace_path(name), key);
        let ticker = given(&rules.ticker_ms, &fallback.ticker_ms);
        if (1..10).contains(&ticker.value) {
            self.problem(ticker, format!("`{}` must be 0 or at least 10", path("ticker_ms")));
        }
        NamespacePolicy {
            subscribe: right(given(&rules.subscribe, &fallback.subscribe).value),
            publish: right(given(&rules.publish, &fallback.publish).value),
            presence: given(&rules.presence, &fallback.presence).value,
            join_leave: given(&rules.join_leave, &fallback.join_leave).value,
            history_size: self.number_u32(
                &path("history_size"),
                given(&rules.history_size, &fallback.history_size),
                0..=1_000_000,
            ),
            history_bytes_max: self.count(
                &path("history_bytes_max"),
                given(&rules.history_bytes_max, &fallback.history_bytes_max),
                1..=1 << 40,
            ),
            history_ms: self.number(
                &path("history_ms"),
                given(&rules.history_ms, &fallback.history_ms),
                0..=HISTORY_MS_MAX,
            ),
            slow: slow(given(&rules.slow, &fallback.slow).value),
            last_value: given(&rules.history_size, &fallback.history_size).value == 1
                && given(&rules.slow, &fallback.slow).value == raw::Slow::Latest,
            ticker_ms: self.number(&path("ticker_ms"), ticker, 0..=24 * HOUR_MS),
            coalesce_ms: self.number(&path("coalesce_ms"), given(&rules.coalesce_ms, &fallback.coalesce_ms), 0..=1_000),
            inbox_size: self.number_u32(
                &path("inbox_size"),
                given(&rules.inbox_size, &fallback.inbox_size),
                0..=10_000,
            ),
            client_close: given(&rules.client_close, &fallback.client_close).value,
            filter: moderation::filter(given(&rules.filter, &fallback.filter).value),
        }
    }

    /// What must hold between values.
    fn relations(&mut self, raw: &Raw, config: &Config) {
        moderation::filters_without_files(raw, &mut self.problems);
        history::too_small(raw, config, &mut self.problems);
        inboxes::check(raw, config, &mut self.problems);
        history::not_resumable(raw, config, &mut self.problems);
        let limits = &raw.limits;
        let message = limits.message_bytes_max.value;
        let needed = message + OUTBOX_OVERHEAD_BYTES;
        if limits.outbox_bytes_max.value < needed {
            let blamed = later(&limits.outbox_bytes_max, &limits.message_bytes_max);
            self.problem_at(
                blamed,
                format!(
                    "one message of `limits.message_bytes_max` = {message} with its overhead of {OUTBOX_OVERHEAD_BYTES} \
                     does not fit `limits.outbox_bytes_max` = {}; raise the latter to {needed} or more, or lower the \
                     former",
                    limits.outbox_bytes_max.value
                ),
            );
        }
        if config.outbox_total_bytes_max < config.outbox.outbox_bytes_max {
            let blamed = later(&limits.outbox_total_bytes_max, &limits.outbox_bytes_max);
            self.problem_at(
                blamed,
                format!(
                    "`limits.outbox_total_bytes_max` comes to {}, less than the {} of one connection's \
                     `limits.outbox_bytes_max`; raise the former or lower the latter",
                    config.outbox_total_bytes_max, config.outbox.outbox_bytes_max
                ),
            );
        }
        if limits.connections_per_ip_max.value > limits.connections_max.value {
            let blamed = later(&limits.connections_per_ip_max, &limits.connections_max);
            self.problem_at(
                blamed,
                format!(
                    "`limits.connections_per_ip_max` = {} can never be reached: `limits.connections_max` is {}; lower \
                     the former (0: off) or raise the latter",
                    limits.connections_per_ip_max.value, limits.connections_max.value
                ),
            );
        }
        if config.tls.is_some() && matches!(config.listen, Address::Unix(_)) {
            let blamed = later(&raw.tls.certificate, &raw.node.listen);
            self.problem_at(blamed, format!("`[tls]` needs TCP, but `listen` is {}", config.listen));
        }
        if same(&config.listen, &config.admin) {
            let blamed = later(&raw.node.listen, &raw.node.admin);
            self.problem_at(
                blamed,
                format!("`listen` and `admin` are both {}; give them different ports", config.admin),
            );
        }
    }

    /// What holds for one of the programs only.
    fn program(&mut self, program: Program, raw: &Raw, config: &Config) {
        if program == Program::Serve {
            return;
        }
        for (key, setting, address) in
            [("listen", &raw.node.listen, &config.listen), ("admin", &raw.node.admin, &config.admin)]
        {
            if !address.is_local() {
                self.problem(
                    setting,
                    format!(
                        "`{key}` is {address}, but `fanfare dev` lets everybody in and so listens on loopback only: use \
                         127.0.0.1:PORT, [::1]:PORT or unix:/path, or start `fanfare serve`"
                    ),
                );
            }
        }
    }

    fn problem<T>(&mut self, setting: &Setting<T>, text: String) {
        self.problem_at(setting.origin.clone(), text);
    }

    fn problem_at(&mut self, origin: Origin, text: String) {
        self.problems.push(Problem { origin: Some(origin), text });
    }

    fn number(&mut self, path: &str, setting: &Setting<u64>, range: RangeInclusive<u64>) -> u64 {
        if !range.contains(&setting.value) {
            let (low, high) = (range.start(), range.end());
            self.problem(setting, format!("`{path}` = {} is not between {low} and {high}", setting.value));
        }
        setting.value.clamp(*range.start(), *range.end())
    }

    fn count(&mut self, path: &str, setting: &Setting<u64>, range: RangeInclusive<u64>) -> usize {
        as_usize(self.number(path, setting, range))
    }

    fn number_u32(&mut self, path: &str, setting: &Setting<u64>, range: RangeInclusive<u32>) -> u32 {
        let number = self.number(path, setting, (*range.start()).into()..=(*range.end()).into());
        u32::try_from(number).unwrap_or(*range.end())
    }

    fn time(&mut self, path: &str, setting: &Setting<u64>, range_ms: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(path, setting, range_ms))
    }

    fn address(&mut self, path: &str, setting: &Setting<String>) -> Address {
        setting.value.parse().unwrap_or_else(|reason: String| {
            self.problem(setting, format!("`{path}`: {reason}"));
            Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
        })
    }

    fn origins(&mut self, setting: &Setting<Vec<String>>) -> OriginPolicy {
        OriginPolicy::parse(&setting.value).unwrap_or_else(|reason| {
            self.problem(setting, format!("`origins`: {reason}"));
            OriginPolicy::default()
        })
    }

    fn node_name(&mut self, setting: &Setting<String>, host_name: &str) -> String {
        let name = if setting.value.is_empty() { host_name } else { &setting.value };
        if name.len() > 255 || name.chars().any(char::is_control) {
            self.problem(setting, "`node` must be at most 255 bytes without control characters".to_owned());
        }
        name.to_owned()
    }

    /// A key has to fit a header line as it is; a blank one would open the API to everybody.
    fn api_keys(&mut self, setting: &Setting<Vec<Secret>>) -> Vec<Secret> {
        for (index, key) in setting.value.iter().enumerate() {
            let key = key.expose();
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                let text = format!(
                    "entry {} of `api.keys` must be visible ASCII without spaces, at least 1 character",
                    index + 1
                );
                self.problem(setting, text);
            }
        }
        setting.value.clone()
    }

    fn key_set(&mut self, auth: &raw::Auth) -> Option<KeyOrigin> {
        let (url, file) = (&auth.jwks_url, &auth.jwks_file);
        match (url.value.is_empty(), file.value.is_empty()) {
            (true, true) => None,
            (true, false) => Some(KeyOrigin::File(file.value.clone().into())),
            (false, false) => {
                let text = "`auth.jwks_url` and `auth.jwks_file` are both given; keep one".to_owned();
                self.problem_at(later(url, file), text);
                None
            }
            (false, true) => {
                let parsed = url.value.parse::<Uri>().ok().filter(|url| {
                    let has_user = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
                    matches!(url.scheme_str(), Some("https" | "http")) && url.host().is_some() && !has_user
                });
                if parsed.is_none() {
                    self.problem(
                        url,
                        "`auth.jwks_url` must be an https or http address, without a user in it".to_owned(),
                    );
                }
                parsed.map(KeyOrigin::Url)
            }
        }
    }

    fn tokens(&mut self, auth: &raw::Auth) -> TokenKeys {
        let keys = TokenKeys::parse(auth.keys.value.iter().map(Secret::expose)).unwrap_or_else(|(index, error)| {
            self.problem(&auth.keys, format!("entry {} of `auth.keys`: {error}", index + 1));
            TokenKeys::default()
        });
        keys.with_rules(TokenRules { audience: auth.audience.value.clone(), issuer: auth.issuer.value.clone() })
    }

    fn log_level(&mut self, setting: &Setting<String>) -> String {
        if let Err(reason) = check_log_level(&setting.value) {
            self.problem(setting, format!("`log_level`: {reason}"));
        }
        setting.value.clone()
    }
}

/// The filter's own parser takes a misspelt level for the name of a module and then logs nothing else, so single
/// words have to be levels here.
fn check_log_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',').map(str::trim) {
        if !directive.contains(['=', '[']) && LevelFilter::from_str(directive).is_err() {
            let levels = LEVELS.join(", ");
            return Err(match nearest(directive, LEVELS.into_iter()) {
                Some(level) => format!("{directive:?} is none of {levels}; did you mean {level:?}?"),
                None => format!("{directive:?} is none of {levels}, nor of the form part=level"),
            });
        }
    }
    let parsed = EnvFilter::builder().parse(text);
    parsed.map(|_| ()).map_err(|error| format!("{error}; write part=level"))
}

/// Of two settings that contradict each other, the origin of the one with the higher precedence: who gave it has to
/// act.
pub(super) fn later<A, B>(one: &Setting<A>, other: &Setting<B>) -> Origin {
    one.origin.clone().max(other.origin.clone())
}

/// Whether two listeners would get in each other's way.
fn same(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one), Address::Tcp(other)) => {
            let overlap = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
            one.port() != 0 && one.port() == other.port() && overlap
        }
        _ => one == other,
    }
}

fn right(who: Who) -> Right {
    match who {
        Who::Anyone => Right::Anyone,
        Who::User => Right::User,
        Who::Token => Right::Token,
        Who::Nobody => Right::Nobody,
    }
}

fn slow(policy: raw::Slow) -> SlowPolicy {
    match policy {
        raw::Slow::Evict => SlowPolicy::Evict,
        raw::Slow::DropOldest => SlowPolicy::DropOldest,
        raw::Slow::Latest => SlowPolicy::Latest,
        raw::Slow::EvictResumable => SlowPolicy::EvictResumable,
    }
}

fn as_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
