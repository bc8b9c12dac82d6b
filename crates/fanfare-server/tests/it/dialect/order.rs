//! One order for all subscribers of a room.

use super::*;

// ---- order ----

const PUBLISHERS: usize = 3;

const EACH: usize = 500;

const SUBSCRIBERS: usize = 20;

/// What one subscription heard: where the stream stood when it began, and the messages from then on.
struct Heard {
    offset: usize,
    messages: Vec<String>,
}

/// Hears all of the room's messages.
async fn hear_all(mut client: Client, offset: usize) -> Heard {
    let mut messages = Vec::new();
    while offset + messages.len() < PUBLISHERS * EACH {
        messages.push(raw_message(&client.text().await).to_owned());
    }
    client.expect_nothing().await;
    Heard { offset, messages }
}

/// Comes and goes until `done`, hearing a few messages each time.
async fn come_and_go(mut client: Client, done: Arc<AtomicBool>) -> Vec<Heard> {
    let mut visits = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let subscribed = client.subscribe("busy").await;
        let offset = subscribed["offset"].as_u64().expect("an offset") as usize;
        // Leaves whatever comes, and must then hear what was said up to that point.
        client.say(json!({"name": "unsubscribe", "room": "busy"})).await;
        let mut messages = Vec::new();
        loop {
            let text = client.text().await;
            if text.starts_with(r#"{"name":"unsubscribed""#) {
                break;
            }
            messages.push(raw_message(&text).to_owned());
        }
        client.expect_nothing().await;
        visits.push(Heard { offset, messages });
    }
    visits
}

/// Publishes as far as it is let: a permit a message.
async fn publish_all(mut client: Client, publisher: usize, permits: Arc<Semaphore>) {
    for number in 0..EACH {
        permits.acquire().await.unwrap().forget();
        client.say(json!({"name": "publish", "room": "busy", "message": format!("{publisher}-{number}")})).await;
        // Gives the others their turn, as a network would.
        tokio::task::yield_now().await;
    }
    client.expect_nothing().await;
}

#[tokio::test]
async fn all_subscribers_on_all_shards_see_one_order_while_others_come_and_go() {
    let node = TestNode::dev("shards = 3");
    let mut subscribers = Vec::new();
    for index in 0..SUBSCRIBERS {
        // Half of them on /ws, half on /room.
        let client = if index % 2 == 0 {
            let mut client = welcomed(&node).await;
            client.subscribe("busy").await;
            client
        } else {
            node.enter("busy", "").await
        };
        subscribers.push(tokio::spawn(hear_all(client, 0)));
    }
    let done = Arc::new(AtomicBool::new(false));
    let mut visitors = Vec::new();
    for _ in 0..10 {
        visitors.push(tokio::spawn(come_and_go(welcomed(&node).await, done.clone())));
    }
    let part = PUBLISHERS * EACH / 6;
    let permits = Arc::new(Semaphore::new(part));
    let mut publishers = Vec::new();
    for publisher in 0..PUBLISHERS {
        publishers.push(tokio::spawn(publish_all(welcomed(&node).await, publisher, permits.clone())));
    }
    // Some come when much has been said already, and never when all has.
    let mut late = Vec::new();
    for _ in 0..5 {
        let mut client = welcomed(&node).await;
        let offset = client.subscribe("busy").await["offset"].as_u64().expect("an offset") as usize;
        late.push(tokio::spawn(hear_all(client, offset)));
        permits.add_permits(part);
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let heard: Vec<Heard> = join_all(subscribers).await.into_iter().map(Result::unwrap).collect();
    done.store(true, Ordering::Relaxed);

    let order = &heard[0].messages;
    // Nothing missing, nothing double, and every publisher's own order kept.
    for publisher in 0..PUBLISHERS {
        let prefix = format!("\"{publisher}-");
        let own: Vec<&String> = order.iter().filter(|message| message.starts_with(&prefix)).collect();
        let expected: Vec<String> = (0..EACH).map(|number| format!("\"{publisher}-{number}\"")).collect();
        assert!(own.into_iter().eq(&expected), "the order of publisher {publisher}");
    }
    assert_eq!(order.len(), PUBLISHERS * EACH);
    for (index, heard) in heard.iter().enumerate() {
        assert!(heard.messages == *order, "subscriber {index} saw another order");
    }
    for heard in join_all(late).await.into_iter().map(Result::unwrap) {
        assert!(heard.messages == order[heard.offset..], "who came at {} missed something", heard.offset);
        assert!(!heard.messages.is_empty());
    }
    let visits: Vec<Heard> = join_all(visitors).await.into_iter().flat_map(Result::unwrap).collect();
    for visit in &visits {
        let end = visit.offset + visit.messages.len();
        assert!(visit.messages == order[visit.offset..end], "a visit from {} to {end}", visit.offset);
    }
    assert!(visits.iter().any(|visit| !visit.messages.is_empty()), "some visits overlapped with publications");
    assert!(visits.len() > 20, "only {} visits", visits.len());
}
