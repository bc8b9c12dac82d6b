//! Hands the commit that is being built to `fanfare version`, and its date to the manual pages.

use std::path::Path;
use std::process::Command;

/// Not named `FANFARE_…`: cargo passes it on to what it runs, where every such variable has to be a key.
const VARIABLE: &str = "BUILD_COMMIT";
/// The same for its date.
const DATE: &str = "BUILD_DATE";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    // A packager whose sources come without a repository says what they are.
    let given = std::env::var(VARIABLE).ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(commit).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env={VARIABLE}={commit}");
    println!("cargo::rerun-if-env-changed={DATE}");
    let given = std::env::var(DATE).ok().filter(|date| !date.is_empty());
    let of_commit = || git(&["show", "--no-patch", "--format=%cs", "HEAD"]).filter(|_| commit != "unknown");
    println!("cargo::rustc-env={DATE}={}", given.or_else(of_commit).unwrap_or_default());
}

/// The commit checked out, when these sources are a git repository and git is there to be asked.
fn commit() -> Option<String> {
    // Sources unpacked inside somebody else's repository are not that repository's commit.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().ok()?;
    if Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()? != workspace {
        return None;
    }
    // HEAD changes on checkout, its log on every commit too. A path that is not there would mean a run each time.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--path-format=absolute", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
