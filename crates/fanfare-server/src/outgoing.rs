//! Connections that this node opens to others: plain or TLS, as an address says.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use hyper::Uri;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection on which bytes go both ways.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Connects to the host of an `http` or `https` address. Whose certificate counts say the authorities of a file, or those that the system trusts. Takes as long as it takes: the caller has a deadline.
///
/// # Errors
/// Whatever keeps it from being reached, for people.
pub(crate) async fn connect(url: &Uri, authorities: Option<&Path>) -> anyhow::Result<Box<dyn Wire>> {
    let is_tls = url.scheme_str() == Some("https");
    let host = url.host().context("the address has no host")?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    // Before anything is sent: without an authority nobody is asked.
    let terms = if is_tls { Some(tls(authorities)?) } else { None };
    let stream = TcpStream::connect((bare, port)).await.with_context(|| format!("{host}:{port} cannot be reached"))?;
    let Some(terms) = terms else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(bare.to_owned()).context("the host is no name that a certificate can have")?;
    let stream = TlsConnector::from(Arc::new(terms)).connect(name, stream).await.context("TLS failed")?;
    Ok(Box::new(stream))
}

fn tls(file: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let roots = match file {
        Some(file) => authorities(file)?,
        None => {
            let mut roots = RootCertStore::empty();
            let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            anyhow::ensure!(added > 0, "the system trusts no certificate authority: install ca-certificates");
            roots
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The certificate authorities of a file, PEM.
///
/// # Errors
/// When it cannot be read, or holds none, or one that is no certificate.
pub(crate) fn authorities(file: &Path) -> anyhow::Result<RootCertStore> {
    let name = file.display();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).with_context(|| format!("{name} cannot be read"))? {
        let certificate = certificate.with_context(|| format!("{name} cannot be read"))?;
        roots.add(certificate).with_context(|| format!("{name} holds something that is no authority"))?;
    }
    anyhow::ensure!(!roots.is_empty(), "{name} holds no certificate in PEM");
    Ok(roots)
}
