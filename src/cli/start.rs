//! `duplex start JOB.toml | NAME`, in the engine or (`--foreground`) in this process.

use super::{
    host::{EndedBy, Host},
    logging,
    output::{self, Ending, Outcome, problem},
    places::Places,
    precheck, session, table,
};
use crate::{
    control::{Client, client::Started},
    engine::supervisor::AtOpen,
    model::{CheckReport, ExitCode, Job, JobStatus, LinkState},
};
use serde::Serialize;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// A job file, or the name of a job that is known
    #[arg(value_name = "JOB.toml|NAME")]
    job: String,
    /// Run engine and job in this process, with a status line a second, until SIGINT or SIGTERM
    #[arg(long)]
    pub foreground: bool,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    /// Begin anew: remove what an earlier run of this job has left in both sides
    #[arg(long)]
    discard_previous: bool,
}

/// What is to be started.
enum What {
    File(Box<Job>),
    Known(String),
}

impl What {
    fn of(options: &Options) -> Result<What, Ending> {
        if session::is_file(&options.job) {
            return Ok(What::File(Box::new(session::load_job(&options.job)?)));
        }
        session::check_name(&options.job)?;
        if options.discard_previous {
            let what = "--discard-previous needs the job file";
            return Err(problem(
                ExitCode::Usage,
                what,
                format!("duplex start {}.toml --discard-previous", options.job),
            ));
        }
        Ok(What::Known(options.job.clone()))
    }

    fn name(&self) -> &str {
        match self {
            What::File(job) => &job.name,
            What::Known(name) => name,
        }
    }

    async fn start(&self, client: &Client, options: &Options) -> Result<Started, Ending> {
        let mut seen: Option<CheckReport> = None;
        let keep = |report: &CheckReport| seen = Some(report.clone());
        let started = match self {
            What::File(job) => client.start(*job.clone(), options.discard_previous, |_| (), keep).await,
            What::Known(name) => client.start_known(name, |_| (), keep).await,
        };
        if let (Some(report), false) = (&seen, options.json) {
            precheck::complaints(report);
        }
        started.map_err(|error| match Ending::from(error) {
            Ending::Error(problem) => Ending::Error(problem.with(seen)),
            other => other,
        })
    }
}

/// Starts in the engine, and returns when the links have started.
pub async fn run(places: &Places, options: Options) -> Outcome {
    let what = What::of(&options)?;
    let client = session::connect_or_start(places, false).await?;
    let started = what.start(&client, &options).await?;
    #[derive(Serialize)]
    struct Document {
        version: u32,
        precheck: Option<CheckReport>,
        job: JobStatus,
    }
    if options.json {
        output::json(&Document { version: 1, precheck: started.report, job: started.job })?;
    } else {
        output::print(&table::jobs(std::slice::from_ref(&started.job), table::unicode()))?;
        output::line(&format!("{} has started; `duplex status --watch` shows how it goes", what.name()))?;
    }
    Ok(ExitCode::Fine)
}

/// Runs engine and job in this process.
pub async fn foreground(places: &Places, options: Options) -> Outcome {
    let what = What::of(&options)?;
    let _log = logging::begin(places, false)?;
    let host = Host::open(places, AtOpen::Leave).await?;
    let outcome = tokio::select! {
        outcome = watch(&host, &what, &options) => outcome,
        by = host.ended() => match by {
            Ok(EndedBy::Interrupt) => Err(Ending::Interrupted),
            Ok(EndedBy::Terminate | EndedBy::Client) => Ok(ExitCode::Fine),
            Err(error) => Err(problem(ExitCode::Failed, format!("can't listen for signals: {error}"), "")),
        },
    };
    host.close().await;
    outcome
}

async fn watch(host: &Host, what: &What, options: &Options) -> Outcome {
    let client = host.client().await?;
    what.start(&client, options).await?;
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        let status = client.status(Some(what.name())).await?;
        let Some(job) = status.jobs.first() else { continue };
        match options.json {
            true => output::json_line(&status)?,
            false => output::line(&format!("{} {}", now(), table::job_line(job)))?,
        }
        match job.state {
            LinkState::Failed => {
                let why = job.reason.clone().or_else(|| job.links.iter().find_map(|l| l.reason.clone()));
                let why = why.unwrap_or_else(|| "it does not say why".into());
                let remedy = "mend the cause, then start it again: it goes on where it was";
                return Err(problem(ExitCode::Failed, format!("{} has failed: {why}", job.name), remedy));
            }
            // Ended by another client.
            LinkState::Ended => return Ok(ExitCode::Fine),
            _ => {}
        }
    }
}

/// The time for a log line, in UTC.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
