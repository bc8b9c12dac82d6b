//! Rules by namespace: what they inherit, histories, moderation.

use fanfare_protocol::RoomName;

use super::*;

#[test]
fn a_namespace_takes_from_default_what_its_table_leaves_out() {
    let config =
        file("[namespaces.default]\npublish = 'nobody'\nticker_ms = 100\n[namespaces.chat]\nticker_ms = 0\n").unwrap();
    let policy = |room: &str| *config.namespaces.get(&RoomName::parse(room).unwrap());
    assert_eq!(policy("lobby").ticker_ms, 100);
    assert_eq!(policy("other:1").publish, fanfare_guard::Right::Nobody);
    assert_eq!(policy("chat:1").publish, fanfare_guard::Right::Nobody);
    assert_eq!(policy("chat:1").ticker_ms, 0);
}

#[test]
fn a_history_is_kept_by_namespace_and_fits_a_message() {
    let config = file(
        "[limits]\nhistory_total_bytes_max = 5000000\n[namespaces.default]\nhistory_size = 10\n[namespaces.chat]\n\
         history_ms = 60000\nhistory_bytes_max = 100000\n[namespaces.off]\nhistory_size = 0\nhistory_bytes_max = 1",
    )
    .unwrap();
    let kept: Vec<_> = config
        .namespaces
        .iter()
        .map(|(name, policy)| {
            (name, policy.history_size, policy.history_ms, policy.history_bytes_max, policy.last_value)
        })
        .collect();
    let expected =
        [("default", 10, 0, 1_048_576, false), ("chat", 10, 60_000, 100_000, false), ("off", 0, 0, 1, false)];
    assert_eq!(kept, expected);
    assert_eq!(config.history_total_bytes_max, 5_000_000);
    let small = |text: &str, place: &str, path: &str| {
        check_complaint(
            text,
            &format!(
                "fanfare.toml:{place}: `{path}` comes to 66559, too little to keep one message of \
                 `limits.message_bytes_max` = 65536; raise it to 66560 or more, or lower the latter"
            ),
        );
    };
    let on = "[namespaces.a]\nhistory_size = 1\n[namespaces.b]\nhistory_size = 1\nhistory_bytes_max = 70000\n";
    let total = "limits.history_total_bytes_max";
    small(&format!("{total} = 66559\n{on}"), "1:8", total);
    small(&format!("namespaces.default.history_bytes_max = 66559\n{on}"), "1:20", "namespaces.a.history_bytes_max");
    small(
        &format!("{on}[namespaces.c]\nhistory_size = 1\nhistory_bytes_max = 66559"),
        "8:1",
        "namespaces.c.history_bytes_max",
    );
    file("[namespaces.a]\nhistory_size = 1\nhistory_bytes_max = 66560").unwrap();
    check_complaint(
        "[namespaces.a]\nhistory_size = 1000001\n",
        "fanfare.toml:2:1: `namespaces.a.history_size` = 1000001 is not between 0 and 1000000",
    );
}

#[test]
fn histories_are_part_of_the_memory_ceiling() {
    let histories = |toml: &str| {
        let ceiling = file(toml).unwrap().ceiling();
        ceiling.terms.into_iter().find(|term| term.name == "histories").unwrap()
    };
    assert_eq!(histories("").bytes, 0);
    let total = "limits.history_total_bytes_max = 10000000\n";
    let few = histories(&format!("{total}limits.rooms_max = 2\nnamespaces.a.history_size = 3"));
    assert_eq!(few.bytes, 2 * 3 * (65_536 + 256), "{few:?}");
    let bounded = histories(&format!("{total}limits.rooms_max = 2\nnamespaces.a.history_size = 1000"));
    assert_eq!(bounded.bytes, 2 * 1_048_576, "{bounded:?}");
    let many = histories(&format!("{total}namespaces.a.history_size = 3"));
    assert_eq!(many.bytes, 10_000_000, "{many:?}");
}

