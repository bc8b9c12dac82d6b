//! Tokens that are taken back before their time: by user, or by the token's own name. A bounded list that is told the time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use fanfare_protocol::UserName;

use crate::token::CLOCK_SKEW;

/// Longest token name (`jti`) that can be revoked, bytes.
pub const TOKEN_ID_BYTES_MAX: usize = 256;

/// Whose tokens are revoked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoked {
    /// All of a user that were minted before the revocation.
    User(UserName),
    /// The one with this `jti`.
    Token(Box<str>),
}

/// One revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Whose.
    pub whose: Revoked,
    /// When it was made, since 1970.
    pub at: Duration,
    /// When the tokens it is about have ended by themselves, since 1970; `None`: it holds until it is lifted.
    pub until: Option<Duration>,
}

/// What a token says that it can be revoked by.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenMark<'a> {
    /// Its user.
    pub user: Option<&'a UserName>,
    /// Its own name.
    pub id: Option<&'a str>,
    /// When it was minted, since 1970.
    pub issued: Option<Duration>,
}

impl Revocation {
    /// True when it takes back the token with this mark. By user those that were minted later hold; one that does not say when does not.
    #[must_use]
    pub fn covers(&self, token: TokenMark<'_>) -> bool {
        match &self.whose {
            Revoked::User(user) => token.user == Some(user) && token.issued.is_none_or(|issued| issued <= self.at),
            Revoked::Token(id) => token.id == Some(id),
        }
    }

    /// A token that it is about is taken a little after its end; until then it must be remembered.
    fn is_over(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now >= until.saturating_add(CLOCK_SKEW))
    }
}

/// The list is full: nothing was revoked, and nothing forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many revocations are remembered as may be; lift some, or raise `auth.revocations_max`")]
pub struct RevocationsFull;

/// What is revoked now.
#[derive(Debug, Default)]
pub struct Revocations {
    users: BTreeMap<UserName, Revocation>,
    tokens: BTreeMap<Box<str>, Revocation>,
    max: usize,
}

impl Revocations {
    /// A list of at most `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Another bound from here on. What is remembered beyond it stays.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Remembers a revocation. One of the same whose holds on from now, and for as long as the longer of both. Returns what holds.
    ///
    /// # Errors
    /// [`RevocationsFull`], once those whose tokens have ended are forgotten.
    pub fn revoke(&mut self, revocation: Revocation, now: Duration) -> Result<Revocation, RevocationsFull> {
        let former = match &revocation.whose {
            Revoked::User(user) => self.users.get_mut(user),
            Revoked::Token(id) => self.tokens.get_mut(id),
        };
        if let Some(former) = former {
            former.at = former.at.max(revocation.at);
            former.until = former.until.zip(revocation.until).map(|(one, other)| one.max(other));
            return Ok(former.clone());
        }
        if self.len() >= self.max {
            self.forget_ended(now);
        }
        if self.len() >= self.max {
            return Err(RevocationsFull);
        }
        match revocation.whose.clone() {
            Revoked::User(user) => self.users.insert(user, revocation.clone()),
            Revoked::Token(id) => self.tokens.insert(id, revocation.clone()),
        };
        Ok(revocation)
    }

    /// Takes a revocation back: the tokens hold again. False where there is none.
    pub fn lift(&mut self, whose: &Revoked) -> bool {
        match whose {
            Revoked::User(user) => self.users.remove(user).is_some(),
            Revoked::Token(id) => self.tokens.remove(id).is_some(),
        }
    }

    /// True when the token with this mark has been taken back.
    #[must_use]
    pub fn covers(&self, token: TokenMark<'_>) -> bool {
        let by_user = token.user.and_then(|user| self.users.get(user));
        let by_id = token.id.and_then(|id| self.tokens.get(id));
        by_user.into_iter().chain(by_id).any(|revocation| revocation.covers(token))
    }

    /// Those after `after` in their order: users by name, then tokens by theirs.
    pub fn after(&self, after: Option<&Revoked>) -> impl Iterator<Item = &Revocation> {
        let (user, token) = match after {
            None => (Some(Bound::Unbounded), Bound::Unbounded),
            Some(Revoked::User(user)) => (Some(Bound::Excluded(user)), Bound::Unbounded),
            Some(Revoked::Token(id)) => (None, Bound::Excluded(id)),
        };
        let users = user.into_iter().flat_map(|from| self.users.range::<UserName, _>((from, Bound::Unbounded)));
        let tokens = self.tokens.range::<Box<str>, _>((token, Bound::Unbounded));
        users.map(|(_, revocation)| revocation).chain(tokens.map(|(_, revocation)| revocation))
    }

