//! Commands that speak to a gateway, and one that needs none.

use std::fs;

use super::{Process, SERVE, folder, run};
use crate::support::Unused;

/// Who mixes the two listeners up is told which one is meant.
#[test]
fn a_command_at_the_wrong_listener_is_sent_to_the_right_one() {
    let serve = Process::fanfare(SERVE, &[("FANFARE_API__KEYS", "right")]);
    let (clients, admin) = serve.addresses();
    let folder = folder();
    let client_listener = format!("http://{clients}");
    for command in [&["top", "--once"][..], &["why"], &["drain"], &["pub", "lobby", "hi"]] {
        let lost = run(folder.path(), &[command, &["--url", &client_listener]].concat());
        assert_eq!(lost.code, Some(1), "{command:?}");
        assert!(lost.err.contains("this is no admin listener"), "{command:?}: {}", lost.err);
        let stranger =
            run(folder.path(), &[command, &["--url", &format!("http://{admin}"), "--key", "wrong"]].concat());
        assert_eq!(stranger.code, Some(1), "{command:?}");
        assert!(stranger.err.contains("api.keys in the configuration"), "{command:?}: {}", stranger.err);
    }
    let lost = run(folder.path(), &["sub", "lobby", "--url", &format!("ws://{admin}")]);
    assert_eq!(lost.code, Some(1));
    assert!(lost.err.contains("rooms are on the client listener"), "{}", lost.err);
}

#[test]
fn sub_and_pub_say_what_to_do_when_nobody_listens() {
    let unused = Unused::port();
    for (command, url) in [("sub", format!("ws://{}", unused.address)), ("pub", format!("http://{}", unused.address))] {
        let mut arguments = vec![command, "lobby"];
        if command == "pub" {
            arguments.push("hello");
        }
        let refused = run(folder().path(), &[arguments.as_slice(), &["--url", &url]].concat());
        assert_eq!(refused.code, Some(1), "{command}");
        assert!(refused.err.contains("nothing is listening") && refused.err.contains("fanfare dev"), "{}", refused.err);
    }
}

#[test]
fn a_token_is_minted_and_explained() {
    let place = folder();
    let config = place.path().join("fanfare.toml");
    fs::write(&config, "[auth]\nkeys = [\"0123456789abcdef0123456789abcdef\"]\n").unwrap();
    let minted = run(place.path(), &["token", "--user", "ann", "--room", "chat:*"]);
    assert_eq!(minted.code, Some(0), "{}", minted.err);
    let token = minted.out.trim();
    let explained = run(place.path(), &["token", "--check", token]);
    assert_eq!(explained.code, Some(0), "{}", explained.err);
    assert!(explained.out.starts_with("verdict   it holds, for ann\n"), "{}", explained.out);
    assert!(!explained.out.contains("0123456789abcdef0123456789abcdef"));
    let refused = run(place.path(), &["token", "--check", &token[1..], "--json"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("the gateway would refuse this token: token malformed"), "{}", refused.err);
    let told: serde_json::Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(told["holds"], false);
    assert_eq!(run(place.path(), &["token"]).code, Some(2), "a user or a token to check is needed");
}
