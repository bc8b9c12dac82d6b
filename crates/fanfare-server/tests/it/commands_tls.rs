//! The commands over TLS: whom they take for the gateway, and what they say of anybody else.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use fanfare_client::{CloseCode, ConnectOptions, Incoming, Trust, Url, connect};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::process::Process;
use crate::support::{TestNode, wait_until, within};

/// Ends TLS for what listens at `to`, as a proxy does, with a certificate of `authority` for `host`; its port.
async fn front(authority: &Authority, host: &str, is_expired: bool, to: SocketAddr) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(host, is_expired)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Who does not trust the certificate ends here, and who comes when nobody is behind it.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let Ok(mut behind) = TcpStream::connect(to).await else { return };
                _ = copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    port
}

/// What a command that has ended printed.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    said(Process::fanfare(arguments, variables)).await
}

/// Waits without holding this thread up: the proxy is on it.
async fn said(mut process: Process) -> Said {
    wait_until("the command to end", async || !process.is_running()).await;
    Said { code: process.ended().code(), out: process.out.all().join("\n"), err: process.err.all().join("\n") }
}

fn tls(authority: &Authority, name: &str) -> String {
    format!("[tls]\n{}", Authority::keys(authority.folder.path(), name))
}

fn words(path: &Path) -> String {
    path.display().to_string()
}

/// The gateway ends TLS itself, and shows its second certificate: so it was told a name.
#[tokio::test]
async fn sub_and_pub_speak_tls_with_the_gateway_and_say_whom_they_ask_for() {
    let authority = Authority::new();
    authority.write("first", &["first.example"]);
    authority.write("second", &["localhost"]);
    let second = Authority::keys(authority.folder.path(), "second");
    let node = TestNode::dev(&format!(
        "{}[[tls.certificates]]\n{second}[api]\non_client_listener = true\nkeys = [\"0123456789abcdef\"]",
        tls(&authority, "first")
    ));
    let port = node.clients.port();
    let ca = words(&authority.file());
    let sub = Process::fanfare(&["sub", "lobby", "--url", &format!("wss://localhost:{port}"), "--ca", &ca], &[]);
    wait_until("the room to be entered", async || node.occupancy("lobby") == 1).await;
    let https = format!("https://localhost:{port}");
    // As long as many records.
    let long = "x".repeat(50_000);
    for (message, receipt) in
        [("hello", "delivered 1, dropped 0, evicted 0"), (&long, "delivered 1, dropped 0, evicted 0")]
    {
        let key = ["--key", "0123456789abcdef", "--ca", &ca];
        let done = run(&[&["pub", "lobby", message, "--url", &https][..], &key].concat(), &[]).await;
        assert!(done.code == Some(0) && done.out.starts_with(receipt), "{done:?}");
    }
    wait_until("the messages", async || sub.out.so_far().len() == 2).await;
    assert_eq!(sub.out.so_far(), ["hello", &long]);
    assert_eq!(sub.err.so_far(), [format!("fanfare: connected to wss://localhost:{port}/room/lobby")]);
    // By address there is no name to tell, and it is the first one that is shown.
    let other = run(&["sub", "lobby", "--url", &format!("wss://127.0.0.1:{port}"), "--ca", &ca], &[]).await;
    assert!(other.code == Some(1) && other.err.contains("not for this name"), "{other:?}");
    assert!(other.err.contains("first.example"), "{other:?}");
}

/// The admin listener has no TLS of its own: something that ends it stands in front.
#[tokio::test]
async fn top_why_and_drain_speak_tls_with_what_stands_before_the_admin_listener() {
    let authority = Authority::new();
    let mut gateway = Process::fanfare(
        &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        &[("FANFARE_API__KEYS", "0123456789abcdef"), ("FANFARE_DRAIN__GRACE_MS", "0")],
    );
    let (_, admin) = gateway.addresses();
    let url = format!("https://localhost:{}", front(&authority, "localhost", false, admin).await);
    let ca = words(&authority.file());
    let gateway_args = ["--url", &url, "--key", "0123456789abcdef", "--ca", &ca];
    for (command, expected) in [
        (&["top", "--once", "--interval", "100ms"][..], "connections 0"),
        (&["why"], "Closed since the start 0"),
        (&["drain", "--window", "1s"], "the gateway has left service"),
    ] {
        let done = run(&[command, &gateway_args].concat(), &[]).await;
        assert!(done.code == Some(0) && done.out.contains(expected), "{done:?}");
    }
    wait_until("the gateway to end", async || !gateway.is_running()).await;
    assert_eq!(gateway.ended().code(), Some(0));
}

