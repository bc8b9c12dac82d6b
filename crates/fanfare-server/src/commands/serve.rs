//! `fanfare serve`: the production server.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::Config;
use crate::node::Node;

/// Runs the gateway until it is told to leave (SIGTERM or SIGINT); a second signal closes what is left at once.
///
/// # Errors
/// When it cannot start, or a shard failed.
pub fn run(config: &Config) -> anyhow::Result<()> {
    raise_descriptor_limit(config.limits.connections_max);
    until_signalled(config, |_| Ok(()))
}

/// Starts a node, tells `greet` of it, and runs it until signals end it.
pub(super) fn until_signalled(config: &Config, greet: impl FnOnce(&Node) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the node: from its first connection on it must not be ended without a drain.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let node = Node::start(config)?;
        greet(&node)?;
        let (count, counted) = watch::channel(0_u8);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                count.send_modify(|count| *count = count.saturating_add(1));
            }
        });
        // The first signal means leave, the second means now.
        node.run(signalled(counted.clone(), 1), signalled(counted, 2)).await
    })
}

/// Waits until so many signals have come.
async fn signalled(mut counted: watch::Receiver<u8>, times: u8) {
    // The counting task ends with the runtime that this runs on, not before.
    let _ = counted.wait_for(|&count| count >= times).await;
}

/// Takes as many descriptors as the system allows: each connection needs one.
fn raise_descriptor_limit(connections_max: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum;
    if setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).is_err() {
        tracing::warn!("the descriptor limit could not be raised from {:?}", limit.current);
    }
    if let Some(hard) = hard.filter(|&hard| hard < connections_max as u64 + 64) {
        tracing::warn!(
            "limits.connections_max is {connections_max}, but the system allows {hard} descriptors: raise LimitNOFILE (systemd) or \
             ulimit -n, or lower connections_max"
        );
    }
}
