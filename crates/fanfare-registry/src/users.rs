//! Who is here: user → connections, whose a name is, and what waits for those who are away.
//!
//! All that happens to a user happens under the lock of its stripe, one step each: so there is one answer to who came first, to
//! which connections a message is for, and to who gets what was kept. Nothing is locked while it is held, and no guard leaves a function
//! of this file.

mod inbox;
mod places;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare_fanout::{Budget, LaneId};
use fanfare_protocol::UserName;

pub use self::inbox::{Inbox, InboxLimits, LETTER_OVERHEAD_BYTES, Letter, REMEMBERED_BYTES, Ring};
pub use self::places::Places;
use crate::sync::Mutex;

/// Stripes of the directory: users of different stripes do not wait for each other.
const STRIPES: usize = 64;

/// Users looked at, whether they can be forgotten, by whoever comes or goes. More than one: so none piles up.
const FORGOTTEN_AT_ONCE: usize = 4;

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its shard.
    pub shard: usize,
    /// Its lane there.
    pub lane: LaneId,
    /// Its dialect has words for what is said to a user rather than to a room.
    pub hears: bool,
}

/// Whose a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Of whoever brings a token of the operator's for it.
    Token,
    /// Of one guest, known by this number.
    Guest(u64),
}

/// Why a connection does not come under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotLetIn {
    /// The name belongs to somebody else now.
    #[error("name taken")]
    NameTaken,
    /// Its user has as many connections as he may have.
    #[error("too many connections of this user")]
    ConnectionsMax,
}

/// A connection that has come under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "those who went by the name have to go"]
pub struct Came {
    /// Connections of guests that went by it until now.
    pub displaced: Places,
    /// Connections of the user, this one included.
    pub connections: usize,
}

/// Where a letter goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a letter that is for connections has not been kept"]
pub enum Routed {
    /// To these connections.
    To(Vec<Place>),
    /// Into the inbox of who is away.
    Kept,
    /// Nowhere: who is away has no inbox, or there is no place in it.
    Refused,
}

/// What became of a mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mentioned {
    /// Nobody of this name was here lately.
    Unknown,
    /// He is here, and hears it where it is said.
    Here,
    /// He is away; it waits for him.
    Kept,
    /// He is away and may not hear it, or there is no place.
    Refused,
}

/// What has become of letters since the start.
#[derive(Debug, Default)]
pub struct InboxStats {
    /// Kept for somebody.
    pub kept: AtomicU64,
    /// Told on return.
    pub told: AtomicU64,
    /// Let go for lack of place or time, or because the name is somebody else's.
    pub dropped: AtomicU64,
}

/// The users of this node. `W` is what is known of one besides his name. Bounded by the node's connections, by those that left within the
/// grace, and by the budget of inboxes.
pub struct Users<W> {
    stripes: Box<[Mutex<Stripe<W>>]>,
    hasher: RandomState,
    budget: Budget,
    stats: InboxStats,
}

/// What holds for all users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserRules {
    /// A name stays its owner's for so long after his last connection left.
    pub grace: Duration,
    /// And what is known of him is kept for so long at least.
    pub known: Duration,
    /// Whose a name is to which something was sent before anybody came under it; `None`: whoever comes first.
    pub unseen: Option<Owner>,
    /// Bounds of inboxes.
    pub inboxes: InboxLimits,
}

#[derive(Debug)]
struct Stripe<W> {
    /// The same in all stripes, but while they are replaced.
    rules: UserRules,
    users: HashMap<UserName, User<W>>,
    /// When to look at a user who is away: one entry for each of them.
    due: BTreeSet<(Duration, UserName)>,
}

#[derive(Debug)]
struct User<W> {
    owner: Option<Owner>,
    /// As he was last seen.
    who: Option<W>,
    places: Places,
    /// When the last connection left, where there is none.
    left: Duration,
    /// His place in `due`.
    due: Option<Duration>,
    /// [`REMEMBERED_BYTES`] are charged for him.
    is_remembered: bool,
    inbox: Option<Box<Inbox>>,
}

