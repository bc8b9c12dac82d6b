//! systemd's part played by hand: sockets that were opened before, and the socket to which a service says how it is.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process::Process;
use crate::support::{PATIENCE, Raw, handshake, request, until_ready};

/// Where a service says how it is.
struct Manager {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { folder, socket }
    }

    fn path(&self) -> String {
        self.folder.path().join("notify").display().to_string()
    }

    fn next(&self) -> String {
        let mut word = [0; 256];
        let length = self.socket.recv(&mut word).expect("a word in time");
        String::from_utf8(word[..length].to_vec()).expect("UTF-8").trim().to_owned()
    }

    /// Whether this word has come by now, within a moment.
    async fn has_said(&self, word: &str) -> bool {
        self.socket.set_nonblocking(true).expect("a socket");
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut said = [0; 256];
        let length = self.socket.recv(&mut said);
        self.socket.set_nonblocking(false).expect("a socket");
        length.is_ok_and(|length| said[..length].trim_ascii() == word.as_bytes())
    }

    /// Waits for a word; only signs of life may come before.
    fn expect(&self, word: &str) {
        loop {
            match self.next() {
                said if said == word => return,
                said => assert_eq!(said, "WATCHDOG=1", "before {word}"),
            }
        }
    }

    /// The next word that is no sign of life.
    fn beside_signs_of_life(&self) -> String {
        loop {
            match self.next() {
                said if said == "WATCHDOG=1" => {}
                said => return said,
            }
        }
    }
}

const FLAGS: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

#[tokio::test]
async fn a_socket_that_was_opened_before_is_served_and_outlives_the_node() {
    let manager = Manager::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    // Who comes before the program is there waits, and is served.
    let early = TcpStream::connect(address).expect("a queue");
    early.set_nonblocking(true).expect("a socket");
    let mut early = Raw::over(tokio::net::TcpStream::from_std(early).expect("a socket"));
    early.send(handshake("/room/a?format=text", address, "").as_bytes()).await;
    let socket = listener.try_clone().expect("a descriptor").into();
    let variables = [
        ("NOTIFY_SOCKET", manager.path()),
        ("WATCHDOG_USEC", "200000".to_owned()),
        ("FANFARE_DRAIN__GRACE_MS", "0".to_owned()),
        ("FANFARE_DRAIN__WINDOW_MS", "0".to_owned()),
    ];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut node = Process::activated("fanfare.socket", socket, &FLAGS, &variables);
    manager.expect("READY=1");
    assert_eq!(node.addresses().0, address);
    assert_eq!(early.head().await.status, 101);
    for _ in 0..2 {
        manager.expect("WATCHDOG=1");
    }
    // Within one word the time at which it begins, without which systemd would wait for nothing.
    node.signal(Signal::HUP);
    let reloading = manager.beside_signs_of_life();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    manager.expect("READY=1");
    node.signal(Signal::TERM);
    manager.expect("STOPPING=1");
    while early.frame().await.first != 0x88 {}
    drop(early);
    assert!(node.ended().success());
    TcpStream::connect(address).expect("whoever opened the socket keeps it: who comes now waits for the next start");
}

/// A shard that hangs keeps the node from saying that it lives: the manager restarts it after `WatchdogSec=`.
#[tokio::test]
async fn a_shard_that_hangs_ends_the_signs_of_life() {
    let manager = Manager::new();
    let path = manager.path();
    let node = Process::fanfare(
        &[&FLAGS[..], &["--shards", "2"]].concat(),
        &[("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", "400000")],
    );
    manager.expect("READY=1");
    for _ in 0..2 {
        manager.expect("WATCHDOG=1");
    }
    let (_, admin) = node.addresses();
    assert_eq!(request(admin, "POST", "/faults/wedge?shard=1&ms=3600000", &[], "").await.status, 200);
    let begun = Instant::now();
    let mut last = begun;
    // Some may be under way. Then nothing for far longer than the limit, until the shard turns again.
    while last.elapsed() < Duration::from_secs(2) {
        if manager.has_said("WATCHDOG=1").await {
            last = Instant::now();
        }
        assert!(begun.elapsed() < PATIENCE, "a shard hangs, and the node says that it lives");
    }
    assert_eq!(request(admin, "POST", "/faults/release", &[], "").await.status, 200);
    manager.expect("WATCHDOG=1");
}

#[tokio::test]
async fn a_socket_named_admin_is_the_admin_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let node = Process::activated("fanfare-admin.socket", listener.into(), &FLAGS, &[]);
    let (clients, admin) = node.addresses();
    assert_eq!(admin, address);
    until_ready(admin).await;
    assert_eq!(request(clients, "GET", "/readyz", &[], "").await.status, 404);
}

#[test]
fn what_was_opened_and_is_no_listener_stops_the_start() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let socket = TcpStream::connect(listener.local_addr().expect("an address")).expect("a queue");
    let mut node = Process::activated("fanfare.socket", socket.into(), &FLAGS, &[]);
    assert!(!node.ended().success());
    let said = node.err.all().join("\n");
    assert!(said.contains("listeners that were passed") && said.contains("does not listen"), "{said}");
}

#[test]
fn the_files_of_unix_sockets_have_the_mode_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let [clients, admin] = ["clients", "admin"].map(|name| folder.path().join(name));
    let [listen, listen_admin] = [&clients, &admin].map(|path| format!("unix:{}", path.display()));
    let arguments = ["serve", "--listen", &listen, "--admin", &listen_admin];
    let variables = [("FANFARE_LISTEN_MODE", "0606"), ("FANFARE_ADMIN_MODE", "600")];
    let node = Process::fanfare(&arguments, &variables);
    node.err.wait_for(&["API on"]);
    for (path, mode) in [(clients, 0o606), (admin, 0o600)] {
        let found = std::fs::metadata(&path).expect("a socket").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
    for (name, value, expect) in [
        ("FANFARE_LISTEN_MODE", "0999", "no mode such as"),
        ("FANFARE_ADMIN_MODE", "rw", "no mode such as"),
        ("FANFARE_HANDOVER", "relative", "absolute path"),
    ] {
        let mut refused = Process::fanfare(&arguments, &[(name, value)]);
        assert!(!refused.ended().success());
        let said = refused.err.all().join("\n");
        assert!(said.contains(expect), "{said}");
    }
    let mut refused = Process::fanfare(&FLAGS, &[("FANFARE_LISTEN_MODE", "0600")]);
    assert!(!refused.ended().success());
    assert!(refused.err.all().join("\n").contains("is for Unix sockets"));
}
