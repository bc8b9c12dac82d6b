//! WebSocket frames (RFC 6455 section 5) as this program needs them: nothing is allocated, nothing is copied to be read.

/// Longest message that is taken, bytes. A longer one ends the connection.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What a frame carries (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A further part of a message.
    Continuation,
    /// Text.
    Text,
    /// Bytes.
    Binary,
    /// The end.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    /// Control frames stand between the parts of a message and are never split.
    #[must_use]
    pub fn is_control(self) -> bool {
        self.bits() >= 8
    }
}

/// The head of a frame whose bytes are all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The last part of its message.
    pub last: bool,
    /// What it carries.
    pub opcode: Opcode,
    /// The mask, on frames of clients.
    pub mask: Option<[u8; 4]>,
    /// Where the payload begins.
    pub start: usize,
    /// Where the frame ends.
    pub end: usize,
}

/// Reads the head of the first frame. `None` while bytes are missing.
///
/// # Errors
/// The broken rule, in words.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, &'static str> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err("a reserved bit is set");
    }
    let opcode = Opcode::from_bits(first & 0x0f).ok_or("unknown opcode")?;
    let last = first & 0x80 != 0;
    let (length, mut start) = match second & 0x7f {
        126 => {
            let Some(length) = bytes.get(2..4) else { return Ok(None) };
            (u64::from(u16::from_be_bytes([length[0], length[1]])), 4)
        }
        127 => {
            let Some(length) = bytes.get(2..10) else { return Ok(None) };
            (u64::from_be_bytes(length.try_into().expect("eight bytes")), 10)
        }
        short => (u64::from(short), 2),
    };
    if opcode.is_control() && (length > 125 || !last) {
        return Err("a control frame is too long or split");
    }
    if length > MESSAGE_BYTES_MAX as u64 {
        return Err("a frame is too long for this program");
    }
    let mut mask = None;
    if second & 0x80 != 0 {
        let Some(key) = bytes.get(start..start + 4) else { return Ok(None) };
        mask = Some(key.try_into().expect("four bytes"));
        start += 4;
    }
    let end = start + length as usize;
    Ok((bytes.len() >= end).then_some(Head { last, opcode, mask, start, end }))
}

/// Applies or removes a mask.
pub fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let value = u64::from_ne_bytes((&*chunk).try_into().expect("eight bytes"));
        chunk.copy_from_slice(&(value ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends a whole message of a server.
pub fn write_plain(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    write_head(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Appends a whole message of a client, made of `parts`, under the mask `key`.
pub fn write_masked(out: &mut Vec<u8>, opcode: Opcode, key: [u8; 4], parts: &[&[u8]]) {
    write_head(out, opcode, parts.iter().map(|part| part.len()).sum(), 0x80);
    out.extend_from_slice(&key);
    let begin = out.len();
    for part in parts {
        out.extend_from_slice(part);
    }
    mask(&mut out[begin..], key);
}

fn write_head(out: &mut Vec<u8>, opcode: Opcode, length: usize, masked: u8) {
    let first = 0x80 | opcode.bits();
    match length {
        0..=125 => out.extend_from_slice(&[first, masked | length as u8]),
        126..=0xffff => {
            out.extend_from_slice(&[first, masked | 126]);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[first, masked | 127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Where a head of HTTP ends: after its empty line.
#[must_use]
pub fn http_head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// Value of the header `name` in a head of HTTP.
#[must_use]
pub fn http_header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line = |line: &'a str| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    };
    head.lines().skip(1).find_map(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(payload in prop::collection::vec(any::<u8>(), 0..70_000), key: [u8; 4], cut: prop::sample::Index) {
            for masked in [false, true] {
                let mut bytes = Vec::new();
                if masked {
                    let (left, right) = payload.split_at(payload.len() / 2);
                    write_masked(&mut bytes, Opcode::Text, key, &[left, right]);
                } else {
                    write_plain(&mut bytes, Opcode::Text, &payload);
                }
                prop_assert_eq!(head(&bytes[..cut.index(bytes.len())]), Ok(None));
                let head = head(&bytes).unwrap().unwrap();
                prop_assert!(head.last && head.opcode == Opcode::Text && head.end == bytes.len());
                prop_assert_eq!(head.mask, masked.then_some(key));
                let mut got = bytes[head.start..].to_vec();
                mask(&mut got, head.mask.unwrap_or_default());
                prop_assert_eq!(&got, &payload);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            if let Ok(Some(head)) = head(&bytes) {
                prop_assert!(head.start <= head.end && head.end <= bytes.len());
            }
        }
    }

    #[test]
    fn broken_rules_are_named() {
        assert_eq!(head(&[0xc1, 0]), Err("a reserved bit is set"));
        assert_eq!(head(&[0x83, 0]), Err("unknown opcode"));
        assert_eq!(head(&[0x09, 0]), Err("a control frame is too long or split"));
        assert!(head(&[0x82, 127, 255, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn a_header_is_found_in_any_case() {
        let head = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nsec-websocket-accept:  abc \r\n\r\n";
        assert_eq!(http_header(head, "Sec-WebSocket-Accept"), Some("abc"));
        assert_eq!(http_header(head, "Nothing"), None);
        assert_eq!(http_head_end(head.as_bytes()), Some(head.len()));
    }
}
