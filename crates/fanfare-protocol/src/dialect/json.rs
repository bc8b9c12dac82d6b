//! The JSON dialect: objects with a string `name`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::wire::{Opcode, frame_with};
use crate::{Event, HistoryPage, Past, Payload, Position, Published, ReplyId, RoomEvent, RoomName, UserName};

pub(super) fn encode_room_event(event: &RoomEvent, named: bool, out: &mut Vec<u8>) {
    match event {
        RoomEvent::Message(room, published) => {
            let length = object_length(named.then_some(room)) + published_length(published);
            object("message", length, out, |fields| {
                fields.payload(&published.payload).room(named, room);
                fields.user(published.user.as_ref()).offset(published.offset);
            });
        }
        RoomEvent::Joined(room, user) => came_or_went("joined", room, user.as_ref(), named, out),
        RoomEvent::MemberJoined(room, user, _) => came_or_went("joined", room, Some(user), named, out),
        RoomEvent::Left(room, user) => came_or_went("left", room, user.as_ref(), named, out),
        RoomEvent::RoomClosed(room) => {
            object("room_closed", object_length(named.then_some(room)), out, |fields| _ = fields.room(named, room));
        }
    }
}

fn came_or_went(name: &'static str, room: &RoomName, user: Option<&UserName>, named: bool, out: &mut Vec<u8>) {
    let length = object_length(named.then_some(room)) + user.map_or(0, name_length);
    object(name, length, out, |fields| _ = fields.room(named, room).user(user));
}

pub(super) fn encode_event(event: &Event<'_>, named: bool, out: &mut Vec<u8>) {
    match *event {
        Event::Welcome { connection, heartbeat_ms, user, token, node } => object("welcome", 128, out, |fields| {
            fields.text("connection", connection).number("heartbeat_ms", heartbeat_ms);
            fields.user(user).optional("token", token).text("node", node);
        }),
        Event::Subscribed { room, position, recovered, id } => object("subscribed", 128, out, |fields| {
            fields.room(named, room).position(position).flag("recovered", recovered).id(id);
        }),
        Event::Unsubscribed { room, id } => object("unsubscribed", object_length(Some(room)), out, |fields| {
            fields.room(named, room).id(id);
        }),
        Event::Ack { offset, delivered, dropped, evicted, id } => object("ack", 96, out, |fields| {
            fields.offset(offset).counts(delivered, dropped, evicted).id(id);
        }),
        Event::Sent { delivered, queued, id } => object("ack", 96, out, |fields| {
            fields.counts(delivered, 0, 0).flag("queued", queued).id(id);
        }),
        Event::Told { message, user, mention, at_ms } => told(message, user, mention, at_ms, out),
        Event::Inbox { count, dropped } => object("inbox", 64, out, |fields| {
            fields.number("count", count).number("dropped", dropped);
        }),
        Event::Held { id } => object("ack", 96, out, |fields| {
            fields.counts(0, 0, 0).flag("held", true).id(id);
        }),
        Event::Presence { room, count, members, next, id } => {
            object("presence", 96 + 40 * members.len(), out, |fields| {
                fields.room(named, room).number("count", count).members(members);
                fields.optional("next", next.map(UserName::as_str)).id(id);
            });
        }
        Event::History { room, page, id } => {
            let length = object_length(Some(room)) + 64 + page_length(page);
            object("history", length, out, |fields| _ = fields.room(named, room).page(page).id(id));
        }
        Event::Gap { room, from, to, count } => object("gap", object_length(Some(room)) + 64, out, |fields| {
            fields.room(named, room).number("from", from).number("to", to).number("count", count);
        }),
        Event::Refreshed { expires_in, id } => object("refreshed", 64, out, |fields| {
            fields.optional_number("expires_in", expires_in).id(id);
        }),
        Event::Expires { expires_in } => object("expires", 48, out, |fields| {
            fields.number("expires_in", expires_in);
        }),
        Event::Pong { id } => object("pong", 32, out, |fields| _ = fields.id(id)),
        Event::Drain { retry_ms } => object("drain", 40, out, |fields| _ = fields.number("retry_ms", retry_ms)),
        Event::Error { code, message, id } => object("error", 96 + message.len(), out, |fields| {
            fields.text("code", code.as_str()).text("message", message).id(id);
        }),
    }
}

/// What is said to one user: directly, or in a room where he is mentioned.
fn told(message: &Payload, user: Option<&UserName>, mention: Option<&RoomName>, at_ms: u64, out: &mut Vec<u8>) {
    let length = object_length(mention) + 64 + message.len() + user.map_or(0, name_length);
    object("message", length, out, |fields| {
        fields.payload(message).user(user);
        match mention {
            Some(room) => fields.text("mention", room.as_str()),
            None => fields.flag("direct", true),
        };
        fields.number("at", at_ms);
    });
}

impl HistoryPage {
    /// The page as one JSON object, as the event `history` has it but for its `name`, `room` and `id`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + page_length(self));
        Fields { out: &mut out }.page(self);
        // Fields begin with a comma; the first one has nothing before it.
        out[0] = b'{';
        out.push(b'}');
        out
    }
}

