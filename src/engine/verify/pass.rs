//! One database: both sides scanned once, then what differs looked at again.

use super::{
    Difference, EXAMPLES, KeyDifference, MOST_DIFFERING, NetError, Outcome, Progress, Site, VerifyOptions, look,
};
use crate::{
    engine::probe::server::{bytes, int, scan_page},
    model::JobId,
    wire::slot::slot,
};
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Keys asked for with each SCAN, and so about the keys of one pipeline.
const PAGE: usize = 500;

/// Pages under way at once on each side.
const PAGES: usize = 4;

/// The shortest time between two reports of progress.
const REPORTED: Duration = Duration::from_millis(100);

/// Counts what is done and tells it now and then.
pub(super) struct Reporter {
    progress: Option<mpsc::Sender<Progress>>,
    total: u64,
    done: AtomicU64,
    last: Mutex<Instant>,
}

impl Reporter {
    pub fn new(progress: Option<mpsc::Sender<Progress>>, total: u64) -> Self {
        Reporter { progress, total, done: AtomicU64::new(0), last: Mutex::new(Instant::now()) }
    }

    fn add(&self, keys: usize, text: impl FnOnce() -> String) {
        let done = self.done.fetch_add(keys as u64, Ordering::Relaxed) + keys as u64;
        let Some(progress) = &self.progress else { return };
        let Ok(mut last) = self.last.try_lock() else { return };
        if last.elapsed() >= REPORTED {
            *last = Instant::now();
            // A listener that does not keep up misses some.
            let _ = progress.try_send(Progress { text: text(), done, total: Some(self.total.max(done)) });
        }
    }
}

/// Keys that did not look equal, each once.
struct Suspects {
    keys: HashSet<Vec<u8>>,
    /// Those that no longer fit, with what was seen of them at the first look.
    counted: [u64; 3],
}

impl Suspects {
    fn add(&mut self, room: usize, key: Vec<u8>, difference: &Difference) {
        if self.keys.len() < room {
            self.keys.insert(key);
        } else if !self.keys.contains(&key) {
            self.counted[kind(difference)] += 1;
        }
    }
}

/// An index into [`Suspects::counted`].
fn kind(difference: &Difference) -> usize {
    match difference {
        Difference::MissingAtSource => 0,
        Difference::MissingAtTarget => 1,
        _ => 2,
    }
}

/// Compares a database and adds what was found to `outcome`.
pub(super) async fn database(
    a: &Site,
    b: &Site,
    db: u32,
    options: &VerifyOptions,
    reporter: &Reporter,
    outcome: &mut Outcome,
) -> Result<(), NetError> {
    let room = MOST_DIFFERING.saturating_sub(outcome.keys.len());
    let suspects = Mutex::new(Suspects { keys: HashSet::new(), counted: [0; 3] });
    let say = || format!("comparing db{db}");
    let suspect = |found: Vec<(Vec<u8>, Difference)>| {
        let mut suspects = suspects.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (key, difference) in found {
            suspects.add(room, key, &difference);
        }
    };
    let compared = AtomicU64::new(0);
    let of_source = pages(a)
        .map_ok(|keys| async move {
            let n = keys.len();
            Ok((n, look::at(a, b, keys, options).await?))
        })
        .try_buffer_unordered(PAGES)
        .try_for_each(|(n, found)| {
            compared.fetch_add(n as u64, Ordering::Relaxed);
            reporter.add(n, say);
            suspect(found);
            futures::future::ok(())
        });
    let of_target = pages(b)
        .map_ok(|keys| async move { Ok((keys.len(), missing(a, keys).await?)) })
        .try_buffer_unordered(PAGES)
        .try_for_each(|(n, found)| {
            compared.fetch_add(found.len() as u64, Ordering::Relaxed);
            reporter.add(n, say);
            suspect(found);
            futures::future::ok(())
        });
    futures::future::try_join(of_source, of_target).await?;
    outcome.keys_compared += compared.into_inner();

    let suspects = suspects.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcome.missing_at_source += suspects.counted[0];
    outcome.missing_at_target += suspects.counted[1];
    outcome.differing += suspects.counted[2];
    let differing = again(a, b, db, suspects.keys.into_iter().collect(), options, reporter).await?;
    for (key, difference) in differing {
        match difference {
            Difference::MissingAtSource => outcome.missing_at_source += 1,
            Difference::MissingAtTarget => outcome.missing_at_target += 1,
            _ => outcome.differing += 1,
        }
        if outcome.examples.len() < EXAMPLES {
            outcome.examples.push(KeyDifference { db, key: key.clone(), difference });
        }
        outcome.keys.push((db, key));
    }
    Ok(())
}

/// Looks at keys again after each of the waits; those that still differ, with how.
async fn again(
    a: &Site,
    b: &Site,
    db: u32,
    mut keys: Vec<Vec<u8>>,
    options: &VerifyOptions,
    reporter: &Reporter,
) -> Result<Vec<(Vec<u8>, Difference)>, NetError> {
    let mut differing = Vec::new();
    for (round, wait) in std::iter::once(&Duration::ZERO).chain(&options.waits).enumerate() {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // Nothing tells when data in transit has arrived: this is a back-off, not a wait for something.
        tokio::time::sleep(*wait).await;
        reporter.add(0, || format!("db{db}: {} keys differ, look {}", keys.len(), round + 2));
        let chunks: Vec<Vec<Vec<u8>>> = keys.chunks(PAGE).map(<[_]>::to_vec).collect();
        let looks = stream::iter(chunks).map(|chunk| look::at(a, b, chunk, options)).buffer_unordered(PAGES);
        differing = looks.try_concat().await?;
        keys = differing.iter().map(|(key, _)| key.clone()).collect();
    }
    Ok(differing)
}

/// Those of the target's keys that the source does not have.
async fn missing(source: &Site, keys: Vec<Vec<u8>>) -> Result<Vec<(Vec<u8>, Difference)>, NetError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    // One question suffices while nothing is missing; a cluster takes one only for one slot.
    let mut all = redis::cmd("EXISTS");
    all.arg(&keys);
    if !source.cluster && int(&source.ask(&all).await?) == i64::try_from(keys.len()).ok() {
        return Ok(Vec::new());
    }
    let mut pipe = redis::pipe();
    for key in &keys {
        pipe.cmd("EXISTS").arg(key);
    }
    let replies = source.ask_all(&pipe).await?;
    let gone = keys.into_iter().zip(&replies).filter(|(_, reply)| int(reply) == Some(0));
    Ok(gone.map(|(key, _)| (key, Difference::MissingAtSource)).collect())
}

/// The pages of a SCAN over a site's selected database, without control keys.
fn pages(site: &Site) -> impl futures::Stream<Item = Result<Vec<Vec<u8>>, NetError>> + '_ {
    // A proxy knows no SCAN: what only the servers behind it hold is not seen.
    let begin = (!site.hidden).then(|| b"0".to_vec());
    stream::try_unfold(begin, async move |cursor| {
        let Some(cursor) = cursor else { return Ok(None) };
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(cursor).arg("COUNT").arg(PAGE);
        let Some((next, keys)) = scan_page(site.ask(&cmd).await?) else { return Ok(None) };
        let keys: Vec<Vec<u8>> = keys
            .into_iter()
            .filter_map(bytes)
            .filter(|k| !is_control_key(k) && site.slots.as_ref().is_none_or(|s| s.contains(slot(k))))
            .collect();
        Ok(Some((keys, (next != b"0").then_some(next))))
    })
}

fn is_control_key(key: &[u8]) -> bool {
    key.starts_with(JobId::KEY_PREFIX.as_bytes())
}
