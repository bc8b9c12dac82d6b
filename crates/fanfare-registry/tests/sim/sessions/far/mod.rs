//! The far end of a connection: a decoder of server frames and of the dialects that shares nothing with ours.

mod inflate;
mod stream;

use fanfare_protocol::wire::Window;
use fanfare_protocol::{Position, Variant};
use serde_json::Value;

/// What a client heard, in the order it came.
#[derive(Debug)]
pub(super) enum Heard {
    /// An object of the JSON dialect.
    Json(Value),
    /// The same as an event of a stream, and its id.
    Streamed(Value, Option<Position>),
    /// What keeps a stream alive.
    Comment,
    /// Messages of the text dialect, and whether they came as text; several where they were joined.
    Plain(Vec<Vec<u8>>, bool),
    Ping,
    Pong(Vec<u8>),
    Close(u16, String),
}

/// Bytes come in, whole frames go out. Strict: whatever RFC 6455 forbids a server is a failure of the run.
#[derive(Debug)]
pub(super) struct Reader {
    variant: Variant,
    /// What compressed messages may refer back to; none: nothing may be compressed.
    window: Option<Window>,
    bytes: Vec<u8>,
    /// Bytes of whole frames so far.
    pub(super) whole: u64,
    /// Messages that came compressed.
    pub(super) inflated: u64,
    has_closed: bool,
}

impl Reader {
    pub(super) fn new(variant: Variant, window: Option<Window>) -> Self {
        Self { variant, window, bytes: Vec::new(), whole: 0, inflated: 0, has_closed: false }
    }

    /// Takes bytes in; gives what is whole.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Vec<Heard> {
        self.bytes.extend_from_slice(bytes);
        let mut heard = Vec::new();
        while let Some((this, length)) = self.next() {
            assert!(!self.has_closed, "something follows the last words");
            self.has_closed = matches!(this, Heard::Close(..));
            heard.push(this);
            self.bytes.drain(..length);
            self.whole += length as u64;
        }
        heard
    }

    fn next(&mut self) -> Option<(Heard, usize)> {
        if self.variant == Variant::Sse {
            return stream::event(&self.bytes);
        }
        let speaks_json = matches!(self.variant, Variant::JsonRoom | Variant::JsonRooms);
        let (first, payload, length) = frame(&self.bytes)?;
        if first & 0x40 == 0 {
            return Some((interpret(first, payload, speaks_json), length));
        }
        assert_eq!(first & 0x08, 0, "control frames are not compressed");
        let window = self.window.expect("compression was agreed on");
        let message = inflate::inflate(payload, 1 << window.bits());
        assert!(message.len() > payload.len(), "what does not become shorter goes as it is");
        self.inflated += 1;
        Some((interpret(first, &message, speaks_json), length))
    }

    /// Bytes of a frame that is not whole yet.
    pub(super) fn rest(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// First byte, payload and length of the frame at the front, once it is there.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(first & 0xb0, 0x80, "server frames here are final, and one bit is an extension's: {first:#x}");
    assert_eq!(second & 0x80, 0, "server frames are not masked");
    let (length, header) = match second {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().expect("two"))), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().expect("eight")), 10),
        short => (u64::from(short), 2),
    };
    let least = match header {
        4 => 126,
        10 => 65_536,
        _ => 0,
    };
    assert!(length >= least, "a length in a longer form than needed");
    assert!(first & 0x08 == 0 || length <= 125, "a control frame of {length} bytes");
    let end = header + usize::try_from(length).expect("a length that fits");
    Some((first, bytes.get(header..end)?, end))
}

fn interpret(first: u8, payload: &[u8], speaks_json: bool) -> Heard {
    match first & 0x0f {
        1 => {
            let text = str::from_utf8(payload).expect("text frames hold UTF-8");
            if speaks_json {
                return Heard::Json(serde_json::from_str(text).expect("the JSON dialect speaks JSON"));
            }
            Heard::Plain(text.split('\n').map(|line| line.as_bytes().to_vec()).collect(), true)
        }
        2 => {
            assert!(!speaks_json, "the JSON dialect has no binary messages");
            Heard::Plain(vec![payload.to_vec()], false)
        }
        8 => {
            let (code, text) = payload.split_first_chunk().expect("our close frames carry a code");
            Heard::Close(u16::from_be_bytes(*code), String::from_utf8(text.to_vec()).expect("a text"))
        }
        9 => Heard::Ping,
        10 => Heard::Pong(payload.to_vec()),
        opcode => panic!("opcode {opcode}"),
    }
}

/// Appends one masked client frame.
pub(super) fn client_frame(first: u8, payload: &[u8], out: &mut impl Extend<u8>) {
    let mask = [0x37, 0xfa, first, 0x3d];
    let mut header = vec![first];
    match payload.len() {
        length @ 0..=125 => header.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            header.push(0x80 | 126);
            header.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            header.push(0x80 | 127);
            header.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    header.extend_from_slice(&mask);
    out.extend(header);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}
