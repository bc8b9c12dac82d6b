//! The way in: files of Unix sockets, and proxies.

use std::path::PathBuf;

use fanfare_edge::{Address, FileMode, ForwardedHeader, ProxyProtocol, ProxySettings, Trusted};

use super::Problem;
use super::raw::{ForwardedBy, Proxy, ProxyHeader};
use super::value::Setting;

/// Permissions of a Unix socket's file.
pub(super) fn file_mode(
    key: &str,
    mode: &Setting<String>,
    address: &Setting<String>,
    problems: &mut Vec<Problem>,
) -> Option<FileMode> {
    if mode.value.is_empty() {
        return None;
    }
    let mut problem = |text| problems.push(Problem { origin: Some(mode.origin.clone()), text });
    if !address.value.starts_with("unix:") {
        problem(format!("`{key}` is for Unix sockets, but the address is {}", address.value));
    }
    let read = u32::from_str_radix(&mode.value, 8).ok().filter(|&mode| mode <= 0o777);
    if read.is_none() {
        problem(format!("`{key}` = {:?} is no mode such as \"0660\"", mode.value));
    }
    read.map(FileMode)
}

/// Where listeners are handed over.
pub(super) fn handover(setting: &Setting<String>, problems: &mut Vec<Problem>) -> Option<PathBuf> {
    if setting.value.is_empty() {
        return None;
    }
    match format!("unix:{}", setting.value).parse() {
        Ok(Address::Unix(path)) => Some(path),
        Ok(Address::Tcp(_)) => None,
        Err(reason) => {
            problems.push(Problem { origin: Some(setting.origin.clone()), text: format!("`handover`: {reason}") });
            None
        }
    }
}

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
