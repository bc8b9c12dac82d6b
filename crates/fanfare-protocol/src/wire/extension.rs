//! Which extensions a connection speaks: `Sec-WebSocket-Extensions` (RFC 6455 section 9.1), and permessage-deflate among
//! what is offered there (RFC 7692 section 7.1).

use std::borrow::Cow;

/// How far back a compressed message may refer, as the server compresses. A client may demand less than the most; of the
/// seven lower settings two are served, so that a publication is compressed three times at the most, whoever listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Window {
    /// 32 KiB: the client demanded nothing less.
    Bits15 = 0,
    /// 4 KiB, for demands of 12 to 14 bits.
    Bits12 = 1,
    /// 512 bytes, for demands of 9 to 11 bits. Nobody's compressor can do with 8.
    Bits9 = 2,
}

impl Window {
    /// All of them, by index.
    pub const ALL: [Self; 3] = [Self::Bits15, Self::Bits12, Self::Bits9];

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its size as RFC 7692 counts it: the base-2 logarithm of the bytes.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Bits15 => 15,
            Self::Bits12 => 12,
            Self::Bits9 => 9,
        }
    }

    /// The largest that is not over `bits_max`.
    fn within(bits_max: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|window| window.bits() <= bits_max)
    }
}

/// What the server is ready to agree to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeflateTerms {
    /// Clients may compress with reference to what they have sent before.
    pub client_context: bool,
}

/// What both sides agreed about compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The server compresses with this window, each message by itself.
    pub window: Window,
    /// The client's messages may refer to those it has sent before.
    pub client_context: bool,
}

/// An offer that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What was agreed.
    pub agreement: Agreement,
    /// Value of the answer's `Sec-WebSocket-Extensions`.
    pub answer: String,
}

/// A `Sec-WebSocket-Extensions` header that does not follow the grammar. It fails the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Sec-WebSocket-Extensions must be a list of extensions")]
pub struct MalformedExtensions;

/// Looks through what a client offers, `lines` being the values of its `Sec-WebSocket-Extensions` header lines: the first
/// offer of permessage-deflate that can be accepted on these `terms`, if there is one. Whatever is unknown or cannot be
/// accepted is declined, which is no error. Without terms everything is.
///
/// # Errors
/// When the header does not follow the grammar, wherever in it that is.
pub fn negotiate<'a>(
    lines: impl IntoIterator<Item = &'a [u8]>,
    terms: Option<DeflateTerms>,
) -> Result<Option<Accepted>, MalformedExtensions> {
    let (mut accepted, mut has_lines, mut has_offers) = (None, false, false);
    for line in lines {
        has_lines = true;
        let mut line = Line { rest: line };
        while let Some(offer) = line.offer()? {
            has_offers = true;
            if let (Some(offer), Some(terms), None) = (offer, terms, &accepted) {
                accepted = offer.accept(terms);
            }
        }
    }
    // A list of nothing but commas is none (RFC 6455 section 9.1: `1#extension`).
    if has_lines && !has_offers { Err(MalformedExtensions) } else { Ok(accepted) }
}

/// The parameters of one offer of permessage-deflate.
#[derive(Debug, Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: bool,
    /// A parameter is unknown, stands twice, or has a value that it may not have.
    is_invalid: bool,
}

impl Offer {
    fn parameter(&mut self, name: &[u8], value: Option<&[u8]>) {
        let is_well = match name {
            b"server_no_context_takeover" => {
                value.is_none() && !std::mem::replace(&mut self.server_no_context_takeover, true)
            }
            b"client_no_context_takeover" => {
                value.is_none() && !std::mem::replace(&mut self.client_no_context_takeover, true)
            }
            // In an offer the client's own bound is a hint, with or without a value; the server's needs one.
            b"client_max_window_bits" => {
                value.is_none_or(|value| window_bits(value).is_some())
                    && !std::mem::replace(&mut self.client_max_window_bits, true)
            }
            b"server_max_window_bits" => {
                let bits = value.and_then(window_bits);
                bits.is_some() && std::mem::replace(&mut self.server_max_window_bits, bits).is_none()
            }
            _ => false,
        };
        self.is_invalid |= !is_well;
    }

