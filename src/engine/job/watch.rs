//! What a source tells of itself while its link runs: the backlog and how long it lasts.

use crate::engine::net::Control;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often a source is asked.
const EVERY: Duration = Duration::from_secs(5);
/// Over how long a write rate is measured.
const MEMORY: usize = 12;

/// The latest facts about a source; unknown ones are `None`.
#[derive(Debug, Default)]
pub struct SourceFacts(Mutex<Facts>);

#[derive(Debug, Default, Clone)]
pub struct Facts {
    pub backlog_bytes: Option<u64>,
    /// Seconds that a link can be away before its position is lost, at the write rate of the last minute.
    pub resume_window_seconds: Option<u64>,
    /// Keys that it has evicted since the link runs, if some were in the last minutes.
    pub evicted: Option<u64>,
}

impl SourceFacts {
    pub fn get(&self) -> Facts {
        self.0.lock().unwrap_or_else(|p| p.into_inner()).clone()
    }

    fn set(&self, facts: Facts) {
        *self.0.lock().unwrap_or_else(|p| p.into_inner()) = facts;
    }
}

/// How long an alert stands after the latest eviction.
const EVICTION_TOLD: Duration = Duration::from_secs(300);

/// Follows a server's count of evicted keys.
#[derive(Debug, Default)]
struct Evictions {
    /// The count when it was first seen, and the latest.
    seen: Option<(u64, u64)>,
    rose: Option<Instant>,
}

impl Evictions {
    /// How many there were since the first look, if it has risen lately.
    fn look(&mut self, count: Option<u64>, now: Instant) -> Option<u64> {
        let count = count?;
        let (first, last) = self.seen.unwrap_or((count, count));
        // A server that was restarted counts anew.
        let first = if count < last { 0 } else { first };
        if count > last || count < last && count > 0 {
            self.rose = Some(now);
        }
        self.seen = Some((first, count));
        self.rose.filter(|at| now.duration_since(*at) < EVICTION_TOLD).map(|_| count - first)
    }
}

/// How fast a server's stream grows.
#[derive(Debug, Default)]
struct Growth {
    offsets: std::collections::VecDeque<(Instant, u64)>,
    copied: bool,
}

impl Growth {
    /// Bytes a second since the oldest look that counts. A copy that is just written to the server (`copying`) says nothing of how
    /// fast its clients write, so what it has brought by its end does not count either.
    fn look(&mut self, offset: Option<u64>, copying: bool, now: Instant) -> Option<f64> {
        if copying || self.copied {
            self.offsets.clear();
        }
        self.copied = copying;
        self.offsets.push_back((now, offset?));
        if self.offsets.len() > MEMORY {
            self.offsets.pop_front();
        }
        let ((began, first), (last, at)) = (self.offsets.front()?, self.offsets.back()?);
        let seconds = last.duration_since(*began).as_secs_f64();
        (seconds > 0.0).then(|| at.saturating_sub(*first) as f64 / seconds)
    }
}

/// Asks for ever; what can't be had stays unknown.
pub async fn follow(mut control: Control, facts: std::sync::Arc<SourceFacts>, copied_to: impl Fn() -> bool) {
    // The backlog is freed so long after the last replica has left; 0 is never. Servers that forbid CONFIG have the
    // default as a rule.
    let ttl = control.config("repl-backlog-ttl").await.ok().flatten().and_then(|v| v.parse::<u64>().ok());
    let ttl = ttl.unwrap_or(3600);
    let mut growth = Growth::default();
    let mut evictions = Evictions::default();
    loop {
        if let Ok(info) = control.info().await {
            let now = Instant::now();
            let rate = growth.look(info.master_repl_offset.map(|o| o.0), copied_to(), now);
            let kept = if ttl == 0 { u64::MAX } else { ttl };
            let window = info.backlog_size.zip(rate).map(|(size, rate)| {
                let by_size = if rate > 0.0 { (size as f64 / rate) as u64 } else { u64::MAX };
                by_size.min(kept)
            });
            facts.set(Facts {
                backlog_bytes: info.backlog_size,
                resume_window_seconds: window.filter(|w| *w < u64::MAX),
                evicted: evictions.look(info.field("evicted_keys").and_then(|n| n.parse().ok()), now),
            });
        }
        tokio::time::sleep(if growth.offsets.len() < 2 { Duration::from_secs(1) } else { EVERY }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_copy_brings_is_not_what_clients_write() {
        let (mut g, t, s) = (Growth::default(), Instant::now(), Duration::from_secs(1));
        assert_eq!(g.look(Some(100), true, t), None);
        assert_eq!(g.look(Some(9_000_000), false, t + s), None, "the copy ended between two looks");
        assert_eq!(g.look(Some(9_000_500), false, t + 2 * s), Some(500.0));
        assert_eq!(g.look(None, false, t + 3 * s), None);
        assert_eq!(g.look(Some(9_000_800), false, t + 4 * s), Some(800.0 / 3.0));
        assert_eq!(g.look(Some(18_000_000), true, t + 5 * s), None, "a copy begins again");
    }

    #[test]
    fn evictions_are_told_while_they_go_on_and_for_a_while() {
        let (mut e, t) = (Evictions::default(), Instant::now());
        assert_eq!(e.look(Some(70), t), None, "what was before does not count");
        assert_eq!(e.look(Some(70), t), None);
        assert_eq!(e.look(Some(75), t), Some(5));
        assert_eq!(e.look(None, t), None);
        assert_eq!(e.look(Some(75), t + EVICTION_TOLD / 2), Some(5));
        assert_eq!(e.look(Some(75), t + EVICTION_TOLD), None);
        assert_eq!(e.look(Some(2), t + EVICTION_TOLD), Some(2), "it was restarted");
    }
}
