//! `POST /api/publish` and `POST /api/batch`: from a body to receipts.

use std::sync::{Arc, OnceLock};

use fanfare_fanout::{Delivery, LaneId, Receipt};
use fanfare_guard::{Finding, Ruling};
use fanfare_protocol::{JSON_DEPTH_MAX, Payload, PayloadRef, Position, RoomName, UserName, nests_deeper};
use fanfare_registry::PublishError;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio::sync::{oneshot, watch};

use super::body::{content_type, parse, read_body, too_large};
use super::rooms::parse_room;
use super::route::{Call, Form, Parameter, Route};
use super::traced::{CallSpan, Verdict, traced};
use crate::engine::{Engine, Shared, Unpublished};
use crate::hub::{ConnectionId, Hub};
use crate::idempotency::{Claim, Outcome, Turn};
use crate::moderation::{HELD_FULL, HeldPublication, REJECTED};
use crate::problem::{Answer, Problem, json};
use crate::query;

/// Publications in one batch.
const BATCH_MAX: usize = 1_000;

/// Longest idempotency key, bytes.
const KEY_BYTES_MAX: usize = 255;

/// Says that nothing was published again.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

const ROOM: Parameter = Parameter { name: "room", about: "the room, where the body is plain text", form: Form::Text };

pub(super) const ROUTES: &[Route] = &[
    Route::post("/api/publish", |call| Box::pin(traced(call, publish))).query(&[ROOM]).about(
        "Publish a message to a room",
        |it| {
            it.body::<PublishBody<'static>>().text();
            it.answer::<ReceiptBody>(200, "what became of it").answer::<ReceiptBody>(202, "it waits for a moderator");
        },
    ),
    Route::post("/api/batch", |call| Box::pin(traced(call, batch))).about(
        "Publish many messages, all checked before the first",
        |it| {
            it.body::<BatchBody<'static>>();
            it.answer::<ReceiptsBody>(200, "a receipt each, in order");
        },
    ),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishBody<'a> {
    /// 1 to 200 bytes, without white space, control characters, `/`, `?` and `#`.
    #[schemars(pattern(r"^[^\s/?#\x00-\x20\x7f-\xa0]+$"), length(max = 200))]
    pub(super) room: std::borrow::Cow<'a, str>,
    /// Any JSON; it is passed on byte for byte.
    #[serde(borrow)]
    #[schemars(with = "serde_json::Value")]
    pub(super) message: &'a RawValue,
    /// Id of a connection it is not for.
    #[schemars(pattern(r"^[0-9a-f]{1,8}-[0-9a-f]{1,8}-[0-9a-f]{1,8}$"))]
    pub(super) except: Option<String>,
    /// Sent again with the same key it is not published again.
    #[schemars(length(min = 1, max = 255))]
    pub(super) idempotency_key: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BatchBody<'a> {
    /// Each is read by itself: an array would do for an object otherwise.
    #[serde(borrow)]
    #[schemars(with = "Vec<PublishBody<'static>>", length(max = 1000))]
    publish: Vec<&'a RawValue>,
}

/// What became of a publication.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Receipt")]
pub(super) struct ReceiptBody {
    /// The room's life it was published in, 16 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<String>,
    /// Its number in that life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u64>,
    /// It waits for a moderator under this number; it has no place in the room yet, and nobody got it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) held: Option<u64>,
    /// Subscribers it was written to or queued for.
    pub(super) delivered: u64,
    /// Subscribers that stay but did not get it.
    pub(super) dropped: u64,
    /// Subscribers that were closed because they could not take it.
    pub(super) evicted: u64,
    /// It was sent before with the same idempotency key: this is the receipt of then, and nothing was published again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) repeated: bool,
}

impl ReceiptBody {
    fn published(position: Position, delivery: Delivery) -> Self {
        let Delivery { delivered, dropped, evicted } = delivery;
        let epoch = Some(Position::epoch_text(position.epoch));
        Self { epoch, offset: Some(position.offset), held: None, delivered, dropped, evicted, repeated: false }
    }

    fn held(held: u64) -> Self {
        Self { epoch: None, offset: None, held: Some(held), delivered: 0, dropped: 0, evicted: 0, repeated: false }
    }

    fn answer(&self) -> Answer {
        let status = if self.held.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
        let mut answer = json(status, self);
        if self.repeated {
            answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        answer
    }
}

/// What became of the entries of a batch.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Receipts")]
struct ReceiptsBody {
    receipts: Vec<EntryBody>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "BatchEntry")]
