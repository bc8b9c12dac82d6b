//! Spans on their way to a collector of OpenTelemetry: a bounded queue (`queue.rs`), a thread that takes them from it, and
//! the collector (`collector.rs`). Who records spans never waits for any of them.

mod collector;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use fanfare_edge::{SpanStats, Traces};
use hyper::Uri;
use hyper::header::HeaderMap;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{info, warn};

use self::collector::Collector;
use self::queue::SpanQueue;
use crate::commands::version::VERSION;

/// The most time that spans which still wait have when the node ends.
const FLUSH_MAX: Duration = Duration::from_secs(3);

/// What is traced, and who is told.
#[derive(Debug, Clone)]
pub struct TraceTerms {
    /// Where the collector takes spans.
    pub url: Uri,
    /// What it wants to see besides.
    pub headers: HeaderMap,
    /// Time it has for a batch.
    pub timeout: Duration,
    /// Share of calls, from 0 to 1, of those that nobody traces yet.
    pub sample_ratio: f64,
    /// What the spans say they come from.
    pub service_name: String,
    /// Spans that may wait for it.
    pub queue_max: usize,
}

/// Traces under way, until they are ended.
#[derive(Debug)]
pub(crate) struct Tracing {
    provider: SdkTracerProvider,
    traces: Arc<Traces>,
    stats: Arc<SpanStats>,
}

impl Tracing {
    /// Starts the thread that sends the spans of `node`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(terms: &TraceTerms, node: &str) -> std::io::Result<Self> {
        // Also what OTEL_RESOURCE_ATTRIBUTES says.
        let resource = Resource::builder()
            .with_service_name(terms.service_name.clone())
            .with_attribute(KeyValue::new("service.version", VERSION))
            .with_attribute(KeyValue::new("service.instance.id", node.to_owned()))
            .build();
        let stats = Arc::<SpanStats>::default();
        let collector = Collector::new(terms, &resource);
        let queue = SpanQueue::start(collector, terms.queue_max, stats.clone())?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(terms.sample_ratio))))
            .with_span_processor(queue)
            .build();
        let scope = InstrumentationScope::builder("fanfare").with_version(VERSION).build();
        let tracer = BoxedTracer::new(Box::new(provider.tracer_with_scope(scope)));
        let traces = Traces::new(tracer, Box::new(TraceContextPropagator::new()), stats.clone());
        info!("traces of publishing go to {}", collector::place(&terms.url));
        Ok(Self { provider, traces: Arc::new(traces), stats })
    }

    /// What the edge records spans with.
    pub(crate) fn traces(&self) -> Arc<Traces> {
        self.traces.clone()
    }

    /// Sends what waits, for at most [`FLUSH_MAX`]. Blocks.
    pub(crate) fn end(self) {
        let lost = |stats: &SpanStats| stats.dropped().iter().map(|(_, count)| count).sum::<u64>();
        let before = lost(&self.stats);
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_MAX) {
            warn!("the last spans may be lost: {error}");
        }
        match lost(&self.stats) - before {
            0 => {}
            lost => warn!(lost, "the last spans are lost: the collector did not take them in time"),
        }
    }
}
