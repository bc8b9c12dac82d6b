//! The HTTP API of backends and operators: its routes, and who may call them.

mod body;
mod closes;
mod connections;
mod document;
mod drain;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod held;
mod pages;
mod publish;
mod reload;
mod revoke;
mod rooms;
mod route;
mod traced;
mod users;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, ORIGIN};
use hyper::{Method, Request, StatusCode};
use subtle::ConstantTimeEq;

pub(crate) use self::body::{read_body_up_to, too_large};
pub(crate) use self::document::document;
pub(crate) use self::publish::{Accepted, publish_draft, refuse_if_over, settled};
use self::route::{Call, Route, Verb};
use crate::hub::Hub;
use crate::problem::{Answer, Problem, method_not_allowed, not_found, options};

/// All routes: who adds some lists them in a file of their own, and that file here.
const TABLES: &[&[Route]] = &[
    publish::ROUTES,
    rooms::ROUTES,
    connections::ROUTES,
    users::ROUTES,
    closes::ROUTES,
    drain::ROUTES,
    reload::ROUTES,
    held::ROUTES,
    revoke::ROUTES,
];

/// Answers a request under `/api/`, which came over TLS or did not.
pub(crate) async fn answer(hub: &Arc<Hub>, request: Request<Incoming>, is_tls: bool) -> Answer {
    if let Err(problem) = check_origin(hub, &request).and_then(|()| check_key(hub, &request)) {
        return problem.answer();
    }
    let mut allowed = Vec::new();
    for route in TABLES.iter().copied().flatten() {
        let Some(places) = route.places(request.uri().path()) else { continue };
        if route.takes(request.method()) {
            if let Err(problem) = route.check_query(request.uri().query()) {
                return problem.answer();
            }
            let call = Call { hub: hub.clone(), request, is_tls, route, places };
            return (route.call)(call).await.unwrap_or_else(|problem| problem.answer());
        }
        allowed.push(route.verb.as_str());
        if route.verb == Verb::Get {
            allowed.push("HEAD");
        }
    }
    match request.method() {
        _ if allowed.is_empty() => not_found(),
        &Method::OPTIONS => options(&allowed.join(", ")),
        _ => method_not_allowed(&allowed.join(", ")),
    }
}

/// Backends send no Origin; a page of a foreign origin must not publish through a developer's open API.
fn check_origin(hub: &Hub, request: &Request<Incoming>) -> Result<(), Problem> {
    let headers = request.headers();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_allowed = headers
        .get_all(ORIGIN)
        .iter()
        .all(|origin| origin.to_str().is_ok_and(|origin| hub.settings().origins.allows(Some(origin), host)));
    if is_allowed {
        return Ok(());
    }
    let detail = "pages of this origin may not call the API; the operator can allow it under `origins`";
    Err(Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed", detail))
}

fn check_key(hub: &Hub, request: &Request<Incoming>) -> Result<(), Problem> {
    let settings = hub.settings();
    let settings = &settings.api;
    if settings.is_open {
        return Ok(());
    }
    let unauthorized = |code, detail: &'static str| Err(Problem::new(StatusCode::UNAUTHORIZED, code, detail));
    if settings.keys.is_empty() {
        return unauthorized("no_api_keys", "this node has no API key: set `api.keys` in its configuration");
    }
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let Some(given) = given else {
        return unauthorized("key_missing", "send `Authorization: Bearer <api key>`");
    };
    // All keys are looked at, each in constant time, so that the answer's timing tells nothing about them.
    let is_known =
        settings.keys.iter().fold(false, |known, key| known | bool::from(key.as_bytes().ct_eq(given.as_bytes())));
    if is_known { Ok(()) } else { unauthorized("key_wrong", "this API key is not known here") }
}
