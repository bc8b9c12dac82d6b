//! What Redis answers, as entries and counters.

use std::collections::HashMap;

use fanfare_protocol::RoomName;
use fanfare_registry::Entry;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value, cmd};
use tracing::warn;

use crate::cursor::Place;
use crate::envelope;
use crate::relay::Broken;

/// Entries in one answer. Redis counts entries and not bytes: with messages of the default `message_bytes_max` it is 16 MiB at most.
const READ_COUNT: usize = 256;

/// Counters in one answer while all are read.
const SCAN_COUNT: usize = 1_000;

impl From<RedisError> for Broken {
    fn from(error: RedisError) -> Self {
        Self::Away(format!("{error}{}", hint(&error)).into())
    }
}

/// What helps where TLS fails. The library keeps of that what it says only.
fn hint(error: &RedisError) -> &'static str {
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["UnknownIssuer", "BadSignature"]) {
        "; name the file of the authority that signed its certificate in engine.ca_file"
    } else if says(&["InvalidContentType"]) {
        "; what answers there does not speak TLS: use redis://"
    } else {
        ""
    }
}

/// An entry as Redis has it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) place: Place,
    envelope: Vec<u8>,
    at_ms: u64,
    offset: Option<u64>,
}

impl Found {
    fn from_value(value: Value) -> Option<Self> {
        let [id, fields] = <[Value; 2]>::try_from(array(value)?).ok()?;
        let place = text(id)?.parse().ok()?;
        let mut found = Self { place, envelope: Vec::new(), at_ms: 0, offset: None };
        let mut fields = array(fields)?.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match (bytes(name)?.as_slice(), value) {
                (b"e", value) => found.envelope = bytes(value)?,
                (b"t", value) => found.at_ms = text(value)?.parse().ok()?,
                (b"o", value) => found.offset = Some(text(value)?.parse().ok()?),
                // A later version may say more.
                _ => {}
            }
        }
        Some(found)
    }

    /// `None` where it cannot be understood.
    pub(crate) fn into_entry(self) -> Option<Entry> {
        match envelope::decode(self.envelope, self.offset.is_some()) {
            Ok(envelope::Letter { node, number, post }) => {
                Some(Entry { node, number, at_ms: self.at_ms, offset: self.offset, post })
            }
            Err(unreadable) => {
                warn!("entry {} of the engine's log: {unreadable}", self.place);
                None
            }
        }
    }
}

/// What follows a place, the oldest first; `block_ms`: waits so long for the first.
pub(crate) async fn read(
    redis: &mut MultiplexedConnection,
    log: &str,
    after: &str,
    block_ms: Option<u64>,
) -> Result<Vec<Found>, Broken> {
    let mut read = cmd("XREAD");
    read.arg("COUNT").arg(READ_COUNT);
    if let Some(block_ms) = block_ms {
        read.arg("BLOCK").arg(block_ms);
    }
    let value: Value = read.arg("STREAMS").arg(log).arg(after).query_async(redis).await?;
    if value == Value::Nil {
        return Ok(Vec::new());
    }
    let entries = array(value)
        .and_then(|streams| array(streams.into_iter().next()?))
        .and_then(|stream| array(stream.into_iter().nth(1)?))
        .and_then(|entries| entries.into_iter().map(Found::from_value).collect());
    entries.ok_or(Broken::Answer)
}

/// The entry at a place; `-`: the oldest.
pub(crate) async fn range(redis: &mut MultiplexedConnection, log: &str, place: &str) -> Result<Option<Found>, Broken> {
    let end = if place == "-" { "+" } else { place };
    let value: Value = cmd("XRANGE").arg(log).arg(place).arg(end).arg("COUNT").arg(1).query_async(redis).await?;
    let Some(entry) = array(value).ok_or(Broken::Answer)?.pop() else { return Ok(None) };
    Found::from_value(entry).map(Some).ok_or(Broken::Answer)
}

/// How far each room has counted.
pub(crate) async fn counters(redis: &mut MultiplexedConnection, state: &str) -> Result<HashMap<RoomName, u64>, Broken> {
    let mut offsets = HashMap::new();
    let mut cursor = 0_u64;
    loop {
        let (next, fields): (u64, Vec<Value>) =
            cmd("HSCAN").arg(state).arg(cursor).arg("COUNT").arg(SCAN_COUNT).query_async(redis).await?;
        let mut fields = fields.into_iter();
        while let (Some(name), Some(count)) = (fields.next(), fields.next()) {
            let (name, count) = (text(name).ok_or(Broken::Answer)?, text(count).ok_or(Broken::Answer)?);
            let Some(room) = name.strip_prefix(':') else { continue };
            let room = RoomName::parse_made(room).map_err(|_| Broken::Answer)?;
            offsets.insert(room, count.parse().map_err(|_| Broken::Answer)?);
        }
        if next == 0 {
            return Ok(offsets);
        }
        cursor = next;
    }
}

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?).ok()
}
