//! What is told of publications: the bodies of receipts, and waiting for what they say.

use fanfare_fanout::Delivery;
use fanfare_protocol::Position;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Serialize;

use super::accept::{Accepted, unpublished};
use crate::idempotency::Outcome;
use crate::problem::{Answer, Problem, json};

/// Says that nothing was published again.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What became of a publication.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Receipt")]
pub(crate) struct ReceiptBody {
    /// The room's life it was published in, 16 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<String>,
    /// Its number in that life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
    /// It waits for a moderator under this number; it has no place in the room yet, and nobody got it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<u64>,
    /// Subscribers it was written to or queued for.
    pub(crate) delivered: u64,
    /// Subscribers that stay but did not get it.
    pub(crate) dropped: u64,
    /// Subscribers that were closed because they could not take it.
    pub(crate) evicted: u64,
    /// It was sent before with the same idempotency key: this is the receipt of then, and nothing was published again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) repeated: bool,
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

    pub(crate) fn answer(&self) -> Answer {
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
pub(super) struct ReceiptsBody {
    pub(super) receipts: Vec<EntryBody>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "BatchEntry")]
pub(crate) enum EntryBody {
    Receipt(ReceiptBody),
    Refused { error: RefusedBody },
}

impl EntryBody {
    pub(super) fn of(result: Result<ReceiptBody, Problem>) -> Self {
        match result {
            Ok(receipt) => Self::Receipt(receipt),
            Err(Problem { status, code, detail }) => {
                Self::Refused { error: RefusedBody { status: status.as_u16(), code, detail: detail.into_owned() } }
            }
        }
    }
}

/// Why one entry of a batch was refused while others were not.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Refused")]
pub(crate) struct RefusedBody {
    status: u16,
    pub(crate) code: &'static str,
    detail: String,
}

/// The answer once it is known what became of a publication.
pub(crate) async fn receipt_answer(accepted: Accepted) -> Result<Answer, Problem> {
    Ok(receipt(accepted).await?.answer())
}

/// Waits until it is known what became of a publication.
pub(crate) async fn settled(accepted: Accepted) -> Result<(), Problem> {
    receipt(accepted).await.map(drop)
}

pub(super) async fn receipt(accepted: Accepted) -> Result<ReceiptBody, Problem> {
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
