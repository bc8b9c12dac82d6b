//! What this node has posted and has not seen come back yet: a bounded queue in the order of its numbers.
//!
//! A post stays here until it comes back out of the log, so a relay that lost its connection sends all there is once more, and the log
//! leaves out what it has by number. Told the time by whoever calls.

use std::collections::VecDeque;
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use crate::history::Portion;
use crate::relay::Post;
use crate::sync::Mutex;

/// Bounds of what may wait. Beyond: refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutgoingLimits {
    /// Posts.
    pub posts_max: usize,
    /// Bytes of them, each with its overhead.
    pub bytes_max: usize,
}

/// A post that was not taken, because too much waits already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutgoingFull;

/// A post that has waited too long.
#[derive(Debug)]
pub struct Overdue<P> {
    /// What was to be done once it came back.
    pub pending: P,
    /// The relay had begun to send it: it may be in the log.
    pub was_sent: bool,
}

/// Posts on their way. `P` is what is to be done when one comes back.
pub struct Outgoing<P> {
    limits: OutgoingLimits,
    state: Mutex<State<P>>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct State<P> {
    /// Number of the last post.
    last: u64,
    waiting: VecDeque<Waiting<P>>,
    bytes: usize,
}

struct Waiting<P> {
    number: u64,
    since: Duration,
    was_sent: bool,
    post: Post,
    pending: P,
}

impl<P> Outgoing<P> {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: OutgoingLimits) -> Self {
        let state = State { last: 0, waiting: VecDeque::new(), bytes: 0 };
        Self { limits, state: Mutex::new(state), wake: OnceLock::new() }
    }

    /// Calls `wake` after each post from here on. Set once; later calls change nothing.
    pub fn on_post(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let _ = self.wake.set(wake);
    }

    /// Posts something. `true`: a quarter of what may wait does, so whoever posts should be slowed.
    ///
    /// # Errors
    /// [`OutgoingFull`]; then `pending` is dropped.
    pub fn post(&self, post: Post, pending: P, now: Duration) -> Result<bool, OutgoingFull> {
        let mut state = self.state.lock();
        let bytes = state.bytes + post.charge();
        if state.waiting.len() >= self.limits.posts_max || bytes > self.limits.bytes_max {
            return Err(OutgoingFull);
        }
        state.last += 1;
        state.bytes = bytes;
        let number = state.last;
        state.waiting.push_back(Waiting { number, since: now, was_sent: false, post, pending });
        let is_pressed = self.is_beyond_quarter(&state);
        drop(state);
        if let Some(wake) = self.wake.get() {
            wake();
        }
        Ok(is_pressed)
    }

    /// Posts with higher numbers than `number`, the oldest first: at least one, if there is one. They count as sent.
    pub fn after(&self, number: u64, portion: &Portion) -> Vec<(u64, Post)> {
        let mut state = self.state.lock();
        let first = state.waiting.partition_point(|waiting| waiting.number <= number);
        let (mut posts, mut bytes) = (Vec::new(), 0);
        for waiting in state.waiting.iter_mut().skip(first).take(portion.messages_max.max(1)) {
            bytes += waiting.post.charge();
            if !posts.is_empty() && bytes > portion.bytes_max {
                break;
            }
            waiting.was_sent = true;
            posts.push((waiting.number, waiting.post.clone()));
        }
        posts
    }

    /// Looks at what is to be done once a post comes back.
    pub fn peek<R>(&self, number: u64, look: impl FnOnce(&P) -> R) -> Option<R> {
        let state = self.state.lock();
        let at = state.waiting.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        state.waiting.get(at).map(|waiting| look(&waiting.pending))
    }

    /// A post has come back: what is to be done. `None` where it was given up before.
    pub fn settle(&self, number: u64) -> Option<P> {
        let mut state = self.state.lock();
        let at = state.waiting.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        let waiting = state.waiting.remove(at)?;
        state.bytes -= waiting.post.charge();
        Some(waiting.pending)
    }

    /// What has waited for `time_max` or longer, the oldest first. It is not sent again.
    pub fn overdue(&self, now: Duration, time_max: Duration) -> Vec<Overdue<P>> {
        let mut state = self.state.lock();
        let count = state.waiting.partition_point(|waiting| waiting.since + time_max <= now);
        let given_up: Vec<_> = state.waiting.drain(..count).collect();
        state.bytes -= given_up.iter().map(|waiting| waiting.post.charge()).sum::<usize>();
        given_up.into_iter().map(|Waiting { pending, was_sent, .. }| Overdue { pending, was_sent }).collect()
    }

