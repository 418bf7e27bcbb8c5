//! Looks at a server's clock and at where its stream ends, for [`crate::engine::clock`].

use crate::engine::clock::{Look, StreamClock};
use crate::engine::core::Shared;
use crate::engine::net::Control;
use crate::model::Offset;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is read late is known to this much.
const EVERY: Duration = Duration::from_millis(500);
/// After a server has not answered.
const LATER: Duration = Duration::from_secs(5);

/// Looks for ever; a server that does not say is asked again later.
pub async fn follow(mut control: Control, shared: Arc<Shared>, clock: Arc<StreamClock>) {
    loop {
        let seen = look(&mut control, &shared).await;
        if let Some(look) = seen {
            clock.lock().looked(look);
        }
        tokio::time::sleep(if seen.is_some() { EVERY } else { LATER }).await;
    }
}

/// Both in one packet, which a server answers in one go: what it says to the first is as old as what it says to the second.
async fn look(control: &mut Control, shared: &Shared) -> Option<Look> {
    let mut both = redis::pipe();
    both.cmd("TIME").cmd("INFO").arg("replication");
    let asked = shared.us_at(Instant::now());
    let ((seconds, micros), info): ((u64, u64), String) = both.query_async(control).await.ok()?;
    let came = shared.us_at(Instant::now());
    let end = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:")?.trim().parse().ok());
    Some(Look { asked, came, server: seconds * 1_000_000 + micros, end: Offset(end?) })
}
