//! Every configuration key, declared once: its place, type, default and documentation.
//!
//! The printed default file, the list of environment names and the reference page are generated from these
//! declarations, and the loader knows no other keys. A file of `raw/` holds the tables of one subject. Values here are
//! only well-typed; what they mean together is decided in `typed.rs`.

mod auth;
mod certificates;
mod connection;
mod door;
mod engine;
mod limits;
mod node;
mod pusher;
mod rooms;
mod section;
mod traces;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub(crate) use auth::{Api, Auth, Who};
pub(crate) use certificates::CertificateFiles;
pub(crate) use connection::{Compress, Compression, Heartbeat};
pub(crate) use door::{ForwardedBy, Proxy, ProxyHeader, Tls, TlsVersion};
pub(crate) use engine::{Engine, EngineKind};
pub(crate) use limits::{Limits, Mode};
pub(crate) use node::{Diagnostics, Drain, Node, Readiness};
pub use node::{LogFormat, SendChoice};
pub(crate) use pusher::{Pusher, PusherAppKeys};
pub(crate) use rooms::{Filter, Moderation, Namespace, Rooms, Slow};
pub(crate) use section::{Key, Section};
pub(crate) use traces::Traces;

/// Name of the table of namespaces.
pub(crate) const NAMESPACES: &str = "namespaces";
/// Name of the namespace that the others fall back to.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// A whole configuration, well-typed, every value with its origin.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) node: Node,
    pub(crate) limits: Limits,
    pub(crate) proxy: Proxy,
    pub(crate) tls: Tls,
    pub(crate) compression: Compression,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) auth: Auth,
    pub(crate) api: Api,
    pub(crate) rooms: Rooms,
    /// By name; `default` is always there.
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    pub(crate) pusher: Pusher,
    pub(crate) moderation: Moderation,
    pub(crate) diagnostics: Diagnostics,
    pub(crate) engine: Engine,
    pub(crate) readiness: Readiness,
    pub(crate) drain: Drain,
    pub(crate) traces: Traces,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            node: Node::default(),
            limits: Limits::default(),
            proxy: Proxy::default(),
            tls: Tls::default(),
            compression: Compression::default(),
            heartbeat: Heartbeat::default(),
            auth: Auth::default(),
            api: Api::default(),
            rooms: Rooms::default(),
            namespaces: BTreeMap::from([(DEFAULT_NAMESPACE.to_owned(), Namespace::default())]),
            pusher: Pusher::default(),
            moderation: Moderation::default(),
            diagnostics: Diagnostics::default(),
            engine: Engine::default(),
            readiness: Readiness::default(),
            drain: Drain::default(),
            traces: Traces::default(),
        }
    }
}

impl Raw {
    /// The one that nobody has configured anything in.
    pub(crate) fn preset() -> &'static Self {
        static PRESET: LazyLock<Raw> = LazyLock::new(Raw::default);
        &PRESET
    }

    /// The section `[name]` to write into; the keys outside any table are the section with the empty name.
    pub(crate) fn section_mut(&mut self, name: &str) -> Option<&mut dyn Section> {
        Some(match name {
            "" => &mut self.node,
            "limits" => &mut self.limits,
            "proxy" => &mut self.proxy,
            "tls" => &mut self.tls,
            "compression" => &mut self.compression,
            "heartbeat" => &mut self.heartbeat,
            "auth" => &mut self.auth,
            "api" => &mut self.api,
            "rooms" => &mut self.rooms,
            "pusher" => &mut self.pusher,
            "moderation" => &mut self.moderation,
            "diagnostics" => &mut self.diagnostics,
            "engine" => &mut self.engine,
            "readiness" => &mut self.readiness,
            "drain" => &mut self.drain,
            "traces" => &mut self.traces,
            _ => return None,
        })
    }

    /// Every section under its full name, in the order they are documented.
    pub(crate) fn sections(&self) -> Vec<(String, &dyn Section)> {
        let mut sections: Vec<(String, &dyn Section)> = vec![
            (String::new(), &self.node),
            ("limits".to_owned(), &self.limits),
            ("proxy".to_owned(), &self.proxy),
            ("tls".to_owned(), &self.tls),
            ("compression".to_owned(), &self.compression),
            ("heartbeat".to_owned(), &self.heartbeat),
            ("auth".to_owned(), &self.auth),
            ("api".to_owned(), &self.api),
            ("rooms".to_owned(), &self.rooms),
        ];
        for (name, namespace) in &self.namespaces {
            sections.push((namespace_path(name), namespace));
        }
        sections.push(("pusher".to_owned(), &self.pusher));
        sections.push(("moderation".to_owned(), &self.moderation));
        sections.push(("diagnostics".to_owned(), &self.diagnostics));
        sections.push(("engine".to_owned(), &self.engine));
        sections.push(("readiness".to_owned(), &self.readiness));
        sections.push(("drain".to_owned(), &self.drain));
        sections.push(("traces".to_owned(), &self.traces));
        sections
    }
}

/// Full name of a namespace's table, quoted where TOML asks for it.
pub(crate) fn namespace_path(name: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { format!("{NAMESPACES}.{name}") } else { format!("{NAMESPACES}.{name:?}") }
}

/// Full name of a key.
pub(crate) fn key_path(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_section_can_be_written() {
        let mut raw = Raw::default();
        let names: Vec<String> = raw.sections().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 17);
        for name in names {
            let is_namespace = name.starts_with(NAMESPACES);
            assert_eq!(raw.section_mut(&name).is_none(), is_namespace, "{name}");
        }
    }

    #[test]
    fn every_key_is_documented_in_full_sentences() {
        for (section, keys) in Raw::default().sections() {
            for key in keys.keys() {
                assert!(key.doc.trim_end().ends_with(['.', '?']), "{section}.{}: {}", key.name, key.doc);
            }
            assert!(keys.about().trim_end().ends_with('.'), "{section}");
        }
    }
}
