//! Once a second: samples for the charts, alerts, and events for what changed.

use super::{Inner, lock, managed::Managed};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::{MissedTickBehavior, interval};

/// Seconds between two stores of the histories: what a killed engine loses of its charts.
const STORE_EVERY: u64 = 60;

/// Samples until the engine stops.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut count = 0u64;
    loop {
        tokio::select! {
            _ = inner.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        count += 1;
        let jobs: Vec<Arc<Managed>> = lock(&inner.jobs).values().cloned().collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut any = false;
        for job in &jobs {
            any |= job.sample(now);
        }
        if any {
            inner.touch();
        }
        if count.is_multiple_of(STORE_EVERY) && any {
            let written = tokio::task::spawn_blocking(move || jobs.iter().for_each(|job| job.store_history()));
            _ = written.await;
        }
    }
}
