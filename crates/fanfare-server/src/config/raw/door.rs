//! The way in: proxies before this node, and TLS.

use crate::config::value::choice;

use super::certificates::CertificateFiles;
use super::section::section;

choice! {
    /// The header in which proxies name clients.
    pub(crate) ForwardedBy {
        /// `X-Forwarded-For`.
        XForwardedFor = "x-forwarded-for",
        /// `Forwarded`, RFC 7239.
        Forwarded = "forwarded",
    }
}

choice! {
    /// Whether connections begin with a header of the PROXY protocol.
    pub(crate) ProxyHeader {
        /// They do not.
        Off = "off",
        /// Those of trusted proxies may.
        Optional = "optional",
        /// All do, and only trusted proxies may connect.
        Required = "required",
    }
}

section! {
    /// Proxies and load balancers before this node: who is believed about where clients come from. The client's address is that
    /// of `limits.connections_per_ip_max` and of the log.
    Proxy {
        /// Proxies that are believed: networks (`10.0.0.0/8`), addresses, and `unix` for whoever comes over a Unix socket. List proxies
        /// only: whoever is listed can invent client addresses. What others say of their clients is ignored.
        trusted: Vec<String> = Vec::new(),
        /// The header of requests in which they name the client: `x-forwarded-for`, or `forwarded` (RFC 7239). Only this one is read; the
        /// last address in it that is not trusted is the client.
        header: ForwardedBy = ForwardedBy::XForwardedFor,
        /// Whether trusted proxies begin connections with a header of the PROXY protocol, version 1 or 2, on the client listener: `off`,
        /// `optional`, or `required`, which also refuses everybody who is not trusted.
        protocol: ProxyHeader = ProxyHeader::Off,
    }
}

choice! {
    /// The least version of TLS.
    pub(crate) TlsVersion {
        /// TLS 1.2.
        V12 = "1.2",
        /// TLS 1.3.
        V13 = "1.3",
    }
}

section! {
    /// TLS on the client listener, where no proxy ends it before. The files are looked at once a minute and with every reload: other pairs
    /// are shown to those who come from then on, and nobody is dropped; while one of them cannot be used, nothing changes and it is logged.
    Tls {
        /// File with the certificate and those between it and its authority, PEM. Empty, with `key`: the listener speaks plain HTTP.
        certificate: String = String::new(),
        /// File with the certificate's key, PEM.
        key: String = String::new(),
        /// Further certificates for other names, each a table `[[tls.certificates]]` with `certificate` and `key`. A client is shown the one
        /// whose DNS names (subjectAltName, also `*.example.org`) hold the name that it asks for (SNI), and the one above when none does.
        certificates: Vec<CertificateFiles> = Vec::new(),
        /// The least version that is spoken: `1.2` or `1.3`.
        min_version: TlsVersion = TlsVersion::V12,
    }
}