impl<W> User<W> {
    fn unseen(owner: Option<Owner>) -> Self {
        let (who, places, left) = (None, Places::default(), Duration::ZERO);
        Self { owner, who, places, left, due: None, is_remembered: false, inbox: None }
    }

    fn has_letters(&self) -> bool {
        self.inbox.as_ref().is_some_and(|inbox| inbox.has_letters())
    }
}

impl<W> Users<W> {
    /// Nobody.
    #[must_use]
    pub fn new(rules: UserRules) -> Self {
        let stripe = || Mutex::new(Stripe { rules, users: HashMap::new(), due: BTreeSet::new() });
        Self {
            stripes: (0..STRIPES).map(|_| stripe()).collect(),
            hasher: RandomState::new(),
            budget: Budget::new(rules.inboxes.total_bytes_max),
            stats: InboxStats::default(),
        }
    }

    /// Other rules from here on, for those who are here, who are away and what is kept for them too. What is kept beyond another bound makes
    /// place when more comes.
    pub fn set_rules(&self, rules: UserRules) {
        self.budget.set_bytes_max(rules.inboxes.total_bytes_max);
        for stripe in &self.stripes {
            let Stripe { rules: own, users, due } = &mut *stripe.lock();
            if std::mem::replace(own, rules) == rules {
                continue;
            }
            for (name, user) in users.iter_mut().filter(|(_, user)| user.places.is_empty()) {
                let next = next_look(&rules, user);
                schedule(due, name, &mut user.due, Some(next));
            }
        }
    }

    /// A connection comes under this name, as one of at most `connections_max` of its user. Who has a token has a right to the name: guests
    /// that go by it then are returned, to be sent away. `who` is told what was known of the same user.
    ///
    /// # Errors
    /// [`NotLetIn::NameTaken`] for a guest while the name is another's, and while something waits for its owner who has a token;
    /// [`NotLetIn::ConnectionsMax`]. Nothing has changed then.
    pub fn come(
        &self,
        name: &UserName,
        (owner, who): (Owner, impl FnOnce(Option<W>) -> W),
        place: Place,
        connections_max: usize,
        now: Duration,
    ) -> Result<Came, NotLetIn> {
        let mut stripe = self.stripe(name.as_str()).lock();
        self.forget(&mut stripe, now, FORGOTTEN_AT_ONCE);
        let Stripe { rules, users, due } = &mut *stripe;
        if !users.contains_key(name) {
            users.insert(name.clone(), User::unseen(None));
        }
        let user = users.get_mut(name).expect("it is there now");
        if !may_take(rules, user, owner, now) {
            return Err(NotLetIn::NameTaken);
        }
        let is_his = user.owner.is_none_or(|former| former == owner);
        if is_his && user.places.len() >= connections_max {
            return Err(NotLetIn::ConnectionsMax);
        }
        let mut displaced = Places::default();
        if !is_his {
            displaced = std::mem::take(&mut user.places);
            user.who = None;
            // It was for somebody else.
            self.let_go(user.inbox.take());
        }
        user.owner = Some(owner);
        user.who = Some(who(user.who.take()));
        user.places.insert(place);
        let connections = user.places.len();
        if std::mem::take(&mut user.is_remembered) {
            self.budget.release(REMEMBERED_BYTES);
        }
        schedule(due, name, &mut user.due, None);
        Ok(Came { displaced, connections })
    }

    /// Asks what is known of a user, or changes it.
    pub fn know<R>(&self, name: &UserName, ask: impl FnOnce(&mut W) -> R) -> Option<R> {
        let mut stripe = self.stripe(name.as_str()).lock();
        stripe.users.get_mut(name).and_then(|user| user.who.as_mut()).map(ask)
    }

    /// A connection goes. One that was sent away for the name's owner is not known any more, and nothing happens.
    pub fn go(&self, name: &UserName, place: Place, now: Duration) {
        let mut stripe = self.stripe(name.as_str()).lock();
        self.forget(&mut stripe, now, FORGOTTEN_AT_ONCE);
        let Stripe { rules, users, due } = &mut *stripe;
        let Some(user) = users.get_mut(name) else { return };
        if !user.places.remove(place) || !user.places.is_empty() {
            return;
        }
        user.left = now;
        user.is_remembered = rules.inboxes.is_on && self.budget.charge(REMEMBERED_BYTES);
        let next = next_look(rules, user);
        schedule(due, name, &mut user.due, Some(next));
    }

