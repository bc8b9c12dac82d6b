//! HTTP on both listeners: routes by hand, everything that is not an upgrade answered here.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH,
};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::{debug, warn};

use crate::admission::Door;
use crate::deadlined::Deadlined;
use crate::ending::{Ending, Notice};
use crate::event_stream::{self, Granted, Handover};
use crate::gate::{Gate, GateLimits, Permit};
use crate::hub::Hub;
use crate::listener::{Bound, Stream, bare_tcp, bare_unix};
use crate::prefixed::Prefixed;
use crate::problem::{Answer, Problem, method_not_allowed, not_found, with_type};
use crate::settings::Script;
use crate::source::Source;
use crate::tls::Bare;
use crate::tls_stream::TlsStream;
use crate::{api, canary, pusher, upgrade};

/// A refused socket is kept so long for its refusal to be read.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// Sockets of the admin listener open at the same time: operators, scrapers and backends that publish. Beyond: 503.
const ADMIN_CONNECTIONS_MAX: usize = 4_096;

/// Serves the admin listener on the runtime of whoever calls until `stop` is done. It stays up through a drain, so that its progress can be
/// seen. What has been asked by then is answered, within five seconds.
///
/// # Errors
/// When the listener cannot be registered with the runtime.
pub async fn serve_admin(hub: Arc<Hub>, bound: Bound, stop: impl Future<Output = ()>) -> std::io::Result<()> {
    let mut acceptor = Some(bound.into_tokio()?);
    let connections_max = ADMIN_CONNECTIONS_MAX;
    let limits = GateLimits { connections_max, per_ip_max: 0, per_ip_per_second_max: 0, observes: false };
    let gate = Gate::new(limits, Arc::default());
    canary::watch(&hub);
    let ending = Ending::new();
    let mut stop = std::pin::pin!(stop);
    let mut is_stopped = false;
    loop {
        let next = async {
            match &acceptor {
                Some(acceptor) => acceptor.accept(|error| count_accept_error(&hub, error)).await,
                None => std::future::pending().await,
            }
        };
        let (stream, _) = tokio::select! {
            // Whoever waits at the listener when it closes has asked in time.
            biased;
            // Who comes from here on asks the process that has taken over.
            () = hub.drain().handed_over(), if acceptor.is_some() => {
                acceptor = None;
                continue;
            }
            accepted = next => accepted,
            () = std::future::ready(()), if is_stopped => break,
            () = &mut stop, if !is_stopped => {
                is_stopped = true;
                continue;
            }
        };
        match gate.enter(None, hub.now()) {
            Ok(permit) => drop(tokio::task::spawn_local(serve_operator(hub.clone(), stream, permit, ending.notice()))),
            Err(refused) => drop(tokio::task::spawn_local(refuse(stream, refused.problem()))),
        }
    }
    drop(acceptor);
    ending.wait().await;
    Ok(())
}

async fn serve_operator(hub: Arc<Hub>, stream: Stream, permit: Permit, notice: Notice) {
    let _permit = permit;
    let served = match stream {
        Stream::Tcp(stream) => speak_to_operator(&hub, stream, notice).await,
        Stream::Unix(stream) => speak_to_operator(&hub, stream, notice).await,
        Stream::Tls(stream) => speak_to_operator(&hub, stream, notice).await,
    };
    if let Err(error) = served {
        debug!(%error, "an admin connection ended");
    }
}

async fn speak_to_operator<S>(hub: &Arc<Hub>, stream: S, notice: Notice) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|request| async move { Ok::<_, Infallible>(admin_route(hub, request).await) });
    let served = builder(hub).serve_connection(deadlined(hub, Bytes::new(), stream), service);
    notice.serve(served, http1::Connection::graceful_shutdown).await
}

/// Counts an error of `accept`.
pub(crate) fn count_accept_error(hub: &Hub, error: &std::io::Error) {
    hub.counters().accept_errors.fetch_add(1, Ordering::Relaxed);
    warn!(%error, "a connection could not be accepted");
}

/// What the routes of the client listener know.
#[derive(Debug)]
pub(crate) struct ClientContext {
    pub(crate) hub: Arc<Hub>,
    pub(crate) shard: usize,
    /// From where the socket comes.
    pub(crate) source: Source,
    /// The shard's loop has ended: nobody is let in any more.
    pub(crate) is_over: Rc<Cell<bool>>,
}

fn builder(hub: &Hub) -> http1::Builder {
    let settings = hub.settings();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.handshake)
        .max_buf_size(settings.header_bytes_max)
        .max_headers(settings.headers_max);
    builder
}

