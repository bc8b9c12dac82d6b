//! Who somebody is: tokens of clients, keys of backends.

use crate::config::value::{Secret, choice};

use super::section::section;

choice! {
    /// Who may do something in a namespace.
    pub(crate) Who {
        /// Every connection.
        Anyone = "anyone",
        /// Connections that belong to a user.
        User = "user",
        /// Connections whose token names the room.
        Token = "token",
        /// No connection; only the HTTP API.
        Nobody = "nobody",
    }
}

section! {
    /// Who a connection belongs to.
    Auth {
        /// Whether clients may choose a name (`?name=`). Without a name everybody may connect.
        guests: bool = false,
        /// Who may send to users with the command `send`: `anyone`, `user`s with a name, `token` holders with one, or `nobody`.
        send: Who = Who::User,
        /// Keys that tokens are signed with: HMAC secrets or PEM public keys; several may be valid at once.
        keys: Vec<Secret> = Vec::new(),
        /// Address (`https` or `http`) of a JSON Web Key Set with further public keys, read anew as its server says, and when a
        /// token names a key that is not in it.
        jwks_url: String = String::new(),
        /// The same set as a file, in the place of `jwks_url`.
        jwks_file: String = String::new(),
        /// File with the certificate authorities, PEM, that alone vouch for the server of `jwks_url`. Empty: those that the system trusts.
        jwks_ca_file: String = String::new(),
        /// Name that tokens must have in their claim `aud`; empty: it is not looked at.
        audience: String = String::new(),
        /// What the claim `iss` of tokens must be; empty: it is not looked at.
        issuer: String = String::new(),
        /// How long before its token ends a connection is told so (`expires`), milliseconds; never before half of
        /// the time is over. 0: it is not told.
        expiry_warning_ms: u64 = 60_000,
        /// Revocations of tokens that are remembered (`POST /api/revoke`); the next is refused.
        revocations_max: u64 = 10_000,
    }
}

section! {
    /// The HTTP API for backends.
    Api {
        /// Keys that open the API (`Authorization: Bearer <key>`); several may be valid at once.
        /// While there is none, `fanfare serve` refuses every call of the API.
        keys: Vec<Secret> = Vec::new(),
        /// Whether the API is served on the client listener too.
        on_client_listener: bool = false,
        /// How long an `idempotency_key` is remembered, milliseconds: a publication that is sent again with it meanwhile gets the receipt of
        /// the first and is not published again.
        idempotency_ms: u64 = 300_000,
        /// Idempotency keys that are remembered; at the bound the oldest go. 0: none, so that each publication is published.
        idempotency_max: u64 = 65_536,
        /// Closed connections that are remembered for `fanfare why`, the latest of each shard. 0: none.
        closes_max: u64 = 10_000,
    }
}
