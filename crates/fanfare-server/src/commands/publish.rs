//! `fanfare pub`: publishes through the admin listener and prints the receipts.

use anyhow::Context;
use fanfare_client::{Error, HttpPublisher, Message, Receipt, RoomName, TlsFailure};

use crate::cli::{self, PubArgs};

/// Publishes a message through the admin listener and prints its receipt. Without a message, or with `-`, each line of standard
/// input is a publication of its own.
///
/// # Errors
/// A bad room name or address, a gateway that is not there or refuses, unreadable input. The texts say what to do next.
pub async fn run(args: &PubArgs) -> anyhow::Result<()> {
    let room = RoomName::parse(&args.room).with_context(|| format!("the room {:?} cannot be used", args.room))?;
    let mut publisher = HttpPublisher::from(args.api.client()?);
    match args.message.as_deref() {
        None | Some("-") => publish_lines(&mut publisher, &room).await,
        Some(message) => publish(&mut publisher, &room, message).await,
    }
}

async fn publish_lines(publisher: &mut HttpPublisher, room: &RoomName) -> anyhow::Result<()> {
    let mut number = 0_u64;
    while let Some(line) = next_line().await? {
        number += 1;
        publish(publisher, room, &line).await.with_context(|| format!("line {number} was not published"))?;
    }
    Ok(())
}

/// Reads on another thread, so that the kept connection is served while a terminal is silent.
async fn next_line() -> anyhow::Result<Option<String>> {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().lines().next().transpose());
    read.await.context("the reading thread failed")?.context("cannot read standard input")
}

async fn publish(publisher: &mut HttpPublisher, room: &RoomName, message: &str) -> anyhow::Result<()> {
    let receipt = publisher.publish(room, Message::detect(message)).await.map_err(explain)?;
    cli::print(&format!("{}\n", line(&receipt))).context("cannot write to standard output")
}

/// The receipt on one line.
fn line(receipt: &Receipt) -> String {
    if let Some(held) = receipt.held {
        return format!("held for a moderator, number {held}");
    }
    let Receipt { delivered, dropped, evicted, .. } = receipt;
    let offset = receipt.offset.map(|offset| format!(", offset {offset}")).unwrap_or_default();
    format!("delivered {delivered}, dropped {dropped}, evicted {evicted}{offset}")
}

pub(super) fn explain(error: Error) -> anyhow::Error {
    match &error {
        Error::NothingListening { .. } => {
            anyhow::anyhow!("{error}: start the gateway with `fanfare dev`, or name its admin listener with --url")
        }
        Error::Refused(refusal) if refusal.status == 404 && refusal.code == "not_found" => {
            anyhow::anyhow!(
                "{error}; this is no admin listener: name the address of `admin` in the configuration with --url"
            )
        }
        Error::Refused(refusal) if refusal.status == 401 => {
            anyhow::anyhow!("{error}; the keys stand under api.keys in the configuration, pass one with --key")
        }
        Error::Tls { failure: TlsFailure::UnknownAuthority, .. } => unknown_authority(&error),
        _ => error.into(),
    }
}

pub(super) fn unknown_authority(error: &Error) -> anyhow::Error {
    anyhow::anyhow!("{error}: name the file of the authority that has with --ca")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::cli::{ApiArgs, TrustArgs};

    fn args(room: &str, url: &str) -> PubArgs {
        let api = ApiArgs { url: url.to_owned(), key: None, trust: TrustArgs::default() };
        PubArgs { room: room.to_owned(), message: Some("hi".to_owned()), api }
    }

    #[test]
    fn a_receipt_is_one_line() {
        let mut receipt = Receipt::default();
        receipt.delivered = 3;
        assert_eq!(line(&receipt), "delivered 3, dropped 0, evicted 0");
        receipt.offset = Some(7);
        assert_eq!(line(&receipt), "delivered 3, dropped 0, evicted 0, offset 7");
        receipt.held = Some(2);
        assert_eq!(line(&receipt), "held for a moderator, number 2");
    }

    #[tokio::test]
    async fn failures_say_what_to_do() {
        let unused =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
        let nobody = run(&args("lobby", &format!("http://{unused}"))).await.expect_err("nobody listens");
        assert_eq!(
            nobody.to_string(),
            format!(
                "nothing is listening at {unused}: start the gateway with `fanfare dev`, or name its admin listener with --url"
            )
        );
        let bad = run(&args("a b", "http://127.0.0.1:1")).await.expect_err("a bad name");
        assert!(format!("{bad:#}").contains("not allowed in a name"), "{bad:#}");
    }

    #[tokio::test]
    async fn a_missing_key_is_explained() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let gateway = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.expect("a request");
            let answer = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 17\r\n\r\n{\"code\":\"no_key\"}";
            stream.write_all(answer.as_bytes()).await.expect("an answer");
            let _ = stream.read(&mut request).await;
        });
        let args = args("lobby", &url);
        let refused = tokio::time::timeout(Duration::from_secs(5), run(&args)).await;
        let refused = refused.expect("an answer in time").expect_err("a refusal").to_string();
        assert!(refused.contains("401 no_key") && refused.contains("--key"), "{refused}");
        gateway.abort();
    }
}
