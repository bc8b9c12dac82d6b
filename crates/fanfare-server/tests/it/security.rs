//! docs/security.md against the code: its limits are the configuration's, its endings are those that exist, and what it says of secrets.

use std::collections::BTreeMap;
use std::fs;

use fanfare_edge::HANDSHAKE_RESULTS;
use fanfare_guard::{Claims, TokenKeys};
use fanfare_protocol::CloseReason;
use fanfare_server::config::reference;
use rustix::process::Signal;

use crate::process::Process;
use crate::support::{Raw, TestNode, handshake, request};
use crate::tidy::root;

/// Rows of the tables of a Markdown text, a list of cells each, without back quotes.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        // A bar within a cell is escaped.
        let line = line.trim().trim_matches('|').replace("\\|", "\u{1}");
        line.split('|').map(|cell| cell.trim().trim_matches('`').replace('\u{1}', "|")).collect()
    };
    text.lines().filter(|line| line.starts_with('|') && !line.starts_with("| ---")).map(cells).collect()
}

/// The part under a heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    rest.split("\n## ").next().expect("split gives one part at least")
}

fn page() -> String {
    fs::read_to_string(root().join("docs/security.md")).expect("docs/security.md")
}

#[test]
fn every_limit_is_explained_with_its_default() {
    let reference = reference::page();
    let mut expected = BTreeMap::new();
    for name in ["limits", "heartbeat"] {
        for row in rows(section(&reference, &format!("[{name}]"))).into_iter().skip(1) {
            expected.insert(format!("{name}.{}", row[0]), row[2].clone());
        }
    }
    let of_rooms = rows(section(&reference, "[namespaces.NAME]")).into_iter().filter(|row| row[0].ends_with("_max"));
    expected.extend(of_rooms.map(|row| (format!("namespaces.*.{}", row[0]), row[2].clone())));
    assert!(expected.len() > 15, "{expected:?}");
    let page = page();
    let explained: BTreeMap<String, String> =
        rows(section(&page, "Limits")).into_iter().skip(1).map(|row| (row[0].clone(), row[1].clone())).collect();
    for (key, default) in &expected {
        assert_eq!(explained.get(key), Some(default), "docs/security.md, table of limits: {key}");
    }
    for key in explained.keys() {
        assert!(expected.contains_key(key), "docs/security.md explains {key}, which is no limit");
    }
}

#[test]
fn every_ending_is_named_with_its_code() {
    let page = page();
    let endings = section(&page, "Endings");
    let named: BTreeMap<String, String> = rows(endings)
        .into_iter()
        .filter(|row| row[0].parse::<u16>().is_ok())
        .map(|row| (row[1].clone(), row[0].clone()))
        .collect();
    for reason in reasons() {
        let code = reason.code().0.to_string();
        assert_eq!(named.get(reason.label()), Some(&code), "docs/security.md, table of endings: {}", reason.label());
    }
    assert_eq!(named.len(), CloseReason::LABELS.len(), "an ending that does not exist: {:?}", named.keys());
    for result in HANDSHAKE_RESULTS {
        assert!(rows(endings).iter().any(|row| row[0] == result), "docs/security.md does not name {result}");
    }
}

#[test]
fn limits_end_in_endings_that_exist() {
    let page = page();
    for row in rows(section(&page, "Limits")).into_iter().skip(1) {
        for part in row[3].split("close ").skip(1) {
            let mut words = part.split([' ', ',', ';']);
            let code = words.next().expect("a word").to_owned();
            let label = words.next().unwrap_or_default().trim_matches('`').to_owned();
            let reason = reasons().into_iter().find(|reason| reason.label() == label);
            let found = reason.map(|reason| reason.code().0.to_string());
            assert_eq!(found, Some(code), "{}: close {part}", row[0]);
        }
    }
}

/// One of each reason.
fn reasons() -> Vec<CloseReason> {
    let all = vec![
        CloseReason::ClientClosed,
        CloseReason::ConnectionLost,
        CloseReason::Left,
        CloseReason::ProtocolError(""),
        CloseReason::BinaryNotAllowed,
        CloseReason::BadUtf8,
        CloseReason::BadDeflate,
        CloseReason::BadMessages,
        CloseReason::TooManyFragments,
        CloseReason::MessageTooBig { max: 0 },
        CloseReason::NotAllowed,
        CloseReason::RoomClosed,
        CloseReason::Kicked,
        CloseReason::AppUnknown,
        CloseReason::AppDisabled,
        CloseReason::AppFull { max: 0 },
        CloseReason::AppProtocol(4007, ""),
        CloseReason::AppOrigin,
        CloseReason::Drain,
        CloseReason::Overloaded,
        CloseReason::PongTimeout { ms: 0 },
        CloseReason::SlowConsumer { bytes: 0, messages: 0 },
        CloseReason::SlowConsumerResumable { bytes: 0, messages: 0 },
        CloseReason::WriteTimeout { bytes: 0, messages: 0 },
        CloseReason::TooFast,
        CloseReason::Rejected,
        CloseReason::TokenRevoked,
        CloseReason::TokenKeysUnavailable,
        CloseReason::EngineAway,
        CloseReason::EngineLost,
        CloseReason::Internal,
        CloseReason::TokenRefused(""),
        CloseReason::TokenExpired,
        CloseReason::NameTaken,
        CloseReason::UserTooFast,
        CloseReason::PingsTooFast,
        CloseReason::RoomTooFast,
        CloseReason::TooManyConnections { max: 0 },
        CloseReason::RoomFull,
    ];
    let labels: std::collections::BTreeSet<&str> = all.iter().map(|reason| reason.label()).collect();
    assert_eq!(labels.len(), CloseReason::LABELS.len(), "one of each reason stands here");
    all
}

