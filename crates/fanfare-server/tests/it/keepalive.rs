//! HTTP/1.1 on connections that are kept, on both listeners, over TCP and Unix sockets.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use crate::process::Process;
use crate::support::{PATIENCE, Raw, TestNode};

/// One request on a kept connection; status, whether it is to be closed, and body.
fn ask<S: Read + Write>(stream: &mut BufReader<S>, first: &str, headers: &str, body: &str) -> (u16, bool, String) {
    let length = body.len();
    let request = format!("{first}\r\nHost: h\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    stream.get_mut().write_all(request.as_bytes()).expect("an open connection");
    let (mut status, mut length, mut closes) = (0, 0, false);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a head");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest[..3].parse().expect("a status");
        } else if let Some(rest) = line.strip_prefix("content-length: ") {
            length = rest.parse().expect("a length");
        } else if line == "connection: close" {
            closes = true;
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    (status, closes, String::from_utf8(body).expect("UTF-8"))
}

/// Many calls on one connection, refused ones among them; the last asks for its end.
fn many_calls<S: Read + Write>(stream: S) {
    let mut stream = BufReader::new(stream);
    let key = "Authorization: Bearer a-key\r\n";
    for n in 0..20 {
        let text = format!("{key}Content-Type: text/plain\r\n");
        let (status, closes, body) = ask(&mut stream, "POST /api/publish?room=a HTTP/1.1", &text, &n.to_string());
        assert_eq!((status, closes), (200, false), "{body}");
        let (status, closes, _) = ask(&mut stream, "POST /api/publish HTTP/1.1", key, "no JSON");
        assert_eq!((status, closes), (400, false));
        let (status, closes, _) = ask(&mut stream, "GET /api/rooms HTTP/1.1", "", "");
        assert_eq!((status, closes), (401, false));
    }
    let close = format!("{key}Connection: close\r\n");
    let (status, closes, body) = ask(&mut stream, "GET /api/rooms HTTP/1.1", &close, "");
    assert_eq!((status, closes), (200, true), "{body}");
    assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
}

#[test]
fn many_calls_go_over_one_connection_of_every_kind() {
    let folder = tempfile::tempdir().expect("a folder");
    let [clients, admin] = ["clients", "admin"].map(|name| folder.path().join(name));
    let unix = [&clients, &admin].map(|path| format!("unix:{}", path.display()));
    let variables = [
        ("FANFARE_API__KEYS", "a-key"),
        ("FANFARE_API__ON_CLIENT_LISTENER", "true"),
        ("FANFARE_DRAIN__WINDOW_MS", "0"),
    ];
    let over_unix = Process::fanfare(&["serve", "--listen", &unix[0], "--admin", &unix[1]], &variables);
    over_unix.err.wait_for(&["API on"]);
    for path in [clients, admin] {
        let stream = UnixStream::connect(path).expect("a listener");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        many_calls(stream);
    }
    let over_tcp = Process::fanfare(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &variables);
    let (clients, admin) = over_tcp.addresses();
    for address in [clients, admin] {
        let stream = TcpStream::connect(address).expect("a listener");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        many_calls(stream);
    }
}

#[tokio::test]
async fn a_kept_connection_is_ended_when_nothing_is_asked_for_too_long() {
    // Each of the two has to come within that time.
    let node = TestNode::dev("[limits]\nhandshake_ms_max = 1500");
    for address in [node.admin, node.clients] {
        let mut raw = Raw::open(address).await;
        for _ in 0..2 {
            raw.send(b"GET /fanfare.js HTTP/1.1\r\nHost: h\r\n\r\n").await;
            raw.answer().await;
        }
        // Whether 408 is said first is up to the library.
        raw.rest().await;
    }
}
