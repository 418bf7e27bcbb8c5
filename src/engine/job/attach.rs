//! The begin of a run: who was here before, from where to go on, both streams attached, the arbiter rebuilt.
//!
//! Order: kill the connections of an engine before us; read the control keys; attach the reverse stream; write the
//! raised epoch; attach the forward stream; rebuild the in-flight tables; open what was open. Nothing is applied
//! before all of that is done.

mod direction;
mod empty;
mod epoch;
mod inherit;
mod notes;
mod place;
mod plan;
mod recovery;
mod removal;
mod together;

pub use direction::position_lost;
pub use removal::remove_control_keys;

use super::{JobContext, JobError};
use crate::engine::apply::control_key::{ControlKey, Position};
use crate::engine::arbiter::Arbiter;
use crate::engine::clock::StreamClock;
use crate::engine::conflicts::ConflictLog;
use crate::engine::core::{Core, Shared, SiteFacts};
use crate::engine::fence;
use crate::engine::gauge::Gauge;
use crate::engine::link::{Link, unix_ms};
use crate::engine::manifold::Manifold;
use crate::engine::net::{Control, Dialer, Lineage, RawStream, ShardAddress};
use crate::engine::replica::ReplicaHandle;
use crate::engine::spool::SpoolReleaser;
use crate::engine::strand::{Names, SlotSet, Strand};
use crate::model::{Databases, Direction, JobId, Offset, ReplId, Side};
use crate::wire::dialect::Dialect;
use direction::{Reading, attached};
use epoch::raise_epoch;
use futures::future::try_join_all;
use inherit::{Ground, inherit};
use place::{Found, Pair, Place};
use plan::{Begin, Plan};
use recovery::recover;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};

/// The text of the error that asks for a full sync of the reverse stream.
pub const UNKNOWN_DB: &str = "the stream does not say which database it is in";

/// The streams' names as they are now, by site.
pub type ReplIds = Arc<[RwLock<Option<ReplId>>; 2]>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Directions whose position is lost, whatever the control keys say: they begin with a new copy. The reverse one
    /// brings only what the source has no key for: the source's word stands.
    pub lost: [bool; 2],
    /// Take the reverse stream up with a full sync, whose snapshot is thrown away.
    pub reverse_full: bool,
}

impl AttachOptions {
    /// The same with one more direction lost.
    pub fn without(mut self, direction: Option<Direction>) -> Self {
        if let Some(d) = direction {
            self.lost[d as usize] = true;
        }
        self
    }
}

/// One site of a strand.
pub struct Site {
    pub control: Control,
    /// Its connections bear the name of the strand's writer.
    pub dialer: Dialer,
    pub address: String,
    /// What writes go through, where that is another.
    pub proxy: Option<String>,
    pub dialect: Dialect,
    /// Keys of the strand when it was dialled; about, in a cluster.
    pub keys: u64,
    /// Not so where a one-way job reads from a replica that its file names.
    pub is_master: bool,
    /// The histories of its stream, where it tells them.
    lineage: Option<Lineage>,
    /// What our keys there are called.
    pub names: Names,
    /// The control key written there, as an engine before us left it.
    found: Option<ControlKey>,
    /// The open episodes that it had noted there, where they have been read already.
    notes: Option<Vec<fence::Note>>,
    /// What stands beside them of slots that are another strand's by now, which may not have taken it along yet.
    others_notes: Vec<(Vec<u8>, String)>,
    /// Where its stream ended when the engine before us was shut out.
    stream_end: Offset,
    /// From here on it still has its stream, where it tells.
    kept_from: Option<Offset>,
    way_ms: u64,
}

impl Site {
    /// Where its writer connects to.
    pub fn written_at(&self) -> &str {
        self.proxy.as_deref().unwrap_or(&self.address)
    }
}

/// One direction, ready to go.
pub struct Attached {
    pub direction: Direction,
    pub clock: Arc<StreamClock>,
    pub link: Link,
    pub gauge: Arc<Gauge>,
    pub replica: Arc<ReplicaHandle>,
    pub spool: SpoolReleaser,
    pub with_snapshot: bool,
    /// So many strands read their shard by this replica, and this is the first of them.
    pub together: usize,
    pub first: bool,
    /// A connection for writing, where it was opened already.
    pub writer: Option<RawStream>,
}

/// A strand, ready to go.
pub struct Ready {
    pub strand: Option<Arc<Strand>>,
    pub shared: Arc<Shared>,
    pub sites: [Site; 2],
    pub links: Vec<Attached>,
    pub epoch: u64,
    pub replids: ReplIds,
    pub control_db: u32,
    /// By side: slots that came from another of its shards, whose keys are to be settled by its state.
    pub moved: [SlotSet; 2],
}

