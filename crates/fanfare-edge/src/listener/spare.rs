//! Second descriptors of listeners, for the process that takes them over.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Second descriptors of listeners, for another process. While they are there the sockets listen on, whoever accepts from them.
#[derive(Debug)]
pub struct Spare {
    pub(super) sockets: Vec<OwnedFd>,
    pub(super) files: Vec<Arc<AtomicBool>>,
}

impl Spare {
    /// The descriptors.
    #[must_use]
    pub fn sockets(&self) -> &[OwnedFd] {
        &self.sockets
    }

    /// Leaves the files of Unix sockets where they are: they are the other process's from here on.
    pub fn give_away(&self) {
        for file in &self.files {
            file.store(true, Ordering::Relaxed);
        }
    }
}

/// A socket file that is removed when the listener goes, unless it has been given to another process.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    pub(super) is_given_away: Arc<AtomicBool>,
}

impl SocketFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, is_given_away: Arc::default() }
    }

    pub(super) fn give_away(&self) {
        self.is_given_away.store(true, Ordering::Relaxed);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_given_away.load(Ordering::Relaxed) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
