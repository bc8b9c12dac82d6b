//! The metrics page: its two formats, held to their grammars by a small strict parser, and the truth of its numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use fanfare_protocol::{Payload, RoomName};
use fanfare_registry::Draft;
use serde_json::json;

use crate::support::{Client, PATIENCE, Raw, TestNode, handshake, request, wait_until, within};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Prometheus text format 0.0.4.
    Classic,
    /// OpenMetrics 1.0.
    Open,
}

/// A page that holds the grammar.
#[derive(Debug, Default)]
struct Page {
    /// Type by family.
    families: BTreeMap<String, String>,
    /// Value by name and labels, as written.
    samples: BTreeMap<String, f64>,
    /// Labels by sample name.
    labels: BTreeMap<String, Vec<BTreeMap<String, String>>>,
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_' || first == b':')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
}

/// Labels of `a="x",b="y"`, where `\\`, `\"` and `\n` are the only escapes.
fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"")?;
        if !is_name(name) || name.contains(':') {
            return None;
        }
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    _ => return None,
                }),
                (_, plain) => value.push(plain),
            }
        };
        if labels.insert(name.to_owned(), value).is_some() {
            return None;
        }
        rest = &after[end + 1..];
        if rest.is_empty() {
            return Some(labels);
        }
        rest = rest.strip_prefix(',')?;
    }
}

fn parse(text: &str, format: Format) -> Page {
    let mut page = Page::default();
    let mut family: Option<(String, String)> = None;
    let mut help = BTreeSet::new();
    let body = match format {
        Format::Classic => text,
        Format::Open => text.strip_suffix("# EOF\n").expect("OpenMetrics ends with its mark"),
    };
    assert!(body.ends_with('\n') && !body.contains("# EOF"), "whole lines, and only one end");
    for line in body.lines() {
        let bad = |why: &str| panic!("{why}: {line:?}");
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<_> = comment.splitn(3, ' ').collect();
            let &[keyword, name, rest] = words.as_slice() else { bad("a comment has a keyword, a name and a text") };
            if !is_name(name) || !name.starts_with("fanfare_") {
                bad("not a name of ours");
            }
            match keyword {
                "HELP" => {
                    if !help.insert(name.to_owned()) {
                        bad("a second HELP");
                    }
                    if rest.is_empty() {
                        bad("an empty HELP");
                    }
                }
                "TYPE" => {
                    if !["counter", "gauge", "histogram", "info"].contains(&rest) {
                        bad("an unknown type");
                    }
                    if page.families.insert(name.to_owned(), rest.to_owned()).is_some() {
                        bad("a second TYPE, or samples of a family apart");
                    }
                    family = Some((name.to_owned(), rest.to_owned()));
                }
                "UNIT" if format == Format::Open => {}
                _ => bad("an unknown keyword"),
            }
            continue;
        }
        let (key, value) = line.rsplit_once(' ').unwrap_or_else(|| bad("no value"));
        let (name, inside) = match key.split_once('{') {
            None => (key, None),
            Some((name, rest)) => (name, Some(rest.strip_suffix('}').unwrap_or_else(|| bad("an open brace")))),
        };
        let Some((family, kind)) = &family else { bad("a sample before its TYPE") };
        let expected = match (format, kind.as_str()) {
            (Format::Open, "counter") => format!("{family}_total"),
            _ => family.clone(),
        };
        if kind == "histogram" {
            let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| bad("a sample of another family"));
            if !["_bucket", "_sum", "_count"].contains(&suffix) {
                bad("not a histogram's sample");
            }
        } else if name != expected {
            bad("a sample of another family");
        }
        if kind == "counter" && !name.ends_with("_total") {
            bad("a counter is called _total");
        }
        let labels = inside.map_or_else(BTreeMap::new, |inside| labels(inside).unwrap_or_else(|| bad("bad labels")));
        let number: f64 = value.parse().unwrap_or_else(|_| bad("not a number"));
        if kind == "counter" && (number < 0.0 || number.fract() != 0.0) {
            bad("a counter counts");
        }
        if page.samples.insert(key.to_owned(), number).is_some() {
            bad("the same sample twice");
        }
        page.labels.entry(name.to_owned()).or_default().push(labels);
    }
    for (family, kind) in &page.families {
        assert!(help.contains(family), "{family} has no HELP");
        if kind == "histogram" {
            check_histogram(&page, family);
        }
    }
    page
}