/// A job, ready to go.
pub struct ReadyJob {
    pub strands: Vec<Ready>,
    /// What hands on to them what is read together.
    pub manifolds: Vec<Manifold>,
    /// The shards of both sides, as they were when it was attached.
    pub maps: [Vec<ShardAddress>; 2],
}

fn client_name(id: &JobId, role: &str, strand: Option<&Strand>) -> String {
    match strand {
        None => format!("duplex:{id}:{role}"),
        // One that is no beginning of another.
        Some(strand) => format!("duplex:{id}:{role}:{:05}", strand.id.home),
    }
}

/// The share of one of `n` strands in a limit; 0 stays no limit.
pub fn share(limit: u64, n: usize) -> u64 {
    limit.div_ceil(n.max(1) as u64)
}

/// Dials both sites, shuts out whoever was there, and gets all links ready.
pub async fn attach(context: &JobContext, options: AttachOptions, limits: (u64, u64)) -> Result<ReadyJob, JobError> {
    let job = &context.job;
    let mut places = place::dial_both(job, &context.id).await?;
    let clusters = [places[0].cluster, places[1].cluster];
    let mut job = job.clone();
    if clusters.contains(&true) {
        // A cluster has no other database.
        job.policy.databases = Databases::Only(vec![0]);
        // A shard's FLUSHALL is of its slots alone.
        job.policy.forward_flush = false;
    }
    let context = JobContext { job, ..context.clone() };
    let control_db = context.job.policy.databases.first();
    place::shut_out(&mut places, &context.id, control_db).await?;
    let pairs = place::pairs(&places);
    let two_way = context.job.policy.two_way;
    let found = place::find_at_rest(&mut places, &context.id, control_db, &pairs, two_way).await?;
    let epoch = found.iter().map(Found::epoch).max().unwrap_or(0) + 1;
    let mut begun = Vec::new();
    let n = pairs.len();
    for pair in &pairs {
        let sites = Side::BOTH.map(|side| site(&context, &places, side, pair));
        begun.push(Begun::new(&context, sites, pair, &places, &found, epoch, options)?);
    }
    // All are read before any is written: of one strand's the slots may be divided among several.
    try_join_all(begun.iter_mut().map(|b| b.read_notes(&places, &found))).await?;
    try_join_all(begun.iter_mut().map(|b| b.note_down(&found))).await?;
    let divided = notes::keep_newest(&places, &begun, &found).await?;
    let limits = (share(limits.0, n), share(limits.1, n));
    let mut manifolds = Vec::new();
    // All that go on from where they were do so at once: none has to wait for another. Otherwise the reverse streams come
    // first: what is written at the target while the forward copy runs must not be lost.
    let orders: Vec<_> = begun.iter().map(|b| b.order(&context)).collect();
    let in_order = |round: usize| orders.iter().enumerate().filter_map(move |(n, o)| Some((n, o[round]?)));
    let go_on = begun.iter().all(Begun::goes_on);
    let at_once = go_on && begun.iter().all(Begun::knows_histories);
    let rounds: Vec<Vec<(usize, Direction)>> = match go_on {
        true => vec![(0..2).flat_map(in_order).collect()],
        false => (0..2).map(|round| in_order(round).collect()).collect(),
    };
    let first_start = begun.iter().all(Begun::is_new);
    for (round, wanted) in rounds.into_iter().enumerate() {
        let begun_now = &begun;
        let opening = together::open(&context, begun_now, &wanted, limits);
        let writers = wanted.iter().filter(|_| go_on).map(|key| async move {
            let (b, direction) = (&begun_now[key.0], key.1);
            Ok::<_, JobError>((*key, open_writer(&b.ready.sites[direction.to().index()], control_db).await?))
        });
        let epochs = wanted.iter().filter(|_| at_once).map(|(n, direction)| begun_now[*n].shut_out(*direction));
        let writers = async { try_join_all(writers).await };
        let ((mut readings, more), writers, _) = tokio::try_join!(opening, writers, try_join_all(epochs))?;
        manifolds.extend(more);
        let mut writers: HashMap<_, _> = writers.into_iter().collect();
        let context = &context;
        let each = begun.iter_mut().enumerate().map(|(n, b)| {
            let own = wanted.iter().filter(|(m, _)| *m == n);
            let own: Vec<_> = own.filter_map(|key| Some((key.1, readings.remove(key)?, writers.remove(key)))).collect();
            async move { b.attach(context, own, at_once).await }
        });
        try_join_all(each).await?;
        if round == 0 && first_start {
            // All that is written there from here on is in the stream.
            empty::still_empty(context, &mut places[Side::Target.index()]).await?;
        }
    }
    notes::strike_off(&mut places, &begun, &found).await?;
    divided.forget_newest(&places, &begun).await;
    let mut strands = Vec::new();
    for mut b in begun {
        b.ready.links.sort_by_key(|l| l.direction);
        b.plan.tell_cuts(&context);
        b.plan.tell_moved_in_copy(&context);
        if b.plan.from[0].is_none() && b.plan.two_way {
            // As the key that was just written says: until an echo tells of more, the target's stream begins here.
            b.ready.shared.lock().echoed[Side::Source.index()] = b.begins[Side::Target.index()];
        }
        if b.plan.resume || b.plan.inherits {
            recover(&context, &mut b.ready, &b.plan).await?;
        }
        strands.push(b.ready);
    }
    let [source, target] = places;
    Ok(ReadyJob { strands, manifolds, maps: [source.map, target.map] })
}

