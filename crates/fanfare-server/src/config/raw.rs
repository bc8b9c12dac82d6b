//! Every configuration key, declared once: its place, type, default and documentation.
//!
//! The printed default file, the list of environment names and the reference page are generated from these
//! declarations, and the loader knows no other keys. Values here are only well-typed; what they mean together is
//! decided in `typed.rs`.

use std::collections::BTreeMap;

use super::value::{Literal, Origin, Secret, Setting, Value, choice};

/// The table of keys that a section offers to the loader and to the reference page.
pub(crate) trait Section {
    /// What the section is about.
    fn about(&self) -> &'static str;

    /// Reads `literal` into the key named `key`; `None` when there is no such key.
    fn set(&mut self, key: &str, literal: Literal<'_>, origin: Origin) -> Option<Result<(), String>>;

    /// Its keys, in the order they are documented.
    fn keys(&self) -> Vec<Key>;
}

/// One key of a section, as the reference page and the checks over all keys see it.
#[derive(Clone)]
pub(crate) struct Key {
    /// Name within its section.
    pub(crate) name: &'static str,
    /// Its type, for people.
    pub(crate) kind: &'static str,
    /// Its value as TOML; secrets are masked.
    pub(crate) value: String,
    /// The same, secrets as they are: for comparing, never for showing.
    pub(crate) exact: String,
    /// Who gave the value.
    pub(crate) origin: Origin,
    /// What it does; lines end with `\n`.
    pub(crate) doc: &'static str,
}

macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident { $( $(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr, )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone)]
        pub(crate) struct $name { $( $(#[doc = $doc])+ pub(crate) $key: Setting<$type>, )+ }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: Setting::preset($default), )+ }
            }
        }

        impl Section for $name {
            fn about(&self) -> &'static str {
                concat!($($about, "\n"),+)
            }

            fn set(&mut self, key: &str, literal: Literal<'_>, origin: Origin) -> Option<Result<(), String>> {
                match key {
                    $( stringify!($key) => Some(self.$key.set(literal, origin)), )+
                    _ => None,
                }
            }

            fn keys(&self) -> Vec<Key> {
                vec![ $( Key {
                    name: stringify!($key),
                    kind: <$type as Value>::KIND,
                    value: self.$key.value.render(),
                    exact: self.$key.value.exact(),
                    origin: self.$key.origin.clone(),
                    doc: concat!($($doc, "\n"),+),
                }, )+ ]
            }
        }
    };
}

choice! {
    /// How log lines are written.
    pub LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// How frames reach the kernel.
    pub SendChoice {
        /// `io_uring` where it works, else `writev`; the log says which.
        Auto = "auto",
        /// Many sends with one submission; the start fails where the kernel or the container forbids it.
        IoUring = "io_uring",
        /// A write for each connection: works everywhere.
        Writev = "writev",
    }
}

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

choice! {
    /// The header in which proxies name clients.
    pub(crate) ForwardedBy {
        /// `X-Forwarded-For`.
        XForwardedFor = "x-forwarded-for",
        /// `Forwarded`, RFC 7239.
        Forwarded = "forwarded",
    }
}

choice! {
    /// Whether connections begin with a header of the PROXY protocol.
    pub(crate) ProxyHeader {
        /// They do not.
        Off = "off",
        /// Those of trusted proxies may.
        Optional = "optional",
        /// All do, and only trusted proxies may connect.
        Required = "required",
    }
}

choice! {
    /// The least version of TLS.
    pub(crate) TlsVersion {
        /// TLS 1.2.
        V12 = "1.2",
        /// TLS 1.3.
        V13 = "1.3",
    }
}

choice! {
    /// What happens at a limit.
    pub(crate) Mode {
        /// The limit holds.
        Enforce = "enforce",
        /// The limit is only counted and logged.
        Observe = "observe",
    }
}

