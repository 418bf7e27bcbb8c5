//! Are the two instances equal: key by key, whatever the versions and encodings.
//!
//! ```text
//! SCAN source ─▶ 500 keys ─▶ expiry, size ─▶ DUMP of small ones ─▶ equal but for the footer ─▶ done
//!                                               │ unequal, or big
//!                                               ▼
//!                                 TYPE, then the value in the words of its type
//! SCAN target ─▶ 500 keys ─▶ EXISTS at the source
//! ```
//! What differs is looked at again, later and later, before it is called different, since data moves while we look.
//! Memory is bounded by the pages under way and by the keys that differ (at most [`MOST_DIFFERING`] are kept).
//! Nothing is written. Keys that begin `duplex:` are not looked at.
//!
//! Not compared: idle times and access counts, a stream's consumers that have nothing pending, and the expiry of hash
//! fields where one of the servers knows none.

mod collection;
mod look;
mod pass;
mod streams;

use super::{
    net::{Dialer, NetError, ShardAddress},
    probe::server::{Refusal, Server},
    strand::SlotSet,
};
use crate::{
    model::{Databases, Job, Side},
    wire::dialect::{Dialect, Flavor},
};
pub use look::Difference;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Differing keys that are kept for a repair, and looked at again; those above are only counted.
pub const MOST_DIFFERING: usize = 1_000_000;

/// Examples in an outcome.
pub const EXAMPLES: usize = 100;

/// The name under which the connections are seen in `CLIENT LIST`.
const CLIENT_NAME: &str = "duplex-verify";

/// How it is compared.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Expiry times that differ by no more are equal, in milliseconds.
    pub expiry_tolerance_ms: u64,
    /// The waits between looks at keys that differ: as many further looks as there are waits.
    pub waits: Vec<Duration>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        VerifyOptions {
            expiry_tolerance_ms: 50,
            waits: [100, 200, 400, 800, 1600].into_iter().map(Duration::from_millis).collect(),
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    pub text: String,
    /// Keys looked at, of both sides.
    pub done: u64,
    pub total: Option<u64>,
}

