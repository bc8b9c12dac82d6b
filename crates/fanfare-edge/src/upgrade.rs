//! The WebSocket handshake, strictly (RFC 6455 section 4.2), and who may come in. [`consider`] decides, for newcomers of a shard and for
//! requests that hyper has read. [`answer`] is for the latter: once the handshake is done the bare socket goes to the shard.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanfare_registry::Item;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
    UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, Version};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tracing::debug;

use crate::admission::{Admission, Door, admit};
use crate::counters::{Handshake, Via};
use crate::extensions::agree;
use crate::gate::{Permit, Refused};
use crate::http::{BareSocket, ClientContext, HttpStream, PermitCell, read_of};
use crate::hub::Hub;
use crate::listener::{bare_tcp, bare_unix};
use crate::problem::{Answer, Problem, method_not_allowed, write_head};
use crate::settings::CompressionSettings;
use crate::shard::{Adopted, Order};
use crate::tls::Bare;
use crate::tls_stream::TlsStream;

/// A handshake that is let in: what is said first, and who comes. Otherwise how it is counted, if it was one, and why not.
pub(crate) type Considered = Result<(Switching, Admission), (Option<Handshake>, Problem)>;

/// Decides on a `GET` of a WebSocket path.
pub(crate) fn consider<B>(hub: &Hub, request: &Request<B>, door: Door<'_>) -> Considered {
    let accept = check_handshake(request)?;
    let terms = hub.settings().compression.as_ref().map(CompressionSettings::terms);
    let (deflate, extensions) = match agree(request.headers(), terms) {
        Ok(agreed) => agreed.unzip(),
        Err(error) => return Err(malformed(error.to_string())),
    };
    let mut admission = admit(hub, request, door).map_err(|(result, problem)| (Some(result), problem))?;
    admission.session = admission.session.with_deflate(deflate);
    Ok((Switching { accept, protocol: selected_protocol(request.headers()), extensions }, admission))
}

