//! A collector, spoken to in OTLP over HTTP with protobuf bodies, on one connection that is kept.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::TraceTerms;
use crate::commands::version::VERSION;
use crate::outgoing;

/// The first pause before a batch is sent again; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest of them, and the longest that a collector may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where spans go.
#[derive(Debug)]
pub(super) struct Collector {
    url: Uri,
    /// All that a request has but its body.
    headers: HeaderMap,
    timeout: Duration,
    resource: ResourceAttributesWithSchema,
    connection: Option<Connection>,
}

/// A connection that is kept. Its task ends with it.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _task: JoinSet<()>,
}

/// Why a batch was not taken.
enum Refusal {
    /// It may be sent again, not before this time is over.
    Later(Duration, anyhow::Error),
    /// It would be refused again.
    Never(anyhow::Error),
}

/// An address as it may be logged: a query could have a key in it.
pub(super) fn place(url: &Uri) -> String {
    let authority = url.authority().map(|authority| authority.as_str()).unwrap_or_default();
    format!("{}://{authority}{}", url.scheme_str().unwrap_or_default(), url.path())
}

impl Collector {
    pub(super) fn new(terms: &TraceTerms, resource: &Resource) -> Self {
        let mut headers = terms.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let host = terms.url.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        headers.insert(HOST, host.unwrap_or_else(|| HeaderValue::from_static("")));
        let agent = HeaderValue::from_str(&format!("fanfare/{VERSION}"));
        headers.insert(USER_AGENT, agent.unwrap_or_else(|_| HeaderValue::from_static("fanfare")));
        Self { url: terms.url.clone(), headers, timeout: terms.timeout, resource: resource.into(), connection: None }
    }

    /// Where it is, for the log.
    pub(super) fn place(&self) -> String {
        place(&self.url)
    }

    /// Sends a batch, again where that may help, until its time is over. Says how many of the spans were rejected.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) async fn send(&mut self, spans: Vec<SpanData>) -> anyhow::Result<u64> {
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        let deadline = Instant::now() + self.timeout;
        let mut pause = PAUSE;
        loop {
            let refusal = match timeout_at(deadline, self.post(body.clone())).await {
                Ok(Ok(rejected)) => return Ok(rejected),
                Ok(Err(refusal)) => refusal,
                Err(_) => Refusal::Never(anyhow::anyhow!("no answer within {:?}", self.timeout)),
            };
            // It is not known what is still on its way.
            self.connection = None;
            let (wait, error) = match refusal {
                Refusal::Later(wait, error) => (wait.clamp(pause, PAUSE_MAX), error),
                Refusal::Never(error) => return Err(error),
            };
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn post(&mut self, body: Bytes) -> Result<u64, Refusal> {
        let again = |error| Refusal::Later(Duration::ZERO, error);
        let answer = self.ask(body).await.map_err(again)?;
        let status = answer.status();
        if status == StatusCode::OK {
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            // Taken, whatever else it says.
            return Ok(body.map_or(0, |body| rejected(body.to_bytes())));
        }
        let error = anyhow::anyhow!("it answered {status}");
        // Those that the protocol says may be sent again (OTLP/HTTP, "Retryable response codes").
        let may_retry = [429, 502, 503, 504].contains(&status.as_u16());
        Err(if may_retry { Refusal::Later(retry_after(answer.headers()), error) } else { Refusal::Never(error) })
    }

    async fn ask(&mut self, body: Bytes) -> anyhow::Result<hyper::Response<hyper::body::Incoming>> {
        let mut request = Request::post(self.url.path_and_query().map_or("/", |path| path.as_str()))
            .body(Full::new(body))
            .context("the address cannot be asked")?;
        *request.headers_mut() = self.headers.clone();
        let mut connection = match self.connection.take().filter(|connection| !connection.sender.is_closed()) {
            Some(connection) => connection,
            None => connect(&self.url).await?,
        };
        let answer = async {
            connection.sender.ready().await?;
            connection.sender.send_request(request).await
        };
        let answer = answer.await.context("it hung up")?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

async fn connect(url: &Uri) -> anyhow::Result<Connection> {
    let (sender, connection) = http1::handshake(TokioIo::new(outgoing::connect(url, None).await?)).await?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        // Who sends on it is told.
        let _ = connection.await;
    });
    Ok(Connection { sender, _task: task })
}

/// Spans that an answer says were not taken.
fn rejected(body: Bytes) -> u64 {
    let partial = ExportTraceServiceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
    partial.and_then(|partial| partial.rejected_spans.try_into().ok()).unwrap_or(0)
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}
