//! Publications that are sent again: one with a key that was seen a while ago gets the receipt of the first, and is not published again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_fanout::Delivery;
use fanfare_protocol::Position;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::problem::Problem;

/// What a publication is told apart by: a digest of it.
pub(crate) type Fingerprint = [u8; 32];

/// What is known of a keyed publication. Shards, callers and repeats see the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) position: Option<Position>,
    pub(crate) delivery: Option<Delivery>,
    /// Its number, where it waits for a moderator.
    pub(crate) held: Option<u64>,
    /// Why it was refused. Whoever sends it again after that is the first once more.
    pub(crate) refused: Option<Problem>,
}

impl Outcome {
    pub(crate) fn is_final(&self) -> bool {
        self.held.is_some() || self.refused.is_some() || (self.position.is_some() && self.delivery.is_some())
    }
}

/// Keys of the last while. So many at most; at the bound the oldest go.
#[derive(Debug)]
pub(crate) struct Idempotency {
    keys: Mutex<Keys>,
    /// Keys that went before their time, because there were too many.
    forgotten: AtomicU64,
}

#[derive(Debug, Default)]
struct Keys {
    /// Keys at most.
    max: usize,
    /// How long one is remembered.
    window: Duration,
    last: u64,
    by_key: HashMap<Arc<str>, Entry>,
    /// By number, which is the order of time: when each came.
    by_age: BTreeMap<u64, (Duration, Arc<str>)>,
}

#[derive(Debug)]
struct Entry {
    fingerprint: Fingerprint,
    outcome: watch::Receiver<Outcome>,
}

impl Keys {
    fn expire(&mut self, now: Duration) {
        while let Some((&number, (at, _))) = self.by_age.first_key_value() {
            if now < *at + self.window {
                break;
            }
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        if let Some((_, key)) = self.by_age.remove(&number) {
            self.by_key.remove(&key);
        }
    }
}

/// What a key turns out to be.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nobody has used it lately: publish, and say what became of it.
    First(Turn),
    /// This publication was sent before.
    Repeat(watch::Receiver<Outcome>),
    /// Another publication had this key.
    Conflict,
}

/// The right to publish under a key. Dropped without a word, it is given back.
#[derive(Debug)]
pub(crate) struct Turn {
    keys: Arc<Idempotency>,
    number: u64,
    outcome: Arc<watch::Sender<Outcome>>,
    is_taken: bool,
}

impl Idempotency {
    pub(crate) fn new(keys_max: usize, window: Duration) -> Arc<Self> {
        let keys = Keys { max: keys_max, window, ..Keys::default() };
        Arc::new(Self { keys: Mutex::new(keys), forgotten: AtomicU64::new(0) })
    }

    /// Other bounds from here on, also for the keys that are remembered: those beyond go with the next one.
    pub(crate) fn set_limits(&self, keys_max: usize, window: Duration) {
        let mut keys = self.keys.lock();
        (keys.max, keys.window) = (keys_max, window);
    }

    /// Keys that are remembered.
    pub(crate) fn len(&self) -> usize {
        self.keys.lock().by_key.len()
    }

    /// Keys that were forgotten before their time.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Asks for a key, at `now` of the node's clock.
    pub(crate) fn claim(self: &Arc<Self>, key: &str, fingerprint: Fingerprint, now: Duration) -> Claim {
        let mut keys = self.keys.lock();
        keys.expire(now);
        if let Some(entry) = keys.by_key.get(key) {
            let is_same = entry.fingerprint == fingerprint;
            return if is_same { Claim::Repeat(entry.outcome.clone()) } else { Claim::Conflict };
        }
        keys.last += 1;
        let number = keys.last;
        let (tell, outcome) = watch::channel(Outcome::default());
        let key: Arc<str> = key.into();
        keys.by_key.insert(key.clone(), Entry { fingerprint, outcome });
        keys.by_age.insert(number, (now, key));
        while keys.by_age.len() > keys.max {
            let Some((&oldest, _)) = keys.by_age.first_key_value() else { break };
            keys.remove(oldest);
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        Claim::First(Turn { keys: self.clone(), number, outcome: Arc::new(tell), is_taken: false })
    }
}

impl Turn {
    /// Where to say what became of the publication.
    pub(crate) fn outcome(&self) -> Arc<watch::Sender<Outcome>> {
        self.outcome.clone()
    }