/// For `benches/native` alone, which measures what arbitration costs: a two-way job without it diverges at the first
/// conflict. No setting of a job or of the program leads here.
fn unarbitrated(context: &JobContext) -> bool {
    let off = std::env::var_os("DUPLEX_BENCH_WITHOUT_ARBITER").is_some_and(|v| v == "the-sides-may-diverge");
    if off {
        let text = "DUPLEX_BENCH_WITHOUT_ARBITER is set: conflicts are not settled, the sides may diverge";
        context.events.emit(None, crate::model::Severity::Error, crate::model::EventKind::AlertRaised, text);
    }
    off
}

fn site(context: &JobContext, places: &[Place; 2], side: Side, pair: &Pair) -> Site {
    let place = &places[side.index()];
    let shard = &place.shards[pair.shards[side.index()]];
    let base = context.id.control_key(side.incoming());
    let (names, keys) = match &pair.strand {
        None => (Names::whole(base), shard.keys),
        Some(strand) => {
            let part = strand.slots.len() as u64;
            let keys = (u128::from(shard.keys) * u128::from(part)).div_ceil(shard.slots.len().max(1) as u128);
            (Names::of(base, strand.clone(), place.cluster), keys as u64)
        }
    };
    let name = client_name(&context.id, "apply", pair.strand.as_deref());
    Site {
        control: shard.control.clone(),
        dialer: place.dialer.named(&name),
        address: shard.address.clone(),
        proxy: place.proxy.clone(),
        dialect: shard.dialect,
        keys,
        names,
        found: None,
        notes: shard.left.as_ref().filter(|_| pair.strand.is_none()).map(|left| left.notes.clone()),
        others_notes: Vec::new(),
        stream_end: shard.stream_end,
        kept_from: shard.kept_from,
        way_ms: shard.way_ms,
        lineage: shard.lineage,
        is_master: shard.is_master,
    }
}

/// A strand while it is attached.
struct Begun {
    ready: Ready,
    plan: Plan,
    facts: [SiteFacts; 2],
    begins: [Position; 2],
    /// Its shards, by their places.
    shards: [usize; 2],
}

impl Begun {
    /// No engine before us has left anything of this job, and its target had to be looked at.
    fn is_new(&self) -> bool {
        self.plan.two_way && !self.plan.inherits && self.ready.sites.iter().all(|site| site.found.is_none())
    }

    #[allow(clippy::too_many_arguments, reason = "private; its caller names them")]
    fn new(
        context: &JobContext,
        mut sites: [Site; 2],
        pair: &Pair,
        places: &[Place; 2],
        found: &[Found; 2],
        epoch: u64,
        options: AttachOptions,
    ) -> Result<Begun, JobError> {
        let control_db = context.job.policy.databases.first();
        for side in Side::BOTH {
            sites[side.index()].found = match &pair.strand {
                None => found[side.index()].whole,
                Some(strand) => found[side.index()].newest.get(&strand.id).copied(),
            };
        }
        let mut inherited = None;
        if let Some(strand) = &pair.strand {
            let grounds = [0, 1].map(|n| {
                let shard = &places[n].shards[pair.shards[n]];
                Ground { cluster: places[n].cluster, lineage: shard.lineage, stream_end: shard.stream_end }
            });
            inherited = inherit(strand, grounds, found, context.job.policy.two_way)?;
        }
        if let Some(inherited) = &inherited {
            for direction in Direction::BOTH {
                sites[direction.to().index()].found = inherited.from[direction as usize];
            }
        }
        let mut plan = Plan::make(context, &sites, epoch, options, inherited.is_some())?;
        match (inherited, &pair.strand) {
            (Some(inherited), _) => plan.take_over(inherited),
            (None, Some(strand)) if plan.resume => {
                for direction in Direction::BOTH {
                    let noted = found[direction.to().index()].noted.get(&strand.id).cloned().unwrap_or_default();
                    let shard = &places[direction.from().index()].shards[pair.shards[direction.from().index()]];
                    if shard.knows(noted.ahead.stream) {
                        plan.ahead[direction as usize] = noted.ahead;
                    }
                    if direction == Direction::Forward {
                        plan.moved = noted.moved;
                    }
                }
            }
            _ => {}
        }
        for direction in Direction::BOTH {
            if let Some(lineage) = sites[direction.from().index()].lineage {
                plan.renamed[direction as usize] = plan.ahead[direction as usize].take_up(lineage);
            }
        }
        let facts = Side::BOTH.map(|side| SiteFacts {
            dialect: sites[side.index()].dialect,
            names: sites[side.index()].names.clone(),
            control_db,
        });
        let idle = !context.job.policy.two_way || unarbitrated(context);
        let mut arbiter = Arbiter::new(plan.epoch, fastrand::u64(..), idle);
        arbiter.moved(&plan.moved);
        arbiter.slots_may_move([0, 1].map(|n| places[n].cluster));
        let conflicts = ConflictLog::since(unix_ms().saturating_sub(1)).showing(context.job.policy.show_values);
        let shared = Arc::new(Shared::new(Core::new(arbiter, facts.clone(), conflicts, context.events.clone())));
        let replids: ReplIds = Arc::new([RwLock::new(None), RwLock::new(None)]);
        let ready = Ready {
            strand: pair.strand.clone(),
            shared,
            sites,
            links: Vec::new(),
            epoch: plan.epoch,
            replids,
            control_db,
            moved: plan.moved.clone(),
        };
        Ok(Begun { ready, plan, facts, begins: [Position::default(); 2], shards: pair.shards })
    }

