//! Several certificates on one listener: each client is shown that of the name it asks for, and all of them are renewed together or not at all.
#![expect(
    clippy::large_futures,
    reason = "TLS under a WebSocket keeps its buffers in the future; a test has few of them"
)]

use std::fs;
use std::net::SocketAddr;

use fanfare_server::config::{Config, ConfigFile, Environment, Flags};
use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::Signal;
use rustls::SupportedProtocolVersion;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::authority::Authority;
use crate::process::Process;
use crate::support::{TestNode, wait_until, within};

/// The configuration of a listener whose first pair is `names[0]`.
fn toml(authority: &Authority, names: &[&str]) -> String {
    let mut toml = format!("[tls]\n{}", Authority::keys(authority.folder.path(), names[0]));
    for name in &names[1..] {
        toml += &format!("[[tls.certificates]]\n{}", Authority::keys(authority.folder.path(), name));
    }
    toml
}

/// What is shown to who asks for `host`, which it must be for, by an authority that is trusted.
async fn shown(
    authority: &Authority,
    to: SocketAddr,
    host: &str,
    version: &'static SupportedProtocolVersion,
) -> Result<CertificateDer<'static>, String> {
    let stream = authority.connect(to, host, version).await.map_err(|error| error.to_string())?;
    Ok(stream.get_ref().1.peer_certificates().expect("a chain")[0].clone().into_owned())
}

#[tokio::test]
async fn everybody_is_shown_the_certificate_of_the_name_asked_for() {
    let authority = Authority::new();
    let first = authority.write("first", &["gateway.example", "127.0.0.1"]);
    let chat = authority.write("chat", &["chat.example", "talk.example"]);
    let shops = authority.write("shops", &["*.shop.example"]);
    let node = TestNode::dev(&toml(&authority, &["first", "chat", "shops"]));
    for version in [&TLS12, &TLS13] {
        for (host, expected) in [
            ("gateway.example", &first),
            ("chat.example", &chat),
            ("talk.example", &chat),
            ("pay.shop.example", &shops),
            // Who asks for no name.
            ("127.0.0.1", &first),
        ] {
            assert!(shown(&authority, node.clients, host, version).await.as_ref() == Ok(expected), "{host}");
        }
        // Shown the first one, which is not for these: the client says so.
        for host in ["other.example", "shop.example", "a.b.shop.example"] {
            let refused = shown(&authority, node.clients, host, version).await.expect_err(host);
            assert!(refused.contains("not valid for name"), "{host}: {refused}");
        }
    }
    // And a conversation under one of them.
    let stream = authority.connect(node.clients, "talk.example", &TLS13).await.expect("TLS");
    let opened = client_async("ws://talk.example/echo", stream);
    let (mut socket, _) = within("a handshake", opened).await.expect("a connection");
    socket.send(Message::text("hello")).await.expect("open");
    assert_eq!(within("an echo", socket.next()).await.expect("an echo").expect("no failure"), Message::text("hello"));
}

