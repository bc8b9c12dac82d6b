//! An independent WebSocket client.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message, handshake::client::Response, http};

use super::within;

/// A WebSocket client that shares no code with this project.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, path: &str) -> Self {
        let connected = Self::try_connect(address, path, &[]).await;
        connected.unwrap_or_else(|error| panic!("{path} must let a client in: {error}")).0
    }

    /// A handshake with more headers, which may be refused.
    pub(crate) async fn try_connect(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Self, Response), tungstenite::Error> {
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().expect("a header name");
            request.headers_mut().append(name, value.parse().expect("a header value"));
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (socket, response) = within("a handshake", tokio_tungstenite::client_async(request, stream)).await?;
        Ok((Self { socket }, response))
    }

    pub(crate) async fn send(&mut self, message: impl Into<Message>) {
        within("a message to be sent", self.socket.send(message.into())).await.expect("an open connection");
    }

    /// Sends a command of the JSON dialect.
    pub(crate) async fn say(&mut self, command: Value) {
        self.send(command.to_string()).await;
    }

    /// Sends a command and returns what comes next.
    pub(crate) async fn ask(&mut self, command: Value) -> Value {
        self.say(command).await;
        self.json().await
    }

    /// The next message, a close frame included; pings and pongs are passed over.
    pub(crate) async fn next(&mut self) -> Message {
        loop {
            let next = within("a message", self.socket.next()).await.expect("a message before the end");
            match next.expect("a message, not a failure") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("expected text, got {other:?}"),
        }
    }

    pub(crate) async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The next event, which must have this name.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        let event = self.json().await;
        assert_eq!(event["name"], name, "{event}");
        event
    }

    pub(crate) async fn binary(&mut self) -> Vec<u8> {
        match self.next().await {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("expected binary, got {other:?}"),
        }
    }

    /// Code and reason of the close frame, which must be next; the connection is then seen to end.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let closed = match self.next().await {
            Message::Close(Some(frame)) => (frame.code.into(), frame.reason.as_str().to_owned()),
            other => panic!("expected a close frame with a code, got {other:?}"),
        };
        let end = within("the end of the connection", self.socket.next()).await;
        assert!(end.is_none_or(|end| end.is_err()), "nothing follows a close frame");
        closed
    }

    /// Subscribes on `/ws` and returns the `subscribed` event.
    pub(crate) async fn subscribe(&mut self, room: &str) -> Value {
        self.say(json!({"name": "subscribe", "room": room})).await;
        let subscribed = self.event("subscribed").await;
        assert_eq!(subscribed["room"], room);
        subscribed
    }

    /// Shows that nothing is under way: the answer to a ping command is what comes next. What *another* connection caused may still
    /// come later; use a further publication as the mark there.
    pub(crate) async fn expect_nothing(&mut self) {
        assert_eq!(self.ask(json!({"name": "ping", "id": "mark"})).await, json!({"name": "pong", "id": "mark"}));
    }

    /// Ends the connection in good manners and waits for the answer.
    pub(crate) async fn close(mut self) {
        within("a close frame to be sent", self.socket.close(None)).await.expect("an open connection");
        within("the answer to it", async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
    }
}
