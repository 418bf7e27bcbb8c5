//! When to try again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(15);

/// Exponential, from 100 ms to 15 s, with jitter so that many links don't come back in step.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// Counts a failure; the pause before the next try. A fault that needs a person is tried slowly at once.
    pub fn next(&mut self, needs_a_person: bool) -> Duration {
        self.attempt += 1;
        let base = if needs_a_person { LAST } else { (FIRST * (1 << (self.attempt - 1).min(8))).min(LAST) };
        base.mul_f64(0.75 + fastrand::f64() * 0.25)
    }

    /// Failures since the last success.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_start_again_after_a_success() {
        let mut backoff = Backoff::default();
        assert!(backoff.next(false) <= Duration::from_millis(100));
        let pauses: Vec<_> = (0..40).map(|_| backoff.next(false)).collect();
        assert!(pauses.iter().all(|p| *p <= LAST) && pauses[39] >= LAST.mul_f64(0.75));
        backoff.reset();
        assert!(backoff.next(false) <= Duration::from_millis(100));
        assert!(backoff.next(true) > Duration::from_secs(11));
    }
}
