//! `duplex precheck JOB.toml`: every item with its result.

use super::{
    output::{self, Outcome},
    places::Places,
    session, table,
};
use crate::{
    control::{Client, ClientError},
    engine::precheck::{self, PrecheckOptions},
    model::{Check, CheckReport, CheckState, ExitCode},
};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The job file
    job: String,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs in the engine where one runs, since accounts are looked up in its environment; else in this process.
pub async fn run(places: &Places, options: Options) -> Outcome {
    let job = session::load_job(&options.job)?;
    let report = match Client::connect(&places.live_socket(), false).await {
        Ok(client) => client.precheck(job, None, |_| ()).await?,
        Err(ClientError::NoEngine { .. }) => {
            let spool_dir = Some(places.state.join("spool"));
            precheck::run(&job, None, None, PrecheckOptions { spool_dir, ..Default::default() }, None).await
        }
        Err(error) => return Err(error.into()),
    };
    match options.json {
        true => output::json(&report)?,
        false => output::print(&words(&report))?,
    }
    Ok(if report.passed { ExitCode::Fine } else { ExitCode::PrecheckFailed })
}

/// A report for people.
pub fn words(report: &CheckReport) -> String {
    let unicode = table::unicode();
    let mut text: String = report.items.iter().map(|item| words_of(item, unicode)).collect();
    let count = |state| report.items.iter().filter(|i| i.state == state).count();
    let (failed, warnings) = (count(CheckState::Failed), count(CheckState::Warning));
    let result = if report.passed { "passed" } else { "failed" };
    text.push_str(&format!("precheck of {} {result}: ", report.job));
    text.push_str(&format!("{} items, {failed} failed, {warnings} warnings\n", report.items.len()));
    text
}

/// One item: sign, name and what was seen; why it matters and what to do, where it did not pass.
pub fn words_of(check: &Check, unicode: bool) -> String {
    let name = check.id.as_str().replace('_', " ");
    let side = check.side.map(|s| format!("{s}: ")).unwrap_or_default();
    let sign = table::check_glyph(check.state, unicode);
    let first = format!("{sign} {}", table::fit(&name, 18));
    let mut text = table::wrap(&format!("{side}{}", check.seen), table::width(&first), &first);
    if check.state != CheckState::Passed {
        for (word, said) in [("why", &check.why), ("do", &check.remedy)] {
            if !said.is_empty() {
                text.push_str(&table::wrap(said, 9, &format!("    {word:<5}")));
            }
        }
    }
    text
}

/// Tells the failed and warned items of a report to the person who started the job.
pub fn complaints(report: &CheckReport) {
    for item in report.items.iter().filter(|i| matches!(i.state, CheckState::Failed | CheckState::Warning)) {
        output::note(words_of(item, table::unicode()).trim_end());
    }
}