/// In each series buckets count upwards to the one without a bound, which holds all.
fn check_histogram(page: &Page, family: &str) {
    let bucket = format!("{family}_bucket{{");
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (key, count) in &page.samples {
        let Some(inside) = key.strip_prefix(&bucket).and_then(|rest| rest.strip_suffix('}')) else { continue };
        let (bounds, others): (Vec<_>, Vec<_>) = inside.split(',').partition(|label| label.starts_with("le="));
        let bound = bounds[0].trim_start_matches("le=").trim_matches('"').parse().expect("a bound is a number");
        series.entry(others.join(",")).or_default().push((bound, *count));
    }
    assert!(!series.is_empty(), "{family} has no buckets");
    for (labels, mut buckets) in series {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(buckets.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1), "{family}: {buckets:?}");
        let &(bound, all) = &buckets[buckets.len() - 1];
        let sample = |suffix| {
            let name = format!("{family}_{suffix}");
            page.samples[&if labels.is_empty() { name } else { format!("{name}{{{labels}}}") }]
        };
        assert!(bound.is_infinite() && all == sample("count"), "{family}: {buckets:?}");
        assert!(sample("sum") >= 0.0, "{family}");
    }
}

async fn page(admin: SocketAddr, format: Format) -> Page {
    let accept = match format {
        Format::Classic => "text/plain",
        // What Prometheus sends.
        Format::Open => "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    };
    let answer = request(admin, "GET", "/metrics", &[("Accept", accept)], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let kind = match format {
        Format::Classic => "text/plain; version=0.0.4; charset=utf-8",
        Format::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    };
    assert_eq!(answer.header("content-type"), Some(kind));
    parse(answer.text(), format)
}

/// The families of the contract that this version has, and their types.
const CONTRACT: &[(&str, &str)] = &[
    ("fanfare_connections", "gauge"),
    ("fanfare_rooms", "gauge"),
    ("fanfare_subscriptions", "gauge"),
    ("fanfare_published", "counter"),
    ("fanfare_delivered", "counter"),
    ("fanfare_dropped", "counter"),
    ("fanfare_evicted", "counter"),
    ("fanfare_closes", "counter"),
    ("fanfare_handshakes", "counter"),
    ("fanfare_outbox_bytes", "gauge"),
    ("fanfare_publish_to_write_seconds", "histogram"),
    ("fanfare_build_info", "gauge"),
];

#[tokio::test]
async fn the_page_holds_both_grammars_and_has_every_metric_of_the_contract() {
    let node = TestNode::dev("");
    let mut client = node.enter("a", "").await;
    client.ask(json!({"name": "publish", "message": 1})).await;
    for format in [Format::Classic, Format::Open] {
        let page = page(node.admin, format).await;
        for &(name, kind) in CONTRACT {
            let family = match (format, kind) {
                (Format::Classic, "counter") => format!("{name}_total"),
                _ => name.to_owned(),
            };
            assert_eq!(page.families.get(&family).map(String::as_str), Some(kind), "{family}");
            let sample = match kind {
                "counter" => format!("{name}_total"),
                "histogram" => format!("{name}_count"),
                _ => name.to_owned(),
            };
            assert!(page.labels.contains_key(&sample), "{sample} has a sample from the start");
        }
        let values = |name: &str, label: &str| -> Vec<&str> {
            page.labels[name].iter().map(|labels| labels[label].as_str()).collect()
        };
        assert!(values("fanfare_closes_total", "reason").contains(&"slow_consumer"));
        assert!(values("fanfare_handshakes_total", "result").contains(&"accepted"));
        assert!(values("fanfare_dropped_total", "policy").contains(&"evict"));
        let build = &page.labels["fanfare_build_info"][0];
        assert_eq!(build["version"], env!("CARGO_PKG_VERSION"));
        assert!(build.contains_key("commit"), "{build:?}");
        assert_eq!(page.samples["fanfare_connections"], 1.0);
    }
    // Who asks for nothing in particular gets the format that everything reads.
    let plain = request(node.admin, "GET", "/metrics", &[], "").await;
    parse(plain.text(), Format::Classic);
}

/// What was counted since, without what did not move.
fn moved(before: &Page, after: &Page) -> BTreeMap<String, i64> {
    assert_eq!(before.samples.keys().collect::<Vec<_>>(), after.samples.keys().collect::<Vec<_>>());
    // How long things took is nobody's to foresee.
    let counted = after.samples.iter().filter(|(key, _)| !key.contains("_seconds"));
    let moved = counted.map(|(key, value)| (key.clone(), (value - before.samples[key]) as i64));
    moved.filter(|(_, by)| *by != 0).collect()
}

/// Every number moves by exactly what happened, and no other moves at all.
#[tokio::test]
async fn counters_move_by_exactly_what_happened() {
    let node = TestNode::serve("[api]\nkeys = [\"k\"]\n[rooms]\nreap_ms = 3600000\n[diagnostics]\necho = true");
    let mut before = page(node.admin, Format::Classic).await;
    let mut check = async |what: &str, expected: &[(&str, i64)]| {
        let expected: BTreeMap<_, _> =
            expected.iter().map(|&(name, by)| (format!("fanfare_{name}"), by)).filter(|(_, by)| *by != 0).collect();
        // Some numbers are written a moment after the answer that announces them.
        let mut last = BTreeMap::new();
        let settled = wait_until(what, async || {
            last = moved(&before, &page(node.admin, Format::Classic).await);
            last == expected
        });
        // Less than the patience of what waits inside, so that what is wrong can be told.
        let settled = tokio::time::timeout(PATIENCE / 2, settled).await;
        assert!(settled.is_ok(), "{what}: expected {expected:#?}, got {last:#?}");
        before = page(node.admin, Format::Classic).await;
    };

    let mut readers = Vec::new();
    for format in ["", "", "?format=text"] {
        readers.push(node.enter("a", format).await);
    }
    let mut many = node.connect("/ws").await;
    many.event("welcome").await;
    many.subscribe("a").await;
    many.subscribe("b").await;
    check(
        "clients that came",
        &[
            ("connections", 4),
            ("rooms", 2),
            ("subscriptions", 5),
            ("received_total", 2),
            ("handshakes_total{result=\"accepted\"}", 4),
        ],
    )
    .await;

    let key = [("Authorization", "Bearer k")];
    for _ in 0..5 {
        request(node.admin, "POST", "/api/publish", &key, r#"{"room":"a","message":1}"#).await;
    }
    check("five over HTTP to four subscribers", &[("published_total", 5), ("delivered_total", 20)]).await;

    // One that reaches the sender too, one that does not, one into a new room that nobody is in, one that is refused, one that is
    // no publication, one that cannot be read.
    for command in [
        json!({"name": "publish", "room": "a", "message": 1}),
        json!({"name": "publish_no_self", "room": "a", "message": 1}),
        json!({"name": "publish", "room": "c", "message": 1, "id": 1}),
        json!({"name": "publish", "room": "a b", "message": 1}),
        json!({"name": "message", "message": 1}),
        json!([1]),
    ] {
        many.say(command).await;
    }
    check(
        "six messages of a client",
        &[("received_total", 6), ("published_total", 3), ("delivered_total", 7), ("rooms", 1)],
    )
    .await;

    for body in [r#"{"room":"a b","message":1}"#, "{"] {
        assert!(request(node.admin, "POST", "/api/publish", &key, body).await.status >= 400);
    }
    request(node.admin, "POST", "/api/publish", &[], r#"{"room":"a","message":1}"#).await;
    check("refused publications", &[]).await;

    for (path, headers) in
        [("/ws", &[("Origin", "https://evil.example")][..]), ("/room/a%20b", &[]), ("/room/a?format=xml", &[])]
    {
        assert!(Client::try_connect(node.clients, path, headers).await.is_err(), "{path}");
    }
    let mut raw = Raw::open(node.clients).await;
    raw.send(handshake("/ws", node.clients, "Sec-WebSocket-Key: x\r\n").as_bytes()).await;
    assert_eq!(raw.answer().await.status, 400);
    // Neither of these tried a handshake.
    for path in ["/ws", "/nothing"] {
        assert!(request(node.clients, "GET", path, &[], "").await.status >= 400);
    }
    check(
        "handshakes that were refused",
        &[
            ("handshakes_total{result=\"origin\"}", 1),
            ("handshakes_total{result=\"bad_room\"}", 1),
            ("handshakes_total{result=\"malformed\"}", 2),
        ],
    )
    .await;

    readers.pop().expect("a reader").close().await;
    drop(readers.pop());
    check(
        "one that closed and one that was lost",
        &[
            ("connections", -2),
            ("subscriptions", -2),
            ("closes_total{reason=\"client_closed\"}", 1),
            ("closes_total{reason=\"connection_lost\"}", 1),
        ],
    )
    .await;

    readers[0].say(json!({"name": "leave"})).await;
    assert_eq!(many.event("message").await["message"], 1);
    let mut echo = node.connect("/echo").await;
    echo.send("x").await;
    assert_eq!(echo.text().await, "x");
    let mut hello = node.connect("/helloworld").await;
    hello.send("close").await;
    assert_eq!(hello.closed().await.0, 1000);
    check(
        "one that left, an echo and a hello",
        &[
            ("connections", 0),
            ("subscriptions", -1),
            ("received_total", 3),
            ("handshakes_total{result=\"accepted\"}", 2),
            ("closes_total{reason=\"left\"}", 2),
        ],
    )
    .await;

    many.say(json!({"name": "unsubscribe", "room": "b"})).await;
    request(node.admin, "DELETE", "/api/rooms/a", &key, "").await;
    check("a room closed for all", &[("received_total", 1), ("subscriptions", -2), ("rooms", -1)]).await;
}

/// What a scrape costs does not grow with the node: it asks no shard, whose loop alone knows its connections, and no room or
/// connection has a line of its own.
#[tokio::test]
async fn a_scrape_asks_no_shard_and_has_as_many_lines_for_many_rooms_and_connections() {
    let node = TestNode::dev("");
    let hub = node.hub.clone();
    let names = |page: &Page| page.samples.keys().cloned().collect::<Vec<_>>();
    let before = names(&page(node.admin, Format::Classic).await);
    for number in 0..20_000 {
        let room = RoomName::parse(&format!("namespace-{}:{number}", number % 100)).expect("a name");
        let draft = Draft { user: None, payload: Payload::Json("1".into()), except: None, receipt: None };
        let _ = hub.registry().publish(&room, hub.room_options(&room), draft, hub.now()).expect("a place");
    }
    let mut clients = Vec::new();
    for number in 0..50 {
        clients.push(node.enter(&format!("namespace-{number}:{number}"), &format!("?name=user-{number}")).await);
    }
    let wedges = [0, 1].map(|shard| hub.wedge(shard, Duration::from_secs(3_600)));
    // Behind what holds the shards up.
    let turned = tokio::spawn(async move { hub.every_shard_turns().await });
    let page = page(node.admin, Format::Classic).await;
    assert!(!turned.is_finished(), "the page was there before a shard could have been asked");
    assert_eq!(names(&page), before, "no sample came along");
    assert_eq!((page.samples["fanfare_rooms"], page.samples["fanfare_connections"]), (20_000.0, 50.0));
    drop(wedges);
    within("the shards to go on", turned).await.expect("no panic");
}

/// Names, and with them units and types, are told in the tables of docs/.
#[tokio::test]
async fn every_metric_is_documented() {
    let jwks = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(jwks.path(), r#"{"keys":[]}"#).expect("a key set");
    let node = TestNode::dev(&format!(
        "[traces]\nurl = \"http://127.0.0.1:9\"\n[auth]\njwks_file = \"{}\"",
        jwks.path().display()
    ));
    let docs = std::fs::read_dir(crate::tidy::root().join("docs")).expect("docs/").filter_map(Result::ok);
    let docs =
        docs.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let docs: String = docs.map(|path| std::fs::read_to_string(path).expect("a page")).collect();
    let page = page(node.admin, Format::Classic).await;
    assert!(page.families.len() > 40, "{}", page.families.len());
    let is_there = |family: &String| ["`", "{", ","].iter().any(|end| docs.contains(&format!("`{family}{end}")));
    let missing: Vec<_> = page.families.keys().filter(|family| !is_there(family)).collect();
    assert!(missing.is_empty(), "no page of docs/ names {missing:?}");
}
