//! A certificate authority of a test's own, and TLS to who has a certificate of it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::within;

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// What tests keep beside it.
    pub(crate) folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), own.pem()).expect("a file");
        Self { certificate: own.der().clone(), issuer: Issuer::new(params, key), folder }
    }

    /// Its own certificate, a file.
    pub(crate) fn file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue(&self, hosts: &[&str], is_expired: bool) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("parameters");
        if is_expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    /// Writes a new pair for these hosts to `NAME.pem` and `NAME.key`.
    pub(crate) fn write(&self, name: &str, hosts: &[&str]) -> CertificateDer<'static> {
        let (certificate, key) = self.issue(hosts, false);
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("a file");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("a file");
        certificate.der().clone()
    }

    /// The terms of a server for this host.
    pub(crate) fn server(&self, host: &str, is_expired: bool) -> ServerConfig {
        let (certificate, key) = self.issue(&[host], is_expired);
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS12, &TLS13]);
        let builder = builder.expect("versions").with_no_client_auth();
        builder.with_single_cert(vec![certificate.der().clone()], key).expect("a pair")
    }

    /// The keys of a configuration that name a pair.
    pub(crate) fn keys(folder: &Path, name: &str) -> String {
        let [certificate, key] = ["pem", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
        format!("certificate = {certificate:?}\nkey = {key:?}\n")
    }

    /// Connects as one who trusts this authority alone, and asks for `host`: a name, or an address, for which nothing is asked.
    pub(crate) async fn connect(
        &self,
        to: SocketAddr,
        host: &str,
        version: &'static SupportedProtocolVersion,
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
        let config = builder.expect("a version").with_root_certificates(roots).with_no_client_auth();
        let host = ServerName::try_from(host.to_owned()).expect("a name or an address");
        let stream = within("a connection", TcpStream::connect(to)).await?;
        within("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(host, stream)).await
    }
}
