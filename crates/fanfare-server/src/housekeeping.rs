//! What a node does by itself: reaping vacant rooms, telling the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::key_set::{self, KeyOrigin};
use bytes::Bytes;
use fanfare_edge::Hub;
use fanfare_protocol::Payload;
use fanfare_registry::{Draft, RoomBounds, RoomOptions};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info, warn};

/// Starts the timers on the runtime of whoever calls. They end with it.
pub(crate) fn start(hub: &Arc<Hub>, key_set: Option<KeyOrigin>) {
    let source = hub.settings().key_source.clone();
    if let Some((origin, source)) = key_set.zip(source) {
        tokio::task::spawn_local(key_set::keep_new(hub.clone(), source, origin));
    }
    tokio::task::spawn_local(reap_rooms(hub.clone()));
    tokio::task::spawn_local(renew_certificate(hub.clone()));
    tokio::task::spawn_local(tell_times(hub.clone()));
}

/// Runs a ticker for each period that some namespace has, also after a reload.
async fn tell_times(hub: Arc<Hub>) {
    let mut telling: BTreeMap<u64, AbortHandle> = BTreeMap::new();
    loop {
        // Before they are looked at, so that none that come meanwhile are missed.
        let replaced = hub.settings_replaced();
        let settings = hub.settings();
        let periods: BTreeSet<u64> =
            settings.namespaces.iter().map(|(_, policy)| policy.ticker_ms).filter(|&ms| ms > 0).collect();
        drop(settings);
        telling.retain(|period, ticker| {
            let is_wanted = periods.contains(period);
            if !is_wanted {
                ticker.abort();
            }
            is_wanted
        });
        for period in periods {
            let tell = || tokio::task::spawn_local(tell_time(hub.clone(), period)).abort_handle();
            telling.entry(period).or_insert_with(tell);
        }
        replaced.await;
    }
}

async fn reap_rooms(hub: Arc<Hub>) {
    let mut swept = Instant::now();
    loop {
        // Before the time is looked at, so that none is missed that comes meanwhile.
        let replaced = hub.settings_replaced();
        let due = swept + hub.settings().reap;
        tokio::select! {
            () = sleep_until(due) => swept = Instant::now(),
            () = replaced => continue,
        }
        hub.users().sweep(hub.now());
        let reaped = hub.registry().reap() + hub.registry().expire(hub.now());
        if reaped > 0 {
            debug!(reaped, "vacant rooms reaped");
        }
    }
}

/// How often a new certificate is looked for.
const RENEWAL_PERIOD: Duration = Duration::from_secs(60);

/// Shows a new certificate once there is one. Reading two small files holds nobody up: clients are on other threads.
async fn renew_certificate(hub: Arc<Hub>) {
    let mut looks = interval(RENEWAL_PERIOD);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.tick().await;
    loop {
        looks.tick().await;
        match hub.reload_certificates() {
            Ok(true) => info!("a new certificate is shown from here on"),
            Ok(false) => {}
            Err(reason) => warn!("the certificate is not replaced: {reason}"),
        }
    }
}

/// Publishes the time into every occupied room of the namespaces with this period.
async fn tell_time(hub: Arc<Hub>, period_ms: u64) {
    let mut ticks = interval(Duration::from_millis(period_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once; nobody is here yet.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let rooms = hub.registry().occupied(|room| hub.settings().namespaces.get(room).ticker_ms == period_ms);
        if rooms.is_empty() {
            continue;
        }
        let time = Bytes::from(format!("\"{}\"", rfc3339(SystemTime::now())));
        for room in rooms {
            let payload = Payload::Json(time.clone());
            let draft = Draft { user: None, payload, except: None, receipt: None };
            // What the node itself says takes nothing from what others may.
            let options = RoomOptions { bounds: RoomBounds::default(), ..hub.room_options(&room) };
            // A node that is over its bounds has better things to do than to tell the time; the refusal is counted there.
            let _ = hub.registry().publish(&room, options, draft, hub.now());
        }
    }
}

/// The time in UTC as RFC 3339 writes it, with milliseconds.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (h, m, s, ms) = (second / 3_600, second / 60 % 60, second % 60, since.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}

/// Year, month and day of a day since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_written_as_rfc_3339_says() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_219_200, "2026-11-21T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
