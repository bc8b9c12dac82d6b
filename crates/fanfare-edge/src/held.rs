//! The moderators' part of the API: what waits, and letting it go either way.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanfare_protocol::{Payload, UserName};
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::api;
use crate::hub::Hub;
use crate::moderation::{HeldOutcome, HeldPublication};
use crate::problem::{Answer, Problem, json as answer, method_not_allowed, not_found};
use crate::query;

/// Publications in one answer.
const LIST_MAX: usize = 1_000;
const LIST_DEFAULT: usize = 100;

/// `GET /api/held?after=&limit=`: the oldest first.
pub(crate) fn list(hub: &Hub, query: Option<&str>) -> Answer {
    let number = |name, default: u64, max: u64| match query::parameter(query, name).map(|text| text.parse::<u64>()) {
        None => Some(default),
        Some(Ok(number)) if number <= max => Some(number),
        Some(_) => None,
    };
    let limit = number("limit", LIST_DEFAULT as u64, LIST_MAX as u64).filter(|&limit| limit > 0);
    let (Some(after), Some(limit)) = (number("after", 0, u64::MAX), limit) else {
        let detail = format!("limit is a number from 1 to {LIST_MAX}, after is the `held` number of a publication");
        return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_limit", detail).answer();
    };
    // One more than asked for tells whether there is a next page.
    let limit = usize::try_from(limit).unwrap_or(LIST_MAX);
    let mut held = hub.held().list(after, limit + 1);
    let has_more = held.len() > limit;
    held.truncate(limit);
    let next = held.last().filter(|_| has_more).map(|(id, _)| *id);
    let held = held.iter().map(|(id, publication)| HeldBody::new(hub, *id, publication)).collect();
    answer(StatusCode::OK, &ListBody { held, next, waiting: hub.held().len() })
}

#[derive(Serialize)]
struct HeldBody<'a> {
    held: u64,
    room: &'a str,
    user: Option<&'a str>,
    message: Box<RawValue>,
    cause: &'static str,
    word: Option<&'a str>,
    spam: Option<f32>,
    age_ms: u64,
}

#[derive(Serialize)]
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

/// `POST /api/held/{id}/release` and `…/discard`. `rest` is what follows `/api/held/`.
pub(crate) async fn act(hub: &Arc<Hub>, method: &Method, rest: &str) -> Answer {
    let Some((id, verb @ ("release" | "discard"))) = rest.split_once('/') else { return not_found() };
    if method != Method::POST {
        return method_not_allowed("POST");
    }
    let Some((id, publication)) = id.parse().ok().and_then(|id| Some((id, hub.held().take(id)?))) else {
        let detail = format!("no publication {id} waits on this node; somebody may have seen to it already");
        return Problem::new(StatusCode::NOT_FOUND, "no_held", detail).answer();
    };
    if verb == "discard" {
        hub.moderation_stats().ended(HeldOutcome::Discarded);
        return answer(StatusCode::OK, &json!({ "held": id, "discarded": true }));
    }
    match api::release(hub, publication.clone()) {
        Ok(accepted) => {
            hub.moderation_stats().ended(HeldOutcome::Released);
            api::receipt_answer(accepted).await
        }
        Err(problem) => {
            // It waits on: whoever asked can ask again.
            hub.held().put_back(id, publication);
            problem.answer()
        }
    }
}