/// Answers a request on a WebSocket path: 101 and the socket goes over, or why not.
pub(crate) fn answer(
    context: &Rc<ClientContext>,
    mut request: Request<Incoming>,
    door: Door<'_>,
    permit: &PermitCell,
) -> Answer {
    if request.method() != Method::GET {
        return method_not_allowed("GET");
    }
    if context.is_over.get() {
        return Problem::draining().answer();
    }
    let counters = context.hub.counters();
    let (switching, admission) = match consider(&context.hub, &request, door) {
        Ok(let_in) => let_in,
        Err((result, problem)) => {
            if let Some(result) = result {
                counters.handshake(result);
            }
            return problem.answer();
        }
    };
    let permit = match take_place(context, request.headers(), permit) {
        Ok(permit) => permit,
        Err(problem) => return problem.answer(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let context = context.clone();
    let pending = context.hub.begin_handshake(context.shard);
    tokio::task::spawn_local(async move {
        match upgrade.await {
            Ok(upgraded) => hand_over(&context, bare_socket(upgraded), Vec::new(), admission, permit),
            Err(error) => {
                context.hub.counters().handshake(Handshake::Failed);
                debug!(%error, "a handshake was not finished");
            }
        }
        // From here on the socket is in the shard's intake, or gone.
        drop(pending);
    });
    switching.answer()
}

/// The place of a socket on which a connection begins.
pub(crate) fn take_place(context: &ClientContext, headers: &HeaderMap, place: &PermitCell) -> Result<Permit, Problem> {
    let counters = context.hub.counters();
    let Some(mut permit) = place.take() else {
        // The socket has been upgraded before; nothing more can be asked of it.
        counters.handshake(Handshake::Malformed);
        let detail = "this connection has been upgraded already";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_handshake", detail));
    };
    if let Err(refused) = context.source.seat(&mut permit, headers, &context.hub) {
        counters.shed.fetch_add(1, Ordering::Relaxed);
        if refused == Refused::Unknown {
            counters.via(Via::Unknown);
        }
        // The socket keeps its place: it may ask for something else.
        place.set(Some(permit));
        return Err(refused.problem());
    }
    Ok(permit)
}

/// The answer to a handshake that is let in.
#[derive(Debug)]
pub(crate) struct Switching {
    accept: HeaderValue,
    protocol: Option<HeaderValue>,
    extensions: Option<HeaderValue>,
}

impl Switching {
    fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let always = [
            (UPGRADE, HeaderValue::from_static("websocket")),
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (SEC_WEBSOCKET_ACCEPT, self.accept.clone()),
        ];
        let protocol = self.protocol.clone().map(|protocol| (SEC_WEBSOCKET_PROTOCOL, protocol));
        let extensions = self.extensions.clone().map(|extensions| (SEC_WEBSOCKET_EXTENSIONS, extensions));
        always.into_iter().chain(protocol).chain(extensions)
    }

    fn answer(&self) -> Answer {
        let mut answer = Response::new(Full::new(Bytes::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers_mut().extend(self.headers());
        answer
    }

    /// The same as bytes.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_head("101 Switching Protocols", self.headers(), out);
    }
}

/// Gives a bare socket, and bytes that came early, to the shard's loop, which says `opening` first. `None`: it could not be taken out of hyper.
pub(crate) fn hand_over(
    context: &ClientContext,
    socket: Option<BareSocket>,
    opening: Vec<u8>,
    admission: Admission,
    permit: Permit,
) {
    let counters = context.hub.counters();
    let Some((socket, leftover)) = socket else {
        counters.handshake(Handshake::Failed);
        return;
    };
    counters.handshake(Handshake::Accepted);
    let adopted = Adopted { socket, leftover, opening, admission, permit };
    context.hub.registry().shards()[context.shard].push(Item::Order(Order::Adopt(Box::new(adopted))));
}

/// The socket, and what has been read of it: by hyper, and before hyper.
fn bare_socket(upgraded: Upgraded) -> Option<BareSocket> {
    let upgraded = match take_out::<TcpStream>(upgraded) {
        Ok((stream, read)) => return Some((Bare { socket: bare_tcp(stream).ok()?, tls: None }, read)),
        Err(upgraded) => upgraded,
    };
    let upgraded = match take_out::<TlsStream>(upgraded) {
        Ok((stream, read)) => {
            let (stream, tls) = stream.into_parts();
            return Some((Bare { socket: bare_tcp(stream).ok()?, tls: Some(tls) }, read));
        }
        Err(upgraded) => upgraded,
    };
    let (stream, read) = take_out::<UnixStream>(upgraded).ok()?;
    Some((Bare { socket: bare_unix(stream).ok()?, tls: None }, read))
}

fn take_out<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(upgraded: Upgraded) -> Result<(S, Bytes), Upgraded> {
    let parts = upgraded.downcast::<HttpStream<S>>()?;
    let (unread, stream) = parts.io.into_inner().into_inner().into_parts();
    Ok((stream, read_of(parts.read_buf, unread)))
}

/// Checks the request itself; answers with the value of `Sec-WebSocket-Accept`.
pub(crate) fn check_handshake<B>(request: &Request<B>) -> Result<HeaderValue, (Option<Handshake>, Problem)> {
    let headers = request.headers();
    let wants_upgrade = has_token(headers, UPGRADE, "websocket");
    let tries = headers.contains_key(UPGRADE)
        || headers.contains_key(SEC_WEBSOCKET_KEY)
        || headers.contains_key(SEC_WEBSOCKET_VERSION);
    if !tries {
        return Err((None, upgrade_required("this path speaks WebSocket: connect with a WebSocket client")));
    }
    let malformed = |detail: &'static str| Err(malformed(detail));
    if request.version() != Version::HTTP_11 {
        return malformed("a WebSocket handshake needs HTTP/1.1");
    }
    if !wants_upgrade {
        return malformed("the Upgrade header must name websocket");
    }
    if !has_token(headers, CONNECTION, "upgrade") {
        return malformed("the Connection header must name upgrade");
    }
    if headers.contains_key(TRANSFER_ENCODING) || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0") {
        return malformed("a WebSocket handshake has no body");
    }
    match only(headers, SEC_WEBSOCKET_VERSION) {
        Some(version) if version == "13" => {}
        Some(_) => {
            return Err((Some(Handshake::Malformed), upgrade_required("only version 13 of WebSocket is spoken here")));
        }
        None => return malformed("exactly one Sec-WebSocket-Version header is needed"),
    }
    let Some(key) = only(headers, SEC_WEBSOCKET_KEY) else {
        return malformed("exactly one Sec-WebSocket-Key header is needed");
    };
    if STANDARD.decode(key.as_bytes()).map_or(0, |key| key.len()) != 16 {
        return malformed("Sec-WebSocket-Key must be 16 bytes in base64");
    }
    if only(headers, HOST).is_none() {
        return malformed("exactly one Host header is needed");
    }
    if !offers_tokens(headers) {
        return malformed("Sec-WebSocket-Protocol must be a list of tokens");
    }
    Ok(accept_value(key.as_bytes()))
}

fn malformed(detail: impl Into<Cow<'static, str>>) -> (Option<Handshake>, Problem) {
    (Some(Handshake::Malformed), Problem::new(StatusCode::BAD_REQUEST, "bad_handshake", detail))
}

/// RFC 6455 section 4.2.2: SHA-1 of the key and a fixed text, in base64.
fn accept_value(key: &[u8]) -> HeaderValue {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    HeaderValue::from_str(&STANDARD.encode(hash.finalize())).expect("base64 is a header value")
}

fn upgrade_required(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", detail)
}

/// The header's value if there is exactly one such line.
pub(crate) fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// True when a comma list, over all its lines, has the token in any case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Prefix of the subprotocol entry that carries a token.
pub(crate) const TOKEN_PROTOCOL: &str = "fanfare.token.";

pub(crate) fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

/// True unless a subprotocol is offered that is no token (RFC 6455 section 4.1, RFC 9110 section 5.6.2): the selected one is sent
/// back as it came.
fn offers_tokens(headers: &HeaderMap) -> bool {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .flat_map(<[u8]>::trim_ascii)
        .all(|&byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Browsers fail a connection that offered subprotocols and got none: the first that is not a token is selected, or the token's own
/// entry where it stands alone.
fn selected_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let selected =
        protocols(headers).find(|entry| !entry.starts_with(TOKEN_PROTOCOL)).or_else(|| protocols(headers).next())?;
    HeaderValue::from_str(selected).ok()
}
