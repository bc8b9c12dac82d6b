//! A node in service, and how it leaves it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fanfare_backplane::Relay;
use fanfare_edge::{DrainPlan, Hub, ShardHandle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::{AdminThread, Node};
use crate::handover::{Handover, Taken};

impl Node {
    /// Runs until it is told to leave, by a signal or by the API, then leaves service: readiness is withdrawn, connections are taken for
    /// the grace, then all are closed evenly over the window. Each further signal halves what is left. Done when nobody is left, or at the end
    /// of the window and the time for answers.
    ///
    /// # Errors
    /// When a shard failed.
    pub async fn run(self, signals: mpsc::Receiver<()>) -> anyhow::Result<()> {
        let Self { hub, shards, admin_thread, mut relay, handover, tracing, .. } = self;
        let AdminThread { thread, stop, failed } = admin_thread;
        let mut awaited = Awaited::new(hub.clone(), shards, signals);
        let relay_here = relay.as_mut().map(|(relay, _)| relay);
        let successor = awaited.serve(failed, relay_here, handover.as_ref()).await?;
        hub.drain().stop_accepting();
        match (handover, successor) {
            (Some(handover), Some(successor)) => {
                handover.end();
                successor.confirm();
            }
            // The spare listeners go: nobody is to wait at them.
            (handover, _) => drop(handover),
        }
        awaited.close_all().await?;
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

/// What a node waits for, whether it serves or leaves.
struct Awaited {
    hub: Arc<Hub>,
    shards: JoinSet<Result<(), String>>,
    signals: mpsc::Receiver<()>,
    plans: watch::Receiver<Option<DrainPlan>>,
    /// The plan that the log knows.
    told: Option<DrainPlan>,
}

impl Awaited {
    fn new(hub: Arc<Hub>, shards: Vec<ShardHandle>, signals: mpsc::Receiver<()>) -> Self {
        let mut ends = JoinSet::new();
        for shard in shards {
            ends.spawn(shard.ended());
        }
        Self { plans: hub.drain().watch(), hub, shards: ends, signals, told: None }
    }

    /// Until the grace of a drain is over. Says who has taken the listeners over, if somebody has.
    ///
    /// # Errors
    /// When a part of the node fails that it cannot go on without.
    async fn serve(
        &mut self,
        mut admin_failed: oneshot::Receiver<String>,
        relay: Option<&mut Relay>,
        handover: Option<&Handover>,
    ) -> anyhow::Result<Option<Taken>> {
        // These two go on where they were from one round to the next.
        let mut relay_ended = pin!(async {
            match relay {
                Some(relay) => relay.ended().await,
                None => std::future::pending().await,
            }
        });
        let mut taken = pin!(async {
            match handover {
                Some(handover) => handover.taken().await,
                None => std::future::pending().await,
            }
        });
        let mut successor = None;
        loop {
            let plan = self.plan();
            tokio::select! {
                ended = all_ended(&mut self.shards) => {
                    ended?;
                    anyhow::bail!("the shards ended without being told to");
                }
                failed = &mut admin_failed => {
                    // Without health and metrics nobody could tell that this node is well.
                    let error = failed.unwrap_or_else(|_| "it panicked".to_owned());
                    anyhow::bail!("the admin listener failed: {error}");
                }
                () = &mut relay_ended => anyhow::bail!("the engine's relay failed"),
                () = signalled(&mut self.signals) => self.hub.leave(None),
                _ = self.plans.changed() => {}
                taken = &mut taken, if successor.is_none() => {
                    successor = Some(taken);
                    self.hub.hand_over();
                }
                () = grace_over(&self.hub, plan) => return Ok(successor),
            }
        }
    }

    /// Has the shards close their connections, by a plan that may be shortened meanwhile, until all have ended.
    ///
    /// # Errors
    /// When a shard fails.
    async fn close_all(&mut self) -> anyhow::Result<()> {
        tell_closing(&self.hub);
        loop {
            if let Some(plan) = self.plan() {
                self.hub.close_connections(plan.ends);
            }
            tokio::select! {
                ended = all_ended(&mut self.shards) => return ended,
                () = signalled(&mut self.signals) => self.hub.leave(None),
                _ = self.plans.changed() => {}
            }
        }
    }

    /// The plan that holds. One that the log does not know is told there.
    fn plan(&mut self) -> Option<DrainPlan> {
        let plan = *self.plans.borrow_and_update();
        if plan != self.told {
            tell_plan(&self.hub, self.told.is_none());
            self.told = plan;
        }
        plan
    }
}

/// Waits for all shards, or for the first that failed: the others must not go on without it. Cancel safe.
async fn all_ended(shards: &mut JoinSet<Result<(), String>>) -> anyhow::Result<()> {
    while let Some(ended) = shards.join_next().await {
        ended?.map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// Waits for a signal. Where nobody can signal any more there is still the API. Cancel safe.
async fn signalled(signals: &mut mpsc::Receiver<()>) {
    if signals.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Waits until no connections are taken any more: without end where there is no plan to leave.
async fn grace_over(hub: &Hub, plan: Option<DrainPlan>) {
    match plan {
        Some(plan) => tokio::time::sleep(plan.accept_until.saturating_sub(hub.now())).await,
        None => std::future::pending().await,
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
