//! Socket.IO 4 over its WebSocket transport (Engine.IO 4). The test's server joins each connection to the room in the
//! query `room`, gives every `publish` to that room as `message`, and answers `join` and `leave` with `joined` and `left`.

use fanfare_client::{RoomName, Url};

use super::{Heard, Outgoing, Session, Subject};

/// Where the subscribers of `room` connect.
#[must_use]
pub fn url(base: &Url, room: &RoomName) -> Url {
    let url = base.join("socket.io/");
    url.with_query("EIO", "4").with_query("transport", "websocket").with_query("room", room.as_str())
}

/// One connection to the main namespace.
#[derive(Debug)]
pub struct SocketIo;

impl SocketIo {
    /// The room stands in the address.
    #[must_use]
    pub fn new(_subject: &Subject<'_>) -> Self {
        Self
    }
}

impl Session for SocketIo {
    fn opened(&mut self, _out: &mut Outgoing) -> bool {
        false
    }

    fn incoming(&mut self, message: &[u8], out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>)) {
        if let Some(payload) = message.strip_prefix(br#"42["message",""#).and_then(|rest| rest.strip_suffix(br#""]"#)) {
            return hear(Heard::Payload(payload));
        }
        match message {
            // Engine.IO: open, ping.
            [b'0', ..] => out.text(&[b"40"]),
            b"2" => out.text(&[b"3"]),
            // Socket.IO: connected to the namespace, refused.
            [b'4', b'0', ..] => hear(Heard::Ready),
            [b'4', b'4', why @ ..] => hear(Heard::Refused(String::from_utf8_lossy(why).into_owned())),
            br#"42["joined"]"# => hear(Heard::Joined),
            br#"42["left"]"# => hear(Heard::Left),
            _ => hear(Heard::Corrupt),
        }
    }

    fn publish(&mut self, payload: &[u8], out: &mut Outgoing) {
        out.text(&[br#"42["publish",""#, payload, br#""]"#]);
    }

    fn join(&mut self, join: bool, out: &mut Outgoing) -> bool {
        out.text(&[if join { br#"42["join"]"# } else { br#"42["leave"]"# }]);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packets_of_a_server_are_understood() {
        let check = |packet: &str, expected: &str, answers: bool| {
            let (mut out, mut heard) = (Outgoing::default(), String::new());
            SocketIo.incoming(packet.as_bytes(), &mut out, &mut |h| heard = format!("{h:?}"));
            assert_eq!((heard.as_str(), !out.bytes.is_empty()), (expected, answers), "{packet}");
        };
        check(r#"0{"sid":"x","upgrades":[]}"#, "", true);
        check(r#"40{"sid":"y"}"#, "Ready", false);
        check("2", "", true);
        check(r#"42["message","ab"]"#, &format!("{:?}", Heard::Payload(b"ab")), false);
        check(r#"42["joined"]"#, "Joined", false);
        check(r#"44{"message":"no"}"#, r#"Refused("{\"message\":\"no\"}")"#, false);
        check("6", "Corrupt", false);
    }
}
