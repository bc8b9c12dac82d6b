//! The node itself: where it listens and what it logs, pages for trying it out, and how it leaves.

use crate::config::value::choice;

use super::section::section;

choice! {
    /// How log lines are written.
    pub LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// How frames reach the kernel.
    pub SendChoice {
        /// `io_uring` where it works, else `writev`; the log says which.
        Auto = "auto",
        /// Many sends with one submission; the start fails where the kernel or the container forbids it.
        IoUring = "io_uring",
        /// A write for each connection: works everywhere.
        Writev = "writev",
    }
}

section! {
    /// Listeners, logging and the node itself.
    Node {
        /// Where clients connect: `host:port`, `:port` for every address of the machine, or `unix:/path`.
        /// The host is an IP address or `localhost`; port 0 takes a free one.
        listen: String = "0.0.0.0:8080".to_owned(),
        /// Where health, metrics and the HTTP API are served, in the same form. Keep it off the public network.
        admin: String = "127.0.0.1:8081".to_owned(),
        /// Permissions of the file of `listen = "unix:…"`, in octal as for `chmod`, e.g. `"0660"`. Empty: the process's mask decides.
        listen_mode: String = String::new(),
        /// The same for `admin`.
        admin_mode: String = String::new(),
        /// Path of a Unix socket for upgrades on one machine: a process that is started with the same path takes the listeners of the one that
        /// runs, accepts, and only then the old one leaves service. Nobody is refused. Empty: off.
        handover: String = String::new(),
        /// Threads that carry connections. 0: one per core.
        shards: u64 = 0,
        /// How frames reach the kernel: `io_uring`, `writev`, or `auto` for the best that works here.
        send_path: SendChoice = SendChoice::Auto,
        /// Web origins that browsers may connect from besides the node's own host, e.g.
        /// `["https://app.example", "*.example.org"]`; `["*"]` allows all.
        origins: Vec<String> = Vec::new(),
        /// Name of this node in `welcome`. Empty: the machine's host name.
        node: String = String::new(),
        /// How log lines are written to stderr.
        log: LogFormat = LogFormat::Text,
        /// What is logged: `error`, `warn`, `info`, `debug` or `trace`, or directives for single parts such as
        /// `info,fanfare_edge=debug`.
        log_level: String = "info".to_owned(),
    }
}

section! {
    /// Pages and paths for trying things out, on the client listener.
    Diagnostics {
        /// Whether `/echo` and `/helloworld` answer.
        echo: bool = false,
        /// Whether `/` serves the demo page.
        page: bool = true,
    }
}

section! {
    /// What `/readyz` and `fanfare_ready` prove.
    Readiness {
        /// How often each shard is asked to deliver and to let somebody in, milliseconds: 200 or more. One that has not for two and a half times as
        /// long is named by `/readyz`, with 503. 0: nothing is asked, and `/readyz` says only whether the node leaves service.
        canary_ms: u64 = 1_000,
    }
}

section! {
    /// Leaving service. A supervisor has to wait for `grace_ms` + `window_ms` + `heartbeat.close_ms` before it kills.
    Drain {
        /// Time after readiness is withdrawn in which new connections are still accepted, milliseconds.
        grace_ms: u64 = 5_000,
        /// Time over which the connections are closed with 1012, milliseconds.
        window_ms: u64 = 30_000,
        /// When clients are told to reconnect, milliseconds after they were told.
        retry_ms: u64 = 1_000,
    }
}