fn page_length(page: &HistoryPage) -> usize {
    page.messages.iter().map(|past| 64 + published_length(&past.published)).sum()
}

fn published_length(published: &Published) -> usize {
    let payload = match &published.payload {
        Payload::Json(bytes) | Payload::Text(bytes) => bytes.len(),
        Payload::Binary(bytes) => bytes.len().div_ceil(3) * 4,
    };
    payload + published.user.as_ref().map_or(0, name_length)
}

/// What the object of a room event comes to without its payload and user. Only a guess; see [`frame_with`].
fn object_length(room: Option<&RoomName>) -> usize {
    48 + room.map_or(0, |room| 10 + room.as_str().len())
}

fn name_length(user: &UserName) -> usize {
    10 + user.as_str().len()
}

/// Appends a text frame with one object: its `name`, then the fields that `write` appends.
fn object(name: &'static str, length_guess: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Fields<'_>)) {
    frame_with(Opcode::Text, length_guess, out, |out| {
        out.extend_from_slice(br#"{"name":""#);
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
        write(&mut Fields { out });
        out.push(b'}');
    });
}

/// The fields of an object that has its first already. Keys are ours and need no escape.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
}

impl Fields<'_> {
    fn text(&mut self, key: &'static str, text: &str) -> &mut Self {
        self.key(key);
        string(text, self.out);
        self
    }

    fn optional(&mut self, key: &'static str, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(key, text),
            None => self,
        }
    }

    fn number(&mut self, key: &'static str, number: u64) -> &mut Self {
        self.key(key);
        serde_json::to_writer(&mut *self.out, &number).expect("writing a number to memory does not fail");
        self
    }

    fn optional_number(&mut self, key: &'static str, number: Option<u64>) -> &mut Self {
        match number {
            Some(number) => self.number(key, number),
            None => self,
        }
    }

    fn flag(&mut self, key: &'static str, is_set: bool) -> &mut Self {
        self.raw(key, if is_set { "true" } else { "false" })
    }

    /// What became of a publication.
    fn counts(&mut self, delivered: u64, dropped: u64, evicted: u64) -> &mut Self {
        self.number("delivered", delivered).number("dropped", dropped).number("evicted", evicted)
    }

    fn room(&mut self, named: bool, room: &RoomName) -> &mut Self {
        if named { self.text("room", room.as_str()) } else { self }
    }

    fn user(&mut self, user: Option<&UserName>) -> &mut Self {
        self.optional("user", user.map(UserName::as_str))
    }

    fn offset(&mut self, offset: Option<u64>) -> &mut Self {
        self.optional_number("offset", offset)
    }

    fn position(&mut self, position: Position) -> &mut Self {
        self.text("epoch", &Position::epoch_text(position.epoch)).number("offset", position.offset)
    }

    fn id(&mut self, id: ReplyId<'_>) -> &mut Self {
        match id.0 {
            Some(id) => self.raw("id", id),
            None => self,
        }
    }

    fn members(&mut self, members: &[UserName]) -> &mut Self {
        self.key("members");
        self.out.push(b'[');
        for (index, member) in members.iter().enumerate() {
            self.out.extend_from_slice(if index == 0 { br#"{"user":"# } else { br#",{"user":"# });
            string(member.as_str(), self.out);
            self.out.push(b'}');
        }
        self.out.push(b']');
        self
    }

    fn page(&mut self, page: &HistoryPage) -> &mut Self {
        self.key("messages");
        self.out.push(b'[');
        for (index, past) in page.messages.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.past(past);
        }
        self.out.push(b']');
        self.position(page.position);
        match page.recovered {
            Some(recovered) => self.flag("recovered", recovered),
            None => self,
        }
    }

    /// One message of a page: an object of its own.
    fn past(&mut self, past: &Past) {
        let start = self.out.len();
        self.offset(past.published.offset).payload(&past.published.payload);
        self.user(past.published.user.as_ref()).number("at", past.at_ms);
        self.out[start] = b'{';
        self.out.push(b'}');
    }

    fn payload(&mut self, payload: &Payload) -> &mut Self {
        self.key("message");
        match payload {
            Payload::Json(json) => self.out.extend_from_slice(json),
            // Valid as a rule, and then checked at several bytes a step; the lossy way looks at every byte.
            Payload::Text(text) => match str::from_utf8(text) {
                Ok(text) => string(text, self.out),
                Err(_) => string(&String::from_utf8_lossy(text), self.out),
            },
            Payload::Binary(bytes) => {
                self.out.push(b'"');
                let start = self.out.len();
                self.out.resize(start + bytes.len().div_ceil(3) * 4, 0);
                let used = BASE64.encode_slice(bytes, &mut self.out[start..]);
                debug_assert_eq!(used, Ok(self.out.len() - start));
                self.out.extend_from_slice(br#"","encoding":"base64""#);
            }
        }
        self
    }

    /// A value that is JSON already.
    fn raw(&mut self, key: &'static str, json: &str) -> &mut Self {
        self.key(key);
        self.out.extend_from_slice(json.as_bytes());
        self
    }

    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

/// Appends `text` as a JSON string, with what must be escaped escaped.
pub(crate) fn string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing a string to memory does not fail");
}

/// Bytes in base64.
pub(super) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}
