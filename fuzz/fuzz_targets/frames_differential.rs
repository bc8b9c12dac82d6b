//! The decoder against an independent implementation, tungstenite's: the same messages and the same verdict.
//!
//! Where tungstenite is known to be laxer, and what is done about it here:
//!
//! - It takes lengths that are not in their shortest form (RFC 6455 section 5.2: "the minimal number of bytes MUST be used"), and
//!   lengths with the top bit set as long as they are under its limit. Ours refuses both, and a control frame in a longer form as
//!   one over 125 bytes; such streams are compared up to there.
//! - It does not know close code 1014, registered after it was written.
//! - It checks text when a frame has come whole, ours as bytes come, and a message's size when a frame begins. Streams here end at a
//!   frame's end, so that both have seen the same.
//! - It has no bound on fragments; ours is set out of reach.
#![no_main]

use std::io::{Cursor, Read, Write};

use fanfare_fuzz::Data;
use fanfare_fuzz::frames::{Seen, cuts, decode, stream};
use fanfare_protocol::{CloseReason, MessageLimits};
use libfuzzer_sys::fuzz_target;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

const MESSAGE_BYTES_MAX: usize = 100_000;

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    let is_raw = data.byte() % 4 == 0;
    let count = usize::from(data.byte() % 32);
    let mut places = Data(data.take(count));
    let stream = if is_raw { data.0.to_vec() } else { stream(&mut data) };
    let limits =
        MessageLimits { message_bytes_max: MESSAGE_BYTES_MAX, fragments_max: usize::MAX, bad_messages_max: 10 };
    let (ours, end) = decode(&stream, &cuts(&stream, &mut places), (&limits, false));
    let theirs = theirs(stream);
    let shared = ours.len().min(theirs.inputs.len());
    assert_eq!(ours[..shared], theirs.inputs[..shared], "what both have read");
    if ours.last() == Some(&Seen::Close(1014)) {
        assert!(theirs.is_violation && theirs.inputs.len() + 1 == ours.len());
        return;
    }
    match end {
        // Only here may they have gone on: see above.
        Some(CloseReason::ProtocolError(
            "length not in its shortest form" | "length over 63 bits" | "control frame over 125 bytes",
        )) => assert!(ours.len() <= theirs.inputs.len()),
        // Arbitrary bytes may end within a frame, of which ours has seen enough.
        Some(_) if is_raw && !theirs.is_violation => assert_eq!(ours.len(), theirs.inputs.len()),
        _ => assert_eq!((ours, end.is_some()), (theirs.inputs, theirs.is_violation), "{end:?}"),
    }
});

struct Theirs {
    inputs: Vec<Seen>,
    is_violation: bool,
}

/// What tungstenite's server role makes of the stream.
fn theirs(stream: Vec<u8>) -> Theirs {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut socket = WebSocket::from_raw_socket(OneWay(Cursor::new(stream)), Role::Server, Some(config));
    let mut inputs = Vec::new();
    loop {
        let is_violation = match socket.read() {
            Ok(Message::Text(text)) => {
                inputs.push(Seen::Text(text.to_string()));
                continue;
            }
            Ok(Message::Binary(bytes)) => {
                inputs.push(Seen::Binary(bytes.to_vec()));
                continue;
            }
            Ok(Message::Ping(bytes)) => {
                inputs.push(Seen::Ping(bytes.to_vec()));
                continue;
            }
            Ok(Message::Pong(_)) => {
                inputs.push(Seen::Pong);
                continue;
            }
            Ok(Message::Frame(frame)) => panic!("{frame:?}"),
            // How it tells of a close code that may not be sent, 1014 among them.
            Ok(Message::Close(Some(frame))) if frame.reason.as_str() == "Protocol violation" => true,
            Ok(Message::Close(frame)) => {
                inputs.push(Seen::Close(frame.map_or(1005, |frame| frame.code.into())));
                false
            }
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => false,
            Err(Error::Protocol(_) | Error::Utf8(_) | Error::Capacity(_)) => true,
            Err(error) => panic!("{error}"),
        };
        return Theirs { inputs, is_violation };
    }
}

/// Reads from the stream, writes (its pongs) to nowhere.
struct OneWay(Cursor<Vec<u8>>);

impl Read for OneWay {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(out)
    }
}

impl Write for OneWay {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
