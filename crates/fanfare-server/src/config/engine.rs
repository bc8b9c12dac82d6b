//! What the keys of `[engine]` mean: a log that several nodes share, or none.

use std::path::Path;
use std::time::Duration;

use fanfare_backplane::{LogAddress, LogSettings, NatsAddress, RedisAddress};
use fanfare_client::Trust;

use super::raw::{DEFAULT_NAMESPACE, EngineKind, Raw, key_path, namespace_path};
use super::typed::later;
use super::{Config, Problem};

/// Longest prefix, bytes.
const PREFIX_BYTES_MAX: usize = 100;

/// What NATS knows of copies.
const REPLICAS_MAX: u64 = 5;

/// A log that several nodes share; `None`: this node makes the order of its rooms itself.
pub(super) fn log(raw: &Raw, problems: &mut Vec<Problem>) -> Option<LogSettings> {
    let engine = &raw.engine;
    let mut complain = |origin, text| problems.push(Problem { origin: Some(origin), text });
    let url = engine.url.value.expose();
    let (kind, example) = match engine.kind.value {
        EngineKind::Memory => {
            if !url.is_empty() {
                let text = "`engine.url` is given, but `engine.kind` is \"memory\": choose \"redis\" or \"nats\", or leave the url out";
                complain(later(&engine.url, &engine.kind), text.to_owned());
            }
            if !engine.ca_file.value.is_empty() {
                let text = "`engine.ca_file` vouches for nobody: `engine.kind` is \"memory\"";
                complain(later(&engine.ca_file, &engine.kind), text.to_owned());
            }
            return None;
        }
        EngineKind::Redis => ("redis", "redis://10.0.0.5:6379"),
        EngineKind::Nats => ("nats", "nats://10.0.0.5:4222"),
    };
    let prefix = &engine.prefix.value;
    if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.bytes().all(is_plain) {
        let text = format!(
            "`engine.prefix` must be 1 to {PREFIX_BYTES_MAX} letters, digits and any of `-`, `_`, `.`, `:`; it is {prefix:?}"
        );
        complain(engine.prefix.origin.clone(), text);
    }
    if engine.kind.value == EngineKind::Nats && prefix.contains('.') {
        let text = format!("`engine.prefix` must be without `.` where `engine.kind` is \"nats\"; it is {prefix:?}");
        complain(later(&engine.prefix, &engine.kind), text);
    }
    for (name, setting, low, high) in [
        ("engine.timeout_ms", &engine.timeout_ms, 100, 60_000),
        // A log that is shorter than a batch may lose entries before their own node has read them.
        ("engine.log_entries_max", &engine.log_entries_max, 2_000, 100_000_000),
    ] {
        if !(low..=high).contains(&setting.value) {
            let text = format!("`{name}` = {} is not between {low} and {high}", setting.value);
            complain(setting.origin.clone(), text);
        }
    }
    if !(1..=REPLICAS_MAX).contains(&engine.replicas.value) {
        let text = format!("`engine.replicas` = {} is not between 1 and {REPLICAS_MAX}", engine.replicas.value);
        complain(engine.replicas.origin.clone(), text);
    } else if engine.replicas.value > 1 && engine.kind.value != EngineKind::Nats {
        let text = "`engine.replicas` is for NATS: replicas of a Redis are set up there, not here".to_owned();
        complain(later(&engine.replicas, &engine.kind), text);
    }
    if url.is_empty() {
        let text = format!("`engine.kind = \"{kind}\"` needs `engine.url`, such as {example}");
        complain(engine.kind.origin.clone(), text);
        return None;
    }
    let address = match engine.kind.value {
        EngineKind::Nats => NatsAddress::parse(url).map(LogAddress::Nats),
        EngineKind::Redis | EngineKind::Memory => RedisAddress::parse(url).map(LogAddress::Redis),
    };
    let address =
        address.map_err(|reason| complain(engine.url.origin.clone(), format!("`engine.url`: {reason}"))).ok()?;
    let address = vouched_for(address, &engine.ca_file.value)
        .map_err(|reason| complain(later(&engine.url, &engine.ca_file), format!("`engine.ca_file`: {reason}")))
        .ok()?;
    Some(LogSettings {
        address,
        prefix: prefix.clone(),
        log_entries_max: engine.log_entries_max.value,
        timeout: Duration::from_millis(engine.timeout_ms.value),
        message_bytes_max: usize::try_from(raw.limits.message_bytes_max.value).unwrap_or(usize::MAX),
        replicas: engine.replicas.value as usize,
    })
}

/// Whose certificate counts, where the authorities are the operator's own.
fn vouched_for(address: LogAddress, file: &str) -> Result<LogAddress, String> {
    if file.is_empty() {
        return Ok(address);
    }
    // It says what is wrong with a file, and where.
    Trust::of_file(Path::new(file)).map_err(|error| error.to_string())?;
    let address = match address {
        LogAddress::Redis(address) => {
            let authorities = std::fs::read(file).map_err(|error| format!("{file} cannot be read: {error}"))?;
            address.trusting(authorities).map(LogAddress::Redis)
        }
        LogAddress::Nats(address) => address.trusting(Path::new(file)).map(LogAddress::Nats),
    };
    address.map_err(str::to_owned)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte)
}

