//! The HTTP API of backends and operators.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_fanout::{Delivery, LaneId, Receipt};
use fanfare_guard::{Finding, Ruling};
use fanfare_protocol::{
    HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, HistoryPage, Payload, PayloadRef, Position, RoomName, UserName,
};
use fanfare_registry::{Draft, PageQuery, Portion, PublishError, RoomInfo};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use hyper::{Method, Request, StatusCode};
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;

use crate::held;
use crate::hub::{ConnectionId, Hub};
use crate::moderation::{HELD_FULL, HeldPublication, REJECTED};
use crate::problem::{Answer, Problem, json, method_not_allowed, not_found, with_type};
use crate::query;

/// Publications in one batch.
const BATCH_MAX: usize = 1_000;

/// Rooms in one answer.
const ROOMS_MAX: usize = 1_000;
const ROOMS_DEFAULT: usize = 100;

/// Bytes of messages in one page of history.
const HISTORY_BYTES_MAX: usize = 1024 * 1024;

/// Bytes a body may have beyond the largest message: the fields around it.
const BODY_OVERHEAD_BYTES: usize = 4_096;

/// Answers a request under `/api/`.
pub(crate) async fn route(hub: &Arc<Hub>, request: Request<Incoming>) -> Answer {
    if let Err(problem) = check_origin(hub, &request).and_then(|()| check_key(hub, &request)) {
        return problem.answer();
    }
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::POST, "/api/publish") => publish(hub, request).await,
        (&Method::POST, "/api/batch") => batch(hub, request).await,
        (&Method::GET, "/api/rooms") => list_rooms(hub, request.uri().query()),
        (&Method::GET, "/api/held") => held::list(hub, request.uri().query()),
        (_, "/api/publish" | "/api/batch") => method_not_allowed("POST"),
        (_, "/api/rooms" | "/api/held") => method_not_allowed("GET"),
        (method, path) => match (path.strip_prefix("/api/rooms/"), path.strip_prefix("/api/held/")) {
            (Some(rest), _) => match rest.split_once('/') {
                None if !rest.is_empty() => one_room(hub, method, rest),
                Some((name, "history")) => history(hub, method, name, request.uri().query()),
                _ => not_found(),
            },
            (_, Some(rest)) => held::act(hub, method, rest).await,
            _ => not_found(),
        },
    }
}

