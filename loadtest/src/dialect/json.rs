//! Fanfare's JSON dialect.

use fanfare_client::{Command, Event};

use super::{Heard, Outgoing, Session};

/// On `/room/{room}`: to be connected is to be subscribed.
#[derive(Debug)]
pub struct InRoom;

impl Session for InRoom {
    fn opened(&mut self, _out: &mut Outgoing) -> bool {
        true
    }

    fn incoming(&mut self, message: &[u8], _out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>)) {
        match plain(message) {
            Some(payload) => hear(Heard::Payload(payload)),
            None => read(message, hear),
        }
    }

    fn publish(&mut self, payload: &[u8], out: &mut Outgoing) {
        out.text(&[br#"{"name":"publish","message":""#, payload, br#""}"#]);
    }
}

/// On `/ws`: joins and leaves one room by command.
#[derive(Debug)]
pub struct Apart {
    room: String,
}

impl Apart {
    /// For `room`.
    #[must_use]
    pub fn new(room: &str) -> Self {
        Self { room: room.to_owned() }
    }
}

impl Session for Apart {
    fn opened(&mut self, _out: &mut Outgoing) -> bool {
        true
    }

    fn incoming(&mut self, message: &[u8], _out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>)) {
        read(message, hear);
    }

    fn publish(&mut self, payload: &[u8], out: &mut Outgoing) {
        let message = format!("\"{}\"", String::from_utf8_lossy(payload));
        let command = Command::Publish { room: Some(&self.room), message: &message, except_self: false };
        out.text(&[command.encode(None).as_bytes()]);
    }

    fn join(&mut self, join: bool, out: &mut Outgoing) -> bool {
        let command = match join {
            true => Command::Subscribe { room: &self.room, since: None },
            false => Command::Unsubscribe { room: Some(&self.room) },
        };
        out.text(&[command.encode(None).as_bytes()]);
        true
    }
}

/// The payload of the shortest form of a message, which needs no JSON reader: nothing but the payload in it can vary.
fn plain(message: &[u8]) -> Option<&[u8]> {
    let payload = message.strip_prefix(br#"{"name":"message","message":""#)?.strip_suffix(br#""}"#)?;
    // A quote or an escape: there is more to it.
    (!payload.iter().any(|&byte| byte == b'"' || byte == b'\\')).then_some(payload)
}

fn read(message: &[u8], hear: &mut dyn FnMut(Heard<'_>)) {
    let Ok(text) = std::str::from_utf8(message) else { return hear(Heard::Corrupt) };
    match Event::parse(text) {
        Ok(Event::Message { message, .. }) => {
            // The payload has no character that JSON escapes; anything but the plain string is a changed message.
            let raw = message.get().as_bytes();
            hear(Heard::Payload(raw.strip_prefix(b"\"").and_then(|raw| raw.strip_suffix(b"\"")).unwrap_or_default()));
        }
        Ok(Event::Gap { count, .. }) => hear(Heard::Gap(count)),
        Ok(Event::Error { code, message, .. }) => hear(Heard::Refused(format!("{code}: {message}"))),
        Ok(Event::Subscribed { .. }) => hear(Heard::Joined),
        Ok(Event::Unsubscribed { .. }) => hear(Heard::Left),
        Ok(_) => {}
        Err(_) => hear(Heard::Corrupt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(message: &str) -> Vec<String> {
        let mut all = Vec::new();
        InRoom.incoming(message.as_bytes(), &mut Outgoing::default(), &mut |heard| all.push(format!("{heard:?}")));
        all
    }

    #[test]
    fn short_and_long_forms_of_a_message_say_the_same() {
        let short = heard(r#"{"name":"message","message":"abc"}"#);
        assert_eq!(short, heard(r#"{"name":"message","message":"abc","offset":7,"later":"x"}"#));
        assert_eq!(short, heard(r#"{ "message":"abc","name":"message"}"#));
        assert_eq!(short, [format!("{:?}", Heard::Payload(b"abc"))]);
    }

    #[test]
    fn everything_else_has_its_name() {
        assert_eq!(heard(r#"{"name":"gap","from":1,"to":2,"count":2}"#), ["Gap(2)"]);
        assert_eq!(heard(r#"{"name":"message","message":"a\"b"}"#), [format!("{:?}", Heard::Payload(br#"a\"b"#))]);
        assert_eq!(heard(r#"{"name":"message","message":{}}"#), [format!("{:?}", Heard::Payload(b""))]);
        assert_eq!(heard("{"), ["Corrupt"]);
        assert_eq!(heard(r#"{"name":"welcome"}"#), [""; 0]);
    }
}
