//! A tally as bytes, in parts: what somebody needs who starts when the log has trimmed what was counted.
//!
//! ```text
//! version u8 · epoch u64 · number u64 · mark u64 · index u32 · parts u32 · records
//! record: 0 · room: length u8, bytes · count u64     or     1 · node u64 · last post u64 · its time u64
//! ```

use bytes::{Buf as _, BufMut as _};

use super::tally::{Last, Tally};
use crate::cursor::OFFSET_MAX;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 33;
const RECORD_BYTES_MAX: usize = 1 + 1 + 255 + 8;
const ROOM: u8 = 0;
const NODE: u8 = 1;

/// The parts of a tally, of at most this many bytes each; at least one.
pub(super) fn encode(tally: &Tally, part_bytes_max: usize) -> Vec<Vec<u8>> {
    let mut parts = vec![vec![0; HEAD_BYTES]];
    for (room, &count) in &tally.rooms {
        let part = with_place(&mut parts, part_bytes_max);
        part.put_u8(ROOM);
        part.put_u8(u8::try_from(room.len()).expect("it was read with a length of one byte"));
        part.put_slice(room.as_bytes());
        part.put_u64(count);
    }
    for (&node, last) in &tally.nodes {
        let part = with_place(&mut parts, part_bytes_max);
        part.put_u8(NODE);
        part.put_u64(node);
        part.put_u64(last.number);
        part.put_u64(last.at_ms);
    }
    let count = parts.len();
    for (index, part) in parts.iter_mut().enumerate() {
        let mut head = &mut part[..HEAD_BYTES];
        head.put_u8(VERSION);
        head.put_u64(tally.epoch);
        head.put_u64(tally.number);
        head.put_u64(tally.mark_ns);
        head.put_u32(index as u32);
        head.put_u32(count as u32);
    }
    parts
}

/// The last part, or another one, where that has no place for a record.
fn with_place(parts: &mut Vec<Vec<u8>>, part_bytes_max: usize) -> &mut Vec<u8> {
    if parts.last().is_none_or(|part| part.len() + RECORD_BYTES_MAX > part_bytes_max) {
        parts.push(vec![0; HEAD_BYTES]);
    }
    let last = parts.len() - 1;
    &mut parts[last]
}

/// A tally that is being read, part by part.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    tally: Option<Tally>,
    read: u32,
    parts: u32,
}

impl Assembly {
    /// Whether there is more to read. `true` before the first part.
    pub(super) fn is_open(&self) -> bool {
        self.tally.is_none() || self.read < self.parts
    }

    /// Which part comes next.
    pub(super) fn next(&self) -> u32 {
        self.read
    }

    /// Adds the next part. `None`: it is none.
    pub(super) fn add(&mut self, mut part: &[u8]) -> Option<()> {
        let part = &mut part;
        if part.try_get_u8().ok()? != VERSION {
            return None;
        }
        let mut number = || part.try_get_u64().ok();
        let (epoch, at, mark_ns) = (number()?, number()?, number()?);
        let (index, parts) = (part.try_get_u32().ok()?, part.try_get_u32().ok()?);
        let tally = self.tally.get_or_insert_with(|| Tally::begun(epoch, at, mark_ns));
        self.parts = parts;
        if (tally.epoch, tally.number, tally.mark_ns) != (epoch, at, mark_ns) || index != self.read || index >= parts {
            return None;
        }
        while part.has_remaining() {
            read_record(part, tally)?;
        }
        self.read += 1;
        Some(())
    }

    /// The tally, once all of it is read.
    pub(super) fn finish(self) -> Option<Tally> {
        if self.is_open() { None } else { self.tally }
    }
}

fn read_record(part: &mut &[u8], tally: &mut Tally) -> Option<()> {
    match part.try_get_u8().ok()? {
        ROOM => {
            let len = part.try_get_u8().ok()?;
            let (room, rest) = part.split_at_checked(len.into())?;
            *part = rest;
            let count = part.try_get_u64().ok().filter(|&count| count <= OFFSET_MAX)?;
            tally.rooms.insert(str::from_utf8(room).ok()?.into(), count);
        }
        NODE => {
            let node = part.try_get_u64().ok()?;
            let last = Last { number: part.try_get_u64().ok()?, at_ms: part.try_get_u64().ok()? };
            tally.nodes.insert(node, last);
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tallies() -> impl Strategy<Value = Tally> {
        let rooms = proptest::collection::hash_map("[a-zäß:]{1,60}", 0..=OFFSET_MAX, 0..60);
        let last = any::<(u64, u64)>().prop_map(|(number, at_ms)| Last { number, at_ms });
        let nodes = proptest::collection::hash_map(any::<u64>(), last, 0..8);
        (rooms, nodes, any::<[u64; 3]>()).prop_map(|(rooms, nodes, [epoch, number, mark_ns])| Tally {
            rooms: rooms.into_iter().map(|(room, count)| (room.into(), count)).collect(),
            nodes,
            ..Tally::begun(epoch, number, mark_ns)
        })
    }

    fn assemble(parts: &[Vec<u8>]) -> Option<Tally> {
        let mut assembly = Assembly::default();
        for part in parts {
            assembly.add(part)?;
        }
        assembly.finish()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_nothing_less(tally in tallies(), at: prop::sample::Index) {
            let mut parts = encode(&tally, 1_000);
            prop_assert!(parts.iter().all(|part| part.len() <= 1_000));
            prop_assert_eq!(assemble(&parts), Some(tally));
            let at = at.index(parts.len());
            parts.remove(at);
            prop_assert_eq!(assemble(&parts), None, "a part is missing");
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>) {
            let _ = Assembly::default().add(&bytes);
            bytes.insert(0, VERSION);
            let _ = Assembly::default().add(&bytes);
        }
    }

    #[test]
    fn no_room_has_counted_further_than_rooms_can() {
        let counted = |count| Tally { rooms: [("lobby".into(), count)].into(), ..Tally::begun(1, 2, 3) };
        assert!(assemble(&encode(&counted(OFFSET_MAX), 1_000)).is_some());
        assert_eq!(assemble(&encode(&counted(OFFSET_MAX + 1), 1_000)), None, "the next one would have no number");
    }
}
