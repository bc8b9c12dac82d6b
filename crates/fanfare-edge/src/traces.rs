//! Where spans go, and what has become of them. Who records them is `api/traced.rs`; who sends them is the program.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::{HeaderMap, HeaderName};
use opentelemetry::global::{BoxedSpan, BoxedTracer};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};

/// Bytes of a caller's `tracestate` that are carried. W3C asks for 512; a span with more waits in a queue, and is
/// carried without it.
const TRACE_STATE_BYTES_MAX: usize = 1_024;

/// Traces of calls that publish.
pub struct Traces {
    tracer: BoxedTracer,
    propagator: Box<dyn TextMapPropagator + Send + Sync>,
    stats: Arc<SpanStats>,
}

/// What has become of spans that were recorded.
#[derive(Debug, Default)]
pub struct SpanStats {
    /// Taken by the collector.
    pub exported: AtomicU64,
    /// Lost because too many waited.
    pub dropped_at_queue: AtomicU64,
    /// Lost because the collector did not take them.
    pub dropped_by_collector: AtomicU64,
}

impl SpanStats {
    /// Spans lost, by cause.
    #[must_use]
    pub fn dropped(&self) -> [(&'static str, u64); 2] {
        [
            ("queue", self.dropped_at_queue.load(Ordering::Relaxed)),
            ("collector", self.dropped_by_collector.load(Ordering::Relaxed)),
        ]
    }
}

impl Traces {
    /// Spans of `tracer`, which continue what `propagator` reads from a call's headers.
    #[must_use]
    pub fn new(
        tracer: BoxedTracer,
        propagator: Box<dyn TextMapPropagator + Send + Sync>,
        stats: Arc<SpanStats>,
    ) -> Self {
        Self { tracer, propagator, stats }
    }

    /// What has become of the spans.
    #[must_use]
    pub fn stats(&self) -> &SpanStats {
        &self.stats
    }

    /// A span that continues the trace of a call with these headers, or begins one.
    pub(crate) fn continued(&self, headers: &HeaderMap, span: SpanBuilder) -> BoxedSpan {
        let parent = self.propagator.extract_with_context(&Context::new(), &TraceHeaders::of(headers));
        self.tracer.build_with_context(span, &parent)
    }

    /// A span within another.
    pub(crate) fn within(&self, parent: &SpanContext, span: SpanBuilder) -> BoxedSpan {
        self.tracer.build_with_context(span, &Context::new().with_remote_span_context(parent.clone()))
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").field("stats", &self.stats).finish_non_exhaustive()
    }
}

/// The two headers of W3C Trace Context.
struct TraceHeaders {
    parent: Option<String>,
    state: Option<String>,
}

impl TraceHeaders {
    fn of(headers: &HeaderMap) -> Self {
        let lines = |name| {
            let lines = headers.get_all(HeaderName::from_static(name)).iter().map(|line| line.to_str());
            lines.collect::<Result<Vec<_>, _>>().unwrap_or_default()
        };
        // Two parents are none (W3C Trace Context, section 3.2); the lines of a state are one list (section 3.3.1.4).
        let parent = match lines("traceparent")[..] {
            [parent] => Some(parent.to_owned()),
            _ => None,
        };
        let state = lines("tracestate").join(",");
        Self { parent, state: (1..=TRACE_STATE_BYTES_MAX).contains(&state.len()).then_some(state) }
    }
}

impl Extractor for TraceHeaders {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.parent.as_deref(),
            "tracestate" => self.state.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// Sets many attributes, of which some are not there.
pub(crate) fn set<const N: usize>(span: &mut BoxedSpan, attributes: [Option<KeyValue>; N]) {
    span.set_attributes(attributes.into_iter().flatten());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_one_parent_and_one_state() {
        let read = |lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, line) in lines {
                headers.append(*name, line.parse().expect("a header value"));
            }
            let TraceHeaders { parent, state } = TraceHeaders::of(&headers);
            (parent.unwrap_or_default(), state.unwrap_or_default())
        };
        let text = |parent: &str, state: &str| (parent.to_owned(), state.to_owned());
        assert_eq!(read(&[]), text("", ""));
        assert_eq!(read(&[("traceparent", "a"), ("tracestate", "x=1")]), text("a", "x=1"));
        assert_eq!(read(&[("tracestate", "x=1"), ("tracestate", "y=2")]), text("", "x=1,y=2"));
        assert_eq!(read(&[("traceparent", "a"), ("traceparent", "a")]), text("", ""), "two parents are none");
        let long = format!("x={}", "1".repeat(TRACE_STATE_BYTES_MAX - 2));
        assert_eq!(read(&[("tracestate", &long)]), text("", &long));
        assert_eq!(read(&[("tracestate", &format!("{long}1"))]), text("", ""));
    }
}
