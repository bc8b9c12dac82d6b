//! What every publication of the load test carries: who sent it, which one it is, when it was due, and a checksum.
//!
//! The form is ASCII without anything JSON would escape, so it is the same bytes as a JSON string, in the text dialect and
//! in an HTTP body: `FL1.`, the fields in fixed-width hexadecimal, the checksum, then padding up to the length asked for.

use std::fmt::Write;

/// The fields of one publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Random tag of the run.
    pub run: u32,
    /// Index of the room.
    pub room: u32,
    /// Index of the publisher within its room.
    pub publisher: u32,
    /// Number of the publication, dense, from 0, per publisher.
    pub seq: u64,
    /// When it was due, nanoseconds since the start of the run.
    pub due_ns: u64,
}

const MARK: &str = "FL1.";
const FIELDS_BYTES: usize = MARK.len() + 3 * 8 + 2 * 16;
const CHECKSUM_BYTES: usize = 16;
const PADDING: &str = "abcdefghijklmnopqrstuvwxyz.ABCDEFGHIJKLMNOPQRSTUVWXYZ-0123456789";

impl Stamp {
    /// Shortest payload that can be asked for, bytes.
    pub const BYTES_MIN: usize = FIELDS_BYTES + CHECKSUM_BYTES;

    /// Appends the payload, `bytes` long, to `out`.
    ///
    /// # Panics
    /// When `bytes` is less than [`Stamp::BYTES_MIN`].
    pub fn encode(&self, bytes: usize, out: &mut String) {
        assert!(bytes >= Self::BYTES_MIN, "the payload must have room for its stamp");
        let begin = out.len();
        out.reserve(bytes);
        let Self { run, room, publisher, seq, due_ns } = self;
        write!(out, "{MARK}{run:08x}{room:08x}{publisher:08x}{seq:016x}{due_ns:016x}")
            .expect("writing to a string cannot fail");
        let sum = checksum(&out.as_bytes()[begin..], bytes);
        write!(out, "{sum:016x}").expect("writing to a string cannot fail");
        let mut rest = bytes - Self::BYTES_MIN;
        while rest > 0 {
            let part = rest.min(PADDING.len());
            out.push_str(&PADDING[..part]);
            rest -= part;
        }
    }

    /// Reads a payload back. `None` unless every byte of it is as it was written.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (fields, rest) = payload.split_at_checked(FIELDS_BYTES)?;
        let (sum, padding) = rest.split_at_checked(CHECKSUM_BYTES)?;
        if hex(sum)? != checksum(fields, payload.len()) || !is_padding(padding) {
            return None;
        }
        let mut numbers = fields.strip_prefix(MARK.as_bytes())?;
        let mut number = |digits: usize| {
            let (head, tail) = numbers.split_at_checked(digits)?;
            numbers = tail;
            hex(head)
        };
        let mut short = || u32::try_from(number(8)?).ok();
        let (run, room, publisher) = (short()?, short()?, short()?);
        Some(Self { run, room, publisher, seq: number(16)?, due_ns: number(16)? })
    }
}

/// Stamps of payloads that came before. In a room of many, each publication arrives many times: to see that all its bytes
/// are the same costs less than to read them again.
#[derive(Debug)]
pub struct Stamps {
    recent: Box<[(Vec<u8>, Option<Stamp>)]>,
}

impl Stamps {
    const SLOTS: usize = 64;

    /// Reads a payload, as [`Stamp::decode`] does.
    pub fn read(&mut self, payload: &[u8]) -> Option<Stamp> {
        // The last digits of the checksum are as good as random.
        let digits = payload.get(FIELDS_BYTES + CHECKSUM_BYTES - 2..FIELDS_BYTES + CHECKSUM_BYTES)?;
        let slot = (usize::from(digits[0]) * 16 + usize::from(digits[1])) % Self::SLOTS;
        let (bytes, stamp) = &mut self.recent[slot];
        if bytes != payload {
            *stamp = Stamp::decode(payload);
            bytes.clear();
            bytes.extend_from_slice(payload);
        }
        *stamp
    }
}

impl Default for Stamps {
    fn default() -> Self {
        Self { recent: vec![(Vec::new(), None); Self::SLOTS].into_boxed_slice() }
    }
}

fn is_padding(bytes: &[u8]) -> bool {
    bytes.chunks(PADDING.len()).all(|chunk| PADDING.as_bytes().starts_with(chunk))
}

/// FNV-1a over the fields and the length of the whole: a flipped, lost or added byte of either shows.
fn checksum(fields: &[u8], length: usize) -> u64 {
    let length = (length as u64).to_le_bytes();
    let bytes = fields.iter().chain(&length);
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// At most 16 lower-case digits, which always fit.
fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(stamp: &Stamp, bytes: usize) -> String {
        let mut text = String::new();
        stamp.encode(bytes, &mut text);
        text
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(run: u32, room: u32, publisher: u32, seq: u64, due_ns: u64, extra in 0..300_usize) {
            let stamp = Stamp { run, room, publisher, seq, due_ns };
            let text = encoded(&stamp, Stamp::BYTES_MIN + extra);
            prop_assert_eq!(text.len(), Stamp::BYTES_MIN + extra);
            prop_assert_eq!(serde_json::to_string(&text).unwrap(), format!("\"{text}\""));
            prop_assert_eq!(Stamp::decode(text.as_bytes()), Some(stamp));
        }

        #[test]
        fn any_change_shows(seq: u64, extra in 0..100_usize, at: prop::sample::Index, byte: u8, cut: bool) {
            let stamp = Stamp { run: 1, room: 2, publisher: 3, seq, due_ns: 5 };
            let mut bytes = encoded(&stamp, Stamp::BYTES_MIN + extra).into_bytes();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                prop_assume!(bytes[at] != byte);
                bytes[at] = byte;
            }
            prop_assert_eq!(Stamp::decode(&bytes), None);
        }

        #[test]
        fn what_came_before_makes_no_difference(which in prop::collection::vec((0..40_u64, any::<bool>()), 0..200)) {
            let mut stamps = Stamps::default();
            for (seq, broken) in which {
                let mut bytes = encoded(&Stamp { run: 1, room: 2, publisher: 3, seq, due_ns: 5 }, 90).into_bytes();
                if broken {
                    bytes[89] ^= 1;
                }
                prop_assert_eq!(stamps.read(&bytes), Stamp::decode(&bytes));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            prop_assert_eq!(Stamp::decode(&bytes), None);
        }
    }
}
