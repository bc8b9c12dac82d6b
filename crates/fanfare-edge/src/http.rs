//! HTTP on both listeners: routes by hand, everything that is not an upgrade answered here.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::{debug, warn};

use crate::admission::Door;
use crate::deadlined::Deadlined;
use crate::gate::{Gate, Permit, Refused};
use crate::hub::Hub;
use crate::listener::{Acceptor, Bound, Stream};
use crate::problem::{Answer, Problem, method_not_allowed, not_found, with_type};
use crate::{api, upgrade};

/// What is said to a socket that is not let in.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/problem+json\r\nContent-Length: 107\r\n\r\n{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"code\":\"connections_max\",\"detail\":\"full\"}\n";
const ADDRESS: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/problem+json\r\nContent-Length: 119\r\n\r\n{\"type\":\"about:blank\",\"title\":\"Too Many Requests\",\"status\":429,\"code\":\"connections_per_ip_max\",\"detail\":\"per address\"}\n";

/// A refused socket is kept so long for its refusal to be read.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// Sockets of the admin listener open at the same time: operators, scrapers and backends that publish. Beyond: 503.
const ADMIN_CONNECTIONS_MAX: usize = 4_096;

/// Accepts clients on a shard's runtime until accepting stops.
pub(crate) async fn serve_clients(hub: Arc<Hub>, shard: usize, acceptor: Acceptor) {
    let stopping = hub.clone();
    let accept = async {
        loop {
            let (stream, address) = accept(&hub, &acceptor).await;
            match hub.gate().enter(address) {
                Ok(permit) => {
                    let context = ClientContext { hub: hub.clone(), shard };
                    tokio::task::spawn_local(serve_client(Rc::new(context), stream, permit));
                }
                Err(refused) => {
                    hub.counters().shed.fetch_add(1, Ordering::Relaxed);
                    tokio::task::spawn_local(refuse(stream, refused));
                }
            }
        }
    };
    until(stopping.drain().stopped_accepting(), accept).await;
}

/// Serves the admin listener on the runtime of whoever calls. It stays up through a drain, so that its progress can be seen; it ends when
/// dropped.
///
/// # Errors
/// When the listener cannot be registered with the runtime.
pub async fn serve_admin(hub: Arc<Hub>, bound: Bound) -> std::io::Result<()> {
    let acceptor = bound.into_tokio()?;
    let gate = Gate::new(ADMIN_CONNECTIONS_MAX, 0);
    loop {
        let (stream, _) = accept(&hub, &acceptor).await;
        let permit = match gate.enter(None) {
            Ok(permit) => permit,
            Err(refused) => {
                tokio::task::spawn_local(refuse(stream, refused));
                continue;
            }
        };
        let hub = hub.clone();
        tokio::task::spawn_local(async move {
            let _permit = permit;
            let builder = builder(&hub);
            let service = service_fn(|request| {
                let hub = hub.clone();
                async move { Ok::<_, std::convert::Infallible>(admin_route(&hub, request).await) }
            });
            let served = match stream {
                Stream::Tcp(stream) => builder.serve_connection(deadlined(&hub, stream), service).await,
                Stream::Unix(stream) => builder.serve_connection(deadlined(&hub, stream), service).await,
            };
            if let Err(error) = served {
                debug!(%error, "an admin connection ended");
            }
        });
    }
}

async fn accept(hub: &Hub, acceptor: &Acceptor) -> (Stream, Option<IpAddr>) {
    acceptor
        .accept(|error| {
            hub.counters().accept_errors.fetch_add(1, Ordering::Relaxed);
            warn!(%error, "a connection could not be accepted");
        })
        .await
}

/// Runs `work` until `stop` is done.
async fn until(stop: impl Future<Output = ()>, work: impl Future<Output = ()>) {
    let (stop, work) = (pin!(stop), pin!(work));
    tokio::select! {
        () = stop => {}
        () = work => {}
    }
}

/// What the routes of the client listener know.
#[derive(Debug)]
pub(crate) struct ClientContext {
    pub(crate) hub: Arc<Hub>,
    pub(crate) shard: usize,
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
pub(crate) type HttpStream<S> = TokioIo<Deadlined<S>>;

/// Ends a client that asks and does not read: its answer may wait no longer than a connection's bytes may.
fn deadlined<S>(hub: &Hub, stream: S) -> HttpStream<S> {
    TokioIo::new(Deadlined::new(stream, hub.settings().heartbeat.write))
}

async fn serve_client(context: Rc<ClientContext>, stream: Stream, permit: Permit) {
    let builder = builder(&context.hub);
    // The permit goes with the socket: to the connection if there is an upgrade, away with this task otherwise.
    let permit = Rc::new(std::cell::Cell::new(Some(permit)));
    let service = service_fn(|request| {
        let (context, permit) = (context.clone(), permit.clone());
        async move { Ok::<_, std::convert::Infallible>(client_route(&context, request, &permit).await) }
    });
    let served = match stream {
        Stream::Tcp(stream) => builder.serve_connection(deadlined(&context.hub, stream), service).with_upgrades().await,
        Stream::Unix(stream) => {
            builder.serve_connection(deadlined(&context.hub, stream), service).with_upgrades().await
        }
    };
    if let Err(error) = served {
        debug!(%error, "a request ended");
    }
}

pub(crate) type PermitCell = Rc<std::cell::Cell<Option<Permit>>>;

async fn client_route(context: &Rc<ClientContext>, request: Request<Incoming>, permit: &PermitCell) -> Answer {
    let settings = context.hub.settings();
    let path = request.uri().path();
    match path {
        "/" if settings.page.is_some() => page(&context.hub, request.method()),
        "/ws" => upgrade::answer(context, request, Door::Rooms, permit),
        "/echo" if settings.echo => upgrade::answer(context, request, Door::Echo, permit),
        "/helloworld" if settings.echo => upgrade::answer(context, request, Door::HelloWorld, permit),
        _ => match path.strip_prefix("/room/") {
            Some(room) if !room.contains('/') => {
                let room = room.to_owned();
                upgrade::answer(context, request, Door::Room(&room), permit)
            }
            None if settings.api.on_client_listener && path.starts_with("/api/") => {
                api::route(&context.hub, request).await
            }
            _ => not_found(),
        },
    }
}

async fn admin_route(hub: &Arc<Hub>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    if path.starts_with("/api/") {
        return api::route(hub, request).await;
    }
    if !matches!(path, "/livez" | "/readyz" | "/metrics") {
        return not_found();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed("GET, HEAD");
    }
    match path {
        "/livez" => text(StatusCode::OK, "live\n"),
        "/readyz" if hub.drain().has_begun() => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "this node is leaving service").answer()
        }
        "/readyz" => text(StatusCode::OK, "ready\n"),
        _ => {
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let metrics = hub.metrics(accept.contains("application/openmetrics-text"));
            with_type(StatusCode::OK, metrics.content_type, metrics.body.into())
        }
    }
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

fn page(hub: &Hub, method: &Method) -> Answer {
    let Some(page) = &hub.settings().page else { return not_found() };
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

async fn refuse(stream: Stream, refused: Refused) {
    let words = match refused {
        Refused::Full => FULL,
        Refused::Address => ADDRESS,
    };
    let told = async {
        match stream {
            Stream::Tcp(stream) => say_and_drain(stream, words).await,
            Stream::Unix(stream) => say_and_drain(stream, words).await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_announce_their_true_length() {
        for refusal in [FULL, ADDRESS] {
            let text = std::str::from_utf8(refusal).expect("ASCII");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
            assert_eq!(length.parse(), Ok(body.len()));
        }
    }
}
