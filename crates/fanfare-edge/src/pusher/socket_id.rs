//! Public ids of an application's connections: where the connection is, and a word that makes it known nowhere else.

use fanfare_guard::ApplicationKey;

use crate::hub::ConnectionId;

/// Makes ids and reads them back. An id is `digits.digits`, as every library of Pusher's kind checks: shard and lane, then the lane's
/// generation and 64 bits of a signature. Nothing is kept for it, and who has not been told it cannot make it.
#[derive(Debug)]
pub(crate) struct SocketIds(ApplicationKey);

impl SocketIds {
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Self(ApplicationKey::new("", &secret))
    }

    /// The id of a connection of the application with this place.
    pub(crate) fn of(&self, app: u32, connection: ConnectionId) -> String {
        let ConnectionId { shard, lane } = connection;
        let first = (shard as u64) << 32 | u64::from(lane.index);
        let second = u128::from(lane.generation) << 64 | u128::from(self.tag(app, connection));
        format!("{first}.{second}")
    }

    /// The connection of this application that has this id; `None` where it was not made for one.
    pub(crate) fn read(&self, app: u32, id: &str) -> Option<ConnectionId> {
        let (first, second) = id.split_once('.')?;
        let (first, second) = (number(first)?, number(second)?);
        let shard = usize::try_from(first >> 32).ok()?;
        let lane = fanfare_fanout::LaneId { index: first as u32, generation: u32::try_from(second >> 64).ok()? };
        let connection = ConnectionId { shard, lane };
        // Whole and in the one form it is written in, so that comparing tells nothing that helps.
        (self.of(app, connection) == id).then_some(connection)
    }

    fn tag(&self, app: u32, ConnectionId { shard, lane }: ConnectionId) -> u64 {
        let shard = (shard as u64).to_be_bytes();
        let (index, generation) = (lane.index.to_be_bytes(), lane.generation.to_be_bytes());
        let signature = self.0.sign(&[&app.to_be_bytes(), &shard, &index, &generation]);
        u64::from_be_bytes(*signature.first_chunk().expect("a signature is longer"))
    }
}

/// Whether a text has the form of an id at all.
pub(crate) fn has_form(id: &str) -> bool {
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    id.len() <= 64 && id.split_once('.').is_some_and(|(first, second)| is_digits(first) && is_digits(second))
}

fn number(digits: &str) -> Option<u128> {
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use fanfare_fanout::LaneId;

    use super::*;

    #[test]
    fn ids_read_back_where_they_were_made_and_nowhere_else() {
        let (ids, others) = (SocketIds::new([1; 32]), SocketIds::new([2; 32]));
        for (shard, index, generation) in [(0, 0, 0), (3, 0xbeef, 7), (65_535, u32::MAX, u32::MAX)] {
            let connection = ConnectionId { shard, lane: LaneId { index, generation } };
            let id = ids.of(1, connection);
            assert!(has_form(&id), "{id}");
            assert_eq!(ids.read(1, &id), Some(connection));
            assert_eq!((ids.read(2, &id), others.read(1, &id)), (None, None));
            for wrong in
                [format!("0{id}"), format!("{id}0"), format!("+{id}"), id.replace('.', ".0"), id[1..].to_owned()]
            {
                assert_eq!(ids.read(1, &wrong), None, "{wrong}");
            }
        }
        for wrong in ["", ".", "1", "1.", ".1", "1.2.3", "a.1", "1.a", &"9".repeat(99)] {
            assert_eq!(ids.read(1, wrong), None, "{wrong}");
            assert!(!has_form(wrong) || wrong == "1.2", "{wrong}");
        }
    }
}
