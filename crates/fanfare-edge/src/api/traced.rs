//! Spans of calls that publish, in the words of OpenTelemetry's conventions for HTTP servers and for messaging. Never in
//! them: messages, keys, tokens, and what was wrong with a message in words.

use std::sync::Arc;

use fanfare_protocol::RoomName;
use opentelemetry::KeyValue;
use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status};

use super::publish::{EntryBody, ReceiptBody};
use super::route::Call;
use crate::problem::{Answer, Problem};
use crate::traces::{Traces, set};

/// The span of a call: of one that is traced, otherwise of nothing at all.
#[derive(Default)]
pub(super) struct CallSpan(Option<(Arc<Traces>, BoxedSpan)>);

/// Answers a call that may be traced.
pub(super) async fn traced(
    call: Call,
    answer: impl AsyncFnOnce(Call, &mut CallSpan) -> Result<Answer, Problem>,
) -> Result<Answer, Problem> {
    let mut span = CallSpan::begin(&call);
    let answered = answer(call, &mut span).await;
    span.answered(&answered);
    answered
}

impl CallSpan {
    fn begin(call: &Call) -> Self {
        let Some(traces) = call.hub.settings().traces.clone() else { return Self::default() };
        let (method, path) = (call.route.verb.as_str(), call.route.path);
        let attributes = [
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", path),
            KeyValue::new("url.path", path),
            KeyValue::new("url.scheme", if call.is_tls { "https" } else { "http" }),
            KeyValue::new("network.protocol.version", format!("{:?}", call.request.version()).replace("HTTP/", "")),
        ];
        let span =
            SpanBuilder::from_name(format!("{method} {path}")).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = traces.continued(call.request.headers(), span);
        // Nothing more is done for one that is not sampled.
        Self(span.is_recording().then_some((traces, span)))
    }

    /// The body is here, all of it.
    pub(super) fn body_read(&mut self, bytes: usize) {
        let Some((_, span)) = &mut self.0 else { return };
        span.set_attribute(KeyValue::new("http.request.body.size", number(bytes as u64)));
        span.add_event("body.read", Vec::new());
    }

    /// What was asked for keeps the rules, and the guard has given its verdicts: the gravest of them is told.
    pub(super) fn checked(&mut self, verdicts: impl Iterator<Item = Verdict>) {
        let Some((_, span)) = &mut self.0 else { return };
        let verdict = verdicts.max().map(|verdict| KeyValue::new("fanfare.verdict", verdict.as_str()));
        span.add_event("checked", verdict.into_iter().collect());
    }

    /// From here on until what it gives is dropped publications are made: `of` them, for these rooms.
    pub(super) fn publish<'a>(&self, of: usize, rooms: impl Iterator<Item = &'a RoomName>) -> PublishSpan {
        let Some((traces, span)) = &self.0 else { return PublishSpan(None) };
        let mut rooms = rooms.peekable();
        let room = rooms.peek().copied();
        // A destination is told where it is that of all.
        let room = room.filter(|room| rooms.all(|other| other == *room));
        let attributes = [
            Some(KeyValue::new("messaging.system", "fanfare")),
            Some(KeyValue::new("messaging.operation.name", "publish")),
            Some(KeyValue::new("messaging.operation.type", "send")),
            room.map(|room| KeyValue::new("messaging.destination.name", room.as_str().to_owned())),
            (of != 1).then(|| KeyValue::new("messaging.batch.message_count", number(of as u64))),
        ];
        let publish = SpanBuilder::from_name("publish")
            .with_kind(SpanKind::Producer)
            .with_attributes(attributes.into_iter().flatten());
        PublishSpan(Some(traces.within(span.span_context(), publish)))
    }

    fn answered(&mut self, answered: &Result<Answer, Problem>) {
        let Some((_, span)) = &mut self.0 else { return };
        let (status, code) = match answered {
            Ok(answer) => (answer.status(), None),
            Err(problem) => (problem.status, Some(problem.code)),
        };
        let error = code.map(|code| KeyValue::new("error.type", code));
        let status_code = KeyValue::new("http.response.status_code", i64::from(status.as_u16()));
        set(span, [Some(status_code), error]);
        // What a caller did wrong is no error of the server.
        if status.is_server_error() {
            span.set_status(Status::error(code.unwrap_or_default()));
        }
    }
}

/// What the guard said of a message, the gravest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Pass,
    Observe,
    Mask,
    Hold,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Observe => "observe",
            Self::Mask => "mask",
            Self::Hold => "hold",
        }
    }
}

/// The span of what is published by a call. Ends when it is dropped.
pub(super) struct PublishSpan(Option<BoxedSpan>);

impl PublishSpan {
    /// The rooms have what they accept; the word of the shards is still to come.
    pub(super) fn accepted(&mut self) {
        if let Some(span) = &mut self.0 {
            span.add_event("accepted", Vec::new());
        }
    }

    /// What became of the publication.
    pub(super) fn receipt(mut self, receipt: &Result<ReceiptBody, Problem>) {
        let Some(span) = &mut self.0 else { return };
        match receipt {
            Ok(receipt) => {
                let ReceiptBody { epoch, offset, held, delivered, dropped, evicted, repeated } = receipt;
                let position = epoch.as_deref().zip(*offset);
                count(span, *delivered, *dropped, *evicted);
                set(
                    span,
                    [
                        position.map(|(epoch, _)| KeyValue::new("fanfare.epoch", epoch.to_owned())),
                        position.map(|(_, offset)| KeyValue::new("fanfare.offset", number(offset))),
                        held.map(|held| KeyValue::new("fanfare.held", number(held))),
                        repeated.then(|| KeyValue::new("fanfare.repeated", true)),
                    ],
                );
            }
            Err(problem) => {
                span.set_attribute(KeyValue::new("error.type", problem.code));
                span.set_status(Status::error(problem.code));
            }
        }
    }

    /// What became of the entries of a batch: sums, and an event for each that was refused, as many as a span takes.
    pub(super) fn receipts(mut self, entries: &[EntryBody]) {
        let Some(span) = &mut self.0 else { return };
        let (mut delivered, mut dropped, mut evicted) = (0, 0, 0);
        let mut first_refusal = None;
        for (index, entry) in entries.iter().enumerate() {
            match entry {
                EntryBody::Receipt(receipt) => {
                    delivered += receipt.delivered;
                    dropped += receipt.dropped;
                    evicted += receipt.evicted;
                }
                EntryBody::Refused { error } => {
                    first_refusal.get_or_insert(error.code);
                    let attributes = vec![
                        KeyValue::new("fanfare.entry", number(index as u64)),
                        KeyValue::new("error.type", error.code),
                    ];
                    span.add_event("refused", attributes);
                }
            }
        }
        count(span, delivered, dropped, evicted);
        if let Some(code) = first_refusal {
            span.set_attribute(KeyValue::new("error.type", code));
            span.set_status(Status::error(code));
        }
    }
}

fn count(span: &mut BoxedSpan, delivered: u64, dropped: u64, evicted: u64) {
    span.set_attributes([
        KeyValue::new("fanfare.delivered", number(delivered)),
        KeyValue::new("fanfare.dropped", number(dropped)),
        KeyValue::new("fanfare.evicted", number(evicted)),
    ]);
}

/// Numbers of traces are signed.
fn number(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
