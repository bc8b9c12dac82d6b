//! `fanfare serve`: the production server.

use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::node::Node;

/// Runs the gateway until it is told to leave (SIGTERM or SIGINT); a second signal closes what is left at once.
///
/// # Errors
/// When it cannot start, or a shard failed.
pub fn run(config: &Config) -> anyhow::Result<()> {
    raise_descriptor_limit(config.limits.connections_max);
    let node = Node::start(config)?;
    until_signalled(node)
}

/// Runs a node until signals end it.
pub(super) fn until_signalled(node: Node) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (tell, mut told) = tokio::sync::mpsc::channel(2);
        // One listener for both signals and both times: the first means leave, the second means now.
        tokio::spawn(async move {
            for _ in 0..2 {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                // Nobody listens any more once the node has ended.
                let _ = tell.send(()).await;
            }
        });
        let told = std::cell::RefCell::new(&mut told);
        node.run(next(&told), next(&told)).await
    })
}

#[expect(clippy::await_holding_refcell_ref, reason = "the two waits never overlap: one ends before the other begins")]
async fn next(told: &std::cell::RefCell<&mut tokio::sync::mpsc::Receiver<()>>) {
    let told = &mut **told.borrow_mut();
    told.recv().await;
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