#[tokio::test]
async fn all_are_renewed_together_or_none_is() {
    let authority = Authority::new();
    authority.write("first", &["gateway.example"]);
    let chat = authority.write("chat", &["chat.example"]);
    let shop = authority.write("shop", &["shop.example"]);
    let node = TestNode::dev(&toml(&authority, &["first", "chat", "shop"]));
    let stream = authority.connect(node.clients, "shop.example", &TLS13).await.expect("TLS");
    let opened = client_async("ws://shop.example/echo", stream);
    let (mut inside, _) = within("a handshake", opened).await.expect("a connection");

    // A good pair and one that does not fit: both stay as they were.
    let new_chat = authority.write("chat", &["chat.example"]);
    fs::copy(authority.path("chat.key"), authority.path("shop.key")).expect("a file");
    let refused = node.hub.reload_certificates().expect_err("a key of another certificate");
    assert!(refused.contains("shop.pem and") && refused.contains("shop.key"), "{refused}");
    assert!(shown(&authority, node.clients, "chat.example", &TLS13).await.as_ref() == Ok(&chat));
    assert!(shown(&authority, node.clients, "shop.example", &TLS13).await.as_ref() == Ok(&shop));
    // One that is for nobody would never be shown.
    authority.write("shop", &["127.0.0.1"]);
    assert!(node.hub.reload_certificates().expect_err("no name").contains("is for no host"));
    assert!(shown(&authority, node.clients, "chat.example", &TLS13).await.as_ref() == Ok(&chat));

    let new_shop = authority.write("shop", &["shop.example", "store.example"]);
    assert_eq!(node.hub.reload_certificates(), Ok(true));
    assert_eq!(node.hub.reload_certificates(), Ok(false), "nothing has changed since");
    assert!(shown(&authority, node.clients, "chat.example", &TLS13).await.as_ref() == Ok(&new_chat));
    for host in ["shop.example", "store.example"] {
        assert!(shown(&authority, node.clients, host, &TLS12).await.as_ref() == Ok(&new_shop), "{host}");
    }
    inside.send(Message::text("still here")).await.expect("open");
    let echo = within("an echo", inside.next()).await.expect("an echo").expect("no failure");
    assert_eq!(echo, Message::text("still here"));
}

#[tokio::test]
async fn a_reload_of_the_configuration_adds_a_name_and_takes_one_away() {
    let authority = Authority::new();
    for name in ["first", "old", "new"] {
        authority.write(name, &[&format!("{name}.example")]);
    }
    let file = authority.path("fanfare.toml");
    fs::write(&file, toml(&authority, &["first", "old"])).expect("a file");
    let path = file.display().to_string();
    let arguments = ["serve", "--config", &path, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let process = Process::fanfare(&arguments, &[]);
    let (clients, _) = process.addresses();
    assert!(shown(&authority, clients, "old.example", &TLS13).await.is_ok());
    assert!(shown(&authority, clients, "new.example", &TLS13).await.is_err());
    fs::write(authority.path("next.toml"), toml(&authority, &["first", "new"])).expect("a file");
    fs::rename(authority.path("next.toml"), &file).expect("a file");
    process.signal(Signal::HUP);
    wait_until("the new name", async || shown(&authority, clients, "new.example", &TLS13).await.is_ok()).await;
    assert!(shown(&authority, clients, "old.example", &TLS13).await.is_err());
    assert!(shown(&authority, clients, "first.example", &TLS13).await.is_ok());
}

#[test]
fn what_is_wrong_with_one_of_them_stops_the_start_and_is_named() {
    let authority = Authority::new();
    authority.write("first", &["first.example"]);
    authority.write("second", &["second.example"]);
    authority.write("nameless", &["127.0.0.1"]);
    fs::copy(authority.path("first.key"), authority.path("mixed.key")).expect("a file");
    fs::copy(authority.path("second.pem"), authority.path("mixed.pem")).expect("a file");
    let refused = |toml: &str| {
        let file = ConfigFile::new("test.toml", toml);
        let config = Config::serve(&Flags::default(), Some(&file), &Environment::default());
        config.expect_err("a configuration that is refused").to_string()
    };
    for (names, words) in [
        (
            &["first", "second", "none"][..],
            &["test.toml:4:", "`tls.certificates`, entry 2: ", "none.pem: No such file"][..],
        ),
        (&["first", "mixed"], &["`tls.certificates`, entry 1: ", "mixed.pem and ", "mixed.key"]),
        (&["first", "nameless"], &["`tls.certificates`, entry 1: ", "is for no host"]),
    ] {
        let error = refused(&toml(&authority, names));
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let alone = toml(&authority, &["first", "second"]).replacen("[tls]\ncert", "[diagnostics]\n# cert", 1);
    let error = refused(&alone.replacen("\nkey", "\n# key", 1));
    assert!(error.contains("`tls.certificates` is given without `tls.certificate`"), "{error}");
    let error = refused("tls.certificates = [\"a.pem\"]");
    assert!(error.contains("`tls.certificates` must be a list of tables"), "{error}");
}
