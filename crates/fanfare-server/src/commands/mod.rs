//! What each subcommand does, a file each.

pub mod check;
pub mod check_token;
pub mod completions;
pub mod config;
pub mod dev;
pub mod drain;
pub mod man;
pub mod publish;
pub mod serve;
pub mod sub;
pub mod token;
pub mod top;
pub mod train;
pub mod version;
pub mod why;
