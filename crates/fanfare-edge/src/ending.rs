//! The end of HTTP: what has been asked is answered, nothing more is asked, and whoever waits for nothing is let go.

use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::sync::watch;

/// Requests under way when service ends are answered within this time.
pub(crate) const LAST_ANSWERS_MAX: Duration = Duration::from_secs(5);

/// Tells the sockets on which HTTP is spoken that service ends. One per runtime.
#[derive(Debug)]
pub(crate) struct Ending(watch::Sender<()>);

/// How the task of a socket learns of the end. It is held until the socket has said its last.
#[derive(Debug)]
pub(crate) struct Notice(watch::Receiver<()>);

impl Ending {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    /// For one more socket.
    pub(crate) fn notice(&self) -> Notice {
        Notice(self.0.subscribe())
    }

    /// Tells all of them and waits until they have ended. Who has not got its answer by then does not read it.
    pub(crate) async fn wait(self) {
        // Where nobody listens nobody needs to be told.
        let _ = self.0.send(());
        let _ = tokio::time::timeout(LAST_ANSWERS_MAX, self.0.closed()).await;
    }
}

impl Notice {
    /// Serves a socket to its end; once service ends, `finish` asks it to end after the request under way.
    pub(crate) async fn serve<C: Future>(mut self, socket: C, finish: fn(Pin<&mut C>)) -> C::Output {
        let mut socket = pin!(socket);
        tokio::select! {
            ended = &mut socket => return ended,
            // It ends without a word where its runtime does.
            _ = self.0.changed() => {}
        }
        finish(socket.as_mut());
        socket.await
    }
}
