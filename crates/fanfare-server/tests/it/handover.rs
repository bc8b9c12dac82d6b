//! An upgrade on one machine: the listeners go from process to process, and nobody is refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::process::Process;
use crate::support::{PATIENCE, Raw, handshake, until_ready, wait_until, within};

/// Upgrades under load; `make upgrades` asks for ten.
fn upgrades() -> usize {
    std::env::var("FANFARE_TEST_UPGRADES").ok().and_then(|count| count.parse().ok()).unwrap_or(2)
}

const READY: &str = "a successor may take the listeners over";

fn node(path: &str, listen: &str, shards: &str) -> Process {
    let variables = [
        ("FANFARE_HANDOVER", path),
        ("FANFARE_DRAIN__GRACE_MS", "60000"),
        ("FANFARE_DRAIN__WINDOW_MS", "200"),
        ("FANFARE_HEARTBEAT__CLOSE_MS", "500"),
    ];
    Process::fanfare(&["serve", "--listen", listen, "--admin", "127.0.0.1:0", "--shards", shards], &variables)
}

/// A connection from its beginning to the answer of its handshake.
async fn connect(address: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
    let asked = handshake("/room/a?format=text", address, "");
    stream.write_all(asked.as_bytes()).await.map_err(|error| format!("write: {error}"))?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.map_err(|error| format!("read: {error}"))?;
    if status == *b"HTTP/1.1 101" { Ok(()) } else { Err(String::from_utf8_lossy(&status).into_owned()) }
}

/// 500 connects a second until told to stop: what went wrong.
async fn knock_until(stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>, address: SocketAddr) -> Vec<String> {
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    let mut under_way = tokio::task::JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let answered = answered.clone();
        under_way.spawn(async move {
            let connected = tokio::time::timeout(PATIENCE, connect(address)).await;
            answered.fetch_add(1, Ordering::Relaxed);
            connected.unwrap_or_else(|_| Err("no answer".to_owned()))
        });
    }
    under_way.join_all().await.into_iter().filter_map(Result::err).collect()
}

#[tokio::test]
async fn nobody_is_refused_while_processes_take_over_from_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("handover").display().to_string();
    let mut old = node(&path, "127.0.0.1:0", "2");
    let (clients, admin) = old.addresses();
    old.err.wait_for(&[READY]);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // On a thread of its own: this one waits for what processes print.
    let knocking = {
        let (stop, answered) = (stop.clone(), answered.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(knock_until(stop, answered, clients))
        })
    };
    for upgrade in 0..upgrades() {
        let mut guest = Raw::open(clients).await;
        guest.send(handshake("/room/b?format=text", clients, "").as_bytes()).await;
        assert_eq!(guest.head().await.status, 101);
        let new = node(&path, &clients.to_string(), "2");
        assert_eq!(new.addresses(), (clients, admin), "upgrade {upgrade}");
        new.err.wait_for(&[READY]);
        // The old process leaves without its grace, in good manners, and the new one is ready in its place at once.
        while guest.frame().await.first != 0x88 {}
        drop(guest);
        until_ready(admin).await;
        assert!(old.ended().success(), "{:#?}", old.err.so_far());
        let said = old.err.all().join("\n");
        assert!(said.contains("another process has taken the listeners over"), "{said}");
        old = new;
        let so_far = answered.load(Ordering::Relaxed);
        wait_until("a load on the new process", async || answered.load(Ordering::Relaxed) > so_far + 100).await;
    }
    stop.store(true, Ordering::Relaxed);
    let failures = within("the last connections", async {
        tokio::task::spawn_blocking(|| knocking.join().expect("a thread")).await.expect("a task")
    })
    .await;
    let some = &failures[..failures.len().min(5)];
    let count = answered.load(Ordering::Relaxed);
    assert!(failures.is_empty(), "{} of {count} connections failed: {some:?}", failures.len());
    let accepted = crate::support::metric(admin, "fanfare_handshakes_total{result=\"accepted\"}").await;
    assert!(accepted > 0.0, "the last process has served too");
}

#[tokio::test]
async fn a_successor_that_does_not_begin_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("handover");
    let text = path.display().to_string();
    let old = node(&text, "127.0.0.1:0", "2");
    let (clients, admin) = old.addresses();
    old.err.wait_for(&[READY]);
    // One that takes the listeners and dies, and one that says something else.
    for words in [&b""[..], b"something\n"] {
        let mut stream = UnixStream::connect(&path).await.expect("a listener");
        let mut greeting = [0; 21];
        within("a greeting", stream.read_exact(&mut greeting)).await.expect("a greeting");
        assert_eq!(&greeting[..20], b"fanfare listeners 1\n");
        stream.write_all(words).await.expect("an open connection");
    }
    // One with too few shards, and one that is to listen elsewhere.
    for (listen, shards, why) in [
        ("127.0.0.1:0", "1", "2 listeners were passed, but there are 1 shards"),
        ("127.0.0.1:9", "2", "to change the address"),
    ] {
        let mut refused = node(&text, listen, shards);
        assert!(!refused.ended().success());
        let said = refused.err.all().join("\n");
        assert!(said.contains(why), "{said}");
    }
    for _ in 0..20 {
        connect(clients).await.expect("a node that serves on");
    }
    until_ready(admin).await;
    old.err.wait_for(&["the listeners were not handed over"]);
}
