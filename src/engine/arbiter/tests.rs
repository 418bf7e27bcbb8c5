//! A deterministic simulation of two sites and the engine between them, and the arbiter's corner cases.
//!
//! `DUPLEX_SIM_SEED=n` replays one schedule, `DUPLEX_SIM_SEEDS=n` runs that many of each kind, from `DUPLEX_SIM_FIRST` on.
//! In a soak (`DUPLEX_SOAK`) there are ten times as many as usual, others each day.
//!
//! What the engine does and this does not: databases that change places, positions cut back after a failover, slots that
//! move, expiries that a copy puts off, values that a site never takes. Each of them has tests on real servers.

mod corners;
mod engine;
mod race;
mod schedule;
mod site;
mod words;

use super::class::Part;

fn whole() -> Part {
    Part::WHOLE
}

/// How many schedules of a kind to run, and from which seed on.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    if let Some(seed) = number("DUPLEX_SIM_SEED") {
        return seed..seed + 1;
    }
    let soak = std::env::var_os("DUPLEX_SOAK").is_some();
    let today = std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs() / 86_400);
    let first = number("DUPLEX_SIM_FIRST").unwrap_or(if soak { today * 1_000_000 } else { 0 });
    first..first + number("DUPLEX_SIM_SEEDS").unwrap_or(if soak { 10 * usual } else { usual })
}
