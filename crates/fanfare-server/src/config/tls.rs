//! The certificate and its key, read and checked with the configuration that names them, and again while the node runs.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fanfare_edge::TlsTerms;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use sha2::{Digest as _, Sha256};
use x509_cert::der::Decode as _;

use super::Problem;
use super::raw::{self, TlsVersion};

/// Bytes of a file with certificates or a key.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Reads the pair. What is wrong with it goes to `problems`.
pub(super) fn load(keys: &raw::Tls, problems: &mut Vec<Problem>) -> Option<TlsTerms> {
    let (certificate, key) = (&keys.certificate, &keys.key);
    let mut problem = |origin, text| problems.push(Problem { origin: Some(origin), text });
    match (certificate.value.is_empty(), key.value.is_empty()) {
        (true, true) => return None,
        (false, true) => {
            problem(certificate.origin.clone(), "`tls.certificate` is given without `tls.key`".to_owned());
            return None;
        }
        (true, false) => {
            problem(key.origin.clone(), "`tls.key` is given without `tls.certificate`".to_owned());
            return None;
        }
        (false, false) => {}
    }
    let files = Files {
        certificate: certificate.value.clone(),
        key: key.value.clone(),
        min_version: keys.min_version.value,
        seen: Mutex::default(),
    };
    match Arc::new(files).read() {
        Ok(terms) => terms,
        Err(reason) => {
            problem(certificate.origin.clone(), format!("`[tls]`: {reason}"));
            None
        }
    }
}

/// What an operator should know of a certificate that is expired, or soon will be.
pub(super) fn warning(terms: &TlsTerms) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed();
    match (terms.not_after - now).div_euclid(86_400) {
        ..0 => Some("the certificate of `[tls]` has expired: clients will not connect".to_owned()),
        days @ 0..7 => Some(format!("the certificate of `[tls]` expires in {days} days")),
        7.. => None,
    }
}

/// Where the pair lies, and what was seen there last.
struct Files {
    certificate: String,
    key: String,
    min_version: TlsVersion,
    seen: Mutex<Option<[u8; 32]>>,
}

impl Files {
    /// Reads the pair, if the files hold anything else than when they were read last.
    fn read(self: &Arc<Self>) -> Result<Option<TlsTerms>, String> {
        let [certificate, key] = [&self.certificate, &self.key].map(|file| {
            let mut bytes = Vec::new();
            let read = File::open(file).and_then(|file| file.take(PEM_BYTES_MAX).read_to_end(&mut bytes));
            read.map(|_| bytes).map_err(|error: io::Error| format!("{file}: {error}"))
        });
        let (certificate, key) = (certificate?, key?);
        let hash = Sha256::new().chain_update(&certificate).chain_update([0]).chain_update(&key).finalize().into();
        if self.seen.lock().replace(hash) == Some(hash) {
            return Ok(None);
        }
        let (config, not_after) = self.pair(&certificate, &key)?;
        let files = self.clone();
        Ok(Some(TlsTerms { config: Arc::new(config), not_after, renew: Arc::new(move || files.read()) }))
    }

    fn pair(&self, certificate: &[u8], key: &[u8]) -> Result<(ServerConfig, i64), String> {
        let Self { certificate: certificate_file, key: key_file, .. } = self;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{certificate_file}: {error}"))?;
        let Some(own) = chain.first() else { return Err(format!("{certificate_file} holds no certificate in PEM")) };
        let read = x509_cert::Certificate::from_der(own).map_err(|error| format!("{certificate_file}: {error}"))?;
        let not_after = read.tbs_certificate.validity.not_after.to_unix_duration().as_secs().cast_signed();
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("{key_file} holds no key in PEM: {error}"))?;
        let versions: &[_] = match self.min_version {
            TlsVersion::V12 => &[&TLS12, &TLS13],
            TlsVersion::V13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?;
        let mut config = builder
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| format!("{certificate_file} and {key_file}: {error}"))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Clients that come back are resumed from what they bring: nothing is kept for them.
        config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
        Ok((config, not_after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_certificate_is_warned_of() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let check = |seconds: i64, expect: Option<&str>| {
            let provider = Arc::new(ring::default_provider());
            let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            let resolver = Arc::new(rustls::server::ResolvesServerCertUsingSni::new());
            let config = Arc::new(builder.with_no_client_auth().with_cert_resolver(resolver));
            let terms = TlsTerms { config, not_after: now + seconds, renew: Arc::new(|| Ok(None)) };
            let warning = warning(&terms);
            assert_eq!(warning.is_some(), expect.is_some(), "{warning:?}");
            assert!(warning.unwrap_or_default().contains(expect.unwrap_or_default()));
        };
        check(-5, Some("has expired"));
        check(86_400 + 60, Some("expires in 1 days"));
        check(8 * 86_400, None);
    }
}
