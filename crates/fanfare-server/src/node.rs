//! A node: configuration in, listeners bound, shards and the admin runtime started; and how it leaves service.

mod leave;
mod listeners;
mod settings;

pub(crate) use settings::settings;

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use fanfare_backplane::Relay;
use fanfare_edge::{Address, Bound, Hub, Settings, ShardHandle};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tracing::info;

use self::listeners::{admin_listener, client_listeners, fits};
use self::settings::send_path;
use crate::config::Config;
use crate::handover::{Handover, Predecessor};
use crate::inherited::Inherited;
use crate::reload::ConfigSource;
use crate::traces::Tracing;
use crate::{housekeeping, metrics, reload};

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
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("clients", &self.clients).field("admin", &self.admin).finish_non_exhaustive()
    }
}

/// The admin runtime's thread.
struct AdminThread {
    thread: thread::JoinHandle<()>,
    stop: oneshot::Sender<()>,
    /// Says why it failed; gone without a word if it panicked.
    failed: oneshot::Receiver<String>,
}

fn start_admin(hub: Arc<Hub>, bound: Bound, config: &Config) -> anyhow::Result<AdminThread> {
    let key_set = config.key_set.clone();
    let (stop, stopped) = oneshot::channel();
    let (tell, failed) = oneshot::channel();
    let runtime = move || -> std::io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(async {
            housekeeping::start(&hub, key_set);
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
