//! The certificates and their keys, read and checked with the configuration that names them, and again while the node runs.

mod by_name;

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
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::Problem;
use super::raw::{self, CertificateFiles, TlsVersion};
use by_name::ByName;

/// Bytes of a file with certificates or a key.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Certificates beside the first.
const CERTIFICATES_MAX: usize = 1_000;

/// Reads the pairs. What is wrong with them goes to `problems`.
pub(super) fn load(keys: &raw::Tls, problems: &mut Vec<Problem>) -> Option<TlsTerms> {
    let (certificate, key, more) = (&keys.certificate, &keys.key, &keys.certificates);
    let mut refuse = |origin, text| {
        problems.push(Problem { origin: Some(origin), text });
        None
    };
    match (certificate.value.is_empty(), key.value.is_empty()) {
        (true, true) if more.value.is_empty() => return None,
        (true, true) => {
            let text =
                "`tls.certificates` is given without `tls.certificate`, which those get who ask for another name";
            return refuse(more.origin.clone(), text.to_owned());
        }
        (false, true) => {
            return refuse(certificate.origin.clone(), "`tls.certificate` is given without `tls.key`".to_owned());
        }
        (true, false) => {
            return refuse(key.origin.clone(), "`tls.key` is given without `tls.certificate`".to_owned());
        }
        (false, false) if more.value.len() > CERTIFICATES_MAX => {
            return refuse(more.origin.clone(), format!("`tls.certificates` has more than {CERTIFICATES_MAX} entries"));
        }
        (false, false) => {}
    }
    let first = CertificateFiles { certificate: certificate.value.clone(), key: key.value.clone() };
    let pairs = [vec![first], more.value.clone()].concat();
    let files = Files { pairs, min_version: keys.min_version.value, seen: Mutex::default() };
    match Arc::new(files).read() {
        Ok(terms) => terms,
        Err(Unfit { pair: 0, why }) => refuse(certificate.origin.clone(), format!("`[tls]`: {why}")),
        Err(Unfit { pair, why }) => refuse(more.origin.clone(), format!("`tls.certificates`, entry {pair}: {why}")),
    }
}

/// What an operator should know of a certificate that is expired, or soon will be.
pub(super) fn warning(terms: &TlsTerms) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed();
    let file = &terms.expires_first;
    match (terms.not_after - now).div_euclid(86_400) {
        ..0 => Some(format!("the certificate {file} of `[tls]` has expired: clients will not connect")),
        days @ 0..7 => Some(format!("the certificate {file} of `[tls]` expires in {days} days")),
        7.. => None,
    }
}

/// Where the pairs lie, and what was seen there last.
struct Files {
    /// The first is shown where no other fits.
    pairs: Vec<CertificateFiles>,
    min_version: TlsVersion,
    seen: Mutex<Option<[u8; 32]>>,
}

/// Which pair cannot be used.
struct Unfit {
    pair: usize,
    why: String,
}

/// A pair that was read.
struct Pair {
    certified: Arc<CertifiedKey>,
    names: Vec<String>,
    not_after: i64,
}

impl Files {
    /// Reads all pairs, if the files hold anything else than when they were read last: all of them hold from then on, or none.
    fn read(self: &Arc<Self>) -> Result<Option<TlsTerms>, Unfit> {
        let mut hash = Sha256::new();
        let mut bytes = Vec::with_capacity(self.pairs.len());
        for (pair, CertificateFiles { certificate, key }) in self.pairs.iter().enumerate() {
            let [certificate, key] = [certificate, key].map(|file| read_file(file).map_err(|why| Unfit { pair, why }));
            let both = (certificate?, key?);
            for bytes in [&both.0, &both.1] {
                hash.update(bytes.len().to_be_bytes());
                hash.update(bytes);
            }
            bytes.push(both);
        }
        let hash = hash.finalize().into();
        if self.seen.lock().replace(hash) == Some(hash) {
            return Ok(None);
        }
        let pairs: Vec<Pair> = self
            .pairs
            .iter()
            .zip(&bytes)
            .enumerate()
            .map(|(pair, (files, bytes))| Pair::read(files, bytes).map_err(|why| Unfit { pair, why }))
            .collect::<Result<_, _>>()?;
        if let Some(pair) = (1..pairs.len()).find(|&pair| pairs[pair].names.is_empty()) {
            let file = &self.pairs[pair].certificate;
            return Err(Unfit { pair, why: format!("{file} is for no host: it has no DNS name in subjectAltName") });
        }
        let first = (0..pairs.len()).min_by_key(|&pair| pairs[pair].not_after).unwrap_or_default();
        let (not_after, expires_first) = (pairs[first].not_after, self.pairs[first].certificate.clone());
        let config = Arc::new(self.config(&pairs).map_err(|error| Unfit { pair: 0, why: error.to_string() })?);
        let files = self.clone();
        let renew = Arc::new(move || files.read().map_err(|unfit| unfit.why));
        Ok(Some(TlsTerms { config, not_after, expires_first, renew }))
    }

    fn config(&self, pairs: &[Pair]) -> Result<ServerConfig, rustls::Error> {
        let versions: &[_] = match self.min_version {
            TlsVersion::V12 => &[&TLS12, &TLS13],
            TlsVersion::V13 => &[&TLS13],
        };
        let builder =
            ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_protocol_versions(versions)?;
        let mut by_name = ByName::new(pairs[0].certified.clone());
        for pair in pairs {
            by_name.add(&pair.names, &pair.certified);
        }
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(by_name));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Clients that come back are resumed from what they bring: nothing is kept for them.
        config.ticketer = ring::Ticketer::new()?;
        Ok(config)
    }
}

fn read_file(file: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(PEM_BYTES_MAX).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error: io::Error| format!("{file}: {error}"))
}

impl Pair {
    fn read(files: &CertificateFiles, bytes: &(Vec<u8>, Vec<u8>)) -> Result<Self, String> {
        let CertificateFiles { certificate: certificate_file, key: key_file } = files;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes.0)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{certificate_file}: {error}"))?;
        let Some(own) = chain.first() else { return Err(format!("{certificate_file} holds no certificate in PEM")) };
        let read = Certificate::from_der(own).map_err(|error| format!("{certificate_file}: {error}"))?;
        let not_after = read.tbs_certificate.validity.not_after.to_unix_duration().as_secs().cast_signed();
        let names = by_name::names(&read).map_err(|error| format!("{certificate_file}: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(&bytes.1)
            .map_err(|error| format!("{key_file} holds no key in PEM: {error}"))?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| format!("{certificate_file} and {key_file}: {error}"))?;
        Ok(Self { certified: Arc::new(certified), names, not_after })
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
            let terms = TlsTerms {
                config,
                not_after: now + seconds,
                expires_first: "b.pem".to_owned(),
                renew: Arc::new(|| Ok(None)),
            };
            let warning = warning(&terms);
            assert_eq!(warning.is_some(), expect.is_some(), "{warning:?}");
            assert!(warning.unwrap_or_default().contains(expect.unwrap_or_default()));
        };
        check(-5, Some("b.pem of `[tls]` has expired"));
        check(86_400 + 60, Some("b.pem of `[tls]` expires in 1 days"));
        check(8 * 86_400, None);
    }
}
