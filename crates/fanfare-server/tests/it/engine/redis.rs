//! A real Redis of a test's own, and a wire to it that can be cut.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::authority::Authority;
use crate::support::{wait_until, within};

use super::{Engine, Wire, copy_files, over};

/// A Redis on a socket in a folder of its own, which writes down what it is told before it answers. It waits for no disk: what was written
/// outlives the process, and that is all these tests end.
pub(crate) struct Redis {
    folder: TempDir,
    process: Option<Child>,
    /// What it is told besides.
    more: Vec<OsString>,
}

impl Engine for Redis {
    type Wire = RedisWire;

    fn idle() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), process: None, more: Vec::new() }
    }

    async fn run(&mut self) {
        assert!(self.runs().await, "Redis ended");
    }

    fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().expect("a process that can be killed");
        process.wait().expect("its end");
    }

    fn forget(&self) {
        std::fs::remove_dir_all(self.files()).expect("its files");
    }

    fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().expect("a folder");
        copy_files(&self.files(), copy.path());
        copy
    }

    fn restore(&self, copy: &TempDir) {
        self.forget();
        copy_files(copy.path(), &self.files());
    }

    async fn empty(&self) {
        assert!(self.ask("FLUSHALL").await.starts_with("+OK"));
    }

    fn toml(&self, more: &str) -> String {
        over("redis", &format!("unix://{}", self.socket().display()), more)
    }

    fn wire(&self) -> RedisWire {
        RedisWire::to(self)
    }
}

impl Redis {
    /// One that speaks TLS too, with the pair of this name; and at which port.
    pub(crate) async fn with_tls(authority: &Authority, name: &str) -> (Self, u16) {
        loop {
            // Redis takes no port from the kernel: if somebody else gets this one first, it ends, and another is tried.
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = listener.local_addr().expect("its address").port();
            drop(listener);
            let mut redis = Self::idle();
            redis.more = ["--bind", "127.0.0.1", "--tls-auth-clients", "no", "--tls-port"].map(OsString::from).into();
            redis.more.push(port.to_string().into());
            for (flag, file) in [
                ("--tls-cert-file", authority.path(&format!("{name}.pem"))),
                ("--tls-key-file", authority.path(&format!("{name}.key"))),
                ("--tls-ca-cert-file", authority.file()),
            ] {
                redis.more.extend([flag.into(), file.into()]);
            }
            if redis.runs().await {
                return (redis, port);
            }
        }
    }

    /// Runs it; false when it ended instead.
    async fn runs(&mut self) -> bool {
        assert!(self.process.is_none(), "it runs already");
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new(&program);
        let socket = self.socket();
        command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "no", "--unixsocket"]);
        command.arg(&socket).arg("--dir").arg(self.folder.path()).args(&self.more);
        command.stdout(Stdio::null()).stdin(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!(
                "this test needs a Redis, and {program} cannot be started: {error}. Get it with `tools/need redis-server` (make \
                 test does), or name one in REDIS_SERVER"
            )
        });
        let child = self.process.insert(child);
        let mut has_ended = false;
        wait_until("Redis to answer", async || {
            has_ended = child.try_wait().expect("a child of ours").is_some();
            has_ended || (UnixStream::connect(&socket).await.is_ok() && ask(&socket, "PING").await.starts_with("+PONG"))
        })
        .await;
        !has_ended
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    fn files(&self) -> PathBuf {
        self.folder.path().join("appendonlydir")
    }

    /// One command, and the beginning of its answer.
    pub(crate) async fn ask(&self, command: &str) -> String {
        ask(&self.socket(), command).await
    }
}

async fn ask(socket: &Path, command: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.expect("a running Redis");
    stream.write_all(format!("{command}\r\n").as_bytes()).await.expect("an open connection");
    let mut answer = vec![0; 64 * 1024];
    let count = within("an answer of Redis", stream.read(&mut answer)).await.expect("an open connection");
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A wire to a Redis: one node's way to it, which can be cut while others go on.
pub(crate) struct RedisWire {
    folder: TempDir,
    redis: PathBuf,
    calls: Arc<Mutex<JoinSet<()>>>,
    listening: Option<tokio::task::JoinHandle<()>>,
}

impl RedisWire {
    fn to(redis: &Redis) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut wire = Self { folder, redis: redis.socket(), calls: Arc::default(), listening: None };
        wire.mend();
        wire
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("wire.sock")
    }
}

impl Wire for RedisWire {
    fn toml(&self, more: &str) -> String {
        over("redis", &format!("unix://{}", self.socket().display()), more)
    }

    fn mend(&mut self) {
        let listener = UnixListener::bind(self.socket()).expect("a socket");
        let (redis, calls) = (self.redis.clone(), self.calls.clone());
        self.listening = Some(tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let Ok(mut far) = UnixStream::connect(&redis).await else { continue };
                let mut calls = calls.lock();
                // Those that have ended need not be kept.
                while calls.try_join_next().is_some() {}
                calls.spawn(async move { _ = copy_bidirectional(&mut near, &mut far).await });
            }
        }));
    }

    async fn cut(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            // It ends at its next step, and its listener with it.
            let _ = listening.await;
        }
        std::fs::remove_file(self.socket()).expect("a socket");
        self.drop_calls().await;
    }

    async fn drop_calls(&self) {
        let mut calls = std::mem::take(&mut *self.calls.lock());
        calls.shutdown().await;
    }
}
