//! The user's bytes inside a publication.

use bytes::Bytes;

/// The user's bytes, owned and shared. Fanfare does not look inside unless a dialect must translate or a filter is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// One JSON value, exactly as it was written by its publisher.
    Json(Bytes),
    /// UTF-8 text, from the text dialect or a plain-text HTTP publish.
    Text(Bytes),
    /// Any bytes, from a binary message of the text dialect.
    Binary(Bytes),
}

impl Payload {
    /// Length of the user's bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Json(b) | Self::Text(b) | Self::Binary(b) => b.len(),
        }
    }

    /// True when there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The same, borrowed from the read buffer it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadRef<'a> {
    /// See [`Payload::Json`].
    Json(&'a str),
    /// See [`Payload::Text`].
    Text(&'a str),
    /// See [`Payload::Binary`].
    Binary(&'a [u8]),
}

impl PayloadRef<'_> {
    /// Length of the user's bytes.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::Json(text) | Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// True when there are no bytes.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Takes a copy that can be shared: the one copy a publication costs.
    #[must_use]
    pub fn to_payload(self) -> Payload {
        match self {
            Self::Json(s) => Payload::Json(Bytes::copy_from_slice(s.as_bytes())),
            Self::Text(s) => Payload::Text(Bytes::copy_from_slice(s.as_bytes())),
            Self::Binary(b) => Payload::Binary(Bytes::copy_from_slice(b)),
        }
    }
}
