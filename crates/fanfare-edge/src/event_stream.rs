//! `GET /room/{room}/sse`: a room as Server-Sent Events, for clients that only listen (WHATWG HTML, section 9.2).
//!
//! A stream that is let in becomes a connection of its shard like any other: only the head of its answer, and what is refused, is
//! HTTP. Unlike a WebSocket's handshake a request for a stream is refused with a status: `EventSource` shows a page no close code, but
//! does not come back after a status other than 200.

use std::cell::Cell;
use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use fanfare_guard::Verdict;
use fanfare_protocol::{CloseReason, Mode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

use crate::admission::{Admission, Door, admit, check_origin};
use crate::counters::Handshake;
use crate::gate::Permit;
use crate::http::{BareSocket, ClientContext, PermitCell};
use crate::hub::{Hub, PendingHandshake};
use crate::problem::{Answer, Problem, method_not_allowed, write_head};
use crate::upgrade::{self, take_place};

/// What may be asked of a stream's path.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// The answer to a request for a stream that is let in: its head. Nothing says where the stream ends but the end of the connection
/// (RFC 9112 section 6.3), so that its events are the same bytes for everybody; one that is cut off is dropped by who reads it.
#[derive(Debug)]
pub(crate) struct StreamHead {
    /// The page's origin, where the request came from one.
    origin: Option<HeaderValue>,
}

impl StreamHead {
    fn headers(&self) -> HeaderMap {
        let mut headers = cors(self.origin.as_ref());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // nginx would keep events back until it has a buffer full of them.
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        headers
    }

    /// The head as bytes.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut headers = self.headers();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now())) {
            headers.insert(DATE, date);
        }
        write_head("200 OK", &headers, out);
    }
}

/// Lets pages of this origin read the answer. Not with cookies: nothing here looks at any.
fn cors(origin: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    headers
}

/// A stream that is let in; otherwise how the request is counted, and why not.
pub(crate) type Considered = Result<(StreamHead, Admission), (Handshake, Problem)>;

/// Decides on a `GET` of a stream's path.
pub(crate) fn consider<B>(hub: &Hub, request: &Request<B>, door: Door<'_>) -> Considered {
    let admission = admit(hub, request, door)?;
    if let Some(reason) = admission.refused {
        return Err((Handshake::Refused, refusal(reason)));
    }
    if let Mode::Room(room) = admission.session.mode()
        && let Verdict::Deny(why) = hub.policy(room).may_subscribe(&admission.identity, room)
    {
        return Err((Handshake::Refused, Problem::new(StatusCode::FORBIDDEN, "not_allowed", why)));
    }
    Ok((StreamHead { origin: request.headers().get(ORIGIN).cloned() }, admission))
}

/// What a WebSocket would be closed with at once, over HTTP.
fn refusal(reason: CloseReason) -> Problem {
    let status = match reason.code().0 {
        4401 => StatusCode::UNAUTHORIZED,
        4409 => StatusCode::CONFLICT,
        4429 => StatusCode::TOO_MANY_REQUESTS,
        4500.. => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::FORBIDDEN,
    };
    Problem::new(status, reason.label(), reason.text())
}

/// A stream on its way to its shard: what is said first, who comes, and its place at the gate.
#[derive(Debug)]
pub(crate) struct Granted {
    head: StreamHead,
    admission: Admission,
    permit: Permit,
    /// The shard waits for it.
    _pending: PendingHandshake,
}

/// Where a stream that is let in waits for its socket.
pub(crate) type Handover = Rc<Cell<Option<Granted>>>;

/// Answers a request on a stream's path that hyper has read. What is let in gets no answer from hyper: `handover` is told, and the socket
/// is taken out of it.
pub(crate) async fn answer(
    context: &Rc<ClientContext>,
    request: &Request<Incoming>,
    door: Door<'_>,
    permit: &PermitCell,
    handover: &Handover,
) -> Answer {
    let hub = &context.hub;
    if request.method() == Method::OPTIONS {
        return match check_origin(hub, request) {
            Ok(()) => preflight(request.headers().get(ORIGIN)),
            Err((result, problem)) => refused(hub, request, (result, &problem)),
        };
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed(METHODS);
    }
    let (head, admission) = match consider(hub, request, door) {
        Ok(let_in) => let_in,
        Err((result, problem)) => return refused(hub, request, (result, &problem)),
    };
    if request.method() == Method::HEAD {
        let mut answer = Response::new(Full::new(Bytes::new()));
        answer.headers_mut().extend(head.headers());
        return answer;
    }
    let permit = match take_place(context, request.headers(), permit) {
        Ok(permit) => permit,
        Err(problem) => return with_cors(request, &problem),
    };
    let _pending = hub.begin_handshake(context.shard);
    handover.set(Some(Granted { head, admission, permit, _pending }));
    // The socket is taken from under this.
    std::future::pending().await
}

fn preflight(origin: Option<&HeaderValue>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.extend(cors(origin));
    headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    // EventSource asks for none of these; who reads a stream with `fetch` may.
    let asked = HeaderValue::from_static("authorization, cache-control, last-event-id");
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    answer
}

/// Why not. A page that might have been let in may read it.
fn refused<B>(hub: &Hub, request: &Request<B>, (result, problem): (Handshake, &Problem)) -> Answer {
    if request.method() != Method::OPTIONS && request.method() != Method::HEAD {
        hub.counters().handshake(result);
    }
    if result == Handshake::Origin { problem.answer() } else { with_cors(request, problem) }
}

fn with_cors<B>(request: &Request<B>, problem: &Problem) -> Answer {
    let mut answer = problem.answer();
    answer.headers_mut().extend(cors(request.headers().get(ORIGIN)));
    answer
}

/// Gives the bare socket to the shard's loop, which says the head of the answer first. `None`: it could not be taken out of hyper.
pub(crate) fn hand_over(context: &ClientContext, granted: Granted, socket: Option<BareSocket>) {
    let Granted { head, admission, permit, _pending } = granted;
    let mut opening = Vec::with_capacity(512);
    head.write(&mut opening);
    upgrade::hand_over(context, socket, opening, admission, permit);
}
