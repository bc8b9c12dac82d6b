//! What a node sends to the log: its posts, and tallies written down before the log trims what they count.

use std::collections::VecDeque;
use std::future::IntoFuture as _;

use async_nats::jetstream::Context;
use fanfare_registry::{Act, Portion, Post};
use tracing::error;

use super::counts::{PART_BYTES_MAX, subject};
use super::frame::{Frame, What};
use super::{Found, Names, Pace, Shared, away, written};
use crate::envelope;
use crate::relay::{Broken, Following};

/// What is sent before the answers to it are waited for.
const APPEND: Portion = Portion { messages_max: 128, bytes_max: 1 << 20 };

pub(super) struct Appending<'a> {
    pub(super) context: &'a Context,
    pub(super) names: &'a Names,
    pub(super) pace: Pace,
    pub(super) shared: &'a Shared,
    pub(super) following: &'a Following,
}

impl Appending<'_> {
    /// Appends all that the node has posted, from the oldest on that has not come back: what was taken before is left out by whoever reads.
    pub(super) async fn append_all(&self) -> Result<std::convert::Infallible, Broken> {
        let Self { following, shared, .. } = self;
        let (mut sent, mut after) = (0, 0);
        let mut under_way = VecDeque::new();
        loop {
            under_way.retain(|&number| number > shared.seen.get());
            let place = self.pace.window.saturating_sub(under_way.len());
            let is_closed = self.entries_unwritten() >= self.pace.closed;
            if is_closed {
                shared.due.notify_one();
            }
            if place == 0 || is_closed {
                shared.moved.notified().await;
                continue;
            }
            let portion = Portion { messages_max: place.min(APPEND.messages_max), ..APPEND };
            let posts = following.node.posts_after(sent, &portion);
            if posts.is_empty() {
                following.posted.notified().await;
                continue;
            }
            sent = posts.last().map_or(sent, |(number, _)| *number);
            self.append(&mut after, &mut under_way, &posts).await?;
        }
    }

    /// Sends some, and waits until all of them are taken. One that is not breaks the connection: what was sent after it has no place either.
    async fn append(
        &self,
        after: &mut u64,
        under_way: &mut VecDeque<u64>,
        posts: &[(u64, Post)],
    ) -> Result<(), Broken> {
        let node = self.following.node.number();
        let bytes_max = self.context.client().max_payload();
        let mut answers = Vec::with_capacity(posts.len());
        for (number, post) in posts {
            let is_kept = matches!(post.act, Act::Publish { is_kept: true, .. });
            let room = if is_kept { post.room.as_str() } else { "" };
            let body = envelope::encode(node, *number, post);
            let frame = Frame { what: What::Post, node, number: *number, after: *after, room, body: &body };
            let bytes = frame.encode();
            if bytes.len() > bytes_max {
                // Only where `message_bytes_max` was raised while this runs. Its publisher is told when it is overdue.
                error!("the engine takes {bytes_max} bytes at most: a publication of {} is given up", bytes.len());
                continue;
            }
            *after = *number;
            under_way.push_back(*number);
            answers.push(self.send(self.names.posts.clone(), bytes).await?);
        }
        for answer in answers {
            answer.await.map_err(away)?;
        }
        Ok(())
    }

    async fn send(
        &self,
        subject: String,
        bytes: Vec<u8>,
    ) -> Result<async_nats::jetstream::context::PublishAckFuture, Broken> {
        self.context.publish(subject, bytes.into()).await.map_err(away)
    }

    /// Entries that somebody who starts could not make up for, were they trimmed.
    fn entries_unwritten(&self) -> u64 {
        let tally = self.shared.tally.borrow();
        tally.number - tally.written
    }

    /// Writes a tally down whenever one is due.
    pub(super) async fn write_tallies(&self, found: &Found) -> Result<std::convert::Infallible, Broken> {
        let mut last = 0;
        loop {
            self.shared.due.notified().await;
            let parts = {
                let mut tally = self.shared.tally.borrow_mut();
                // Somebody may have been quicker, or this node, which has not read it yet.
                if tally.number - tally.written.max(last) < self.pace.due {
                    continue;
                }
                tally.forget_nodes();
                last = tally.number;
                written::encode(&tally, PART_BYTES_MAX)
            };
            self.write(last, parts).await?;
            found.counts.trim().await?;
        }
    }

    async fn write(&self, number: u64, parts: Vec<Vec<u8>>) -> Result<(), Broken> {
        let node = self.following.node.number();
        for (part, bytes) in parts.into_iter().enumerate() {
            let subject = subject(&self.names.written, self.shared.life, number, node, part as u32);
            self.send(subject, bytes).await?.into_future().await.map_err(away)?;
        }
        // Only who reads this may rely on it.
        let frame = Frame { what: What::Written, node, number, after: 0, room: "", body: &[] };
        self.send(self.names.posts.clone(), frame.encode()).await?.into_future().await.map_err(away)?;
        Ok(())
    }
}
