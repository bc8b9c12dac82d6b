//! Reading what a call brings: bounded in size and time, and strict about its form.

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny};

use crate::hub::Hub;
use crate::problem::Problem;

/// Bytes a body may have beyond the largest message: the fields around it.
const BODY_OVERHEAD_BYTES: usize = 4_096;

pub(crate) fn content_type(request: &Request<Incoming>) -> Option<String> {
    let value = request.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Reads a body of at most `messages` messages of the largest size.
pub(crate) async fn read_body(hub: &Hub, request: Request<Incoming>, messages: usize) -> Result<Bytes, Problem> {
    let max = messages * (hub.settings().messages.message_bytes_max + BODY_OVERHEAD_BYTES);
    read_body_up_to(hub, request.into_body(), max).await
}

/// Reads a body of at most `max` bytes.
pub(crate) async fn read_body_up_to(hub: &Hub, body: Incoming, max: usize) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > max as u64 {
        // Announced too long: there is no need to wait for it.
        return Err(too_large(max));
    }
    let reading = Limited::new(body, max).collect();
    match tokio::time::timeout(hub.settings().handshake, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(max)),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "bad_body", "the body could not be read")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body did not arrive in time")),
    }
}

pub(crate) fn too_large(max: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("at most {max} bytes are taken"))
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    // Without this look an array would do: serde takes its elements for the fields in order.
    let parsed = match body.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice::<IgnoredAny>(body)
            .and_then(|_| Err(serde_json::Error::custom("expected an object"))),
        _ => serde_json::from_slice(body),
    };
    parsed.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", error.to_string())
        }
        _ => Problem::new(StatusCode::BAD_REQUEST, "bad_json", error.to_string()),
    })
}
