//! Messages made shorter: the sending side of RFC 7692.
//!
//! Every message is compressed by itself, without the window of those before it. So one compressed frame serves every
//! connection that agreed on its window, no connection needs a compressor of its own, and none has to get every frame.

use std::fmt;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::encode::{deflated_frame_header, split_frame};
use super::{Opcode, Window, frame};

/// Longer messages are sent as they are: compressing them would hold up everybody else on the thread for milliseconds.
pub const DEFLATE_BYTES_MAX: usize = 1 << 20;

/// What ends a block that was flushed; it is not sent (RFC 7692 section 7.2.1).
pub(super) const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Scratch memory that is kept between messages, bytes.
const SCRATCH_BYTES_MAX: usize = 256 * 1024;

/// Which messages are compressed, and how hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeflaterSettings {
    /// Shorter messages are sent as they are.
    pub threshold_bytes: usize,
    /// From 1, the fastest, to 9, the shortest.
    pub level: u8,
}

impl Default for DeflaterSettings {
    fn default() -> Self {
        Self { threshold_bytes: 1_024, level: 3 }
    }
}

/// What compression has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Squeezed {
    /// Messages that became shorter.
    pub messages: u64,
    /// Bytes they had.
    pub plain_bytes: u64,
    /// Bytes they have.
    pub deflated_bytes: u64,
}

/// Compresses one message after the other. One serves a whole thread: a compressor takes some 300 KiB.
#[derive(Default)]
pub struct Deflater {
    settings: DeflaterSettings,
    /// By window; made when first needed.
    streams: [Option<Compress>; Window::ALL.len()],
    compressed: Vec<u8>,
    plain: Vec<u8>,
    messages: u64,
    squeezed: Squeezed,
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Deflater {
    /// A deflater that has no memory yet.
    #[must_use]
    pub fn new(settings: DeflaterSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Messages it has put through a compressor, whether they became shorter or not.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// What it has made shorter since the last call.
    #[must_use]
    pub fn take_squeezed(&mut self) -> Squeezed {
        std::mem::take(&mut self.squeezed)
    }

    /// Appends a whole final frame: compressed where that makes it shorter, else as it is (RFC 7692 section 6 allows both).
    pub fn frame(&mut self, opcode: Opcode, payload: &[u8], window: Window, out: &mut Vec<u8>) {
        let Some(length) = self.compress(opcode, payload, window) else { return frame(opcode, payload, out) };
        self.squeezed.messages += 1;
        self.squeezed.plain_bytes += payload.len() as u64;
        self.squeezed.deflated_bytes += length as u64;
        deflated_frame_header(opcode, length, out);
        out.extend_from_slice(&self.compressed[..length]);
        self.release();
    }

    /// Appends the frames that `write` makes, each as [`Self::frame`] does.
    pub(crate) fn frames(&mut self, window: Window, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        write(&mut plain);
        let mut rest = &plain[..];
        while let Some((framed, after)) = split_frame(rest) {
            self.frame(framed.opcode, framed.payload, window, out);
            rest = after;
        }
        debug_assert!(rest.is_empty(), "whole frames of our own");
        self.plain = plain;
        self.release();
    }

    /// Compresses `payload` to the front of `self.compressed`; `None` where it should go as it is.
    fn compress(&mut self, opcode: Opcode, payload: &[u8], window: Window) -> Option<usize> {
        let is_worth_it = (self.settings.threshold_bytes.max(1)..=DEFLATE_BYTES_MAX).contains(&payload.len());
        if !is_worth_it || opcode.is_control() {
            return None;
        }
        self.messages += 1;
        // What does not become shorter is not wanted, so there need be no room for it.
        let room = payload.len() + TAIL.len();
        if self.compressed.len() < room {
            self.compressed.resize(room, 0);
        }
        let place = &mut self.streams[window.index()];
        let stream = place.get_or_insert_with(|| {
            Compress::new_with_window_bits(Compression::new(self.settings.level.into()), false, window.bits())
        });
        stream.reset();
        let status = stream.compress(payload, &mut self.compressed[..room], FlushCompress::Sync);
        let (taken, made) = (stream.total_in(), stream.total_out() as usize);
        if !matches!(status, Ok(Status::Ok | Status::BufError)) {
            // No input makes a compressor fail. Were it to fail, messages would go as they are, and it would be made anew.
            *place = None;
            return None;
        }
        // With no room left, not all may have come out, whatever it ends with.
        let is_whole = made < room && taken == payload.len() as u64 && self.compressed[..made].ends_with(&TAIL);
        is_whole.then(|| made - TAIL.len())
    }

    /// Gives back memory that a long message left behind.
    fn release(&mut self) {
        for scratch in [&mut self.compressed, &mut self.plain] {
            if scratch.capacity() > SCRATCH_BYTES_MAX {
                *scratch = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests;
