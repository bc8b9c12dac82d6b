//! What is said to a service manager, in systemd's way (`NOTIFY_SOCKET`). Without one nothing is said.

use std::sync::Arc;
use std::time::Duration;

use fanfare_edge::Hub;
use sd_notify::NotifyState;
use tracing::warn;

/// Says that clients are served from here on; again after [`reloading`].
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that the configuration is being read again.
pub fn reloading() {
    // Without the time systemd would take the reload for failed.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// Says that this node leaves service, once it does.
pub async fn tell_stopping(hub: Arc<Hub>) {
    // The plan lives as long as the hub, which is held here.
    let _ = hub.drain().watch().wait_for(Option::is_some).await;
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager could not be told");
    }
}

/// Shows the service manager that every shard still turns, where it wants to see that (`WatchdogSec=`). A shard that hangs keeps it silent, and
/// the manager restarts the node.
pub async fn keep_watch(hub: Arc<Hub>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    // Asked a quarter of the limit apart and waited for as long: twice within the limit, as sd_watchdog_enabled(3) asks for.
    let period = (limit / 4).max(Duration::from_millis(1));
    loop {
        tokio::time::sleep(period).await;
        // Shards end one by one when the node leaves; how long that may take is the manager's `TimeoutStopSec=`.
        if hub.drain().has_begun() || tokio::time::timeout(period, hub.every_shard_turns()).await.is_ok() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}
