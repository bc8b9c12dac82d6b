//! Traces of calls that publish: a small collector in the test takes them over HTTP, decodes them, fails and hangs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Answer, Raw, TestNode, request, wait_until};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Heads, in lower case, and bodies.
type Taken = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Takes what is sent to it, and answers with what it is told, in turn; the last answer stays.
struct Collector {
    url: String,
    taken: Taken,
}

impl Collector {
    async fn start() -> Self {
        Self::answering(&[answer(200, &[])]).await
    }

    async fn answering(answers: &[Vec<u8>]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let taken = Taken::default();
        let (kept, answers) = (taken.clone(), answers.to_vec());
        tokio::spawn(async move {
            let mut turn = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let mut raw = Raw::over(stream);
                // A connection is kept: whoever sends on it is answered until it ends.
                while let Some(head) = raw.through(b"\r\n\r\n").await {
                    let head = String::from_utf8(head).expect("a head in UTF-8").to_ascii_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let body = raw.take(length.expect("a length").parse().expect("a number")).await;
                    kept.lock().push((head, body));
                    raw.send(&answers[turn.min(answers.len() - 1)]).await;
                    turn += 1;
                }
            }
        });
        Self { url, taken }
    }

    fn node(&self, toml: &str) -> TestNode {
        TestNode::serve(&format!("[traces]\nurl = \"{}\"\n{toml}", self.url))
    }

    /// The spans that were sent by the time the node has ended: what waits is sent then.
    async fn spans(&self, mut node: TestNode) -> Vec<Span> {
        node.leave();
        node.hurry();
        node.ended().await;
        self.requests().into_iter().flat_map(spans_of).collect()
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let taken = self.taken.lock();
        taken.iter().map(|(_, body)| ExportTraceServiceRequest::decode(&body[..]).expect("a request")).collect()
    }
}

fn answer(status: u16, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status} So\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}", body.len());
    [head.as_bytes(), b"\r\n\r\n", body].concat()
}

fn spans_of(request: ExportTraceServiceRequest) -> impl Iterator<Item = Span> {
    request.resource_spans.into_iter().flat_map(|spans| spans.scope_spans).flat_map(|spans| spans.spans)
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, Value> {
    let value = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::IntValue(number)) => json!(number),
        Some(Any::BoolValue(flag)) => json!(flag),
        other => panic!("{}: {other:?}", attribute.key),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), value(attribute))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

async fn call(node: &TestNode, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let headers = [&[("Authorization", "Bearer a-secret-key")], headers].concat();
    request(node.admin, "POST", path, &headers, &body.to_string()).await
}

/// The span of a call, and that of what was published by it.
fn pair(spans: &[Span]) -> (&Span, Option<&Span>) {
    let of = |kind: SpanKind| spans.iter().filter(|span| span.kind == kind as i32).collect::<Vec<_>>();
    let (server, producer) = (of(SpanKind::Server), of(SpanKind::Producer));
    assert!(server.len() == 1 && producer.len() <= 1 && spans.len() == 1 + producer.len(), "{spans:?}");
    (server[0], producer.first().copied())
}

