//! Connections: who is there, who is slow, and kicking one.

use fanfare_protocol::{CloseReason, Dialect, Mode, RoomName, UserName};
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::pages;
use super::route::{Call, Form, Parameter, Route};
use crate::hub::{ConnectionId, Hub};
use crate::problem::{Answer, Problem, json};
use crate::shard::{Inspected, Inspection, Order, Seen, Wanted};

pub(super) const ROUTES: &[Route] = &[
    Route::get("/api/connections", |call| Box::pin(list(call)))
        .query(&[
            Parameter { name: "user", about: "only those of this user", form: Form::Text },
            Parameter {
                name: "slow",
                about: "1: only those with something queued, the longest queue first",
                form: Form::Flag,
            },
            pages::limit("connections in the answer"),
            Parameter { name: "after", about: "`next` of the page before; not with slow=1", form: Form::Text },
        ])
        .about("Connections, or the slowest of them", |it| {
            it.answer::<ConnectionsBody>(200, "a page of connections");
        }),
    Route::get("/api/connections/{connection}", |call| Box::pin(describe(call))).about("A connection", |it| {
        it.answer::<ConnectionBody>(200, "the connection");
    }),
    Route::delete("/api/connections/{connection}", |call| Box::pin(kick(call))).about(
        "Kick: end a connection, whose client is told 4420",
        |it| {
            it.answer::<KickedBody>(200, "it was open and is closed");
        },
    ),
];

/// A connection.
#[derive(Debug, Serialize, JsonSchema)]
struct ConnectionBody {
    /// Its id, as `welcome` told it.
    connection: String,
    /// Whose it is, if it says.
    user: Option<String>,
    /// Where its client is; nothing over Unix sockets.
    address: Option<String>,
    /// What it was opened for.
    path: String,
    /// What is spoken on it.
    dialect: &'static str,
    /// How many rooms it is in.
    rooms_count: usize,
    /// Up to ten of them.
    rooms: Vec<String>,
    /// How long it has been open, milliseconds.
    age_ms: u64,
    /// What it has not taken yet, bytes.
    queued_bytes: usize,
    /// The same in messages.
    queued_messages: usize,
}

/// A page of connections.
#[derive(Debug, Serialize, JsonSchema)]
struct ConnectionsBody {
    connections: Vec<ConnectionBody>,
    /// `after` of the next page; null on the last.
    next: Option<String>,
}

/// A connection that was kicked.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KickedConnection")]
struct KickedBody {
    connection: String,
    kicked: bool,
}

impl From<Seen> for ConnectionBody {
    fn from(seen: Seen) -> Self {
        Self {
            connection: seen.id.to_string(),
            user: seen.user.map(|user| user.as_str().to_owned()),
            address: seen.address.map(|address| address.to_string()),
            path: path(&seen.mode),
            dialect: match seen.dialect {
                Dialect::Json => "json",
                Dialect::Text | Dialect::TextJoined => "text",
                Dialect::Sse => "sse",
                Dialect::Pusher => "pusher",
            },
            rooms_count: seen.rooms,
            rooms: seen.room_names.iter().map(RoomName::to_string).collect(),
            age_ms: seen.age.as_millis() as u64,
            queued_bytes: seen.queued.bytes,
            queued_messages: seen.queued.messages,
        }
    }
}

fn path(mode: &Mode) -> String {
    match mode {
        Mode::Rooms => "/ws".to_owned(),
        Mode::Room(room) => format!("/room/{room}"),
        Mode::Echo => "/echo".to_owned(),
        Mode::HelloWorld => "/helloworld".to_owned(),
        Mode::App(_) => "/app".to_owned(),
    }
}

