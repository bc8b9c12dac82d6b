//! What of a call needs no node, for the fuzz targets.

use super::TABLES;
use super::body::parse;
use super::publish::PublishBody;
use crate::hub::ConnectionId;

/// A publication as its body says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Not yet looked at as a name.
    pub room: String,
    /// As it is written.
    pub message: String,
    /// As it is written, and as a connection is named.
    pub except: Option<(String, Option<String>)>,
    /// As it is written.
    pub idempotency_key: Option<String>,
}

/// Reads the body of a publication.
///
/// # Errors
/// The status it is refused with.
pub fn publication(body: &[u8]) -> Result<Publication, u16> {
    let body: PublishBody<'_> = parse(body).map_err(|problem| problem.status.as_u16())?;
    let except = body.except.map(|except| {
        let named = except.parse::<ConnectionId>().ok().map(|id| id.to_string());
        (except, named)
    });
    Ok(Publication {
        room: body.room.into_owned(),
        message: body.message.get().to_owned(),
        except,
        idempotency_key: body.idempotency_key,
    })
}

/// The routes that a path is of: each with its verb, what stands in its places, and whether it takes the query or with which status it refuses it.
#[must_use]
pub fn api_call(path: &str, query: Option<&str>) -> Vec<(&'static str, &'static str, Vec<String>, Result<(), u16>)> {
    let routes = TABLES.iter().copied().flatten().filter_map(|route| {
        let places = route.places(path)?;
        let taken = route.check_query(query).map_err(|problem| problem.status.as_u16());
        Some((route.path, route.verb.as_str(), places, taken))
    });
    routes.collect()
}