#[tokio::test]
async fn a_call_continues_the_trace_of_its_caller_and_tells_no_secrets() {
    let collector = Collector::start().await;
    let node = collector.node(
        "headers = [\"X-Scope: a-tenant\"]\nservice_name = \"chat\"\n[api]\nkeys = [\"a-secret-key\"]\n\
         [namespaces.default]\nhistory_size = 5",
    );
    let _listener = node.enter("lobby", "").await;
    let headers = [("traceparent", &*parent("01")), ("tracestate", "x=1"), ("TraceState", "y=2")];
    let body = json!({"room": "lobby", "message": "a-secret-message", "idempotency_key": "a-secret-id"});
    let receipt = call(&node, "/api/publish", &headers, &body).await;
    assert_eq!(receipt.status, 200, "{receipt:?}");
    let receipt = receipt.json();
    let spans = collector.spans(node).await;

    let (head, sent) = collector.taken.lock()[0].clone();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf\r\n") && head.contains("x-scope: a-tenant\r\n"),
        "{head}"
    );
    assert!(!sent.windows(9).any(|bytes| bytes == b"a-secret-"), "{:?}", String::from_utf8_lossy(&sent));
    let resource = collector.requests()[0].resource_spans[0].resource.clone().expect("a resource");
    assert_eq!(attributes(&resource.attributes)["service.name"], "chat");

    let (server, producer) = pair(&spans);
    let producer = producer.expect("a span of the publication");
    assert_eq!((hex(&server.trace_id), hex(&server.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!((server.name.as_str(), server.trace_state.as_str()), ("POST /api/publish", "x=1,y=2"));
    assert_eq!((&producer.trace_id, &producer.parent_span_id), (&server.trace_id, &server.span_id));
    assert_eq!((producer.name.as_str(), producer.trace_state.as_str()), ("publish", "x=1,y=2"));
    let expected = json!({
        "http.request.method": "POST", "http.route": "/api/publish", "url.path": "/api/publish", "url.scheme": "http",
        "network.protocol.version": "1.1", "http.request.body.size": body.to_string().len(),
        "http.response.status_code": 200,
    });
    assert_eq!(json!(attributes(&server.attributes)), expected);
    let expected = json!({
        "messaging.system": "fanfare", "messaging.operation.name": "publish", "messaging.operation.type": "send",
        "messaging.destination.name": "lobby", "fanfare.delivered": 1, "fanfare.dropped": 0, "fanfare.evicted": 0,
        "fanfare.offset": 1, "fanfare.epoch": receipt["epoch"],
    });
    assert_eq!(json!(attributes(&producer.attributes)), expected);
    let events: Vec<_> = server.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(events, ["body.read", "checked"]);
    assert_eq!(attributes(&server.events[1].attributes)["fanfare.verdict"], "pass");
    assert_eq!(producer.events.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["accepted"]);
    let times = [
        server.start_time_unix_nano,
        server.events[0].time_unix_nano,
        server.events[1].time_unix_nano,
        producer.start_time_unix_nano,
        producer.events[0].time_unix_nano,
        producer.end_time_unix_nano,
        server.end_time_unix_nano,
    ];
    assert!(times.is_sorted(), "{times:?}");
    for span in [server, producer] {
        assert_eq!(span.status.as_ref().map_or(0, |status| status.code), StatusCode::Unset as i32, "{span:?}");
    }
}

#[tokio::test]
async fn the_caller_decides_what_is_sampled_and_otherwise_the_share() {
    let unsampled = parent("00");
    let sampled = parent("01");
    let two = [("traceparent", sampled.as_str()), ("traceparent", sampled.as_str())];
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, &str, Headers<'_>, &[&str]); 7] = [
        ("all", "sample_ratio = 1.0", &[], &["new"]),
        ("none", "sample_ratio = 0.0", &[], &[]),
        ("none but the caller's", "sample_ratio = 0", &[("traceparent", &sampled)], &["continued"]),
        ("all but the caller's", "sample_ratio = 1", &[("traceparent", &unsampled)], &[]),
        ("a parent that is none", "", &[("traceparent", "00-zz-01")], &["new"]),
        (
            "a parent of nobody",
            "",
            &[("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01")],
            &["new"],
        ),
        ("two parents", "", &two, &["new"]),
    ];
    for (what, toml, headers, expected) in cases {
        let collector = Collector::start().await;
        let node = collector.node(&format!("{toml}\n[api]\nkeys = [\"a-secret-key\"]"));
        let receipt = call(&node, "/api/publish", headers, &json!({"room": "lobby", "message": 1})).await;
        assert_eq!(receipt.status, 200, "{receipt:?}");
        let spans = collector.spans(node).await;
        let servers = spans.iter().filter(|span| span.kind == SpanKind::Server as i32);
        let found: Vec<_> = servers
            .map(|span| match (hex(&span.trace_id) == TRACE, span.parent_span_id.is_empty()) {
                (true, false) => "continued",
                (false, true) => "new",
                _ => "something else",
            })
            .collect();
        assert_eq!(found, expected, "{what}");
    }
}

#[tokio::test]
async fn a_batch_is_one_span_and_what_is_refused_says_why() {
    let words = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(words.path(), "darn\n").expect("a list of words");
    let toml = format!(
        "[api]\nkeys = [\"a-secret-key\"]\n[moderation]\nwords_file = \"{}\"\n[namespaces.masked]\nfilter = \"mask\"\n\
         [namespaces.strict]\nfilter = \"reject\"\n[limits]\nrooms_max = 3",
        words.path().display()
    );
    let publication = |room: &str, message: &str| json!({"room": room, "message": message});
    let batch = |publish: &[Value]| json!({ "publish": publish });
    let check = async |path: &str, body: Value, status: u16| {
        let collector = Collector::start().await;
        let node = collector.node(&toml);
        let answer = call(&node, path, &[], &body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        collector.spans(node).await
    };

    let same = check("/api/batch", batch(&[publication("masked:a", "darn"), publication("masked:a", "b")]), 200).await;
    let (server, producer) = pair(&same);
    assert_eq!(server.name, "POST /api/batch");
    assert_eq!(attributes(&server.events[1].attributes)["fanfare.verdict"], "mask");
    let producer = attributes(&producer.expect("a span of what was published").attributes);
    assert_eq!(
        (&producer["messaging.batch.message_count"], &producer["messaging.destination.name"]),
        (&json!(2), &json!("masked:a"))
    );

    // A node with places for three rooms: the fourth publication is refused, the others stand.
    let rooms = ["a", "b", "c", "d"].map(|room| publication(room, "x"));
    let others = check("/api/batch", batch(&rooms), 200).await;
    let producer = pair(&others).1.expect("a span of what was published");
    let found = attributes(&producer.attributes);
    assert!(!found.contains_key("messaging.destination.name"), "{found:?}");
    assert_eq!((&found["messaging.batch.message_count"], &found["error.type"]), (&json!(4), &json!("rooms_max")));
    assert_eq!(producer.status.as_ref().map(|status| status.code), Some(StatusCode::Error as i32));
    let refused = producer.events.iter().find(|event| event.name == "refused").expect("a refusal");
    assert_eq!(attributes(&refused.attributes)["fanfare.entry"], 3);

    for (path, body, status, code) in [
        ("/api/publish", publication("strict:a", "darn"), 422, "rejected"),
        ("/api/publish", publication("no room", "x"), 422, "bad_room"),
        ("/api/batch", batch(&[publication("a", "x"), json!({"room": "a"})]), 422, "bad_request"),
    ] {
        let spans = check(path, body, status).await;
        let (server, producer) = pair(&spans);
        assert!(producer.is_none(), "nothing was published: {producer:?}");
        let found = attributes(&server.attributes);
        assert_eq!((&found["http.response.status_code"], &found["error.type"]), (&json!(status), &json!(code)));
        // What the caller did wrong is no error of the server.
        assert_eq!(server.status.as_ref().map_or(0, |status| status.code), StatusCode::Unset as i32);
    }
}

#[tokio::test]
async fn strangers_are_not_traced_and_other_calls_neither() {
    let collector = Collector::start().await;
    let node = collector.node("[api]\nkeys = [\"a-secret-key\"]\non_client_listener = true");
    let traced = [("traceparent", &*parent("01"))];
    let body = json!({"room": "lobby", "message": 1}).to_string();
    for address in [node.admin, node.clients] {
        request(address, "POST", "/api/publish", &traced, &body).await.expect_problem(401, "key_missing");
    }
    let key = [traced[0], ("Authorization", "Bearer a-secret-key")];
    assert_eq!(request(node.admin, "GET", "/api/rooms", &key, "").await.status, 200);
    assert_eq!(request(node.clients, "POST", "/api/publish", &key, &body).await.status, 200);
    assert_eq!(collector.spans(node).await.len(), 2, "one call that published");
}

#[tokio::test]
async fn a_collector_that_hangs_holds_nobody_up_and_each_span_is_accounted_for() {
    // It is accepted by the kernel, and nobody ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("its address"));
    let mut node = TestNode::dev(&format!("[traces]\nurl = \"{url}\"\nqueue_max = 16"));
    let body = json!({"room": "lobby", "message": 1}).to_string();
    const CALLS: u64 = 40;
    for _ in 0..CALLS {
        assert_eq!(request(node.admin, "POST", "/api/publish", &[], &body).await.status, 200);
    }
    // 16 are on their way, 16 wait, and the others had no place.
    assert!(node.metric("fanfare_spans_dropped_total{cause=\"queue\"}").await >= (2 * CALLS - 32) as f64);
    assert_eq!(node.metric("fanfare_spans_exported_total").await, 0.0);
    let traces = node.hub.settings().traces.clone().expect("traces");
    node.leave();
    node.hurry();
    node.ended().await;
    let lost: u64 = traces.stats().dropped().iter().map(|(_, count)| count).sum();
    assert_eq!(lost, 2 * CALLS, "{:?}", traces.stats());
}

#[tokio::test]
async fn a_collector_that_is_busy_is_asked_again_and_what_it_rejects_is_counted() {
    let partial = ExportTracePartialSuccess { rejected_spans: 1, error_message: "one too many".to_owned() };
    let partial = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let collector = Collector::answering(&[answer(503, &[]), answer(429, &[]), answer(200, &partial)]).await;
    let node = collector.node("[api]\nkeys = [\"a-secret-key\"]");
    assert_eq!(call(&node, "/api/publish", &[], &json!({"room": "lobby", "message": 1})).await.status, 200);
    // It waits for others for a second, and is sent again twice: at the end of the node there is less patience.
    wait_until("the spans to be taken", async || node.metric("fanfare_spans_exported_total").await == 1.0).await;
    node.wait_for_metric("fanfare_spans_dropped_total{cause=\"collector\"}", 1.0).await;
    let sent: Vec<_> = collector.taken.lock().iter().map(|(_, body)| body.clone()).collect();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|body| *body == sent[0]), "the same each time");
    // What can never be taken is not sent again.
    let collector = Collector::answering(&[answer(400, &[])]).await;
    let node = collector.node("[api]\nkeys = [\"a-secret-key\"]");
    assert_eq!(call(&node, "/api/publish", &[], &json!({"room": "lobby", "message": 1})).await.status, 200);
    let traces = node.hub.settings().traces.clone().expect("traces");
    collector.spans(node).await;
    assert_eq!(collector.taken.lock().len(), 1);
    assert_eq!(traces.stats().dropped_by_collector.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn without_a_collector_there_is_nothing_to_see() {
    let node = TestNode::dev("");
    let page = request(node.admin, "GET", "/metrics", &[], "").await;
    assert!(!page.text().contains("fanfare_spans"), "{}", page.text());
    assert!(node.hub.settings().traces.is_none());
}
