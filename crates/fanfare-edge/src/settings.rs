//! What the edge is told, at start and by a reload; values, already checked.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use fanfare_fanout::{IntakeLimits, OutboxLimits};
use fanfare_guard::{GuestKey, Moderation, Namespaces, OriginPolicy, Right, TokenKeys};
use fanfare_protocol::wire::{DeflateTerms, DeflaterSettings};
use fanfare_protocol::{HeartbeatLimits, MessageLimits, Rate};
use fanfare_registry::{InboxLimits, RegistryLimits};

use crate::engine::EngineSettings;
use crate::gate::GateLimits;
use crate::key_source::KeySource;
use crate::{ForwardedHeader, PusherSettings, TlsTerms, Traces, Trusted};

/// How frames reach the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendPath {
    /// One non-blocking write per connection: everywhere.
    Writev,
    /// The sends of a flush submitted together: Linux, where the kernel and the container allow it.
    IoUring,
}

impl SendPath {
    /// Its name in `fanfare version` and the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Writev => "writev",
            Self::IoUring => "io_uring",
        }
    }

    /// The best path that works here, and why not a better one.
    #[must_use]
    pub fn detect() -> (Self, Option<std::io::Error>) {
        match fanfare_uring::BatchSender::new(8) {
            Ok(_) => (Self::IoUring, None),
            Err(error) => (Self::Writev, Some(error)),
        }
    }
}

/// Everything the edge is told. What a reload may change stands in `Settings::reloaded`; the rest holds from start to end.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of this node, told in `welcome`.
    pub node: String,
    /// Which origins may connect besides the same host.
    pub origins: OriginPolicy,
    /// Rules of rooms, by namespace.
    pub namespaces: Namespaces,
    /// What the filters of namespaces know. Read once per publication; a reload puts another in its place.
    pub moderation: Arc<ArcSwap<Moderation>>,
    /// Publications that may wait for a moderator. Beyond: refused.
    pub held_max: usize,
    /// Clients without a token may choose a name.
    pub guests: bool,
    /// What guests' tokens are signed with.
    pub guest_key: GuestKey,
    /// A user is still here, and a guest's name his own, for so long after his last connection left.
    pub presence_debounce: Duration,
    /// Time between two sweeps of vacant rooms and of users who are away.
    pub reap: Duration,
    /// Who may send to users from a connection.
    pub send: Right,
    /// Bounds of what is kept for users who are away.
    pub inboxes: InboxLimits,
    /// Keys that tokens are checked with.
    pub tokens: TokenKeys,
    /// Further public keys, which somebody else publishes.
    pub key_source: Option<Arc<KeySource>>,
    /// A connection is told so long before its token ends, but not before half of its time is over; zero: it is not told.
    pub expiry_warning: Duration,
    /// Revocations that are remembered. Beyond: refused.
    pub revocations_max: usize,
    /// What one client may send.
    pub messages: MessageLimits,
    /// How messages may be compressed; `None`: not at all.
    pub compression: Option<CompressionSettings>,
    /// What one connection may have queued.
    pub outbox: OutboxLimits,
    /// What all connections together may have queued, bytes.
    pub outbox_total_bytes_max: usize,
    /// What one shard may owe its audience.
    pub intake: IntakeLimits,
    /// Bounds of rooms.
    pub registry: RegistryLimits,
    /// Pings, and deadlines of a connection.
    pub heartbeat: HeartbeatLimits,
    /// Sockets open at the same time. Beyond: 503.
    pub connections_max: usize,
    /// The same per client address; 0: no bound. Beyond: 429.
    pub connections_per_ip_max: usize,
    /// Sockets a second from one client address; 0: no bound. Beyond: 429.
    pub handshakes_per_second_per_ip_max: u32,
    /// Connections of one user at the same time; 0: no bound. Beyond: close 4429.
    pub connections_per_user_max: usize,
    /// Time a request's head may take.
    pub handshake: Duration,
    /// Size of a request's head, bytes. Beyond: 431.
    pub header_bytes_max: usize,
    /// Header lines of a request. Beyond: 431.
    pub headers_max: usize,
    /// Messages a second from one connection; 0: no bound. Beyond: close 4429.
    pub messages_per_second_max: u32,
    /// Pings and pongs a second from one connection, `None`: no bound. Beyond: close 4429.
    pub control_frames_max: Option<Rate>,
    /// Messages a second of one user, from all his connections; 0: no bound. Beyond: close 4429.
    pub messages_per_second_per_user_max: u32,
    /// Rooms of one connection. Beyond: refused.
    pub subscriptions_per_connection_max: usize,
    /// The limits of [`OBSERVED_LIMITS`](crate::OBSERVED_LIMITS) do not hold: what is beyond is let pass and counted.
    pub observes: bool,
    /// How frames reach the kernel.
    pub send_path: SendPath,
    /// Gives memory that is free back to the system. Called on a shard's thread when a crowd has left it.
    pub give_back: fn(),
    /// `/echo` and `/helloworld` are served.
    pub echo: bool,
    /// The page at `/`.
    pub page: Option<Page>,
    /// The JavaScript client at `/fanfare.js`.
    pub script: Script,
    /// Proxies before this node.
    pub proxy: ProxySettings,
    /// TLS on the client listener; `None`: it speaks plain HTTP.
    pub tls: Option<TlsTerms>,
    /// What several nodes share, if they do.
    pub engine: Option<EngineSettings>,
    /// Applications of the Pusher dialect; `None`: it is not spoken here. Not reloaded.
    pub pusher: Option<Arc<PusherSettings>>,
    /// The HTTP API.
    pub api: ApiSettings,
    /// Idempotency keys that are remembered.
    pub idempotency_max: usize,
    /// For how long.
    pub idempotency: Duration,
    /// Closed connections that are remembered.
    pub closes_max: usize,
    /// Leaving service.
    pub drain: DrainSettings,
    /// Where spans of calls that publish go; `None`: there are none.
    pub traces: Option<Arc<Traces>>,
    /// How often each shard's canaries are sent; `None`: never, and readiness says nothing of delivery.
    pub canary: Option<Duration>,
}