/// A socket while HTTP is spoken on it.
pub(crate) type HttpStream<S> = TokioIo<Deadlined<Prefixed<S>>>;

/// Ends a client that asks and does not read: its answer may wait no longer than a connection's bytes may.
fn deadlined<S>(hub: &Hub, early: Bytes, stream: S) -> HttpStream<S> {
    TokioIo::new(Deadlined::new(Prefixed::new(early, stream), hub.settings().heartbeat.write))
}

/// Speaks HTTP with a newcomer that did not ask for an upgrade that it can have. `early` is what has been read of it.
pub(crate) async fn serve_client(
    context: Rc<ClientContext>,
    stream: Stream,
    early: Bytes,
    permit: Permit,
    notice: Notice,
) {
    let served = match stream {
        Stream::Tcp(stream) => {
            let bare = |stream| Ok(Bare { socket: bare_tcp(stream)?, tls: None });
            speak_to_client(&context, stream, early, permit, notice, bare).await
        }
        Stream::Unix(stream) => {
            let bare = |stream| Ok(Bare { socket: bare_unix(stream)?, tls: None });
            speak_to_client(&context, stream, early, permit, notice, bare).await
        }
        Stream::Tls(stream) => {
            let bare = |stream: TlsStream| {
                let (stream, tls) = stream.into_parts();
                Ok(Bare { socket: bare_tcp(stream)?, tls: Some(tls) })
            };
            speak_to_client(&context, stream, early, permit, notice, bare).await
        }
    };
    match served {
        Ok(None) => {}
        Ok(Some((granted, socket))) => event_stream::hand_over(&context, granted, socket),
        Err(error) => debug!(%error, "a request ended"),
    }
}

/// A connection that has been granted, and its socket if that could be taken out of hyper.
type GrantedSocket = (Granted, Option<BareSocket>);

async fn speak_to_client<S>(
    context: &Rc<ClientContext>,
    stream: S,
    early: Bytes,
    permit: Permit,
    notice: Notice,
    bare: fn(S) -> std::io::Result<Bare>,
) -> hyper::Result<Option<GrantedSocket>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // The permit goes with the socket: to the connection if there is an upgrade, away with this task otherwise.
    let permit = Rc::new(Cell::new(Some(permit)));
    let handover = Handover::default();
    let (granted, shared) = (handover.clone(), context.clone());
    let service = service_fn(move |request| {
        let (context, permit, handover) = (shared.clone(), permit.clone(), granted.clone());
        async move { Ok::<_, Infallible>(client_route(&context, request, &permit, &handover).await) }
    });
    let stream = deadlined(&context.hub, early, stream);
    let served = Some(builder(&context.hub).serve_connection(stream, service).with_upgrades());
    notice.serve(UntilGranted { served, handover, bare }, UntilGranted::finish).await
}

/// A socket out of its runtime, and what has been read of it.
pub(crate) type BareSocket = (Bare, Bytes);

/// Serves requests until the socket ends, or one of them is for an event stream that is let in: the socket is then taken from under it.
struct UntilGranted<S, V: HttpService<Incoming>> {
    served: Option<http1::UpgradeableConnection<HttpStream<S>, V>>,
    handover: Handover,
    bare: fn(S) -> std::io::Result<Bare>,
}

impl<S, V> UntilGranted<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    V: HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible>,
{
    /// It ends after the request under way.
    fn finish(mut self: Pin<&mut Self>) {
        if let Some(served) = &mut self.served {
            Pin::new(served).graceful_shutdown();
        }
    }

    /// The socket, unless an answer is still on its way to a client that asked for more before it had read it.
    fn take_out(&mut self) -> Option<BareSocket> {
        let parts = self.served.take()?.into_parts().filter(|parts| !parts.io.inner().is_blocked())?;
        let (unread, stream) = parts.io.into_inner().into_inner().into_parts();
        Some(((self.bare)(stream).ok()?, read_of(parts.read_buf, unread)))
    }
}

impl<S, V> Future for UntilGranted<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    V: HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible>,
{
    type Output = hyper::Result<Option<GrantedSocket>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = self.served.as_mut().map_or(Poll::Ready(Ok(())), |served| Pin::new(served).poll(context));
        match self.handover.take() {
            Some(granted) => Poll::Ready(Ok(Some((granted, self.take_out())))),
            None => ended.map_ok(|()| None),
        }
    }
}

/// What has been read of a socket that HTTP was spoken on: by hyper, and before hyper.
pub(crate) fn read_of(by_hyper: Bytes, before: Bytes) -> Bytes {
    if before.is_empty() { by_hyper } else { [by_hyper, before].concat().into() }
}

