//! A node: configuration in, listeners bound, shards and the admin runtime started; and how it leaves service.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use fanfare_edge::{
    Address, ApiSettings, Bound, CompressionSettings, DrainSettings, Hub, Listeners, SendPath, Settings, ShardHandle,
};
use fanfare_protocol::wire::DeflaterSettings;
use fanfare_registry::RegistryLimits;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tracing::info;

use crate::config::{Config, SendChoice};
use crate::{housekeeping, metrics, page};

/// A running gateway. Dropping it does not stop it: call [`Node::run`].
pub struct Node {
    hub: Arc<Hub>,
    clients: Address,
    admin: Address,
    shards: Vec<ShardHandle>,
    admin_thread: AdminThread,
    drain: DrainSettings,
}

impl Node {
    /// Binds both listeners and starts.
    ///
    /// # Errors
    /// When an address cannot be listened on, or the system refuses threads or poll sets.
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        let clients = Listeners::bind(&config.listen, config.shards.get()).with_context(|| {
            format!("cannot listen on {} for clients; choose another address with --listen", config.listen)
        })?;
        let admin = Bound::bind(&config.admin).with_context(|| {
            format!("cannot listen on {} for the API; choose another address with --admin", config.admin)
        })?;
        let (clients_address, admin_address) = (clients.address().clone(), admin.address().clone());
        let settings = settings(config, send_path(config.send_path)?);
        let drain = settings.drain;
        let cell = Arc::new(OnceLock::new());
        let page = metrics::page(cell.clone());
        let (hub, shards) = fanfare_edge::start_shards(settings, clients, rand::random(), page)?;
        // It is set once, here.
        let _ = cell.set(Arc::downgrade(&hub));
        let admin_thread = start_admin(hub.clone(), admin, config.reap)?;
        info!(shards = shards.len(), send_path = hub.settings().send_path.as_str(), "clients on {clients_address}");
        info!("health, metrics and API on {admin_address}");
        Ok(Self { hub, clients: clients_address, admin: admin_address, shards, admin_thread, drain })
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

    /// Runs until `leave` is done, then leaves service: readiness is withdrawn, connections are taken for the grace, then all are closed evenly over
    /// the window. When `hurry` is done meanwhile, what is left is closed at once.
    ///
    /// # Errors
    /// When a shard failed.
    pub async fn run(self, leave: impl Future<Output = ()>, hurry: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { hub, shards, admin_thread, drain, .. } = self;
        let AdminThread { thread, stop, mut failed } = admin_thread;
        let mut all_ended = std::pin::pin!(shards_ended(shards));
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
            () = leave => {}
        }
        hub.drain().begin();
        let connections = || hub.counters().connections.load(std::sync::atomic::Ordering::Relaxed);
        info!(connections = connections(), "leaving service: not ready, taking connections for {:?}", drain.grace);
        let mut hurry = std::pin::pin!(hurry);
        let mut hurried = false;
        tokio::select! {
            () = tokio::time::sleep(drain.grace) => {}
            () = &mut hurry => hurried = true,
        }
        hub.drain().stop_accepting();
        let window = if hurried { Duration::ZERO } else { drain.window };
        info!(connections = connections(), "listener closed, closing connections over {window:?}");
        hub.close_connections(window);
        tokio::select! {
            ended = &mut all_ended => ended.map_err(anyhow::Error::msg)?,
            () = hurry, if !hurried => {
                info!(connections = connections(), "told to hurry: closing what is left");
                hub.close_connections(Duration::ZERO);
                all_ended.await.map_err(anyhow::Error::msg)?;
            }
        }
        // The admin runtime may have ended by itself; then there is nobody to tell.
        let _ = stop.send(());
        thread.join().map_err(|_| anyhow::anyhow!("the admin runtime panicked"))?;
        info!(cut = connections().max(0), "left service");
        Ok(())
    }
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

fn start_admin(hub: Arc<Hub>, bound: Bound, reap: Duration) -> anyhow::Result<AdminThread> {
    let (stop, stopped) = oneshot::channel();
    let (tell, failed) = oneshot::channel();
    let runtime = move || -> std::io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(async {
            housekeeping::start(&hub, reap);
            tokio::select! {
                served = fanfare_edge::serve_admin(hub.clone(), bound) => served,
                _ = stopped => Ok(()),
            }
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

fn settings(config: &Config, send_path: SendPath) -> Settings {
    let limits = &config.limits;
    Settings {
        node: config.node.clone(),
        origins: config.origins.clone(),
        namespaces: config.namespaces.clone(),
        moderation: Arc::new(ArcSwap::new(config.moderation.clone())),
        held_max: config.held_max,
        guests: config.guests,
        tokens: config.tokens.clone(),
        expiry_warning: config.expiry_warning,
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
        api: ApiSettings {
            keys: config.api_keys.iter().map(|key| key.expose().to_owned()).collect(),
            is_open: config.api_open,
            on_client_listener: config.api_on_client_listener,
        },
        closes_max: config.closes_max,
        drain: DrainSettings { grace: config.drain.grace, window: config.drain.window, retry: config.drain.retry },
    }
}
