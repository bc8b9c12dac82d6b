//! `fanfare version`: what exactly is running here, a fact a line.

use fanfare_edge::SendPath;

use crate::cli;

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit it was built from, or `unknown`.
pub const COMMIT: &str = env!("BUILD_COMMIT");

/// Prints the facts.
///
/// # Errors
/// An output error.
pub fn run() -> anyhow::Result<()> {
    Ok(cli::print(&facts())?)
}

fn facts() -> String {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    // What this kernel allows now; a configuration may ask for the other one.
    let send_path = SendPath::detect().0.as_str();
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    format!(
        "fanfare {VERSION}\n\
         commit: {COMMIT}\n\
         build: {profile}, {os} {arch}\n\
         features: none\n\
         allocator: mimalloc\n\
         send path: {send_path}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_has_a_line() {
        let facts = facts();
        assert!(facts.starts_with(&format!("fanfare {VERSION}\ncommit: ")), "{facts}");
        for fact in ["\nfeatures: ", "\nallocator: mimalloc\n", "\nsend path: "] {
            assert!(facts.contains(fact), "{fact:?}: {facts}");
        }
        let is_commit = COMMIT == "unknown" || COMMIT.bytes().all(|byte| byte.is_ascii_alphanumeric());
        assert!(is_commit && !COMMIT.is_empty(), "{COMMIT}");
    }
}
