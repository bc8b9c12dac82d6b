//! The close ledger.

use fanfare_protocol::CloseReason;
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::pages;
use super::route::{Call, Form, Parameter, Route, now};
use crate::ledger::{Closed, Sought};
use crate::problem::{Answer, Problem, json};

pub(super) const ROUTES: &[Route] = &[Route::get("/api/closes", |call| now(list(&call)))
    .query(&[
        Parameter { name: "user", about: "only connections of this user", form: Form::Text },
        Parameter { name: "connection", about: "only this connection", form: Form::Text },
        Parameter { name: "reason", about: "only closes for this reason", form: Form::Text },
        pages::limit("closes in the answer"),
        Parameter { name: "after", about: "`next` of the page before", form: Form::Number },
    ])
    .about("Why connections were closed: the latest first", |it| {
        it.answer::<ClosesBody>(200, "a page of closes, and the totals by reason");
    })];

/// A connection that was closed.
#[derive(Debug, Serialize, JsonSchema)]
struct CloseBody {
    /// Its number among all closes since the start.
    number: u64,
    /// When, milliseconds since 1970.
    at_ms: u64,
    /// Its id, as `welcome` told it.
    connection: String,
    /// Whose it was, if it said.
    user: Option<String>,
    /// Where its client was; nothing over Unix sockets.
    address: Option<String>,
    /// Why; the label of `fanfare_closes_total`.
    reason: &'static str,
    /// The close code.
    code: u16,
    /// What the client was told.
    text: String,
    /// The room of its path, where it had one.
    room: Option<String>,
    /// How long it was open, milliseconds.
    age_ms: u64,
    /// What it had not taken, bytes.
    queued_bytes: usize,
    /// The same in messages.
    queued_messages: usize,
}

/// The latest closes, and all of them by reason.
#[derive(Debug, Serialize, JsonSchema)]
struct ClosesBody {
    /// The latest first.
    closes: Vec<CloseBody>,
    /// `after` of the next page; null on the last.
    next: Option<u64>,
    /// How many are kept, whatever is sought.
    kept: usize,
    /// Closes since the start: the sum of `reasons`.
    total: u64,
    /// Closes since the start by reason, those that are not kept included.
    reasons: BTreeMap<&'static str, u64>,
}

impl CloseBody {
    fn new(number: u64, closed: &Closed, at_ms: u64) -> Self {
        Self {
            number,
            at_ms,
            connection: closed.connection.to_string(),
            user: closed.user.as_ref().map(|user| user.as_str().to_owned()),
            address: closed.address.map(|address| address.to_string()),
            reason: closed.reason.label(),
            code: closed.reason.code().0,
            text: closed.reason.text().into_owned(),
            room: closed.room.as_ref().map(ToString::to_string),
            age_ms: closed.age.as_millis() as u64,
            queued_bytes: closed.queued.bytes,
            queued_messages: closed.queued.messages,
        }
    }
}

fn list(call: &Call) -> Result<Answer, Problem> {
    let (hub, limit, after) = (&call.hub, call.limit()?, call.number("after")?);
    let reason = call.text("reason").map(|label| reason(&label)).transpose()?;
    let connection = call.text("connection").map(|id| id.parse().map_err(|()| bad_connection())).transpose()?;
    let sought = Sought { user: call.user("user")?, connection, reason };
    let mut found = hub.ledger().find(&sought, after, limit + 1);
    let next = pages::cut(&mut found, limit).map(|(number, _)| *number);
    let counts = hub.counters().closes.iter().map(|count| count.load(Ordering::Relaxed));
    let reasons: BTreeMap<_, _> = CloseReason::LABELS.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect();
    let at_ms = hub.wall_ms();
    let body = ClosesBody {
        closes: found.iter().map(|(number, closed)| CloseBody::new(*number, closed, at_ms(closed.at))).collect(),
        next,
        kept: hub.ledger().len(),
        total: reasons.values().sum(),
        reasons,
    };
    Ok(json(StatusCode::OK, &body))
}

fn reason(label: &str) -> Result<usize, Problem> {
    let place = CloseReason::LABELS.iter().position(|known| *known == label);
    place.ok_or_else(|| {
        let detail = format!("reason is one of {}", CloseReason::LABELS.join(", "));
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_reason", detail)
    })
}

fn bad_connection() -> Problem {
    let detail = "connection is the id that `welcome` gave, such as 0-1f-3";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_connection", detail)
}
