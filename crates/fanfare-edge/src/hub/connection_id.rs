//! How connections are named outside.

use std::fmt;

use fanfare_fanout::LaneId;

/// A connection's name outside: its shard and its lane, so that it can be found again without a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId {
    pub(crate) shard: usize,
    pub(crate) lane: LaneId,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.shard, self.lane.index, self.lane.generation)
    }
}

impl std::str::FromStr for ConnectionId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // The library's reader would take a sign as well.
        let digits = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = |part| u32::from_str_radix(part, 16).ok().filter(|_| digits(part));
        let mut parts = text.split('-').map(|part| number(part).ok_or(()));
        let mut next = || parts.next().ok_or(())?;
        let id = Self { shard: next()? as usize, lane: LaneId { index: next()?, generation: next()? } };
        if parts.next().is_some() { Err(()) } else { Ok(id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_ids_read_back() {
        let id = ConnectionId { shard: 3, lane: LaneId { index: 0xbeef, generation: 7 } };
        assert_eq!(id.to_string(), "3-beef-7");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "1", "1-2", "1-2-3-4", "x-1-2", "1-2-ffffffffff", "1-+2-3", "1-000000002-3"] {
            assert_eq!(bad.parse::<ConnectionId>(), Err(()), "{bad}");
        }
    }
}
