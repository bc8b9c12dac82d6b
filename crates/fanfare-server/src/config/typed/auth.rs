//! Keys: those that open the API, and those that tokens are checked with.

use std::path::PathBuf;

use fanfare_client::Trust;
use fanfare_guard::{TokenKeys, TokenRules};
use hyper::Uri;

use crate::config::raw;
use crate::config::value::{Secret, Setting};
use crate::key_set::KeyOrigin;

use super::check::Check;
use super::relations::later;

impl Check {
    /// A key has to fit a header line as it is; a blank one would open the API to everybody.
    pub(super) fn api_keys(&mut self, setting: &Setting<Vec<Secret>>) -> Vec<Secret> {
        for (index, key) in setting.value.iter().enumerate() {
            let key = key.expose();
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                let text = format!(
                    "entry {} of `api.keys` must be visible ASCII without spaces, at least 1 character",
                    index + 1
                );
                self.problem(setting, text);
            }
        }
        setting.value.clone()
    }

    pub(super) fn key_set(&mut self, auth: &raw::Auth) -> Option<KeyOrigin> {
        let (url, file) = (&auth.jwks_url, &auth.jwks_file);
        if url.value.is_empty() && !auth.jwks_ca_file.value.is_empty() {
            let text = "`auth.jwks_ca_file` is given without `auth.jwks_url`".to_owned();
            self.problem(&auth.jwks_ca_file, text);
        }
        match (url.value.is_empty(), file.value.is_empty()) {
            (true, true) => None,
            (true, false) => Some(KeyOrigin::File(file.value.clone().into())),
            (false, false) => {
                let text = "`auth.jwks_url` and `auth.jwks_file` are both given; keep one".to_owned();
                self.problem_at(later(url, file), text);
                None
            }
            (false, true) => {
                let parsed = url.value.parse::<Uri>().ok().filter(|url| {
                    let has_user = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
                    matches!(url.scheme_str(), Some("https" | "http")) && url.host().is_some() && !has_user
                });
                if parsed.is_none() {
                    self.problem(
                        url,
                        "`auth.jwks_url` must be an https or http address, without a user in it".to_owned(),
                    );
                }
                let authorities = self.authorities(auth, parsed.as_ref());
                parsed.map(|url| KeyOrigin::Url { url, authorities })
            }
        }
    }

    /// The authorities for the server of the set, where they are the operator's own.
    fn authorities(&mut self, auth: &raw::Auth, url: Option<&Uri>) -> Option<PathBuf> {
        let file = &auth.jwks_ca_file;
        if file.value.is_empty() {
            return None;
        }
        if url.is_some_and(|url| url.scheme_str() != Some("https")) {
            let text = "`auth.jwks_ca_file` vouches for nobody: `auth.jwks_url` is not https".to_owned();
            self.problem_at(later(&auth.jwks_url, file), text);
        }
        let path = PathBuf::from(&file.value);
        if let Err(error) = Trust::of_file(&path) {
            self.problem(file, format!("`auth.jwks_ca_file`: {error:#}"));
        }
        Some(path)
    }

    pub(super) fn tokens(&mut self, auth: &raw::Auth) -> TokenKeys {
        let keys = TokenKeys::parse(auth.keys.value.iter().map(Secret::expose)).unwrap_or_else(|(index, error)| {
            self.problem(&auth.keys, format!("entry {} of `auth.keys`: {error}", index + 1));
            TokenKeys::default()
        });
        keys.with_rules(TokenRules { audience: auth.audience.value.clone(), issuer: auth.issuer.value.clone() })
    }
}
