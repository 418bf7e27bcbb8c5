//! Follows a site's master: where somebody can tell of another (sentinels, or several addresses), they are asked again
//! and again, and when it has moved the run is over: the next begins at the new master.

use super::JobError;
use crate::engine::net::Dialer;
use crate::model::Side;
use std::time::Duration;

/// How often they are asked. A failover takes a sentinel some seconds at best.
const EVERY: Duration = Duration::from_secs(1);

/// Ends when the site has another master than this, which is a master by its own word; gives why the run is over.
/// Sentinels decide that; among plain addresses nobody does, so there a master is left only when it is none any more.
pub async fn follow(dialer: Dialer, side: Side, address: String) -> JobError {
    loop {
        tokio::time::sleep(EVERY).await;
        let Ok(masters) = dialer.masters().await else { continue };
        let [only] = masters.as_slice() else { continue };
        if only.address == address {
            continue;
        }
        let is_master = async |address: &str| dialer.info(address).await.is_ok_and(|info| info.is_master());
        if !dialer.instance().may_be_sentinels() && is_master(&address).await {
            continue;
        }
        if is_master(&only.address).await {
            let what = format!("the {side}'s master is {} now, and was {address}", only.address);
            return JobError::passing(what, "the links go on there");
        }
    }
}
