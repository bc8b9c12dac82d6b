//! `fanfare check`: whether `fanfare serve` would take this configuration, and how much memory its limits allow.

use crate::cli::{self, CheckArgs};
use crate::config::{Config, ConfigFile, Environment, Flags, bytes};

/// Validates a file as `fanfare serve` would, with the environment of this process over it, and prints what the limits
/// add up to.
///
/// # Errors
/// [`crate::config::ConfigError`] with everything that is wrong, or an output error.
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let file = ConfigFile::find(args.file.as_deref())?;
    let config = Config::serve(&Flags::default(), file.as_ref(), &Environment::of_process()?)?;
    Ok(cli::print(&report(&config, file.as_ref().map(ConfigFile::name)))?)
}

fn report(config: &Config, file: Option<&str>) -> String {
    let mut lines = vec![format!("OK: {}", file.unwrap_or("no file, so the defaults and the environment"))];
    lines.extend(config.warnings().into_iter().map(|warning| format!("note: {warning}")));
    let ceiling = config.ceiling();
    let memory = u128::from(config.memory_bytes);
    lines.push("\nMemory when every limit is reached at once, without the kernel's socket buffers:".to_owned());
    lines.push(ceiling.to_string());
    lines.push(format!("  of {} there are.", bytes(memory)));
    if ceiling.total() > memory {
        let largest = ceiling.terms.iter().max_by_key(|term| term.bytes).map_or("", |term| term.name);
        lines.push(format!(
            "note: clients that use all they may could exhaust the memory; the largest term is {largest}"
        ));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report_of(environment: &[(&str, &str)]) -> String {
        let config = Config::serve(&Flags::default(), None, &environment.iter().copied().collect()).unwrap();
        report(&config, Some("fanfare.toml"))
    }

    #[test]
    fn the_report_has_the_sum_and_every_term() {
        let text = report_of(&[("FANFARE_LIMITS__CONNECTIONS_MAX", "10"), ("FANFARE_LIMITS__ROOMS_MAX", "10")]);
        assert!(text.starts_with("OK: fanfare.toml\nnote: api.keys is empty"), "{text}");
        for name in ["connections", "subscriptions", "partial messages", "outboxes", "rooms", "shard intake", "total"] {
            assert!(text.lines().any(|line| line.trim_start().starts_with(name)), "{name}: {text}");
        }
        assert!(!text.contains("exhaust"), "{text}");
    }

    #[test]
    fn limits_over_the_memory_name_the_largest_term() {
        let text = report_of(&[
            ("FANFARE_LIMITS__CONNECTIONS_MAX", "10000000"),
            ("FANFARE_LIMITS__SUBSCRIPTIONS_PER_CONNECTION_MAX", "1000000"),
        ]);
        assert!(text.contains("could exhaust the memory; the largest term is subscriptions"), "{text}");
    }
}