    /// The connections of a user.
    #[must_use]
    pub fn places(&self, name: &UserName) -> Places {
        let stripe = self.stripe(name.as_str()).lock();
        stripe.users.get(name).map(|user| user.places.clone()).unwrap_or_default()
    }

    /// Says where something for a user goes. Where he is away it is kept in the same step.
    pub fn route(&self, name: &UserName, letter: Letter, now: Duration) -> Routed {
        let mut stripe = self.stripe(name.as_str()).lock();
        if let Some(user) = stripe.users.get(name) {
            let hearing: Vec<_> = user.places.iter().filter(|place| place.hears).collect();
            if !hearing.is_empty() {
                return Routed::To(hearing);
            }
        }
        if self.keep_in(&mut stripe, name, letter, now) { Routed::Kept } else { Routed::Refused }
    }

    /// Keeps something for a user, whether he is away or not: connections that it was for have ended meanwhile. Whichever of his
    /// comes next gets it.
    #[must_use]
    pub fn keep(&self, name: &UserName, letter: Letter, now: Duration) -> bool {
        let mut stripe = self.stripe(name.as_str()).lock();
        self.keep_in(&mut stripe, name, letter, now)
    }

    /// Keeps a mention of a user who is away, if `may` says that he may hear it.
    pub fn mention(&self, name: &str, letter: &Letter, may: impl FnOnce(&W) -> bool, now: Duration) -> Mentioned {
        let mut stripe = self.stripe(name).lock();
        let Some((name, user)) = stripe.users.get_key_value(name) else { return Mentioned::Unknown };
        // Somebody who was never here but has letters is nobody that a room could know.
        let Some(who) = &user.who else { return Mentioned::Unknown };
        if !user.places.is_empty() {
            return Mentioned::Here;
        }
        if !may(who) {
            return Mentioned::Refused;
        }
        let name = name.clone();
        if self.keep_in(&mut stripe, &name, letter.clone(), now) { Mentioned::Kept } else { Mentioned::Refused }
    }

    fn keep_in(&self, stripe: &mut Stripe<W>, name: &UserName, letter: Letter, now: Duration) -> bool {
        if !stripe.rules.inboxes.is_on || letter.ring.size == 0 {
            return false;
        }
        self.forget(stripe, now, FORGOTTEN_AT_ONCE);
        let Stripe { rules, users, due } = stripe;
        if !users.contains_key(name) {
            if !self.budget.charge(REMEMBERED_BYTES) {
                return false;
            }
            let user = User { is_remembered: true, left: now, ..User::unseen(rules.unseen) };
            users.insert(name.clone(), user);
        }
        let user = users.get_mut(name).expect("it is there now");
        let inbox = user.inbox.get_or_insert_default();
        let before = inbox.dropped();
        inbox.expire(now, rules.inboxes.age_max, &self.budget);
        let is_kept = inbox.push(letter, &rules.inboxes, &self.budget);
        self.stats.dropped.fetch_add(inbox.dropped() - before, Ordering::Relaxed);
        self.stats.kept.fetch_add(u64::from(is_kept), Ordering::Relaxed);
        if user.places.is_empty() {
            let next = next_look(rules, user);
            schedule(due, name, &mut user.due, Some(next));
        }
        is_kept
    }

    /// Takes what was kept for a user: once, however many connections of his ask.
    #[must_use]
    pub fn collect(&self, name: &UserName, now: Duration) -> Inbox {
        let mut stripe = self.stripe(name.as_str()).lock();
        let inbox = stripe.users.get_mut(name).and_then(|user| user.inbox.take());
        let age_max = stripe.rules.inboxes.age_max;
        drop(stripe);
        let Some(mut inbox) = inbox else { return Inbox::default() };
        let before = inbox.dropped();
        inbox.expire(now, age_max, &self.budget);
        inbox.release(&self.budget);
        self.stats.dropped.fetch_add(inbox.dropped() - before, Ordering::Relaxed);
        self.stats.told.fetch_add(inbox.letters().len() as u64, Ordering::Relaxed);
        *inbox
    }

