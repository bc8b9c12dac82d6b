//! A configuration that is read again: which one runs, and taking over another.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tracing::{info, warn};

use crate::hub::Hub;
use crate::settings::Settings;

/// Reads the configuration again, or says everything that is wrong with it. May block: it is called on a thread of its own.
pub type ConfigReader = Box<dyn Fn() -> Result<Reread, Vec<String>> + Send + Sync>;

/// A configuration that was read again.
#[derive(Debug)]
pub struct Reread {
    /// What it comes to.
    pub settings: Settings,
    /// Tells it from others; secrets have no part in it.
    pub digest: String,
    /// Keys whose other value holds once it is taken over.
    pub changed: Vec<String>,
    /// Keys whose other value holds after a restart only.
    pub restart: Vec<String>,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The configuration that runs.
    pub version: u64,
    /// Keys that hold from here on.
    pub changed: Vec<String>,
    /// Keys that wait for a restart.
    pub restart: Vec<String>,
}

/// Which configuration runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigVersion {
    /// 1 at the start, one more with each reload that changed something.
    pub version: u64,
    /// Tells configurations apart, also those of several nodes.
    pub digest: String,
    /// Since when it runs.
    pub at: SystemTime,
    /// What was wrong with the one that was last refused, until another is taken.
    pub refused: Vec<String>,
}

/// Reading again, and what came of it.
pub struct Reloads {
    reader: OnceLock<ConfigReader>,
    version: Mutex<ConfigVersion>,
    /// One at a time.
    turn: Mutex<()>,
    /// Taken over, and refused.
    counts: [AtomicU64; 2],
}

impl Default for Reloads {
    fn default() -> Self {
        let version = ConfigVersion { version: 1, digest: String::new(), at: SystemTime::now(), refused: Vec::new() };
        Self {
            reader: OnceLock::new(),
            version: Mutex::new(version),
            turn: Mutex::new(()),
            counts: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }
}

impl fmt::Debug for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloads").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Reloads {
    /// Says which configuration runs, and how it is read again. Once.
    pub fn set_reader(&self, digest: String, reader: ConfigReader) {
        self.version.lock().digest = digest;
        // The first one stays.
        let _ = self.reader.set(reader);
    }

    /// Which configuration runs.
    #[must_use]
    pub fn version(&self) -> ConfigVersion {
        self.version.lock().clone()
    }

    /// Reloads that were taken over, and those that were refused.
    #[must_use]
    pub fn counts(&self) -> [u64; 2] {
        [self.counts[0].load(Ordering::Relaxed), self.counts[1].load(Ordering::Relaxed)]
    }

    fn read(&self) -> Result<Reread, Vec<String>> {
        match self.reader.get() {
            Some(read) => read(),
            None => Err(vec!["this node was started without a configuration that can be read again".to_owned()]),
        }
    }

    fn refuse(&self, problems: Vec<String>) -> Vec<String> {
        for problem in &problems {
            warn!("the configuration is not reloaded: {problem}");
        }
        self.counts[1].fetch_add(1, Ordering::Relaxed);
        self.version.lock().refused.clone_from(&problems);
        problems
    }

    fn accept(&self, digest: String, has_changed: bool) -> u64 {
        self.counts[0].fetch_add(1, Ordering::Relaxed);
        let mut version = self.version.lock();
        version.refused = Vec::new();
        if has_changed {
            version.version += 1;
            version.digest = digest;
            version.at = SystemTime::now();
        }
        version.version
    }
}

impl Hub {
    /// Reads the configuration again and takes over what may change at run time, all of it at once. Blocks for as long as reading takes.
    ///
    /// # Errors
    /// Everything that is wrong with it. Nothing has changed then.
    pub fn reload(&self) -> Result<Reloaded, Vec<String>> {
        let reloads = self.reloads();
        let _turn = reloads.turn.lock();
        let Reread { settings, digest, mut changed, restart } =
            reloads.read().map_err(|wrong| reloads.refuse(wrong))?;
        if !changed.is_empty() {
            self.replace_settings(&settings);
        } else if self.reload_certificates().map_err(|wrong| reloads.refuse(vec![wrong]))? {
            changed.push("tls (another certificate)".to_owned());
        }
        let version = reloads.accept(digest, !changed.is_empty());
        info!(version, changed = changed.join(", "), restart = restart.join(", "), "configuration reloaded");
        Ok(Reloaded { version, changed, restart })
    }
}