pub(super) enum EntryBody {
    Receipt(ReceiptBody),
    Refused { error: RefusedBody },
}

/// Why one entry of a batch was refused while others were not.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Refused")]
pub(super) struct RefusedBody {
    status: u16,
    pub(super) code: &'static str,
    detail: String,
}

/// A publication that has been checked.
enum Checked {
    New(Draft),
    /// It was sent before.
    Repeat(watch::Receiver<Outcome>),
}

impl Checked {
    /// What is new in it.
    fn draft(&self) -> Option<&Draft> {
        match self {
            Self::New(draft) => Some(draft),
            Self::Repeat(_) => None,
        }
    }
}

/// One that was not sent before.
struct Draft {
    room: RoomName,
    payload: Payload,
    except: Option<ConnectionId>,
    /// Why it is to wait for a moderator.
    hold: Option<Finding>,
    verdict: Verdict,
    /// Where it has an idempotency key.
    turn: Option<Turn>,
}

/// A publication that was accepted.
pub(super) enum Accepted {
    /// Into its room; the word of what became of it is still to come.
    Published { position: Position, delivery: oneshot::Receiver<Delivery> },
    /// To the engine: it has its place, and its word, once it has come back.
    Posted(oneshot::Receiver<Result<(Position, Delivery), Unpublished>>),
    /// For a moderator to see, under this number.
    Held(u64),
    /// One with a key, by this call or by an earlier one.
    Keyed { outcome: watch::Receiver<Outcome>, is_repeat: bool },
}

async fn publish(call: Call, span: &mut CallSpan) -> Result<Answer, Problem> {
    let Call { hub, request, .. } = call;
    let is_text = content_type(&request).is_some_and(|kind| kind == "text/plain");
    let room = query::parameter(request.uri().query(), "room");
    let body = read_body(&hub, request, 1).await?;
    span.body_read(body.len());
    refuse_if_over(&hub)?;
    let checked = if is_text { check_text(&hub, room, &body)? } else { check(&hub, &parse(&body)?)? };
    span.checked(checked.draft().map(|draft| draft.verdict).into_iter());
    let mut publishing = span.publish(1, checked.draft().map(|draft| &draft.room).into_iter());
    let receipt = async {
        let accepted = accept(&hub, checked)?;
        publishing.accepted();
        receipt(accepted).await
    };
    let receipt = receipt.await;
    publishing.receipt(&receipt);
    Ok(receipt?.answer())
}

async fn batch(call: Call, span: &mut CallSpan) -> Result<Answer, Problem> {
    let hub = call.hub.clone();
    let checked = check_batch(call, span).await?;
    let drafts = || checked.iter().filter_map(Checked::draft);
    span.checked(drafts().map(|draft| draft.verdict));
    let mut publishing = span.publish(checked.len(), drafts().map(|draft| &draft.room));
    // All are accepted, in order, before the first receipt is waited for: so they travel together.
    let accepted: Vec<_> = checked.into_iter().map(|checked| accept(&hub, checked)).collect();
    publishing.accepted();
    let mut receipts = Vec::with_capacity(accepted.len());
    for accepted in accepted {
        let result = match accepted {
            Ok(accepted) => receipt(accepted).await,
            Err(problem) => Err(problem),
        };
        // Overload in the middle is told in the place of that receipt: the others stand.
        receipts.push(match result {
            Ok(receipt) => EntryBody::Receipt(receipt),
            Err(Problem { status, code, detail }) => {
                EntryBody::Refused { error: RefusedBody { status: status.as_u16(), code, detail: detail.into_owned() } }
            }
        });
    }
    publishing.receipts(&receipts);
    Ok(json(StatusCode::OK, &ReceiptsBody { receipts }))
}

/// During a drain whoever is still here is served like before. Once nobody is, a publication belongs on another node.
fn refuse_if_over(hub: &Hub) -> Result<(), Problem> {
    if hub.drain().is_over() { Err(Problem::draining()) } else { Ok(()) }
}

