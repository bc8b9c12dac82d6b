//! Fetching the published key set: at the start, on a schedule, and when a token names a key that is not in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use fanfare_edge::{Hub, KeySource};
use fanfare_guard::{KEY_SET_BYTES_MAX, KeySet};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CACHE_CONTROL, HOST, HeaderMap};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::outgoing::{self, Wire};

/// Where the set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOrigin {
    /// An `http` or `https` address.
    Url {
        /// The address.
        url: Uri,
        /// File with the authorities that alone vouch for its server, read anew each time; `None`: those that the system trusts.
        authorities: Option<PathBuf>,
    },
    /// A file, read anew each time.
    File(PathBuf),
}

/// Time one fetch may take.
const FETCH_MAX: Duration = Duration::from_secs(10);

/// How long a set is good for when its server does not say.
const PERIOD: Duration = Duration::from_secs(300);

/// What is made of what it says.
const PERIOD_MIN: Duration = Duration::from_secs(30);
const PERIOD_MAX: Duration = Duration::from_secs(3_600);

/// Keeps the set new for as long as the node runs.
pub(crate) async fn keep_new(hub: Arc<Hub>, source: Arc<KeySource>, origin: KeyOrigin) {
    loop {
        source.ask(hub.now());
        let period = match fetch(&origin).await {
            Ok((set, period)) => {
                if source.set().as_ref().is_none_or(|former| former.len() != set.len()) {
                    info!(keys = set.len(), "the published key set was read");
                }
                source.replace(set, hub.now());
                period
            }
            Err(error) => {
                source.keep();
                let age =
                    source.age(hub.now()).map_or_else(|| "there is none".to_owned(), |age| format!("{age:.0?} old"));
                warn!("the published key set cannot be had: {error:#}; the last good one holds on ({age})");
                PERIOD_MIN
            }
        };
        let next = Instant::now() + period;
        loop {
            tokio::select! {
                () = sleep_until(next) => break,
                () = source.wanted() => {}
            }
            if source.may_ask(hub.now()) {
                break;
            }
        }
    }
}

/// Reads the set, and says how long it is good for.
///
/// # Errors
/// Whatever keeps it from being had, for people.
pub async fn fetch(origin: &KeyOrigin) -> anyhow::Result<(KeySet, Duration)> {
    let (body, period) = match origin {
        KeyOrigin::File(path) => {
            let path = path.clone();
            let read =
                tokio::task::spawn_blocking(move || read_file(&path)).await.context("the reading thread failed")?;
            (read?, PERIOD_MIN)
        }
        KeyOrigin::Url { url, authorities } => {
            let got = timeout(FETCH_MAX, get(url, authorities.as_deref())).await;
            got.map_err(|_| anyhow::anyhow!("no answer within {FETCH_MAX:?}")).and_then(|got| got)?
        }
    };
    let (set, skipped) = KeySet::parse(&body)?;
    for key in skipped {
        warn!("key {} of the published key set is not used: {}", key.place + 1, key.why);
    }
    Ok((set, period))
}

fn read_file(path: &PathBuf) -> anyhow::Result<Bytes> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    // One more than is taken shows that it is too long.
    let most = KEY_SET_BYTES_MAX as u64 + 1;
    file.take(most).read_to_end(&mut bytes).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(bytes.into())
}

async fn get(url: &Uri, authorities: Option<&Path>) -> anyhow::Result<(Bytes, Duration)> {
    request(outgoing::connect(url, authorities).await?, url).await
}

async fn request(stream: Box<dyn Wire>, url: &Uri) -> anyhow::Result<(Bytes, Duration)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .body(Empty::<Bytes>::new())?;
    // The connection's task ends with this call, however that ends.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let response = sender.send_request(request).await?;
    // A redirect is not followed: whoever moved the keys can say so in the configuration.
    let status = response.status();
    anyhow::ensure!(status == StatusCode::OK, "the answer was {status}");
    let period = period(response.headers());
    let body = Limited::new(response.into_body(), KEY_SET_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer cannot be read: {error}"))?;
    Ok((body.to_bytes(), period))
}

/// How long an answer is good for.
fn period(headers: &HeaderMap) -> Duration {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    for word in lines.flat_map(|line| line.split(',')).map(|word| word.trim().to_ascii_lowercase()) {
        if matches!(word.as_str(), "no-store" | "no-cache") {
            return PERIOD_MIN;
        }
        if let Some(seconds) = word.strip_prefix("max-age=").and_then(|seconds| seconds.parse().ok()) {
            return Duration::from_secs(seconds).clamp(PERIOD_MIN, PERIOD_MAX);
        }
    }
    PERIOD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_set_is_good_for_is_bounded() {
        for (line, seconds) in [
            ("", 300),
            ("public, max-age=600, must-revalidate", 600),
            ("Max-Age=1", 30),
            ("max-age=31536000", 3_600),
            ("max-age=soon", 300),
            ("max-age=-1", 300),
            ("no-store", 30),
            ("no-cache, max-age=600", 30),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, line.parse().expect("a header value"));
            assert_eq!(period(&headers), Duration::from_secs(seconds), "{line}");
        }
    }
}
