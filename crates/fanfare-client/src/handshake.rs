//! From an address to an open WebSocket (RFC 6455 section 4.1).

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanfare_protocol::Position;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::net::{TcpSocket, TcpStream};

use crate::stream::Stream;
use crate::{Connection, Error, Refusal, Trust, Url};

/// How to connect. Start from [`ConnectOptions::new`]; the fields may be set directly.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// The WebSocket's address, path and query included.
    pub url: Url,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// Guest name, sent as `?name=`.
    pub name: Option<String>,
    /// Where the client was before, sent as `?since=`.
    pub since: Option<Position>,
    /// More headers of the upgrade request. They replace what this client would send.
    pub headers: HeaderMap,
    /// Whose certificates count, where the address asks for TLS. `None`: those of the authorities that the system trusts,
    /// which are looked up for each connection.
    pub trust: Option<Trust>,
    /// Local address to connect from.
    pub local_address: Option<IpAddr>,
    /// Longest message taken from the gateway, bytes over all its fragments. Beyond: close 1009 and an error.
    pub message_bytes_max: usize,
    /// Deadline for everything from the name look-up to the answer of the upgrade.
    pub timeout: Duration,
}

impl ConnectOptions {
    /// No token, no name; messages up to 16 MiB; 10 s to connect.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self {
            url,
            token: None,
            name: None,
            since: None,
            headers: HeaderMap::new(),
            trust: None,
            local_address: None,
            message_bytes_max: 16 << 20,
            timeout: Duration::from_secs(10),
        }
    }

    fn request(&self, key: &str) -> Result<Request<Empty<Bytes>>, Error> {
        let mut url = self.url.clone();
        if let Some(name) = &self.name {
            url = url.with_query("name", name);
        }
        if let Some(since) = self.since {
            url = url.with_query("since", &since.to_string());
        }
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = request_uri(&url)?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, header_value("address", &url.authority())?);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(header::SEC_WEBSOCKET_KEY, header_value("key", key)?);
        if let Some(token) = &self.token {
            headers.insert(header::AUTHORIZATION, bearer("token", token)?);
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        Ok(request)
    }
}

/// Opens a WebSocket.
///
/// # Errors
/// [`Error::NothingListening`] and [`Error::Unreachable`] when there is no connection, [`Error::Tls`] when there is none over
/// TLS and [`Error::Authorities`] when nobody could vouch for it, [`Error::Refused`] when the gateway answers with an HTTP
/// error, [`Error::Handshake`] when its answer is no WebSocket handshake, [`Error::Timeout`].
pub async fn connect(options: &ConnectOptions) -> Result<Connection, Error> {
    let opening = async {
        let stream = dial(&options.url, options.local_address, options.trust.as_ref()).await?;
        upgrade(stream, options).await
    };
    // The exchange needs some kilobytes of stack; on the heap it does not weigh on the caller's future.
    match tokio::time::timeout(options.timeout, Box::pin(opening)).await {
        Ok(done) => done,
        Err(_) => Err(Error::Timeout { what: "connecting", limit: options.timeout }),
    }
}

async fn upgrade(stream: Stream, options: &ConnectOptions) -> Result<Connection, Error> {
    let key = fastwebsockets::handshake::generate_key();
    let request = options.request(&key)?;
    let (mut sender, mut exchange) = http1::handshake(TokioIo::new(stream)).await?;
    let mut over = false;
    let response = drive(&mut exchange, &mut over, sender.send_request(request)).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(drive(&mut exchange, &mut over, refusal(response)).await);
    }
    check_upgrade(response.headers(), &key)?;
    // With the answer 101 hyper's part ends; the poll makes sure that it has noticed.
    drive(&mut exchange, &mut over, std::future::ready(())).await;
    let parts = exchange.into_parts();
    Ok(Connection::new(parts.io.into_inner(), parts.read_buf, options.message_bytes_max)?)
}

