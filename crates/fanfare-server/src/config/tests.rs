//! The sources against each other, and what is said about each kind of mistake.

mod dev;
mod meaning;
mod mistakes;
mod namespaces;
mod printed;
mod sources;

use super::*;

fn serve(flags: &Flags, file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = ConfigFile::new("fanfare.toml", file);
    Config::serve(flags, Some(&file), &environment.iter().copied().collect())
}

fn file(text: &str) -> Result<Config, ConfigError> {
    serve(&Flags::default(), text, &[])
}

/// The problems of a file, a line each.
fn complaints(text: &str) -> Vec<String> {
    file(text).expect_err("the file is wrong").problems().iter().map(ToString::to_string).collect()
}

fn check_complaint(text: &str, expect: &str) {
    assert_eq!(complaints(text), [expect], "{text}");
}
