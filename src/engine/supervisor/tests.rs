//! What the supervisor remembers and refuses. Nothing listens at the instances of these jobs, so none of them runs.

use super::*;
use crate::model::LinkState;

fn job(name: &str) -> Job {
    // Port 1 of this host: refused at once.
    let text =
        format!("name='{name}'\nsource={{address='127.0.0.1:1', account='u:secret'}}\ntarget={{address='[::1]:1'}}");
    file::parse(&text, "t").unwrap()
}

async fn open(dir: &tempfile::TempDir) -> Engine {
    Engine::open(EnginePaths { state: dir.path().into() }, AtOpen::Resume).await.unwrap()
}

async fn start(engine: &Engine, job: Job) -> Result<(Option<CheckReport>, JobStatus), EngineError> {
    let (progress, mut coming) = mpsc::channel(64);
    let drain = tokio::spawn(async move { while coming.recv().await.is_some() {} });
    let done = engine.start(job, false, progress).await;
    drain.await.unwrap();
    done
}

#[tokio::test]
async fn a_job_that_can_not_start_keeps_its_reason_and_its_definition() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir).await;
    let mut changed = engine.changed();
    changed.mark_unchanged();
    let error = start(&engine, job("orders")).await.unwrap_err();
    assert!(changed.has_changed().unwrap());
    let status = engine.status(Some("orders")).unwrap().jobs.remove(0);
    assert!(matches!(status.state, LinkState::Failed | LinkState::PrecheckFailed), "{status:?}");
    assert_eq!(status.reason.as_deref().map(str::is_empty), Some(false));
    assert!(!error.to_string().is_empty());
    assert!(!engine.events().after(Some("orders"), 0, 10).is_empty());
    engine.close().await;

    let engine = open(&dir).await;
    let status = engine.status(None).unwrap();
    assert_eq!(status.jobs.iter().map(|j| j.name.as_str()).collect::<Vec<_>>(), ["orders"]);
    assert_eq!(status.jobs[0].links.len(), 2);
    assert!(status.jobs[0].reason.is_some(), "a restart hides no failure: {status:?}");
    engine.close().await;
}

#[tokio::test]
async fn a_job_that_never_began_is_not_paused_but_tried_again_and_can_be_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir).await;
    _ = start(&engine, job("orders")).await;
    assert!(matches!(engine.pause("orders").await, Err(EngineError::Usage { .. })));
    assert!(matches!(engine.resume("orders").await, Err(EngineError::Precheck(_))));
    engine.forget("orders", false).await.unwrap();
    let error = engine.pause("orders").await.unwrap_err();
    assert!(matches!(&error, EngineError::NoSuchJob { name, known } if name == "orders" && known.is_empty()));
    assert!(error.remedy().contains("duplex start JOB.toml"));
    engine.close().await;
    assert!(open(&dir).await.status(None).unwrap().jobs.is_empty());
}

#[tokio::test]
async fn a_job_that_ran_is_taken_up_again_and_can_be_paused_while_it_tries() {
    // given: what an engine leaves that was killed while the job ran
    let dir = tempfile::tempdir().unwrap();
    let mut record = Record::new(job("orders"));
    (record.wanted, record.begun) = (Wanted::Running, true);
    Records::open(dir.path()).unwrap().save(&record).unwrap();
    // when
    let engine = open(&dir).await;
    let mut changed = engine.changed();
    let tried = async {
        while !matches!(engine.status(None).unwrap().jobs[0].state, LinkState::Reconnecting | LinkState::Failed) {
            changed.changed().await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), tried).await.expect("it was not tried");
    engine.pause("orders").await.unwrap();
    // then
    assert_eq!(engine.status(None).unwrap().jobs[0].state, LinkState::Paused);
    assert_eq!(engine.status(None).unwrap().jobs[0].id, record.id);
    assert!(
        matches!(engine.forget("orders", false).await, Err(EngineError::Usage { .. })),
        "its control keys are there"
    );
    engine.close().await;
    let again = Records::open(dir.path()).unwrap().load().unwrap();
    assert_eq!(again[0].wanted, Wanted::Paused);
    // an instance that is gone for good does not keep its job for ever
    let engine = open(&dir).await;
    assert!(engine.stop("orders").await.is_err(), "its control keys can't be removed");
    engine.forget("orders", true).await.unwrap();
    engine.close().await;
    assert!(Records::open(dir.path()).unwrap().load().unwrap().is_empty());
}

#[tokio::test]
async fn an_ended_job_says_how_it_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = Record::new(job("orders"));
    (record.wanted, record.begun) = (Wanted::Ended, true);
    Records::open(dir.path()).unwrap().save(&record).unwrap();
    let engine = open(&dir).await;
    let error = engine.resume("orders").await.unwrap_err();
    assert!(error.to_string().contains("has ended") && error.remedy().contains("duplex start orders"), "{error}");
    engine.close().await;
}

