//! The program as people run it: what it prints, what it refuses, and how it ends.

mod addresses;
mod commands;
mod signals;
mod starting;

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::PATIENCE;

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