const API_KEY: &str = "an-api-key-that-nobody-may-see-5417";
const WRONG_KEY: &str = "a-wrong-api-key-that-nobody-may-see-8823";
const SECRET: &str = "a-signing-secret-that-nobody-may-see-9046";

/// A page that an attacker could put into a frame, or an answer that a browser could take for one, would speak in its visitor's name.
#[tokio::test]
async fn answers_say_what_browsers_may_make_of_them() {
    let node = TestNode::dev("");
    let page = request(node.clients, "GET", "/", &[], "").await;
    let policy = page.header("content-security-policy").expect("a policy");
    for rule in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
        assert!(policy.contains(rule), "{rule}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("http:") && !policy.contains("https:"), "{policy}");
    assert_eq!((page.header("x-frame-options"), page.header("referrer-policy")), (Some("DENY"), Some("no-referrer")));
    let script = "<script>alert(1)</script>";
    for (address, path) in [
        (node.clients, "/"),
        (node.clients, "/?name=%3Cscript%3Ealert(1)%3C/script%3E"),
        (node.clients, "/fanfare.js"),
        (node.clients, "/%3Cscript%3Ealert(1)%3C/script%3E"),
        (node.clients, "/<script>alert(1)</script>"),
        (node.clients, "/room/a?format=%3Cscript%3Ealert(1)%3C/script%3E"),
        (node.admin, "/livez"),
        (node.admin, "/metrics"),
        (node.admin, "/openapi.json"),
        (node.admin, "/api/rooms"),
        (node.admin, "/api/rooms?limit=%3Cscript%3Ealert(1)%3C/script%3E"),
        (node.admin, "/api/rooms?%3Cscript%3Ealert(1)%3C/script%3E"),
        (node.admin, "/api/rooms/%3Cscript%3Ealert(1)%3C/script%3E"),
    ] {
        let answer = request(address, "GET", path, &[], "").await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        let is_html = answer.header("content-type").expect("a type").starts_with("text/html");
        assert_eq!(is_html, path == "/" || path.starts_with("/?"), "{path}");
        assert!(!is_html || !answer.text().contains(script), "{path} comes back");
    }
}

/// What is printed of the settings, if somebody ever prints them.
#[tokio::test]
async fn settings_show_no_secrets() {
    let node = TestNode::serve(&format!("api.keys = [\"{API_KEY}\"]\nauth.keys = [\"{SECRET}\"]"));
    let settings = node.hub.settings();
    assert_eq!(settings.api.keys, [API_KEY]);
    let shown = format!("{settings:?} {settings:#?}");
    assert!(shown.contains("1 secret") && !shown.contains(API_KEY) && !shown.contains(SECRET), "{shown}");
}

/// Right and wrong, in every place where they are taken, with everything logged that can be.
#[tokio::test]
async fn keys_and_tokens_are_never_written() {
    let variables = [
        ("FANFARE_API__KEYS", API_KEY),
        ("FANFARE_AUTH__KEYS", SECRET),
        ("FANFARE_LOG_LEVEL", "trace"),
        ("FANFARE_DRAIN__GRACE_MS", "0"),
        ("FANFARE_DRAIN__WINDOW_MS", "0"),
    ];
    let mut node = Process::fanfare(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &variables);
    let (clients, admin) = node.addresses();
    let mut written = Vec::new();
    for (key, status) in [(API_KEY, 200), (WRONG_KEY, 401)] {
        let bearer = format!("Bearer {key}");
        let answer = request(admin, "GET", "/api/rooms", &[("authorization", &bearer)], "").await;
        assert_eq!(answer.status, status);
        written.push(answer.text().to_owned());
    }
    let claims = Claims { sub: Some("ann".to_owned()), exp: None, ..Claims::default() };
    let token = TokenKeys::parse([SECRET]).expect("a fit key").mint(&claims).expect("a token");
    let damaged = token.replacen("eyJ", "eyK", 1);
    for token in [&token, &damaged] {
        for (path, header) in [
            (format!("/ws?token={token}"), String::new()),
            ("/ws".to_owned(), format!("Authorization: Bearer {token}\r\n")),
            ("/ws".to_owned(), format!("Sec-WebSocket-Protocol: chat, fanfare.token.{token}\r\n")),
        ] {
            let mut raw = Raw::open(clients).await;
            raw.send(handshake(&path, clients, &header).as_bytes()).await;
            assert_eq!(raw.head().await.status, 101);
            written.push(raw.frame().await.payload.escape_ascii().to_string());
        }
    }
    written.push(request(admin, "GET", "/metrics", &[], "").await.text().to_owned());
    node.signal(Signal::TERM);
    assert!(node.ended().success());
    let log = node.err.all();
    assert!(log.iter().any(|line| line.contains("DEBUG") || line.contains("TRACE")), "much is logged: {log:#?}");
    written.extend(log);
    written.extend(node.out.all());
    for command in [&["check"][..], &["config", "default"], &["config", "env"], &["version"]] {
        let mut program = Process::fanfare(command, &variables);
        program.ended();
        written.extend(program.out.all().into_iter().chain(program.err.all()));
    }
    let (_, signature) = token.rsplit_once('.').expect("three parts");
    for secret in [API_KEY, WRONG_KEY, SECRET, token.as_str(), damaged.as_str(), signature] {
        let found = written.iter().find(|line| line.contains(secret));
        assert!(found.is_none(), "a secret is written: {found:?}");
    }
}
