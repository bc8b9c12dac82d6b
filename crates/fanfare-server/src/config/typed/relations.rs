//! What must hold between values that are each fine by themselves.

use crate::config::raw::Raw;
use crate::config::value::{Origin, Setting};
use crate::config::{Address, Program, engine, history, inboxes, moderation};

use super::Config;
use super::check::Check;

/// Bytes of an outbox that must remain beside the longest message: its frame header and the dialect's words around
/// it, so that a message that was accepted always fits an empty outbox.
const OUTBOX_OVERHEAD_BYTES: u64 = 4_096;

impl Check {
    /// What must hold between values.
    pub(super) fn relations(&mut self, raw: &Raw, config: &Config) {
        moderation::filters_without_files(raw, &mut self.problems);
        history::too_small(raw, config, &mut self.problems);
        inboxes::check(raw, config, &mut self.problems);
        history::not_resumable(raw, config, &mut self.problems);
        engine::tickers_without_numbers(raw, config, &mut self.problems);
        let limits = &raw.limits;
        let message = limits.message_bytes_max.value;
        let needed = message + OUTBOX_OVERHEAD_BYTES;
        if limits.outbox_bytes_max.value < needed {
            let blamed = later(&limits.outbox_bytes_max, &limits.message_bytes_max);
            self.problem_at(
                blamed,
                format!(
                    "one message of `limits.message_bytes_max` = {message} with its overhead of {OUTBOX_OVERHEAD_BYTES} \
                     does not fit `limits.outbox_bytes_max` = {}; raise the latter to {needed} or more, or lower the \
                     former",
                    limits.outbox_bytes_max.value
                ),
            );
        }
        if config.outbox_total_bytes_max < config.outbox.outbox_bytes_max {
            let blamed = later(&limits.outbox_total_bytes_max, &limits.outbox_bytes_max);
            self.problem_at(
                blamed,
                format!(
                    "`limits.outbox_total_bytes_max` comes to {}, less than the {} of one connection's \
                     `limits.outbox_bytes_max`; raise the former or lower the latter",
                    config.outbox_total_bytes_max, config.outbox.outbox_bytes_max
                ),
            );
        }
        for (key, setting) in [
            ("connections_per_ip_max", &limits.connections_per_ip_max),
            ("connections_per_user_max", &limits.connections_per_user_max),
        ] {
            if setting.value > limits.connections_max.value {
                self.problem_at(
                    later(setting, &limits.connections_max),
                    format!(
                        "`limits.{key}` = {} can never be reached: `limits.connections_max` is {}; lower the former (0: \
                         off) or raise the latter",
                        setting.value, limits.connections_max.value
                    ),
                );
            }
        }
        if config.tls.is_some() && matches!(config.listen, Address::Unix(_)) {
            let blamed = later(&raw.tls.certificate, &raw.node.listen);
            self.problem_at(blamed, format!("`[tls]` needs TCP, but `listen` is {}", config.listen));
        }
        if same(&config.listen, &config.admin) {
            let blamed = later(&raw.node.listen, &raw.node.admin);
            self.problem_at(
                blamed,
                format!("`listen` and `admin` are both {}; give them different ports", config.admin),
            );
        }
    }

    /// What holds for one of the programs only.
    pub(super) fn program(&mut self, program: Program, raw: &Raw, config: &Config) {
        if program == Program::Serve {
            return;
        }
        for (key, setting, address) in
            [("listen", &raw.node.listen, &config.listen), ("admin", &raw.node.admin, &config.admin)]
        {
            if !address.is_local() {
                self.problem(
                    setting,
                    format!(
                        "`{key}` is {address}, but `fanfare dev` lets everybody in and so listens on loopback only: use \
                         127.0.0.1:PORT, [::1]:PORT or unix:/path, or start `fanfare serve`"
                    ),
                );
            }
        }
    }
}

/// Of two settings that contradict each other, the origin of the one with the higher precedence: who gave it has to
/// act.
pub(in crate::config) fn later<A, B>(one: &Setting<A>, other: &Setting<B>) -> Origin {
    one.origin.clone().max(other.origin.clone())
}

/// Whether two listeners would get in each other's way.
fn same(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one), Address::Tcp(other)) => {
            let overlap = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
            one.port() != 0 && one.port() == other.port() && overlap
        }
        _ => one == other,
    }
}