    fn let_go(&self, inbox: Option<Box<Inbox>>) {
        let Some(inbox) = inbox else { return };
        inbox.release(&self.budget);
        self.stats.dropped.fetch_add(inbox.letters().len() as u64, Ordering::Relaxed);
    }

    /// Users with a connection.
    #[must_use]
    pub fn online(&self) -> usize {
        // Who is away has an entry in `due`, and nobody else.
        let online = |stripe: &Stripe<W>| stripe.users.len() - stripe.due.len();
        self.stripes.iter().map(|stripe| online(&stripe.lock())).sum()
    }

    /// Bytes of all inboxes and of those who are remembered, and how many there may be.
    #[must_use]
    pub fn inbox_bytes(&self) -> (usize, usize) {
        (self.budget.used(), self.budget.bytes_max())
    }

    /// What has become of letters.
    #[must_use]
    pub fn inbox_stats(&self) -> &InboxStats {
        &self.stats
    }

    /// Forgets whoever can be forgotten.
    pub fn sweep(&self, now: Duration) {
        for stripe in &self.stripes {
            let mut stripe = stripe.lock();
            self.forget(&mut stripe, now, usize::MAX);
            if stripe.users.capacity() > 1_024 && stripe.users.len() < stripe.users.capacity() / 8 {
                stripe.users.shrink_to_fit();
            }
        }
    }

    /// Looks at up to `looks` users whose time has come.
    fn forget(&self, stripe: &mut Stripe<W>, now: Duration, looks: usize) {
        for _ in 0..looks {
            if stripe.due.first().is_none_or(|(due, _)| *due > now) {
                return;
            }
            let Some((_, name)) = stripe.due.pop_first() else { return };
            let Some(user) = stripe.users.get_mut(&name) else { continue };
            user.due = None;
            if let Some(inbox) = &mut user.inbox {
                let before = inbox.dropped();
                inbox.expire(now, stripe.rules.inboxes.age_max, &self.budget);
                self.stats.dropped.fetch_add(inbox.dropped() - before, Ordering::Relaxed);
            }
            let next = next_look(&stripe.rules, user);
            if next > now {
                schedule(&mut stripe.due, &name, &mut user.due, Some(next));
                continue;
            }
            if user.is_remembered {
                self.budget.release(REMEMBERED_BYTES);
            }
            stripe.users.remove(&name);
        }
    }

    fn stripe(&self, name: &str) -> &Mutex<Stripe<W>> {
        &self.stripes[self.hasher.hash_one(name) as usize % STRIPES]
    }
}

fn may_take<W>(rules: &UserRules, user: &User<W>, owner: Owner, now: Duration) -> bool {
    let Some(former) = user.owner else { return true };
    if former == owner || owner == Owner::Token {
        return true;
    }
    let is_free = user.places.is_empty() && now >= user.left + rules.grace;
    // A guest must neither read what waits for a user with a token nor wipe it out.
    is_free && !(former == Owner::Token && user.has_letters())
}

/// When there may be something to let go of a user who is away.
fn next_look<W>(rules: &UserRules, user: &User<W>) -> Duration {
    let UserRules { grace, known, inboxes, .. } = *rules;
    let oldest = user.inbox.as_ref().and_then(|inbox| inbox.oldest()).map(|at| at + inboxes.age_max);
    let known = known.max(grace);
    let forgotten = user.left + if user.is_remembered { inboxes.age_max.max(known) } else { known };
    oldest.unwrap_or(forgotten)
}

/// Puts a user into the list of those to look at, or takes him out of it.
fn schedule(
    list: &mut BTreeSet<(Duration, UserName)>,
    name: &UserName,
    due: &mut Option<Duration>,
    next: Option<Duration>,
) {
    if *due == next {
        return;
    }
    if let Some(due) = due.take() {
        list.remove(&(due, name.clone()));
    }
    if let Some(next) = next {
        list.insert((next, name.clone()));
    }
    *due = next;
}

impl<W> fmt::Debug for Users<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("budget", &self.budget).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