    /// In which order the directions are attached, and their control keys written. What a standalone side has of a strand
    /// is found by what the cluster's slots say whose they are: so it is there before they say so.
    fn order(&self, context: &JobContext) -> [Option<Direction>; 2] {
        let two_way = context.job.policy.two_way;
        let forward_first = self.plan.inherits && !self.ready.sites[Side::Target.index()].names.is_cluster();
        match (two_way, forward_first) {
            (false, _) => [None, Some(Direction::Forward)],
            (true, true) => [Some(Direction::Forward), Some(Direction::Reverse)],
            (true, false) => [Some(Direction::Reverse), Some(Direction::Forward)],
        }
    }

    /// Gets directions ready, all before any is written to; shuts out older engines from what they write, unless that was
    /// done.
    async fn attach(
        &mut self,
        context: &JobContext,
        opened: Vec<(Direction, Reading, Option<RawStream>)>,
        shut_out: bool,
    ) -> Result<(), JobError> {
        let mut starts = Vec::new();
        for (direction, reading, writer) in opened {
            let start = self.plan.start(direction);
            let (mut attached, begin) =
                attached(context, &self.ready, &self.facts, direction, start, &self.plan, reading)?;
            attached.writer = writer;
            self.begins[direction.from().index()] = begin;
            self.ready.links.push(attached);
            starts.push((direction, start, begin));
        }
        for (direction, start, begin) in starts.into_iter().filter(|_| !shut_out) {
            raise_epoch(&self.ready, direction, start, begin, &self.begins, &self.plan).await?;
        }
        Ok(())
    }

    /// Both links go on from where they were.
    fn goes_on(&self) -> bool {
        !self.plan.inherits && Direction::BOTH.into_iter().all(|d| matches!(self.plan.start(d), Begin::Position(..)))
    }

    /// The names of both histories are known, so all that the control keys are to say is: nothing has to be waited for.
    fn knows_histories(&self) -> bool {
        let known = Side::BOTH.map(|side| self.ready.sites[side.index()].lineage.map(|l| l.replid));
        let all = known.iter().all(Option::is_some);
        if all {
            for (name, known) in self.ready.replids.iter().zip(known) {
                *name.write().unwrap_or_else(|p| p.into_inner()) = known;
            }
        }
        all
    }

    /// Shuts out older engines from what a direction writes, before its stream is attached.
    async fn shut_out(&self, direction: Direction) -> Result<(), JobError> {
        let (start, begin) = (self.plan.start(direction), self.begins[direction.from().index()]);
        raise_epoch(&self.ready, direction, start, begin, &self.begins, &self.plan).await
    }
}

/// The connection for writing to a site, opened while its stream is attached.
async fn open_writer(site: &Site, db: u32) -> Result<RawStream, JobError> {
    if site.proxy.is_some() {
        return Ok(site.dialer.raw(site.written_at()).await?);
    }
    let db = (!site.names.is_cluster()).then_some(db);
    let opened = fence::open(&site.dialer, &site.address, db, site.lineage.map(|l| l.replid)).await?;
    match opened.new_history {
        false => Ok(opened.stream),
        true => {
            let what = format!("{} has begun another history while it was attached to", site.address);
            Err(JobError::passing(what, "it is looked at again"))
        }
    }
}