pub(crate) type PermitCell = Rc<Cell<Option<Permit>>>;

async fn client_route(
    context: &Rc<ClientContext>,
    request: Request<Incoming>,
    permit: &PermitCell,
    handover: &Handover,
) -> Answer {
    let settings = context.hub.settings();
    let path = request.uri().path();
    if path == "/" && settings.page.is_some() {
        return page(&context.hub, request.method());
    }
    if path == "/fanfare.js" {
        return script(&settings.script, &request);
    }
    let path = path.to_owned();
    match Door::at(&path, &settings) {
        Some(door @ Door::EventStream(_)) => {
            return event_stream::answer(context, &request, door, permit, handover).await;
        }
        Some(door) => return upgrade::answer(context, request, door, permit),
        None => {}
    }
    if path.starts_with("/apps/")
        && let Some(pusher) = &settings.pusher
    {
        return pusher::answer(&context.hub, pusher, request).await;
    }
    if settings.api.on_client_listener && path.starts_with("/api/") {
        return api::answer(&context.hub, request, settings.tls.is_some()).await;
    }
    not_found()
}

async fn admin_route(hub: &Arc<Hub>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    if path.starts_with("/api/") {
        return api::answer(hub, request, false).await;
    }
    #[cfg(feature = "faults")]
    if let Some(answer) = crate::faults::answer(hub, &request) {
        return answer;
    }
    if !matches!(path, "/livez" | "/readyz" | "/metrics" | "/openapi.json") {
        return not_found();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed("GET, HEAD");
    }
    match path {
        "/livez" => text(StatusCode::OK, "live\n"),
        "/openapi.json" => with_type(StatusCode::OK, "application/json", api::document()),
        "/readyz" if hub.drain().has_begun() => Problem::draining().answer(),
        "/readyz" if !hub.knows_rooms() => Problem::engine_unread().answer(),
        "/readyz" => match canary::late(hub).await {
            None => text(StatusCode::OK, "ready\n"),
            Some(late) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shard_late", late.to_string()).answer(),
        },
        _ => {
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let metrics = hub.metrics(accept.contains("application/openmetrics-text"));
            with_type(StatusCode::OK, metrics.content_type, metrics.body.into())
        }
    }
}

pub(crate) fn text(status: StatusCode, body: &'static str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

fn page(hub: &Hub, method: &Method) -> Answer {
    let settings = hub.settings();
    let Some(page) = &settings.page else { return not_found() };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return method_not_allowed("GET, HEAD");
    }
    let mut answer = with_type(StatusCode::OK, "text/html; charset=utf-8", page.html.clone());
    let headers = answer.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&page.policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY"));
    headers.insert(HeaderName::from_static("cache-control"), HeaderValue::from_static("no-cache"));
    answer
}

/// The JavaScript client. Pages of any origin may import it; whether they may connect is decided elsewhere.
fn script<B>(script: &Script, request: &Request<B>) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed("GET, HEAD");
    }
    let asked = request.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_known =
        asked.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim().trim_start_matches("W/") == script.etag);
    let (status, text) =
        if is_known { (StatusCode::NOT_MODIFIED, Bytes::new()) } else { (StatusCode::OK, script.text.clone()) };
    let mut answer = with_type(status, "text/javascript; charset=utf-8", text);
    let headers = answer.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&script.etag) {
        headers.insert(ETAG, etag);
    }
    // Kept, and asked for again each time: a page must not speak an older client's language after an upgrade.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin"));
    answer
}

/// Tells a socket that is not let in, or whose bytes are no request, why, and closes it.
pub(crate) async fn refuse(stream: Stream, problem: Problem) {
    let words = problem.bytes();
    let told = async {
        match stream {
            Stream::Tcp(stream) => say_and_drain(stream, &words).await,
            Stream::Unix(stream) => say_and_drain(stream, &words).await,
            Stream::Tls(stream) => say_and_drain(stream, &words).await,
        }
    };
    // Whether the refusal was read is the peer's affair.
    let _ = tokio::time::timeout(REFUSAL_LINGER, told).await;
}

/// Writes, ends our side and reads what the peer still sends: closing with unread bytes would reset the connection and take the words with it.
async fn say_and_drain(mut stream: impl AsyncRead + AsyncWrite + Unpin, words: &[u8]) -> std::io::Result<()> {
    stream.write_all(words).await?;
    stream.shutdown().await?;
    let mut discard = [0; 1_024];
    while stream.read(&mut discard).await? > 0 {}
    Ok(())
}
