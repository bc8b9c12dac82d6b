//! What a message in the log says to whoever only counts, in front of an envelope. All numbers big-endian:
//!
//! ```text
//! 'F' · version u8 · what u8 · node u64 · number u64 · after u64 · room: length u8, bytes · body
//! ```
//!
//! `what` is 0 for a post (`room` is its room where that is counted, else empty; the body is the envelope), 1 where another epoch begins
//! (`number` is the epoch), 2 where what was counted up to an entry has been written down (`number` is that entry's). A node that does not
//! understand an envelope of a later version still counts like all others.

use bytes::{Buf as _, BufMut as _};

const MAGIC: u8 = b'F';
const VERSION: u8 = 1;

/// Behind every epoch another one has place.
const EPOCH_MAX: u64 = u64::MAX / 2;

/// Bytes of a frame around an envelope, at most.
pub(super) const OVERHEAD_BYTES: usize = 28 + 255;

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Post = 0,
    Epoch = 1,
    Written = 2,
}

/// A message of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) what: What,
    /// Who sent it.
    pub(super) node: u64,
    /// A post's number among those of its node; otherwise as `what` says.
    pub(super) number: u64,
    /// The post that the same connection sent before this one; 0: none. Where that one was not taken, this one is not either.
    pub(super) after: u64,
    /// The room, where the log counts its publications.
    pub(super) room: &'a str,
    pub(super) body: &'a [u8],
}

impl Frame<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(OVERHEAD_BYTES + self.body.len());
        out.put_slice(&[MAGIC, VERSION, self.what as u8]);
        out.put_u64(self.node);
        out.put_u64(self.number);
        out.put_u64(self.after);
        out.put_u8(u8::try_from(self.room.len()).expect("a room's name has at most 255 bytes"));
        out.put_slice(self.room.as_bytes());
        out.put_slice(self.body);
        out
    }
}

/// Reads one. `None`: it is not of Fanfare, or of a version that counts otherwise.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Frame<'_>> {
    let bytes = &mut bytes;
    let (magic, version) = (bytes.try_get_u8().ok()?, bytes.try_get_u8().ok()?);
    if (magic, version) != (MAGIC, VERSION) {
        return None;
    }
    let what = match bytes.try_get_u8().ok()? {
        0 => What::Post,
        1 => What::Epoch,
        2 => What::Written,
        _ => return None,
    };
    let mut next = || bytes.try_get_u64().ok();
    let (node, number, after) = (next()?, next()?, next()?);
    if what == What::Epoch && number > EPOCH_MAX {
        return None;
    }
    let len = bytes.try_get_u8().ok()?;
    let (room, body) = bytes.split_at_checked(len.into())?;
    Some(Frame { what, node, number, after, room: str::from_utf8(room).ok()?, body })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            node: u64, number: u64, after: u64, room in "[a-zäß:€-]{0,60}", body: Vec<u8>,
            what in prop_oneof![Just(What::Post), Just(What::Epoch), Just(What::Written)],
        ) {
            let number = if what == What::Epoch { number / 2 } else { number };
            let frame = Frame { what, node, number, after, room: &room, body: &body };
            let bytes = frame.encode();
            prop_assert!(bytes.len() <= OVERHEAD_BYTES + body.len());
            prop_assert_eq!(decode(&bytes), Some(frame));
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>) {
            let _ = decode(&bytes);
            bytes.splice(0..0, [MAGIC, VERSION]);
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn the_bytes_of_version_1_stay_as_they_are() {
        let frame = Frame { what: What::Post, node: 0x0102, number: 3, after: 2, room: "a:b", body: b"{}" };
        let expected = b"F\x01\0\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\x03a:b{}";
        assert_eq!(frame.encode(), expected);
        assert_eq!(decode(b"F\x02\0"), None, "another version counts otherwise");
        let last = Frame { what: What::Epoch, number: EPOCH_MAX, ..frame };
        assert_eq!(decode(&last.encode()), Some(last));
        assert_eq!(
            decode(&Frame { number: EPOCH_MAX + 1, ..last }.encode()),
            None,
            "another epoch must find a place behind it"
        );
    }
}
