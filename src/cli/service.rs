//! The engine behind the control protocol: where the two rooms meet.

use crate::{
    control::{
        protocol::{
            Failure, FailureKind, KeyDifference, LinkHistory, Probe, ProbedShard, Reply, Request, VerifyOutcome,
        },
        service::Service,
    },
    engine::{
        probe::Probed,
        supervisor::{Engine, EngineError},
        verify,
    },
    model::{Check, CheckReport, EngineStatus, JobStatus},
};
use std::{
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

/// The shortest pause between two answers of a watch, in milliseconds.
const SHORTEST_WATCH: u64 = 50;
/// Differences that an outcome names.
const EXAMPLES: usize = 100;
/// Events that one answer to `Events` goes through at a time.
const EVENTS_AT_ONCE: usize = 1_000;

/// Answers requests from an engine.
pub struct EngineService {
    engine: Engine,
    /// Ends the process's serving when a client asks for it.
    stop: CancellationToken,
}

impl EngineService {
    pub fn new(engine: Engine, stop: CancellationToken) -> EngineService {
        EngineService { engine, stop }
    }

    async fn answer(&self, request: Request, to: &mpsc::Sender<Reply>) -> Result<Reply, EngineError> {
        let engine = &self.engine;
        let done = |_: ()| Reply::Done;
        Ok(match request {
            Request::Status { job } => Reply::Status { status: engine.status(job.as_deref())? },
            Request::Watch { job, every_ms } => self.watch(job.as_deref(), every_ms, to).await?,
            Request::Events { job, after, limit, follow } => {
                self.events(job.as_deref(), after, limit, follow, to).await?
            }
            Request::Precheck { job, only } => {
                let (progress, coming) = mpsc::channel(16);
                let work = engine.precheck(&job, only.as_deref(), Some(progress));
                let (report, ()) = tokio::join!(work, pass_checks(coming, to));
                Reply::Report { report }
            }
            Request::Start { job, discard_previous } => {
                let (progress, coming) = mpsc::channel(16);
                let work = engine.start(*job, discard_previous, progress);
                let (started, ()) = tokio::join!(work, pass_checks(coming, to));
                self.started(started, to).await?
            }
            Request::StartKnown { name } => {
                let (progress, coming) = mpsc::channel(16);
                let work = engine.start_known(&name, progress);
                let (started, ()) = tokio::join!(work, pass_checks(coming, to));
                self.started(started, to).await?
            }
            Request::Pause { name } => engine.pause(&name).await.map(done)?,
            Request::Resume { name } => engine.resume(&name).await.map(done)?,
            Request::Stop { name } => engine.stop(&name).await.map(done)?,
            Request::Forget { name, abandon } => engine.forget(&name, abandon).await.map(done)?,
            Request::Verify { name, repair } => self.verify(&name, repair, to).await?,
            Request::Probe { instance, of } => {
                Reply::Probed { probe: probe(engine.probe(&instance, of.as_deref()).await?) }
            }
            Request::Conflicts { name, limit } => {
                let (open, settled, hottest) = engine.conflicts(&name, limit)?;
                Reply::Conflicts { open, settled, hottest }
            }
            Request::History { name } => {
                let link = |(direction, samples): (_, crate::engine::history::LinkSamples)| LinkHistory {
                    direction,
                    seconds: samples.seconds().copied().collect(),
                    half_minutes: samples.half_minutes().copied().collect(),
                };
                Reply::History { links: engine.history(&name)?.into_iter().map(link).collect() }
            }
            Request::JobFile { name } => Reply::Job { job: Box::new(engine.job_file(&name)?) },
            Request::SetLimits { name, max_ops_per_second, max_bytes_per_second } => {
                engine.set_limits(&name, max_ops_per_second, max_bytes_per_second).map(done)?
            }
            Request::Shutdown => {
                engine.close().await;
                Reply::Done
            }
            // The server answers these itself.
            Request::Hello { .. } | Request::Cancel { .. } => Reply::Done,
        })
    }

    async fn watch(&self, job: Option<&str>, every_ms: u64, to: &mpsc::Sender<Reply>) -> Result<Reply, EngineError> {
        let every = Duration::from_millis(every_ms.clamp(SHORTEST_WATCH, 60_000));
        let mut last: Option<EngineStatus> = None;
        loop {
            let status = self.engine.status(job)?;
            if last.as_ref() != Some(&status) {
                if to.send(Reply::Status { status: status.clone() }).await.is_err() {
                    return Ok(Reply::Done);
                }
                last = Some(status);
            }
            // Links don't say when a number changes, so the pace is the client's.
            sleep(every).await;
        }
    }

    async fn events(
        &self,
        job: Option<&str>,
        mut after: u64,
        limit: usize,
        follow: bool,
        to: &mpsc::Sender<Reply>,
    ) -> Result<Reply, EngineError> {
        if let Some(name) = job {
            self.engine.status(Some(name))?;
        }
        let mut newest = self.engine.events().newest();
        let mut limit = limit;
        loop {
            let last = *newest.borrow_and_update();
            for event in self.engine.events().after(job, after, limit) {
                after = event.seq;
                if to.send(Reply::Event { event }).await.is_err() {
                    return Ok(Reply::Done);
                }
            }
            if !follow {
                return Ok(Reply::Done);
            }
            after = after.max(last);
            limit = EVENTS_AT_ONCE;
            if newest.changed().await.is_err() {
                return Ok(Reply::Done);
            }
        }
    }

    /// The report goes before what came of it, also when that is a refusal.
    async fn started(
        &self,
        started: Result<(Option<CheckReport>, JobStatus), EngineError>,
        to: &mpsc::Sender<Reply>,
    ) -> Result<Reply, EngineError> {
        let report = match &started {
            Ok((report, _)) => report.clone(),
            Err(EngineError::Precheck(report)) => Some(*report.clone()),
            Err(_) => None,
        };
        if let Some(report) = report {
            _ = to.send(Reply::Report { report }).await;
        }
        started.map(|(_, job)| Reply::Started { job: Box::new(job) })
    }

    async fn verify(&self, name: &str, repair: bool, to: &mpsc::Sender<Reply>) -> Result<Reply, EngineError> {
        let began = Instant::now();
        let (progress, mut coming) = mpsc::channel::<verify::Progress>(4);
        let pass = async {
            while let Some(verify::Progress { text, done, total }) = coming.recv().await {
                _ = to.send(Reply::Progress { text, done, total }).await;
            }
        };
        let (done, ()) = tokio::join!(self.engine.verify(name, repair, progress), pass);
        let (outcome, repaired) = done?;
        Ok(Reply::Verified { outcome: verified(outcome, repaired, began.elapsed()) })
    }
}

impl Service for EngineService {
    fn call(&self, request: Request, replies: mpsc::Sender<Reply>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let ends = matches!(request, Request::Shutdown);
            let reply =
                self.answer(request, &replies).await.unwrap_or_else(|error| Reply::Error { error: failure(&error) });
            _ = replies.send(reply).await;
            if ends {
                self.stop.cancel();
            }
        })
    }
}

