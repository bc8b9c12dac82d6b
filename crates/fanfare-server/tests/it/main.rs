//! The one integration binary: real sockets on port 0, and the rules of the house.
#![allow(clippy::unwrap_used)]

mod arrows;
mod tidy;
