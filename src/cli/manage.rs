//! `duplex pause | resume | stop | forget NAME`.

use super::{
    output::{self, Outcome},
    places::Places,
    session,
};
use crate::{
    control::Client,
    model::{ExitCode, JobStatus},
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

/// Resumes in the engine that runs, or in one that is started for it.
pub async fn resume(places: &Places, options: Options) -> Outcome {
    session::check_name(&options.name)?;
    let client = session::connect_or_start(places, false).await?;
    client.resume(&options.name).await?;
    say(&client, &options, "goes on").await
}

pub async fn stop(places: &Places, options: Options) -> Outcome {
    let client = connect(places, &options).await?;
    client.stop(&options.name).await?;
    say(&client, &options, "has ended; its control keys are gone from both sides").await
}

pub async fn forget(places: &Places, options: Options) -> Outcome {
    let client = connect(places, &options).await?;
    client.forget(&options.name).await?;
    say(&client, &options, "is forgotten").await
}
