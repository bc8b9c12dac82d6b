//! `POST /api/drain` and `GET /api/drain`: leaving service, and how far that has got.

use std::time::{Duration, UNIX_EPOCH};

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{parse, read_body};
use super::route::{Call, Route, now};
use crate::hub::Hub;
use crate::problem::{Answer, Problem, json};

/// The longest window that may be asked for: a day.
const WINDOW_MS_MAX: u64 = 24 * 3_600_000;

pub(super) const ROUTES: &[Route] = &[
    Route::post("/api/drain", |call| Box::pin(start(call))).about(
        "Leave service: close connections over a window",
        |it| {
            it.body::<DrainBody>().optional();
            it.answer::<Progress>(200, "how far it is");
        },
    ),
    Route::get("/api/drain", |call| now(Ok(json(StatusCode::OK, &Progress::of(&call.hub))))).about(
        "How far leaving service is",
        |it| {
            it.answer::<Progress>(200, "how far it is");
        },
    ),
];

#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DrainBody {
    window_ms: Option<u64>,
}

/// How far leaving has got.
#[derive(Debug, Serialize, JsonSchema)]
struct Progress {
    /// `serving`; `grace`: not ready, still accepting; `closing`: the listener is closed, connections are closed one after another.
    state: &'static str,
    /// When it began, milliseconds of the calendar since 1970.
    since: Option<u64>,
    /// Time from the end of the grace to the end of the window, as it is planned now.
    window_ms: Option<u64>,
    /// Connections when it began.
    open_at_start: Option<usize>,
    /// Connections now.
    open: usize,
    /// Connections closed by it.
    closed: u64,
    /// Until the last connection is closed, at the latest.
    eta_ms: Option<u64>,
}

impl Progress {
    fn of(hub: &Hub) -> Self {
        let plan = hub.drain().plan();
        let ms = |time: Duration| time.as_millis() as u64;
        Self {
            state: match plan {
                None => "serving",
                Some(_) if hub.drain().is_accepting() => "grace",
                Some(_) => "closing",
            },
            since: plan.map(|plan| ms(plan.since_wall.duration_since(UNIX_EPOCH).unwrap_or_default())),
            window_ms: plan.map(|plan| ms(plan.ends.saturating_sub(plan.accept_until))),
            open_at_start: plan.map(|plan| plan.open_at_start),
            open: hub.connections_open(),
            closed: hub.drained(),
            eta_ms: plan.map(|plan| ms(plan.ends.saturating_sub(hub.now()))),
        }
    }
}

/// Begins a drain. While one is under way, a window brings its end nearer, and a call without one halves what is left.
async fn start(call: Call) -> Result<Answer, Problem> {
    let Call { hub, request, .. } = call;
    let body = read_body(&hub, request, 1).await?;
    let DrainBody { window_ms } = if body.trim_ascii().is_empty() { DrainBody::default() } else { parse(&body)? };
    if window_ms.is_some_and(|ms| ms > WINDOW_MS_MAX) {
        let detail = format!("window_ms is at most {WINDOW_MS_MAX}, a day");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_window", detail));
    }
    hub.leave(window_ms.map(Duration::from_millis));
    Ok(json(StatusCode::OK, &Progress::of(&hub)))
}
