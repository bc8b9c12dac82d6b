//! `POST /api/publish` and `POST /api/batch`: from a body to receipts.

mod accept;
mod check;
mod receipt;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use self::accept::accept;
pub(crate) use self::accept::{Accepted, publish_draft};
pub(super) use self::accept::{release, unpublished};
use self::check::{Checked, check, check_batch, check_text};
pub(crate) use self::receipt::settled;
pub(super) use self::receipt::{EntryBody, ReceiptBody, receipt_answer};
use self::receipt::{ReceiptsBody, receipt};
use super::body::{content_type, parse, read_body};
use super::route::{Call, Form, Parameter, Route};
use super::traced::{CallSpan, traced};
use crate::hub::Hub;
use crate::problem::{Answer, Problem, json};
use crate::query;

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

async fn publish(call: Call, span: &mut CallSpan) -> Result<Answer, Problem> {
    let Call { hub, request, .. } = call;
    let is_text = content_type(&request).is_some_and(|kind| kind == "text/plain");
    let room = query::parameter(request.uri().query(), "room");
    let body = read_body(&hub, request, 1).await?;
    span.body_read(body.len());
    refuse_if_over(&hub)?;
    let checked = if is_text { check_text(&hub, room, &body)? } else { check(&hub, &parse(&body)?)? };
    span.checked(checked.publication().map(|publication| publication.verdict).into_iter());
    let mut publishing = span.publish(1, checked.publication().map(|publication| &publication.room).into_iter());
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
    let publications = || checked.iter().filter_map(Checked::publication);
    span.checked(publications().map(|publication| publication.verdict));
    let mut publishing = span.publish(checked.len(), publications().map(|publication| &publication.room));
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
        receipts.push(EntryBody::of(result));
    }
    publishing.receipts(&receipts);
    Ok(json(StatusCode::OK, &ReceiptsBody { receipts }))
}

/// During a drain whoever is still here is served like before. Once nobody is, a publication belongs on another node.
pub(crate) fn refuse_if_over(hub: &Hub) -> Result<(), Problem> {
    if hub.drain().is_over() { Err(Problem::draining()) } else { Ok(()) }
}
