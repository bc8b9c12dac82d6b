//! Taking tokens back before their time, and giving them back.

use std::time::Duration;

use fanfare_guard::{NumericDate, Revocation, Revoked, TOKEN_ID_BYTES_MAX};
use fanfare_protocol::UserName;
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::body::{parse, read_body};
use super::pages;
use super::route::{Call, Form, Parameter, Route, now};
use crate::problem::{Answer, Problem, json as answer};
use crate::wall_clock::wall_clock;

pub(super) const ROUTES: &[Route] = &[
    Route::post("/api/revoke", |call| Box::pin(revoke(call))).about(
        "Take back the tokens of a user, or one token",
        |it| {
            it.body::<RevokeBody>();
            it.answer::<RevocationBody<'static>>(200, "what holds from here on");
        },
    ),
    Route::get("/api/revoke", |call| now(list(&call)))
        .query(&[
            pages::limit("revocations in the answer"),
            Parameter { name: "after", about: "`next` of the page before", form: Form::Text },
        ])
        .about("Tokens that were taken back", |it| {
            it.answer_with(
                200,
                "a page of revocations",
                &serde_json::json!({ "type": "object", "required": ["revocations", "next", "count", "max"] }),
            );
        }),
    Route::delete("/api/revoke", |call| now(lift(&call)))
        .query(&[
            Parameter { name: "user", about: "whose tokens hold again", form: Form::Text },
            Parameter { name: "token_id", about: "`jti` of the token that holds again", form: Form::Text },
        ])
        .about("Let tokens hold again", |it| {
            it.answer_with(200, "what holds again", &serde_json::json!({ "type": "object", "required": ["lifted"] }));
        }),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RevokeBody {
    user: Option<String>,
    token_id: Option<String>,
    /// Seconds since 1970, as in `exp`.
    #[schemars(with = "Option<f64>")]
    until: Option<NumericDate>,
}

#[derive(Serialize, JsonSchema)]
struct RevocationBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<&'a str>,
    #[schemars(with = "f64")]
    at: NumericDate,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<f64>")]
    until: Option<NumericDate>,
    /// Connections that were closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed: Option<u64>,
}

impl<'a> RevocationBody<'a> {
    fn new(revocation: &'a Revocation, closed: Option<u64>) -> Self {
        let (user, token_id) = match &revocation.whose {
            Revoked::User(user) => (Some(user.as_str()), None),
            Revoked::Token(id) => (None, Some(&**id)),
        };
        Self { user, token_id, at: NumericDate(revocation.at), until: revocation.until.map(NumericDate), closed }
    }
}

/// `POST /api/revoke`.
async fn revoke(call: Call) -> Result<Answer, Problem> {
    let body = read_body(&call.hub, call.request, 1).await?;
    let RevokeBody { user, token_id, until } = parse(&body)?;
    let whose = whose(user, token_id)?;
    let until = until.map(|until| until.0);
    // To the millisecond, as tokens are minted and as it is shown.
    let at = Duration::from_millis(wall_clock().as_millis() as u64);
    if until.is_some_and(|until| until <= at) {
        let detail = "until is when the tokens end by themselves, in seconds since 1970, and it is over";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_until", detail));
    }
    let revoked = call.hub.revoke(Revocation { whose, at, until }).await;
    let (revocation, closed) =
        revoked.map_err(|full| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "revocations_full", full.to_string()))?;
    Ok(answer(StatusCode::OK, &RevocationBody::new(&revocation, Some(closed))))
}

/// `GET /api/revoke?after=&limit=`: users by name, then tokens by theirs.
fn list(call: &Call) -> Result<Answer, Problem> {
    let limit = call.limit()?;
    let after = call.text("after").map(|after| place(&after)).transpose()?;
    let revocations = call.hub.revocations();
    let mut page = revocations.page(after.as_ref(), limit + 1, wall_clock());
    let next = pages::cut(&mut page, limit).map(|last| match &last.whose {
        Revoked::User(user) => format!("user:{user}"),
        Revoked::Token(id) => format!("token_id:{id}"),
    });
    let page: Vec<_> = page.iter().map(|revocation| RevocationBody::new(revocation, None)).collect();
    let (count, max) = (revocations.len(), revocations.max());
    Ok(answer(StatusCode::OK, &json!({ "revocations": page, "next": next, "count": count, "max": max })))
}

/// `DELETE /api/revoke?user=` or `?token_id=`.
fn lift(call: &Call) -> Result<Answer, Problem> {
    let whose = whose(call.text("user"), call.text("token_id"))?;
    if !call.hub.revocations().lift(&whose) {
        let detail = "nothing is revoked under this name on this node";
        return Err(Problem::new(StatusCode::NOT_FOUND, "no_revocation", detail));
    }
    Ok(answer(
        StatusCode::OK,
        &match &whose {
            Revoked::User(user) => json!({ "user": user.as_str(), "lifted": true }),
            Revoked::Token(id) => json!({ "token_id": id, "lifted": true }),
        },
    ))
}

/// Where a page begins, as `next` said it.
fn place(after: &str) -> Result<Revoked, Problem> {
    match after.split_once(':') {
        Some(("user", user)) => whose(Some(user.to_owned()), None),
        Some(("token_id", id)) => whose(None, Some(id.to_owned())),
        _ => Err(unclear("after is the `next` of the page before")),
    }
}

fn whose(user: Option<String>, token_id: Option<String>) -> Result<Revoked, Problem> {
    match (user, token_id) {
        (Some(user), None) => UserName::parse(&user)
            .map(Revoked::User)
            .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_user", error.to_string())),
        (None, Some(id)) if (1..=TOKEN_ID_BYTES_MAX).contains(&id.len()) => Ok(Revoked::Token(id.into())),
        (None, Some(_)) => Err(unclear("token_id is the `jti` of a token, 1 to 256 bytes")),
        _ => Err(unclear("name either `user` or `token_id`, and not both")),
    }
}

fn unclear(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", detail)
}
