//! Who is here: user → connections, and whose a name is.
//!
//! All that happens to a user happens under the lock of its stripe, one step each: so there is one answer to who came first, and to
//! which connections a message is for. Nothing is locked while it is held, and no guard leaves a function of this file.

mod places;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use fanfare_fanout::LaneId;
use fanfare_protocol::UserName;

pub use self::places::Places;
use crate::sync::Mutex;

/// Stripes of the directory: users of different stripes do not wait for each other.
const STRIPES: usize = 64;

/// Names looked at, whether they can be forgotten, by whoever comes or goes. More than one: so none piles up.
const FORGOTTEN_AT_ONCE: usize = 4;

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its shard.
    pub shard: usize,
    /// Its lane there.
    pub lane: LaneId,
}

/// Whose a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Of whoever brings a token of the operator's for it.
    Token,
    /// Of one guest, known by this number.
    Guest(u64),
}

/// The name belongs to somebody else now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("name taken")]
pub struct NameTaken;

/// The users of this node. Bounded by its connections, and by those that left within the grace.
pub struct Users {
    stripes: Box<[Mutex<Stripe>]>,
    hasher: RandomState,
    /// A name stays its owner's for so long after his last connection left.
    grace: Duration,
}

#[derive(Debug, Default)]
struct Stripe {
    users: HashMap<UserName, User>,
    /// When to see whether a user can be forgotten: at most one entry each. That time may have moved on by then.
    due: BinaryHeap<Reverse<(Duration, UserName)>>,
    /// Users with a connection.
    online: usize,
}

#[derive(Debug)]
struct User {
    owner: Owner,
    places: Places,
    /// When the last connection left, where there is none.
    left: Duration,
    /// Has an entry in `due`.
    is_due: bool,
}

impl Users {
    /// Nobody. A name stays its owner's for `grace` after his last connection left.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::new(Stripe::default())).collect();
        Self { stripes, hasher: RandomState::new(), grace }
    }

    /// A connection comes under this name. Who has a token has a right to it: guests that go by it then are returned, to be sent away.
    ///
    /// # Errors
    /// [`NameTaken`] for a guest while the name is another's.
    pub fn come(&self, name: &UserName, owner: Owner, place: Place, now: Duration) -> Result<Places, NameTaken> {
        let mut stripe = self.stripe(name).lock();
        stripe.forget(now, self.grace, FORGOTTEN_AT_ONCE);
        let Some(user) = stripe.users.get_mut(name) else {
            let mut places = Places::default();
            places.insert(place);
            stripe.users.insert(name.clone(), User { owner, places, left: Duration::ZERO, is_due: false });
            stripe.online += 1;
            return Ok(Places::default());
        };
        let mut displaced = Places::default();
        let was_away = user.places.is_empty();
        if user.owner != owner {
            let is_free = was_away && now >= user.left + self.grace;
            if owner == Owner::Token {
                displaced = std::mem::take(&mut user.places);
            } else if !is_free {
                return Err(NameTaken);
            }
            user.owner = owner;
        }
        user.places.insert(place);
        stripe.online += usize::from(was_away);
        Ok(displaced)
    }

    /// A connection goes. One that was sent away for the name's owner is not known any more, and nothing happens.
    pub fn go(&self, name: &UserName, place: Place, now: Duration) {
        let mut stripe = self.stripe(name).lock();
        let grace = self.grace;
        stripe.forget(now, grace, FORGOTTEN_AT_ONCE);
        let Some(user) = stripe.users.get_mut(name) else { return };
        if !user.places.remove(place) || !user.places.is_empty() {
            return;
        }
        user.left = now;
        let is_listed = std::mem::replace(&mut user.is_due, true);
        stripe.online -= 1;
        if !is_listed {
            stripe.due.push(Reverse((now + grace, name.clone())));
        }
    }

    /// The connections of a user.
    #[must_use]
    pub fn places(&self, name: &UserName) -> Places {
        let stripe = self.stripe(name).lock();
        stripe.users.get(name).map(|user| user.places.clone()).unwrap_or_default()
    }

    /// Users with a connection.
    #[must_use]
    pub fn online(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().online).sum()
    }

    /// Forgets whoever can be forgotten.
    pub fn sweep(&self, now: Duration) {
        for stripe in &self.stripes {
            let mut stripe = stripe.lock();
            stripe.forget(now, self.grace, usize::MAX);
            if stripe.users.capacity() > 1_024 && stripe.users.len() < stripe.users.capacity() / 8 {
                stripe.users.shrink_to_fit();
                stripe.due.shrink_to_fit();
            }
        }
    }

    fn stripe(&self, name: &UserName) -> &Mutex<Stripe> {
        &self.stripes[self.hasher.hash_one(name) as usize % STRIPES]
    }
}

impl Stripe {
    /// Looks at up to `looks` users whose time has come.
    fn forget(&mut self, now: Duration, grace: Duration, looks: usize) {
        for _ in 0..looks {
            let Some(Reverse((due, _))) = self.due.peek() else { return };
            if *due > now {
                return;
            }
            let Some(Reverse((_, name))) = self.due.pop() else { return };
            let Some(user) = self.users.get_mut(&name) else { continue };
            user.is_due = false;
            if !user.places.is_empty() {
                continue;
            }
            let free_at = user.left + grace;
            if free_at <= now {
                self.users.remove(&name);
            } else {
                user.is_due = true;
                self.due.push(Reverse((free_at, name)));
            }
        }
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("grace", &self.grace).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