/// What came out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Keys of either side, each once (a key that SCAN gives twice is counted twice).
    pub keys_compared: u64,
    pub equal: bool,
    /// Keys that both sides have, with another value, type or expiry.
    pub differing: u64,
    pub missing_at_source: u64,
    pub missing_at_target: u64,
    /// At most [`EXAMPLES`].
    pub examples: Vec<KeyDifference>,
    pub seconds: f64,
    /// All keys that differ or are missing, as (database, key); at most [`MOST_DIFFERING`].
    pub keys: Vec<(u32, Vec<u8>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct KeyDifference {
    pub db: u32,
    pub key: Vec<u8>,
    pub difference: Difference,
}

/// One server, with one database selected.
#[derive(Clone)]
pub(crate) struct Site {
    server: Server,
    /// Has `PEXPIRETIME` (7.0).
    absolute: bool,
    /// Has `HPEXPIRETIME` (Redis 7.4, Valkey 9.0).
    field_expiry: bool,
    /// It is a shard of a cluster: a command has keys of one slot.
    cluster: bool,
    /// The slots that are looked at: those that it has in common with the other site. `None`: all.
    slots: Option<Arc<SlotSet>>,
    /// A proxy: it can't be looked through, only asked for keys.
    hidden: bool,
}

impl Site {
    async fn open(dialer: &Dialer, address: &str, db: u32) -> Result<Site, NetError> {
        let server = Server::new(dialer.control(address).await?);
        if dialer.instance().hides_shards() {
            let field_expiry = false;
            // A key that is not there has no time: the answer tells whether the question is known.
            let asked = server.ask(redis::cmd("PEXPIRETIME").arg("duplex:probe{a}")).await;
            let absolute = asked.is_ok();
            return Ok(Site { server, absolute, field_expiry, cluster: true, slots: None, hidden: true });
        }
        let info = server.info().await.map_err(|e| net_error(address, "INFO", e))?;
        let site = Site {
            absolute: info.dialect.is_some_and(|d| d.speaks_redis(7, 0)),
            field_expiry: info.dialect.is_some_and(has_field_expiry),
            cluster: info.is_cluster(),
            slots: None,
            hidden: false,
            server,
        };
        let mut select = redis::cmd("SELECT");
        select.arg(db);
        site.ask(&select).await?;
        Ok(site)
    }

    async fn ask(&self, cmd: &redis::Cmd) -> Result<redis::Value, NetError> {
        self.server.ask(cmd).await.map_err(|e| net_error(&self.server.address, "a question of verify", e))
    }

    async fn ask_all(&self, pipe: &redis::Pipeline) -> Result<Vec<redis::Value>, NetError> {
        self.server.ask_all(pipe).await.map_err(|e| net_error(&self.server.address, "questions of verify", e))
    }
}

fn has_field_expiry(d: Dialect) -> bool {
    match d.flavor {
        Flavor::Redis => (d.version.0, d.version.1) >= (7, 4),
        Flavor::Valkey => d.version.0 >= 9,
        Flavor::Redict => false,
    }
}

fn net_error(address: &str, doing: &str, refusal: Refusal) -> NetError {
    match refusal {
        Refusal::Refused(line) => NetError::from_reply(address, doing, &line),
        Refusal::Broken(seen) => NetError::Io { address: address.to_owned(), doing: "read an answer", seen },
    }
}

/// Compares the selected databases of a job's two instances.
pub async fn verify(job: &Job, progress: mpsc::Sender<Progress>) -> Result<Outcome, NetError> {
    let source = Dialer::new(job.instance(Side::Source), CLIENT_NAME);
    let target = Dialer::new(job.instance(Side::Target), CLIENT_NAME);
    compare_with(&source, &target, &job.policy.databases, &VerifyOptions::default(), Some(progress)).await
}

/// Compares two instances; the first is called the source.
pub async fn compare(source: &Dialer, target: &Dialer, databases: &Databases) -> Result<Outcome, NetError> {
    compare_with(source, target, databases, &VerifyOptions::default(), None).await
}

/// [`compare`], told how, and telling how far it is. A progress that nobody takes is dropped.
pub async fn compare_with(
    source: &Dialer,
    target: &Dialer,
    databases: &Databases,
    options: &VerifyOptions,
    progress: Option<mpsc::Sender<Progress>>,
) -> Result<Outcome, NetError> {
    let start = Instant::now();
    let (a, b) = futures::future::try_join(source.masters(), target.masters()).await?;
    let cluster = [&a, &b].iter().any(|masters| masters.iter().any(|m| !m.slots.is_empty()));
    let mut used: BTreeSet<u32> = BTreeSet::new();
    let mut total = 0;
    for (dialer, masters) in [(source, &a), (target, &b)] {
        for master in masters {
            if dialer.instance().hides_shards() {
                // It tells nothing of itself; what the other side has is looked for there.
                continue;
            }
            for space in dialer.info(&master.address).await?.keyspace {
                // A cluster has no other database, and the other side's others are not synced with it.
                if databases.contains(space.db) && (!cluster || space.db == 0) {
                    used.insert(space.db);
                    total += space.keys;
                }
            }
        }
    }
    let reporter = pass::Reporter::new(progress, total);
    let mut outcome = Outcome::default();
    // A pass for each two shards that have slots in common.
    let mut passes = Vec::new();
    for one in &a {
        for other in &b {
            let slots = slots(one).and(&slots(other));
            if !slots.is_empty() {
                passes.push((one.address.clone(), other.address.clone(), Arc::new(slots)));
            }
        }
    }
    for db in used {
        for (one, other, slots) in &passes {
            let sites = futures::future::try_join(Site::open(source, one, db), Site::open(target, other, db));
            let (mut one, mut other) = sites.await?;
            if cluster {
                (one.slots, other.slots) = (Some(slots.clone()), Some(slots.clone()));
            }
            pass::database(&one, &other, db, options, &reporter, &mut outcome).await?;
        }
    }
    outcome.equal = outcome.differing + outcome.missing_at_source + outcome.missing_at_target == 0;
    outcome.seconds = start.elapsed().as_secs_f64();
    Ok(outcome)
}

/// The slots of a master; a standalone one has all.
fn slots(master: &ShardAddress) -> SlotSet {
    if master.slots.is_empty() { SlotSet::all() } else { SlotSet::of(&master.slots) }
}