    /// It was accepted: the key holds from here on, whether or not its caller waits for the receipt.
    pub(crate) fn take(mut self, say: impl FnOnce(&mut Outcome)) -> watch::Receiver<Outcome> {
        self.is_taken = true;
        self.outcome.send_modify(say);
        self.outcome.subscribe()
    }

    /// It was refused: who waits for its receipt is told the same, and the key is free again.
    pub(crate) fn refuse(self, problem: &Problem) {
        self.outcome.send_modify(|outcome| outcome.refused = Some(problem.clone()));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_taken {
            self.keys.keys.lock().remove(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Fingerprint = [1; 32];
    const B: Fingerprint = [2; 32];

    fn first(claim: Claim) -> Turn {
        match claim {
            Claim::First(turn) => turn,
            other => panic!("not the first: {other:?}"),
        }
    }

    fn is_repeat(claim: &Claim) -> bool {
        matches!(claim, Claim::Repeat(_))
    }

    #[test]
    fn a_key_holds_for_its_window_and_one_publication() {
        let second = Duration::from_secs;
        let keys = Idempotency::new(10, second(60));
        let turn = first(keys.claim("k", A, second(0)));
        assert!(is_repeat(&keys.claim("k", A, second(0))), "while the first is under way");
        let _ = turn.take(|outcome| outcome.held = Some(7));
        let Claim::Repeat(outcome) = keys.claim("k", A, second(59)) else { panic!("forgotten") };
        assert_eq!(outcome.borrow().held, Some(7));
        assert!(matches!(keys.claim("k", B, second(59)), Claim::Conflict));
        let _ = first(keys.claim("other", B, second(59))).take(|_| {});
        let turn = first(keys.claim("k", B, second(60)));
        assert_eq!((keys.len(), keys.forgotten()), (2, 0));
        drop(turn);
        assert_eq!(keys.len(), 1, "given back");
    }

    #[test]
    fn what_was_refused_may_be_tried_again() {
        let keys = Idempotency::new(10, Duration::from_secs(60));
        let turn = first(keys.claim("k", A, Duration::ZERO));
        let Claim::Repeat(outcome) = keys.claim("k", A, Duration::ZERO) else { panic!("not a repeat") };
        turn.refuse(&Problem::new(hyper::StatusCode::TOO_MANY_REQUESTS, "overloaded", "later"));
        assert_eq!(outcome.borrow().refused.as_ref().map(|problem| problem.code), Some("overloaded"));
        // Another may have it now, and the old turn must not take it away.
        let _ = first(keys.claim("k", B, Duration::ZERO)).take(|_| {});
        assert!(is_repeat(&keys.claim("k", B, Duration::ZERO)));
    }

    #[test]
    fn at_the_bound_the_oldest_go() {
        let keys = Idempotency::new(3, Duration::from_secs(60));
        for key in ["a", "b", "c", "d"] {
            let _ = first(keys.claim(key, A, Duration::ZERO)).take(|_| {});
        }
        assert_eq!((keys.len(), keys.forgotten()), (3, 1));
        assert!(is_repeat(&keys.claim("b", A, Duration::ZERO)));
        let turn = first(keys.claim("a", A, Duration::ZERO));
        assert_eq!((keys.len(), keys.forgotten()), (3, 2), "b went for it");
        drop(turn);
        assert_eq!(keys.len(), 2);
        keys.set_limits(1, Duration::from_secs(5));
        let turn = first(keys.claim("e", A, Duration::from_secs(1)));
        assert_eq!((keys.len(), keys.forgotten()), (1, 4), "another bound");
        let _ = turn.take(|_| {});
        assert!(is_repeat(&keys.claim("e", A, Duration::from_secs(5))));
        drop(first(keys.claim("e", A, Duration::from_secs(6))));
    }
}