async fn pass_checks(mut coming: mpsc::Receiver<Check>, to: &mpsc::Sender<Reply>) {
    while let Some(check) = coming.recv().await {
        _ = to.send(Reply::Check { check }).await;
    }
}

/// An engine's error in the protocol's words.
pub fn failure(error: &EngineError) -> Failure {
    let kind = match error {
        EngineError::NoSuchJob { .. } | EngineError::Usage { .. } => FailureKind::Usage,
        EngineError::Precheck(_) => FailureKind::Precheck,
        EngineError::Job(_) | EngineError::State { .. } | EngineError::BrokenOff => FailureKind::Failed,
    };
    Failure { kind, message: error.to_string(), remedy: error.remedy() }
}

fn probe(found: Probed) -> Probe {
    let shard = |s: crate::engine::probe::ProbedShard| ProbedShard {
        address: s.address,
        version: s.version,
        role: s.role,
        seen_as: s.seen_as,
        round_trip_us: s.round_trip_us,
    };
    Probe {
        shards: found.shards.into_iter().map(shard).collect(),
        topology: found.topology,
        databases: found.databases,
        database_count: found.database_count,
    }
}

fn verified(outcome: verify::Outcome, repaired: u64, took: Duration) -> VerifyOutcome {
    let example = |d: &verify::KeyDifference| KeyDifference {
        db: d.db,
        key: String::from_utf8_lossy(&d.key).chars().take(256).collect(),
        difference: d.difference.to_string(),
    };
    VerifyOutcome {
        version: 1,
        keys_compared: outcome.keys_compared,
        equal: outcome.equal,
        differing: outcome.differing,
        missing_at_source: outcome.missing_at_source,
        missing_at_target: outcome.missing_at_target,
        repaired,
        examples: outcome.examples.iter().take(EXAMPLES).map(example).collect(),
        seconds: took.as_secs_f64(),
    }
}
