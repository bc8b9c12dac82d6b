//! What is said to applications and by them that needs no node, for the fuzz targets.

use std::time::Duration;

use fanfare_fanout::LaneId;
use fanfare_guard::ApplicationKey;

use super::SocketIds;
use super::events::{EventBody, batch_of, event_of};
use super::signed::Signed;
use super::socket_id::has_form;
use crate::hub::ConnectionId;

/// Whether a call with this method, path and query, and this body, is signed with `key`.
///
/// # Errors
/// What is wrong, for people.
pub fn signed_call(
    key: &ApplicationKey,
    (method, path, query): (&str, &str, Option<&str>),
    body: &[u8],
    now: Duration,
) -> Result<(), String> {
    let signed = Signed { method, path, query };
    signed.check_key_and_time(key, now)?;
    Ok(signed.check_signature(key, body)?)
}

/// An event as an application sends it: its name, its data as JSON, and for which channels.
pub type SentEvent = (String, String, Vec<String>);

/// Reads the body of one event, or of a batch.
///
/// # Errors
/// The status it is refused with.
pub fn sent_events(body: &[u8], is_batch: bool) -> Result<Vec<SentEvent>, u16> {
    let events = if is_batch { batch_of(body) } else { event_of(body).map(|event| vec![event]) };
    let events = events.map_err(|problem| problem.status.as_u16())?;
    let sent = |EventBody { name, data, channels, channel, .. }: EventBody<'_>| {
        (name, data.get().to_owned(), channels.unwrap_or_else(|| channel.into_iter().collect()))
    };
    Ok(events.into_iter().map(sent).collect())
}

/// Ids of connections, made and read with this secret.
#[derive(Debug)]
pub struct PublicIds(SocketIds);

impl PublicIds {
    /// With this secret.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(SocketIds::new(secret))
    }

    /// The id of a connection: its shard, and two numbers of its place there.
    #[must_use]
    pub fn of(&self, app: u32, [shard, index, generation]: [u32; 3]) -> String {
        self.0.of(app, ConnectionId { shard: shard as usize, lane: LaneId { index, generation } })
    }

    /// Whether a text has the form of an id, and the connection whose id it is.
    #[must_use]
    pub fn read(&self, app: u32, id: &str) -> (bool, Option<[u32; 3]>) {
        let found = self.0.read(app, id);
        (has_form(id), found.map(|found| [found.shard as u32, found.lane.index, found.lane.generation]))
    }
}

/// The code with which a client is closed that asks for this version of the protocol in its query.
#[must_use]
pub fn refused_protocol(query: Option<&str>) -> Option<u16> {
    super::refused_protocol(query).map(|reason| reason.code().0)
}
