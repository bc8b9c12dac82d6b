//! Three NATS servers that keep three copies of the log, of which one dies while much is published: first the one that a node is connected to, then the
//! one that leads the log. It takes half a minute, because servers wait for four to nine seconds before they choose another leader: `make cluster-test`
//! runs it.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::process::Child;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, TestNode, own_address, request, wait_until};

use super::nats::{ask, program, start};
use super::{node, over, publish, published, subscriber};

/// How long one request may take: servers that have lost their leader do not answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

struct Member {
    /// Its own, so that its ports are.
    address: IpAddr,
    folder: TempDir,
    process: Option<Child>,
}

struct Cluster {
    members: Vec<Member>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
    }
}

impl Cluster {
    async fn start() -> Self {
        let member = |_| Member {
            address: own_address().parse::<SocketAddr>().expect("an address").ip(),
            folder: tempfile::tempdir().expect("a folder"),
            process: None,
        };
        let mut cluster = Self { members: (0..3).map(member).collect() };
        (0..3).for_each(|index| cluster.run(index));
        wait_until("the three to agree", async || {
            cluster.ask("STREAM.NAMES", "").await.is_some_and(|answer| answer.get("error").is_none())
        })
        .await;
        cluster
    }

    fn run(&mut self, index: usize) {
        let routes: Vec<_> = self.members.iter().map(|member| format!("nats://{}:6222", member.address)).collect();
        let routes = routes.join(",");
        let Member { address, folder, process } = &mut self.members[index];
        let mut command = program();
        command.args(["--name", &index.to_string(), "--addr", &address.to_string(), "--port", "4222", "-m", "8222"]);
        command.args(["--cluster_name", "three", "--cluster", &format!("nats://{address}:6222"), "--routes", &routes]);
        command.args(["--jetstream", "--store_dir"]).arg(folder.path());
        *process = Some(start(&mut command));
    }

    /// Ends it at once, as a crash would.
    fn kill(&mut self, index: usize) {
        let Some(mut process) = self.members[index].process.take() else { return };
        process.kill().expect("a process that can be killed");
        process.wait().expect("its end");
    }

    /// The URL that names all three.
    fn url(&self) -> String {
        let each: Vec<_> = self.members.iter().map(|member| format!("nats://{}:4222", member.address)).collect();
        each.join(",")
    }

    /// What one that runs answers; `None` where none does in time.
    async fn ask(&self, request: &str, body: &str) -> Option<Value> {
        for member in self.members.iter().filter(|member| member.process.is_some()) {
            let at = SocketAddr::new(member.address, 4222);
            match tokio::time::timeout(ANSWER_MAX, ask(at, request, body)).await {
                Ok(Value::Null) | Err(_) => {}
                Ok(answer) => return Some(answer),
            }
        }
        None
    }

    /// Who leads the log, and whether all three have all of it.
    async fn leader(&self) -> Option<(usize, bool)> {
        let info = self.ask("STREAM.INFO.fanfare-log", "").await?;
        let leader = info["cluster"]["leader"].as_str()?.parse().ok()?;
        let replicas = info["cluster"]["replicas"].as_array()?;
        let is_whole = replicas.len() == 2 && replicas.iter().all(|replica| replica["current"] == true);
        Some((leader, is_whole))
    }

    async fn leader_of_three(&self) -> usize {
        let mut leader = None;
        wait_until("three copies with a leader", async || {
            leader = self.leader().await.filter(|(_, is_whole)| *is_whole).map(|(leader, _)| leader);
            leader.is_some()
        })
        .await;
        leader.expect("it was waited for")
    }

    /// To whom the only node there is is connected.
    async fn connected_to(&self) -> usize {
        for (index, member) in self.members.iter().enumerate() {
            let monitor = SocketAddr::new(member.address, 8222);
            let said = request(monitor, "GET", "/connz", &[], "").await.json();
            let connections = said["connections"].as_array().expect("connections");
            if connections.iter().any(|connection| connection["name"] == "fanfare") {
                return index;
            }
        }
        panic!("a node that is ready is connected");
    }
}

/// What became of a publication.
#[derive(Debug, PartialEq)]
enum Told {
    At(u64),
    NotPublished,
    PerhapsPublished,
}

/// Publishes one after the other over HTTP, until it is over.
async fn publish_over_http(node: &TestNode, is_over: &Cell<bool>, counted: &Cell<usize>) -> Vec<(String, Told)> {
    let mut told = Vec::new();
    while !is_over.get() {
        let message = format!("http {}", told.len());
        let answer = publish(node, "lobby", &json!(message)).await;
        let code = answer.json();
        told.push((
            message,
            match (answer.status, code["code"].as_str().unwrap_or_default()) {
                (200, _) => Told::At(code["offset"].as_u64().expect("a number")),
                (503, "engine_away") => Told::NotPublished,
                (503, "engine_unknown") => Told::PerhapsPublished,
                other => panic!("{other:?}: {}", answer.text()),
            },
        ));
        counted.set(counted.get() + 1);
    }
    told
}

