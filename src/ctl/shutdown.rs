//! `shutdown`: stops everything and waits until the daemon has gone. `reopen`: lets it open its log files again.

use super::{
    args::ShutdownArgs,
    client::{SOON, Server},
    fail::Fail,
};
use crate::wire::Condition;
use bytes::Bytes;
use http_body_util::BodyExt;
use std::io::Write;

pub(super) async fn run(server: &Server, args: &ShutdownArgs, out: &mut impl Write) -> Result<u8, Fail> {
    let mut client = server.connect().await?;
    // Opened before, this stream ends when the daemon does.
    let mut life = server.connect().await?.open("/v1/events").await?;
    let path = if args.force { "/v1/shutdown?force=true" } else { "/v1/shutdown" };
    client.post::<Condition>(path, Bytes::new(), SOON).await?;
    if args.no_wait {
        writeln!(out, "keepd is stopping")?;
        return Ok(0);
    }
    while let Some(Ok(_)) = life.frame().await {}
    writeln!(out, "keepd has stopped")?;
    Ok(0)
}

/// When this returns, no file that was moved away is written any more.
pub(super) async fn reopen(server: &Server, out: &mut impl Write) -> Result<u8, Fail> {
    server.connect().await?.post::<Condition>("/v1/reopen", Bytes::new(), SOON).await?;
    writeln!(out, "log files are open again by their names")?;
    Ok(0)
}
