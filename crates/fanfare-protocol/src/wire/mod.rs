//! RFC 6455 on the server side: an incremental decoder for masked client frames, and encoders for server frames.

mod decode;
mod encode;

pub use decode::{Decoder, Input, Message};
pub use encode::{FRAME_HEADER_BYTES_MAX, Opcode, close_frame, frame, frame_header};
pub(crate) use encode::{Framed, frame_with, split_frame};
