//! The rate that an operator allows: changes and bytes a second, adjustable while running.

use crate::engine::gauge::Gauge;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A bucket for changes and one for bytes, each holding a tenth of a second's worth.
pub struct Limiter {
    gauge: Arc<Gauge>,
    /// Negative: overdrawn.
    changes: f64,
    bytes: f64,
    filled: Instant,
}

impl Limiter {
    pub fn new(gauge: Arc<Gauge>) -> Self {
        Limiter { gauge, changes: 0.0, bytes: 0.0, filled: Instant::now() }
    }

    /// How long to wait before anything more may be sent; `None`: now.
    pub fn delay(&mut self) -> Option<Duration> {
        let (changes, bytes) = self.gauge.limits();
        if changes == 0 && bytes == 0 {
            return None;
        }
        let passed = self.filled.elapsed().as_secs_f64();
        self.filled = Instant::now();
        let wait = |level: &mut f64, rate: u64| {
            if rate == 0 {
                *level = 0.0;
                return 0.0;
            }
            let rate = rate as f64;
            *level = (*level + passed * rate).min(rate / 10.0);
            if *level > 0.0 { 0.0 } else { -*level / rate + 0.001 }
        };
        let seconds = wait(&mut self.changes, changes).max(wait(&mut self.bytes, bytes));
        (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(1.0)))
    }

    /// So much was sent.
    pub fn spend(&mut self, changes: u64, bytes: u64) {
        self.changes -= changes as f64;
        self.bytes -= bytes as f64;
    }
}