/// Checks all before the first is published: a batch that breaks a rule leaves no trace.
async fn check_batch(call: Call, span: &mut CallSpan) -> Result<Vec<Checked>, Problem> {
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

fn check(hub: &Hub, body: &PublishBody<'_>) -> Result<Checked, Problem> {
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

fn check_text(hub: &Hub, room: Option<String>, body: &[u8]) -> Result<Checked, Problem> {
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
    Ok(Checked::New(Draft { room, payload, except, hold, verdict, turn }))
}

fn accept(hub: &Hub, checked: Checked) -> Result<Accepted, Problem> {
    let draft = match checked {
        Checked::New(draft) => draft,
        Checked::Repeat(outcome) => return Ok(Accepted::Keyed { outcome, is_repeat: true }),
    };
    let Draft { room, payload, except, hold, turn, .. } = draft;
    let except = except.map(|id| (id.shard, id.lane));
    if let Some(finding) = hold {
        let held = hub.hold(HeldPublication { room, user: None, payload, except, finding, at: hub.now() });
        let Some(held) = held else {
            return Err(refused(turn, Problem::new(StatusCode::SERVICE_UNAVAILABLE, "held_full", HELD_FULL)));
        };
        return Ok(match turn {
            None => Accepted::Held(held),
            Some(turn) => Accepted::Keyed { outcome: turn.take(|outcome| outcome.held = Some(held)), is_repeat: false },
        });
    }
    let Some(turn) = turn else { return publish_to(hub, &room, None, payload, except) };
    if let Some(engine) = hub.engine() {
        return post_keyed(hub, engine, Shared { room, user: None, payload, except, receipt: None }, turn);
    }
    let outcome = turn.outcome();
    // Written by the shard that is done last, whether or not the caller still waits.
    let done = move |delivery| outcome.send_modify(|outcome| outcome.delivery = Some(delivery));
    match try_publish(hub, &room, None, payload, except, done) {
        Ok(position) => {
            let outcome = turn.take(|outcome| outcome.position = Some(position));
            Ok(Accepted::Keyed { outcome, is_repeat: false })
        }
        Err(problem) => Err(refused(Some(turn), problem)),
    }
}

fn refused(turn: Option<Turn>, problem: Problem) -> Problem {
    if let Some(turn) = turn {
        turn.refuse(&problem);
    }
    problem
}

/// Publishes what a moderator has seen and let go.
pub(super) fn release(hub: &Hub, publication: HeldPublication) -> Result<Accepted, Problem> {
    refuse_if_over(hub)?;
    let HeldPublication { room, user, payload, except, .. } = publication;
    publish_to(hub, &room, user, payload, except)
}

/// The answer once it is known what became of a publication.
pub(super) async fn receipt_answer(accepted: Accepted) -> Result<Answer, Problem> {
    Ok(receipt(accepted).await?.answer())
}

fn publish_to(
    hub: &Hub,
    room: &RoomName,
    user: Option<UserName>,
    payload: Payload,
    except: Option<(usize, LaneId)>,
) -> Result<Accepted, Problem> {
    if let Some(engine) = hub.engine() {
        return post(hub, engine, Shared { room: room.clone(), user, payload, except, receipt: None });
    }
    let (tell, delivery) = oneshot::channel();
    let done = move |delivery| {
        // Whoever asked may have gone; the publication stands all the same.
        let _ = tell.send(delivery);
    };
    let position = try_publish(hub, room, user, payload, except, done)?;
    Ok(Accepted::Published { position, delivery })
}

/// Posts a publication to the engine; the answer waits until it has come back.
fn post(hub: &Hub, engine: &Engine, shared: Shared) -> Result<Accepted, Problem> {
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let place = Arc::new(OnceLock::new());
    let (known, done) = (place.clone(), tell.clone());
    // Whoever asked may have gone; the publication stands all the same.
    let say = |tell: &Mutex<Option<oneshot::Sender<_>>>, word| _ = tell.lock().take().map(|tell| tell.send(word));
    let receipt = Receipt::new(move |delivery| {
        if let Some(&position) = known.get() {
            say(&done, Ok((position, delivery)));
        }
    });
    let told_place = Box::new(move |result| match result {
        Ok(position) => _ = place.set(position),
        Err(why) => say(&tell, Err(why)),
    });
    let shared = Shared { receipt: Some(Arc::new(receipt)), ..shared };
    hub.post(engine, shared, told_place).map_err(unpublished)?;
    Ok(Accepted::Posted(told))
}

/// The same under an idempotency key, which is free again if it does not come back.
fn post_keyed(hub: &Hub, engine: &Engine, shared: Shared, turn: Turn) -> Result<Accepted, Problem> {
    let (outcome, seen) = (turn.outcome(), turn.outcome().subscribe());
    let done = move |delivery| outcome.send_modify(|outcome| outcome.delivery = Some(delivery));
    let told = Box::new(move |result| match result {
        Ok(position) => drop(turn.take(|outcome| outcome.position = Some(position))),
        Err(why) => turn.refuse(&unpublished(why)),
    });
    let shared = Shared { receipt: Some(Arc::new(Receipt::new(done))), ..shared };
    hub.post(engine, shared, told).map_err(unpublished)?;
    Ok(Accepted::Keyed { outcome: seen, is_repeat: false })
}

/// Why something that was to be posted was not, or has not come back.
pub(super) fn unpublished(why: Unpublished) -> Problem {
    let (status, code) = match why {
        Unpublished::Away => (StatusCode::SERVICE_UNAVAILABLE, "engine_away"),
        Unpublished::Unknown => (StatusCode::SERVICE_UNAVAILABLE, "engine_unknown"),
        Unpublished::Full => (StatusCode::TOO_MANY_REQUESTS, "overloaded"),
        Unpublished::RoomsMax => (StatusCode::SERVICE_UNAVAILABLE, "rooms_max"),
    };
    Problem::new(status, code, why.to_string())
}

fn try_publish(
    hub: &Hub,
    room: &RoomName,
    user: Option<UserName>,
    payload: Payload,
    except: Option<(usize, LaneId)>,
    done: impl FnOnce(Delivery) + Send + 'static,
) -> Result<Position, Problem> {
    let receipt = Some(Arc::new(Receipt::new(done)));
    let mentions = hub.may_mention(room, &payload).then(|| (user.clone(), payload.clone()));
    let draft = fanfare_registry::Draft { user, payload, except, receipt };
    match hub.registry().publish(room, hub.room_options(room), draft, hub.now()) {
        Ok(receipted) => {
            if let Some((user, payload)) = mentions {
                hub.keep_mentions(room, user.as_ref(), &payload);
            }
            Ok(receipted.position)
        }
        Err(error) => {
            let (status, code) = match error {
                PublishError::Overloaded => (StatusCode::TOO_MANY_REQUESTS, "overloaded"),
                PublishError::RoomsMax => (StatusCode::SERVICE_UNAVAILABLE, "rooms_max"),
                PublishError::TooFast => (StatusCode::TOO_MANY_REQUESTS, "messages_per_second_max"),
            };
            Err(Problem::new(status, code, error.to_string()))
        }
    }
}

async fn receipt(accepted: Accepted) -> Result<ReceiptBody, Problem> {
    match accepted {
        Accepted::Held(held) => Ok(ReceiptBody::held(held)),
        Accepted::Posted(told) => match told.await {
            Ok(Ok((position, delivery))) => Ok(ReceiptBody::published(position, delivery)),
            Ok(Err(why)) => Err(unpublished(why)),
            Err(_) => Err(interrupted()),
        },
        Accepted::Published { position, delivery } => match delivery.await {
            Ok(delivery) => Ok(ReceiptBody::published(position, delivery)),
            Err(_) => Err(interrupted()),
        },
        Accepted::Keyed { mut outcome, is_repeat } => {
            // The call that came first may end without having published: its batch broke a rule.
            let _ = outcome.wait_for(Outcome::is_final).await.map(drop);
            let last = outcome.borrow().clone();
            Ok(ReceiptBody { repeated: is_repeat, ..keyed_receipt(last)? })
        }
    }
}

fn keyed_receipt(outcome: Outcome) -> Result<ReceiptBody, Problem> {
    match outcome {
        Outcome { held: Some(held), .. } => Ok(ReceiptBody::held(held)),
        Outcome { position: Some(position), delivery: Some(delivery), .. } => {
            Ok(ReceiptBody::published(position, delivery))
        }
        Outcome { refused: Some(problem), .. } => Err(problem),
        Outcome { position: Some(_), .. } => Err(interrupted()),
        Outcome { position: None, .. } => {
            let detail = "the call that used this idempotency key at the same time was refused; send this one again";
            Err(Problem::new(StatusCode::CONFLICT, "idempotency_undecided", detail))
        }
    }
}

fn interrupted() -> Problem {
    let detail = "the publication was accepted, but the node ended before all of it was delivered";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "interrupted", detail)
}
