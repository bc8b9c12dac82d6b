//! Connections that this node opens to others: plain or TLS, as an address says.

use std::path::Path;

use anyhow::Context as _;
use fanfare_client::Trust;
use hyper::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

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
    let trust = if is_tls { Some(authorities.map_or_else(Trust::of_system, Trust::of_file)?) } else { None };
    let stream = TcpStream::connect((bare, port)).await.with_context(|| format!("{host}:{port} cannot be reached"))?;
    let Some(trust) = trust else { return Ok(Box::new(stream)) };
    Ok(Box::new(trust.handshake(bare, port, stream).await?))
}
