//! Every connection talks to itself: through the echo path, or where there is none through a room of one.

use fanfare_client::{RoomName, Url};

use super::{Plan, Room, Via, pace};
use crate::cli::EchoArgs;

/// The plan that the arguments ask for.
///
/// # Errors
/// Arguments that do not fit together.
pub fn plan(args: &EchoArgs, run: u32) -> anyhow::Result<Plan> {
    let common = &args.common;
    let connections = common.connections.unwrap_or(1_000) as usize;
    let base = Url::parse(&common.url)?;
    anyhow::ensure!(common.dialect.sender_included(), "in this dialect nobody gets its own messages back");
    let echo = common.dialect.echo_url(&base);
    let room = |index: usize| {
        let name = RoomName::parse(&format!("load-{run:08x}-{index}"))?;
        let url = echo.clone().unwrap_or_else(|| common.dialect.room_url(&base, &name, None));
        Ok(Room { url, commands_url: None, name: Some(name) })
    };
    Ok(Plan {
        rooms: (0..connections).map(room).collect::<anyhow::Result<_>>()?,
        connections,
        via: Via::Members,
        dialect: if echo.is_some() { common.dialect.of_echo() } else { common.dialect },
        pace: pace(common, args.rate, args.outstanding, connections)?,
        ..Plan::new("echo", common, &base, run)?
    })
}
