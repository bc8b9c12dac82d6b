//! Users: what ends all connections of one.

use fanfare_protocol::{CloseReason, UserName};
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::route::{Call, Route};
use crate::problem::{Answer, Problem, json};

pub(super) const ROUTES: &[Route] = &[Route::delete("/api/users/{user}/connections", |call| Box::pin(kick(call)))
    .about("Kick a user: end all connections it has now", |it| {
        it.answer::<KickedBody>(200, "how many were kicked");
    })];

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
