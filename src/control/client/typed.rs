//! One method a request, with its own types.

use super::{Client, ClientError, QUICK, Replies, SLOW};
use crate::{
    control::protocol::{LinkHistory, Probe, Reply, Request, VerifyOutcome},
    model::{Check, CheckId, CheckReport, ConflictRecord, EngineStatus, Event, HotKey, Instance, Job, JobStatus},
};
use std::time::Duration;

/// How a start went: the precheck's report, where one was made, and the job.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    pub report: Option<CheckReport>,
    pub job: JobStatus,
}

/// A stream of one kind of answer; dropping it cancels the request.
pub struct Watching<T> {
    replies: Replies,
    pick: fn(Reply) -> Result<Option<T>, ClientError>,
}

impl<T> Watching<T> {
    /// The next one; `None` when the stream has ended in order.
    pub async fn next(&mut self) -> Option<Result<T, ClientError>> {
        match self.replies.next().await? {
            Err(error) => Some(Err(error)),
            Ok(reply) => (self.pick)(reply).transpose(),
        }
    }
}

fn odd<T>(reply: Reply) -> Result<T, ClientError> {
    Err(ClientError::Garbled(format!("{reply:?}").chars().take(200).collect()))
}

fn done(reply: Reply) -> Result<(), ClientError> {
    match reply {
        Reply::Done => Ok(()),
        other => odd(other),
    }
}

impl Client {
    /// The jobs and how they are: all, or the one of that name.
    pub async fn status(&self, job: Option<&str>) -> Result<EngineStatus, ClientError> {
        match self.ask(Request::Status { job: job.map(str::to_owned) }, QUICK).await? {
            Reply::Status { status } => Ok(status),
            other => odd(other),
        }
    }

    /// The status now, and again when it has changed, at most once in `every`.
    pub async fn watch(&self, job: Option<&str>, every: Duration) -> Result<Watching<EngineStatus>, ClientError> {
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        let replies = self.request(Request::Watch { job: job.map(str::to_owned), every_ms }).await?;
        let pick = |reply| match reply {
            Reply::Status { status } => Ok(Some(status)),
            Reply::Done => Ok(None),
            other => odd(other),
        };
        Ok(Watching { replies, pick })
    }

    /// Events after number `after`, oldest first: the newest `limit` of them, and with `follow` those to come.
    pub async fn events(
        &self,
        job: Option<&str>,
        after: u64,
        limit: usize,
        follow: bool,
    ) -> Result<Watching<Event>, ClientError> {
        let replies = self.request(Request::Events { job: job.map(str::to_owned), after, limit, follow }).await?;
        let pick = |reply| match reply {
            Reply::Event { event } => Ok(Some(event)),
            Reply::Done => Ok(None),
            other => odd(other),
        };
        Ok(Watching { replies, pick })
    }

    /// Runs the precheck's items (all, or `only`); `each` sees every change of an item.
    pub async fn precheck(
        &self,
        job: Job,
        only: Option<Vec<CheckId>>,
        mut each: impl FnMut(Check),
    ) -> Result<CheckReport, ClientError> {
        let mut replies = self.request(Request::Precheck { job: Box::new(job), only }).await?;
        loop {
            match next(&mut replies, SLOW).await? {
                Reply::Check { check } => each(check),
                Reply::Report { report } => return Ok(report),
                other => return odd(other),
            }
        }
    }

    /// Precheck, then both links; a job of that name that is known is resumed. `each` sees the precheck's items, and
    /// `report` its end, also when it is followed by a refusal.
    pub async fn start(
        &self,
        job: Job,
        discard_previous: bool,
        each: impl FnMut(Check),
        report: impl FnMut(&CheckReport),
    ) -> Result<Started, ClientError> {
        let replies = self.request(Request::Start { job: Box::new(job), discard_previous }).await?;
        started(replies, each, report).await
    }

    /// The same for a job that the engine knows.
    pub async fn start_known(
        &self,
        name: &str,
        each: impl FnMut(Check),
        report: impl FnMut(&CheckReport),
    ) -> Result<Started, ClientError> {
        let replies = self.request(Request::StartKnown { name: name.to_owned() }).await?;
        started(replies, each, report).await
    }

    /// Halts both links; they can be resumed while the source keeps their positions.
    pub async fn pause(&self, name: &str) -> Result<(), ClientError> {
        done(self.ask(Request::Pause { name: name.to_owned() }, SLOW).await?)
    }

