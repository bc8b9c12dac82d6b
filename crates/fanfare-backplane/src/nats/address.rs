//! Where NATS is.

use std::fmt;
use std::path::{Path, PathBuf};

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;

const PROBLEM: &str = "write nats://[user:password@]host[:port] or tls:// for TLS, a token in place of user:password; several servers with \
                       commas between them";

/// Where NATS is: one server, or some of one cluster. It is shown without user, password and token.
#[derive(Clone)]
pub struct NatsAddress {
    servers: Vec<ServerAddr>,
    login: Login,
    /// The file with the authorities that alone vouch for them; `None`: those that the system trusts.
    authorities: Option<PathBuf>,
}

#[derive(Clone)]
enum Login {
    None,
    Password(String, String),
    Token(String),
}

impl NatsAddress {
    /// Reads `nats://[user:password@]host[:port]`, with `tls://` for TLS, a token in place of `user:password`, and commas between several servers.
    /// Who logs in is said once, or the same for each.
    ///
    /// # Errors
    /// When it is none of these. The text does not repeat the address: there may be a password in it.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let mut servers = Vec::new();
        let mut login = Login::None;
        for url in url.split(',') {
            let mut url = url.trim().parse::<ServerAddr>().map_err(|_| PROBLEM)?.into_inner();
            let is_plain = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
            if !matches!(url.scheme(), "nats" | "tls") || url.host_str().is_none_or(str::is_empty) || !is_plain {
                return Err(PROBLEM);
            }
            let decoded =
                |text| percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| PROBLEM);
            match (url.username(), url.password()) {
                ("", None) => {}
                (user, Some(password)) => login = Login::Password(decoded(user)?, decoded(password)?),
                (token, None) => login = Login::Token(decoded(token)?),
            }
            url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| PROBLEM)?;
            servers.push(ServerAddr::from_url(url).map_err(|_| PROBLEM)?);
        }
        Ok(Self { servers, login, authorities: None })
    }

    /// The same, where only a certificate counts that an authority in this file, PEM, has signed, not one that the system trusts.
    ///
    /// # Errors
    /// When TLS is not asked for.
    pub fn trusting(self, authorities: &Path) -> Result<Self, &'static str> {
        if !self.servers.iter().any(ServerAddr::tls_required) {
            return Err("it vouches for nobody: `engine.url` is not tls://");
        }
        Ok(Self { authorities: Some(authorities.to_owned()), ..self })
    }

    pub(super) fn servers(&self) -> &[ServerAddr] {
        &self.servers
    }

    /// How to log in there.
    pub(super) fn authenticate(&self, options: ConnectOptions) -> ConnectOptions {
        // One that needs TLS does not make do without for the others.
        let options = options.require_tls(self.servers.iter().any(ServerAddr::tls_required));
        let options = match &self.authorities {
            Some(file) => options.add_root_certificates(file.clone()),
            None => options,
        };
        match self.login.clone() {
            Login::None => options,
            Login::Password(user, password) => options.user_and_password(user, password),
            Login::Token(token) => options.token(token),
        }
    }
}

impl fmt::Display for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.servers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}:{}", server.host(), server.port())?;
        }
        Ok(())
    }
}

impl fmt::Debug for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NatsAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, shown: &str, login: &str) {
        let address = NatsAddress::parse(url).expect("an address");
        assert_eq!(address.to_string(), shown);
        assert!(!format!("{address:?}{:?}", address.servers).contains("hunter2"), "{address:?}");
        let found = match &address.login {
            Login::None => String::new(),
            Login::Password(user, password) => format!("{user}/{password}"),
            Login::Token(token) => token.clone(),
        };
        assert_eq!(found, login);
    }

    #[test]
    fn addresses_are_read_and_shown_without_what_is_secret() {
        check("nats://10.0.0.5", "10.0.0.5:4222", "");
        check("tls://me:hunter2%21@nats.example:4333", "nats.example:4333", "me/hunter2!");
        check("nats://hunter2@a,nats://b:5,nats://[::1]:6", "a:4222,b:5,::1:6", "hunter2");
        assert!(NatsAddress::parse("tls://a").is_ok_and(|address| address.servers[0].tls_required()));
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for url in [
            "",
            "redis://:hunter2@x",
            "ws://x",
            "nats://",
            "nats://a,",
            "nats://a/b",
            "nats://a?x=hunter2",
            "nats://a:port",
        ] {
            let problem = NatsAddress::parse(url).expect_err(url);
            assert!(problem.starts_with("write nats://") && !problem.contains("hunter2"), "{url}");
        }
    }
}
