//! Where it listens: ports that are taken, files of sockets, and loopback.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::process::Signal;

use super::{Process, SERVE, close_code, folder, get, get_from, run, upgrade, wait_for_connections, wait_until};
use crate::support::own_address;

#[test]
fn a_port_in_use_is_said_clearly() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = folder();
    let clients = run(folder.path(), &["dev", "--listen", &address, "--admin", "127.0.0.1:0"]);
    assert_eq!(clients.code, Some(1));
    let who = format!("ss -ltnp 'sport = :{}'", taken.local_addr().expect("an address").port());
    for word in [&address, "--listen", "in use", &who] {
        assert!(clients.err.contains(word), "{word}: {}", clients.err);
    }
    let admin = run(folder.path(), &["dev", "--listen", "127.0.0.1:0", "--admin", &address]);
    assert_eq!(admin.code, Some(1));
    for word in [&address, "--admin", "in use"] {
        assert!(admin.err.contains(word), "{word}: {}", admin.err);
    }
    assert!(!admin.err.contains("panicked"), "{}", admin.err);
}

#[test]
fn an_address_that_cannot_be_had_is_told_with_what_helps() {
    // Of a network that is for examples only (RFC 5737).
    let elsewhere = run(folder().path(), &["serve", "--listen", "192.0.2.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!(elsewhere.code, Some(1));
    assert!(elsewhere.err.contains("192.0.2.1") && elsewhere.err.contains("see ip address"), "{}", elsewhere.err);
}

/// The shards of one node share a port; two nodes must not, or each would serve half of the clients of every room.
#[test]
fn a_second_gateway_cannot_share_the_first_ones_port() {
    let first = Process::fanfare(&[SERVE, &["--shards", "4"]].concat(), &[]);
    let (clients, _) = first.addresses();
    let address = clients.to_string();
    for shards in ["1", "4"] {
        let arguments = ["serve", "--listen", &address, "--admin", "127.0.0.1:0", "--shards", shards];
        let second = run(folder().path(), &arguments);
        assert_eq!(second.code, Some(1), "{}", second.err);
        assert!(second.err.contains(&address) && second.err.contains("in use"), "{}", second.err);
    }
    assert_eq!(get_from(clients, "/ws").0, 426, "the first one still serves");
}

/// A server that was stopped can be started again at once on the same port, whatever its last connections are waiting for.
#[test]
fn a_port_can_be_used_again_at_once() {
    let quick = [("FANFARE_DRAIN__GRACE_MS", "0"), ("FANFARE_DRAIN__WINDOW_MS", "0")];
    let listen = own_address();
    let mut first = Process::fanfare(&["serve", "--listen", &listen, "--admin", "127.0.0.1:0"], &quick);
    let (clients, admin) = first.addresses();
    let mut client = upgrade(clients, "/room/a?format=text");
    wait_for_connections(admin, 1);
    first.signal(Signal::TERM);
    assert_eq!(close_code(&mut client), 1012);
    client.get_mut().write_all(&crate::support::close_frame(1012, "")).expect("an open connection");
    assert_eq!(first.ended().code(), Some(0));
    let address = clients.to_string();
    let second = Process::fanfare(&["serve", "--listen", &address, "--admin", "127.0.0.1:0"], &[]);
    assert_eq!(second.addresses().0, clients);
}

#[test]
fn dev_listens_on_loopback_only() {
    for arguments in [
        ["dev", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0"],
        ["dev", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"],
        ["dev", "--listen", "[::]:0", "--admin", "127.0.0.1:0"],
    ] {
        let refused = run(folder().path(), &arguments);
        assert_eq!(refused.code, Some(1), "{arguments:?}");
        assert!(refused.err.contains("loopback") && refused.err.contains("fanfare serve"), "{}", refused.err);
    }
}

#[test]
fn a_stale_socket_file_is_replaced_and_removed_at_the_end() {
    let folder = folder();
    let (clients, admin) = (folder.path().join("c.sock"), folder.path().join("a.sock"));
    // A process that crashed leaves its file behind.
    drop(UnixListener::bind(&clients).expect("a socket"));
    assert!(clients.exists());
    let of = |path: &Path| format!("unix:{}", path.display());
    let arguments = ["serve", "--listen", &of(&clients), "--admin", &of(&admin), "--shards", "3"];
    let quick = [("FANFARE_DRAIN__GRACE_MS", "0"), ("FANFARE_DRAIN__WINDOW_MS", "0")];
    let mut serve = Process::fanfare(&arguments, &quick);
    serve.err.wait_for(&["health, metrics and API on "]);
    let connect = |path: &Path| UnixStream::connect(path).expect("a listener");
    wait_until("it to be ready", || get(connect(&admin), "/readyz") == (200, "ready\n".to_owned()));
    assert_eq!(get(connect(&clients), "/ws").0, 426);

    let second = run(folder.path(), &["serve", "--listen", &of(&clients), "--admin", "127.0.0.1:0"]);
    assert_eq!(second.code, Some(1));
    assert!(second.err.contains("another process listens"), "{}", second.err);
    assert_eq!(get(connect(&clients), "/ws").0, 426, "the first one still serves");

    serve.signal(Signal::TERM);
    assert_eq!(serve.ended().code(), Some(0));
    assert!(!clients.exists() && !admin.exists(), "the files go with the listeners");
}

/// A slip in an address must not cost somebody a file.
#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = folder();
    let file = folder.path().join("precious");
    fs::write(&file, "data").expect("a file");
    let address = format!("unix:{}", file.display());
    let refused = run(folder.path(), &["serve", "--listen", &address, "--admin", "127.0.0.1:0"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains(&address), "{}", refused.err);
    assert_eq!(fs::read_to_string(&file).expect("the file"), "data");
}
