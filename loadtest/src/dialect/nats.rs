//! NATS over WebSocket: its text protocol in binary messages, whose borders mean nothing.

use super::{Heard, Outgoing, Session, Subject};
use crate::frame::MESSAGE_BYTES_MAX;

/// A control line is never longer than this (`max_control_line` is 4 KiB unless it is raised).
const LINE_BYTES_MAX: usize = 65_536;

/// One connection with one subscription.
#[derive(Debug)]
pub struct Nats {
    subject: String,
    apart: bool,
    /// What of an operation has come so far.
    partial: Vec<u8>,
    /// The PONG to come says that the session is subscribed, or that it has joined or left.
    meaning: Meaning,
}

/// What the next PONG says.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    Ready,
    Joined,
    Left,
    Answer,
}

impl Nats {
    /// For the subject named like the room.
    #[must_use]
    pub fn new(subject: &Subject<'_>) -> Self {
        Self { subject: subject.room.to_owned(), apart: subject.apart, partial: Vec::new(), meaning: Meaning::Answer }
    }

    fn subscribe(&self) -> String {
        format!("SUB {} 1\r\nPING\r\n", self.subject)
    }

    /// Reads whole operations; returns how many bytes they were. `None` for what NATS does not say.
    fn operations(&mut self, bytes: &[u8], out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>)) -> Option<usize> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                return (rest.len() <= LINE_BYTES_MAX).then_some(at);
            };
            let line = rest[..end].strip_suffix(b"\r")?;
            let mut consumed = end + 1;
            if let Some(arguments) = line.strip_prefix(b"MSG ") {
                let digits = arguments.rsplit(|&byte| byte == b' ').next()?;
                let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
                if length > MESSAGE_BYTES_MAX {
                    return None;
                }
                let Some(message) = rest.get(consumed..consumed + length + 2) else { return Some(at) };
                hear(Heard::Payload(message.strip_suffix(b"\r\n")?));
                consumed += length + 2;
            } else {
                self.control(line, out, hear);
            }
            at += consumed;
        }
    }

    fn control(&mut self, line: &[u8], out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>)) {
        match line {
            b"PING" => out.binary(&[b"PONG\r\n"]),
            b"PONG" => hear(match std::mem::replace(&mut self.meaning, Meaning::Answer) {
                Meaning::Ready => Heard::Ready,
                Meaning::Joined => Heard::Joined,
                Meaning::Left => Heard::Left,
                Meaning::Answer => Heard::Answer,
            }),
            b"+OK" => {}
            line if line.starts_with(b"INFO ") => {
                const CONNECT: &str = r#"CONNECT {"verbose":false,"pedantic":false,"echo":true,"lang":"load","version":"1","protocol":1}"#;
                let subscribe = if self.apart { "PING\r\n".to_owned() } else { self.subscribe() };
                self.meaning = Meaning::Ready;
                out.binary(&[CONNECT.as_bytes(), b"\r\n", subscribe.as_bytes()]);
            }
            line => hear(Heard::Refused(String::from_utf8_lossy(line).into_owned())),
        }
    }
}

impl Session for Nats {
    fn opened(&mut self, _out: &mut Outgoing) -> bool {
        false
    }

    fn incoming(&mut self, message: &[u8], out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>)) {
        let mut partial = std::mem::take(&mut self.partial);
        let whole = if partial.is_empty() {
            message
        } else {
            partial.extend_from_slice(message);
            &partial
        };
        match self.operations(whole, out, hear) {
            Some(consumed) => self.partial = whole[consumed..].to_vec(),
            None => hear(Heard::Corrupt),
        }
    }

    fn publish(&mut self, payload: &[u8], out: &mut Outgoing) {
        let head = format!("PUB {} {}\r\n", self.subject, payload.len());
        out.binary(&[head.as_bytes(), payload, b"\r\n"]);
    }

    fn ask(&mut self, out: &mut Outgoing) {
        out.binary(&[b"PING\r\n"]);
    }

    fn join(&mut self, join: bool, out: &mut Outgoing) -> bool {
        match join {
            true => {
                self.meaning = Meaning::Joined;
                out.binary(&[self.subscribe().as_bytes()]);
            }
            false => {
                self.meaning = Meaning::Left;
                out.binary(&[b"UNSUB 1\r\nPING\r\n"]);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn operations_are_found_wherever_they_are_cut(cuts in prop::collection::vec(1..40_usize, 0..40)) {
            let stream = b"INFO {}\r\nPONG\r\nMSG r 1 3\r\na\nb\r\nPING\r\nMSG r 1 reply 0\r\n\r\nPONG\r\n-ERR 'no'\r\n".repeat(3);
            let subject = Subject { room: "r", pusher: None, apart: false };
            let (mut session, mut out, mut heard) = (Nats::new(&subject), Outgoing::default(), Vec::new());
            let (mut rest, mut cuts) = (&stream[..], cuts.into_iter());
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(cuts.next().unwrap_or(usize::MAX).min(rest.len()));
                session.incoming(head, &mut out, &mut |h| heard.push(format!("{h:?}")));
                rest = tail;
            }
            let payload = |bytes: &[u8]| format!("{:?}", Heard::Payload(bytes));
            let once = ["Ready".to_owned(), payload(b"a\nb"), payload(b""), "Answer".to_owned(), r#"Refused("-ERR 'no'")"#.to_owned()];
            prop_assert_eq!(heard, [once.clone(), once.clone(), once].concat());
        }
    }
}