    /// True from a quarter of either bound on: whoever posts should be slowed.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.is_beyond_quarter(&self.state.lock())
    }

    fn is_beyond_quarter(&self, state: &State<P>) -> bool {
        state.waiting.len() >= self.limits.posts_max / 4 || state.bytes >= self.limits.bytes_max / 4
    }

    /// Posts that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// True when none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<P> fmt::Debug for Outgoing<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use fanfare_protocol::{Payload, RoomName};

    use super::*;
    use crate::relay::Act;

    const ALL: Portion = Portion { messages_max: 100, bytes_max: usize::MAX };

    fn post(text: &'static str) -> Post {
        let room = RoomName::parse("lobby").expect("a valid name");
        let payload = Payload::Text(bytes::Bytes::from_static(text.as_bytes()));
        Post { room, act: Act::Publish { user: None, payload, except: None, is_kept: false } }
    }

    fn numbers(outgoing: &Outgoing<u8>, after: u64, portion: &Portion) -> Vec<u64> {
        outgoing.after(after, portion).into_iter().map(|(number, _)| number).collect()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn posts_stay_until_they_come_back() {
        let outgoing = Outgoing::new(OutgoingLimits { posts_max: 10, bytes_max: 10_000 });
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        outgoing.on_post(Box::new(move || _ = count.fetch_add(1, Ordering::Relaxed)));
        for pending in [1, 2, 3] {
            assert_eq!(outgoing.post(post("a"), pending, ms(0)), Ok(pending >= 2));
        }
        assert_eq!(woken.load(Ordering::Relaxed), 3);
        assert_eq!(numbers(&outgoing, 0, &ALL), [1, 2, 3]);
        assert_eq!(numbers(&outgoing, 0, &ALL), [1, 2, 3], "once more after a lost connection");
        assert_eq!((outgoing.peek(1, |pending| *pending), outgoing.peek(4, |pending| *pending)), (Some(1), None));
        assert_eq!((outgoing.settle(1), outgoing.settle(1)), (Some(1), None));
        assert_eq!(numbers(&outgoing, 2, &ALL), [3]);
        assert_eq!(numbers(&outgoing, 0, &Portion { messages_max: 100, bytes_max: 1 }), [2], "one at least");
        assert_eq!((outgoing.settle(3), outgoing.settle(2), outgoing.len()), (Some(3), Some(2), 0));
    }

    #[test]
    fn both_bounds_refuse() {
        let outgoing = Outgoing::new(OutgoingLimits { posts_max: 2, bytes_max: 10_000 });
        assert!(outgoing.post(post(""), 1, ms(0)).is_ok() && outgoing.post(post(""), 2, ms(0)).is_ok());
        assert_eq!(outgoing.post(post(""), 3, ms(0)), Err(OutgoingFull));
        assert_eq!(outgoing.settle(1), Some(1));
        assert!(outgoing.post(post(""), 4, ms(0)).is_ok(), "a place is free again");
        assert_eq!(numbers(&outgoing, 0, &ALL), [2, 3], "what was refused has no number");
        let outgoing = Outgoing::new(OutgoingLimits { posts_max: 100, bytes_max: 600 });
        assert!(outgoing.post(post(""), 1, ms(0)).is_ok() && outgoing.post(post(""), 2, ms(0)).is_ok());
        assert_eq!(outgoing.post(post(""), 3, ms(0)), Err(OutgoingFull));
        assert_eq!(outgoing.overdue(ms(1), ms(1)).len(), 2);
        assert!(outgoing.post(post(""), 4, ms(0)).is_ok(), "their bytes are given back");
    }

    #[test]
    fn what_waits_too_long_is_given_up_and_says_whether_it_was_sent() {
        let outgoing = Outgoing::new(OutgoingLimits { posts_max: 10, bytes_max: 10_000 });
        for (pending, at) in [(1, 0), (2, 10), (3, 20)] {
            assert!(outgoing.post(post("a"), pending, ms(at)).is_ok());
        }
        assert_eq!(numbers(&outgoing, 0, &Portion { messages_max: 1, ..ALL }), [1]);
        let given_up: Vec<_> =
            outgoing.overdue(ms(110), ms(100)).into_iter().map(|o| (o.pending, o.was_sent)).collect();
        assert_eq!(given_up, [(1, true), (2, false)]);
        assert_eq!((outgoing.settle(1), numbers(&outgoing, 0, &ALL)), (None, vec![3]));
    }
}
