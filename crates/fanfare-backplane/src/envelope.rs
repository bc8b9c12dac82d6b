//! A post as bytes. Version 1, all numbers big-endian:
//!
//! ```text
//! version u8 · what u8 · node u64 · number u64 · [except 3 × u32] · room: length u8, bytes · [user: length u16, bytes] · payload
//! ```
//!
//! `what` is the kind in its low four bits, 0x10 where there is a user, and 0x20 where a connection is left out. A later version may be
//! something else altogether: a node that meets one it does not know says so and begins anew behind it.

use bytes::{Buf as _, BufMut as _, Bytes};
use fanfare_protocol::{Payload, RoomName, UserName};
use fanfare_registry::{Act, Post};

const VERSION: u8 = 1;

const JSON: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 3;
const HAS_USER: u8 = 0x10;
const HAS_EXCEPT: u8 = 0x20;

/// What an envelope holds: who posted it, under which number, and what. Whether the log counts it is said beside the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) node: u64,
    pub(crate) number: u64,
    pub(crate) post: Post,
}

/// Why bytes are no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("it is of version {0}, which this node does not know")]
    Version(u8),
    #[error("it is not an entry of a log of Fanfare")]
    Malformed,
}

/// Writes a post of `node`.
pub(crate) fn encode(node: u64, number: u64, post: &Post) -> Vec<u8> {
    let (what, user, payload, except) = match &post.act {
        Act::Close => (CLOSE, None, &[][..], None),
        Act::Publish { user, payload, except, .. } => {
            let (kind, bytes) = match payload {
                Payload::Json(bytes) => (JSON, bytes),
                Payload::Text(bytes) => (TEXT, bytes),
                Payload::Binary(bytes) => (BINARY, bytes),
            };
            (kind, user.as_ref(), &bytes[..], *except)
        }
    };
    let flags = if user.is_some() { HAS_USER } else { 0 } | if except.is_some() { HAS_EXCEPT } else { 0 };
    let room = post.room.as_str().as_bytes();
    let mut out = Vec::with_capacity(40 + room.len() + user.map_or(0, |user| user.as_str().len()) + payload.len());
    out.put_u8(VERSION);
    out.put_u8(what | flags);
    out.put_u64(node);
    out.put_u64(number);
    except.iter().flatten().for_each(|&number| out.put_u32(number));
    out.put_u8(u8::try_from(room.len()).expect("a room's name has at most 255 bytes"));
    out.put_slice(room);
    if let Some(user) = user {
        let user = user.as_str().as_bytes();
        out.put_u16(u16::try_from(user.len()).expect("a user's name is shorter than that"));
        out.put_slice(user);
    }
    out.put_slice(payload);
    out
}

/// Reads one. `is_kept`: the log has counted it.
pub(crate) fn decode(bytes: Vec<u8>, is_kept: bool) -> Result<Letter, Unreadable> {
    let mut bytes = Bytes::from(bytes);
    match bytes.first() {
        Some(&VERSION) => {}
        Some(&version) => return Err(Unreadable::Version(version)),
        None => return Err(Unreadable::Malformed),
    }
    read(&mut bytes, is_kept).ok_or(Unreadable::Malformed)
}

fn read(bytes: &mut Bytes, is_kept: bool) -> Option<Letter> {
    bytes.advance(1);
    let what = bytes.try_get_u8().ok()?;
    if what & !(0x0f | HAS_USER | HAS_EXCEPT) != 0 {
        return None;
    }
    let node = bytes.try_get_u64().ok()?;
    let number = bytes.try_get_u64().ok()?;
    let mut except = None;
    if what & HAS_EXCEPT != 0 {
        let mut next = || bytes.try_get_u32().ok();
        except = Some([next()?, next()?, next()?]);
    }
    let room_bytes = bytes.try_get_u8().ok()?;
    let room = RoomName::parse_made(text(bytes, room_bytes.into())?.as_str()).ok()?;
    let mut user = None;
    if what & HAS_USER != 0 {
        let user_bytes = bytes.try_get_u16().ok()?;
        user = Some(UserName::parse(text(bytes, user_bytes.into())?.as_str()).ok()?);
    }
    let payload = match what & 0x0f {
        JSON => Payload::Json(utf8(bytes)?),
        TEXT => Payload::Text(utf8(bytes)?),
        BINARY => Payload::Binary(std::mem::take(bytes)),
        CLOSE if bytes.is_empty() && user.is_none() && except.is_none() && !is_kept => {
            return Some(Letter { node, number, post: Post { room, act: Act::Close } });
        }
        _ => return None,
    };
    let act = Act::Publish { user, payload, except, is_kept };
    Some(Letter { node, number, post: Post { room, act } })
}