async fn list(call: Call) -> Result<Answer, Problem> {
    let limit = call.limit()?;
    let user = call.user("user")?;
    let after = call.text("after");
    let body = if call.flag("slow")? {
        if after.is_some() {
            let detail = "slow=1 has one page, the longest queues: it takes no `after`";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_parameter", detail));
        }
        let slow = slowest(&call.hub, user, limit).await?;
        ConnectionsBody { connections: slow.into_iter().map(Into::into).collect(), next: None }
    } else {
        let after = after.map(|after| after.parse().map_err(|()| bad_after())).transpose()?;
        let (seen, next) = page(&call.hub, &Wanted::All(user), after, limit).await?;
        ConnectionsBody { connections: seen.into_iter().map(Into::into).collect(), next: next.map(|id| id.to_string()) }
    };
    Ok(json(StatusCode::OK, &body))
}

fn bad_after() -> Problem {
    let detail = "after is `next` of the page before, a connection's id";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_parameter", detail)
}

/// Connections shard by shard, in the order of their places. One that stays is told exactly once in a walk over all pages.
async fn page(
    hub: &Hub,
    wanted: &Wanted,
    after: Option<ConnectionId>,
    limit: usize,
) -> Result<(Vec<Seen>, Option<ConnectionId>), Problem> {
    let mut found: Vec<Seen> = Vec::new();
    let (first, mut from) = after.map_or((0, 0), |id| (id.shard, id.lane.index.saturating_add(1)));
    for shard in first..hub.registry().shards().len() {
        loop {
            // One more than asked for tells whether there is a next page.
            let Inspected { connections, next } = ask(hub, shard, wanted, from, limit + 1 - found.len()).await?;
            found.extend(connections);
            if found.len() > limit {
                found.truncate(limit);
                let next = found.last().map(|seen| seen.id);
                return Ok((found, next));
            }
            let Some(next) = next else { break };
            from = next;
        }
        from = 0;
    }
    Ok((found, None))
}

/// The connections with the most bytes queued, on all shards.
async fn slowest(hub: &Hub, user: Option<UserName>, limit: usize) -> Result<Vec<Seen>, Problem> {
    let wanted = Wanted::Slow(user);
    let mut slow: Vec<Seen> = Vec::new();
    for shard in 0..hub.registry().shards().len() {
        let mut from = Some(0);
        while let Some(place) = from {
            let Inspected { connections, next } = ask(hub, shard, &wanted, place, limit).await?;
            slow.extend(connections);
            slow.sort_by_key(|seen| std::cmp::Reverse(seen.queued.bytes));
            slow.truncate(limit);
            from = next;
        }
    }
    Ok(slow)
}

async fn ask(hub: &Hub, shard: usize, wanted: &Wanted, from: u32, limit: usize) -> Result<Inspected, Problem> {
    let wanted = wanted.clone();
    let inspect = |told| Order::Inspect(Box::new(Inspection { wanted, from, limit, told }));
    match hub.ask(shard, inspect).await {
        Some(inspected) => Ok(inspected),
        // Its connections are closed, and it has ended.
        None if !hub.drain().is_accepting() => Ok(Inspected { connections: Vec::new(), next: None }),
        None => {
            let detail = format!("shard {shard} does not answer in time; try again");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shard_late", detail))
        }
    }
}

async fn describe(call: Call) -> Result<Answer, Problem> {
    let id = call.place(0);
    let connection: ConnectionId = id.parse().map_err(|()| no_connection(id))?;
    if connection.shard >= call.hub.registry().shards().len() {
        return Err(no_connection(id));
    }
    let found = ask(&call.hub, connection.shard, &Wanted::One(connection.lane), 0, 1).await?;
    let seen = found.connections.into_iter().next().ok_or_else(|| no_connection(id))?;
    Ok(json(StatusCode::OK, &ConnectionBody::from(seen)))
}

/// Ends a connection; its client is told 4420.
async fn kick(call: Call) -> Result<Answer, Problem> {
    let id = call.place(0);
    let connection: ConnectionId = id.parse().map_err(|()| no_connection(id))?;
    if !call.hub.end_connection(connection, CloseReason::Kicked).await {
        return Err(no_connection(id));
    }
    Ok(json(StatusCode::OK, &KickedBody { connection: connection.to_string(), kicked: true }))
}

fn no_connection(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_connection", format!("there is no connection {id} on this node now"))
}