    /// Forgets those whose tokens have ended.
    pub fn forget_ended(&mut self, now: Duration) {
        self.users.retain(|_, revocation| !revocation.is_over(now));
        self.tokens.retain(|_, revocation| !revocation.is_over(now));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len() + self.tokens.len()
    }

    /// True when nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.tokens.is_empty()
    }

    /// How many there may be.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn name(user: &str) -> UserName {
        UserName::parse(user).expect("a valid name")
    }

    fn user(user: &str) -> Revoked {
        Revoked::User(name(user))
    }

    fn token(id: &str) -> Revoked {
        Revoked::Token(id.into())
    }

    fn revoke(list: &mut Revocations, whose: Revoked, at: u64, until: Option<u64>) -> Result<(), RevocationsFull> {
        list.revoke(Revocation { whose, at: s(at), until: until.map(s) }, s(at)).map(|_| ())
    }

    #[test]
    fn by_user_what_was_minted_later_holds() {
        let mut list = Revocations::new(10);
        revoke(&mut list, user("ann"), 1_000, None).expect("room");
        let (ann, bob) = (name("ann"), name("bob"));
        let is_revoked = |user, issued| list.covers(TokenMark { user, id: Some("t1"), issued });
        for (issued, expected) in [(Some(s(999)), true), (Some(s(1_000)), true), (Some(s(1_001)), false), (None, true)]
        {
            assert_eq!(is_revoked(Some(&ann), issued), expected, "{issued:?}");
            assert!(!is_revoked(Some(&bob), issued));
            assert!(!is_revoked(None, issued));
        }
        assert!(!is_revoked(Some(&ann), Some(Duration::from_millis(1_000_001))));
    }

    #[test]
    fn by_name_one_token_is_taken_back_and_lifting_gives_it_back() {
        let mut list = Revocations::new(10);
        revoke(&mut list, token("t1"), 1_000, None).expect("room");
        let mark = |id| TokenMark { id: Some(id), issued: Some(s(2_000)), ..TokenMark::default() };
        assert!(list.covers(mark("t1")) && !list.covers(mark("t2")) && !list.covers(TokenMark::default()));
        assert!(list.lift(&token("t1")) && !list.lift(&token("t1")) && !list.lift(&user("t1")));
        assert!(!list.covers(mark("t1")) && list.is_empty());
    }

    #[test]
    fn a_full_list_refuses_and_forgets_only_what_has_ended() {
        let mut list = Revocations::new(2);
        revoke(&mut list, user("ann"), 100, Some(200)).expect("room");
        revoke(&mut list, token("t1"), 100, None).expect("room");
        assert_eq!(revoke(&mut list, user("bob"), 150, None), Err(RevocationsFull));
        // Her tokens are taken for the skew of clocks after their end.
        assert_eq!(revoke(&mut list, user("bob"), 229, None), Err(RevocationsFull));
        assert!(list.covers(TokenMark { user: Some(&name("ann")), ..TokenMark::default() }));
        // What is known already needs no room.
        revoke(&mut list, token("t1"), 229, None).expect("it is there");
        revoke(&mut list, user("bob"), 230, None).expect("ann's have ended");
        assert_eq!(list.len(), 2);
        list.set_max(3);
        revoke(&mut list, user("carl"), 230, None).expect("there is more room");
        list.set_max(1);
        assert_eq!(revoke(&mut list, user("dan"), 230, None), Err(RevocationsFull));
        assert_eq!(list.len(), 3, "what is remembered stays");
    }

    #[test]
    fn a_second_revocation_never_shortens_the_first() {
        let mut list = Revocations::new(2);
        for (until, expected) in
            [(Some(200), Some(200)), (Some(150), Some(200)), (Some(300), Some(300)), (None, None), (Some(1), None)]
        {
            let revocation = Revocation { whose: user("ann"), at: s(100), until: until.map(s) };
            assert_eq!(list.revoke(revocation, s(100)).expect("room").until, expected.map(s));
        }
        let earlier = Revocation { whose: user("ann"), at: s(50), until: None };
        assert_eq!(list.revoke(earlier, s(100)).expect("room").at, s(100));
    }

    #[test]
    fn pages_follow_each_other() {
        let mut list = Revocations::new(10);
        let all = [user("ann"), user("bob"), token("ann"), token("t1")];
        for whose in all.iter().rev() {
            revoke(&mut list, whose.clone(), 1, None).expect("room");
        }
        let after = |after| list.after(after).map(|revocation| revocation.whose.clone()).collect::<Vec<_>>();
        assert_eq!(after(None), all);
        for (index, whose) in all.iter().enumerate() {
            assert_eq!(after(Some(whose)), all[index + 1..]);
        }
        assert_eq!(after(Some(&user("b"))), all[1..], "one that was lifted meanwhile");
    }
}
