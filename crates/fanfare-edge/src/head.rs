//! A request's head, read from bytes. With the parser and the bounds that hyper has, but before a task or a buffer is spent on a stranger.

use std::mem::MaybeUninit;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri, Version};

use crate::problem::Problem;

/// What the bytes hold.
#[derive(Debug)]
pub(crate) enum Head {
    /// More is needed.
    Partial,
    /// A request, and how many of the bytes its head is.
    Whole(Box<Request<()>>, usize),
}

/// Why the bytes are no head of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHead {
    Malformed,
    /// Over the bound of bytes or header lines.
    TooLarge,
}

impl BadHead {
    /// The refusal.
    pub(crate) fn problem(self) -> Problem {
        match self {
            Self::Malformed => Problem::new(StatusCode::BAD_REQUEST, "bad_request", "this is no HTTP/1 request"),
            Self::TooLarge => {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                Problem::new(status, "header_bytes_max", "the request's head is too large")
            }
        }
    }
}

/// How much a head may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes.
    pub(crate) header_bytes_max: usize,
    /// Header lines.
    pub(crate) headers_max: usize,
}

impl Head {
    /// Reads `bytes`, of which the first `seen` were looked at before and were not a whole head.
    pub(crate) fn read(bytes: &[u8], seen: usize, limits: HeadLimits) -> Result<Self, BadHead> {
        if seen > 0 && !has_end(&bytes[seen.saturating_sub(3)..]) {
            return Self::partial(bytes, limits);
        }
        // One copy that all names and values share. What follows the head is not needed here.
        let bytes = Bytes::copy_from_slice(&bytes[..bytes.len().min(limits.header_bytes_max)]);
        let mut lines = vec![MaybeUninit::uninit(); limits.headers_max];
        let mut parsed = httparse::Request::new(&mut []);
        let length = match parsed.parse_with_uninit_headers(&bytes, &mut lines) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Self::partial(&bytes, limits),
            Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooLarge),
            Err(_) => return Err(BadHead::Malformed),
        };
        let request = request(&parsed, &bytes).ok_or(BadHead::Malformed)?;
        Ok(Self::Whole(Box::new(request), length))
    }

    fn partial(bytes: &[u8], limits: HeadLimits) -> Result<Self, BadHead> {
        if bytes.len() < limits.header_bytes_max { Ok(Self::Partial) } else { Err(BadHead::TooLarge) }
    }
}

/// True where a head could end: an empty line. One that comes byte by byte is not read from its beginning for each of them.
fn has_end(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|two| two == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

fn request(parsed: &httparse::Request<'_, '_>, bytes: &Bytes) -> Option<Request<()>> {
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice_ref(parsed.path?.as_bytes())).ok()?;
    *request.version_mut() = if parsed.version? == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let headers = request.headers_mut();
    headers.reserve(parsed.headers.len());
    for line in &*parsed.headers {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).ok()?);
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { header_bytes_max: 200, headers_max: 3 };

    #[test]
    fn a_head_is_read_however_it_is_cut() {
        let whole = b"GET /room/a?b=c HTTP/1.1\r\nHost: h\r\nUpgrade:  websocket \r\nupgrade: x\r\n\r\n";
        for cut in 1..whole.len() {
            let partial = Head::read(&whole[..cut], 0, LIMITS);
            assert!(matches!(partial, Ok(Head::Partial)), "cut at {cut}: {partial:?}");
            let bytes = [&whole[..], b"\x81\x80"].concat();
            let Ok(Head::Whole(request, length)) = Head::read(&bytes, cut, LIMITS) else { panic!("cut at {cut}") };
            assert_eq!(length, whole.len());
            assert_eq!((request.method(), request.uri().path()), (&Method::GET, "/room/a"));
            assert_eq!((request.uri().query(), request.version()), (Some("b=c"), Version::HTTP_11));
            let upgrades: Vec<_> = request.headers().get_all("upgrade").iter().collect();
            assert_eq!(upgrades, ["websocket", "x"]);
        }
        assert!(matches!(Head::read(b"\nGET / HTTP/1.0\nA: b\n\n", 0, LIMITS), Ok(Head::Whole(_, 22))));
        assert!(matches!(Head::read(b"GET / HTTP/1.0\nA: b\n\n", 20, LIMITS), Ok(Head::Whole(_, 21))));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let long = |name: usize| format!("GET / HTTP/1.1\r\n{}: x\r\n\r\n", "x".repeat(name));
        assert!(matches!(Head::read(long(177).as_bytes(), 0, LIMITS), Ok(Head::Whole(_, 200))));
        for (bytes, seen, why) in [
            (long(178), 0, BadHead::TooLarge),
            // One that never ends is refused as soon as it is too long, also where nothing new could end it.
            ("GET / HTTP/1.1\r\nA: ".to_owned() + &"x".repeat(181), 0, BadHead::TooLarge),
            ("GET / HTTP/1.1\r\nA: ".to_owned() + &"x".repeat(181), 199, BadHead::TooLarge),
            ("GET / HTTP/1.1\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n\r\n".to_owned(), 0, BadHead::TooLarge),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 0, BadHead::Malformed),
            ("GET / HTTP/2.0\r\n".to_owned(), 0, BadHead::Malformed),
            ("\u{16}\u{3}\u{1}".to_owned(), 0, BadHead::Malformed),
            ("GET http:// HTTP/1.1\r\n\r\n".to_owned(), 0, BadHead::Malformed),
        ] {
            assert_eq!(Head::read(bytes.as_bytes(), seen, LIMITS).err(), Some(why), "{bytes:?}");
        }
    }
}
