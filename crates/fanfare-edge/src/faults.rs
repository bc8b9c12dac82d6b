//! Faults on request, for tests of the whole program: `POST /faults/{wedge,deafen}?shard=N&ms=N` on the admin listener. Not in any program that is
//! shipped.

use std::time::Duration;

use hyper::{Method, Request, StatusCode};

use crate::http::text;
use crate::hub::Hub;
use crate::problem::{Answer, not_found};
use crate::query;

/// Makes the fault, if one is asked for.
pub(crate) fn answer<B>(hub: &Hub, request: &Request<B>) -> Option<Answer> {
    let fault = request.uri().path().strip_prefix("/faults/").filter(|_| request.method() == Method::POST)?;
    let number = |name| query::parameter(request.uri().query(), name)?.parse::<u32>().ok();
    let (Some(shard), Some(ms)) = (number("shard"), number("ms")) else { return Some(not_found()) };
    let (shard, time) = (shard as usize, Duration::from_millis(ms.into()));
    if shard >= hub.registry().shards().len() {
        return Some(not_found());
    }
    match fault {
        "wedge" => hub.wedge(shard, time),
        "deafen" => hub.deafen(shard, time),
        _ => return Some(not_found()),
    }
    Some(text(StatusCode::OK, "so be it\n"))
}
