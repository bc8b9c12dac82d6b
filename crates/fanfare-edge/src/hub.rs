//! The hub: what all connections of a node share.

mod connection_id;
mod leave;
mod rooms;
mod shards;

pub(crate) use connection_id::ConnectionId;
pub(crate) use leave::PendingHandshake;
pub(crate) use shards::SHARD_ANSWER_MAX;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use fanfare_fanout::{Budget, Intake, ShardStats};
use fanfare_registry::{Item, Registry, Users};
use tokio::sync::Notify;

use crate::canary::{self, Canaries, Canary, Visit};
use crate::engine::Engine;
use crate::gate::Gate;
use crate::idempotency::Idempotency;
use crate::ledger::{Closed, Ledger};
use crate::listener::{Peer, SharedListener};
use crate::observed::{BeyondLimits, Limit};
use crate::people::{Known, user_rules};
use crate::reload::Reloads;
use crate::shard::Order;
use crate::wall_clock::wall_clock;
use crate::{Counters, Drain, HeldQueue, ModerationStats, OBSERVED_LIMITS, RevocationList, Settings};

/// A metrics page and its content type.
#[derive(Debug)]
pub struct MetricsText {
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// The page.
    pub body: String,
}

/// Writes the metrics page; `true` asks for OpenMetrics.
pub type MetricsPage = Box<dyn Fn(bool) -> MetricsText + Send + Sync>;

/// What all connections of a node share. One per process, behind an `Arc`.
pub struct Hub {
    /// Replaced as a whole by a reload.
    settings: ArcSwap<Settings>,
    /// How often they have been replaced: what shards compare once a turn.
    settings_version: AtomicU64,
    registry: Registry<Order>,
    /// Where publications are posted, if their order is not made here.
    engine: Option<Arc<Engine>>,
    users: Users<Known>,
    /// Makes the numbers of guests; begins anywhere.
    pub(crate) guests: AtomicU64,
    budget: Arc<Budget>,
    shard_stats: Box<[Arc<ShardStats>]>,
    counters: Counters,
    ledger: Ledger,
    idempotency: Arc<Idempotency>,
    beyond: Arc<BeyondLimits>,
    moderation_stats: ModerationStats,
    held: HeldQueue,
    revocations: RevocationList,
    /// By shard: handshakes that were answered and are not connections yet. Written by the shard's thread alone.
    handshakes: Box<[AtomicUsize]>,
    gate: Arc<Gate>,
    drain: Drain,
    reloads: Reloads,
    /// Set once, before the shards start.
    canaries: OnceLock<Canaries>,
    /// Told whenever settings are replaced.
    replaced: Notify,
    metrics: MetricsPage,
    started: Instant,
}

impl Hub {
    pub(crate) fn new(
        settings: Settings,
        intakes: Vec<Arc<Intake<Item<Order>>>>,
        epoch_seed: u64,
        metrics: MetricsPage,
    ) -> Self {
        let beyond = Arc::<BeyondLimits>::default();
        let shards = intakes.len();
        let budget = Arc::new(Budget::new(settings.outbox_total_bytes_max));
        Self {
            gate: Gate::before(settings.gate_limits(), beyond.clone(), budget.clone()),
            budget,
            shard_stats: intakes.iter().map(|_| Arc::default()).collect(),
            handshakes: intakes.iter().map(|_| AtomicUsize::new(0)).collect(),
            beyond,
            registry: Registry::new(intakes, settings.registry, epoch_seed),
            engine: settings.engine.map(|engine| Arc::new(Engine::new(engine, epoch_seed.rotate_left(16)))),
            users: Users::new(user_rules(&settings)),
            guests: AtomicU64::new(epoch_seed.rotate_left(32)),
            counters: Counters::default(),
            ledger: Ledger::new(shards, settings.closes_max),
            idempotency: Idempotency::new(settings.idempotency_max, settings.idempotency),
            moderation_stats: ModerationStats::default(),
            held: HeldQueue::new(settings.held_max),
            revocations: RevocationList::new(settings.revocations_max),
            drain: Drain::default(),
            reloads: Reloads::default(),
            canaries: OnceLock::new(),
            replaced: Notify::new(),
            started: Instant::now(),
            metrics,
            settings: ArcSwap::from_pointee(settings),
            settings_version: AtomicU64::new(0),
        }
    }

