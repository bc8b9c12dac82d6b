//! Connections that this node opens to others: plain or TLS, as an address says.

use std::sync::Arc;

use anyhow::Context as _;
use hyper::Uri;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection on which bytes go both ways.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Connects to the host of an `http` or `https` address. Takes as long as it takes: the caller has a deadline.
///
/// # Errors
/// Whatever keeps it from being reached, for people.
pub(crate) async fn connect(url: &Uri) -> anyhow::Result<Box<dyn Wire>> {
    let is_tls = url.scheme_str() == Some("https");
    let host = url.host().context("the address has no host")?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((bare, port)).await.with_context(|| format!("{host}:{port} cannot be reached"))?;
    if !is_tls {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(bare.to_owned()).context("the host is no name that a certificate can have")?;
    let stream = TlsConnector::from(Arc::new(tls()?)).connect(name, stream).await.context("TLS failed")?;
    Ok(Box::new(stream))
}

/// TLS with the certificates that the system trusts.
fn tls() -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    anyhow::ensure!(added > 0, "the system trusts no certificate authority: install ca-certificates");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
