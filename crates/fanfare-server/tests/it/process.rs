//! The program as people run it: what it prints, what it refuses, and how it ends.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{PATIENCE, Unused, own_address};

const FANFARE: &str = env!("CARGO_BIN_EXE_fanfare");

/// For those whose clients are sockets that answer no ping: on a slow machine they would be given up in the middle of a test.
pub(crate) const NO_PINGS: (&str, &str) = ("FANFARE_HEARTBEAT__PING_MS", "3600000");

/// A program that runs, and what it has printed. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    /// Its working folder, where that was made for it.
    _folder: Option<TempDir>,
    pub(crate) out: Lines,
    pub(crate) err: Lines,
}

/// The lines of one output so far.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<(Mutex<Printed>, Condvar)>);

#[derive(Default)]
struct Printed {
    lines: Vec<String>,
    has_ended: bool,
}

impl Lines {
    fn follow(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let printed = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                printed.0.0.lock().lines.push(line);
                printed.0.1.notify_all();
            }
            printed.0.0.lock().has_ended = true;
            printed.0.1.notify_all();
        });
        lines
    }

    /// Waits for a line that contains all of `words`.
    pub(crate) fn wait_for(&self, words: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        let (printed, more) = &*self.0;
        let mut printed = printed.lock();
        loop {
            if let Some(line) = printed.lines.iter().find(|line| words.iter().all(|word| line.contains(word))) {
                return line.clone();
            }
            let is_late = more.wait_until(&mut printed, deadline).timed_out();
            assert!(!is_late && !printed.has_ended, "no line with {words:?} in {:#?}", printed.lines);
        }
    }

    /// Everything, once the program has closed this output.
    pub(crate) fn all(&self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let (printed, more) = &*self.0;
        let mut printed = printed.lock();
        while !printed.has_ended {
            assert!(!more.wait_until(&mut printed, deadline).timed_out(), "the output did not end");
        }
        printed.lines.clone()
    }

    pub(crate) fn so_far(&self) -> Vec<String> {
        self.0.0.lock().lines.clone()
    }
}

impl Process {
    /// `fanfare` with these arguments and variables, in an empty folder.
    pub(crate) fn fanfare(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = folder();
        let mut process = Self::spawn(fanfare(folder.path()).args(arguments).envs(variables.iter().copied()));
        process._folder = Some(folder);
        process
    }