/// A try that failed half way may have left control keys; they stand for nothing.
#[tokio::test]
async fn a_job_that_was_only_tried_may_get_other_instances() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = Record::new(job("orders"));
    (record.begun, record.only_tried) = (true, true);
    Records::open(dir.path()).unwrap().save(&record).unwrap();
    let engine = open(&dir).await;
    let mut other = job("orders");
    other.target.addresses = vec!["127.0.0.1:2".into()];
    let error = start(&engine, other.clone()).await.unwrap_err();
    assert!(matches!(error, EngineError::Precheck(_)), "{error}");
    let known = engine.status(None).unwrap().jobs.remove(0);
    assert_ne!(known.id, record.id, "what may be left at the old target bears that id");
    assert_eq!(engine.job("orders").unwrap().definition(), other);
    engine.close().await;
    let records = Records::open(dir.path()).unwrap().load().unwrap();
    assert_eq!(records.len(), 1, "{records:?}");
}

#[tokio::test]
async fn other_instances_under_a_known_name_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = Record::new(job("orders"));
    record.begun = true;
    Records::open(dir.path()).unwrap().save(&record).unwrap();
    let engine = open(&dir).await;
    let mut other = job("orders");
    other.target.addresses = vec!["127.0.0.1:2".into()];
    let error = start(&engine, other).await.unwrap_err();
    assert!(error.to_string().contains("is known with other instances"), "{error}");
    assert!(error.remedy().contains("--discard-previous"));
    engine.close().await;
}

#[tokio::test]
async fn the_job_file_comes_without_its_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir).await;
    _ = start(&engine, job("orders")).await;
    let shown = engine.job_file("orders").unwrap();
    assert_eq!(shown.source.account, AccountSource::Inline(Inline::new("")), "that there is one, and no more");
    assert!(!format!("{:?}", engine.events().after(None, 0, 100)).contains("secret"));
    engine.set_limits("orders", Some(7), None).unwrap();
    assert_eq!(engine.job_file("orders").unwrap().limits.max_ops_per_second, 7);
    engine.close().await;
}

#[tokio::test]
async fn an_account_that_a_known_job_holds_is_filled_in_for_the_same_place_alone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir).await;
    _ = start(&engine, job("orders")).await;
    let stripped = engine.job_file("orders").unwrap();

    let mut known = stripped.clone();
    engine.fill_accounts(&mut known);
    assert_eq!(known, job("orders"));

    let mut unknown = Job { name: "others".into(), ..stripped.clone() };
    engine.fill_accounts(&mut unknown);
    assert_eq!(unknown.source.account, AccountSource::None);

    let mut elsewhere = stripped.clone();
    elsewhere.source.addresses = vec!["127.0.0.1:2".into()];
    engine.fill_accounts(&mut elsewhere);
    assert_eq!(elsewhere.source.account, AccountSource::None, "a password goes to no other place");

    let mut secured = stripped.clone();
    secured.source.tls = Some(Default::default());
    engine.fill_accounts(&mut secured);
    assert_eq!(secured.source.account, AccountSource::None);

    let mut named = stripped;
    named.source.account = AccountSource::Env("PASSWORD".into());
    engine.fill_accounts(&mut named);
    assert_eq!(named.source.account, AccountSource::Env("PASSWORD".into()), "what was given stays");

    // started again without its accounts, the job keeps them
    _ = start(&engine, engine.job_file("orders").unwrap()).await;
    assert_eq!(engine.job("orders").unwrap().definition(), job("orders"));
    engine.close().await;
}

#[tokio::test]
async fn an_account_that_is_kept_nowhere_has_to_be_typed_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut wanted = job("orders");
    wanted.source.account = AccountSource::Inline(Inline::unkept("u:hunter2"));
    let engine = open(&dir).await;
    // nobody answers there: the job is known all the same
    _ = start(&engine, wanted.clone()).await;
    assert!(engine.status(None).unwrap().jobs[0].alerts.is_empty(), "it is in memory");
    assert_eq!(engine.job_file("orders").unwrap().source.account, AccountSource::Inline(Inline::unkept("")));
    engine.close().await;

    let engine = open(&dir).await;
    let alerts = engine.status(None).unwrap().jobs[0].alerts.clone();
    assert_eq!(alerts.iter().map(|a| a.rule.as_str()).collect::<Vec<_>>(), ["account_missing"]);
    let (progress, _none) = mpsc::channel(100);
    let error = engine.start_known("orders", progress).await.unwrap_err();
    assert!(error.to_string().contains("has to be typed again"), "{error}");
    _ = start(&engine, wanted).await;
    assert!(engine.status(None).unwrap().jobs[0].alerts.is_empty());
    engine.close().await;
}