#[test]
fn files_of_moderation_are_read_with_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (words, model) = (path("words", b"bad\nevil\n"), path("model", b"fanfare-model 1\n0.9 1 1\n1\t0\tfree\n"));
    let files = format!("[moderation]\nwords_file = '{words}'\nmodel_file = '{model}'");
    let namespaces =
        "[namespaces.default]\nfilter = 'mask'\n[namespaces.a]\nfilter = 'hold'\n[namespaces.b]\npresence = true";
    let config = file(&format!("{files}\n{namespaces}")).unwrap();
    assert_eq!(config.moderation.words().map(fanfare_guard::words::WordList::len), Some(2));
    assert_eq!(config.moderation.model().map(fanfare_guard::words::Model::len), Some(1));
    let filter = |room| config.namespaces.get(&RoomName::parse(room).unwrap()).filter;
    assert_eq!((filter("a:1"), filter("b:1")), (fanfare_guard::Filter::Hold, fanfare_guard::Filter::Mask));
    assert_eq!(file(&files).unwrap().namespaces.get(&RoomName::parse("a").unwrap()).filter, fanfare_guard::Filter::Off);
    assert!(config.warnings().iter().any(|warning| warning.contains("nobody can release them")));
    assert!(config.ceiling().terms.iter().any(|term| term.name == "held messages" && term.bytes == 1_000 * 65_536));

    let wrong = path("wrong", b"fine\n\xff\n\n...\n");
    let complaint =
        |line: usize, what: &str| format!("fanfare.toml:2:1: `moderation.words_file`: {wrong}:{line}: {what}");
    assert_eq!(
        complaints(&format!("[moderation]\nwords_file = '{wrong}'")),
        [complaint(2, "not UTF-8; save the list as UTF-8"), complaint(4, "a word needs a letter, a digit or an emoji")]
    );
    check_complaint(
        &format!("[moderation]\nmodel_file = '{words}'"),
        &format!(
            "fanfare.toml:2:1: `moderation.model_file`: {words}: this is no model of this version: the first line must be \
             `fanfare-model 1`; make one with `fanfare train`"
        ),
    );
    check_complaint(
        "[moderation]\nwords_file = '/nowhere/words'",
        "fanfare.toml:2:1: `moderation.words_file`: /nowhere/words: No such file or directory (os error 2)",
    );
    check_complaint(
        "[namespaces.chat]\nfilter = 'mask'",
        "fanfare.toml:2:1: `namespaces.chat.filter` needs a word list or a model: set `moderation.words_file` or \
         `moderation.model_file`",
    );
}

#[test]
fn the_namespace_of_an_application_is_shut_for_others_until_its_own_table_opens_it() {
    let app = "[[pusher.apps]]\nid = '7'\nkey = 'k7'\nsecret = 's'\n";
    let policy = |toml: &str| *file(toml).unwrap().namespaces.get(&RoomName::parse("pusher-7:a").unwrap());
    let shut = policy(app);
    let nobody = fanfare_guard::Right::Nobody;
    assert_eq!((shut.subscribe, shut.publish, shut.has_channels), (nobody, nobody, true));
    let kept = policy(&format!("{app}[namespaces.pusher-7]\nhistory_size = 5\n"));
    assert_eq!((kept.subscribe, kept.publish, kept.history_size), (nobody, nobody, 5));
    let open = policy(&format!("{app}[namespaces.pusher-7]\nsubscribe = 'anyone'\n"));
    assert_eq!((open.subscribe, open.publish), (fanfare_guard::Right::Anyone, nobody));
    let default = policy(&format!("{app}[namespaces.default]\nsubscribe = 'user'\nmessages_per_second_max = 3\n"));
    assert_eq!((default.subscribe, default.messages_per_second_max), (nobody, 3));
    assert!(!file(app).unwrap().namespaces.fallback().has_channels);
    let cached = policy(&format!("{app}cache_ms = 7000\n"));
    assert_eq!((shut.cache_ms, cached.cache_ms), (1_800_000, 7_000));
}

#[test]
fn applications_do_not_share_anything() {
    let two = |more: &str| {
        format!("[[pusher.apps]]\nid = '7'\nkey = 'k7'\nsecret = 's'\n[[pusher.apps]]\nsecret = 's'\n{more}")
    };
    let config = file(&two("id = '8'\nkey = 'k8'")).unwrap();
    let pusher = config.pusher.unwrap();
    assert_eq!((pusher.apps.len(), pusher.activity_timeout_s), (2, 120));
    assert!(file("").unwrap().pusher.is_none());
    for (more, complaint) in [
        ("id = '7'\nkey = 'k8'", "entry 2 of `pusher.apps` has the `id` of another"),
        ("id = '8'\nkey = 'k7'", "entry 2 of `pusher.apps` has the `key` of another"),
        ("id = '8'\nkey = 'k8'\nnamespace = 'pusher-7'", "entry 2 of `pusher.apps` has the `namespace` of another"),
        ("id = '8'\nkey = 'k8'\nnamespace = 'default'", "entry 2 of `pusher.apps` needs a `namespace`"),
        ("id = '8'\nkey = 'k8'\nnamespace = 'a:b'", "entry 2 of `pusher.apps` needs a `namespace`"),
        ("id = '8/'\nkey = 'k8'", "entry 2 of `pusher.apps` needs as its `id`"),
        ("id = '8'\nkey = 'k:8'", "entry 2 of `pusher.apps` needs as its `key`"),
        ("id = '8'\nkey = 'k8'\nevent_bytes_max = 0", "entry 2 of `pusher.apps` needs an `event_bytes_max`"),
        ("id = '8'\nkey = 'k8'\ncache_ms = 99", "entry 2 of `pusher.apps` needs a `cache_ms` from 100"),
    ] {
        let error = file(&two(more)).unwrap_err().to_string();
        assert!(error.contains(complaint), "{more}: {error}");
    }
    let long = format!("id = '8'\nkey = 'k8'\nnamespace = '{}'", "n".repeat(55));
    assert!(file(&two(&long)).unwrap_err().to_string().contains("at most 54 bytes"));
}