    /// The same, with so many bytes of address space from its first instruction on: beyond, an allocation fails, and it aborts.
    pub(crate) fn within_memory(bytes: usize, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = folder();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(r#"ulimit -v {} && exec "$0" "$@""#, bytes / 1024)).arg(FANFARE).args(arguments);
        command.current_dir(folder.path()).envs(variables.iter().copied());
        let mut process = Self::spawn(&mut command);
        process._folder = Some(folder);
        process
    }

    /// `fanfare` with a socket that systemd would have opened for it, under this name.
    pub(crate) fn activated(name: &str, socket: OwnedFd, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = folder();
        let mut command = Command::new("sh");
        // The shell's process becomes the program's: so it is its number that the variable names.
        command.arg("-c").arg(r#"export LISTEN_PID=$$; exec "$0" "$@" 3<&0 0</dev/null"#).arg(FANFARE).args(arguments);
        command.current_dir(folder.path()).envs(variables.iter().copied());
        command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
        let mut process = Self::spawn_with(&mut command, Stdio::from(socket));
        process._folder = Some(folder);
        process
    }

    fn spawn(command: &mut Command) -> Self {
        Self::spawn_with(command, Stdio::null())
    }

    fn spawn_with(command: &mut Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let out = Lines::follow(child.stdout.take().expect("a pipe"));
        let err = Lines::follow(child.stderr.take().expect("a pipe"));
        Self { child, _folder: None, out, err }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a living process").count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a living process");
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end; it said {:#?}", self.err.so_far());
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// Where a server listens for clients, and where for the API, as its log says.
    pub(crate) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let of = |words: &str| {
            let line = self.err.wait_for(&[words]);
            let word = line.split_once(words).and_then(|(_, rest)| rest.split(' ').next());
            word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no address in {line}"))
        };
        (of("clients on "), of("health, metrics and API on "))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, with nothing of the tests' own environment that would configure it.
fn fanfare(folder: &Path) -> Command {
    let mut command = Command::new(FANFARE);
    command.current_dir(folder);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FANFARE_")) {
        command.env_remove(name);
    }
    command
}

/// Runs the program to its end.
struct Finished {
    code: Option<i32>,
    out: String,
    err: String,
}

fn finished(command: &mut Command) -> Finished {
    let mut process = Process::spawn(command);
    let code = process.ended().code();
    Finished { code, out: process.out.all().join("\n"), err: process.err.all().join("\n") }
}

fn run(folder: &Path, arguments: &[&str]) -> Finished {
    finished(fanfare(folder).args(arguments))
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// One plain request; the answer's status and body.
fn get(mut stream: impl Read + std::io::Write, path: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("an open connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

fn get_from(address: SocketAddr, path: &str) -> (u16, String) {
    get(TcpStream::connect(address).expect("a listener"), path)
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A WebSocket handshake by hand, on a socket that blocks.
fn upgrade(address: SocketAddr, path: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(crate::support::handshake(path, address, "").as_bytes()).expect("an open connection");
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).expect("a status line");
    assert!(line.starts_with("HTTP/1.1 101 "), "{line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).expect("a header");
    }
    stream
}

/// Waits until the gateway counts so many: a handshake is answered a moment before its connection is one.
fn wait_for_connections(admin: SocketAddr, count: usize) {
    let sample = format!("\nfanfare_connections {count}\n");
    wait_until("the connections to be counted", || get_from(admin, "/metrics").1.contains(&sample));
}

fn close_code(stream: &mut impl Read) -> u16 {
    let mut header = [0; 4];
    stream.read_exact(&mut header).expect("a close frame");
    assert_eq!(header[0], 0x88, "a close frame");
    u16::from_be_bytes([header[2], header[3]])
}

const DEV: &[&str] = &["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
const SERVE: &[&str] = &["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

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
fn serve_says_what_it_listens_on_and_leaves_with_0_when_told() {
    for signal in [Signal::TERM, Signal::INT] {
        let quick = [("FANFARE_DRAIN__GRACE_MS", "0"), ("FANFARE_DRAIN__WINDOW_MS", "300")];
        let mut serve = Process::fanfare(SERVE, &quick);
        let (clients, admin) = serve.addresses();
        wait_until("it to be ready", || get_from(admin, "/readyz").0 == 200);
        let mut client = upgrade(clients, "/room/a?format=text");
        wait_for_connections(admin, 1);
        serve.signal(signal);
        assert_eq!(close_code(&mut client), 1012);
        // It answers, as a browser does, and is let go before its time is up.
        client.get_mut().write_all(&crate::support::close_frame(1012, "")).expect("an open connection");
        assert_eq!(serve.ended().code(), Some(0));
        let said = serve.err.all().join("\n");
        for word in ["leaving service", "connections=1", "listener closed", "left service", "cut=0"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}

/// Its first line is a promise: from then on it can be told to leave, and will do so in good order.
#[test]
fn a_signal_right_after_the_start_is_not_too_early() {
    for _ in 0..5 {
        let mut serve = Process::fanfare(SERVE, &[("FANFARE_DRAIN__GRACE_MS", "0")]);
        serve.err.wait_for(&["clients on "]);
        serve.signal(Signal::TERM);
        assert_eq!(serve.ended().code(), Some(0), "{:#?}", serve.err.so_far());
    }
}

#[test]
fn further_signals_hurry_out_of_the_grace_and_out_of_the_window() {
    for (grace, window, said, half) in [
        ("3600000", "3600000", "leaving service", "all closed in 3"),
        ("0", "3600000", "listener closed", "all closed in 1"),
    ] {
        let slow = [
            ("FANFARE_DRAIN__GRACE_MS", grace),
            ("FANFARE_DRAIN__WINDOW_MS", window),
            ("FANFARE_HEARTBEAT__CLOSE_MS", "300"),
        ];
        let mut serve = Process::fanfare(SERVE, &slow);
        let (clients, admin) = serve.addresses();
        // Two, so that the pace of an hour has closed one of them at the most.
        let mut held = [upgrade(clients, "/room/a?format=text"), upgrade(clients, "/room/a?format=text")];
        wait_for_connections(admin, 2);
        serve.signal(Signal::TERM);
        serve.err.wait_for(&[said]);
        assert_eq!(get_from(admin, "/readyz").0, 503);
        assert_eq!(get_from(admin, "/livez").0, 200);
        assert!(serve.is_running());
        serve.signal(Signal::TERM);
        // Half of what was left; half of a half, and so on, leaves nothing at last.
        serve.err.wait_for(&["told to hurry", half]);
        while serve.is_running() {
            serve.signal(Signal::TERM);
            thread::sleep(Duration::from_millis(2));
        }
        for client in &mut held {
            assert_eq!(close_code(client), 1012);
        }
        drop(held);
        assert_eq!(serve.ended().code(), Some(0));
        assert!(serve.err.all().join("\n").contains("left service"));
    }
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
