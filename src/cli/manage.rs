//! `duplex pause | resume | stop | forget NAME`.

use super::{
    output::{self, Outcome},
    places::Places,
    precheck, session,
};
use crate::{
    control::Client,
    model::{CheckReport, ExitCode, JobStatus, LinkState},
};
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The job's name
    name: String,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ForgetOptions {
    #[command(flatten)]
    pub job: Options,
    /// Also a job that can't be stopped, since an instance is gone for good: its control keys stay where they are
    #[arg(long)]
    abandon: bool,
}

async fn connect(places: &Places, options: &Options) -> Result<Client, output::Ending> {
    session::check_name(&options.name)?;
    session::connect(places).await
}

async fn say(client: &Client, options: &Options, words: &str) -> Outcome {
    #[derive(Serialize)]
    struct Document {
        version: u32,
        job: Option<JobStatus>,
    }
    if options.json {
        let job = client.status(Some(&options.name)).await.ok().and_then(|mut s| s.jobs.pop());
        output::json(&Document { version: 1, job })?;
    } else {
        output::line(&format!("{} {words}", options.name))?;
    }
    Ok(ExitCode::Fine)
}

pub async fn pause(places: &Places, options: Options) -> Outcome {
    let client = connect(places, &options).await?;
    client.pause(&options.name).await?;
    say(&client, &options, "is paused; `duplex resume` lets it go on where it was").await
}

/// Resumes in the engine that runs, or in one that is started for it. What has failed is prechecked first, so that it is
/// said what has to be mended.
pub async fn resume(places: &Places, options: Options) -> Outcome {
    session::check_name(&options.name)?;
    let client = session::connect_or_start(places, false).await?;
    let status = client.status(Some(&options.name)).await?;
    let failed = [LinkState::Failed, LinkState::PrecheckFailed, LinkState::NotConfigured];
    if status.jobs.iter().any(|job| failed.contains(&job.state)) {
        let tell = |report: &CheckReport| {
            if !options.json {
                precheck::complaints(report)
            }
        };
        client.start_known(&options.name, |_| (), tell).await?;
    } else {
        client.resume(&options.name).await?;
    }
    say(&client, &options, "goes on").await
}

pub async fn stop(places: &Places, options: Options) -> Outcome {
    let client = connect(places, &options).await?;
    client.stop(&options.name).await?;
    say(&client, &options, "has ended; its control keys are gone from both sides").await
}

pub async fn forget(places: &Places, options: ForgetOptions) -> Outcome {
    let ForgetOptions { job, abandon } = options;
    let client = connect(places, &job).await?;
    client.forget(&job.name, abandon).await?;
    say(&client, &job, "is forgotten").await
}
