//! `duplex status [NAME]`: how the jobs and their links are.

use super::{
    output::{self, Ending, Outcome},
    places::Places,
    session, start, table,
};
use crate::model::{EngineStatus, ExitCode};
use std::{io::IsTerminal, time::Duration};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// One job only
    name: Option<String>,
    /// Answer in JSON; with --watch, one line each time
    #[arg(long)]
    pub json: bool,
    /// Go on, each second in which something changed
    #[arg(long)]
    watch: bool,
}

pub async fn run(places: &Places, options: Options) -> Outcome {
    let name = options.name.as_deref();
    if let Some(name) = name {
        session::check_name(name)?;
    }
    let client = session::connect(places).await?;
    if !options.watch {
        let status = client.status(name).await?;
        match options.json {
            true => output::json(&status)?,
            false => output::print(&table::jobs(&status.jobs, table::unicode()))?,
        }
        return Ok(health(&status));
    }
    let mut changes = client.watch(name, Duration::from_secs(1)).await?;
    let mut last = ExitCode::Fine;
    while let Some(status) = changes.next().await {
        let status = status?;
        show(&status, options.json)?;
        last = health(&status);
    }
    Ok(last)
}

fn show(status: &EngineStatus, json: bool) -> Result<(), Ending> {
    if json {
        return output::json_line(status);
    }
    // On a terminal each status takes the place of the last; in a file they follow each other.
    let begin = if std::io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
    output::print(&format!("{begin}{}\n{}\n", start::now(), table::jobs(&status.jobs, table::unicode())))
}

/// 4 where a link wants a person.
fn health(status: &EngineStatus) -> ExitCode {
    let unhealthy = |job: &crate::model::JobStatus| {
        job.state.is_unhealthy() || job.links.iter().any(|link| link.state.is_unhealthy())
    };
    if status.jobs.iter().any(unhealthy) { ExitCode::Unhealthy } else { ExitCode::Fine }
}
