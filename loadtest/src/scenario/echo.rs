//! Every connection talks to itself through the echo path: a room of one, in the text dialect.

use fanfare_client::Url;

use super::{Plan, Room, Via, Wire, pace};
use crate::cli::{Common, EchoArgs};

/// The plan that the arguments ask for.
///
/// # Errors
/// Arguments that do not fit together.
pub fn plan(args: &EchoArgs, run: u32) -> anyhow::Result<Plan> {
    let common = &args.common;
    let connections = common.connections as usize;
    let url = Url::parse(&common.url)?;
    Ok(Plan {
        name: "echo",
        run,
        rooms: vec![Room { url: url.join("echo"), name: None }; connections],
        connections,
        publishers_per_room: 1,
        via: Via::Members,
        wire: Wire::Text,
        pace: pace(common, args.rate, args.outstanding, connections)?,
        duration: common.duration,
        payload_bytes: common.payload,
        threads: common.threads.into(),
        opening: common.opening as usize,
        settle: common.settle,
        token: common.token.clone(),
        spread_sources: Common::is_loopback(&url),
        pid: common.pid,
        allow_closes: common.allow_closes,
    })
}
