//! What the edge is told of the configuration.

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use fanfare_edge::{
    ApiSettings, CompressionSettings, DrainSettings, EngineSettings, PusherSettings, SendPath, Settings,
};
use fanfare_guard::GuestKey;
use fanfare_protocol::Rate;
use fanfare_protocol::wire::DeflaterSettings;
use fanfare_registry::RegistryLimits;
use tracing::info;

use crate::config::{Config, PusherApps, SendChoice};
use crate::page;

pub(crate) fn settings(config: &Config, send_path: SendPath) -> Settings {
    let limits = &config.limits;
    Settings {
        node: config.node.clone(),
        origins: config.origins.clone(),
        namespaces: config.namespaces.clone(),
        moderation: Arc::new(ArcSwap::new(config.moderation.clone())),
        held_max: config.held_max,
        guests: config.guests,
        guest_key: guest_key(config),
        // Not of the configuration alone: who starts the node starts them.
        traces: None,
        send: config.send,
        inboxes: config.inboxes,
        presence_debounce: config.presence_debounce,
        reap: config.reap,
        tokens: config.tokens.clone(),
        key_source: config.key_set.as_ref().map(|_| Arc::default()),
        expiry_warning: config.expiry_warning,
        revocations_max: config.revocations_max,
        messages: config.messages,
        compression: config.compression.as_ref().map(|compression| CompressionSettings {
            deflater: DeflaterSettings { threshold_bytes: compression.threshold_bytes, level: compression.level },
            client_context: compression.client_context_takeover,
        }),
        outbox: config.outbox,
        outbox_total_bytes_max: config.outbox_total_bytes_max,
        intake: config.intake,
        registry: RegistryLimits {
            rooms_max: limits.rooms_max,
            observes: limits.observes,
            history_bytes_max: config.history_total_bytes_max,
            ..RegistryLimits::default()
        },
        heartbeat: config.heartbeat,
        connections_max: limits.connections_max,
        connections_per_ip_max: limits.connections_per_ip_max.map_or(0, std::num::NonZero::get),
        handshakes_per_second_per_ip_max: limits.handshakes_per_second_per_ip_max.map_or(0, std::num::NonZero::get),
        connections_per_user_max: limits.connections_per_user_max.map_or(0, std::num::NonZero::get),
        messages_per_second_per_user_max: limits.messages_per_second_per_user_max.map_or(0, std::num::NonZero::get),
        handshake: limits.handshake_max,
        header_bytes_max: limits.header_bytes_max,
        headers_max: limits.handshake_headers_max,
        messages_per_second_max: limits.messages_per_second_max.map_or(0, std::num::NonZero::get),
        control_frames_max: limits.control_frames_per_second_max.and_then(|max| Rate::per_second(max.get())),
        subscriptions_per_connection_max: limits.subscriptions_per_connection_max,
        observes: limits.observes,
        send_path,
        proxy: config.proxy.clone(),
        tls: config.tls.clone(),
        give_back: fanfare_alloc::give_back,
        echo: config.diagnostics.echo,
        page: config.diagnostics.page.then(page::page),
        script: page::script(),
        pusher: config.pusher.as_ref().map(pusher),
        engine: config.engine.as_ref().map(|engine| EngineSettings { timeout: engine.timeout }),
        api: ApiSettings {
            keys: config.api_keys.iter().map(|key| key.expose().to_owned()).collect(),
            is_open: config.api_open,
            on_client_listener: config.api_on_client_listener,
        },
        idempotency_max: config.idempotency_max,
        idempotency: config.idempotency,
        closes_max: config.closes_max,
        canary: config.canary,
        drain: DrainSettings { grace: config.drain.grace, window: config.drain.window, retry: config.drain.retry },
    }
}

/// The applications; ids of their connections are from the dice.
fn pusher(pusher: &PusherApps) -> Arc<PusherSettings> {
    Arc::new(PusherSettings::new(pusher.apps.clone(), pusher.activity_timeout_s, rand::random()))
}

/// Made from the first secret, so that guests come back after a restart; without one, from the dice.
fn guest_key(config: &Config) -> GuestKey {
    match &config.guest_secret {
        Some(secret) => GuestKey::new(secret.expose().as_bytes()),
        None => GuestKey::new(&rand::random::<[u8; 32]>()),
    }
}

/// The send path that was asked for, if it works here.
pub(super) fn send_path(choice: SendChoice) -> anyhow::Result<SendPath> {
    if choice == SendChoice::Writev {
        return Ok(SendPath::Writev);
    }
    match SendPath::detect() {
        (path, None) => Ok(path),
        (path, Some(error)) if choice == SendChoice::Auto => {
            info!(%error, "io_uring is not allowed here: sending with {}", path.as_str());
            Ok(path)
        }
        (_, Some(error)) => {
            Err(error).context("send_path is io_uring, but it is not allowed here; set it to auto or writev")
        }
    }
}
