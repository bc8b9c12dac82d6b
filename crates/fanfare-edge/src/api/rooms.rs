//! Rooms: their list, one of them, what was said in it, and its end.

use fanfare_protocol::{HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, HistoryPage, PRESENCE_LIMIT_MAX, Position, RoomName};
use fanfare_registry::{PageQuery, Portion, Presence, RoomInfo};
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::oneshot;

use super::pages;
use super::publish::unpublished;
use super::route::{Call, Form, Parameter, Route, now};
use crate::engine::{Engine, Unpublished};
use crate::hub::Hub;
use crate::problem::{Answer, Problem, json, with_type};

/// Bytes of messages in one page of history.
const HISTORY_BYTES_MAX: usize = 1024 * 1024;

pub(super) const ROUTES: &[Route] = &[
    Route::get("/api/rooms", |call| now(list(&call)))
        .query(&[
            Parameter { name: "prefix", about: "only rooms whose names begin with it", form: Form::Text },
            pages::limit("rooms in the answer"),
            Parameter { name: "after", about: "`next` of the page before", form: Form::Text },
        ])
        .about("Rooms by name, page by page", |it| {
            it.answer::<RoomsBody>(200, "a page of rooms");
        }),
    Route::get("/api/rooms/{room}", |call| now(describe(&call))).about(
        "A room: who is in it and where its stream stands",
        |it| {
            it.answer::<RoomBody>(200, "the room");
        },
    ),
    Route::delete("/api/rooms/{room}", |call| Box::pin(close(call))).about("Close a room for all", |it| {
        it.answer::<ClosedBody>(200, "everybody in it is told");
    }),
    Route::get("/api/rooms/{room}/presence", |call| now(presence(&call)))
        .query(&[
            Parameter { name: "after", about: "only users whose names come after this one", form: Form::Text },
            Parameter {
                name: "limit",
                about: "users in the answer",
                form: Form::Limit(PRESENCE_LIMIT_MAX, PRESENCE_LIMIT_MAX),
            },
        ])
        .about("Who is in a room", |it| {
            it.answer::<PresenceBody>(200, "users, where presence is on, and the number of subscribers");
        }),
    Route::get("/api/rooms/{room}/history", |call| now(history(&call)))
        .query(&[
            Parameter { name: "since", about: "position to begin behind, `epoch:offset`", form: Form::Position },
            Parameter {
                name: "limit",
                about: "messages in the answer",
                form: Form::Limit(HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX),
            },
        ])
        .about("What was said in a room", |it| {
            it.answer_with(200, "messages, the oldest first, and where the stream stands", &history_schema());
        }),
];

#[derive(Serialize, JsonSchema)]
struct MemberBody {
    user: String,
}

/// As the event of the same name has it.
#[derive(Serialize, JsonSchema)]
struct PresenceBody {
    count: u64,
    members: Vec<MemberBody>,
    /// `after` of the next page; null where there is none.
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct RoomBody {
    room: String,
    occupancy: u64,
    epoch: String,
    offset: u64,
    age_ms: u64,
}

impl RoomBody {
    fn new(hub: &Hub, info: &RoomInfo) -> Self {
        Self {
            room: info.name.to_string(),
            occupancy: info.occupancy,
            epoch: Position::epoch_text(info.position.epoch),
            offset: info.position.offset,
            age_ms: hub.now().saturating_sub(info.created).as_millis() as u64,
        }
    }
}

/// A page of rooms.
#[derive(Serialize, JsonSchema)]
struct RoomsBody {
    rooms: Vec<RoomBody>,
    /// `after` of the next page; null on the last.
    next: Option<String>,
}

/// A room that was closed.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ClosedRoom")]
struct ClosedBody {
    room: String,
    closed: bool,
}

/// As `HistoryPage` writes it, which knows messages as they were published.
fn history_schema() -> serde_json::Value {
    serde_json::json!({
        "type": "object",
        "required": ["messages", "epoch", "offset"],
        "properties": {
            "messages": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["message", "at"],
                    "properties": {
                        "offset": { "type": "integer" },
                        "message": {},
                        "user": { "type": "string" },
                        "at": { "type": "integer", "description": "milliseconds since 1970" },
                    },
                },
            },
            "epoch": { "type": "string" },
            "offset": { "type": "integer" },
            "recovered": { "type": "boolean", "description": "with since: whether all that was missed is here" },
        },
    })
}