/// Publishes eight at a time over a WebSocket, until it is over.
async fn publish_over_websocket(node: &TestNode, is_over: &Cell<bool>) -> Vec<(String, Told)> {
    let mut client = node.connect("/ws").await;
    client.event("welcome").await;
    let mut told = Vec::new();
    while !is_over.get() {
        let first = told.len();
        for n in first..first + 8 {
            client.say(json!({"name": "publish", "room": "lobby", "message": format!("ws {n}"), "id": n})).await;
        }
        let mut answers = HashMap::new();
        while answers.len() < 8 {
            let answer = client.json().await;
            let id = answer["id"].as_u64().expect("the id of a publication") as usize;
            let told = match answer["name"].as_str() {
                Some("ack") => Told::At(answer["offset"].as_u64().expect("a number")),
                // Whether it was sent, its words say to people.
                _ => {
                    assert_eq!(answer["code"], "engine_away", "{answer}");
                    Told::PerhapsPublished
                }
            };
            assert!(answers.insert(id, told).is_none(), "each is answered once");
        }
        told.extend((first..first + 8).map(|n| (format!("ws {n}"), answers.remove(&n).expect("an answer to each"))));
    }
    told
}

/// What it is told, up to the end.
async fn read_to_end(mut reader: Client) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let event = reader.event("message").await;
        assert_eq!(event["offset"].as_u64(), Some(heard.len() as u64 + 1), "dense from 1: {event}");
        let message = event["message"].as_str().expect("a text").to_owned();
        if message == "the end" {
            return heard;
        }
        heard.push(message);
    }
}

#[tokio::test]
#[ignore = "half a minute with three servers: make cluster-test"]
async fn servers_of_a_cluster_die_and_nothing_is_lost_and_every_publisher_is_told() {
    let mut cluster = Cluster::start().await;
    let toml = over("nats", &cluster.url(), "replicas = 3\ntimeout_ms = 20000");
    let one = node(&toml).await;
    let near = cluster.connected_to().await;
    let other = node(&toml).await;
    assert_eq!(cluster.ask("STREAM.INFO.fanfare-counts", "").await.expect("an answer")["config"]["num_replicas"], 3);
    let readers = [subscriber(&one, "lobby", None).await.0, subscriber(&other, "lobby", None).await.0];
    let (is_over, counted) = (Cell::new(false), Cell::new(0));
    let some_more = async |what: &str| {
        let before = counted.get();
        wait_until(what, async || counted.get() >= before + 20).await;
    };
    let dying = async {
        cluster.leader_of_three().await;
        some_more("something to be published").await;
        cluster.kill(near);
        some_more("something to be published over another server").await;
        cluster.run(near);
        let leader = cluster.leader_of_three().await;
        some_more("something to be published over all three").await;
        cluster.kill(leader);
        some_more("something to be published under another leader").await;
        is_over.set(true);
    };
    let publishing = async {
        let (http, websocket, ()) =
            tokio::join!(publish_over_http(&one, &is_over, &counted), publish_over_websocket(&other, &is_over), dying);
        wait_until("both to be connected", async || {
            one.metric("fanfare_engine_connected").await + other.metric("fanfare_engine_connected").await == 2.0
        })
        .await;
        published(&one, "lobby", "the end").await;
        http.into_iter().chain(websocket).collect::<Vec<_>>()
    };
    let [first, second] = readers;
    let (told, heard, also) = tokio::join!(publishing, read_to_end(first), read_to_end(second));
    assert!(heard == also, "one order on both nodes");
    let mut places = HashMap::new();
    for (index, message) in heard.iter().enumerate() {
        assert!(places.insert(message.as_str(), index as u64 + 1).is_none(), "{message} came twice");
    }
    for (message, told) in &told {
        match (told, places.remove(message.as_str())) {
            (Told::At(offset), place) => assert_eq!(place, Some(*offset), "{message} was said to be there"),
            (Told::NotPublished, place) => assert_eq!(place, None, "{message} was said not to be published"),
            (Told::PerhapsPublished, _) => {}
        }
    }
    assert!(places.is_empty(), "nobody published {places:?}");
    assert!(told.iter().filter(|(_, told)| matches!(told, Told::At(_))).count() > 60);
    for node in [&one, &other] {
        assert_eq!(node.metric("fanfare_engine_restarts_total").await, 0.0, "three copies lose nothing");
    }
}