/// Backends send no Origin; a page of a foreign origin must not publish through a developer's open API.
fn check_origin(hub: &Hub, request: &Request<Incoming>) -> Result<(), Problem> {
    let headers = request.headers();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_allowed = headers
        .get_all(ORIGIN)
        .iter()
        .all(|origin| origin.to_str().is_ok_and(|origin| hub.settings().origins.allows(Some(origin), host)));
    if is_allowed {
        return Ok(());
    }
    let detail = "pages of this origin may not call the API; the operator can allow it under `origins`";
    Err(Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed", detail))
}

fn check_key(hub: &Hub, request: &Request<Incoming>) -> Result<(), Problem> {
    let settings = &hub.settings().api;
    if settings.is_open {
        return Ok(());
    }
    let unauthorized = |code, detail: &'static str| Err(Problem::new(StatusCode::UNAUTHORIZED, code, detail));
    if settings.keys.is_empty() {
        return unauthorized("no_api_keys", "this node has no API key: set `api.keys` in its configuration");
    }
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let Some(given) = given else {
        return unauthorized("key_missing", "send `Authorization: Bearer <api key>`");
    };
    // All keys are looked at, each in constant time, so that the answer's timing tells nothing about them.
    let is_known =
        settings.keys.iter().fold(false, |known, key| known | bool::from(key.as_bytes().ct_eq(given.as_bytes())));
    if is_known { Ok(()) } else { unauthorized("key_wrong", "this API key is not known here") }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishBody<'a> {
    room: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    message: &'a RawValue,
    except: Option<String>,
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody<'a> {
    #[serde(borrow)]
    publish: Vec<PublishBody<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ReceiptBody {
    Published {
        epoch: String,
        offset: u64,
        delivered: u64,
        dropped: u64,
        evicted: u64,
    },
    /// It has no place in the room yet, and nobody got it.
    Held {
        held: u64,
        delivered: u64,
        dropped: u64,
        evicted: u64,
    },
}

impl ReceiptBody {
    fn status(&self) -> StatusCode {
        match self {
            Self::Published { .. } => StatusCode::OK,
            Self::Held { .. } => StatusCode::ACCEPTED,
        }
    }
}

/// A publication that has been checked.
struct Checked {
    room: RoomName,
    payload: Payload,
    except: Option<ConnectionId>,
    /// Why it is to wait for a moderator.
    hold: Option<Finding>,
}

/// A publication that was accepted.
pub(crate) enum Accepted {
    /// Into its room; the word of what became of it is still to come.
    Published { position: Position, delivery: oneshot::Receiver<Delivery> },
    /// For a moderator to see, under this number.
    Held(u64),
}

async fn publish(hub: &Arc<Hub>, request: Request<Incoming>) -> Answer {
    match try_publish(hub, request).await {
        Ok(receipt) => json(receipt.status(), &receipt),
        Err(problem) => problem.answer(),
    }
}

async fn try_publish(hub: &Arc<Hub>, request: Request<Incoming>) -> Result<ReceiptBody, Problem> {
    let is_text = content_type(&request).is_some_and(|kind| kind == "text/plain");
    let room = query::parameter(request.uri().query(), "room");
    let body = read_body(hub, request, 1).await?;
    let checked = if is_text { check_text(hub, room, &body)? } else { check(hub, &parse(&body)?)? };
    receipt(accept(hub, checked)?).await
}

async fn batch(hub: &Arc<Hub>, request: Request<Incoming>) -> Answer {
    let checked = match check_batch(hub, request).await {
        Ok(checked) => checked,
        Err(problem) => return problem.answer(),
    };
    // All are accepted, in order, before the first receipt is waited for: so they travel together.
    let accepted: Vec<_> = checked.into_iter().map(|checked| accept(hub, checked)).collect();
    let mut receipts = Vec::with_capacity(accepted.len());
    for accepted in accepted {
        let result = match accepted {
            Ok(accepted) => receipt(accepted).await,
            Err(problem) => Err(problem),
        };
        // Overload in the middle is told in the place of that receipt: the others stand.
        receipts.push(match result {
            Ok(receipt) => serde_json::json!(receipt),
            Err(Problem { status, code, detail }) => {
                serde_json::json!({ "error": { "status": status.as_u16(), "code": code, "detail": detail } })
            }
        });
    }
    json(StatusCode::OK, &serde_json::json!({ "receipts": receipts }))
}

/// Checks all before the first is published: a batch that breaks a rule leaves no trace.
async fn check_batch(hub: &Hub, request: Request<Incoming>) -> Result<Vec<Checked>, Problem> {
    let body = read_body(hub, request, 16).await?;
    let batch: BatchBody<'_> = parse(&body)?;
    if batch.publish.len() > BATCH_MAX {
        let detail = format!("a batch has at most {BATCH_MAX} publications");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "batch_too_long", detail));
    }
    batch.publish.iter().map(|body| check(hub, body)).collect()
}

fn content_type(request: &Request<Incoming>) -> Option<String> {
    let value = request.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Reads a body of at most `messages` messages of the largest size.
async fn read_body(hub: &Hub, request: Request<Incoming>, messages: usize) -> Result<Bytes, Problem> {
    let max = messages * (hub.settings().messages.message_bytes_max + BODY_OVERHEAD_BYTES);
    let body = request.into_body();
    if body.size_hint().lower() > max as u64 {
        // Announced too long: there is no need to wait for it.
        return Err(too_large(max));
    }
    let reading = Limited::new(body, max).collect();
    match tokio::time::timeout(hub.settings().handshake, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(max)),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "bad_body", "the body could not be read")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body did not arrive in time")),
    }
}

fn too_large(max: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("at most {max} bytes are taken"))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    // Without this look an array would do: serde takes its elements for the fields in order.
    let parsed = match body.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice::<IgnoredAny>(body)
            .and_then(|_| Err(serde_json::Error::custom("expected an object"))),
        _ => serde_json::from_slice(body),
    };
    parsed.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", error.to_string())
        }
        _ => Problem::new(StatusCode::BAD_REQUEST, "bad_json", error.to_string()),
    })
}