    /// `None`: declined. The client's bound on its own window needs no answer: any window is read.
    fn accept(&self, terms: DeflateTerms) -> Option<Accepted> {
        if self.is_invalid {
            return None;
        }
        let window = Window::within(self.server_max_window_bits.unwrap_or(15))?;
        let client_context = terms.client_context && !self.client_no_context_takeover;
        // Said even where it was not asked for: the client then need not keep what it was sent.
        let mut answer = "permessage-deflate; server_no_context_takeover".to_owned();
        if !client_context {
            answer.push_str("; client_no_context_takeover");
        }
        if self.server_max_window_bits.is_some() {
            answer.push_str(&format!("; server_max_window_bits={}", window.bits()));
        }
        Some(Accepted { agreement: Agreement { window, client_context }, answer })
    }
}

/// RFC 7692 section 7.1.2: 8 to 15, in decimal without leading zeroes.
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// What is left to read of one header line.
struct Line<'a> {
    rest: &'a [u8],
}

impl<'a> Line<'a> {
    /// The next extension of the list, `Some(None)` when it is another one than permessage-deflate; `None` at the end.
    fn offer(&mut self) -> Result<Option<Option<Offer>>, MalformedExtensions> {
        // Empty elements of a list are passed over (RFC 9110 section 5.6.1.2).
        self.skip(|byte| matches!(byte, b',' | b' ' | b'\t'));
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut offer = (self.token()? == b"permessage-deflate").then(Offer::default);
        while self.takes(b';') {
            self.skip_space();
            let name = self.token()?;
            let value = if self.takes(b'=') { Some(self.value()?) } else { None };
            if let Some(offer) = &mut offer {
                offer.parameter(name, value.as_deref());
            }
        }
        if self.rest.is_empty() || self.takes(b',') { Ok(Some(offer)) } else { Err(MalformedExtensions) }
    }

    fn skip(&mut self, is_skipped: impl Fn(u8) -> bool) {
        let length = self.rest.iter().take_while(|&&byte| is_skipped(byte)).count();
        self.rest = &self.rest[length..];
    }

    fn skip_space(&mut self) {
        self.skip(|byte| matches!(byte, b' ' | b'\t'));
    }

    /// Takes a separator and the space before it, where it is the next thing.
    fn takes(&mut self, separator: u8) -> bool {
        self.skip_space();
        let is_next = self.rest.first() == Some(&separator);
        self.rest = &self.rest[usize::from(is_next)..];
        is_next
    }

    fn token(&mut self) -> Result<&'a [u8], MalformedExtensions> {
        let length = self.rest.iter().take_while(|&&byte| is_token_byte(byte)).count();
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        if token.is_empty() { Err(MalformedExtensions) } else { Ok(token) }
    }

    /// A parameter's value: a token, or a quoted string that is one once its quoting is undone.
    fn value(&mut self) -> Result<Cow<'a, [u8]>, MalformedExtensions> {
        self.skip_space();
        let Some(quoted) = self.rest.strip_prefix(b"\"") else { return Ok(Cow::Borrowed(self.token()?)) };
        let mut value = Vec::new();
        let mut bytes = quoted.iter();
        loop {
            let byte = match bytes.next() {
                Some(b'"') => break,
                Some(b'\\') => bytes.next(),
                byte => byte,
            };
            value.push(*byte.filter(|&&byte| is_token_byte(byte)).ok_or(MalformedExtensions)?);
        }
        self.rest = bytes.as_slice();
        if value.is_empty() { Err(MalformedExtensions) } else { Ok(Cow::Owned(value)) }
    }
}

/// RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