/// Each node tells its own rooms the time, and nobody else's numbers may be given to that.
pub(super) fn tickers_without_numbers(raw: &Raw, config: &Config, problems: &mut Vec<Problem>) {
    if config.engine.is_none() {
        return;
    }
    let fallback = &raw.namespaces[DEFAULT_NAMESPACE];
    for (name, _) in config.namespaces.iter().filter(|(_, policy)| policy.ticker_ms > 0 && policy.history_size > 0) {
        let own = raw.namespaces.get(name).unwrap_or(fallback);
        let ticker = if own.ticker_ms.is_given() { &own.ticker_ms } else { &fallback.ticker_ms };
        let size = if own.history_size.is_given() { &own.history_size } else { &fallback.history_size };
        let path = |key| key_path(&namespace_path(name), key);
        let text = format!(
            "`{}` and `{}` do not go together with an engine: each node tells its own rooms the time, and what is kept has \
             one order on all nodes; set one of them to 0",
            path("ticker_ms"),
            path("history_size")
        );
        problems.push(Problem { origin: Some(later(ticker, size)), text });
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigFile, Environment, Flags};

    fn load(toml: &str) -> Result<Config, String> {
        let file = ConfigFile::new("fanfare.toml", toml);
        Config::serve(&Flags::default(), Some(&file), &Environment::default()).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check_refused(toml: &str, part: &str) {
        let complaint = load(toml).expect_err("a complaint");
        assert!(complaint.contains(part), "{complaint}");
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }

    #[test]
    fn a_redis_is_an_engine() {
        let config =
            load("[engine]\nkind = \"redis\"\nurl = \"rediss://me:hunter2@10.0.0.5:6380/2\"\nprefix = \"eu-1\"")
                .unwrap();
        let engine = config.engine.as_ref().unwrap();
        assert_eq!((engine.address.to_string().as_str(), engine.prefix.as_str()), ("10.0.0.5:6380", "eu-1"));
        assert_eq!((engine.timeout.as_millis(), engine.log_entries_max), (5_000, 100_000));
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(load("").unwrap().engine.is_none());
    }

    #[test]
    fn what_is_no_engine_is_refused_and_passwords_are_not_repeated() {
        check_refused("[engine]\nkind = \"redis\"", "needs `engine.url`");
        check_refused("[engine]\nurl = \"redis://:hunter2@x\"", "`engine.kind` is \"memory\"");
        let redis = "[engine]\nkind = \"redis\"\n";
        check_refused(&format!("{redis}url = \"http://:hunter2@x\""), "`engine.url`: write redis://");
        let ca = "ca_file = \"/nowhere/ca.pem\"\n";
        check_refused(&format!("[engine]\n{ca}"), "`engine.ca_file` vouches for nobody");
        check_refused(&format!("{redis}{ca}url = \"rediss://x\""), "`engine.ca_file`: /nowhere/ca.pem cannot be read");
        check_refused(&format!("{redis}url = \"rediss://x/#insecure\""), "`engine.url`: #insecure is not taken");
        check_refused(&format!("{redis}url = \"redis://x\"\nprefix = \"a{{b\""), "`engine.prefix` must be");
        check_refused(&format!("{redis}url = \"redis://x\"\ntimeout_ms = 1"), "`engine.timeout_ms` = 1 is not between");
        check_refused(&format!("{redis}url = \"redis://x\"\nlog_entries_max = 1"), "`engine.log_entries_max` = 1");
    }

    #[test]
    fn nats_is_an_engine() {
        let nats = "[engine]\nkind = \"nats\"\n";
        let config = load(&format!("{nats}url = \"tls://me:hunter2@a,tls://b:5\"\nprefix = \"eu-1\"")).unwrap();
        let engine = config.engine.as_ref().unwrap();
        assert_eq!((engine.address.to_string().as_str(), engine.prefix.as_str()), ("a:4222,b:5", "eu-1"));
        assert_eq!(engine.message_bytes_max, 65_536);
        assert!(!format!("{config:?}").contains("hunter2"));
        check_refused(nats, "needs `engine.url`, such as nats://");
        check_refused(&format!("{nats}url = \"redis://:hunter2@x\""), "`engine.url`: write nats://");
        check_refused(&format!("{nats}url = \"nats://x\"\nprefix = \"a.b\""), "`engine.prefix` must be without `.`");
        let replicas = |kind: &str| format!("[engine]\nkind = \"{kind}\"\nurl = \"{kind}://x\"\nreplicas = ");
        let three = load(&format!("{}3", replicas("nats"))).unwrap();
        assert_eq!((engine.replicas, three.engine.unwrap().replicas), (1, 3));
        check_refused(&format!("{}6", replicas("nats")), "`engine.replicas` = 6 is not between 1 and 5");
        check_refused(&format!("{}3", replicas("redis")), "`engine.replicas` is for NATS");
    }

    #[test]
    fn a_ticker_has_no_place_in_an_order_that_nodes_share() {
        let rooms = "[namespaces.default]\nhistory_size = 10\n[namespaces.clock]\nticker_ms = 1000\n";
        let redis = "[engine]\nkind = \"redis\"\nurl = \"redis://x\"\n";
        assert!(load(rooms).is_ok());
        check_refused(&format!("{rooms}{redis}"), "`namespaces.clock.ticker_ms` and `namespaces.clock.history_size`");
        assert!(load(&format!("{rooms}history_size = 0\n{redis}")).is_ok());
    }
}
