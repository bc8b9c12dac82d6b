//! What may be done in a room, and by whom.

use std::collections::BTreeMap;
use std::str::FromStr;

use fanfare_protocol::{RoomName, UserName};

/// An answer of the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a verdict that nobody looks at guards nothing"]
pub enum Verdict {
    /// It may be done.
    Allow,
    /// It may not; for people: why.
    Deny(&'static str),
}

/// Who a connection speaks for. The default is nobody known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user: a guest's chosen name, or the one its token names.
    pub user: Option<UserName>,
    /// The connection brought a valid token.
    pub token: bool,
}

/// Who has a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Right {
    /// Every connection.
    #[default]
    Anyone,
    /// Connections with a user: guests that gave a name, and token holders that have one.
    User,
    /// Connections that brought a valid token.
    Token,
    /// No client; the HTTP API is not bound by this.
    Nobody,
}

/// A word that is none of the four.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of anyone, user, token, nobody")]
pub struct UnknownRight(String);

impl FromStr for Right {
    type Err = UnknownRight;

    fn from_str(word: &str) -> Result<Self, UnknownRight> {
        Ok(match word {
            "anyone" => Self::Anyone,
            "user" => Self::User,
            "token" => Self::Token,
            "nobody" => Self::Nobody,
            _ => return Err(UnknownRight(word.to_owned())),
        })
    }
}

/// What holds in the rooms of one namespace. The default is the contract's `[namespaces.default]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamespacePolicy {
    /// Who may subscribe.
    pub subscribe: Right,
    /// Who may publish from a connection.
    pub publish: Right,
    /// Users are listed to those who ask.
    pub presence: bool,
    /// Subscribers are told who comes and goes.
    pub join_leave: bool,
    /// Publications kept per room; 0: none, and no offsets.
    pub history_size: u32,
    /// The gateway publishes the time into every occupied room this often, milliseconds; 0: never.
    pub ticker_ms: u64,
    /// Longest a publication may wait for others to be sent with it, milliseconds; 0: none waits.
    pub coalesce_ms: u64,
    /// Clients may close a room for all.
    pub client_close: bool,
}

impl NamespacePolicy {
    /// May this identity subscribe to a room?
    pub fn may_subscribe(&self, identity: &Identity) -> Verdict {
        match lack(self.subscribe, identity) {
            None => Verdict::Allow,
            Some(Lack::User) => Verdict::Deny("subscribing here needs a name"),
            Some(Lack::Token) => Verdict::Deny("subscribing here needs a token"),
            Some(Lack::Everything) => Verdict::Deny("nobody may subscribe here"),
        }
    }

    /// May this identity publish to a room?
    pub fn may_publish(&self, identity: &Identity) -> Verdict {
        match lack(self.publish, identity) {
            None => Verdict::Allow,
            Some(Lack::User) => Verdict::Deny("publishing here needs a name"),
            Some(Lack::Token) => Verdict::Deny("publishing here needs a token"),
            Some(Lack::Everything) => Verdict::Deny("clients may not publish here"),
        }
    }

    /// May this identity close a room for all? No identity carries that right by itself, so the namespace alone decides.
    pub fn may_moderate(&self, _identity: &Identity) -> Verdict {
        if self.client_close { Verdict::Allow } else { Verdict::Deny("clients may not close rooms here") }
    }
}

/// What an identity has too little of for a right.
enum Lack {
    User,
    Token,
    Everything,
}

fn lack(right: Right, identity: &Identity) -> Option<Lack> {
    match right {
        Right::Anyone => None,
        Right::User => identity.user.is_none().then_some(Lack::User),
        Right::Token => (!identity.token).then_some(Lack::Token),
        Right::Nobody => Some(Lack::Everything),
    }
}

/// The policies of all namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespaces {
    default: NamespacePolicy,
    /// All but `default`.
    others: BTreeMap<String, NamespacePolicy>,
}

impl Namespaces {
    /// Name of the namespace of rooms without one, and of those whose own is not configured.
    pub const DEFAULT: &'static str = "default";

