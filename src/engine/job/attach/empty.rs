//! A target that had to be empty, looked at again once its stream is had.
//!
//! The precheck has found it empty, and its stream begins seconds later: a server gathers replicas before it takes a
//! snapshot (`repl-diskless-sync-delay`). What clients write in between is in no stream that is read and in no snapshot that
//! is loaded; it would stand at the target alone, and nobody would be told.

use super::place::Place;
use crate::engine::fence::pages::Pages;
use crate::engine::job::{JobContext, JobError};
use crate::model::{ExistingKeys, JobId};

/// Keys that are looked at in one go.
const PAGE: u64 = 1_000;

/// Refuses a first start whose target has got keys since the precheck. What comes a moment after the stream's begin is refused
/// along with it.
pub(super) async fn still_empty(context: &JobContext, target: &mut Place) -> Result<(), JobError> {
    if context.job.policy.existing_keys != ExistingKeys::Block {
        return Ok(());
    }
    let databases = &context.job.policy.databases;
    for shard in &mut target.shards {
        let keyspace = shard.control.info().await?.keyspace;
        for db in keyspace.iter().map(|k| k.db).filter(|db| databases.contains(*db)) {
            let (mut pages, mut cursor) = (Pages::of(PAGE), 0);
            loop {
                let (next, keys) = pages.next(&mut shard.control, db, cursor).await?;
                if let Some(key) = keys.iter().find(|key| !key.starts_with(JobId::KEY_PREFIX.as_bytes())) {
                    return Err(came(&shard.address, db, key));
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
    }
    Ok(())
}

fn came(address: &str, db: u32, key: &[u8]) -> JobError {
    JobError::lasting(
        format!(
            "keys have come to the target {address} since it was found empty, such as db{db} {:?}: nothing has been copied",
            String::from_utf8_lossy(key)
        ),
        "empty it and start the job again while nobody writes there yet, or choose the policy `merge`, which takes such keys \
         along",
    )
}
