//! The two instances' clocks: expiry is told in absolute time. Which of two writes is the later goes by this engine's own
//! clock, not by theirs.

use super::{Context, Finding, SideContext};
use crate::engine::probe::server::{Refusal, int, items};
use crate::model::Side;
use futures::future::try_join_all;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds of difference from which it is a warning.
const TOLERATED_MS: f64 = 100.0;

/// Questions of which the quickest is taken.
const TRIES: usize = 5;

/// How far a server's clock is ahead of ours, and how exactly that is known, in milliseconds.
struct Reading {
    ahead: f64,
    exact_to: f64,
}

pub(super) async fn clock(cx: &Context) -> Result<Finding, Refusal> {
    let readings = try_join_all(cx.both().iter().map(read)).await?;
    Ok(judge(&readings[Side::Source.index()], &readings[Side::Target.index()]))
}

fn judge(source: &Reading, target: &Reading) -> Finding {
    let difference = (source.ahead - target.ahead).abs();
    let exact_to = source.exact_to + target.exact_to;
    let seen = format!(
        "the clocks differ by {difference:.1} ms (known to ±{exact_to:.1} ms); source {:+.1} ms, target {:+.1} ms \
         against this machine",
        source.ahead, target.ahead
    );
    if difference - exact_to > TOLERATED_MS {
        let ahead = if source.ahead > target.ahead { Side::Source } else { Side::Target };
        return Finding::warning(
            seen,
            "keys expire at an absolute time: on a clock that is ahead they are gone while the other side still has them, \
             and the deletion reaches it early. (Which of two writes to one key is the later does not go by these \
             clocks, but by when this engine reads them)",
            "set both hosts' clocks by NTP: `chronyc tracking` or `timedatectl timesync-status` on each",
        )
        .at(ahead);
    }
    Finding::passed(seen)
}

async fn read(side: &SideContext) -> Result<Reading, Refusal> {
    let server = side.server()?;
    let mut best: Option<Reading> = None;
    for _ in 0..TRIES {
        let before = now_ms();
        let start = Instant::now();
        let reply = server.ask(&redis::cmd("TIME")).await?;
        let trip = start.elapsed().as_secs_f64() * 1000.0;
        let parts = items(reply);
        let (Some(s), Some(us)) = (parts.first().and_then(int), parts.get(1).and_then(int)) else {
            return Err(Refusal::Refused("TIME was not answered with two numbers".into()));
        };
        let reading =
            Reading { ahead: s as f64 * 1000.0 + us as f64 / 1000.0 - (before + trip / 2.0), exact_to: trip / 2.0 };
        if best.as_ref().is_none_or(|b| reading.exact_to < b.exact_to) {
            best = Some(reading);
        }
    }
    best.ok_or_else(|| Refusal::Broken("TIME was never answered".into()))
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CheckState;

    #[test]
    fn only_a_difference_that_is_certain_is_a_warning() {
        let at = |ahead, exact_to| Reading { ahead, exact_to };
        let found = judge(&at(0.0, 1.0), &at(150.0, 1.0));
        assert_eq!((found.state, found.side), (CheckState::Warning, Some(Side::Target)));
        assert!(found.seen.contains("150.0 ms"), "{}", found.seen);
        assert_eq!(judge(&at(40.0, 1.0), &at(-50.0, 1.0)).state, CheckState::Passed);
        // A slow line: the clocks may be equal.
        assert_eq!(judge(&at(0.0, 100.0), &at(150.0, 1.0)).state, CheckState::Passed);
    }
}
