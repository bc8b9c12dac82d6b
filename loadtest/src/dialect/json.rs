//! Fanfare's JSON dialect.

use fanfare_client::{Command, Event};

use super::{Heard, Outgoing, Session, Subject};

/// On `/room/{room}`: to be connected is to be subscribed.
#[derive(Debug)]
pub struct InRoom;

impl Session for InRoom {
    fn opened(&mut self, _out: &mut Outgoing) -> bool {
        true
    }

    fn incoming(&mut self, message: &[u8], _out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>)) {
        match plain(message, br#""}"#) {
            Some(payload) => hear(Heard::Payload(payload)),
            None => read(message, hear),
        }
    }

    fn publish(&mut self, payload: &[u8], out: &mut Outgoing) {
        out.text(&[br#"{"name":"publish","message":""#, payload, br#""}"#]);
    }
}

/// On `/room/{room}?since=…`: goes on from a position, and hears where it stands.
#[derive(Debug)]
pub struct Returning;

impl Session for Returning {
    fn opened(&mut self, _out: &mut Outgoing) -> bool {
        false
    }

    fn incoming(&mut self, message: &[u8], _out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>)) {
        match std::str::from_utf8(message).map(Event::parse) {
            Ok(Ok(Event::Subscribed { position: Some(position), recovered, .. })) => {
                hear(Heard::Placed(position, recovered));
                hear(Heard::Ready);
            }
            Ok(Ok(Event::Message { offset: Some(offset), .. })) => {
                hear(Heard::Offset(offset));
                read(message, hear);
            }
            Ok(Ok(Event::Message { offset: None, .. })) => {
                hear(Heard::Refused("a message without an offset".to_owned()));
            }
            Ok(Ok(Event::Drain { retry_ms })) => hear(Heard::Drain(retry_ms)),
            _ => read(message, hear),
        }
    }

    fn publish(&mut self, payload: &[u8], out: &mut Outgoing) {
        InRoom.publish(payload, out);
    }
}

/// On `/ws`: has one room of many that it could have, from the beginning or by command.
#[derive(Debug)]
pub struct Rooms {
    room: String,
    /// What the shortest form of a message ends with.
    end: String,
    /// It joins and leaves by command; else it is subscribed once, and says so.
    apart: bool,
}

impl Rooms {
    /// For one room.
    #[must_use]
    pub fn new(subject: &Subject<'_>) -> Self {
        let end = format!(r#"","room":"{}"}}"#, subject.room);
        Self { room: subject.room.to_owned(), end, apart: subject.apart }
    }
}

impl Session for Rooms {
    fn opened(&mut self, out: &mut Outgoing) -> bool {
        if !self.apart {
            self.join(true, out);
        }
        self.apart
    }

    fn incoming(&mut self, message: &[u8], _out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>)) {
        if let Some(payload) = plain(message, self.end.as_bytes()) {
            return hear(Heard::Payload(payload));
        }
        read(message, &mut |heard| match heard {
            Heard::Joined if !self.apart => hear(Heard::Ready),
            heard => hear(heard),
        });
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
fn plain<'a>(message: &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    let payload = message.strip_prefix(br#"{"name":"message","message":""#)?.strip_suffix(end)?;
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
        Ok(Event::Welcome { connection, .. }) => {
            shard_of(&connection).into_iter().for_each(|shard| hear(Heard::Shard(shard)));
        }
        Ok(_) => {}
        Err(_) => hear(Heard::Corrupt),
    }
}

/// A connection's name begins with its shard, in hexadecimal.
fn shard_of(connection: &str) -> Option<u32> {
    u32::from_str_radix(connection.split_once('-')?.0, 16).ok()
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
    fn who_comes_back_hears_where_it_stands() {
        let heard = |message: &str| {
            let mut all = Vec::new();
            Returning
                .incoming(message.as_bytes(), &mut Outgoing::default(), &mut |heard| all.push(format!("{heard:?}")));
            all
        };
        let subscribed = r#"{"name":"subscribed","epoch":"00000000000000ab","offset":4,"recovered":true}"#;
        assert_eq!(heard(subscribed), ["Placed(Position { epoch: 171, offset: 4 }, true)", "Ready"]);
        let message = r#"{"name":"message","message":"abc","offset":5}"#;
        assert_eq!(heard(message), ["Offset(5)", &format!("{:?}", Heard::Payload(b"abc"))]);
        assert_eq!(heard(r#"{"name":"message","message":"abc"}"#), [r#"Refused("a message without an offset")"#]);
        assert_eq!(heard(r#"{"name":"drain","retry_ms":70}"#), ["Drain(70)"]);
    }

    #[test]
    fn everything_else_has_its_name() {
        assert_eq!(heard(r#"{"name":"gap","from":1,"to":2,"count":2}"#), ["Gap(2)"]);
        assert_eq!(heard(r#"{"name":"message","message":"a\"b"}"#), [format!("{:?}", Heard::Payload(br#"a\"b"#))]);
        assert_eq!(heard(r#"{"name":"message","message":{}}"#), [format!("{:?}", Heard::Payload(b""))]);
        assert_eq!(heard("{"), ["Corrupt"]);
        assert_eq!(heard(r#"{"name":"welcome"}"#), [""; 0]);
        let welcome = r#"{"name":"welcome","connection":"1f-2-3","heartbeat_ms":1,"node":"n"}"#;
        assert_eq!(heard(welcome), ["Shard(31)"]);
    }

    #[test]
    fn a_connection_of_many_rooms_says_when_it_is_subscribed() {
        let talk = |apart: bool| {
            let mut session = Rooms::new(&Subject { room: "r", pusher: None, apart });
            let (mut out, mut heard) = (Outgoing::default(), String::new());
            let ready = session.opened(&mut out);
            let subscribed = br#"{"name":"subscribed","room":"r","epoch":"e","offset":0,"recovered":true}"#;
            session.incoming(subscribed, &mut Outgoing::default(), &mut |h| heard = format!("{h:?}"));
            (ready, !out.bytes.is_empty(), heard)
        };
        assert_eq!(talk(false), (false, true, "Ready".to_owned()));
        assert_eq!(talk(true), (true, false, "Joined".to_owned()));
        let mut session = Rooms::new(&Subject { room: "r", pusher: None, apart: false });
        let mut heard = |message: &str| {
            let mut all = Vec::new();
            session.incoming(message.as_bytes(), &mut Outgoing::default(), &mut |h| all.push(format!("{h:?}")));
            all
        };
        let short = heard(r#"{"name":"message","message":"abc","room":"r"}"#);
        assert_eq!(short, [format!("{:?}", Heard::Payload(b"abc"))]);
        assert_eq!(short, heard(r#"{"name":"message","room":"r","message":"abc"}"#));
    }
}