fn check(hub: &Hub, body: &PublishBody<'_>) -> Result<Checked, Problem> {
    if body.idempotency_key.is_some() {
        let detail = "idempotency_key is not available in this version; leave it out";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_available", detail));
    }
    let except = match &body.except {
        None => None,
        Some(id) => Some(id.parse().map_err(|()| {
            let detail = "except is the connection id that `welcome` gave";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_connection", detail)
        })?),
    };
    checked(hub, &body.room, PayloadRef::Json(body.message.get()), except)
}

fn check_text(hub: &Hub, room: Option<String>, body: &[u8]) -> Result<Checked, Problem> {
    let Some(room) = room else {
        let detail = "a plain-text publish names its room in the query: /api/publish?room=lobby";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "room_missing", detail));
    };
    let Ok(text) = std::str::from_utf8(body) else {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_utf8", "the body is not UTF-8 text"));
    };
    checked(hub, &room, PayloadRef::Text(text), None)
}

fn checked(hub: &Hub, room: &str, payload: PayloadRef<'_>, except: Option<ConnectionId>) -> Result<Checked, Problem> {
    let max = hub.settings().messages.message_bytes_max;
    if payload.len() > max {
        return Err(too_large(max));
    }
    let room = parse_room(room)?;
    let (payload, hold) = match hub.judge(&room, payload) {
        Ruling::Pass | Ruling::Observe(_) => (payload.to_payload(), None),
        Ruling::Mask(_, masked) => (masked, None),
        Ruling::Reject(_) => return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "rejected", REJECTED)),
        Ruling::Hold(finding) => (payload.to_payload(), Some(finding)),
    };
    Ok(Checked { room, payload, except, hold })
}

fn parse_room(room: &str) -> Result<RoomName, Problem> {
    RoomName::parse(room).map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_room", error.to_string()))
}

fn accept(hub: &Hub, checked: Checked) -> Result<Accepted, Problem> {
    let Checked { room, payload, except, hold } = checked;
    let except = except.map(|id| (id.shard, id.lane));
    if let Some(finding) = hold {
        let held = hub.hold(HeldPublication { room, user: None, payload, except, finding, at: hub.now() });
        let full = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "held_full", HELD_FULL);
        return held.map(Accepted::Held).ok_or_else(full);
    }
    publish_to(hub, &room, None, payload, except)
}

/// Publishes what a moderator has seen and let go.
pub(crate) fn release(hub: &Hub, publication: HeldPublication) -> Result<Accepted, Problem> {
    let HeldPublication { room, user, payload, except, .. } = publication;
    publish_to(hub, &room, user, payload, except)
}

/// The answer once it is known what became of a publication.
pub(crate) async fn receipt_answer(accepted: Accepted) -> Answer {
    match receipt(accepted).await {
        Ok(receipt) => json(receipt.status(), &receipt),
        Err(problem) => problem.answer(),
    }
}

fn publish_to(
    hub: &Hub,
    room: &RoomName,
    user: Option<UserName>,
    payload: Payload,
    except: Option<(usize, LaneId)>,
) -> Result<Accepted, Problem> {
    let (tell, delivery) = oneshot::channel();
    let receipt = Arc::new(Receipt::new(move |delivery| {
        // Whoever asked may have gone; the publication stands all the same.
        let _ = tell.send(delivery);
    }));
    let draft = Draft { user, payload, except, receipt: Some(receipt) };
    match hub.registry().publish(room, hub.room_options(room), draft, hub.now()) {
        Ok(receipted) => Ok(Accepted::Published { position: receipted.position, delivery }),
        Err(error) => {
            let code = match error {
                PublishError::Overloaded => "overloaded",
                PublishError::RoomsMax => "rooms_max",
            };
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string()))
        }
    }
}

async fn receipt(accepted: Accepted) -> Result<ReceiptBody, Problem> {
    let (position, delivery) = match accepted {
        Accepted::Published { position, delivery } => (position, delivery),
        Accepted::Held(held) => return Ok(ReceiptBody::Held { held, delivered: 0, dropped: 0, evicted: 0 }),
    };
    let Ok(Delivery { delivered, dropped, evicted }) = delivery.await else {
        let detail = "the publication was accepted, but the node ended before all of it was delivered";
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "interrupted", detail));
    };
    let Position { epoch, offset } = position;
    Ok(ReceiptBody::Published { epoch: Position::epoch_text(epoch), offset, delivered, dropped, evicted })
}

