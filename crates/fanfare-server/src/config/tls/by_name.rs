//! Which certificate a client is shown: the one for the name that it asks for.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Certificates by the names that they are for.
#[derive(Debug)]
pub(super) struct ByName {
    /// For clients that ask for no name, or for none that is here.
    other: Arc<CertifiedKey>,
    /// Small letters; `*.example.org` stands for every name with one more label. Of several for a name (ECDSA and RSA) the first comes first.
    names: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl ByName {
    /// Shows `other` to whoever asks for something else.
    pub(super) fn new(other: Arc<CertifiedKey>) -> Self {
        Self { other, names: HashMap::new() }
    }

    /// Adds a certificate for its names, behind those that are there for them.
    pub(super) fn add(&mut self, names: &[String], pair: &Arc<CertifiedKey>) {
        for name in names {
            self.names.entry(name.clone()).or_default().push(pair.clone());
        }
    }

    /// The certificates for a name: its own before those for all names of its parent (RFC 6125 section 6.4.3).
    fn of(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.to_ascii_lowercase();
        let found = self.names.get(&name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.names.get(&format!("*.{parent}"))
        });
        found.map_or(&[], Vec::as_slice)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> &Arc<CertifiedKey> {
        let all = name.map_or(&[][..], |name| self.of(name));
        // One whose key the client can check.
        let fit = all.iter().find(|pair| pair.key.choose_scheme(schemes).is_some());
        fit.or_else(|| all.first()).unwrap_or(&self.other)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name(), hello.signature_schemes()).clone())
    }
}

/// The names of hosts in a certificate, small letters. Only its alternative names count, as for browsers.
pub(super) fn names(certificate: &Certificate) -> Result<Vec<String>, String> {
    let found = certificate.tbs_certificate.get::<SubjectAltName>().map_err(|error| error.to_string())?;
    let names = found.into_iter().flat_map(|(_, SubjectAltName(names))| names);
    let hosts = names.filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.to_string().to_ascii_lowercase()),
        _ => None,
    });
    Ok(hosts.collect())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use rustls::crypto::ring;
    use rustls::pki_types::PrivateKeyDer;
    use x509_cert::der::Decode as _;

    use super::*;

    fn pair(hosts: &[&str], is_ed25519: bool) -> (Vec<String>, Arc<CertifiedKey>) {
        let kind = if is_ed25519 { &PKCS_ED25519 } else { &PKCS_ECDSA_P256_SHA256 };
        let key = KeyPair::generate_for(kind).unwrap();
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let certificate = CertificateParams::new(hosts).unwrap().self_signed(&key).unwrap();
        let names = names(&Certificate::from_der(certificate.der()).unwrap()).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = ring::default_provider();
        (names, Arc::new(CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider).unwrap()))
    }

    #[test]
    fn the_name_that_is_asked_for_decides() {
        let [other, chat, wild, inner] = [
            pair(&["gateway.example"], false),
            pair(&["Chat.example", "127.0.0.1"], false),
            pair(&["*.shop.example"], false),
            pair(&["pay.shop.example"], false),
        ];
        assert_eq!(chat.0, ["chat.example"], "addresses are not asked for by name");
        let mut by_name = ByName::new(other.1.clone());
        for (names, pair) in [&other, &chat, &wild, &inner] {
            by_name.add(names, pair);
        }
        let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
        for (name, expected) in [
            (None, &other),
            (Some("gateway.example"), &other),
            (Some("chat.example"), &chat),
            (Some("CHAT.example"), &chat),
            (Some("a.shop.example"), &wild),
            (Some("pay.shop.example"), &inner),
            // A star is one label, and not none.
            (Some("a.b.shop.example"), &other),
            (Some("shop.example"), &other),
            (Some("*.shop.example"), &wild),
            (Some("example"), &other),
            (Some(""), &other),
        ] {
            assert!(Arc::ptr_eq(by_name.choose(name, &schemes), &expected.1), "{name:?}");
        }
    }

    #[test]
    fn of_several_for_a_name_the_client_gets_one_that_it_can_check() {
        let [one, two] = [pair(&["a.example"], true), pair(&["a.example"], false)];
        let mut by_name = ByName::new(one.1.clone());
        for (names, pair) in [&one, &two] {
            by_name.add(names, pair);
        }
        for (schemes, expected) in [
            (&[SignatureScheme::ECDSA_NISTP256_SHA256][..], &two),
            (&[SignatureScheme::ED25519], &one),
            (&[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519], &one),
            (&[SignatureScheme::RSA_PSS_SHA256], &one),
        ] {
            assert!(Arc::ptr_eq(by_name.choose(Some("a.example"), schemes), &expected.1), "{schemes:?}");
        }
    }
}
