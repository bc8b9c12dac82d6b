//! Errors over HTTP: `application/problem+json` (RFC 9457) with a stable `code`, and the plain answers.

use std::borrow::{Borrow, Cow};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
    WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

pub(crate) type Answer = Response<Full<Bytes>>;

/// Why a request was refused (RFC 9457).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct Document<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    code: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
}

/// Why a request is refused.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// Stable, for programs.
    pub(crate) code: &'static str,
    /// For people: what was wrong, and what to do.
    pub(crate) detail: Cow<'static, str>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    /// The answer as bytes, where no library speaks HTTP; the connection ends with it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (parts, body) = self.response().into_parts();
        let mut bytes = format!("HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {}\r\n", parts.status, body.len());
        for (name, value) in &parts.headers {
            bytes.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
        }
        bytes.push_str("\r\n");
        [bytes.as_bytes(), &body].concat()
    }

    /// This node is leaving service.
    pub(crate) fn draining() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "this node is leaving service")
    }

    /// This node does not know yet what the log of its engine says.
    pub(crate) fn engine_unread() -> Self {
        let detail = "this node has not read the log of its engine yet";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "engine_unread", detail)
    }

    /// The answer, with the headers its status asks for.
    pub(crate) fn answer(&self) -> Answer {
        self.response().map(Full::new)
    }

    fn response(&self) -> Response<Bytes> {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let status = self.status.as_u16();
        let document = Document { r#type: "about:blank", title, status, code: self.code, detail: &self.detail };
        let mut answer = plain(self.status, "application/problem+json", body_of(&document));
        let headers = answer.headers_mut();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {}
        }
        answer
    }
}

pub(crate) fn not_found() -> Answer {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "nothing is at this path").answer()
}

pub(crate) fn method_not_allowed(allow: &str) -> Answer {
    let detail = format!("this path takes {allow}");
    let mut answer = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).answer();
    answer.headers_mut().insert(ALLOW, HeaderValue::from_str(allow).expect("names of methods"));
    answer
}

/// What a path takes.
pub(crate) fn options(allow: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(ALLOW, HeaderValue::from_str(allow).expect("names of methods"));
    answer
}

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    with_type(status, "application/json", body_of(value))
}

fn body_of(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("answers have no maps with keys that are not text").into()
}

pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    plain(status, content_type, body).map(Full::new)
}

/// Writes the head of an answer, where no library speaks HTTP.
pub(crate) fn write_head<N, V>(status: &str, headers: impl IntoIterator<Item = (N, V)>, out: &mut Vec<u8>)
where
    N: Borrow<HeaderName>,
    V: Borrow<HeaderValue>,
{
    for part in [b"HTTP/1.1 ", status.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
    for (name, value) in headers {
        for part in [name.borrow().as_str().as_bytes(), b": ", value.borrow().as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn plain(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_as_bytes_is_the_answer_that_it_would_be() {
        let bytes = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_fast", "per address").bytes();
        let text = std::str::from_utf8(&bytes).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{head}");
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        assert_eq!(header("Content-Length: ").map(str::parse), Some(Ok(body.len())));
        assert_eq!(header("content-type: "), Some("application/problem+json"));
        assert_eq!(header("retry-after: "), Some("1"));
        let expected = r#"{"type":"about:blank","title":"Too Many Requests","status":429,"code":"too_fast","detail":"per address"}"#;
        assert_eq!(body, expected);
    }
}
