//! The HTTP API of the admin listener, and publishing through it.

use std::time::Duration;

use bytes::Bytes;
use fanfare_protocol::RoomName;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use crate::handshake::{bearer, dial, header_value, refusal, request_uri};
use crate::{Error, Trust, Url};

/// What became of a publication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Receipt {
    /// The room's epoch, 16 hexadecimal digits.
    pub epoch: Option<String>,
    /// The publication's number in the room, where the gateway tells it.
    pub offset: Option<u64>,
    /// Subscribers it was written to or queued for.
    pub delivered: u64,
    /// Subscribers that stay but did not get it.
    pub dropped: u64,
    /// Subscribers closed because they could not take it.
    pub evicted: u64,
    /// Its number among the messages that wait for a moderator; nobody got it yet.
    pub held: Option<u64>,
}

/// A message to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// One JSON value, passed through byte for byte.
    Json(&'a str),
    /// Text.
    Text(&'a str),
}

impl<'a> Message<'a> {
    /// JSON when `text` is a JSON object, array, number, boolean or null; otherwise text. A quoted string stays text, quotes
    /// included.
    #[must_use]
    pub fn detect(text: &'a str) -> Self {
        let quoted = text.trim_start().starts_with('"');
        match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) if !quoted => Self::Json(text.trim()),
            _ => Self::Text(text),
        }
    }
}

/// Calls of the HTTP API over one kept-alive connection, one at a time.
#[derive(Debug)]
pub struct ApiClient {
    url: Url,
    key: Option<String>,
    trust: Option<Trust>,
    timeout: Duration,
    idle: Option<SendRequest<Full<Bytes>>>,
}

impl ApiClient {
    /// Longest answer that is read, bytes.
    const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

    /// For the admin listener at `url`. Nothing is connected before the first call; each has 10 s.
    #[must_use]
    pub fn new(url: Url, key: Option<String>) -> Self {
        Self { url, key, trust: None, timeout: Duration::from_secs(10), idle: None }
    }

    /// Whose certificates count, where the address asks for TLS. `None`: those of the authorities that the system trusts,
    /// which are looked up for each connection.
    #[must_use]
    pub fn with_trust(mut self, trust: Option<Trust>) -> Self {
        self.trust = trust;
        self
    }

    /// The answer to a `GET` of `path`, such as `api/rooms`, with parameters of its query.
    ///
    /// # Errors
    /// [`Error::NothingListening`], [`Error::Unreachable`], [`Error::Tls`] or [`Error::Authorities`] without a connection,
    /// [`Error::Refused`] with the gateway's problem, [`Error::Http`] when the exchange breaks off, [`Error::Answer`] when it
    /// is too long, [`Error::Timeout`].
    pub async fn get(&mut self, path: &str, query: &[(&str, &str)]) -> Result<Bytes, Error> {
        let url = query.iter().fold(self.url.join(path), |url, (key, value)| url.with_query(key, value));
        let request = self.request(Method::GET, &url, Bytes::new())?;
        self.call("a call of the API", request).await
    }

    /// The answer to a `POST` of a JSON body to `path`.
    ///
    /// # Errors
    /// As [`Self::get`]; after [`Error::Http`] it may have been done.
    pub async fn post(&mut self, path: &str, body: &serde_json::Value) -> Result<Bytes, Error> {
        let mut request = self.request(Method::POST, &self.url.join(path), body.to_string().into())?;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.call("a call of the API", request).await
    }

    async fn call(&mut self, what: &'static str, request: Request<Full<Bytes>>) -> Result<Bytes, Error> {
        let limit = self.timeout;
        // The connection is put back only after a whole exchange; a call dropped half-way leaves none behind.
        let exchange = async {
            let (idle, response) = self.send(request).await?;
            let answer = read_answer(response).await?;
            self.idle = Some(idle);
            Ok(answer)
        };
        match tokio::time::timeout(limit, Box::pin(exchange)).await {
            Ok(done) => done,
            Err(_) => Err(Error::Timeout { what, limit }),
        }
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), Error> {
        let mut request = request;
        if let Some(mut kept) = self.idle.take().filter(SendRequest::is_ready) {
            match kept.try_send_request(request).await {
                Ok(response) => return Ok((kept, response)),
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failure.into_error().into()),
                },
            }
        }
        let mut fresh = self.open().await?;
        let response = fresh.send_request(request).await?;
        Ok((fresh, response))
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let stream = dial(&self.url, None, self.trust.as_ref()).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends when the sender is dropped or the gateway closes; what failed is told by the sender.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, method: Method, url: &Url, body: Bytes) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = request_uri(url)?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, header_value("address", &url.authority())?);
        if let Some(key) = &self.key {
            headers.insert(header::AUTHORIZATION, bearer("key", key)?);
        }
        Ok(request)
    }
}

/// Publishes with `POST /api/publish` over one kept-alive connection, one request at a time.
#[derive(Debug)]
pub struct HttpPublisher {
    api: ApiClient,
}

impl HttpPublisher {
    /// For the admin listener at `url`. Nothing is connected before the first publication; each has 10 s.
    #[must_use]
    pub fn new(url: Url, key: Option<String>) -> Self {
        ApiClient::new(url, key).into()
    }

    /// Publishes `message` to `room`. A request is sent once: it is repeated on a fresh connection only where the kept one
    /// turns out to be closed before any of it was written.
    ///
    /// # Errors
    /// As [`ApiClient::get`]; after [`Error::Http`] the message may have been published.
    pub async fn publish(&mut self, room: &RoomName, message: Message<'_>) -> Result<Receipt, Error> {
        let request = self.request(room, message)?;
        let answer = self.api.call("publishing", request).await?;
        serde_json::from_slice(&answer).map_err(|error| Error::Answer(error.to_string()))
    }

    fn request(&self, room: &RoomName, message: Message<'_>) -> Result<Request<Full<Bytes>>, Error> {
        let url = self.api.url.join("api/publish");
        let (url, content_type, body) = match message {
            Message::Text(text) => {
                (url.with_query("room", room.as_str()), "text/plain; charset=utf-8", text.to_owned())
            }
            Message::Json(json) => {
                let body = format!(r#"{{"room":{},"message":{json}}}"#, serde_json::Value::from(room.as_str()));
                (url, "application/json", body)
            }
        };
        let mut request = self.api.request(Method::POST, &url, body.into())?;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(request)
    }
}

impl From<ApiClient> for HttpPublisher {
    fn from(api: ApiClient) -> Self {
        Self { api }
    }
}

async fn read_answer(response: Response<Incoming>) -> Result<Bytes, Error> {
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let body = Limited::new(response.into_body(), ApiClient::ANSWER_BYTES_MAX).collect().await;
    Ok(body.map_err(|error| Error::Answer(error.to_string()))?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_apart_from_text() {
        for json in [r#"{"a":1}"#, "[1, 2]", "42", "-1.5e3", "true", "null"] {
            assert_eq!(Message::detect(json), Message::Json(json), "{json}");
        }
        assert_eq!(Message::detect(" {} \n"), Message::Json("{}"));
        for text in ["hello", "", "{oops", "12 monkeys", r#""quoted""#, r#" "quoted""#, "nul"] {
            assert_eq!(Message::detect(text), Message::Text(text), "{text}");
        }
    }
}
