//! `upgrade`: keepd goes on as the program that is installed now, and this waits until it has.

use super::{
    client::{SOON, Server},
    fail::{Fail, UNREACHABLE},
};
use crate::wire::{Condition, Status};
use bytes::Bytes;
use std::{io::Write, time::Duration};

/// How long keepd may take to answer again.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn run(server: &Server, out: &mut impl Write) -> Result<u8, Fail> {
    let mut client = server.connect().await?;
    let before: Status = client.get("/v1/status", SOON).await?;
    match client.post::<Condition>("/v1/upgrade", Bytes::new(), LIMIT).await {
        // The one who would have answered is gone.
        Err(fail) if fail.status == UNREACHABLE => {}
        Err(fail) => return Err(fail),
        Ok(_) => return Err(Fail::new(1, "cannot tell what keepd answered")),
    }
    let after = tokio::time::timeout(LIMIT, returned(server, &before)).await.map_err(|_| {
        Fail::new(UNREACHABLE, format!("keepd has not come back within {} s", LIMIT.as_secs()))
    })?;
    if after.upgrades == before.upgrades {
        let detail = format!("keepd {} goes on: `keepctl events` says why", after.version);
        return Err(Fail::new(1, format!("cannot upgrade; {detail}")));
    }
    writeln!(out, "keepd {} goes on as keepd {}", before.version, after.version)?;
    Ok(0)
}

/// The status that another manager gives.
async fn returned(server: &Server, before: &Status) -> Status {
    loop {
        if let Ok(mut client) = server.connect().await
            && let Ok(status) = client.get::<Status>("/v1/status", SOON).await
            && status.manager_pid != before.manager_pid
        {
            return status;
        }
        #[expect(clippy::disallowed_methods, reason = "a pause between two attempts to connect")]
        tokio::time::sleep(PAUSE).await;
    }
}