#[derive(Serialize)]
struct RoomBody {
    room: String,
    occupancy: u64,
    epoch: String,
    offset: u64,
    age_ms: u64,
}

impl RoomBody {
    fn new(hub: &Hub, info: &RoomInfo) -> Self {
        Self {
            room: info.name.to_string(),
            occupancy: info.occupancy,
            epoch: Position::epoch_text(info.position.epoch),
            offset: info.position.offset,
            age_ms: hub.now().saturating_sub(info.created).as_millis() as u64,
        }
    }
}

fn list_rooms(hub: &Hub, query: Option<&str>) -> Answer {
    let prefix = query::parameter(query, "prefix").unwrap_or_default();
    let after = query::parameter(query, "after").unwrap_or_default();
    let limit = match limit(query, ROOMS_DEFAULT, ROOMS_MAX) {
        Ok(limit) => limit,
        Err(problem) => return problem.answer(),
    };
    // One more than asked for tells whether there is a next page.
    let mut rooms = hub.registry().list(&prefix, &after, limit + 1);
    let has_more = rooms.len() > limit;
    rooms.truncate(limit);
    let next = rooms.last().filter(|_| has_more).map(|info| info.name.to_string());
    let rooms: Vec<_> = rooms.iter().map(|info| RoomBody::new(hub, info)).collect();
    json(StatusCode::OK, &serde_json::json!({ "rooms": rooms, "next": next }))
}

/// The number asked for in `limit`, from 1 to `max`.
fn limit(query: Option<&str>, default: usize, max: usize) -> Result<usize, Problem> {
    match query::parameter(query, "limit").map(|limit| limit.parse::<usize>()) {
        None => Ok(default),
        Some(Ok(limit)) if (1..=max).contains(&limit) => Ok(limit),
        Some(_) => {
            let detail = format!("limit is a number from 1 to {max}");
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_limit", detail))
        }
    }
}

fn history(hub: &Hub, method: &Method, name: &str, query: Option<&str>) -> Answer {
    if method != Method::GET {
        return method_not_allowed("GET");
    }
    match try_history(hub, name, query) {
        Ok(page) => with_type(StatusCode::OK, "application/json", page.to_json().into()),
        Err(problem) => problem.answer(),
    }
}

fn try_history(hub: &Hub, name: &str, query: Option<&str>) -> Result<HistoryPage, Problem> {
    let name = parse_room(&query::segment(name).unwrap_or_default())?;
    let since = query::parameter(query, "since").map(|since| since.parse::<Position>()).transpose();
    let since = since.map_err(|detail| Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail))?;
    let messages_max = limit(query, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX)?;
    let options = hub.room_options(&name);
    if !options.history.is_on() {
        let detail = format!("no history is kept in the room {name}: `history_size` of its namespace is 0");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_available", detail));
    }
    if hub.registry().get(&name).is_none() {
        return Err(no_room(&name));
    }
    let portion = Portion { messages_max, bytes_max: HISTORY_BYTES_MAX };
    let page = hub.registry().history(&name, options, &PageQuery { since, portion }, hub.now());
    let page = page.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "rooms_max", error.to_string()))?;
    Ok(hub.history_page(page, since.is_some()))
}

fn no_room(name: &RoomName) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_room", format!("there is no room {name} on this node now"))
}

fn one_room(hub: &Hub, method: &Method, name: &str) -> Answer {
    let name = query::segment(name).unwrap_or_default();
    let name = match parse_room(&name) {
        Ok(name) => name,
        Err(problem) => return problem.answer(),
    };
    match *method {
        Method::GET => match hub.registry().get(&name) {
            Some(room) => json(StatusCode::OK, &RoomBody::new(hub, &room.info())),
            None => no_room(&name).answer(),
        },
        Method::DELETE if hub.registry().close(&name) => {
            json(StatusCode::OK, &serde_json::json!({ "room": name.as_str(), "closed": true }))
        }
        Method::DELETE => no_room(&name).answer(),
        _ => method_not_allowed("GET, DELETE"),
    }
}
