//! Arbitrary text as a configuration file, or as the environment: an error that says where, or a configuration; never a panic, and
//! never a secret in what may be printed.
#![no_main]

use fanfare_server::config::fuzzing::load;
use fanfare_server::config::{Config, ConfigError, ConfigFile, Environment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let Ok(text) = str::from_utf8(rest) else { return };
    if kind % 8 == 0 {
        // A name that does not exist is compared with all that do: a few short ones say what many would.
        let lines = text.lines().take(4).filter(|line| line.len() < 80);
        let variables = lines.map(|line| line.split_once('=').unwrap_or((line, "")));
        let environment: Environment = variables.map(|(name, value)| (format!("FANFARE_{name}"), value)).collect();
        return check(load(false, None, &environment));
    }
    let file = ConfigFile::new("fuzz.toml", text);
    check(load(kind % 8 == 1, Some(&file), &Environment::default()));
});

fn check(result: Result<Config, ConfigError>) {
    let config = match result {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.problems().is_empty(), "an error has a reason");
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    // What `fanfare check` and `fanfare serve` do with one that holds.
    _ = config.warnings();
    _ = config.ceiling().total();
    // A short one may stand in the text by chance.
    let secrets = || config.api_keys.iter().chain(&config.guest_secret).filter(|secret| secret.expose().len() >= 16);
    if secrets().next().is_some() {
        let printed = format!("{config:?}");
        assert!(!secrets().any(|secret| printed.contains(secret.expose())), "a secret is printed");
    }
    assert!(config.outbox.outbox_bytes_max >= config.messages.message_bytes_max, "one message always fits");
    assert!(config.limits.connections_max > 0 && config.outbox_total_bytes_max > 0);
}
