//! From a configuration that is read again to the settings of a running node.

use fanfare_edge::{ConfigReader, Hub, Reread, SendPath};
use parking_lot::Mutex;

use crate::config::{Config, ConfigError};
use crate::node::settings;

/// Reads the configuration as it was read at the start: flags over environment over file.
pub type ConfigSource = Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// Lets `hub`, which runs `started`, read its configuration again from `source`.
pub(crate) fn attach(hub: &Hub, started: Config, send_path: SendPath, source: ConfigSource) {
    let digest = started.digest();
    let running = Mutex::new(started.clone());
    let reader: ConfigReader = Box::new(move || {
        let config = source().map_err(|error| error.problems().iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let changed = config.changes_from(&running.lock()).reloadable;
        // What waits for a restart waits until there is one, however often is reloaded meanwhile.
        let restart = config.changes_from(&started).restart;
        let (settings, digest) = (settings(&config, send_path), config.digest());
        *running.lock() = config;
        Ok(Reread { settings, digest, changed, restart })
    });
    hub.reloads().set_reader(digest, reader);
}
