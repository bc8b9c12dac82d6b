//! The listeners of a node: bound, passed by a service manager, or taken over from the process before.

use std::io;
use std::os::fd::OwnedFd;

use anyhow::Context as _;
use fanfare_edge::{Address, Bound, Listeners};

use crate::config::Config;

pub(super) fn client_listeners(config: &Config, inherited: Vec<OwnedFd>) -> anyhow::Result<Listeners> {
    if inherited.is_empty() {
        return Listeners::bind(&config.listen, config.listen_mode, config.shards.get())
            .with_context(|| {
                format!("cannot listen on {} for clients; choose another address with --listen", config.listen)
            })
            .map_err(|error| hint(error, &config.listen));
    }
    let listeners =
        Listeners::inherited(inherited, config.shards.get()).context("the listeners that were passed do not fit")?;
    if config.tls.is_some() && matches!(listeners.address(), Address::Unix(_)) {
        anyhow::bail!("`[tls]` needs TCP, but the listener that was passed is {}", listeners.address());
    }
    Ok(listeners)
}

pub(super) fn admin_listener(config: &Config, inherited: Option<OwnedFd>) -> anyhow::Result<Bound> {
    match inherited {
        Some(socket) => Bound::inherited(socket).context("the admin listener that was passed does not fit"),
        None => Bound::bind(&config.admin, config.admin_mode)
            .with_context(|| {
                format!("cannot listen on {} for the API; choose another address with --admin", config.admin)
            })
            .map_err(|error| hint(error, &config.admin)),
    }
}

/// Whether a listener that a predecessor hands over is the one that is configured; port 0 stands for any.
pub(super) fn fits(key: &str, asked: &Address, given: &Address) -> anyhow::Result<()> {
    let is_any = matches!(asked, Address::Tcp(asked) if asked.port() == 0);
    anyhow::ensure!(
        is_any || asked == given,
        "`{key}` is {asked}, but the process before this one listens on {given}: stop that one to change the address"
    );
    Ok(())
}

/// What the system's refusal of an address mostly means, and what helps.
fn hint(error: anyhow::Error, address: &Address) -> anyhow::Error {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let hint = match (kind, address) {
        (Some(io::ErrorKind::AddrInUse), Address::Tcp(address)) => {
            format!("who has it: ss -ltnp 'sport = :{}'", address.port())
        }
        (Some(io::ErrorKind::PermissionDenied), Address::Tcp(_)) => {
            "ports below 1024 are not for everybody: let systemd open it (deploy/systemd/fanfare.socket), or give CAP_NET_BIND_SERVICE".to_owned()
        }
        (Some(io::ErrorKind::PermissionDenied), Address::Unix(_)) => {
            "this user may not make files in that folder: systemd's RuntimeDirectory= makes one that is the service's own".to_owned()
        }
        (Some(io::ErrorKind::AddrNotAvailable), Address::Tcp(_)) => {
            "no interface of this machine has that address: see ip address".to_owned()
        }
        _ => return error,
    };
    anyhow::anyhow!("{error:#} ({hint})")
}
