//! Whether a call of an application's HTTP API was signed by it.

use std::borrow::Cow;
use std::time::Duration;

use fanfare_guard::ApplicationKey;
use md5::{Digest as _, Md5};

use crate::query;

/// How far the clock of whoever signs may be off.
const SKEW_MAX: Duration = Duration::from_secs(600);

const SIGNATURE: &str = "auth_signature";

/// What came with a call besides its body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    /// As it was asked for, without the query.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

impl Signed<'_> {
    /// What can be said before the body has come: whether the key is this application's, and the time near.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub(super) fn check_key_and_time(&self, key: &ApplicationKey, now: Duration) -> Result<(), Cow<'static, str>> {
        if self.once("auth_key")? != key.key() {
            return Err("auth_key is not the key of this application".into());
        }
        if self.once("auth_version")? != "1.0" {
            return Err("auth_version must be 1.0".into());
        }
        let timestamp = self.once("auth_timestamp")?;
        let seconds = timestamp.parse::<u64>().map_err(|_| "auth_timestamp must be seconds since 1970")?;
        if now.abs_diff(Duration::from_secs(seconds)) > SKEW_MAX {
            let max = SKEW_MAX.as_secs();
            return Err(
                format!("auth_timestamp is more than {max} s away from the time here, {}", now.as_secs()).into()
            );
        }
        Ok(())
    }

    /// Whether the body is the one that was signed, and all of it was signed with this key.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub(super) fn check_signature(&self, key: &ApplicationKey, body: &[u8]) -> Result<(), Cow<'static, str>> {
        match self.optional("body_md5")? {
            None if body.is_empty() => {}
            None => return Err("body_md5 is missing: the body is not signed".into()),
            Some(digest) => {
                let own = Md5::digest(body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                if digest != own {
                    return Err("body_md5 is not the MD5 of the body".into());
                }
            }
        }
        let signature = self.once(SIGNATURE)?;
        let message = self.message()?;
        if key.signed(&signature, &[message.as_bytes()]) {
            return Ok(());
        }
        Err(format!("auth_signature is not that of the application's secret over {message:?}").into())
    }

    /// What is signed: names in lower case and in their order, values as they are meant.
    fn message(&self) -> Result<String, Cow<'static, str>> {
        let mut pairs = self.pairs()?;
        pairs.retain(|(name, _)| name != SIGNATURE);
        pairs.sort();
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(format!("{}\n{}\n{}", self.method, self.path, pairs.join("&")))
    }

    fn pairs(&self) -> Result<Vec<(String, String)>, Cow<'static, str>> {
        let pairs = query::pairs(self.query).map(|(name, value)| Some((name?.to_lowercase(), value?)));
        pairs.collect::<Option<_>>().ok_or_else(|| "the query is not UTF-8".into())
    }

    /// A parameter that must be there once: of two, one would be checked and the other meant.
    fn once(&self, name: &'static str) -> Result<String, Cow<'static, str>> {
        self.optional(name)?.ok_or_else(|| format!("{name} is missing").into())
    }

    fn optional(&self, name: &'static str) -> Result<Option<String>, Cow<'static, str>> {
        let mut found = self.pairs()?.into_iter().filter(|(own, _)| own == name).map(|(_, value)| value);
        let first = found.next();
        if found.next().is_some() {
            return Err(format!("{name} is there twice").into());
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"name":"order-up","channels":["kitchen","private-kitchen"],"data":"{\"table\":7}","socket_id":"4711.90125"}"#;
    const EVENT: &str = "auth_key=k7&auth_timestamp=1795180000&auth_version=1.0&body_md5=714cf89197e271905c8eaf28769d8651&auth_signature=fb0f09eb2e672483a82b2d63fb257a01dd041d6d9f05e4e94dc1020f7871bfa9";
    const CHANNELS: &str = "info=user_count&filter_by_prefix=presence-&auth_key=k7&auth_timestamp=1795180000&auth_version=1.0&auth_signature=b1558d89de13dc0c7d1e60dd4d9a90a8228a0000377997013426afbb0ad33e5e";
    const THEN: Duration = Duration::from_secs(1_795_180_000);

    fn check(method: &str, path: &str, query: &str, body: &str, now: Duration) -> Result<(), Cow<'static, str>> {
        let key = ApplicationKey::new("k7", b"k7-secret");
        let signed = Signed { method, path, query: Some(query) };
        signed.check_key_and_time(&key, now)?;
        signed.check_signature(&key, body.as_bytes())
    }

    #[test]
    fn what_the_libraries_sign_holds_in_any_order_and_escape() {
        assert_eq!(check("POST", "/apps/1001/events", EVENT, BODY, THEN), Ok(()));
        assert_eq!(check("GET", "/apps/1001/channels", CHANNELS, "", THEN), Ok(()));
        // PHP puts the body's digest behind the signature.
        let (front, back) = EVENT.split_once("&body_md5").expect("a digest");
        let (digest, signature) = back.split_once('&').expect("a signature");
        let turned = format!("{front}&{signature}&body_md5{digest}");
        assert_eq!(check("POST", "/apps/1001/events", &turned, BODY, THEN), Ok(()));
        let escaped = CHANNELS.replace("presence-", "%70resence%2D").replace("auth_key", "AUTH_key");
        assert_eq!(check("GET", "/apps/1001/channels", &escaped, "", THEN), Ok(()));
    }

    #[track_caller]
    fn refused(method: &str, path: &str, query: &str, body: &str, now: Duration, naming: &str) {
        let error = check(method, path, query, body, now).expect_err(naming);
        assert!(error.contains(naming), "{query}: {error}");
    }

    #[test]
    fn anything_else_does_not() {
        let (path, post) = ("/apps/1001/events", "POST");
        refused(post, path, "", BODY, THEN, "auth_key is missing");
        refused(post, path, &EVENT.replace("k7", "k8"), BODY, THEN, "not the key");
        refused(post, path, &EVENT.replace("1.0", "1.1"), BODY, THEN, "auth_version");
        refused(post, path, &EVENT.replace("1795180000", "soon"), BODY, THEN, "seconds since 1970");
        refused(post, path, &format!("{EVENT}&auth_key=k7"), BODY, THEN, "auth_key is there twice");
        refused(post, path, &format!("{EVENT}&Body_MD5=x"), BODY, THEN, "body_md5 is there twice");
        refused(post, path, &format!("{EVENT}&x=%ff"), BODY, THEN, "not UTF-8");
        let seconds = Duration::from_secs;
        assert_eq!(check(post, path, EVENT, BODY, THEN + seconds(600)), Ok(()));
        assert_eq!(check(post, path, EVENT, BODY, THEN - seconds(600)), Ok(()));
        refused(post, path, EVENT, BODY, THEN + seconds(601), "away from the time");
        refused(post, path, EVENT, BODY, THEN - seconds(601), "away from the time");
        refused(post, path, EVENT, &BODY.replace('7', "8"), THEN, "not the MD5");
        refused(post, path, EVENT, "", THEN, "not the MD5");
        let unsigned = EVENT.replace("&body_md5=714cf89197e271905c8eaf28769d8651", "");
        refused(post, path, &unsigned, BODY, THEN, "body_md5 is missing");
        refused("PUT", path, EVENT, BODY, THEN, "auth_signature is not");
        refused(post, "/apps/1002/events", EVENT, BODY, THEN, "auth_signature is not");
        refused(post, path, &format!("{EVENT}&more=1"), BODY, THEN, "auth_signature is not");
        refused(post, path, &EVENT.replace("bfa9", "bfa8"), BODY, THEN, "auth_signature is not");
        refused(post, path, &EVENT.replace("fb0f", "FB0F"), BODY, THEN, "auth_signature is not");
        refused("GET", "/apps/1001/channels", &CHANNELS.replace("presence", "private"), "", THEN, "auth_signature");
    }

    #[test]
    fn the_digest_of_nothing_is_a_digest() {
        let key = ApplicationKey::new("k7", b"k7-secret");
        let query = "auth_key=k7&auth_timestamp=1&auth_version=1.0&body_md5=d41d8cd98f00b204e9800998ecf8427e";
        let unsigned = Signed { method: "GET", path: "/apps/1/channels", query: Some(query) };
        let signature = key.sign(&[unsigned.message().expect("UTF-8").as_bytes()]);
        let signature: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        let query = format!("{query}&auth_signature={signature}");
        assert_eq!(Signed { query: Some(&query), ..unsigned }.check_signature(&key, b""), Ok(()));
    }
}
