//! Who comes in, who does not, and how connections end.

use std::fmt;
use std::sync::atomic::Ordering;

use fanfare_edge::{HANDSHAKE_RESULTS, Hub, OBSERVED_LIMITS, TLS_RESULTS, VIA_PROXY};
use fanfare_guard::TokenError;
use fanfare_protocol::CloseReason;

use super::Writer;

impl Writer<'_> {
    pub(super) fn closes(&mut self, hub: &Hub) -> fmt::Result {
        let closes = &hub.counters().closes;
        self.counts("closes", "Connections closed, by reason", "reason", CloseReason::LABELS, closes)
    }

    pub(super) fn tokens(&mut self, hub: &Hub) -> fmt::Result {
        let results = std::iter::once("holds").chain(TokenError::ALL.into_iter().map(TokenError::label));
        self.counts("tokens", "Tokens checked, by result", "result", results, &hub.counters().tokens)?;
        self.gauge("revocations", "Revocations of tokens that are remembered", hub.revocations().len() as i64)
    }

    /// Where one is configured.
    pub(super) fn key_set(&mut self, hub: &Hub) -> fmt::Result {
        let settings = hub.settings();
        let Some(source) = &settings.key_source else { return Ok(()) };
        let keys = source.set().as_ref().map_or(0, |set| set.len());
        self.gauge("jwks_keys", "Keys of the published set that can be used", keys as i64)?;
        if let Some(age) = source.age(hub.now()) {
            self.gauge("jwks_age_seconds", "Time since the published set was had last", age.as_secs() as i64)?;
        }
        let fetches = [("had", &source.had), ("failed", &source.failed)];
        let fetches = fetches.map(|(result, count)| (result, count.load(Ordering::Relaxed)));
        self.labelled("jwks_fetches", "Fetches of the published set, by result", "result", &fetches)
    }

    pub(super) fn doors(&mut self, hub: &Hub) -> fmt::Result {
        let counters = hub.counters();
        let help = "WebSocket handshakes, by result";
        self.counts("handshakes", help, "result", HANDSHAKE_RESULTS, &counters.handshakes)?;
        self.count("accept_errors", "Errors while accepting", &counters.accept_errors)?;
        self.count("shed", "Sockets refused at the door", &counters.shed)?;
        let [refused, let_pass] = hub.beyond_limits().map(|counts| OBSERVED_LIMITS.into_iter().zip(counts));
        let help = "Refused because it was beyond a limit";
        self.labelled("rejected", help, "limit", &refused.collect::<Vec<_>>())?;
        let help = "Let pass although beyond a limit, because limits.mode is observe";
        self.labelled("would_reject", help, "limit", &let_pass.collect::<Vec<_>>())
    }

    pub(super) fn tls(&mut self, hub: &Hub) -> fmt::Result {
        self.counts("tls_handshakes", "TLS handshakes, by result", "result", TLS_RESULTS, &hub.counters().tls)?;
        let not_after = hub.settings().tls.as_ref().map(|tls| tls.not_after);
        let help = "When the certificate that is shown expires, seconds since 1970; there where TLS is on";
        not_after.map_or(Ok(()), |not_after| self.gauge("tls_certificate_expiry_timestamp_seconds", help, not_after))
    }

    pub(super) fn proxies(&mut self, hub: &Hub) -> fmt::Result {
        let help = "What proxies said of their clients, or did not";
        self.counts("via_proxy", help, "result", VIA_PROXY, &hub.counters().via)
    }
}