    /// What the edge is told. A few nanoseconds; whoever needs several of them that belong together takes them from one call.
    #[must_use]
    pub fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// The same, to be kept.
    pub(crate) fn settings_kept(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// How often the settings have been replaced.
    pub(crate) fn settings_version(&self) -> u64 {
        self.settings_version.load(Ordering::Acquire)
    }

    /// Puts what may change at run time of `settings` in the place of what holds: all of it at once. Rooms that live keep the options they
    /// were made with. A shard sees it at the beginning of its next turn.
    pub(crate) fn replace_settings(&self, settings: &Settings) {
        let settings = self.settings.load().reloaded(settings);
        self.gate.set_limits(settings.gate_limits());
        self.registry.set_limits(&settings.registry);
        self.budget.set_bytes_max(settings.outbox_total_bytes_max);
        self.users.set_rules(user_rules(&settings));
        self.idempotency.set_limits(settings.idempotency_max, settings.idempotency);
        self.ledger.set_max(settings.closes_max);
        self.held.set_max(settings.held_max);
        self.revocations.set_max(settings.revocations_max);
        self.settings.store(Arc::new(settings));
        self.settings_version.fetch_add(1, Ordering::Release);
        self.replaced.notify_waiters();
    }

    /// Done once settings are replaced after this call.
    pub fn settings_replaced(&self) -> impl Future<Output = ()> {
        self.replaced.notified()
    }

    /// What proves that each shard delivers.
    #[must_use]
    pub fn canaries(&self) -> &[Canary] {
        self.canaries.get().map_or(&[], |canaries| &canaries.shards)
    }

    pub(crate) fn canaries_of_node(&self) -> Option<&Canaries> {
        self.canaries.get()
    }

    /// The canary that comes from there, if it is one.
    pub(crate) fn canary_from(&self, socket: &OwnedFd, peer: &Peer) -> Option<Arc<Visit>> {
        self.canaries.get()?.visits.recognise(socket, peer)
    }

    /// For shards that accept from these sockets. Once.
    pub(crate) fn make_canaries(&self, listeners: Vec<SharedListener>) -> std::io::Result<()> {
        let _ = self.canaries.set(Canaries::new(self, listeners)?);
        Ok(())
    }

    /// Reading the configuration again.
    #[must_use]
    pub fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// Looks for another certificate where the present one came from, and shows it to those who come from here on. `false`: there is none.
    /// Open connections go on as they are.
    ///
    /// # Errors
    /// Why what is there cannot be used; nothing has changed then.
    pub fn reload_certificates(&self) -> Result<bool, String> {
        let Some(tls) = self.settings().tls.clone() else { return Ok(false) };
        let Some(renewed) = (tls.renew)()? else { return Ok(false) };
        self.settings.rcu(|settings| Settings { tls: Some(renewed.clone()), ..Settings::clone(settings) });
        Ok(true)
    }

    /// Rooms.
    #[must_use]
    pub fn registry(&self) -> &Registry<Order> {
        &self.registry
    }

    /// Where publications are posted; `None`: they take their place at once.
    pub(crate) fn engine(&self) -> Option<&Engine> {
        self.engine.as_deref()
    }

    pub(crate) fn engine_kept(&self) -> Option<Arc<Engine>> {
        self.engine.clone()
    }

    /// Who is here.
    #[must_use]
    pub fn users(&self) -> &Users<Known> {
        &self.users
    }

    /// Bytes queued in the process.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Totals by shard.
    #[must_use]
    pub fn shard_stats(&self) -> &[Arc<ShardStats>] {
        &self.shard_stats
    }

    /// Totals of the edge.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What was refused since the start because it was beyond a limit, and what was let pass because limits are only observed; each in the
    /// order of [`OBSERVED_LIMITS`].
    #[must_use]
    pub fn beyond_limits(&self) -> [[u64; OBSERVED_LIMITS.len()]; 2] {
        self.beyond.totals(self.registry.stats())
    }

    /// One more was beyond `limit`, and was let pass or refused.
    pub(crate) fn count_beyond(&self, limit: Limit, is_let_pass: bool) {
        self.beyond.count(limit, is_let_pass);
    }

    /// Whether what is beyond `limit` is let pass: only where limits are observed. Counted either way.
    pub(crate) fn lets_pass(&self, limit: Limit) -> bool {
        self.beyond.count(limit, self.settings().observes)
    }

    /// Keys of publications that may be sent again.
    pub(crate) fn idempotency(&self) -> &Arc<Idempotency> {
        &self.idempotency
    }

    /// Idempotency keys that are remembered, and how many were forgotten before their time.
    #[must_use]
    pub fn idempotency_keys(&self) -> (usize, u64) {
        (self.idempotency.len(), self.idempotency.forgotten())
    }

    /// Closed connections.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Counts a connection that is closed, and remembers it. Every close comes through here once.
    pub(crate) fn record_close(&self, closed: Closed) {
        self.counters.closed(closed.reason);
        self.ledger.record(closed);
    }

    /// Tells times of the node's clock in milliseconds since 1970, all by one look at both clocks.
    pub(crate) fn wall_ms(&self) -> impl Fn(Duration) -> u64 + use<> {
        let (wall, now) = (wall_clock(), self.now());
        move |at| wall.saturating_sub(now.saturating_sub(at)).as_millis() as u64
    }

    /// What moderation has done.
    #[must_use]
    pub fn moderation_stats(&self) -> &ModerationStats {
        &self.moderation_stats
    }

    /// Publications that wait for a moderator.
    #[must_use]
    pub fn held(&self) -> &HeldQueue {
        &self.held
    }

    /// Tokens that were taken back.
    #[must_use]
    pub fn revocations(&self) -> &RevocationList {
        &self.revocations
    }

    /// What `/readyz` says: this node stays in service, knows the rooms, and every shard of it delivers.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.drain.has_begun() && self.knows_rooms() && canary::seems_late(self).is_none()
    }

    /// Whether this node is leaving service.
    #[must_use]
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Time since start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn metrics(&self, is_open_metrics: bool) -> MetricsText {
        (self.metrics)(is_open_metrics)
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("registry", &self.registry)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