#[tokio::test]
async fn nobody_else_is_taken_for_the_gateway() {
    let node = TestNode::dev("");
    let (authority, other) = (Authority::new(), Authority::new());
    let (ca, stranger) = (words(&authority.file()), words(&other.file()));
    let ours = front(&authority, "localhost", false, node.admin).await;
    let elsewhere = front(&authority, "elsewhere.example", false, node.admin).await;
    let expired = front(&authority, "localhost", true, node.admin).await;
    for (what, port, file, expected) in [
        ("another authority", ours, Some(&stranger), &["no authority that is trusted here", "--ca"][..]),
        ("one the system does not know", ours, None, &["no authority that is trusted here", "--ca"]),
        ("another name", elsewhere, Some(&ca), &["is not for this name", "elsewhere.example"]),
        ("one that has expired", expired, Some(&ca), &["its certificate expired", "days ago: renew it"]),
    ] {
        let url = format!("https://localhost:{port}");
        let file = file.map_or_else(Vec::new, |file| vec!["--ca", file.as_str()]);
        // The system trusts the other one.
        let system = [("SSL_CERT_FILE", stranger.as_str())];
        for command in [&["pub", "lobby", "hi"][..], &["top", "--once"], &["why"], &["drain"], &["sub", "lobby"]] {
            let done = run(&[command, &["--url", &url], &file].concat(), &system).await;
            assert!(done.code == Some(1) && done.out.is_empty(), "{what}: {done:?}");
            assert!(done.err.starts_with(&format!("fanfare: no TLS with localhost:{port}: ")), "{what}: {done:?}");
            assert!(expected.iter().all(|words| done.err.contains(words)), "{what}: {done:?}");
        }
    }
    // Nothing of a request went to any of them.
    assert_eq!(node.metric("fanfare_published_total").await, 0.0);
    // The system's own authorities vouch where none is named; and without any it does not matter who it is, which is told.
    let url = format!("https://localhost:{ours}");
    let done = run(&["pub", "lobby", "hi", "--url", &url], &[("SSL_CERT_FILE", &ca)]).await;
    assert!(done.code == Some(0) && done.err.is_empty(), "{done:?}");
    let expired = format!("https://localhost:{expired}");
    let done = run(&["pub", "lobby", "hi", "--insecure", "--url", &expired], &[]).await;
    assert!(done.code == Some(0) && done.out.starts_with("delivered 0"), "{done:?}");
    assert!(done.err.starts_with("fanfare: WARNING: --insecure: "), "{done:?}");
}

#[tokio::test]
async fn a_scheme_that_is_not_spoken_there_is_told() {
    let authority = Authority::new();
    authority.write("pair", &["localhost"]);
    let sealed_node = TestNode::dev(&tls(&authority, "pair"));
    let plain_node = TestNode::dev("");
    let ca = words(&authority.file());
    let missing = words(&authority.path("none.pem"));
    let key = words(&authority.path("pair.key"));
    let (sealed, plain) = (sealed_node.clients.port(), plain_node.clients.port());
    for (command, scheme, port, flags, expected) in [
        ("sub", "ws", sealed, &[][..], "use wss:// or https://"),
        ("pub", "http", sealed, &[], "use wss:// or https://"),
        ("sub", "wss", plain, &["--ca", &ca], "does not speak TLS: use ws:// or http://"),
        ("pub", "https", plain, &["--ca", &ca], "does not speak TLS: use ws:// or http://"),
        ("sub", "ws", plain, &["--ca", &ca], "--ca says something about TLS"),
        ("pub", "http", plain, &["--insecure"], "--insecure says something about TLS"),
        ("sub", "wss", sealed, &["--ca", &missing], "none.pem cannot be read: "),
        ("pub", "https", sealed, &["--ca", &key], "holds no certificate in PEM"),
    ] {
        let message: &[&str] = if command == "pub" { &["hi"] } else { &[] };
        let url = format!("{scheme}://localhost:{port}");
        let done = run(&[&[command, "lobby"], message, &["--url", &url], flags].concat(), &[]).await;
        assert!(done.code == Some(1) && done.err.contains(expected), "{command} {url} {flags:?}: {done:?}");
        assert_eq!(done.err.lines().count(), 1, "{done:?}");
    }
}

/// More than sockets hold, both ways at once: nothing of it may stay in TLS.
#[tokio::test]
async fn the_client_library_writes_and_reads_over_tls() {
    const COUNT: usize = 300;
    let authority = Authority::new();
    authority.write("pair", &["localhost"]);
    let node = TestNode::dev(&tls(&authority, "pair"));
    let url = format!("wss://localhost:{}/echo", node.clients.port());
    let mut options = ConnectOptions::new(Url::parse(&url).expect("an address"));
    options.trust = Some(Trust::of_file(&authority.file()).expect("an authority"));
    let mut connection = within("a connection", connect(&options)).await.expect("a connection");
    assert_eq!(connection.peer_addr().expect("an open connection"), node.clients);
    let text = |number: usize| format!("{number} {}", "x".repeat(60_000));
    // All of it is queued before anything is read.
    (0..COUNT).for_each(|number| connection.queue_text(&text(number)).expect("an open connection"));
    for number in 0..COUNT {
        let echo = within("an echo", connection.next()).await.expect("an open connection");
        assert!(echo == Incoming::Text(text(number)), "echo {number}");
    }
    let (code, _) = within("the end", connection.close(CloseCode(1000), "")).await.expect("a close handshake");
    assert_eq!(code, CloseCode(1000));
}
