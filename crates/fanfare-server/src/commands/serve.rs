//! `fanfare serve`: the production server.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::inherited::Inherited;
use crate::node::Node;
use crate::reload::ConfigSource;
use crate::systemd;

/// Runs the gateway, on the listeners that were opened for it where there are some, until it is told to leave (SIGTERM or SIGINT); each
/// further signal halves what is left of the drain.
///
/// # Errors
/// When it cannot start, or a shard failed.
pub fn run(config: &Config, source: ConfigSource, inherited: Inherited) -> anyhow::Result<()> {
    let source = Box::new(move || source().map(|config| fit_descriptors(&config)));
    until_signalled(&fit_descriptors(config), inherited, source, |_| Ok(()))
}

/// Starts a node, tells `greet` of it, and runs it until signals end it. SIGHUP reads the configuration again.
pub(super) fn until_signalled(
    config: &Config,
    inherited: Inherited,
    source: ConfigSource,
    greet: impl FnOnce(&Node) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the node: from its first connection on it must not be ended without a drain.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let node = Node::start_with(config, inherited)?;
        node.reload_from(config, source);
        greet(&node)?;
        systemd::ready();
        tokio::spawn(systemd::keep_watch(node.hub().clone()));
        tokio::spawn(systemd::tell_stopping(node.hub().clone()));
        let hub = node.hub().clone();
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                let hub = hub.clone();
                systemd::reloading();
                // It logs what came of it. One that panicked has been told on stderr.
                let _ = tokio::task::spawn_blocking(move || hub.reload()).await;
                systemd::ready();
            }
        });
        let (tell, signals) = mpsc::channel(SIGNALS_MAX);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                // Where so many wait already, one more makes no difference.
                let _ = tell.try_send(());
            }
        });
        node.run(signals).await
    })
}

/// Signals that wait to be looked at. Each halves what is left of a drain: so many leave nothing.
const SIGNALS_MAX: usize = 64;

/// Descriptors that stay for the admin listener, logs and poll sets when clients take all the others.
const DESCRIPTORS_KEPT: u64 = 128;

/// Takes as many descriptors as the system allows, and lets in no more clients than those are enough for: without any left nobody could be
/// accepted, and not even health could be asked.
fn fit_descriptors(config: &Config) -> Config {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let mut config = config.clone();
    let hard = getrlimit(Resource::Nofile).maximum;
    if setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).is_err() {
        tracing::warn!("the descriptor limit could not be raised");
    }
    let Some(allowed) = getrlimit(Resource::Nofile).current else { return config };
    let wanted = config.limits.connections_max;
    let enough_for = usize::try_from(allowed.saturating_sub(DESCRIPTORS_KEPT).max(1)).unwrap_or(usize::MAX);
    if wanted > enough_for {
        tracing::warn!(
            "limits.connections_max is {wanted}, but the system allows {allowed} descriptors: at most {enough_for} connections are taken; raise \
             LimitNOFILE (systemd) or ulimit -n, or lower connections_max"
        );
        config.limits.connections_max = enough_for;
    }
    config
}
