//! A published key set over https: its keys hold only when who hands them out can show that it is the host that was named.

use std::path::Path;
use std::sync::Arc;

use fanfare_server::config::{Config, ConfigFile, Environment, Flags};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::jwks::{ann, comes_in, key, set, token};
use crate::process::Process;
use crate::support::{TestNode, metric, wait_until};

/// Hands `body` out over TLS, with a certificate of `authority`; its address.
async fn publish(authority: &Authority, host: &str, is_expired: bool, body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(host, is_expired)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not trust the certificate ends here.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("https://localhost:{port}/keys")
}

fn toml(url: &str, authorities: Option<&Path>) -> String {
    let authorities = authorities.map_or_else(String::new, |file| format!("jwks_ca_file = {file:?}\n"));
    format!("[auth]\njwks_url = \"{url}\"\n{authorities}")
}

const HAD: &str = "fanfare_jwks_fetches_total{result=\"had\"}";
const FAILED: &str = "fanfare_jwks_fetches_total{result=\"failed\"}";

#[tokio::test]
async fn keys_of_a_host_with_a_certificate_of_the_named_authority_are_taken() {
    let (one, public) = key(1, "one");
    let authority = Authority::new();
    let url = publish(&authority, "localhost", false, set(&[&public])).await;
    let node = TestNode::serve(&toml(&url, Some(&authority.file())));
    node.wait_for_metric("fanfare_jwks_keys", 1.0).await;
    assert_eq!(comes_in(&node, &token(&one, "one")).await, ann());
}

#[tokio::test]
async fn keys_of_anybody_else_are_not() {
    let (one, public) = key(1, "one");
    let (authority, other) = (Authority::new(), Authority::new());
    let body = set(&[&public]);
    for (what, url, trusted) in [
        ("another authority", publish(&other, "localhost", false, body.clone()).await, Some(authority.file())),
        ("another host", publish(&authority, "elsewhere.example", false, body.clone()).await, Some(authority.file())),
        ("one that has expired", publish(&authority, "localhost", true, body.clone()).await, Some(authority.file())),
        ("one the system does not know", publish(&authority, "localhost", false, body.clone()).await, None),
    ] {
        let node = TestNode::serve(&toml(&url, trusted.as_deref()));
        node.wait_for_metric(FAILED, 1.0).await;
        assert_eq!(node.metric(HAD).await, 0.0, "{what}");
        assert_eq!(comes_in(&node, &token(&one, "one")).await.expect_err(what).0, 4500, "{what}");
    }
}

/// Without `jwks_ca_file` it is the system's authorities that count, wherever the system keeps them.
#[tokio::test]
async fn the_systems_authorities_vouch_where_none_is_named() {
    let (_, public) = key(1, "one");
    let authority = Authority::new();
    let url = publish(&authority, "localhost", false, set(&[&public])).await;
    let file = authority.file().display().to_string();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let process = Process::fanfare(&arguments, &[("FANFARE_AUTH__JWKS_URL", &url), ("SSL_CERT_FILE", &file)]);
    let (_, admin) = process.addresses();
    wait_until("the keys", async || metric(admin, "fanfare_jwks_keys").await > 0.0).await;
}

#[test]
fn authorities_that_vouch_for_nobody_stop_the_start() {
    let authority = Authority::new();
    authority.write("pair", &["a.example"]);
    let refused = |toml: &str| {
        let file = ConfigFile::new("test.toml", toml);
        let config = Config::serve(&Flags::default(), Some(&file), &Environment::default());
        config.expect_err("a configuration that is refused").to_string()
    };
    let https = "https://issuer.example/keys";
    for (file, why) in [("none.pem", "cannot be read"), ("pair.key", "holds no certificate in PEM")] {
        let error = refused(&toml(https, Some(&authority.path(file))));
        assert!(error.contains("test.toml:3:1: `auth.jwks_ca_file`: ") && error.contains(why), "{error}");
    }
    let error = refused(&toml("http://issuer.example/keys", Some(&authority.file())));
    assert!(error.contains("`auth.jwks_url` is not https"), "{error}");
    let alone = json!(authority.file()).to_string();
    let error = refused(&format!("[auth]\njwks_ca_file = {alone}"));
    assert!(error.contains("without `auth.jwks_url`"), "{error}");
}
