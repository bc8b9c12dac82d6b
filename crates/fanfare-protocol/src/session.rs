//! One client's conversation as a value: a message in, one action out.

mod command;

use crate::wire::{Agreement, Message};
use crate::{Action, CloseReason, Dialect, ErrorCode, MessageLimits, PayloadRef, ReplyId, RoomName, Target, pusher};

/// Which path the client came in by, and so what it may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// `/ws`: many rooms.
    Rooms,
    /// `/room/{room}`: one room, which commands need not name.
    Room(RoomName),
    /// `/echo`: everything comes back.
    Echo,
    /// `/helloworld`: the first tutorial.
    HelloWorld,
    /// `/app/{key}`: the channels of an application, which has this place among those that are configured.
    App(u32),
}

/// The conversation on one connection.
#[derive(Debug)]
pub struct Session {
    mode: Mode,
    dialect: Dialect,
    deflate: Option<Agreement>,
    bad_in_a_row: u8,
}

impl Session {
    /// A conversation that has not begun.
    #[must_use]
    pub fn new(mode: Mode, dialect: Dialect) -> Self {
        Self { mode, dialect, deflate: None, bad_in_a_row: 0 }
    }

    /// The same, with what the handshake agreed about compression.
    #[must_use]
    pub fn with_deflate(self, deflate: Option<Agreement>) -> Self {
        Self { deflate, ..self }
    }

    /// Which path the client came in by.
    #[must_use]
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// The room of its path, where it has one.
    #[must_use]
    pub fn room(&self) -> Option<&RoomName> {
        match &self.mode {
            Mode::Room(room) => Some(room),
            Mode::Rooms | Mode::Echo | Mode::HelloWorld | Mode::App(_) => None,
        }
    }

    /// Keeps this copy of its room's name, which others in the room have too, rather than one of its own. Any other name is not taken.
    pub fn share_room(&mut self, name: &RoomName) {
        if let Mode::Room(own) = &mut self.mode
            && own == name
        {
            *own = name.clone();
        }
    }

    /// The language it speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What was agreed about compression; `None`: neither side compresses.
    #[must_use]
    pub fn deflate(&self) -> Option<Agreement> {
        self.deflate
    }

    /// Decides what one data message asks for.
    pub fn handle<'a>(&mut self, message: Message<'a>, limits: &MessageLimits) -> Action<'a> {
        match (&self.mode, self.dialect) {
            (Mode::Echo, _) => Action::Reply(plain(message)),
            (Mode::HelloWorld, _) => hello_world(message),
            (Mode::Room(_), Dialect::Text | Dialect::TextJoined) => Action::Publish {
                room: Target::Own,
                payload: plain(message),
                except_self: false,
                id: ReplyId::default(),
            },
            (Mode::App(_), _) | (_, Dialect::Pusher) => match message {
                Message::Text(text) => pusher::action(text),
                Message::Binary(_) => Action::Refuse {
                    code: ErrorCode::BadMessage,
                    message: "binary messages have no place here".to_owned(),
                    id: ReplyId(None),
                },
            },
            // What such a client sends is not even decoded.
            (_, Dialect::Sse) => Action::Close(CloseReason::ProtocolError("an event stream only listens")),
            (Mode::Rooms, _) | (Mode::Room(_), Dialect::Json) => match message {
                Message::Text(text) => {
                    let action = command::action(text, self.room());
                    self.count_bad(action, limits)
                }
                Message::Binary(_) => Action::Close(CloseReason::BinaryNotAllowed),
            },
        }
    }

    /// A client that keeps sending what cannot be read is not speaking this dialect at all.
    fn count_bad<'a>(&mut self, action: Action<'a>, limits: &MessageLimits) -> Action<'a> {
        if !matches!(action, Action::Refuse { code: ErrorCode::BadMessage, .. }) {
            self.bad_in_a_row = 0;
            return action;
        }
        self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
        if self.bad_in_a_row < limits.bad_messages_max { action } else { Action::Close(CloseReason::BadMessages) }
    }
}

fn plain(message: Message<'_>) -> PayloadRef<'_> {
    match message {
        Message::Text(text) => PayloadRef::Text(text),
        Message::Binary(bytes) => PayloadRef::Binary(bytes),
    }
}

fn hello_world(message: Message<'_>) -> Action<'_> {
    match message {
        Message::Text("helloworld") => Action::Reply(PayloadRef::Text("Hello World")),
        Message::Text("close") => Action::Close(CloseReason::Left),
        Message::Text(_) => Action::Reply(PayloadRef::Text("unknown command")),
        Message::Binary(_) => Action::Close(CloseReason::BinaryNotAllowed),
    }
}

#[cfg(test)]
mod tests;
