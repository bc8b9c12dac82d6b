//! The printed references against the declarations, and both against the contract.

use toml::de::DeTable;

use super::*;

/// The keys that the contract lists, with its defaults.
const CONTRACT: &str = r#"
listen = "0.0.0.0:8080"
admin = "127.0.0.1:8081"
shards = 0
origins = []
[limits]
connections_max = 100000
connections_per_ip_max = 0
handshake_ms_max = 10000
header_bytes_max = 16384
message_bytes_max = 65536
messages_per_second_max = 0
subscriptions_per_connection_max = 1000
rooms_max = 1000000
outbox_bytes_max = 1048576
outbox_messages_max = 4096
outbox_total_bytes_max = 0
mode = "enforce"
[heartbeat]
ping_ms = 25000
pong_ms = 10000
write_ms = 10000
[auth]
guests = false
keys = []
jwks_url = ""
[api]
keys = []
on_client_listener = false
[rooms]
reap_ms = 10000
[namespaces.default]
subscribe = "anyone"
publish = "anyone"
history_size = 0
history_ms = 0
presence = false
join_leave = false
coalesce_ms = 0
slow = "evict"
ticker_ms = 0
filter = "off"
inbox_size = 0
[moderation]
words_file = ""
model_file = ""
[diagnostics]
echo = false
page = true
[engine]
kind = "memory"
url = ""
[drain]
grace_ms = 5000
window_ms = 30000
"#;

#[test]
fn the_printed_default_file_parses_back_to_the_defaults() {
    let text = reference::default_file();
    let mut raw = Raw::default();
    let mut problems = Vec::new();
    layer::apply_file(&mut raw, &ConfigFile::new("default", text.as_str()), &mut problems);
    assert_eq!(problems, []);
    let preset = Raw::default();
    assert_eq!(raw.sections().len(), preset.sections().len());
    for ((name, read), (_, preset)) in raw.sections().iter().zip(preset.sections()) {
        for (read, preset) in read.keys().iter().zip(preset.keys()) {
            assert_eq!(read.value, preset.value, "{name}.{}", read.name);
            assert!(matches!(read.origin, Origin::File { .. }), "{name}.{} is not in the file", read.name);
        }
    }
    file(&text).unwrap();
}

#[test]
fn the_contract_s_keys_exist_with_its_defaults() {
    file(CONTRACT).unwrap();
    let printed = reference::default_file();
    let printed = DeTable::parse(&printed).unwrap();
    let contract = DeTable::parse(CONTRACT).unwrap();
    check_subset(contract.get_ref(), printed.get_ref());
}

#[test]
fn every_printed_variable_is_taken() {
    let mut checked = 0;
    for line in reference::environment().lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once("  ").unwrap();
        let value = rest.rsplit_once("  ").unwrap().1.trim();
        // Text is quoted where it is shown as TOML, and bare in the environment.
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        serve(&Flags::default(), "", &[(name, value)]).unwrap_or_else(|error| panic!("{name}={value}: {error}"));
        checked += 1;
    }
    assert!(checked > 45, "{checked}");
}

#[test]
fn the_page_has_every_key() {
    let page = reference::page();
    for (_, section) in Raw::default().sections() {
        for key in section.keys() {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", key.name)));
            assert!(row.is_some(), "{}", key.name);
        }
    }
}

#[test]
fn the_page_and_the_file_say_which_keys_are_refused() {
    let marks = |text: &str| text.matches("Not available in this version").count();
    assert_eq!(marks(&reference::page()), typed::UNAVAILABLE.len());
    assert_eq!(marks(&reference::default_file()), typed::UNAVAILABLE.len());
}

#[test]
fn the_committed_reference_page_is_the_generated_one() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == reference::page(),
        "docs/configuration.md is not what `fanfare config docs` prints: run `make docs-configuration`"
    );
}

fn check_subset(part: &DeTable<'_>, whole: &DeTable<'_>) {
    for (key, value) in part {
        let found = whole.get(key.get_ref().as_ref()).unwrap_or_else(|| panic!("no key {}", key.get_ref())).get_ref();
        match value.get_ref().as_table() {
            Some(table) => check_subset(table, found.as_table().unwrap()),
            None => assert_eq!(format!("{:?}", value.get_ref()), format!("{found:?}"), "{}", key.get_ref()),
        }
    }
}
