//! What may be done in a room, and by whom.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use fanfare_protocol::pusher::is_private_room;
use fanfare_protocol::{RoomName, UserName};

use crate::{Filter, Grant, RoomRight};

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
    /// What its token grants; `None` without a valid token.
    pub grants: Option<Arc<[Grant]>>,
    /// The guest's number, where the name is one that a guest chose.
    pub guest: Option<u64>,
}

impl Identity {
    /// True when its token grants this right in this room.
    #[must_use]
    pub fn is_granted(&self, room: &RoomName, right: RoomRight) -> bool {
        self.grants.as_deref().is_some_and(|grants| grants.iter().any(|grant| grant.covers(room, right)))
    }
}

/// Who has a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Right {
    /// Every connection.
    #[default]
    Anyone,
    /// Connections with a user: guests that gave a name, and token holders that have one.
    User,
    /// Connections whose token grants it in this room.
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

/// What happens to a subscriber that does not take what its room sends fast enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SlowPolicy {
    /// It is closed.
    #[default]
    Evict,
    /// The oldest messages queued for it are dropped, and it is told how many.
    DropOldest,
    /// Only the newest message is queued for it, and it is told how many it did not get.
    Latest,
    /// It is closed, and gets what it missed when it comes back.
    EvictResumable,
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
    /// Bytes of them per room.
    pub history_bytes_max: usize,
    /// How long each is kept, milliseconds; 0: as long as there is room.
    pub history_ms: u64,
    /// What happens to subscribers that do not keep up.
    pub slow: SlowPolicy,
    /// Who comes in is told the last publication.
    pub last_value: bool,
    /// The gateway publishes the time into every occupied room this often, milliseconds; 0: never.
    pub ticker_ms: u64,
    /// Longest a publication may wait for others to be sent with it, milliseconds; 0: none waits.
    pub coalesce_ms: u64,
    /// Direct messages, or mentions in these rooms, kept for a user who is away; 0: none.
    pub inbox_size: u32,
    /// Clients may close a room for all.
    pub client_close: bool,
    /// What is done about messages that moderation finds fault with, whoever publishes them.
    pub filter: Filter,
    /// Subscribers of a room at the same time; 0: no bound.
    pub subscribers_max: u32,
    /// Publications a second in a room, whoever publishes them; 0: no bound.
    pub messages_per_second_max: u32,
    /// The rooms are channels of an application: those that are private need a token that grants them, whatever else is allowed.
    pub has_channels: bool,
    /// The last event of those of them that are cache channels is kept so long, milliseconds.
    pub cache_ms: u32,
}

impl NamespacePolicy {
    /// May this identity subscribe to a room?
    pub fn may_subscribe(&self, identity: &Identity, room: &RoomName) -> Verdict {
        match lack(self.strict(self.subscribe, room), identity, room, RoomRight::Subscribe) {
            None => Verdict::Allow,
            Some(Lack::User) => Verdict::Deny("subscribing here needs a name"),
            Some(Lack::Token) => Verdict::Deny("subscribing here needs a token that grants it"),
            Some(Lack::Everything) => Verdict::Deny("nobody may subscribe here"),
        }
    }

    /// May this identity publish to a room?
    pub fn may_publish(&self, identity: &Identity, room: &RoomName) -> Verdict {
        match lack(self.strict(self.publish, room), identity, room, RoomRight::Publish) {
            None => Verdict::Allow,
            Some(Lack::User) => Verdict::Deny("publishing here needs a name"),
            Some(Lack::Token) => Verdict::Deny("publishing here needs a token that grants it"),
            Some(Lack::Everything) => Verdict::Deny("clients may not publish here"),
        }
    }

    /// Who has a right in a room, where it is given to so many in its namespace.
    fn strict(&self, right: Right, room: &RoomName) -> Right {
        match right {
            Right::Anyone | Right::User if self.has_channels && is_private_room(room) => Right::Token,
            right => right,
        }
    }

