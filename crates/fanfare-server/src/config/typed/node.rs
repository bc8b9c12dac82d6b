//! The node itself: its name, where it listens, whom it lets in from, what it logs, how it leaves.

use std::net::SocketAddr;
use std::str::FromStr as _;
use std::time::Duration;

use fanfare_guard::OriginPolicy;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::Address;
use crate::config::raw;
use crate::config::value::{Setting, nearest};

use super::check::{Check, HOUR_MS};

/// With shorter periods a machine that is busy for a moment would be taken for one that does not deliver.
const CANARY_MS_MIN: u64 = 200;

/// Pages and paths for trying things out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// Whether `/echo` and `/helloworld` answer.
    pub echo: bool,
    /// Whether `/` serves the demo page.
    pub page: bool,
}

/// How service is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Time new connections are still accepted.
    pub grace: Duration,
    /// Time over which connections are closed.
    pub window: Duration,
    /// When clients are told to reconnect.
    pub retry: Duration,
}

impl Check {
    pub(super) fn address(&mut self, path: &str, setting: &Setting<String>) -> Address {
        setting.value.parse().unwrap_or_else(|reason: String| {
            self.problem(setting, format!("`{path}`: {reason}"));
            Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
        })
    }

    pub(super) fn origins(&mut self, setting: &Setting<Vec<String>>) -> OriginPolicy {
        OriginPolicy::parse(&setting.value).unwrap_or_else(|reason| {
            self.problem(setting, format!("`origins`: {reason}"));
            OriginPolicy::default()
        })
    }

    pub(super) fn node_name(&mut self, setting: &Setting<String>, host_name: &str) -> String {
        let name = if setting.value.is_empty() { host_name } else { &setting.value };
        if name.len() > 255 || name.chars().any(char::is_control) {
            self.problem(setting, "`node` must be at most 255 bytes without control characters".to_owned());
        }
        name.to_owned()
    }

    pub(super) fn log_level(&mut self, setting: &Setting<String>) -> String {
        if let Err(reason) = check_log_level(&setting.value) {
            self.problem(setting, format!("`log_level`: {reason}"));
        }
        setting.value.clone()
    }

    pub(super) fn canary(&mut self, raw: &raw::Readiness) -> Option<Duration> {
        if raw.canary_ms.value == 0 {
            return None;
        }
        Some(self.time("readiness.canary_ms", &raw.canary_ms, CANARY_MS_MIN..=60_000))
    }

    pub(super) fn drain(&mut self, raw: &raw::Drain) -> Drain {
        Drain {
            grace: self.time("drain.grace_ms", &raw.grace_ms, 0..=HOUR_MS),
            window: self.time("drain.window_ms", &raw.window_ms, 0..=HOUR_MS),
            retry: self.time("drain.retry_ms", &raw.retry_ms, 0..=HOUR_MS),
        }
    }
}

/// The filter's own parser takes a misspelt level for the name of a module and then logs nothing else, so single
/// words have to be levels here.
fn check_log_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',').map(str::trim) {
        if !directive.contains(['=', '[']) && LevelFilter::from_str(directive).is_err() {
            let levels = LEVELS.join(", ");
            return Err(match nearest(directive, LEVELS.into_iter()) {
                Some(level) => format!("{directive:?} is none of {levels}; did you mean {level:?}?"),
                None => format!("{directive:?} is none of {levels}, nor of the form part=level"),
            });
        }
    }
    let parsed = EnvFilter::builder().parse(text);
    parsed.map(|_| ()).map_err(|error| format!("{error}; write part=level"))
}
