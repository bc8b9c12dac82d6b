//! What is told of calls to whoever watches a whole system.

use crate::config::value::Secret;

use super::section::section;

section! {
    /// Traces of calls that publish (`POST /api/publish`, `POST /api/batch`), for a collector of OpenTelemetry. A caller's
    /// `traceparent` is continued. Spans have rooms and numbers in them, never messages, keys or tokens.
    Traces {
        /// Address (`https` or `http`) where the collector takes spans: OTLP over HTTP, in protobuf. Without a path, `/v1/traces` is asked.
        /// Empty: there are no traces, and no cost.
        url: String = String::new(),
        /// Share of calls that are traced, from 0 to 1, of those without a `traceparent`; with one, its sampled flag decides.
        sample_ratio: f64 = 1.0,
        /// What the spans say they come from (`service.name`).
        service_name: String = "fanfare".to_owned(),
        /// Header lines that the collector asks for, such as `["Authorization: Bearer …"]`.
        headers: Vec<Secret> = Vec::new(),
        /// Time the collector has to take a batch of spans, retries included, milliseconds; then the batch is lost.
        timeout_ms: u64 = 10_000,
        /// Spans that may wait for the collector; beyond they are lost, and counted. A call that is traced has two.
        queue_max: u64 = 2_048,
    }
}
