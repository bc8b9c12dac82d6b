//! What stands before the node: proxies.

use fanfare_edge::{ForwardedHeader, ProxyProtocol, ProxySettings, Trusted};

use super::Problem;
use super::raw::{ForwardedBy, Proxy, ProxyHeader};

/// Who is believed about clients.
pub(super) fn proxy(raw: &Proxy, problems: &mut Vec<Problem>) -> ProxySettings {
    let mut problem = |origin, text| problems.push(Problem { origin: Some(origin), text });
    let trusted = Trusted::parse(&raw.trusted.value).unwrap_or_else(|reason| {
        problem(raw.trusted.origin.clone(), format!("`proxy.trusted`: {reason}"));
        Trusted::default()
    });
    if raw.protocol.value != ProxyHeader::Off && raw.trusted.value.is_empty() {
        let protocol = raw.protocol.value.as_str();
        let text =
            format!("`proxy.protocol` is \"{protocol}\", but `proxy.trusted` is empty: nobody may send its header");
        problem(raw.protocol.origin.clone(), text);
    }
    ProxySettings {
        trusted,
        header: match raw.header.value {
            ForwardedBy::XForwardedFor => ForwardedHeader::XForwardedFor,
            ForwardedBy::Forwarded => ForwardedHeader::Forwarded,
        },
        protocol: match raw.protocol.value {
            ProxyHeader::Off => ProxyProtocol::Off,
            ProxyHeader::Optional => ProxyProtocol::Optional,
            ProxyHeader::Required => ProxyProtocol::Required,
        },
    }
}
