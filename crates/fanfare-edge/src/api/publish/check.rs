//! From a body to a publication that may be accepted: nothing has been published while this can still refuse it.

use fanfare_guard::{Finding, Ruling};
use fanfare_protocol::{JSON_DEPTH_MAX, Payload, PayloadRef, RoomName, nests_deeper};
use hyper::StatusCode;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{BatchBody, PublishBody, refuse_if_over};
use crate::api::body::{parse, read_body, too_large};
use crate::api::rooms::parse_room;
use crate::api::route::Call;
use crate::api::traced::{CallSpan, Verdict};
use crate::hub::{ConnectionId, Hub};
use crate::idempotency::{Claim, Outcome, Turn};
use crate::moderation::REJECTED;
use crate::problem::Problem;

/// Publications in one batch.
const BATCH_MAX: usize = 1_000;

/// Longest idempotency key, bytes.
const KEY_BYTES_MAX: usize = 255;

/// A publication that has been checked.
pub(super) enum Checked {
    New(NewPublication),
    /// It was sent before.
    Repeat(watch::Receiver<Outcome>),
}

impl Checked {
    /// What is new in it.
    pub(super) fn publication(&self) -> Option<&NewPublication> {
        match self {
            Self::New(publication) => Some(publication),
            Self::Repeat(_) => None,
        }
    }
}

/// One that was not sent before.
pub(super) struct NewPublication {
    pub(super) room: RoomName,
    pub(super) payload: Payload,
    pub(super) except: Option<ConnectionId>,
    /// Why it is to wait for a moderator.
    pub(super) hold: Option<Finding>,
    pub(super) verdict: Verdict,
    /// Where it has an idempotency key.
    pub(super) turn: Option<Turn>,
}

/// Checks all before the first is published: a batch that breaks a rule leaves no trace.
pub(super) async fn check_batch(call: Call, span: &mut CallSpan) -> Result<Vec<Checked>, Problem> {
    let Call { hub, request, .. } = call;
    let body = read_body(&hub, request, 16).await?;
    span.body_read(body.len());
    refuse_if_over(&hub)?;
    let batch: BatchBody<'_> = parse(&body)?;
    if batch.publish.len() > BATCH_MAX {
        let detail = format!("a batch has at most {BATCH_MAX} publications");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "batch_too_long", detail));
    }
    let check = |(index, body): (usize, &&RawValue)| {
        let checked = parse(body.get().as_bytes()).and_then(|body| check(&hub, &body));
        checked.map_err(|problem| Problem { detail: format!("publish[{index}]: {}", problem.detail).into(), ..problem })
    };
    batch.publish.iter().enumerate().map(check).collect()
}

pub(super) fn check(hub: &Hub, body: &PublishBody<'_>) -> Result<Checked, Problem> {
    let except = match &body.except {
        None => None,
        Some(id) => Some(id.parse().map_err(|()| {
            let detail = "except is the connection id that `welcome` gave";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_connection", detail)
        })?),
    };
    let payload = PayloadRef::Json(body.message.get());
    let room = check_size_and_room(hub, &body.room, payload)?;
    let turn = match &body.idempotency_key {
        None => None,
        Some(key) => match claim(hub, key, body)? {
            Claim::First(turn) => Some(turn),
            Claim::Repeat(outcome) => return Ok(Checked::Repeat(outcome)),
            Claim::Conflict => {
                let detail = "this idempotency key was used for another publication; use one key for one publication";
                return Err(Problem::new(StatusCode::CONFLICT, "idempotency_conflict", detail));
            }
        },
    };
    judge(hub, room, payload, except, turn)
}

/// Whether the publication was sent before under its key: in the same words to the same room.
fn claim(hub: &Hub, key: &str, body: &PublishBody<'_>) -> Result<Claim, Problem> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let detail = format!("idempotency_key has 1 to {KEY_BYTES_MAX} bytes");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_idempotency_key", detail));
    }
    let mut digest = Sha256::new();
    for part in [&*body.room, body.message.get(), body.except.as_deref().unwrap_or_default()] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    Ok(hub.idempotency().claim(key, digest.finalize().into(), hub.now()))
}

pub(super) fn check_text(hub: &Hub, room: Option<String>, body: &[u8]) -> Result<Checked, Problem> {
    let Some(room) = room else {
        let detail = "a plain-text publish names its room in the query: /api/publish?room=lobby";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "room_missing", detail));
    };
    let Ok(text) = std::str::from_utf8(body) else {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_utf8", "the body is not UTF-8 text"));
    };
    let room = check_size_and_room(hub, &room, PayloadRef::Text(text))?;
    judge(hub, room, PayloadRef::Text(text), None, None)
}

fn check_size_and_room(hub: &Hub, room: &str, payload: PayloadRef<'_>) -> Result<RoomName, Problem> {
    let max = hub.settings().messages.message_bytes_max;
    if payload.len() > max {
        return Err(too_large(max));
    }
    // The event has an object around it.
    if let PayloadRef::Json(json) = payload
        && nests_deeper(json, JSON_DEPTH_MAX - 1)
    {
        let detail = format!("the message nests more than {} levels deep", JSON_DEPTH_MAX - 1);
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too_deep", detail));
    }
    parse_room(room)
}

/// Asks moderation.
fn judge(
    hub: &Hub,
    room: RoomName,
    payload: PayloadRef<'_>,
    except: Option<ConnectionId>,
    turn: Option<Turn>,
) -> Result<Checked, Problem> {
    let (payload, verdict, hold) = match hub.judge(&room, payload) {
        Ruling::Pass => (payload.to_payload(), Verdict::Pass, None),
        Ruling::Observe(_) => (payload.to_payload(), Verdict::Observe, None),
        Ruling::Mask(_, masked) => (masked, Verdict::Mask, None),
        Ruling::Reject(_) => return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "rejected", REJECTED)),
        Ruling::Hold(finding) => (payload.to_payload(), Verdict::Hold, Some(finding)),
    };
    Ok(Checked::New(NewPublication { room, payload, except, hold, verdict, turn }))
}