choice! {
    /// Who may do something in a namespace.
    pub(crate) Who {
        /// Every connection.
        Anyone = "anyone",
        /// Connections that belong to a user.
        User = "user",
        /// Connections whose token names the room.
        Token = "token",
        /// No connection; only the HTTP API.
        Nobody = "nobody",
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
    /// Listeners, logging and the node itself.
    Node {
        /// Where clients connect: `host:port`, `:port` for every address of the machine, or `unix:/path`.
        /// The host is an IP address or `localhost`; port 0 takes a free one.
        listen: String = "0.0.0.0:8080".to_owned(),
        /// Where health, metrics and the HTTP API are served, in the same form. Keep it off the public network.
        admin: String = "127.0.0.1:8081".to_owned(),
        /// Permissions of the file of `listen = "unix:…"`, in octal as for `chmod`, e.g. `"0660"`. Empty: the process's mask decides.
        listen_mode: String = String::new(),
        /// The same for `admin`.
        admin_mode: String = String::new(),
        /// Path of a Unix socket for upgrades on one machine: a process that is started with the same path takes the listeners of the one that
        /// runs, accepts, and only then the old one leaves service. Nobody is refused. Empty: off.
        handover: String = String::new(),
        /// Threads that carry connections. 0: one per core.
        shards: u64 = 0,
        /// How frames reach the kernel: `io_uring`, `writev`, or `auto` for the best that works here.
        send_path: SendChoice = SendChoice::Auto,
        /// Web origins that browsers may connect from besides the node's own host, e.g.
        /// `["https://app.example", "*.example.org"]`; `["*"]` allows all.
        origins: Vec<String> = Vec::new(),
        /// Name of this node in `welcome`. Empty: the machine's host name.
        node: String = String::new(),
        /// How log lines are written to stderr.
        log: LogFormat = LogFormat::Text,
        /// What is logged: `error`, `warn`, `info`, `debug` or `trace`, or directives for single parts such as
        /// `info,fanfare_edge=debug`.
        log_level: String = "info".to_owned(),
    }
}

section! {
    /// What one node takes on. Whatever is over a limit is refused with a reason.
    Limits {
        /// Connections at once on this node.
        connections_max: u64 = 100_000,
        /// Connections at once from one address. 0: off.
        connections_per_ip_max: u64 = 0,
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
        /// Whether limits hold, or what is beyond them is let pass and counted in `fanfare_would_reject_total`. Observed are
        /// `connections_max`, `connections_per_ip_max`, `rooms_max`, `subscriptions_per_connection_max` and
        /// `messages_per_second_max`. All others bound what a stranger can make this node keep in memory, and always hold.
        mode: Mode = Mode::Enforce,
    }
}

section! {
    /// Proxies and load balancers before this node: who is believed about where clients come from. The client's address is that
    /// of `limits.connections_per_ip_max` and of the log.
    Proxy {
        /// Proxies that are believed: networks (`10.0.0.0/8`), addresses, and `unix` for whoever comes over a Unix socket. List proxies
        /// only: whoever is listed can invent client addresses. What others say of their clients is ignored.
        trusted: Vec<String> = Vec::new(),
        /// The header of requests in which they name the client: `x-forwarded-for`, or `forwarded` (RFC 7239). Only this one is read; the
        /// last address in it that is not trusted is the client.
        header: ForwardedBy = ForwardedBy::XForwardedFor,
        /// Whether trusted proxies begin connections with a header of the PROXY protocol, version 1 or 2, on the client listener: `off`,
        /// `optional`, or `required`, which also refuses everybody who is not trusted.
        protocol: ProxyHeader = ProxyHeader::Off,
    }
}

section! {
    /// TLS on the client listener, where no proxy ends it before. The files are looked at once a minute and with every reload: another pair
    /// is shown to those who come from then on, and nobody is dropped; one that cannot be used changes nothing and is logged.
    Tls {
        /// File with the certificate and those between it and its authority, PEM. Empty, with `key`: the listener speaks plain HTTP.
        certificate: String = String::new(),
        /// File with the certificate's key, PEM.
        key: String = String::new(),
        /// The least version that is spoken: `1.2` or `1.3`.
        min_version: TlsVersion = TlsVersion::V12,
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

section! {
    /// Who a connection belongs to.
    Auth {
        /// Whether clients may choose a name (`?name=`). Without a name everybody may connect.
        guests: bool = false,
        /// Who may send to users with the command `send`: `anyone`, `user`s with a name, `token` holders with one, or `nobody`.
        send: Who = Who::Token,
        /// Keys that tokens are signed with: HMAC secrets or PEM public keys; several may be valid at once.
        keys: Vec<Secret> = Vec::new(),
        /// Address (`https` or `http`) of a JSON Web Key Set with further public keys, read anew as its server says, and when a
        /// token names a key that is not in it.
        jwks_url: String = String::new(),
        /// The same as a file, in the place of `jwks_url`.
        jwks_file: String = String::new(),
        /// Name that tokens must have in their claim `aud`; empty: it is not looked at.
        audience: String = String::new(),
        /// What the claim `iss` of tokens must be; empty: it is not looked at.
        issuer: String = String::new(),
        /// How long before its token ends a connection is told so (`expires`), milliseconds; never before half of
        /// the time is over. 0: it is not told.
        expiry_warning_ms: u64 = 60_000,
        /// Revocations of tokens that are remembered (`POST /api/revoke`); the next is refused.
        revocations_max: u64 = 10_000,
    }
}

section! {
    /// The HTTP API for backends.
    Api {
        /// Keys that open the API (`Authorization: Bearer <key>`); several may be valid at once.
        /// While there is none, `fanfare serve` refuses every call of the API.
        keys: Vec<Secret> = Vec::new(),
        /// Whether the API is served on the client listener too.
        on_client_listener: bool = false,
        /// How long an `idempotency_key` is remembered, milliseconds: a publication that is sent again with it meanwhile gets the receipt of
        /// the first and is not published again.
        idempotency_ms: u64 = 300_000,
        /// Idempotency keys that are remembered; at the bound the oldest go. 0: none, so that each publication is published.
        idempotency_max: u64 = 65_536,
        /// Closed connections that are remembered for `fanfare why`, the latest of each shard. 0: none.
        closes_max: u64 = 10_000,
    }
}

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

section! {
    /// Pages and paths for trying things out, on the client listener.
    Diagnostics {
        /// Whether `/echo` and `/helloworld` answer.
        echo: bool = false,
        /// Whether `/` serves the demo page.
        page: bool = true,
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

section! {
    /// Leaving service. A supervisor has to wait for `grace_ms` + `window_ms` + `heartbeat.close_ms` before it kills.
    Drain {
        /// Time after readiness is withdrawn in which new connections are still accepted, milliseconds.
        grace_ms: u64 = 5_000,
        /// Time over which the connections are closed with 1012, milliseconds.
        window_ms: u64 = 30_000,
        /// When clients are told to reconnect, milliseconds after they were told.
        retry_ms: u64 = 1_000,
    }
}

/// Name of the table of namespaces.
pub(crate) const NAMESPACES: &str = "namespaces";
/// Name of the namespace that the others fall back to.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// A whole configuration, well-typed, every value with its origin.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) node: Node,
    pub(crate) limits: Limits,
    pub(crate) proxy: Proxy,
    pub(crate) tls: Tls,
    pub(crate) compression: Compression,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) auth: Auth,
    pub(crate) api: Api,
    pub(crate) rooms: Rooms,
    /// By name; `default` is always there.
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    pub(crate) moderation: Moderation,
    pub(crate) diagnostics: Diagnostics,
    pub(crate) engine: Engine,
    pub(crate) drain: Drain,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            node: Node::default(),
            limits: Limits::default(),
            proxy: Proxy::default(),
            tls: Tls::default(),
            compression: Compression::default(),
            heartbeat: Heartbeat::default(),
            auth: Auth::default(),
            api: Api::default(),
            rooms: Rooms::default(),
            namespaces: BTreeMap::from([(DEFAULT_NAMESPACE.to_owned(), Namespace::default())]),
            moderation: Moderation::default(),
            diagnostics: Diagnostics::default(),
            engine: Engine::default(),
            drain: Drain::default(),
        }
    }
}

impl Raw {
    /// The section `[name]` to write into; the keys outside any table are the section with the empty name.
    pub(crate) fn section_mut(&mut self, name: &str) -> Option<&mut dyn Section> {
        Some(match name {
            "" => &mut self.node,
            "limits" => &mut self.limits,
            "proxy" => &mut self.proxy,
            "tls" => &mut self.tls,
            "compression" => &mut self.compression,
            "heartbeat" => &mut self.heartbeat,
            "auth" => &mut self.auth,
            "api" => &mut self.api,
            "rooms" => &mut self.rooms,
            "moderation" => &mut self.moderation,
            "diagnostics" => &mut self.diagnostics,
            "engine" => &mut self.engine,
            "drain" => &mut self.drain,
            _ => return None,
        })
    }

    /// Every section under its full name, in the order they are documented.
    pub(crate) fn sections(&self) -> Vec<(String, &dyn Section)> {
        let mut sections: Vec<(String, &dyn Section)> = vec![
            (String::new(), &self.node),
            ("limits".to_owned(), &self.limits),
            ("proxy".to_owned(), &self.proxy),
            ("tls".to_owned(), &self.tls),
            ("compression".to_owned(), &self.compression),
            ("heartbeat".to_owned(), &self.heartbeat),
            ("auth".to_owned(), &self.auth),
            ("api".to_owned(), &self.api),
            ("rooms".to_owned(), &self.rooms),
        ];
        for (name, namespace) in &self.namespaces {
            sections.push((namespace_path(name), namespace));
        }
        sections.push(("moderation".to_owned(), &self.moderation));
        sections.push(("diagnostics".to_owned(), &self.diagnostics));
        sections.push(("engine".to_owned(), &self.engine));
        sections.push(("drain".to_owned(), &self.drain));
        sections
    }
}

/// Full name of a namespace's table, quoted where TOML asks for it.
pub(crate) fn namespace_path(name: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { format!("{NAMESPACES}.{name}") } else { format!("{NAMESPACES}.{name:?}") }
}

/// Full name of a key.
pub(crate) fn key_path(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_section_can_be_written() {
        let mut raw = Raw::default();
        let names: Vec<String> = raw.sections().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 14);
        for name in names {
            let is_namespace = name.starts_with(NAMESPACES);
            assert_eq!(raw.section_mut(&name).is_none(), is_namespace, "{name}");
        }
    }

    #[test]
    fn every_key_is_documented_in_full_sentences() {
        for (section, keys) in Raw::default().sections() {
            for key in keys.keys() {
                assert!(key.doc.trim_end().ends_with(['.', '?']), "{section}.{}: {}", key.name, key.doc);
            }
            assert!(keys.about().trim_end().ends_with('.'), "{section}");
        }
    }
}
