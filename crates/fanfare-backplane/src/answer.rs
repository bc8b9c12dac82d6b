//! What Redis answers, as entries and counters.

use std::collections::HashMap;

use fanfare_protocol::RoomName;
use fanfare_registry::Entry;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value, cmd};
use tracing::warn;

use crate::cursor::{OFFSET_MAX, Place};
use crate::envelope::{self, Unreadable};
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
    /// `None`: whatever has written them is no node.
    fields: Option<Fields>,
}

/// What an entry says.
#[derive(Debug, Default)]
struct Fields {
    envelope: Vec<u8>,
    at_ms: u64,
    offset: Option<u64>,
}

impl Found {
    fn from_value(value: Value) -> Option<Self> {
        let [id, fields] = <[Value; 2]>::try_from(array(value)?).ok()?;
        Some(Self { place: text(id)?.parse().ok()?, fields: Fields::from_value(fields) })
    }

    /// `None` where it cannot be understood.
    pub(crate) fn into_entry(self) -> Option<Entry> {
        let Some(Fields { envelope, at_ms, offset }) = self.fields else {
            warn!("entry {} of the engine's log: {}", self.place, Unreadable::Malformed);
            return None;
        };
        match envelope::decode(envelope, offset.is_some()) {
            Ok(envelope::Letter { node, number, post }) => Some(Entry { node, number, at_ms, offset, post }),
            Err(unreadable) => {
                warn!("entry {} of the engine's log: {unreadable}", self.place);
                None
            }
        }
    }
}

impl Fields {
    fn from_value(value: Value) -> Option<Self> {
        let mut read = Self::default();
        let mut fields = array(value)?.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match (bytes(name)?.as_slice(), value) {
                (b"e", value) => read.envelope = bytes(value)?,
                (b"t", value) => read.at_ms = text(value)?.parse().ok()?,
                (b"o", value) => read.offset = Some(count(&text(value)?)?),
                // A later version may say more.
                _ => {}
            }
        }
        Some(read)
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
    entries(value).ok_or(Broken::Answer)
}

/// The entries of one stream in an answer to `XREAD`.
pub(crate) fn entries(value: Value) -> Option<Vec<Found>> {
    if value == Value::Nil {
        return Some(Vec::new());
    }
    let stream = array(array(value)?.into_iter().next()?)?;
    array(stream.into_iter().nth(1)?)?.into_iter().map(Found::from_value).collect()
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
            offsets.insert(room, self::count(&count).ok_or(Broken::Answer)?);
        }
        if next == 0 {
            return Ok(offsets);
        }
        cursor = next;
    }
}

/// How far a room has counted.
fn count(text: &str) -> Option<u64> {
    text.parse().ok().filter(|&count| count <= OFFSET_MAX)
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

#[cfg(test)]
mod tests {
    use fanfare_registry::{Act, Post};

    use super::*;

    fn bulk(text: impl AsRef<[u8]>) -> Value {
        Value::BulkString(text.as_ref().to_vec())
    }

    /// An entry as Redis has it, and what becomes of it.
    fn entry(fields: Vec<Value>) -> (Place, Option<Entry>) {
        let stream = vec![bulk("log"), Value::Array(vec![Value::Array(vec![bulk("5-7"), Value::Array(fields)])])];
        let mut found = entries(Value::Array(vec![Value::Array(stream)])).expect("an answer");
        let found = found.pop().expect("an entry");
        (found.place, found.into_entry())
    }

    #[test]
    fn what_strangers_wrote_has_a_place_and_says_nothing() {
        let place = Place { epoch: 5, number: 7 };
        let post = Post { room: RoomName::parse("lobby").expect("a name"), act: Act::Close };
        let envelope = || bulk(envelope::encode(1, 2, &post));
        let time = || [bulk("t"), bulk("9")];
        let read = entry([vec![bulk("e"), envelope()], time().to_vec()].concat());
        assert_eq!(read, (place, Some(Entry { node: 1, number: 2, at_ms: 9, offset: None, post: post.clone() })));
        let beyond = (OFFSET_MAX + 1).to_string();
        for fields in [
            vec![],
            vec![bulk("e"), bulk("anything")],
            vec![bulk("e"), envelope(), bulk("t"), bulk("soon")],
            vec![bulk("e"), envelope(), bulk("o"), bulk("-1")],
            vec![bulk("e"), envelope(), bulk("o"), bulk(beyond)],
            vec![bulk("e"), Value::Int(7)],
            vec![Value::Nil, envelope()],
        ] {
            assert_eq!(entry(fields.clone()), (place, None), "{fields:?}");
        }
    }
}
