//! The Pusher dialect against a small server of that kind: greeting, signed subscription, client events to all but the sender.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Sender, channel};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

type Channels = Arc<Mutex<HashMap<String, Vec<(usize, Sender<Message>)>>>>;

/// Gives every client event to all but its sender, or to all of them if it `echoes`, which Pusher never does.
async fn serve(stream: TcpStream, channels: Channels, index: usize, echoes: bool) {
    let (mut sink, mut stream) = accept_async(stream).await.unwrap().split();
    let (queue, mut queued) = channel::<Message>(65_536);
    tokio::spawn(async move {
        while let Some(message) = queued.recv().await {
            let close = message.is_close();
            if sink.send(message).await.is_err() || close {
                return;
            }
        }
    });
    let say = |event: &str, data: Value| {
        queue.try_send(Message::text(json!({ "event": event, "data": data.to_string() }).to_string())).unwrap();
    };
    say("pusher:connection_established", json!({ "socket_id": format!("7.{index}"), "activity_timeout": 120 }));
    while let Some(Ok(message)) = stream.next().await {
        let Message::Text(text) = message else {
            if message.is_close() {
                let _ = queue.try_send(Message::Close(None));
            }
            continue;
        };
        let command: Value = serde_json::from_str(&text).unwrap();
        match command["event"].as_str().unwrap() {
            "pusher:subscribe" => {
                let auth = command["data"]["auth"].as_str().unwrap();
                let (key, signature) = auth.split_once(':').unwrap();
                assert_eq!((key, signature.len()), ("app-key", 64));
                let channel = command["data"]["channel"].as_str().unwrap().to_owned();
                channels.lock().entry(channel).or_default().push((index, queue.clone()));
                say("pusher_internal:subscription_succeeded", json!({}));
            }
            "pusher:unsubscribe" => {
                let channel = command["data"]["channel"].as_str().unwrap();
                channels.lock().get_mut(channel).unwrap().retain(|&(member, _)| member != index);
            }
            "pusher:ping" => say("pusher:pong", json!({})),
            "client-load" => {
                let event = json!({ "event": "client-load", "channel": command["channel"], "data": command["data"] });
                for (member, queue) in &channels.lock()[command["channel"].as_str().unwrap()] {
                    if *member != index || echoes {
                        let _ = queue.try_send(Message::text(event.to_string()));
                    }
                }
            }
            other => panic!("{other}"),
        }
    }
}

fn start(echoes: bool) -> String {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(format!("ws://{}", listener.local_addr().unwrap())).unwrap();
            let channels = Channels::default();
            for index in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, channels.clone(), index, echoes));
            }
        });
    });
    told.recv().unwrap()
}

fn run(url: &str, scenario: &str) -> (Option<i32>, Value) {
    let name = scenario.split(' ').next().unwrap();
    let port = url.rsplit(':').next().unwrap();
    let file = std::env::temp_dir().join(format!("fanfare-load-pusher-{}-{port}-{name}.json", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_fanfare-load"))
        .args(scenario.split(' '))
        .args(["--dialect", "pusher", "--url", url, "--settle", "60s", "--json", file.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&std::fs::read(&file).unwrap_or_else(|_| panic!("{said}"))).unwrap();
    std::fs::remove_file(&file).unwrap();
    (output.status.code(), report)
}

#[test]
fn a_sender_is_owed_nothing_of_its_own() {
    let url = start(false);
    let (code, report) =
        run(&url, "rooms --connections 30 --rooms 3 --publishers-per-room 2 --outstanding 4 --publications 600");
    assert_eq!((code, &report["faults"]), (Some(0), &json!([])), "{report:#}");
    // 600 publications, each to 9 of 10.
    assert_eq!((&report["audit"]["expected"], &report["audit"]["delivered"]), (&json!(5_400), &json!(5_400)));
    let (code, report) = run(&url, "churn --connections 20 --rooms 2 --roamers 4 --rate 200 --duration 300ms");
    assert_eq!((code, &report["churn"]["by"]), (Some(0), &json!("command")), "{report:#}");
}

#[test]
fn what_a_sender_gets_of_its_own_is_a_fault() {
    let (code, report) = run(&start(true), "fanout --connections 10 --publications 20");
    assert_eq!((code, &report["audit"]["foreign"]), (Some(1), &json!(20)), "{report:#}");
}