    /// May this identity close a room for all? Where the namespace does not allow it to everybody, a token must grant it.
    pub fn may_moderate(&self, identity: &Identity, room: &RoomName) -> Verdict {
        if self.client_close || identity.is_granted(room, RoomRight::Moderate) {
            Verdict::Allow
        } else {
            Verdict::Deny("closing this room needs a token that grants `moderate`")
        }
    }
}

/// May this identity send something to a user? `token` asks for one that names its own user.
pub fn may_send(right: Right, identity: &Identity) -> Verdict {
    match right {
        Right::Anyone => Verdict::Allow,
        Right::User if identity.user.is_some() => Verdict::Allow,
        Right::Token if identity.user.is_some() && identity.grants.is_some() => Verdict::Allow,
        Right::User => Verdict::Deny("sending to users needs a name"),
        Right::Token => Verdict::Deny("sending to users needs a token with a user"),
        Right::Nobody => Verdict::Deny("clients may not send to users here"),
    }
}

/// What an identity has too little of for a right.
enum Lack {
    User,
    Token,
    Everything,
}

fn lack(right: Right, identity: &Identity, room: &RoomName, wanted: RoomRight) -> Option<Lack> {
    match right {
        Right::Anyone => None,
        Right::User => identity.user.is_none().then_some(Lack::User),
        Right::Token => (!identity.is_granted(room, wanted)).then_some(Lack::Token),
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

    /// What holds in rooms without a namespace, and for what is said to a user rather than to a room.
    #[must_use]
    pub fn fallback(&self) -> &NamespacePolicy {
        &self.default
    }

    /// The same, with the namespaces of applications as `running` has them where they are none here: their channels stay what they are
    /// for as long as the applications run.
    #[must_use]
    pub fn with_channels_of(mut self, running: &Self) -> Self {
        for (name, policy) in running.others.iter().filter(|(_, policy)| policy.has_channels) {
            if !self.others.get(name).is_some_and(|new| new.has_channels) {
                self.others.insert(name.clone(), *policy);
            }
        }
        self
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

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).expect("a valid name")
    }

    fn identity(user: bool, rights: &[RoomRight]) -> Identity {
        let grants = (!rights.is_empty()).then(|| [Grant::new("lobby", rights)].into());
        Identity { user: user.then(|| UserName::guest("Zoë").expect("a valid name")), grants, guest: None }
    }

    #[test]
    fn rights_ask_for_what_they_name() {
        let both = [RoomRight::Subscribe, RoomRight::Publish];
        let (nobody, guest, robot, member) =
            (identity(false, &[]), identity(true, &[]), identity(false, &both), identity(true, &both));
        let cases = [
            ("anyone", [true, true, true, true]),
            ("user", [false, true, false, true]),
            ("token", [false, false, true, true]),
            ("nobody", [false, false, false, false]),
        ];
        let lobby = room("lobby");
        for (word, allowed) in cases {
            let right = word.parse().expect("one of the four words");
            let subscribing =
                NamespacePolicy { subscribe: right, publish: Right::Nobody, ..NamespacePolicy::default() };
            let publishing = NamespacePolicy { publish: right, subscribe: Right::Nobody, ..NamespacePolicy::default() };
            for (who, allowed) in [&nobody, &guest, &robot, &member].into_iter().zip(allowed) {
                assert_eq!(subscribing.may_subscribe(who, &lobby) == Verdict::Allow, allowed, "{word} {who:?}");
                assert_eq!(publishing.may_publish(who, &lobby) == Verdict::Allow, allowed, "{word} {who:?}");
                assert_ne!(subscribing.may_publish(who, &lobby), Verdict::Allow);
                assert_ne!(publishing.may_subscribe(who, &lobby), Verdict::Allow);
            }
        }
        for word in ["", "Anyone", "users", "anyone "] {
            assert_eq!(word.parse::<Right>(), Err(UnknownRight(word.to_owned())));
        }
    }

    #[test]
    fn a_token_grants_one_right_in_one_room_and_no_other() {
        let policy = NamespacePolicy { subscribe: Right::Token, publish: Right::Token, ..NamespacePolicy::default() };
        let reader = identity(true, &[RoomRight::Subscribe]);
        assert_eq!(policy.may_subscribe(&reader, &room("lobby")), Verdict::Allow);
        assert_ne!(policy.may_publish(&reader, &room("lobby")), Verdict::Allow);
        assert_ne!(policy.may_subscribe(&reader, &room("lobby2")), Verdict::Allow);
    }

    #[test]
    fn private_channels_need_a_token_whatever_else_is_allowed() {
        let (guest, member) = (identity(true, &[]), {
            let rights = [RoomRight::Subscribe, RoomRight::Publish];
            Identity { grants: Some([Grant::new("shop:*", &rights)].into()), ..Identity::default() }
        });
        for right in [Right::Anyone, Right::User] {
            let policy = NamespacePolicy { subscribe: right, publish: right, has_channels: true, ..Default::default() };
            for name in ["shop:private-a", "shop:presence-a", "shop:private-encrypted-a"] {
                assert_ne!(policy.may_subscribe(&guest, &room(name)), Verdict::Allow, "{name}");
                assert_ne!(policy.may_publish(&guest, &room(name)), Verdict::Allow, "{name}");
                assert_eq!(policy.may_subscribe(&member, &room(name)), Verdict::Allow, "{name}");
                assert_eq!(policy.may_publish(&member, &room(name)), Verdict::Allow, "{name}");
            }
            assert_eq!(policy.may_subscribe(&guest, &room("shop:my-private-a")), Verdict::Allow);
            let plain = NamespacePolicy { has_channels: false, ..policy };
            assert_eq!(plain.may_subscribe(&guest, &room("shop:private-a")), Verdict::Allow);
        }
        let shut = NamespacePolicy { subscribe: Right::Nobody, has_channels: true, ..Default::default() };
        assert_ne!(shut.may_subscribe(&member, &room("shop:private-a")), Verdict::Allow);
    }

    #[test]
    fn channels_of_applications_that_run_are_not_opened_by_other_rules() {
        let shut = NamespacePolicy { subscribe: Right::Nobody, has_channels: true, ..Default::default() };
        let running = Namespaces::new(NamespacePolicy::default(), [("shop".to_owned(), shut)].into());
        let channel = room("shop:a");
        assert_eq!(Namespaces::default().with_channels_of(&running).get(&channel), &shut);
        let open = Namespaces::new(NamespacePolicy::default(), [("shop".to_owned(), Default::default())].into());
        assert_eq!(open.with_channels_of(&running).get(&channel), &shut, "it is no table of an application any more");
        let other = NamespacePolicy { subscribe: Right::Anyone, ..shut };
        let new = Namespaces::new(NamespacePolicy::default(), [("shop".to_owned(), other)].into());
        assert_eq!(new.with_channels_of(&running).get(&channel), &other, "other rules of the same application hold");
    }

    #[test]
    fn rooms_are_closed_by_clients_where_that_is_switched_on_or_granted() {
        let (open, shut) =
            (NamespacePolicy { client_close: true, ..NamespacePolicy::default() }, NamespacePolicy::default());
        let lobby = room("lobby");
        assert_eq!(open.may_moderate(&identity(false, &[]), &lobby), Verdict::Allow);
        assert_ne!(shut.may_moderate(&identity(true, &[RoomRight::Publish]), &lobby), Verdict::Allow);
        assert_eq!(shut.may_moderate(&identity(true, &[RoomRight::Moderate]), &lobby), Verdict::Allow);
        assert_ne!(shut.may_moderate(&identity(true, &[RoomRight::Moderate]), &room("other")), Verdict::Allow);
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
