//! Connections: kicking one.

use fanfare_protocol::CloseReason;
use hyper::StatusCode;

use super::route::{Call, Route};
use crate::problem::{Answer, Problem, json};

pub(super) const ROUTES: &[Route] = &[Route::delete("/api/connections/{connection}", |call| Box::pin(kick(call)))];

/// Ends a connection; its client is told 4420.
async fn kick(call: Call) -> Result<Answer, Problem> {
    let id = call.place(0);
    let connection = id.parse().map_err(|()| no_connection(id))?;
    if !call.hub.end_connection(connection, CloseReason::Kicked).await {
        return Err(no_connection(id));
    }
    Ok(json(StatusCode::OK, &serde_json::json!({ "connection": connection.to_string(), "kicked": true })))
}

fn no_connection(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_connection", format!("there is no connection {id} on this node now"))
}
