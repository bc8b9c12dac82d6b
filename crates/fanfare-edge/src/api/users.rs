//! Users: what is said to one, and what ends all his connections.

use fanfare_protocol::{CloseReason, JSON_DEPTH_MAX, PayloadRef, UserName, nests_deeper};
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::body::{parse, read_body, too_large};
use super::route::{Call, Route};
use crate::direct::{OVERLOADED, Sent};
use crate::moderation::REJECTED;
use crate::problem::{Answer, Problem, json};

pub(super) const ROUTES: &[Route] = &[
    Route::post("/api/users/{user}/send", |call| Box::pin(send(call))).about("Say something to a user", |it| {
        it.body::<SendBody<'static>>();
        it.answer::<SentBody>(200, "what became of it");
    }),
    Route::delete("/api/users/{user}/connections", |call| Box::pin(kick(call))).about(
        "Kick a user: end all connections it has now",
        |it| {
            it.answer::<KickedBody>(200, "how many were kicked");
        },
    ),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SendBody<'a> {
    /// Any JSON; it is passed on byte for byte.
    #[serde(borrow)]
    #[schemars(with = "serde_json::Value")]
    message: &'a RawValue,
}

/// What became of a message to a user.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Sent")]
struct SentBody {
    /// Connections of the user that it was written to, or is queued for.
    delivered: u64,
    /// He is away; it waits in his inbox.
    queued: bool,
}

/// Says something to a user: to all his connections, or into his inbox.
async fn send(call: Call) -> Result<Answer, Problem> {
    let Call { hub, request, places, .. } = call;
    let user = parse_user(&places[0])?;
    let body = read_body(&hub, request, 1).await?;
    let SendBody { message } = parse(&body)?;
    let max = hub.settings().messages.message_bytes_max;
    if message.get().len() > max {
        return Err(too_large(max));
    }
    if nests_deeper(message.get(), JSON_DEPTH_MAX - 1) {
        let detail = format!("the message nests more than {} levels deep", JSON_DEPTH_MAX - 1);
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too_deep", detail));
    }
    let rejected = || Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "rejected", REJECTED);
    let payload = hub.judge_direct(PayloadRef::Json(message.get())).ok_or_else(rejected)?;
    let (tell, told) = oneshot::channel();
    let done = move |sent| {
        // Whoever asked may have gone; it is sent all the same.
        let _ = tell.send(sent);
    };
    if !hub.send_to_user(user, None, &payload, Box::new(done)) {
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", OVERLOADED));
    }
    let Ok(Sent { delivered, queued }) = told.await else {
        let detail = "the message was accepted, but the node ended before it was delivered";
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "interrupted", detail));
    };
    Ok(json(StatusCode::OK, &SentBody { delivered, queued }))
}

/// How many connections of a user were kicked.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "KickedUser")]
struct KickedBody {
    kicked: usize,
}

/// Ends all connections that the user has now. Nobody is kept from coming back: that is a token's affair, or a moderator's.
async fn kick(call: Call) -> Result<Answer, Problem> {
    let user = parse_user(call.place(0))?;
    let kicked = call.hub.end_user(&user, CloseReason::Kicked).await;
    Ok(json(StatusCode::OK, &KickedBody { kicked }))
}

fn parse_user(user: &str) -> Result<UserName, Problem> {
    UserName::parse(user).map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_user", error.to_string()))
}
