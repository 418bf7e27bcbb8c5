//! `duplex verify NAME`: compare the two sides.

use super::{
    output::{self, Outcome},
    places::Places,
    session,
};
use crate::model::ExitCode;
use std::io::{IsTerminal, Write};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The job's name
    name: String,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    /// Settle the keys that differ; the source's value stands
    #[arg(long)]
    repair: bool,
}

/// 0 where both sides are equal, or have been made so; 1 where they differ.
pub async fn run(places: &Places, options: Options) -> Outcome {
    session::check_name(&options.name)?;
    let client = session::connect(places).await?;
    let terminal = std::io::stderr().is_terminal() && !options.json;
    let progress = |text: &str, done: u64, total: Option<u64>| {
        if terminal {
            let total = total.map(|t| format!(" of {t}")).unwrap_or_default();
            _ = write!(std::io::stderr(), "\r\x1b[K{done}{total} {text}");
        }
    };
    let outcome = client.verify(&options.name, options.repair, progress).await;
    if terminal {
        _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let outcome = outcome?;
    if options.json {
        output::json(&outcome)?;
    } else if outcome.equal {
        output::line(&format!(
            "{}: both sides are equal, {} keys compared in {:.1} s",
            options.name, outcome.keys_compared, outcome.seconds
        ))?;
    } else {
        output::line(&format!(
            "{}: {} of {} keys differ ({} missing at the source, {} missing at the target), {} repaired",
            options.name,
            outcome.differing,
            outcome.keys_compared,
            outcome.missing_at_source,
            outcome.missing_at_target,
            outcome.repaired
        ))?;
        for example in &outcome.examples {
            output::line(&format!("  db{} {:?}: {}", example.db, example.key, example.difference))?;
        }
    }
    let settled = outcome.equal || (options.repair && outcome.repaired == outcome.differing);
    Ok(if settled { ExitCode::Fine } else { ExitCode::Failed })
}
