//! Who may enter and who may say what, how fast: pure verdicts.
//!
//! Everything here decides from its arguments alone. Nothing waits, logs, counts or looks at a clock; the shell asks, and
//! acts on the answer.
//!
//! - [`OriginPolicy`] decides at the door whether a browser's page may connect.
//! - [`Namespaces`] finds the [`NamespacePolicy`] of a room; asked about an [`Identity`], it gives a [`Verdict`].
//! - [`TokenKeys`] says whether a token holds and what it grants, and mints tokens.
//! - [`Revocations`] remembers which were taken back before their time.
//! - [`GuestKey`] brings a guest who chose a name back as the same user.
//! - [`Bucket`] says whether a connection is within its rate, [`SharedBucket`] the same of a user, and [`Buckets`] of many whom nobody knows.
//! - [`ApplicationKey`] says whether an application of Pusher's kind signed something.
//! - [`Moderation`] looks at what a message says and gives a [`Ruling`].
//!
//! What it deliberately does not know: connections, rooms that exist, and how a refusal is told to a client.

mod application;
mod guest;
mod origin;
mod policy;
mod rate;
mod revocation;
mod token;
pub mod words;

pub use application::ApplicationKey;
pub use guest::GuestKey;
pub use origin::{OriginError, OriginPolicy};
pub use policy::{Identity, NamespacePolicy, Namespaces, Right, SlowPolicy, UnknownRight, Verdict, may_send};
pub use rate::{Bucket, Buckets, SharedBucket};
pub use revocation::{Revocation, Revocations, RevocationsFull, Revoked, TOKEN_ID_BYTES_MAX, TokenMark};
pub use token::{
    Claims, Explanation, Grant, KEY_SET_BYTES_MAX, KeyError, KeySet, KeySetError, NumericDate, Published, RoomRight,
    Signer, SkippedKey, TOKEN_BYTES_MAX, TokenError, TokenKeys, TokenRules, Verified,
};
pub use words::{Cause, Filter, Finding, Moderation, Ruling};
