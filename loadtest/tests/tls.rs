//! `fanfare-load` against a gateway that ends TLS: what it reports there is what it reports of plain sockets, and of a stranger nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;

use fanfare_server::config::{Address, Config, ConfigFile, Environment, Flags};
use fanfare_server::node::Node;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// A gateway with TLS for localhost, in this process. Dropping it ends it.
struct Gateway {
    port: u16,
    /// Its certificate's authority, and another.
    folder: TempDir,
    signals: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<anyhow::Result<()>>>,
}

impl Gateway {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let authority = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            std::fs::write(path(name), params.self_signed(&key).unwrap().pem()).unwrap();
            Issuer::new(params, key)
        };
        let issuer = authority("ca.pem");
        authority("other.pem");
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer);
        std::fs::write(path("cert.pem"), certificate.unwrap().pem()).unwrap();
        std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        let toml = format!(
            "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nshards = 2\n[tls]\ncertificate = {:?}\nkey = {:?}\n\
             [api]\non_client_listener = true\nkeys = [\"0123456789abcdef\"]\n[drain]\ngrace_ms = 0\nwindow_ms = 0\n\
             [heartbeat]\nclose_ms = 500\n",
            path("cert.pem"),
            path("key.pem")
        );
        let file = ConfigFile::new("test.toml", toml);
        let config = Config::dev(&Flags::default(), Some(&file), &Environment::default()).unwrap();
        let node = Node::start(&config).unwrap();
        let Address::Tcp(clients) = node.clients().clone() else { panic!("it listens on TCP") };
        let (signals, received) = mpsc::channel(64);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(node.run(received))
        });
        Self { port: clients.port(), folder, signals, thread: Some(thread) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self, scenario: &str, authority: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_fanfare-load"))
            .args(scenario.split(' '))
            .args(["--settle", "60s"])
            .args(["--url", &format!("wss://localhost:{}", self.port), "--ca"])
            .arg(self.path(authority))
            .arg("--json")
            .arg(self.path("report.json"))
            .output()
            .unwrap()
    }

    /// Runs a scenario; the report, which must be without fault.
    fn run(&self, scenario: &str) -> Value {
        let output = self.load(scenario, "ca.pem");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{scenario}: {said}");
        let report: Value = serde_json::from_slice(&std::fs::read(self.path("report.json")).unwrap()).unwrap();
        assert_eq!(report["faults"], json!([]), "{scenario}: {said}");
        assert_eq!(report["audit"]["expected"], report["audit"]["delivered"], "{scenario}: {said}");
        assert!(report["tls"].as_str().unwrap().starts_with("TLSv1_3, TLS13_"), "{scenario}: {said}");
        assert!(said.contains("every handshake a whole one"), "{said}");
        report
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.signals.try_send(());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

#[test]
fn every_delivery_over_tls_is_accounted_for() {
    let gateway = Gateway::start();
    let report = gateway.run("fanout --connections 50 --outstanding 8 --publications 400");
    assert_eq!(report["audit"]["expected"], 20_000);
    let report = gateway.run("rooms --connections 40 --rooms 10 --rate 1000 --publications 200 --dialect text");
    assert_eq!(report["audit"]["expected"], 800);
    // More than a socket takes at once, and many records: what is left over must follow in order.
    let report = gateway.run("large --connections 4 --payload 60000 --publications 40 --outstanding 4");
    assert_eq!(report["audit"]["expected"], 160);
    let report = gateway.run("storm --connections 100 --rooms 10 --publications 50 --rate 500");
    assert_eq!((&report["audit"]["expected"], &report["closes"]), (&json!(500), &json!([])));
    // A backend over https, at the API on the client listener.
    let admin = format!("--publishers http --admin https://localhost:{} --key 0123456789abcdef", gateway.port);
    let report = gateway.run(&format!("rate --connections 10 --rate 200 --publications 40 {admin}"));
    assert_eq!((&report["audit"]["expected"], &report["receipts"]["delivered"]), (&json!(400), &json!(400)));
    let report = gateway.run("slow --connections 20 --stalled-percent 10 --rate 200 --payload 4000 --duration 500ms");
    assert_eq!(report["audit"]["expected"], 2_000);
}

#[test]
fn a_gateway_that_nobody_vouches_for_is_not_loaded() {
    let gateway = Gateway::start();
    let refused = gateway.load("fanout --connections 2 --publications 1", "other.pem");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("no authority that is trusted here has signed its certificate") && said.contains("--ca"),
        "{said}"
    );
    let plain = Command::new(env!("CARGO_BIN_EXE_fanfare-load"))
        .args(["fanout", "--connections", "2", "--publications", "1", "--insecure", "--url"])
        .arg(format!("wss://127.0.0.1:{}", gateway.port))
        .output()
        .unwrap();
    assert_eq!(plain.status.code(), Some(0), "{}", String::from_utf8_lossy(&plain.stderr));
}
