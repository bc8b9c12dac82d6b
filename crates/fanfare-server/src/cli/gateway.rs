//! Which gateway a command speaks to, and whom it takes for it.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, ValueHint};
use fanfare_client::{ApiClient, Trust, Url};

/// Where a running gateway's API is.
#[derive(Debug, Clone, Args)]
pub struct ApiArgs {
    /// Address of the admin listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub url: String,
    /// API key; not needed with `fanfare dev`.
    #[arg(long)]
    pub key: Option<String>,
    /// Whose certificate counts.
    #[command(flatten)]
    pub trust: TrustArgs,
}

impl ApiArgs {
    /// Who calls that API.
    ///
    /// # Errors
    /// A bad address, and those of [`TrustArgs::trust`].
    pub fn client(&self) -> anyhow::Result<ApiClient> {
        let url = Url::parse(&self.url)?;
        let trust = self.trust.trust(&url)?;
        Ok(ApiClient::new(url, self.key.clone()).with_trust(trust))
    }
}

/// Whose certificate counts, where TLS is spoken.
#[derive(Debug, Clone, Default, Args)]
pub struct TrustArgs {
    /// With wss:// or https://: file with the authorities, PEM, one of which must have signed the gateway's certificate. Without it:
    /// those that the system trusts.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca: Option<PathBuf>,
    /// With wss:// or https://: take any certificate. Whoever is between can read and change everything then, tokens and keys included.
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
}

impl TrustArgs {
    /// Whose certificates count at `url`; `None` where TLS is not spoken. That any counts is told on the standard error.
    ///
    /// # Errors
    /// Authorities that cannot be read; flags for an address without TLS.
    pub fn trust(&self, url: &Url) -> anyhow::Result<Option<Trust>> {
        if !url.is_tls() {
            let flag = if self.insecure { "--insecure" } else { "--ca" };
            ensure!(
                self.ca.is_none() && !self.insecure,
                "{flag} says something about TLS, and {url} is without: use wss:// or https://"
            );
            return Ok(None);
        }
        if self.insecure {
            // With standard error gone there is nobody to tell.
            _ = writeln!(
                std::io::stderr(),
                "fanfare: WARNING: --insecure: who answers as {} is not asked for a certificate that holds; whoever is between can read and \
                 change everything",
                url.authority()
            );
            return Ok(Some(Trust::in_anybody()));
        }
        Ok(Some(self.ca.as_deref().map_or_else(Trust::of_system, Trust::of_file)?))
    }
}