/// Runs `work` while the HTTP exchange it depends on is driven along; no task is spawned for it. Failures of the exchange
/// surface in `work`.
async fn drive<B, F>(exchange: &mut http1::Connection<TokioIo<Stream>, B>, over: &mut bool, work: F) -> F::Output
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Future,
{
    let mut work = pin!(work);
    poll_fn(|cx| {
        if !*over {
            *over = exchange.poll_without_shutdown(cx).is_ready();
        }
        match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// RFC 6455 section 4.1, the client's checks of the answer.
fn check_upgrade(headers: &HeaderMap, key: &str) -> Result<(), Error> {
    let has = |name: header::HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(token))
    };
    if !has(header::UPGRADE, "websocket") {
        return Err(Error::Handshake("the answer lacks `Upgrade: websocket`"));
    }
    if !has(header::CONNECTION, "upgrade") {
        return Err(Error::Handshake("the answer lacks `Connection: Upgrade`"));
    }
    if headers.get(header::SEC_WEBSOCKET_ACCEPT).is_none_or(|v| v.as_bytes() != accept(key).as_bytes()) {
        return Err(Error::Handshake("`Sec-WebSocket-Accept` does not match the key"));
    }
    if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
        return Err(Error::Handshake("the answer selects an extension that was not offered"));
    }
    Ok(())
}

fn accept(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    STANDARD.encode(digest)
}

/// Connects to an address, with TLS where it asks for that.
pub(crate) async fn dial(url: &Url, local_address: Option<IpAddr>, trust: Option<&Trust>) -> Result<Stream, Error> {
    if !url.is_tls() {
        return Ok(Stream::Plain(dial_tcp(url, local_address).await?));
    }
    // Before anything is sent: without an authority nobody is asked.
    let trust = trust.map_or_else(Trust::of_system, |trust| Ok(trust.clone()))?;
    let stream = dial_tcp(url, local_address).await?;
    Ok(Stream::Tls(Box::new(trust.handshake(url.host(), url.port(), stream).await?)))
}

/// Connects a socket with `TCP_NODELAY`, trying each address of the host in turn.
async fn dial_tcp(url: &Url, local_address: Option<IpAddr>) -> Result<TcpStream, Error> {
    let authority = url.authority();
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::ConnectionRefused => Error::NothingListening { authority: authority.clone() },
        _ => Error::Unreachable { authority: authority.clone(), source },
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in tokio::net::lookup_host((url.host(), url.port())).await.map_err(fail)? {
        match dial_address(address, local_address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(fail(last))
}

async fn dial_address(address: SocketAddr, local_address: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(local) = local_address {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) fn request_uri(url: &Url) -> Result<hyper::Uri, Error> {
    let target = url.target();
    target.parse().map_err(|_| Error::Url { url: target, why: "its path or query breaks RFC 3986" })
}

pub(crate) fn header_value(what: &'static str, value: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(value).map_err(|_| Error::HeaderValue(what))
}

pub(crate) fn bearer(what: &'static str, secret: &str) -> Result<HeaderValue, Error> {
    let mut value = header_value(what, &format!("Bearer {secret}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Turns an HTTP error answer into an [`Error`].
pub(crate) async fn refusal(response: Response<Incoming>) -> Error {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    // A body that is too long or breaks off leaves the status, which is what matters.
    let body = match Limited::new(response.into_body(), Refusal::BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    Error::Refused(Box::new(Refusal::read(status, retry_after.map(Duration::from_secs), &body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn the_answer_to_an_upgrade_is_checked() {
        let check = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|&(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
            check_upgrade(&pairs.collect(), "dGhlIHNhbXBsZSBub25jZQ==").is_ok()
        };
        let upgrade = ("upgrade", "WebSocket");
        let connection = ("connection", "keep-alive, Upgrade");
        let accept = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(check(&[upgrade, connection, accept]));
        assert!(!check(&[connection, accept]));
        assert!(!check(&[upgrade, accept]));
        assert!(!check(&[upgrade, connection]));
        assert!(!check(&[upgrade, connection, ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOx=")]));
        assert!(!check(&[upgrade, connection, accept, ("sec-websocket-extensions", "permessage-deflate")]));
    }
}
