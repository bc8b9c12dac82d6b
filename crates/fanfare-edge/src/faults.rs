//! Faults on request, for tests of the whole program: `POST /faults/{wedge,deafen}?shard=N&ms=N` on the admin listener, and `/faults/release`, after
//! which no shard is wedged any more. Not in any program that is shipped.

use std::convert::Infallible;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use hyper::{Method, Request, StatusCode};
use parking_lot::Mutex;

use crate::http::text;
use crate::hub::Hub;
use crate::problem::{Answer, not_found};
use crate::query;

/// Holds a shard up until it is dropped, or for the time that was said.
#[derive(Debug)]
pub struct Wedge {
    /// Nothing is sent: what counts is that it is there.
    pub(crate) _held: SyncSender<Infallible>,
}

/// Those that were asked for over HTTP: as many as a test asks for.
static ASKED_FOR: Mutex<Vec<Wedge>> = Mutex::new(Vec::new());

/// Makes the fault, if one is asked for.
pub(crate) fn answer<B>(hub: &Hub, request: &Request<B>) -> Option<Answer> {
    let fault = request.uri().path().strip_prefix("/faults/").filter(|_| request.method() == Method::POST)?;
    if fault == "release" {
        ASKED_FOR.lock().clear();
        return Some(text(StatusCode::OK, "so be it\n"));
    }
    let number = |name| query::parameter(request.uri().query(), name)?.parse::<u32>().ok();
    let (Some(shard), Some(ms)) = (number("shard"), number("ms")) else { return Some(not_found()) };
    let (shard, time) = (shard as usize, Duration::from_millis(ms.into()));
    if shard >= hub.registry().shards().len() {
        return Some(not_found());
    }
    match fault {
        "wedge" => ASKED_FOR.lock().push(hub.wedge(shard, time)),
        "deafen" => hub.deafen(shard, time),
        _ => return Some(not_found()),
    }
    Some(text(StatusCode::OK, "so be it\n"))
}
