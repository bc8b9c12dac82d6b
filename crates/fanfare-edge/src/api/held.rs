//! The moderators' part of the API: what waits, and letting it go either way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanfare_protocol::{Payload, UserName};
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::route::{Call, Form, Parameter, Route, now};
use super::{pages, publish};
use crate::hub::Hub;
use crate::moderation::{HeldOutcome, HeldPublication};
use crate::problem::{Answer, Problem, json as answer};

pub(super) const ROUTES: &[Route] = &[
    Route::get("/api/held", |call| now(list(&call)))
        .query(&[
            pages::limit("publications in the answer"),
            Parameter { name: "after", about: "`next` of the page before", form: Form::Number },
        ])
        .about("Publications that wait for a moderator", |it| {
            it.answer::<ListBody<'static>>(200, "the oldest first");
        }),
    Route::post("/api/held/{held}/release", |call| Box::pin(release(call))).about(
        "Let a publication go into its room",
        |it| {
            it.answer::<publish::ReceiptBody>(200, "what became of it");
        },
    ),
    Route::post("/api/held/{held}/discard", |call| now(discard(&call))).about(
        "Discard a publication that waits",
        |it| {
            it.answer::<DiscardedBody>(200, "it is gone");
        },
    ),
];

/// `GET /api/held?after=&limit=`: the oldest first.
fn list(call: &Call) -> Result<Answer, Problem> {
    let hub = &call.hub;
    let after = call.number("after")?.unwrap_or_default();
    let limit = call.limit()?;
    let mut held = hub.held().list(after, limit + 1);
    let next = pages::cut(&mut held, limit).map(|(id, _)| *id);
    let held = held.iter().map(|(id, publication)| HeldBody::new(hub, *id, publication)).collect();
    Ok(answer(StatusCode::OK, &ListBody { held, next, waiting: hub.held().len() }))
}

/// A publication that was discarded.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Discarded")]
struct DiscardedBody {
    held: u64,
    discarded: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HeldPublication")]
struct HeldBody<'a> {
    held: u64,
    room: &'a str,
    user: Option<&'a str>,
    #[schemars(with = "serde_json::Value")]
    message: Box<RawValue>,
    cause: &'static str,
    word: Option<&'a str>,
    spam: Option<f32>,
    age_ms: u64,
}

/// Publications that wait.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HeldPublications")]
struct ListBody<'a> {
    held: Vec<HeldBody<'a>>,
    next: Option<u64>,
    waiting: usize,
}

impl<'a> HeldBody<'a> {
    fn new(hub: &Hub, held: u64, publication: &'a HeldPublication) -> Self {
        let HeldPublication { room, user, payload, finding, at, .. } = publication;
        Self {
            held,
            room: room.as_str(),
            user: user.as_ref().map(UserName::as_str),
            message: message(payload),
            cause: finding.cause.label(),
            word: finding.word.as_deref(),
            spam: finding.spam,
            age_ms: hub.now().saturating_sub(*at).as_millis() as u64,
        }
    }
}

/// The message as its publisher wrote it; text as a string, and so are bytes, in base64, as in the JSON dialect.
fn message(payload: &Payload) -> Box<RawValue> {
    let text = match payload {
        Payload::Json(json) => str::from_utf8(json).ok().and_then(|json| RawValue::from_string(json.to_owned()).ok()),
        Payload::Text(text) => to_raw_value(&String::from_utf8_lossy(text)).ok(),
        Payload::Binary(bytes) => to_raw_value(&STANDARD.encode(bytes)).ok(),
    };
    text.unwrap_or_default()
}

/// `POST /api/held/{held}/discard`.
fn discard(call: &Call) -> Result<Answer, Problem> {
    let (held, _) = take(call)?;
    call.hub.moderation_stats().ended(HeldOutcome::Discarded);
    Ok(answer(StatusCode::OK, &DiscardedBody { held, discarded: true }))
}

/// `POST /api/held/{held}/release`.
async fn release(call: Call) -> Result<Answer, Problem> {
    let (held, publication) = take(&call)?;
    match publish::release(&call.hub, publication.clone()) {
        Ok(accepted) => {
            let answer = publish::receipt_answer(accepted).await;
            if let Err(problem) = &answer
                && problem.status == StatusCode::SERVICE_UNAVAILABLE
            {
                // The engine has not taken it, or has not said so.
                call.hub.held().put_back(held, publication);
            } else {
                call.hub.moderation_stats().ended(HeldOutcome::Released);
            }
            answer
        }
        Err(problem) => {
            // It waits on: whoever asked can ask again.
            call.hub.held().put_back(held, publication);
            Err(problem)
        }
    }
}

fn take(call: &Call) -> Result<(u64, HeldPublication), Problem> {
    let id = call.place(0);
    let taken = id.parse().ok().and_then(|id| Some((id, call.hub.held().take(id)?)));
    taken.ok_or_else(|| {
        let detail = format!("no publication {id} waits on this node; somebody may have seen to it already");
        Problem::new(StatusCode::NOT_FOUND, "no_held", detail)
    })
}
