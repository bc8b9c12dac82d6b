//! TLS on the way to a gateway: whose certificates count, and what it means when they do not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, InvalidMessage, RootCertStore,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Error;

/// Whose certificates count. Cheap to clone; connections with the same one may resume each other's TLS sessions.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Who has a certificate of an authority that the system trusts (or that `SSL_CERT_FILE` and `SSL_CERT_DIR` name).
    ///
    /// # Errors
    /// [`Error::Authorities`] when the system trusts none.
    pub fn of_system() -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            let text = "the system trusts no certificate authority: install ca-certificates, or name a file";
            return Err(Error::Authorities(text.to_owned()));
        }
        Ok(Self::in_roots(roots))
    }

    /// Who has a certificate of an authority in this file, PEM, and nobody else.
    ///
    /// # Errors
    /// [`Error::Authorities`] when it cannot be read, or holds none, or one that is no certificate.
    pub fn of_file(file: &Path) -> Result<Self, Error> {
        let name = file.display();
        let refuse = |text: String| Error::Authorities(text);
        let unreadable = |error: &dyn fmt::Display| refuse(format!("{name} cannot be read: {error}"));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))? {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            let added = roots.add(certificate);
            added.map_err(|error| refuse(format!("{name} holds something that is no authority: {error}")))?;
        }
        if roots.is_empty() {
            return Err(refuse(format!("{name} holds no certificate in PEM")));
        }
        Ok(Self::in_roots(roots))
    }

    /// Anybody: who answers is not asked who he is. Whoever is between can read and change everything.
    #[must_use]
    pub fn in_anybody() -> Self {
        let provider = provider();
        let config =
            builder(provider.clone()).dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)));
        Self::with(config.with_no_client_auth())
    }

    fn in_roots(roots: RootCertStore) -> Self {
        Self::with(builder(provider()).with_root_certificates(roots).with_no_client_auth())
    }

    fn with(mut config: ClientConfig) -> Self {
        // WebSockets begin on HTTP/1.1; who could speak another is told before.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self(Arc::new(config))
    }

    /// The same, but every handshake is a whole one: nothing is kept of a former session that would make the next one cheaper.
    #[must_use]
    pub fn without_resumption(&self) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.resumption = Resumption::disabled();
        Self(Arc::new(config))
    }

    /// TLS with a host, for those who move its bytes themselves.
    ///
    /// # Errors
    /// [`TlsFailure::Nameless`] for a host that no certificate can name.
    pub fn session(&self, host: &str) -> Result<ClientConnection, TlsFailure> {
        ClientConnection::new(self.0.clone(), server_name(host)?).map_err(TlsFailure::of)
    }

    /// Agrees on TLS with the host at the other end of `stream`. Takes as long as it takes: the caller has a deadline.
    ///
    /// # Errors
    /// [`Error::Tls`] with what is wrong.
    pub async fn handshake(&self, host: &str, port: u16, stream: TcpStream) -> Result<TlsStream<TcpStream>, Error> {
        let fail = |failure| Error::Tls { authority: format!("{host}:{port}"), failure };
        let name = server_name(host).map_err(fail)?;
        let connected = TlsConnector::from(self.0.clone()).connect(name, stream).await;
        connected.map_err(|error| fail(TlsFailure::of_io(error)))
    }
}

/// The name of a host as a certificate has it.
fn server_name(host: &str) -> Result<ServerName<'static>, TlsFailure> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsFailure::Nameless)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder(provider: Arc<CryptoProvider>) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.expect("ring has the cipher suites of TLS 1.2 and 1.3")
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

/// Why there is no TLS. The texts are for people and say what to change where that is known.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsFailure {
    /// No authority that is trusted has signed the certificate.
    UnknownAuthority,
    /// The certificate is an authority's own, which cannot stand for a server.
    AuthorityItself,
    /// The certificate is not for this name.
    OtherName {
        /// Whom it is for; empty when it names nobody.
        names: Vec<String>,
    },
    /// The certificate has expired, so long ago.
    Expired(Duration),
    /// The certificate will hold from this time on.
    NotYet(Duration),
    /// The host is a name that no certificate can have.
    Nameless,
    /// What was answered is no TLS.
    NotTls,
    /// The connection ended or failed before TLS was agreed on.
    Lost(io::Error),
    /// Anything else.
    Other(rustls::Error),
}

impl TlsFailure {
    /// What a failed read or write of a TLS connection says.
    #[must_use]
    pub fn of_io(error: io::Error) -> Self {
        match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(cause) => Self::of(cause.clone()),
            None => Self::Lost(error),
        }
    }

    /// What an error of rustls says.
    #[must_use]
    pub fn of(error: rustls::Error) -> Self {
        let from = |time: UnixTime| Duration::from_secs(time.as_secs());
        match error {
            rustls::Error::InvalidCertificate(why) => match why {
                // One of the same name, with another key.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
                CertificateError::NotValidForName => Self::OtherName { names: Vec::new() },
                CertificateError::NotValidForNameContext { presented, .. } => Self::OtherName { names: presented },
                CertificateError::ExpiredContext { time, not_after } => {
                    Self::Expired(from(time).saturating_sub(from(not_after)))
                }
                CertificateError::NotValidYetContext { time, not_before } => {
                    Self::NotYet(from(not_before).saturating_sub(from(time)))
                }
                // It has no name of its own in rustls.
                CertificateError::Other(ref other) if other.to_string().contains("CaUsedAsEndEntity") => {
                    Self::AuthorityItself
                }
                why => Self::Other(why.into()),
            },
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAuthority => f.write_str("no authority that is trusted here has signed its certificate"),
            Self::AuthorityItself => f.write_str(
                "its certificate is an authority's own (CA:TRUE), which cannot stand for a server: give it one that the \
                 authority has signed",
            ),
            Self::OtherName { names } if names.is_empty() => f.write_str(
                "its certificate is not for this name, nor for any other: give it one with a subjectAltName",
            ),
            Self::OtherName { names } => {
                write!(f, "its certificate is not for this name: use one that it is for ({})", names.join(", "))
            }
            Self::Expired(ago) => {
                write!(f, "its certificate expired {} ago: renew it, or set this machine's clock", rough(*ago))
            }
            Self::NotYet(wait) => {
                write!(f, "its certificate holds in {} only: is this machine's clock slow?", rough(*wait))
            }
            Self::Nameless => f.write_str("the host is no name that a certificate can have"),
            Self::NotTls => f.write_str("what answers there does not speak TLS: use ws:// or http://"),
            Self::Lost(error) => write!(f, "the connection ended before it was agreed on: {error}"),
            Self::Other(error) => write!(f, "{error}"),
        }
    }
}

fn rough(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Takes every certificate. That its owner has the key is still asked for.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
