//! Listeners that were opened before this process began.

use std::os::fd::OwnedFd;

use anyhow::Context as _;
use listenfd::ListenFd;

/// Listeners that somebody else has opened for this node.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For clients. Empty: `listen` says where.
    pub clients: Vec<OwnedFd>,
    /// For health, metrics and the API. Nothing: `admin` says where.
    pub admin: Option<OwnedFd>,
}

impl Inherited {
    /// Sockets that systemd has opened (`LISTEN_FDS`). Those that are named `admin`, or come from a unit `…-admin.socket`, are for the admin
    /// listener; all others for clients. To be called before there are threads: it takes the variables out of the environment.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_environment() -> anyhow::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..sockets.len() {
            let name = names.split(':').nth(index).unwrap_or_default();
            let socket =
                take(&mut sockets, index).with_context(|| format!("socket {index} ({name:?}) of LISTEN_FDS"))?;
            if name == "admin" || name.ends_with("-admin.socket") {
                anyhow::ensure!(
                    inherited.admin.is_none(),
                    "more than one of the sockets of LISTEN_FDS is for the admin listener"
                );
                inherited.admin = Some(socket);
            } else {
                inherited.clients.push(socket);
            }
        }
        Ok(inherited)
    }
}

fn take(sockets: &mut ListenFd, index: usize) -> anyhow::Result<OwnedFd> {
    if let Ok(Some(listener)) = sockets.take_tcp_listener(index) {
        return Ok(listener.into());
    }
    let listener = sockets.take_unix_listener(index)?;
    Ok(listener.context("there is none")?.into())
}
