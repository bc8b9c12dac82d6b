//! `POST /api/publish` and `POST /api/batch`: from a body to receipts.

use std::sync::Arc;

use fanfare_fanout::{Delivery, LaneId, Receipt};
use fanfare_guard::{Finding, Ruling};
use fanfare_protocol::{Payload, PayloadRef, Position, RoomName, UserName};
use fanfare_registry::{Draft, PublishError};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::body::{content_type, parse, read_body, too_large};
use super::rooms::parse_room;
use super::route::{Call, Form, Parameter, Route};
use crate::hub::{ConnectionId, Hub};
use crate::moderation::{HELD_FULL, HeldPublication, REJECTED};
use crate::problem::{Answer, Problem, json};
use crate::query;

/// Publications in one batch.
const BATCH_MAX: usize = 1_000;

const ROOM: Parameter = Parameter { name: "room", about: "the room, where the body is plain text", form: Form::Text };

pub(super) const ROUTES: &[Route] = &[
    Route::post("/api/publish", |call| Box::pin(publish(call))).query(&[ROOM]),
    Route::post("/api/batch", |call| Box::pin(batch(call))),
];

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
pub(super) enum Accepted {
    /// Into its room; the word of what became of it is still to come.
    Published { position: Position, delivery: oneshot::Receiver<Delivery> },
    /// For a moderator to see, under this number.
    Held(u64),
}

async fn publish(call: Call) -> Result<Answer, Problem> {
    let Call { hub, request, .. } = call;
    let is_text = content_type(&request).is_some_and(|kind| kind == "text/plain");
    let room = query::parameter(request.uri().query(), "room");
    let body = read_body(&hub, request, 1).await?;
    refuse_if_over(&hub)?;
    let checked = if is_text { check_text(&hub, room, &body)? } else { check(&hub, &parse(&body)?)? };
    receipt_answer(accept(&hub, checked)?).await
}

async fn batch(call: Call) -> Result<Answer, Problem> {
    let hub = call.hub.clone();
    let checked = check_batch(call).await?;
    // All are accepted, in order, before the first receipt is waited for: so they travel together.
    let accepted: Vec<_> = checked.into_iter().map(|checked| accept(&hub, checked)).collect();
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
    Ok(json(StatusCode::OK, &serde_json::json!({ "receipts": receipts })))
}

/// During a drain whoever is still here is served like before. Once nobody is, a publication belongs on another node.
fn refuse_if_over(hub: &Hub) -> Result<(), Problem> {
    if hub.drain().is_over() { Err(Problem::draining()) } else { Ok(()) }
}

/// Checks all before the first is published: a batch that breaks a rule leaves no trace.
async fn check_batch(call: Call) -> Result<Vec<Checked>, Problem> {
    let Call { hub, request, .. } = call;
    let body = read_body(&hub, request, 16).await?;
    refuse_if_over(&hub)?;
    let batch: BatchBody<'_> = parse(&body)?;
    if batch.publish.len() > BATCH_MAX {
        let detail = format!("a batch has at most {BATCH_MAX} publications");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "batch_too_long", detail));
    }
    batch.publish.iter().map(|body| check(&hub, body)).collect()
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
pub(super) fn release(hub: &Hub, publication: HeldPublication) -> Result<Accepted, Problem> {
    refuse_if_over(hub)?;
    let HeldPublication { room, user, payload, except, .. } = publication;
    publish_to(hub, &room, user, payload, except)
}

/// The answer once it is known what became of a publication.
pub(super) async fn receipt_answer(accepted: Accepted) -> Result<Answer, Problem> {
    let receipt = receipt(accepted).await?;
    Ok(json(receipt.status(), &receipt))
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
