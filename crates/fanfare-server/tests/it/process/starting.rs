//! What is printed and refused at the start, by what the configuration and the flags say.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{DEV, FANFARE, Process, SERVE, fanfare, finished, folder, get_from, run, wait_until};

/// The lines that `fanfare dev` prints, pasted into a shell as they are.
#[test]
fn what_dev_prints_works_when_pasted() {
    let bin = Path::new(FANFARE).parent().expect("a folder");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.arg("-c").arg(line.trim()).env("PATH", &path).current_dir("/");
        command
    };
    let dev = Process::fanfare(DEV, &[]);
    let page = dev.out.wait_for(&["page ", "http://"]);
    let api = dev.out.wait_for(&["api ", "http://"]);
    let admin: SocketAddr = api.split_once("http://").expect("an address").1.parse().expect("an address");
    let clients = page.split_once("http://").expect("an address").1.trim_end_matches('/');
    let (status, html) = get_from(clients.parse().expect("an address"), "/");
    assert_eq!(status, 200);
    assert!(html.contains("<!DOCTYPE html>"), "{html}");

    // Through `exec`, so that the shell is not left between us and what we kill.
    let sub = Process::spawn(&mut shell(&format!("exec {}", dev.out.wait_for(&["fanfare sub lobby"]).trim())));
    wait_until("sub to be in the room", || get_from(admin, "/api/rooms/lobby").1.contains("\"occupancy\":1"));
    let plain = finished(&mut shell(&dev.out.wait_for(&["curl", "text/plain"])));
    assert_eq!(plain.code, Some(0), "{}", plain.err);
    assert!(plain.out.contains("\"delivered\":1,\"dropped\":0,\"evicted\":0"), "{}", plain.out);
    let json = finished(&mut shell(&dev.out.wait_for(&["curl", "\"room\":\"lobby\""])));
    assert_eq!(json.code, Some(0), "{}", json.err);
    assert!(json.out.contains("\"delivered\":1,\"dropped\":0,\"evicted\":0"), "{}", json.out);
    let publish = finished(&mut shell(&dev.out.wait_for(&["fanfare pub lobby hello"])));
    assert_eq!(publish.code, Some(0), "{}", publish.err);
    assert!(publish.out.starts_with("delivered 1, dropped 0, evicted 0"), "{}", publish.out);

    let url = format!("http://{admin}");
    let mut lines = fanfare(folder().path())
        .args(["pub", "lobby", "-", "--url", &url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = lines.stdin.take().expect("a pipe");
    stdin.write_all("first\nsecond 房\n{\"third\": 3}\n".as_bytes()).expect("a reader");
    drop(stdin);
    let receipts = lines.wait_with_output().expect("its end");
    assert!(receipts.status.success());
    let receipts = String::from_utf8(receipts.stdout).expect("UTF-8");
    assert_eq!(receipts.lines().count(), 3, "{receipts}");
    assert!(receipts.lines().all(|line| line.starts_with("delivered 1, ")), "{receipts}");
    sub.out.wait_for(&["third"]);
    let expected = ["hello", r#"{"text":"hello"}"#, "hello", "first", "second 房", r#"{"third": 3}"#];
    assert_eq!(sub.out.so_far(), expected);
}

#[test]
fn check_takes_a_good_file_and_names_the_line_of_a_bad_key() {
    let folder = folder();
    let write = |text: &str| fs::write(folder.path().join("a.toml"), text).expect("a file");
    write("listen = \"127.0.0.1:0\"\n[limits]\nmessage_bytes_max = 1000\n");
    let good = run(folder.path(), &["check", "a.toml"]);
    assert_eq!((good.code, good.err.as_str()), (Some(0), ""));
    assert!(good.out.starts_with("OK: a.toml"), "{}", good.out);
    assert!(good.out.contains("total"), "{}", good.out);

    write("listen = \"127.0.0.1:0\"\n\n[limits]\nmesage_bytes_max = 1000\n");
    let bad = run(folder.path(), &["check", "a.toml"]);
    assert_eq!((bad.code, bad.out.as_str()), (Some(1), ""));
    assert!(bad.err.starts_with("a.toml:4:1: "), "{}", bad.err);
    assert!(bad.err.contains("did you mean") && bad.err.contains("message_bytes_max"), "{}", bad.err);

    write("[limits]\nconnections_max = \"many\"\n[api\n");
    let broken = run(folder.path(), &["check", "a.toml"]);
    assert_eq!(broken.code, Some(1));
    assert!(broken.err.starts_with("a.toml:3:"), "{}", broken.err);

    let missing = run(folder.path(), &["check", "b.toml"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("cannot read b.toml"), "{}", missing.err);
}

/// `serve` refuses what `check` refuses, with the same words, before it listens.
#[test]
fn an_unknown_key_stops_the_start_wherever_it_stands() {
    let folder = folder();
    let path = folder.path().join("a.toml");
    fs::write(&path, "[drain]\nwindow = 5\n").expect("a file");
    let path = path.display().to_string();
    let by_file = run(folder.path(), &[SERVE, &["--config", &path]].concat());
    assert_eq!(by_file.code, Some(1));
    assert!(by_file.err.contains("a.toml:2:1: ") && by_file.err.contains("window_ms"), "{}", by_file.err);

    for command in [SERVE, DEV, &["check"]] {
        let by_variable =
            finished(fanfare(folder.path()).args(command).env("FANFARE_LIMITS__CONECTIONS_MAX", "5").env("OTHER", "1"));
        assert_eq!(by_variable.code, Some(1), "{command:?}");
        assert!(by_variable.err.contains("FANFARE_LIMITS__CONECTIONS_MAX"), "{}", by_variable.err);
        assert!(by_variable.err.contains("did you mean"), "{}", by_variable.err);
        assert!(by_variable.err.contains("FANFARE_LIMITS__CONNECTIONS_MAX"), "{}", by_variable.err);
        assert!(!by_variable.err.contains("clients on"), "{}", by_variable.err);
    }
    assert_eq!(run(folder.path(), &["serve", "--lisen", "127.0.0.1:0"]).code, Some(2));
}

#[test]
fn the_environment_is_laid_over_the_file_and_flags_over_both() {
    let folder = folder();
    fs::write(folder.path().join("fanfare.toml"), "listen = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\nnode = \"n\"\n")
        .expect("a file");
    let mut serve = Process::spawn(
        fanfare(folder.path()).args(["serve", "--admin", "127.0.0.1:0"]).env("FANFARE_LISTEN", "127.0.0.1:0"),
    );
    let (clients, admin) = serve.addresses();
    assert!(clients.port() > 2 && admin.port() > 2, "{clients} {admin}");
    assert!(serve.err.so_far().join("\n").contains("fanfare.toml"));
    assert!(serve.is_running());
}

#[test]
fn version_says_what_runs() {
    let version = run(folder().path(), &["version"]);
    assert_eq!(version.code, Some(0));
    for fact in ["fanfare 0.", "commit: ", "features: ", "allocator: mimalloc", "send path: "] {
        assert!(version.out.lines().any(|line| line.starts_with(fact)), "{fact}: {}", version.out);
    }
}

#[test]
fn the_default_configuration_is_a_configuration() {
    let folder = folder();
    let default = run(folder.path(), &["config", "default"]);
    assert_eq!(default.code, Some(0));
    // What can be left out stands there as a comment; both ways it must hold.
    fs::write(folder.path().join("default.toml"), &default.out).expect("a file");
    let check = run(folder.path(), &["check", "default.toml"]);
    assert_eq!(check.code, Some(0), "{}", check.err);
    assert!(check.out.starts_with("OK: default.toml"), "{}", check.out);
    let names = run(folder.path(), &["config", "env"]);
    assert!(names.out.contains("FANFARE_LIMITS__MESSAGE_BYTES_MAX"), "{}", names.out);
    let docs = run(folder.path(), &["config", "docs"]);
    assert!(docs.out.contains("message_bytes_max"), "{}", docs.out);
}
