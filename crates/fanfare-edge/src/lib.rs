//! Sockets: accept, HTTP, upgrade, the shard loops, drain.
//!
//! A shard is one thread with one tokio `LocalRuntime`. Its loop (`shard`) polls the listener and all its sockets itself: it accepts, reads the first request,
//! answers the handshake of who is let in, lets each [`Session`](fanfare_protocol::Session) decide, and flushes rooms. Everything else that is HTTP is
//! ordinary async code beside it (`http`, `upgrade`, `api`), which gives the bare socket back where a request becomes a connection after all. What the
//! threads share is the [`Hub`].
//!
//! What it deliberately does not know: configuration files, environment, signals, the word formats of dialects.

mod address;
mod admission;
mod api;
mod canary;
mod counters;
mod deadlined;
mod direct;
mod drain;
mod ending;
mod engine;
mod event_stream;
mod extensions;
#[cfg(feature = "faults")]
mod faults;
mod forwarded;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod head;
mod http;
mod hub;
mod idempotency;
mod key_source;
mod ledger;
mod listener;
mod mentions;
mod moderation;
mod observed;
mod people;
mod prefixed;
mod problem;
mod proxied;
mod pusher;
mod query;
mod reload;
mod revoked;
mod settings;
mod shard;
mod source;
mod tls;
mod tls_stream;
mod token;
mod traces;
mod trusted;
mod upgrade;
mod wall_clock;

pub use address::Address;
pub use canary::Canary;
pub use counters::{ByReason, Compressed, Counters, HANDSHAKE_RESULTS, TLS_RESULTS, VIA_PROXY};
pub use drain::{Drain, DrainPlan};
pub use engine::EngineSettings;
#[cfg(feature = "faults")]
pub use faults::Wedge;
pub use forwarded::ForwardedHeader;
pub use hub::{Hub, MetricsPage, MetricsText};
pub use key_source::KeySource;
pub use listener::{Bound, FileMode, Listeners, Spare};
pub use moderation::{HELD_OUTCOMES, HeldQueue, MODERATION_ACTIONS, ModerationStats};
pub use observed::OBSERVED_LIMITS;
pub use people::Known;
pub use pusher::{PusherAppSettings, PusherSettings};
pub use reload::{ConfigReader, ConfigVersion, Reloaded, Reloads, Reread};
pub use revoked::RevocationList;
pub use settings::{
    ApiSettings, CompressionSettings, DrainSettings, Page, ProxyProtocol, ProxySettings, Script, SendPath, Settings,
};
pub use shard::{Order, ShardHandle, start_shards};
pub use tls::{Renewal, TlsTerms};
pub use traces::{SpanStats, Traces};
pub use trusted::Trusted;

/// Serves the admin listener until accepting stops. Runs on a runtime of its own, away from the shards.
pub use http::serve_admin;
