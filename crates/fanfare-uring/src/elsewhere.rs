//! Where there is no io_uring.

use std::io;

use crate::{Send, Sent};

/// Never made: see [`BatchSender::new`].
#[derive(Debug)]
pub enum BatchSender {}

impl BatchSender {
    /// # Errors
    /// Always [`io::ErrorKind::Unsupported`].
    pub fn new(_sends_max: u32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called.
    pub fn send(&mut self, _sends: &[Send<'_>], _results: &mut Vec<Sent>) {
        match *self {}
    }
}