fn list(call: &Call) -> Result<Answer, Problem> {
    let hub = &call.hub;
    let prefix = call.text("prefix").unwrap_or_default();
    let after = call.text("after").unwrap_or_default();
    let limit = call.limit()?;
    let mut rooms = hub.registry().list(&prefix, &after, limit + 1);
    let next = pages::cut(&mut rooms, limit).map(|info| info.name.to_string());
    let rooms = rooms.iter().map(|info| RoomBody::new(hub, info)).collect();
    Ok(json(StatusCode::OK, &RoomsBody { rooms, next }))
}

fn describe(call: &Call) -> Result<Answer, Problem> {
    let name = parse_room(call.place(0))?;
    let room = call.hub.registry().get(&name).ok_or_else(|| no_room(&name))?;
    Ok(json(StatusCode::OK, &RoomBody::new(&call.hub, &room.info())))
}

async fn close(call: Call) -> Result<Answer, Problem> {
    let name = parse_room(call.place(0))?;
    if let Some(engine) = call.hub.engine() {
        close_shared(&call.hub, engine, name.clone()).await?;
    } else if !call.hub.registry().close(&name) {
        return Err(no_room(&name));
    }
    Ok(json(StatusCode::OK, &ClosedBody { room: name.to_string(), closed: true }))
}

/// Closed on all nodes. Whether there was such a room on another one is not known.
async fn close_shared(hub: &Hub, engine: &Engine, name: RoomName) -> Result<(), Problem> {
    let (tell, told) = oneshot::channel();
    // Whoever asked may have gone.
    let done = Box::new(move |result| _ = tell.send(result));
    hub.post_close(engine, name, done).map_err(unpublished)?;
    told.await.unwrap_or(Err(Unpublished::Unknown)).map_err(unpublished)?;
    Ok(())
}

fn presence(call: &Call) -> Result<Answer, Problem> {
    let name = parse_room(call.place(0))?;
    let after = call.text("after").unwrap_or_default();
    let limit = call.limit()?;
    let room = call.hub.registry().get(&name).ok_or_else(|| no_room(&name))?;
    let Presence { count, members, has_more } = room.presence(&after, limit);
    let next = members.last().filter(|_| has_more).map(ToString::to_string);
    let members = members.iter().map(|user| MemberBody { user: user.to_string() }).collect();
    Ok(json(StatusCode::OK, &PresenceBody { count, members, next }))
}

fn history(call: &Call) -> Result<Answer, Problem> {
    let page = page(call)?;
    Ok(with_type(StatusCode::OK, "application/json", page.to_json().into()))
}

fn page(call: &Call) -> Result<HistoryPage, Problem> {
    let hub = &call.hub;
    let name = parse_room(call.place(0))?;
    let since = call.text("since").map(|since| since.parse::<Position>()).transpose();
    let since = since.map_err(|detail| Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail))?;
    let messages_max = call.limit()?;
    let options = hub.room_options(&name);
    if !options.history.has_pages() {
        let detail = format!("no history is kept in the room {name}: `history_size` of its namespace is 0");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_available", detail));
    }
    if !hub.knows_rooms() {
        return Err(Problem::engine_unread());
    }
    if hub.registry().get(&name).is_none() {
        return Err(no_room(&name));
    }
    let portion = Portion { messages_max, bytes_max: HISTORY_BYTES_MAX };
    let page = hub.registry().history(&name, options, &PageQuery { since, portion }, hub.now());
    let page = page.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "rooms_max", error.to_string()))?;
    Ok(hub.history_page(page, since.is_some()))
}

fn no_room(name: &RoomName) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_room", format!("there is no room {name} on this node now"))
}

pub(super) fn parse_room(room: &str) -> Result<RoomName, Problem> {
    RoomName::parse(room).map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_room", error.to_string()))
}
