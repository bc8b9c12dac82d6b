//! One client's conversation as a value: a message in, one action out.

use crate::wire::Message;
use crate::{Action, Dialect, MessageLimits, RoomName};

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
}

/// The conversation on one connection.
#[derive(Debug)]
pub struct Session {
    mode: Mode,
    dialect: Dialect,
    bad_in_a_row: u8,
}

impl Session {
    /// A conversation that has not begun.
    #[must_use]
    pub fn new(mode: Mode, dialect: Dialect) -> Self {
        Self { mode, dialect, bad_in_a_row: 0 }
    }

    /// Which path the client came in by.
    #[must_use]
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// The language it speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Decides what one data message asks for.
    pub fn handle<'a>(&mut self, message: Message<'a>, limits: &MessageLimits) -> Action<'a> {
        let _ = (message, limits, &mut self.bad_in_a_row);
        todo!()
    }
}