    /// `default`, and the namespaces that have a policy of their own. An entry `default` among those replaces the first
    /// argument.
    #[must_use]
    pub fn new(default: NamespacePolicy, mut others: BTreeMap<String, NamespacePolicy>) -> Self {
        let default = others.remove(Self::DEFAULT).unwrap_or(default);
        Self { default, others }
    }

    /// What holds in `room`.
    #[must_use]
    pub fn get(&self, room: &RoomName) -> &NamespacePolicy {
        if self.others.is_empty() {
            return &self.default;
        }
        self.others.get(room.namespace()).unwrap_or(&self.default)
    }

    /// All configured namespaces with their names, `default` first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &NamespacePolicy)> {
        let others = self.others.iter().map(|(name, policy)| (name.as_str(), policy));
        std::iter::once((Self::DEFAULT, &self.default)).chain(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(user: bool, token: bool) -> Identity {
        Identity { user: user.then(|| UserName::guest("Zoë").expect("a valid name")), token }
    }

    #[test]
    fn rights_ask_for_what_they_name() {
        let (nobody, guest, robot, member) =
            (identity(false, false), identity(true, false), identity(false, true), identity(true, true));
        let cases = [
            ("anyone", [true, true, true, true]),
            ("user", [false, true, false, true]),
            ("token", [false, false, true, true]),
            ("nobody", [false, false, false, false]),
        ];
        for (word, allowed) in cases {
            let right = word.parse().expect("one of the four words");
            let subscribing =
                NamespacePolicy { subscribe: right, publish: Right::Nobody, ..NamespacePolicy::default() };
            let publishing = NamespacePolicy { publish: right, subscribe: Right::Nobody, ..NamespacePolicy::default() };
            for (who, allowed) in [&nobody, &guest, &robot, &member].into_iter().zip(allowed) {
                assert_eq!(subscribing.may_subscribe(who) == Verdict::Allow, allowed, "{word} {who:?}");
                assert_eq!(publishing.may_publish(who) == Verdict::Allow, allowed, "{word} {who:?}");
                assert_ne!(subscribing.may_publish(who), Verdict::Allow);
                assert_ne!(publishing.may_subscribe(who), Verdict::Allow);
            }
        }
        for word in ["", "Anyone", "users", "anyone "] {
            assert_eq!(word.parse::<Right>(), Err(UnknownRight(word.to_owned())));
        }
    }

    #[test]
    fn rooms_are_closed_by_clients_only_where_that_is_switched_on() {
        let open = NamespacePolicy { client_close: true, ..NamespacePolicy::default() };
        assert_eq!(open.may_moderate(&identity(false, false)), Verdict::Allow);
        assert_ne!(NamespacePolicy::default().may_moderate(&identity(true, true)), Verdict::Allow);
    }

    #[test]
    fn rooms_find_their_namespace_and_strangers_get_default() {
        let policy = |ticker_ms| NamespacePolicy { ticker_ms, ..NamespacePolicy::default() };
        let others = [("chat".to_owned(), policy(2)), ("".to_owned(), policy(3))];
        let namespaces = Namespaces::new(policy(1), others.into());
        for (room, ticker_ms) in
            [("lobby", 1), ("default:x", 1), ("chat", 1), ("chat:1", 2), ("chat:1:2", 2), ("chats:1", 1), (":x", 3)]
        {
            let room = RoomName::parse(room).expect("a valid name");
            assert_eq!(namespaces.get(&room).ticker_ms, ticker_ms, "{room}");
            assert_eq!(Namespaces::default().get(&room), &NamespacePolicy::default());
        }
        let names: Vec<_> = namespaces.iter().map(|(name, policy)| (name, policy.ticker_ms)).collect();
        assert_eq!(names, [("default", 1), ("", 3), ("chat", 2)]);

        let twice = Namespaces::new(policy(1), [("default".to_owned(), policy(9))].into());
        assert_eq!(twice.iter().map(|(_, policy)| policy.ticker_ms).collect::<Vec<_>>(), [9]);
    }
}
