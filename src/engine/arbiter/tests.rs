//! A deterministic simulation of two sites and the engine between them, and the arbiter's corner cases.
//!
//! `DUPLEX_SIM_SEED=n` replays one schedule, `DUPLEX_SIM_SEEDS=n` runs that many of each kind.

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
    let first = number("DUPLEX_SIM_FIRST").unwrap_or(0);
    first..first + number("DUPLEX_SIM_SEEDS").unwrap_or(usual)
}
