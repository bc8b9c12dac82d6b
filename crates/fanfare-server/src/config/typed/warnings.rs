//! What an operator should know although the node can start.

use crate::config::tls;
use crate::key_set::KeyOrigin;

use super::Config;

impl Config {
    /// What an operator should know although the node can start, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.api_keys.is_empty() && !self.api_open {
            warnings.push("api.keys is empty: every call of the HTTP API is refused".to_owned());
        }
        if self.holds_messages() && self.api_keys.is_empty() && !self.api_open {
            warnings.push("messages are held for a moderator, but without api.keys nobody can release them".to_owned());
        }
        if self.limits.observes {
            warnings.push(
                "limits.mode is observe: connections, handshakes, rooms, subscriptions, subscribers and messages a \
                 second beyond their limits are let pass and counted in fanfare_would_reject_total"
                    .to_owned(),
            );
        }
        warnings.extend(self.tls.as_ref().and_then(tls::warning));
        if let Some(KeyOrigin::Url { url, .. }) = &self.key_set
            && url.scheme_str() == Some("http")
            && !matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"))
        {
            warnings
                .push("auth.jwks_url is not https: whoever is on the way can put keys of their own into it".to_owned());
        }
        if let Some(traces) = &self.traces
            && traces.url.scheme_str() == Some("http")
            && !traces.headers.is_empty()
            && !matches!(traces.url.host(), Some("localhost" | "127.0.0.1" | "[::1]"))
        {
            warnings.push("traces.url is not https: whoever is on the way can read traces.headers".to_owned());
        }
        if !self.admin.is_local() {
            warnings.push(format!(
                "the admin listener {} can be reached from other machines: health and metrics need no key",
                self.admin
            ));
        }
        warnings
    }
}
