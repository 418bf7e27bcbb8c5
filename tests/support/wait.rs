//! Waiting for a state, never for a time. The one place in the tests that pauses.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// So many seconds, times `DUPLEX_TEST_PATIENCE` (a whole number, 1 where unset): a slow machine raises it once
/// instead of every deadline in the suites.
pub fn secs(seconds: u64) -> Duration {
    let patience = std::env::var("DUPLEX_TEST_PATIENCE").ok().and_then(|p| p.parse().ok()).unwrap_or(1);
    Duration::from_secs(seconds * patience)
}

/// Looks again and again until `look` finds what it wants; after `limit` it panics with what was there instead.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if began.elapsed() > limit => {
                panic!("{what}: not so after {:.1} s; instead:\n{seen}", began.elapsed().as_secs_f64())
            }
            Err(_) => thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Runs a load until told to stop, or paces one: a point in time, not a state, is what is wanted here.
pub fn until(moment: Instant) {
    if let Some(left) = moment.checked_duration_since(Instant::now()) {
        thread::sleep(left);
    }
}

/// Tells those who run beside a test to stop, also where the test ends in a panic: a scope waits for its threads, and a test
/// that has failed would say so only when the runner cuts it off.
pub struct Stops<'a>(pub &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