impl Settings {
    /// These, with all that may change at run time as `new` has it. What is not named here has been built into something at the start:
    /// listeners, shards, compressors.
    #[must_use]
    pub(crate) fn reloaded(&self, new: &Self) -> Self {
        Self {
            origins: new.origins.clone(),
            namespaces: new.namespaces.clone().with_channels_of(&self.namespaces),
            moderation: new.moderation.clone(),
            guests: new.guests,
            send: new.send,
            tokens: new.tokens.clone(),
            expiry_warning: new.expiry_warning,
            messages: new.messages,
            outbox: new.outbox,
            heartbeat: new.heartbeat,
            registry: RegistryLimits { replay: self.registry.replay, ..new.registry },
            outbox_total_bytes_max: new.outbox_total_bytes_max,
            inboxes: new.inboxes,
            presence_debounce: new.presence_debounce,
            reap: new.reap,
            held_max: new.held_max,
            revocations_max: new.revocations_max,
            idempotency_max: new.idempotency_max,
            idempotency: new.idempotency,
            closes_max: new.closes_max,
            connections_max: new.connections_max,
            connections_per_ip_max: new.connections_per_ip_max,
            handshakes_per_second_per_ip_max: new.handshakes_per_second_per_ip_max,
            connections_per_user_max: new.connections_per_user_max,
            handshake: new.handshake,
            proxy: new.proxy.clone(),
            tls: new.tls.clone(),
            header_bytes_max: new.header_bytes_max,
            headers_max: new.headers_max,
            messages_per_second_max: new.messages_per_second_max,
            control_frames_max: new.control_frames_max,
            messages_per_second_per_user_max: new.messages_per_second_per_user_max,
            subscriptions_per_connection_max: new.subscriptions_per_connection_max,
            observes: new.observes,
            echo: new.echo,
            page: new.page.clone(),
            api: new.api.clone(),
            drain: new.drain,
            ..self.clone()
        }
    }

    /// What the gate holds.
    pub(crate) fn gate_limits(&self) -> GateLimits {
        let Self { connections_max, connections_per_ip_max: per_ip_max, observes, .. } = *self;
        let per_ip_per_second_max = self.handshakes_per_second_per_ip_max;
        GateLimits { connections_max, per_ip_max, per_ip_per_second_max, observes }
    }
}

/// How messages may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressionSettings {
    /// What is sent compressed.
    pub deflater: DeflaterSettings,
    /// Clients may compress with reference to what they have sent before; up to 32 KiB are kept for each that does.
    pub client_context: bool,
}

impl CompressionSettings {
    /// What is agreed to in a handshake.
    pub(crate) fn terms(&self) -> DeflateTerms {
        DeflateTerms { client_context: self.client_context }
    }
}

/// The page at `/` and the policy it is served with.
#[derive(Debug, Clone)]
pub struct Page {
    /// The document.
    pub html: Bytes,
    /// Value of its `Content-Security-Policy` header.
    pub policy: String,
}

/// A script and its entity tag, which is a quoted string (RFC 9110 section 8.8.3).
#[derive(Debug, Clone)]
pub struct Script {
    /// The text.
    pub text: Bytes,
    /// Changes whenever the text does.
    pub etag: String,
}

/// The HTTP API.
#[derive(Clone, Default)]
pub struct ApiSettings {
    /// Keys that are valid; compared in constant time.
    pub keys: Vec<String>,
    /// No key is needed (`fanfare dev`).
    pub is_open: bool,
    /// The API is on the client listener too.
    pub on_client_listener: bool,
}

impl std::fmt::Debug for ApiSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiSettings")
            .field("keys", &format_args!("{} secret", self.keys.len()))
            .field("is_open", &self.is_open)
            .field("on_client_listener", &self.on_client_listener)
            .finish()
    }
}

/// Whether proxies begin connections with a header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// They do not.
    #[default]
    Off,
    /// Trusted ones may.
    Optional,
    /// All connections begin with one, and only trusted proxies may connect.
    Required,
}

/// Proxies before this node.
#[derive(Debug, Clone, Default)]
pub struct ProxySettings {
    /// Those that are believed about their clients.
    pub trusted: Trusted,
    /// The header of requests in which they say it.
    pub header: ForwardedHeader,
    /// What they say before the first request.
    pub protocol: ProxyProtocol,
}

/// Leaving service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainSettings {
    /// New connections are still taken for so long after readiness is withdrawn.
    pub grace: Duration,
    /// Connections are closed evenly over this time.
    pub window: Duration,
    /// Clients are told to come back after this time.
    pub retry: Duration,
}
