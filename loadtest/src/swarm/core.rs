//! What the connections of one thread share, and how each of them tells what became of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{bail, ensure};
use fanfare_client::Url;

use super::connect::Ports;
use super::member::{Member, Stage};
use super::{Lane, Measured, Shared};
use crate::frame::http_header;
use crate::stamp::{Stamp, Stamps};

/// What the connections of one thread share.
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) thread: usize,
    pub(super) measured: Measured,
    pub(super) stamps: Stamps,
    /// When the bytes at hand were read, since the origin.
    pub(super) now_ns: u64,
    pub(super) ports: Ports,
    /// Connections that are being opened.
    pub(super) opening: usize,
    /// A storm has been: who does not come back at once tries again.
    pub(super) stormy: bool,
    /// Of this turn.
    pub(super) arrivals: u64,
    pub(super) delivered: u64,
    /// Publishers whose windows have room.
    pub(super) windows: Vec<usize>,
    /// Publishers that were cut off.
    pub(super) cut: Vec<usize>,
    pub(super) key: String,
    pub(super) answer: String,
    /// For encrypted bytes as they are read; empty where there are none.
    pub(super) wire: Box<[u8]>,
}

impl Core {
    pub(super) fn lane(&self) -> &Lane {
        &self.shared.lanes[self.thread]
    }

    /// The request for the upgrade at `url`.
    pub(super) fn upgrade_request(&self, url: &Url) -> Vec<u8> {
        use std::fmt::Write;
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
            url.target(),
            url.authority(),
            self.key
        );
        if let Some(token) = &self.shared.plan.token {
            write!(request, "Authorization: Bearer {token}\r\n").expect("writing to a string cannot fail");
        }
        request.push_str("\r\n");
        request.into_bytes()
    }

    /// Checks the answer to the upgrade (RFC 6455 section 4.1).
    pub(super) fn check_answer(&self, head: &[u8]) -> anyhow::Result<()> {
        let head = String::from_utf8_lossy(head);
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            bail!("the gateway answered {status:?}");
        }
        let accept = http_header(&head, "sec-websocket-accept");
        ensure!(accept == Some(&self.answer), "the gateway's Sec-WebSocket-Accept is wrong");
        ensure!(
            http_header(&head, "sec-websocket-extensions").is_none(),
            "the gateway chose an extension that was not offered"
        );
        Ok(())
    }

    /// A delivery to one that is waited for.
    pub(super) fn delivered(&mut self, room: usize, stamp: Stamp) {
        let beside = self.shared.plan.is_beside(room);
        let latency = if beside { &mut self.measured.latency_beside } else { &mut self.measured.latency };
        latency.saturating_record(self.now_ns.saturating_sub(stamp.due_ns));
        self.delivered += 1;
        let publisher = room * self.shared.plan.publishers_per_room + stamp.publisher as usize;
        if let Some(window) = &self.shared.publishers[publisher].window
            && window.delivered(stamp.seq)
        {
            self.windows.push(publisher);
        }
    }

    /// A connection ended before its time.
    pub(super) fn cut_off(&mut self, member: &Member, code: u16, reason: String, stage: Stage) {
        let plan = &self.shared.plan;
        if stage == Stage::Open && member.is_waited_for() {
            self.shared.present[member.room].fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(within) = member.publishes {
            let publisher = member.room * plan.publishers_per_room + within;
            self.shared.publishers[publisher].cut_off.store(true, Ordering::Release);
            self.cut.push(publisher);
        }
        self.measured.closes_of_stalled += u64::from(member.is_stalled_for_good());
        *self.measured.closes.entry((code, reason)).or_default() += 1;
    }

    /// Tells the other threads what this turn brought.
    pub(super) fn tell(&mut self) {
        let lane = &self.shared.lanes[self.thread];
        if self.arrivals > 0 {
            lane.arrivals.fetch_add(std::mem::take(&mut self.arrivals), Ordering::Relaxed);
        }
        if self.delivered > 0 {
            lane.last_ns.store(self.now_ns, Ordering::Relaxed);
            lane.delivered.fetch_add(std::mem::take(&mut self.delivered), Ordering::Relaxed);
        }
    }
}
