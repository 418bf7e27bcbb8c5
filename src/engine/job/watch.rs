//! What a source tells of itself while its link runs: the backlog and how long it lasts, evictions, keys.

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
    /// Evictions since the link began to look.
    pub evicted_since: u64,
}

impl SourceFacts {
    pub fn get(&self) -> Facts {
        self.0.lock().unwrap_or_else(|p| p.into_inner()).clone()
    }

    fn set(&self, facts: Facts) {
        *self.0.lock().unwrap_or_else(|p| p.into_inner()) = facts;
    }
}

/// Asks for ever; what can't be had stays unknown.
pub async fn follow(mut control: Control, facts: std::sync::Arc<SourceFacts>) {
    // The backlog is freed so long after the last replica has left; 0 is never. Servers that forbid CONFIG have the
    // default as a rule.
    let ttl = control.config("repl-backlog-ttl").await.ok().flatten().and_then(|v| v.parse::<u64>().ok());
    let ttl = ttl.unwrap_or(3600);
    let mut offsets: std::collections::VecDeque<(Instant, u64)> = Default::default();
    let mut evicted_first = None;
    loop {
        if let Ok(info) = control.info().await {
            let now = Instant::now();
            if let Some(offset) = info.master_repl_offset {
                offsets.push_back((now, offset.0));
                if offsets.len() > MEMORY {
                    offsets.pop_front();
                }
            }
            let rate = match (offsets.front(), offsets.back()) {
                (Some(a), Some(b)) if b.0 > a.0 => {
                    Some(b.1.saturating_sub(a.1) as f64 / b.0.duration_since(a.0).as_secs_f64())
                }
                _ => None,
            };
            let kept = if ttl == 0 { u64::MAX } else { ttl };
            let window = info.backlog_size.zip(rate).map(|(size, rate)| {
                let by_size = if rate > 0.0 { (size as f64 / rate) as u64 } else { u64::MAX };
                by_size.min(kept)
            });
            let evicted = info.field("evicted_keys").and_then(|v| v.parse::<u64>().ok());
            let first = *evicted_first.get_or_insert(evicted.unwrap_or(0));
            facts.set(Facts {
                backlog_bytes: info.backlog_size,
                resume_window_seconds: window.filter(|w| *w < u64::MAX),
                evicted_since: evicted.unwrap_or(0).saturating_sub(first),
            });
        }
        tokio::time::sleep(if offsets.len() < 2 { Duration::from_secs(1) } else { EVERY }).await;
    }
}
