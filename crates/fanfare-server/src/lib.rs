//! The `fanfare` program as a library, so that tests can start a node in their own process.
//!
//! [`config`] turns a file, the environment and flags into one typed [`Config`](config::Config); [`cli`] is the command
//! line; [`commands`] holds what each subcommand does; [`log`] writes log lines. Only this crate reads files,
//! environment and signals: every other crate is handed values. It deliberately knows nothing about parsing what
//! clients say and does no work per message.

pub mod cli;
pub mod commands;
pub mod config;
mod handover;
mod housekeeping;
pub mod inherited;
pub mod key_set;
pub mod log;
mod metrics;
pub mod node;
mod outgoing;
mod page;
pub mod reload;
pub mod systemd;
pub mod traces;