fn text(bytes: &mut Bytes, len: usize) -> Option<String> {
    if bytes.len() < len {
        return None;
    }
    String::from_utf8(bytes.split_to(len).into()).ok()
}

fn utf8(bytes: &mut Bytes) -> Option<Bytes> {
    str::from_utf8(bytes).ok()?;
    Some(std::mem::take(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letters() -> impl Strategy<Value = Letter> {
        let payload = prop_oneof![
            any::<String>().prop_map(|text| Payload::Json(text.into())),
            any::<String>().prop_map(|text| Payload::Text(text.into())),
            any::<Vec<u8>>().prop_map(|bytes| Payload::Binary(bytes.into())),
        ];
        let user = proptest::option::of("[a-zäß]{1,40}".prop_map(|name| UserName::parse(&name).expect("a name")));
        let publish = (user, payload, any::<Option<[u32; 3]>>(), any::<bool>())
            .prop_map(|(user, payload, except, is_kept)| Act::Publish { user, payload, except, is_kept });
        let room = "[a-zäß:€-]{1,60}".prop_map(|name| RoomName::parse(&name).expect("a name"));
        (any::<u64>(), any::<u64>(), room, prop_oneof![4 => publish, 1 => Just(Act::Close)])
            .prop_map(|(node, number, room, act)| Letter { node, number, post: Post { room, act } })
    }

    fn is_kept(letter: &Letter) -> bool {
        matches!(letter.post.act, Act::Publish { is_kept: true, .. })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(letter in letters()) {
            let bytes = encode(letter.node, letter.number, &letter.post);
            prop_assert_eq!(decode(bytes, is_kept(&letter)), Ok(letter));
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>, is_kept: bool) {
            let _ = decode(bytes.clone(), is_kept);
            bytes.insert(0, VERSION);
            let _ = decode(bytes, is_kept);
        }

        #[test]
        fn one_that_was_cut_or_changed_does_no_harm(letter in letters(), at: prop::sample::Index, bits: u8) {
            let mut bytes = encode(letter.node, letter.number, &letter.post);
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
            let _ = decode(bytes.clone(), is_kept(&letter));
            bytes.truncate(at);
            let _ = decode(bytes, is_kept(&letter));
        }
    }

    #[test]
    fn another_version_is_named() {
        assert_eq!(decode(vec![2, 0, 0], false), Err(Unreadable::Version(2)));
        assert_eq!(decode(Vec::new(), false), Err(Unreadable::Malformed));
    }

    #[test]
    fn what_version_1_does_not_say_is_not_passed_over() {
        let room = RoomName::parse("lobby").expect("a name");
        let mut bytes = encode(1, 2, &Post { room, act: Act::Close });
        assert!(decode(bytes.clone(), false).is_ok());
        for bits in [0x40, 0x80] {
            bytes[1] ^= bits;
            assert_eq!(decode(bytes.clone(), false), Err(Unreadable::Malformed), "{bits:#x}");
            bytes[1] ^= bits;
        }
    }

    #[test]
    fn the_bytes_of_version_1_stay_as_they_are() {
        let room = RoomName::parse("a:b").expect("a name");
        let user = Some(UserName::parse("Zoë").expect("a name"));
        let payload = Payload::Json(Bytes::from_static(b"{}"));
        let act = Act::Publish { user, payload, except: Some([1, 2, 3]), is_kept: true };
        let bytes = encode(0x0102, 0x0304, &Post { room, act });
        let expected =
            b"\x01\x30\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\x03\x04\0\0\0\x01\0\0\0\x02\0\0\0\x03\x03a:b\0\x04Zo\xc3\xab{}";
        assert_eq!(bytes, expected);
    }
}
