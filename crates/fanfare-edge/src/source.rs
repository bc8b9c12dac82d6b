//! From where a client comes, when proxies may stand between it and us.

use std::net::IpAddr;

use hyper::header::HeaderMap;

use crate::counters::Via;
use crate::forwarded::ForwardedFor;
use crate::gate::{Permit, Refused};
use crate::hub::Hub;
use crate::proxied::Named;
use crate::settings::ProxySettings;

/// What is known of where a socket comes from before its requests are read. `None` is the far end of a Unix socket, or one that a proxy did not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A client at this address: nobody else is believed about it.
    Client(Option<IpAddr>),
    /// A trusted proxy: its requests say for whom they are.
    Proxy(Option<IpAddr>),
    /// A trusted proxy that speaks for itself.
    Itself(Option<IpAddr>),
}

impl Source {
    /// Of a socket that was accepted.
    pub(crate) fn of(peer: Option<IpAddr>, proxy: &ProxySettings) -> Self {
        let peer = peer.map(|address| address.to_canonical());
        if proxy.trusted.has(peer) { Self::Proxy(peer) } else { Self::Client(peer) }
    }

    /// After a proxy's header. The one whom it names may be a trusted proxy too.
    pub(crate) fn named(self, names: Named, proxy: &ProxySettings) -> Self {
        match names {
            Named::Client(address) => Self::of(Some(address), proxy),
            Named::Unknown => Self::Proxy(None),
            Named::Itself => match self {
                Self::Client(peer) | Self::Proxy(peer) | Self::Itself(peer) => Self::Itself(peer),
            },
        }
    }

    /// The address that takes a place at once: that of a client, never that of a proxy.
    pub(crate) fn countable(self) -> Option<IpAddr> {
        match self {
            Self::Client(address) => address,
            Self::Proxy(_) | Self::Itself(_) => None,
        }
    }

    pub(crate) fn is_proxy(self) -> bool {
        matches!(self, Self::Proxy(_))
    }

    /// Gives a connection that begins its place by address: where a proxy brought it, its address is known from the request only. Sockets of
    /// proxies that carry other requests have none: they are for many clients, one after the other.
    pub(crate) fn seat(self, permit: &mut Permit, headers: &HeaderMap, hub: &Hub) -> Result<(), Refused> {
        let settings = hub.settings();
        let proxy = &settings.proxy;
        match self {
            // It has its place, or needs none.
            Self::Client(_) => Ok(()),
            Self::Itself(address) => {
                permit.tell(address);
                Ok(())
            }
            Self::Proxy(_) => match proxy.header.read(headers, &proxy.trusted) {
                ForwardedFor::Client(address) => permit.count(address, hub.now()),
                ForwardedFor::Trusted(address) => {
                    permit.tell(Some(address));
                    Ok(())
                }
                ForwardedFor::Nothing => {
                    permit.count_unnamed()?;
                    hub.counters().via(Via::Unknown);
                    Ok(())
                }
            },
        }
    }
}
