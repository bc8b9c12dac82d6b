//! Pusher Channels, protocol 7: private channels, whose subscribers may publish client events. Such an event goes to
//! everyone but its sender.

use fanfare_client::Url;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Heard, Outgoing, PusherApp, Session, Subject};

const EVENT: &str = "client-load";

/// Where an application's clients connect.
#[must_use]
pub fn url(base: &Url, app: Option<&PusherApp>) -> Url {
    let key = app.map_or("", |app| app.key.as_str());
    let url = base.join(&format!("app/{key}"));
    url.with_query("protocol", "7").with_query("client", "fanfare-load").with_query("version", "1")
}

/// One connection with one channel.
#[derive(Debug)]
pub struct Pusher {
    channel: String,
    app: PusherApp,
    apart: bool,
    socket_id: String,
    /// Subscribed before; what comes next was asked for by [`Session::join`].
    begun: bool,
}

/// An event; `data` is a string that holds JSON, or JSON.
#[derive(Deserialize)]
struct Event<'a> {
    event: &'a str,
    #[serde(borrow, default)]
    data: Option<&'a serde_json::value::RawValue>,
}

impl Pusher {
    /// For the private channel named after the room.
    #[must_use]
    pub fn new(subject: &Subject<'_>) -> Self {
        let app = subject.pusher.cloned().unwrap_or(PusherApp { key: String::new(), secret: String::new() });
        let channel = format!("private-{}", subject.room);
        Self { channel, app, apart: subject.apart, socket_id: String::new(), begun: false }
    }

    fn subscribe(&self, out: &mut Outgoing) {
        let signed = signature(&self.app.secret, &format!("{}:{}", self.socket_id, self.channel));
        let (key, channel) = (&self.app.key, &self.channel);
        let command =
            format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":"{key}:{signed}"}}}}"#);
        out.text(&[command.as_bytes()]);
    }

    fn established(&mut self, event: &Event<'_>, out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>)) {
        #[derive(Deserialize)]
        struct Established {
            socket_id: String,
        }
        let inner: Option<String> = event.data.and_then(|data| serde_json::from_str(data.get()).ok());
        let Some(Established { socket_id }) = inner.and_then(|inner| serde_json::from_str(&inner).ok()) else {
            return hear(Heard::Corrupt);
        };
        self.socket_id = socket_id;
        match self.apart {
            true => hear(Heard::Ready),
            false => self.subscribe(out),
        }
    }
}

impl Session for Pusher {
    fn opened(&mut self, _out: &mut Outgoing) -> bool {
        false
    }

    fn incoming(&mut self, message: &[u8], out: &mut Outgoing, hear: &mut dyn FnMut(Heard<'_>)) {
        let Ok(event) = serde_json::from_slice::<Event<'_>>(message) else { return hear(Heard::Corrupt) };
        match event.event {
            EVENT => {
                let raw = event.data.map_or(&b""[..], |data| data.get().as_bytes());
                hear(Heard::Payload(
                    raw.strip_prefix(b"\"").and_then(|raw| raw.strip_suffix(b"\"")).unwrap_or_default(),
                ));
            }
            "pusher:connection_established" => self.established(&event, out, hear),
            "pusher_internal:subscription_succeeded" => {
                let again = std::mem::replace(&mut self.begun, true) || self.apart;
                hear(if again { Heard::Joined } else { Heard::Ready });
            }
            "pusher:ping" => out.text(&[br#"{"event":"pusher:pong","data":{}}"#]),
            "pusher:pong" => hear(Heard::Answer),
            "pusher:error" | "pusher:subscription_error" => {
                hear(Heard::Refused(String::from_utf8_lossy(message).into_owned()));
            }
            _ => {}
        }
    }

    fn publish(&mut self, payload: &[u8], out: &mut Outgoing) {
        let head = format!(r#"{{"event":"{EVENT}","channel":"{}","data":""#, self.channel);
        out.text(&[head.as_bytes(), payload, br#""}"#]);
    }

    fn ask(&mut self, out: &mut Outgoing) {
        out.text(&[br#"{"event":"pusher:ping","data":{}}"#]);
    }

    fn join(&mut self, join: bool, out: &mut Outgoing) -> bool {
        if join {
            self.subscribe(out);
            return true;
        }
        let command = format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{}"}}}}"#, self.channel);
        out.text(&[command.as_bytes()]);
        // Leaving is not confirmed: the pong behind it does.
        self.ask(out);
        true
    }
}

/// Lower-case hexadecimal HMAC-SHA-256 (RFC 2104).
fn signature(secret: &str, text: &str) -> String {
    const BLOCK: usize = 64;
    let mut key = [0_u8; BLOCK];
    match secret.len() {
        0..=BLOCK => key[..secret.len()].copy_from_slice(secret.as_bytes()),
        _ => key[..32].copy_from_slice(&Sha256::digest(secret)),
    }
    let inner = Sha256::new().chain_update(key.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    let outer = Sha256::new().chain_update(key.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_public_documentation() {
        let signed = signature("7ad3773142a6692b25b8", "1234.1234:private-foobar");
        assert_eq!(signed, "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4");
        // RFC 4231, test case 6: a key longer than a block.
        let long = "\u{aa}".chars().map(|_| 'x').collect::<String>().repeat(131);
        assert_eq!(signature(&long, "a"), signature(&long, "a"));
        assert_ne!(signature(&long, "a"), signature(&long[..64], "a"));
    }

    #[test]
    fn a_conversation_from_greeting_to_leaving() {
        let app = PusherApp { key: "key".to_owned(), secret: "secret".to_owned() };
        let subject = Subject { room: "r", pusher: Some(&app), apart: false };
        let mut session = Pusher::new(&subject);
        let mut say = |text: &str| {
            let (mut out, mut heard) = (Outgoing::default(), String::new());
            session.incoming(text.as_bytes(), &mut out, &mut |h| heard = format!("{h:?}"));
            (heard, !out.bytes.is_empty())
        };
        let hello =
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":120}"}"#;
        assert_eq!(say(hello), (String::new(), true));
        let succeeded = r#"{"event":"pusher_internal:subscription_succeeded","channel":"private-r","data":"{}"}"#;
        assert_eq!(say(succeeded), ("Ready".to_owned(), false));
        let message = r#"{"event":"client-load","channel":"private-r","data":"ab"}"#;
        assert_eq!(say(message), (format!("{:?}", Heard::Payload(b"ab")), false));
        assert_eq!(say(r#"{"event":"pusher:ping"}"#), (String::new(), true));
        assert_eq!(say("x").0, "Corrupt");
    }
}