    pub async fn resume(&self, name: &str) -> Result<(), ClientError> {
        done(self.ask(Request::Resume { name: name.to_owned() }, SLOW).await?)
    }

    /// Ends the job and removes its control keys from both sides.
    pub async fn stop(&self, name: &str) -> Result<(), ClientError> {
        done(self.ask(Request::Stop { name: name.to_owned() }, SLOW).await?)
    }

    /// Forgets an ended job; with `abandon` any, whose control keys then stay in both instances.
    pub async fn forget(&self, name: &str, abandon: bool) -> Result<(), ClientError> {
        done(self.ask(Request::Forget { name: name.to_owned(), abandon }, SLOW).await?)
    }

    /// Compares the two sides, which can take hours; `progress` is told what is done, how much, of how much.
    /// Dropping the future ends the comparison.
    pub async fn verify(
        &self,
        name: &str,
        repair: bool,
        mut progress: impl FnMut(&str, u64, Option<u64>),
    ) -> Result<VerifyOutcome, ClientError> {
        let mut replies = self.request(Request::Verify { name: name.to_owned(), repair }).await?;
        loop {
            match replies.next().await {
                Some(Ok(Reply::Progress { text, done, total })) => progress(&text, done, total),
                Some(Ok(Reply::Verified { outcome })) => return Ok(outcome),
                Some(Ok(other)) => return odd(other),
                Some(Err(error)) => return Err(error),
                None => return Err(ClientError::Lost),
            }
        }
    }

    /// Dials an instance and tells what is there.
    pub async fn probe(&self, instance: Instance) -> Result<Probe, ClientError> {
        match self.ask(Request::Probe { instance: Box::new(instance), of: None }, SLOW).await? {
            Reply::Probed { probe } => Ok(probe),
            other => odd(other),
        }
    }

    /// Open conflicts, settled ones (newest first, at most `limit`), and the keys that conflict most.
    pub async fn conflicts(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<(Vec<ConflictRecord>, Vec<ConflictRecord>, Vec<HotKey>), ClientError> {
        match self.ask(Request::Conflicts { name: name.to_owned(), limit }, QUICK).await? {
            Reply::Conflicts { open, settled, hottest } => Ok((open, settled, hottest)),
            other => odd(other),
        }
    }

    /// The samples of the job's links.
    pub async fn history(&self, name: &str) -> Result<Vec<LinkHistory>, ClientError> {
        match self.ask(Request::History { name: name.to_owned() }, QUICK).await? {
            Reply::History { links } => Ok(links),
            other => odd(other),
        }
    }

    /// The job as it was started, without its secrets.
    pub async fn job_file(&self, name: &str) -> Result<Job, ClientError> {
        match self.ask(Request::JobFile { name: name.to_owned() }, QUICK).await? {
            Reply::Job { job } => Ok(*job),
            other => odd(other),
        }
    }

    /// Changes the limits of a running job; `None` leaves one as it is, 0 is no limit.
    pub async fn set_limits(
        &self,
        name: &str,
        max_ops_per_second: Option<u64>,
        max_bytes_per_second: Option<u64>,
    ) -> Result<(), ClientError> {
        let request = Request::SetLimits { name: name.to_owned(), max_ops_per_second, max_bytes_per_second };
        done(self.ask(request, QUICK).await?)
    }

    /// Stops the engine; its jobs go on when it is started again.
    pub async fn shutdown(&self) -> Result<(), ClientError> {
        done(self.ask(Request::Shutdown, SLOW).await?)
    }
}

async fn next(replies: &mut Replies, within: Duration) -> Result<Reply, ClientError> {
    match tokio::time::timeout(within, replies.next()).await {
        Ok(Some(reply)) => reply,
        Ok(None) => Err(ClientError::Lost),
        Err(_) => Err(ClientError::Timeout { what: "get an answer of the engine", after: within }),
    }
}

async fn started(
    mut replies: Replies,
    mut each: impl FnMut(Check),
    mut seen: impl FnMut(&CheckReport),
) -> Result<Started, ClientError> {
    let mut report = None;
    loop {
        match next(&mut replies, SLOW).await? {
            Reply::Check { check } => each(check),
            Reply::Report { report: r } => {
                seen(&r);
                report = Some(r);
            }
            Reply::Started { job } => return Ok(Started { report, job: *job }),
            other => return odd(other),
        }
    }
}
