//! RFC 6455 on the server side: an incremental decoder for masked client frames, and encoders for server frames; and
//! RFC 7692, permessage-deflate: what is agreed in the handshake, inflating what comes, deflating what goes out.

mod decode;
mod deflate;
mod encode;
mod extension;
mod inflate;

pub use decode::{Decoder, Input, Message};
pub use deflate::{DEFLATE_BYTES_MAX, Deflater, DeflaterSettings, Squeezed};
pub(crate) use encode::{Framed, close_frame_as, frame_header, frame_with, split_frame};
pub use encode::{Opcode, close_frame, frame};
pub use extension::{Accepted, Agreement, DeflateTerms, MalformedExtensions, Window, negotiate};
pub use inflate::{Deflated, History, Inflater};
