//! A node: configuration in, listeners bound, shards and the admin runtime started; and how it leaves service.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use fanfare_backplane::Relay;
use fanfare_edge::{
    Address, ApiSettings, Bound, CompressionSettings, DrainSettings, EngineSettings, Hub, Listeners, SendPath,
    Settings, ShardHandle,
};
use fanfare_guard::GuestKey;
use fanfare_protocol::wire::DeflaterSettings;
use fanfare_registry::RegistryLimits;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::config::{Config, SendChoice};
use crate::handover::{Handover, Predecessor};
use crate::inherited::Inherited;
use crate::reload::ConfigSource;
use crate::traces::Tracing;
use crate::{housekeeping, metrics, page, reload};

/// A running gateway. Dropping it does not stop it: call [`Node::run`].
pub struct Node {
    hub: Arc<Hub>,
    clients: Address,
    admin: Address,
    shards: Vec<ShardHandle>,
    admin_thread: AdminThread,
    /// What drives the engine, if there is one; and how long it may take to end.
    relay: Option<(Relay, Duration)>,
    /// Where a successor may ask for the listeners.
    handover: Option<Handover>,
    tracing: Option<Tracing>,
}

impl Node {
    /// Binds both listeners and starts.
    ///
    /// # Errors
    /// When an address cannot be listened on, or the system refuses threads or poll sets.
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        Self::start_with(config, Inherited::default())
    }

    /// The same, on listeners that were opened before, where there are some.
    ///
    /// # Errors
    /// The same, and when such a listener does not fit.
    pub fn start_with(config: &Config, inherited: Inherited) -> anyhow::Result<Self> {
        let (predecessor, inherited) = match &config.handover {
            Some(path) if inherited.clients.is_empty() => Predecessor::at(path)?.unzip(),
            Some(_) | None => (None, Some(inherited)),
        };
        let Inherited { clients, admin } = inherited.unwrap_or_default();
        let clients = client_listeners(config, clients)?;
        let admin = admin_listener(config, admin)?;
        if predecessor.is_some() {
            fits("listen", &config.listen, clients.address())?;
            fits("admin", &config.admin, admin.address())?;
        }
        let spare =
            config.handover.as_ref().map(|_| Ok::<_, io::Error>((clients.spare()?, admin.spare()?))).transpose()?;
        let (clients_address, admin_address) = (clients.address().clone(), admin.address().clone());
        let tracing = config.traces.as_ref().map(|terms| Tracing::start(terms, &config.node)).transpose()?;
        let traces = tracing.as_ref().map(Tracing::traces);
        let settings = Settings { traces, ..settings(config, send_path(config.send_path)?) };
        let cell = Arc::new(OnceLock::new());
        let page = metrics::page(cell.clone());
        let (hub, shards) = fanfare_edge::start_shards(settings, clients, rand::random(), page)?;
        // It is set once, here.
        let _ = cell.set(Arc::downgrade(&hub));
        let relay = match (&config.engine, hub.relay_node()) {
            (Some(engine), Some(node)) => Some((Relay::start(engine.clone(), node)?, engine.timeout)),
            _ => None,
        };
        let admin_thread = start_admin(hub.clone(), admin, config)?;
        info!(shards = shards.len(), send_path = hub.settings().send_path.as_str(), "clients on {clients_address}");
        info!("health, metrics and API on {admin_address}");
        if let Some(predecessor) = predecessor {
            predecessor.relieve().context("the process before this one does not leave")?;
        }
        let handover = match (&config.handover, spare) {
            (Some(path), Some((clients, admin))) => Some(
                Handover::bind(path, clients, admin)
                    .with_context(|| format!("cannot listen on {} for a successor", path.display()))?,
            ),
            _ => None,
        };
        if let Some(path) = config.handover.as_ref() {
            info!("a successor may take the listeners over at {}", path.display());
        }
        Ok(Self { hub, clients: clients_address, admin: admin_address, shards, admin_thread, relay, handover, tracing })
    }

    /// Lets the node, which was started with `config`, read its configuration again: by `POST /api/reload` and [`Hub::reload`].
    pub fn reload_from(&self, config: &Config, source: ConfigSource) {
        reload::attach(&self.hub, config.clone(), self.hub.settings().send_path, source);
    }

    /// Where clients connect, with the port the system chose.
    #[must_use]
    pub fn clients(&self) -> &Address {
        &self.clients
    }

    /// Where the API is, with the port the system chose.
    #[must_use]
    pub fn admin(&self) -> &Address {
        &self.admin
    }

    /// What its connections share.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Runs until it is told to leave, by a signal or by the API, then leaves service: readiness is withdrawn, connections are taken for
    /// the grace, then all are closed evenly over the window. Each further signal halves what is left. Done when nobody is left, or at the end
    /// of the window and the time for answers.
    ///
    /// # Errors
    /// When a shard failed.
    pub async fn run(self, mut signals: mpsc::Receiver<()>) -> anyhow::Result<()> {
        let Self { hub, shards, admin_thread, mut relay, handover, tracing, .. } = self;
        let AdminThread { thread, stop, mut failed } = admin_thread;
        let mut plans = hub.drain().watch();
        let mut all_ended = std::pin::pin!(shards_ended(shards));
        // Where nobody can signal any more there is still the API.
        let mut signalled = async || match signals.recv().await {
            Some(()) => (),
            None => std::future::pending().await,
        };
        let mut relay_ended = Box::pin(async {
            match &mut relay {
                Some((relay, _)) => relay.ended().await,
                None => std::future::pending().await,
            }
        });
        let mut told = None;
        let mut successor = None;
        let mut taken = Box::pin(async {
            match &handover {
                Some(handover) => handover.taken().await,
                None => std::future::pending().await,
            }
        });
        loop {
            let plan = *plans.borrow_and_update();
            if plan != told {
                tell_plan(&hub, told.is_none());
                told = plan;
            }
            let grace = async {
                match plan {
                    Some(plan) => tokio::time::sleep(plan.accept_until.saturating_sub(hub.now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = &mut all_ended => {
                    ended.map_err(anyhow::Error::msg)?;
                    anyhow::bail!("the shards ended without being told to");
                }
                failed = &mut failed => {
                    // Without health and metrics nobody could tell that this node is well.
                    let error = failed.unwrap_or_else(|_| "it panicked".to_owned());
                    anyhow::bail!("the admin listener failed: {error}");
                }
                () = &mut relay_ended => anyhow::bail!("the engine's relay failed"),
                () = signalled() => hub.leave(None),
                _ = plans.changed() => {}
                taken = &mut taken, if successor.is_none() => {
                    successor = Some(taken);
                    hub.hand_over();
                }
                () = grace => break,
            }
        }
        hub.drain().stop_accepting();
        drop(taken);
        match (handover, successor) {
            (Some(handover), Some(successor)) => {
                handover.end();
                successor.confirm();
            }
            // The spare listeners go: nobody is to wait at them.
            (handover, _) => drop(handover),
        }
        tell_closing(&hub);
        loop {
            let plan = *plans.borrow_and_update();
            if plan != told {
                tell_plan(&hub, false);
                told = plan;
            }
            if let Some(plan) = plan {
                hub.close_connections(plan.ends);
            }
            tokio::select! {
                ended = &mut all_ended => break ended.map_err(anyhow::Error::msg)?,
                () = signalled() => hub.leave(None),
                _ = plans.changed() => {}
            }
        }
        drop(relay_ended);
        if let Some((relay, timeout)) = relay {
            // Posts of those who have gone are still on their way.
            anyhow::ensure!(relay.stop(timeout), "the engine's relay panicked");
        }
        // The admin runtime may have ended by itself; then there is nobody to tell.
        let _ = stop.send(());
        thread.join().map_err(|_| anyhow::anyhow!("the admin runtime panicked"))?;
        if let Some(tracing) = tracing {
            // After the last call was answered.
            tokio::task::spawn_blocking(|| tracing.end()).await?;
        }
        match hub.drain().cut() {
            0 => info!(cut = 0, "left service: every connection was closed"),
            cut => warn!(cut, "left service: connections cut that had not answered their close in time"),
        }
        Ok(())
    }
}

/// What is left of a plan, for the log.
fn tell_plan(hub: &Hub, is_first: bool) {
    let Some(plan) = hub.drain().plan() else { return };
    let now = hub.now();
    let (grace, left) = (plan.accept_until.saturating_sub(now), plan.ends.saturating_sub(now));
    let connections = hub.connections_open();
    if is_first {
        info!(connections, "leaving service: not ready, taking connections for {grace:.1?}, all closed in {left:.1?}");
    } else {
        info!(connections, "told to hurry: all closed in {left:.1?}");
    }
}

fn tell_closing(hub: &Hub) {
    let left = hub.drain().plan().map_or(Duration::ZERO, |plan| plan.ends.saturating_sub(hub.now()));
    info!(connections = hub.connections_open(), "listener closed, closing connections over {left:.1?}");
}

/// Whether a listener that a predecessor hands over is the one that is configured; port 0 stands for any.
fn fits(key: &str, asked: &Address, given: &Address) -> anyhow::Result<()> {
    let is_any = matches!(asked, Address::Tcp(asked) if asked.port() == 0);
    anyhow::ensure!(
        is_any || asked == given,
        "`{key}` is {asked}, but the process before this one listens on {given}: stop that one to change the address"
    );
    Ok(())
}

fn client_listeners(config: &Config, inherited: Vec<OwnedFd>) -> anyhow::Result<Listeners> {
    if inherited.is_empty() {
        return Listeners::bind(&config.listen, config.listen_mode, config.shards.get())
            .with_context(|| {
                format!("cannot listen on {} for clients; choose another address with --listen", config.listen)
            })
            .map_err(|error| hint(error, &config.listen));
    }
    let listeners =
        Listeners::inherited(inherited, config.shards.get()).context("the listeners that were passed do not fit")?;
    if config.tls.is_some() && matches!(listeners.address(), Address::Unix(_)) {
        anyhow::bail!("`[tls]` needs TCP, but the listener that was passed is {}", listeners.address());
    }
    Ok(listeners)
}

fn admin_listener(config: &Config, inherited: Option<OwnedFd>) -> anyhow::Result<Bound> {
    match inherited {
        Some(socket) => Bound::inherited(socket).context("the admin listener that was passed does not fit"),
        None => Bound::bind(&config.admin, config.admin_mode)
            .with_context(|| {
                format!("cannot listen on {} for the API; choose another address with --admin", config.admin)
            })
            .map_err(|error| hint(error, &config.admin)),
    }
}

/// What the system's refusal of an address mostly means, and what helps.
fn hint(error: anyhow::Error, address: &Address) -> anyhow::Error {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let hint = match (kind, address) {
        (Some(io::ErrorKind::AddrInUse), Address::Tcp(address)) => {
            format!("who has it: ss -ltnp 'sport = :{}'", address.port())
        }
        (Some(io::ErrorKind::PermissionDenied), Address::Tcp(_)) => {
            "ports below 1024 are not for everybody: let systemd open it (deploy/systemd/fanfare.socket), or give CAP_NET_BIND_SERVICE".to_owned()
        }
        (Some(io::ErrorKind::PermissionDenied), Address::Unix(_)) => {
            "this user may not make files in that folder: systemd's RuntimeDirectory= makes one that is the service's own".to_owned()
        }
        (Some(io::ErrorKind::AddrNotAvailable), Address::Tcp(_)) => {
            "no interface of this machine has that address: see ip address".to_owned()
        }
        _ => return error,
    };
    anyhow::anyhow!("{error:#} ({hint})")
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("clients", &self.clients).field("admin", &self.admin).finish_non_exhaustive()
    }
}

/// Waits for all shards, or for the first that failed: the others must not go on without it.
async fn shards_ended(shards: Vec<ShardHandle>) -> Result<(), String> {
    let mut waiting = tokio::task::JoinSet::new();
    for shard in shards {
        waiting.spawn(shard.ended());
    }
    while let Some(ended) = waiting.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// The admin runtime's thread.
struct AdminThread {
    thread: thread::JoinHandle<()>,
    stop: oneshot::Sender<()>,
    /// Says why it failed; gone without a word if it panicked.
    failed: oneshot::Receiver<String>,
}

fn start_admin(hub: Arc<Hub>, bound: Bound, config: &Config) -> anyhow::Result<AdminThread> {
    let (reap, key_set) = (config.reap, config.key_set.clone());
    let (stop, stopped) = oneshot::channel();
    let (tell, failed) = oneshot::channel();
    let runtime = move || -> std::io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(async {
            housekeeping::start(&hub, reap, key_set);
            let stopped = async {
                // The node going without a word stops it as well.
                let _ = stopped.await;
            };
            fanfare_edge::serve_admin(hub.clone(), bound, stopped).await
        })
    };
    let thread = thread::Builder::new().name("admin".to_owned()).spawn(move || {
        if let Err(error) = runtime() {
            // Nobody waits for it when the node is already going down.
            let _ = tell.send(error.to_string());
        }
    })?;
    Ok(AdminThread { thread, stop, failed })
}

/// The send path that was asked for, if it works here.
fn send_path(choice: SendChoice) -> anyhow::Result<SendPath> {
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
        subscriptions_per_connection_max: limits.subscriptions_per_connection_max,
        observes: limits.observes,
        send_path,
        proxy: config.proxy.clone(),
        tls: config.tls.clone(),
        give_back: fanfare_alloc::give_back,
        echo: config.diagnostics.echo,
        page: config.diagnostics.page.then(page::page),
        script: page::script(),
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

/// Made from the first secret, so that guests come back after a restart; without one, from the dice.
fn guest_key(config: &Config) -> GuestKey {
    match &config.guest_secret {
        Some(secret) => GuestKey::new(secret.expose().as_bytes()),
        None => GuestKey::new(&rand::random::<[u8; 32]>()),
    }
}
