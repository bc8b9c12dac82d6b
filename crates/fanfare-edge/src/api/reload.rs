//! `POST /api/reload` and `GET /api/reload`: another configuration, and which one runs.

use std::time::UNIX_EPOCH;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::json;

use super::route::{Call, Route, now};
use crate::problem::{Answer, Problem, json};

pub(super) const ROUTES: &[Route] = &[
    Route::post("/api/reload", |call| Box::pin(reload(call))).about(
        "Reload the configuration: all of it, or nothing",
        |it| {
            let schema = json!({ "type": "object", "required": ["version", "changed", "restart"] });
            it.answer_with(200, "it holds from here on", &schema);
        },
    ),
    Route::get("/api/reload", |call| now(Ok(version(&call)))).about("Which configuration runs", |it| {
        let schema = json!({ "type": "object", "required": ["version", "digest", "at_ms", "refused"] });
        it.answer_with(200, "its version and digest", &schema);
    }),
];

async fn reload(call: Call) -> Result<Answer, Problem> {
    let hub = call.hub.clone();
    // Files are read, and word lists made into automata: that is nothing for a thread that serves others.
    let reloaded = tokio::task::spawn_blocking(move || hub.reload()).await;
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "reload_failed", "the reload came to no end");
    match reloaded.map_err(failed)? {
        Ok(reloaded) => {
            let answer = json!({
                "version": reloaded.version, "changed": reloaded.changed, "restart": reloaded.restart,
            });
            Ok(json(StatusCode::OK, &answer))
        }
        Err(problems) => Ok(refused(&problems)),
    }
}

/// Everything that is wrong, each with its place.
fn refused(problems: &[String]) -> Answer {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let detail = "nothing has changed; correct what is listed under `problems` and reload again";
    let mut answer = json(
        status,
        &json!({
            "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(),
            "code": "bad_configuration", "detail": detail, "problems": problems,
        }),
    );
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}

fn version(call: &Call) -> Answer {
    let version = call.hub.reloads().version();
    let at_ms = version.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let answer =
        json!({ "version": version.version, "digest": version.digest, "at_ms": at_ms, "refused": version.refused });
    json(StatusCode::OK, &answer)
}
