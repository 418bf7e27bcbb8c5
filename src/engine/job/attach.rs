//! The begin of a run: who was here before, from where to go on, both streams attached, the arbiter rebuilt.
//!
//! Order: kill the connections of an engine before us; read the control keys; attach the reverse stream; write the
//! raised epoch; attach the forward stream; rebuild the in-flight tables; open what was open. Nothing is applied
//! before all of that is done.

mod inherit;
mod place;

use super::lineage::{self, Cut};
use super::reading;
use super::{JobContext, JobError};
use crate::engine::apply::control_key::{ControlKey, LoadPhase, Position};
use crate::engine::arbiter::Arbiter;
use crate::engine::arbiter::Touch;
use crate::engine::arbiter::class::{Class, Part};
use crate::engine::arbiter::episode::Cause;
use crate::engine::conflicts::{ConflictLog, shown};
use crate::engine::core::{self, Core, Shared, SiteFacts, own_prefix};
use crate::engine::fence;
use crate::engine::gauge::Gauge;
use crate::engine::link::decide::{Ahead, Decider, DeciderSetup};
use crate::engine::link::home::Home;
use crate::engine::link::loader::Loader;
use crate::engine::link::peer::Peer;
use crate::engine::link::rebuild::{Lost, Span};
use crate::engine::link::{Link, LinkError, LinkSetup, UNKNOWN_DB as NO_DB, unix_ms};
use crate::engine::net::{Control, Dialer, Lineage, ShardAddress};
use crate::engine::replica::{Replica, ReplicaHandle, ReplicaOptions, ReplicaState, Start};
use crate::engine::spool::{Spool, SpoolOptions, SpoolReleaser};
use crate::engine::strand::{Names, SlotSet, Strand, StrandId};
use crate::model::job::ReadFrom;
use crate::model::{Databases, Direction, EventKind, ExistingKeys, Job, JobId, Offset, ReplId, Severity, Side};
use crate::wire::dialect::Dialect;
use bytes::Bytes;
use futures::future::try_join_all;
use inherit::{Inherited, inherit};
use place::{Found, Pair, Place};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, RwLock};
use std::time::Duration;

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
    /// Where its stream ended when the engine before us was shut out, if that had not finished a copy.
    unfinished_at: Offset,
    way_ms: u64,
}

/// One direction, ready to go.
pub struct Attached {
    pub direction: Direction,
    pub link: Link,
    pub gauge: Arc<Gauge>,
    pub replica: Arc<ReplicaHandle>,
    pub spool: SpoolReleaser,
    pub with_snapshot: bool,
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
    // The connections of an engine before us, at all shards at once.
    let (apply, replica) = (client_name(&context.id, "apply", None), client_name(&context.id, "replica", None));
    let before = [apply.as_str(), replica.as_str()];
    let shards = places.iter_mut().flat_map(|p| &mut p.shards);
    try_join_all(shards.map(|shard| fence::kill_clients(&mut shard.control, &before))).await?;
    let pairs = place::pairs(&places);
    let found = place::find(&mut places, &context.id, control_db, &pairs).await?;
    if found.iter().any(Found::unfinished) {
        for shard in places.iter_mut().flat_map(|p| &mut p.shards) {
            shard.stream_end = shard.control.info().await?.master_repl_offset.unwrap_or_default();
        }
    }
    let epoch = found.iter().map(Found::epoch).max().unwrap_or(0) + 1;
    let mut begun = Vec::new();
    let n = pairs.len();
    for pair in &pairs {
        let sites = Side::BOTH.map(|side| site(&context, &places, side, pair));
        begun.push(Begun::new(&context, sites, pair, &places, &found, epoch, options)?);
    }
    try_join_all(begun.iter_mut().map(Begun::note_down)).await?;
    let limits = (share(limits.0, n), share(limits.1, n));
    if begun.iter().all(Begun::goes_on) {
        // All go on from where they were, so none has to wait for another.
        let context = &context;
        try_join_all(begun.iter_mut().map(|b| async move { b.attach_both(context, limits, n).await })).await?;
    } else {
        // The reverse streams first: what is written at the target while the forward copy runs must not be lost. All strands
        // at once, so that those of one shard share its snapshot.
        for round in 0..2 {
            let context = &context;
            let round = begun.iter_mut().map(|b| async move {
                match b.order(context)[round] {
                    Some(direction) => b.attach(context, direction, limits, n).await,
                    None => Ok(()),
                }
            });
            try_join_all(round).await?;
        }
    }
    let mut strands = Vec::new();
    for mut b in begun {
        b.ready.links.sort_by_key(|l| l.direction);
        b.plan.tell_cuts(&context);
        if b.plan.from[0].is_none() && b.plan.two_way {
            // As the key that was just written says: until an echo tells of more, the target's stream begins here.
            b.ready.shared.lock().echoed[Side::Source.index()] = b.begins[Side::Target.index()];
        }
        if b.plan.resume || b.plan.inherits {
            recover(&context, &mut b.ready, &b.plan, &mut places).await?;
        }
        strands.push(b.ready);
    }
    let [source, target] = places;
    Ok(ReadyJob { strands, maps: [source.map, target.map] })
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
        dialer: Dialer::new(context.job.instance(side), &name),
        address: shard.address.clone(),
        dialect: shard.dialect,
        keys,
        names,
        found: None,
        unfinished_at: shard.stream_end,
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
}

impl Begun {
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
            inherited = inherit(strand, pair.shards, places, found, context.job.policy.two_way)?;
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
        let facts = Side::BOTH.map(|side| SiteFacts {
            dialect: sites[side.index()].dialect,
            names: sites[side.index()].names.clone(),
            control_db,
        });
        let idle = !context.job.policy.two_way || unarbitrated(context);
        let arbiter = Arbiter::new(plan.epoch, fastrand::u64(..), idle);
        let conflicts = ConflictLog::since(unix_ms().saturating_sub(1));
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
        Ok(Begun { ready, plan, facts, begins: [Position::default(); 2] })
    }

    /// What the control keys can't say is there before they are: which slots are ahead of their strand, and which are to
    /// be settled.
    async fn note_down(&mut self) -> Result<(), JobError> {
        let plan = &self.plan;
        if self.ready.strand.is_none() {
            return Ok(());
        }
        for direction in Direction::BOTH {
            let db = self.ready.control_db;
            let Site { control, names, .. } = &mut self.ready.sites[direction.to().index()];
            let ahead = plan.ahead[direction as usize].to_text();
            if plan.inherits {
                fence::write_note(control, db, &names.notes(), core::AHEAD_FIELD, &ahead).await?;
            }
            for side in Side::BOTH.into_iter().filter(|_| plan.inherits && direction == Direction::Forward) {
                let slots = plan.moved[side.index()].to_string();
                fence::write_note(control, db, &names.notes(), core::moved_field(side), &slots).await?;
            }
        }
        Ok(())
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

    /// Attaches one direction and shuts out older engines from what it writes.
    async fn attach(
        &mut self,
        context: &JobContext,
        direction: Direction,
        limits: (u64, u64),
        strands: usize,
    ) -> Result<(), JobError> {
        let start = self.plan.start(direction);
        let (attached, begin) =
            one(context, &self.ready, &self.facts, direction, start, limits, strands, &self.plan).await?;
        self.begins[direction.from().index()] = begin;
        self.ready.links.push(attached);
        raise_epoch(&mut self.ready, direction, start, begin, &self.begins, &self.plan).await
    }

    /// Both links go on from where they were.
    fn goes_on(&self) -> bool {
        !self.plan.inherits && Direction::BOTH.into_iter().all(|d| matches!(self.plan.start(d), Begin::Position(..)))
    }

    /// Both directions at once; only where both go on from where they were.
    async fn attach_both(&mut self, context: &JobContext, limits: (u64, u64), strands: usize) -> Result<(), JobError> {
        let starts = Direction::BOTH.map(|d| (d, self.plan.start(d)));
        let [a, b] =
            starts.map(|(d, start)| one(context, &self.ready, &self.facts, d, start, limits, strands, &self.plan));
        let (a, b) = tokio::try_join!(a, b)?;
        for (attached, begin) in [a, b] {
            self.begins[attached.direction.from().index()] = begin;
            self.ready.links.push(attached);
        }
        for direction in self.order(context).into_iter().flatten() {
            let start = self.plan.start(direction);
            let begin = self.begins[direction.from().index()];
            raise_epoch(&mut self.ready, direction, start, begin, &self.begins, &self.plan).await?;
        }
        Ok(())
    }
}

/// What the control keys of an engine before us mean.
struct Plan {
    epoch: u64,
    /// The control key of each direction where the link goes on from it.
    from: [Option<ControlKey>; 2],
    /// The links go on: the in-flight tables have to be rebuilt, and what was being settled is taken up.
    resume: bool,
    two_way: bool,
    reverse_full: bool,
    merge: bool,
    /// Sites whose new master lacks what was read from the old one.
    cuts: Vec<Cut>,
    /// The forward copy was begun before and not finished, and all that the target holds is either the source's, or in
    /// the reverse stream from where that goes on.
    left_over: bool,
    /// The slots were divided in another way before.
    inherits: bool,
    /// Some of the slots were another strand's.
    others: bool,
    ahead: [Ahead; 2],
    /// By side: slots that came from another of its shards.
    moved: [SlotSet; 2],
    parents: BTreeSet<StrandId>,
}

impl Plan {
    fn make(
        context: &JobContext,
        sites: &[Site; 2],
        epoch: u64,
        options: AttachOptions,
        inherits: bool,
    ) -> Result<Plan, JobError> {
        let two_way = context.job.policy.two_way;
        let forward = sites[Side::Target.index()].found;
        let reverse = sites[Side::Source.index()].found.filter(|_| two_way);
        let merge = context.job.policy.existing_keys == ExistingKeys::Merge;
        let streaming = |k: &ControlKey| k.phase == LoadPhase::Streaming && k.replid.is_some();
        if forward.is_some_and(|k| streaming(&k)) && reverse.is_none() && two_way && !options.lost[1] && !inherits {
            return Err(gone(Direction::Reverse, &sites[Side::Source.index()].address));
        }
        if forward.is_none() && reverse.is_some() && !options.lost[0] && !inherits {
            return Err(gone(Direction::Forward, &sites[Side::Target.index()].address));
        }
        let from = [forward, reverse].map(|k| k.filter(streaming));
        let mut from = [from[0].filter(|_| !options.lost[0]), from[1].filter(|_| !options.lost[1])];
        let cuts = lineage::cut(&mut from, Side::BOTH.map(|side| sites[side.index()].lineage));
        Ok(Plan {
            epoch,
            from,
            resume: from[0].is_some() && (from[1].is_some() || !two_way),
            two_way,
            reverse_full: options.reverse_full,
            merge: merge || options.lost[1],
            inherits,
            others: false,
            ahead: Default::default(),
            moved: Default::default(),
            parents: BTreeSet::new(),
            cuts,
            left_over: forward.is_some_and(|k| k.phase == LoadPhase::Loading)
                && !options.lost[0]
                && match context.job.policy.existing_keys {
                    ExistingKeys::Block => from[1].is_some() || !two_way,
                    ExistingKeys::Merge => from[1].is_some(),
                    // Whose they are can't be told from theirs that the target had before.
                    ExistingKeys::Ignore => false,
                },
        })
    }

    fn tell_cuts(&self, context: &JobContext) {
        for Cut { side, at, bytes } in &self.cuts {
            let other = side.other();
            let head = format!(
                "the {side}'s new master lacks the last {bytes} bytes, behind offset {at}, of what its old one had passed on"
            );
            let (severity, tail) = if self.two_way {
                (Severity::Warning, format!("what the {other} got of it is carried back"))
            } else {
                let tail =
                    format!("the {other} holds writes that the {side} has lost: compare them with duplex verify");
                (Severity::Error, tail)
            };
            context.events.emit(Some(side.outgoing()), severity, EventKind::Failover, format!("{head}; {tail}"));
        }
    }

    fn take_over(&mut self, inherited: Inherited) {
        self.ahead = inherited.ahead;
        self.moved = inherited.moved;
        self.parents = inherited.parents;
        self.others = inherited.others;
    }

    /// Of the direction's stream: what was replied, echoed and applied.
    fn span(&self, direction: Direction) -> Option<(Span, [Position; 3])> {
        let own = self.from[direction as usize]?;
        if !self.two_way {
            // Nothing comes back as an echo: only what may have failed unseen is looked at again.
            let p = [own.applied, own.replied, own.applied];
            let span = Span { echoed: p[2].offset, replied: p[1].offset, applied: p[0].offset };
            return Some((span, p));
        }
        let other = self.from[direction.other() as usize]?;
        // The other link's control key stands at the site that this one reads: it says how far that site's own stream
        // had come back.
        let p = [own.applied, own.replied, other.echoed];
        let span = Span { echoed: p[2].offset, replied: p[1].offset, applied: p[0].offset };
        Some((span, p))
    }

    fn start(&self, direction: Direction) -> Begin {
        let Some(own) = self.from[direction as usize] else {
            return match direction {
                // All of its slots came from elsewhere: from now on, and what they hold is settled by state.
                _ if self.inherits => Begin::Nothing(Start::Current),
                Direction::Forward => Begin::Snapshot,
                Direction::Reverse if self.merge => Begin::Snapshot,
                Direction::Reverse if self.reverse_full => Begin::Nothing(Start::Full { keep_snapshot: false }),
                Direction::Reverse => Begin::Nothing(Start::Current),
            };
        };
        let Some(replid) = own.replid else { return Begin::Nothing(Start::Current) };
        let at = match self.span(direction).filter(|_| self.resume) {
            Some((_, positions)) => positions.into_iter().min_by_key(|p| p.offset).unwrap_or(own.applied),
            None => own.applied,
        };
        Begin::Position(replid, at)
    }
}

/// How a direction's stream begins.
#[derive(Debug, Clone, Copy)]
enum Begin {
    Snapshot,
    Nothing(Start),
    Position(ReplId, Position),
}

fn gone(direction: Direction, address: &str) -> JobError {
    JobError::needs_copy(
        direction,
        format!(
            "{address} holds no control key of this job any more: it was flushed, replaced, or restored from a copy"
        ),
        "compare both sides, then start with a new copy: duplex start --discard-previous",
    )
}

/// Attaches one direction; gives where its stream begins.
#[allow(clippy::too_many_arguments, reason = "private; its caller names them")]
async fn one(
    context: &JobContext,
    ready: &Ready,
    facts: &[SiteFacts; 2],
    direction: Direction,
    begin: Begin,
    limits: (u64, u64),
    strands: usize,
    plan: &Plan,
) -> Result<(Attached, Position), JobError> {
    let (job, from, to) = (&context.job, direction.from(), direction.to());
    let site = &ready.sites[from.index()];
    let (writer, reader) = Spool::new(SpoolOptions {
        memory_bytes: share(job.limits.spool_memory, strands),
        disk_bytes: share(job.limits.spool_disk, strands),
        dir: context.spool_dir.join(match &ready.strand {
            None => direction.as_str().to_owned(),
            Some(strand) => format!("{direction}-{}", strand.id),
        }),
    })
    .map_err(|e| JobError::lasting(e.to_string(), "mend the disk or move the state folder"))?;
    let applied = match begin {
        Begin::Position(_, at) => plan.from[direction as usize].map_or(at.offset, |k| k.applied.offset),
        _ => Offset(0),
    };
    let gauge = Arc::new(Gauge::new(applied, limits.0, limits.1));
    let dialer = Dialer::new(job.instance(from), &client_name(&context.id, "replica", ready.strand.as_deref()));
    let options = ReplicaOptions::new(context.events.clone(), direction, gauge.watch_applied());
    let start = match begin {
        Begin::Snapshot => Start::Full { keep_snapshot: true },
        Begin::Nothing(start) => start,
        Begin::Position(replid, at) => Start::Resume { replid, offset: at.offset },
    };
    let spool = reader.releaser();
    let mut options = options;
    let mut address = site.address.clone();
    if site.is_master {
        let at = match begin {
            Begin::Position(_, at) => Some(at.offset),
            _ => None,
        };
        address = reading::choose(context, direction, &dialer, &site.address, at).await?;
        options.replicas_of = (job.instance(from).read_from == ReadFrom::Replica).then(|| site.address.clone());
    }
    let replica = Replica::spawn(dialer, &address, start, writer, options);
    let (replid, at) = wait_attached(&replica, direction).await?;
    if matches!(begin, Begin::Position(..)) && site.lineage.is_some_and(|l| l.replid != replid) {
        let what = format!("{} has begun another history while it was attached to", site.address);
        return Err(JobError::passing(what, "it is looked at again"));
    }
    let db = match begin {
        // A cluster has no other.
        _ if site.names.is_cluster() => 0,
        Begin::Position(_, p) => p.db,
        Begin::Nothing(Start::Current) => NO_DB,
        _ => 0,
    };
    let position = Position { offset: at, db };
    *ready.replids[from.index()].write().unwrap_or_else(|p| p.into_inner()) = Some(replid);
    let with_snapshot = matches!(begin, Begin::Snapshot);
    {
        let mut core = ready.shared.lock();
        core.decided[from.index()] = position;
        core.phase[from.index()] = if with_snapshot { LoadPhase::Loading } else { LoadPhase::Streaming };
        if let Some(own) = plan.from[direction as usize] {
            core.echoed[from.index()] = own.echoed;
        }
        if with_snapshot {
            // A copy that did not end has left keys whose expiry it had put off.
            core.expiries[to.index()].begin(ready.sites[to.index()].keys > 0);
        }
        if with_snapshot && direction == Direction::Forward && job.policy.two_way {
            core.arbiter.loading(Some(from));
        }
        core.replied[to.index()] = plan.from[direction as usize].map_or(position, |k| k.applied);
    }
    let replica = Arc::new(replica);
    let merge = plan.merge && direction == Direction::Reverse;
    let target = facts[to.index()].dialect;
    let databases = job.policy.databases.clone();
    // What stands in the target's stream and the unfinished copy may have written over.
    let unfinished = site.found.is_some_and(|k| k.phase == LoadPhase::Loading);
    let doubtful_until = if direction == Direction::Reverse && unfinished { site.unfinished_at } else { Offset(0) };
    let decider = Decider::new(DeciderSetup {
        here: from,
        epoch: ready.epoch,
        names: facts[from.index()].names.clone(),
        there: facts[to.index()].names.clone(),
        own_prefix: Bytes::from(own_prefix(&context.id)),
        databases: databases.clone(),
        target,
        forward_flush: job.policy.forward_flush,
        two_way: job.policy.two_way,
        // Without a position that goes on, a snapshot tells all that the other site holds.
        peer_lineage: ready.sites[to.index()].lineage.filter(|_| plan.from[direction.other() as usize].is_some()),
        doubtful_until,
        ahead: plan.ahead[direction as usize].clone(),
    });
    let link = Link::new(LinkSetup {
        shared: ready.shared.clone(),
        gauge: gauge.clone(),
        events: context.events.clone(),
        direction,
        replica: replica.clone(),
        spool: reader,
        decider,
        loader: Loader::new(from, target, databases.clone(), merge, false, facts[to.index()].names.clone()),
        home: site.names.is_cluster().then(|| {
            let dialer = Dialer::new(job.instance(from), &client_name(&context.id, "control", None));
            Home::new(dialer, site.address.clone())
        }),
        peer: Peer::new(
            ready.sites[to.index()].dialer.clone(),
            ready.sites[to.index()].address.clone(),
            facts[to.index()].names.is_cluster(),
        ),
        left_over: (with_snapshot && direction == Direction::Forward && plan.left_over).then(|| databases.clone()),
        replids: ready.replids.clone(),
        from: position,
        control_db: ready.control_db,
        way_ms: site.way_ms,
    });
    Ok((Attached { direction, link, gauge, replica, spool, with_snapshot }, position))
}

/// Waits for the stream's begin; what only a person can mend is told at once.
async fn wait_attached(replica: &ReplicaHandle, direction: Direction) -> Result<(ReplId, Offset), JobError> {
    /// A snapshot begins when the source has forked, and a busy source forks when its present save has ended.
    const PATIENCE: Duration = Duration::from_secs(120);
    let mut state = replica.state();
    let watched = async {
        loop {
            match &*state.borrow_and_update() {
                ReplicaState::Failed { why, remedy, .. } => {
                    return JobError::lasting(format!("{direction} link: {why}"), remedy.clone());
                }
                ReplicaState::Reconnecting { why, attempt, .. } if *attempt >= 3 => {
                    return JobError::passing(format!("{direction} link: {why}"), "check that the source is up");
                }
                _ => {}
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let attached = async {
        match tokio::time::timeout(PATIENCE, replica.attached()).await {
            Ok(Ok(position)) => Ok(position),
            Ok(Err(ReplicaState::PositionLost { asked, .. })) => Err(position_lost(direction, asked.1)),
            Ok(Err(other)) => Err(JobError::passing(format!("{direction} link: ended as {other:?}"), "start it again")),
            Err(_) => Err(JobError::passing(
                format!("{direction} link: the source did not begin to send within {} s", PATIENCE.as_secs()),
                "see the source's log: it may not be able to fork",
            )),
        }
    };
    tokio::select! {
        biased;
        done = attached => done,
        error = watched => Err(error),
    }
}

/// The error that says that the source has not kept the stream.
pub fn position_lost(direction: Direction, asked: Offset) -> JobError {
    JobError::needs_copy(
        direction,
        format!(
            "{direction} link: the {} no longer has its stream from offset {asked} on: the backlog was too small for \
             the time away",
            direction.from()
        ),
        "compare both sides with duplex verify, then start with a new copy (duplex start --discard-previous), or set \
         policy.allow_resnapshot; a larger repl-backlog-size there makes the window longer",
    )
}

/// Writes our epoch into the control key that this direction writes, so that an older engine is shut out, a crash from
/// now on is recovered from here, and the stream of that site shows a marker of ours.
async fn raise_epoch(
    ready: &mut Ready,
    direction: Direction,
    begin: Begin,
    at: Position,
    begins: &[Position; 2],
    plan: &Plan,
) -> Result<(), JobError> {
    let replid = |side: Side| ready.replids[side.index()].read().map(|r| *r).unwrap_or_else(|p| *p.into_inner());
    let (from, to) = (direction.from(), direction.to());
    let key = ControlKey {
        epoch: ready.epoch,
        number: 0,
        serial: 0,
        phase: if matches!(begin, Begin::Snapshot) { LoadPhase::Loading } else { LoadPhase::Streaming },
        replid: replid(from),
        applied: at,
        replied: at,
        peer_replid: replid(to),
        // Of a stream that is not attached yet it is known where it will be.
        echoed: plan.from[direction.other() as usize].map_or(begins[to.index()], |k| k.applied),
        strand: ready.strand.as_ref().map(|s| s.id),
    };
    let key = match plan.from[direction as usize] {
        // It goes on from where it was; the epoch is new, and perhaps the names of the histories.
        Some(found) => ControlKey {
            epoch: ready.epoch,
            number: 0,
            serial: 0,
            replid: replid(from),
            peer_replid: replid(to).or(found.peer_replid),
            ..found
        },
        None => key,
    };
    let db = ready.control_db;
    let fresh = plan.from[direction as usize].is_none() && !plan.inherits;
    if fresh {
        // Conflicts that were open before a new copy are settled by it, wherever they were noted.
        // A one-way job may write nothing at its source.
        let both = plan.two_way && direction == Direction::Forward;
        for side in Side::BOTH.into_iter().filter(|s| *s == to || both) {
            let Site { control, names, .. } = &mut ready.sites[side.index()];
            fence::delete_keys(control, db, &[&names.notes()]).await?;
        }
    }
    let Site { control, names, .. } = &mut ready.sites[to.index()];
    match names.strand().filter(|_| names.is_cluster() && (fresh || plan.others)) {
        // In every slot, so that each tells for ever whose it is: a slot may come to another strand.
        Some(strand) => fence::write_slots(control, names, strand.slots.iter(), &key).await?,
        None => fence::write_control_key(control, db, &names.control(None), &key).await?,
    }
    Ok(())
}

/// The three steps of recovery.
async fn recover(
    context: &JobContext,
    ready: &mut Ready,
    plan: &Plan,
    places: &mut [Place; 2],
) -> Result<(), JobError> {
    let mut doubtful = Vec::new();
    for attached in ready.links.iter_mut().filter(|_| plan.resume) {
        let Some((span, _)) = plan.span(attached.direction) else { continue };
        let found = attached.link.rebuild(span).await;
        let found = found.map_err(|e| match e {
            LinkError::UnknownDb => JobError::passing(UNKNOWN_DB, ""),
            e => JobError::passing(e.to_string(), "it is tried again"),
        })?;
        let source = attached.direction.from();
        doubtful.extend(found.into_iter().map(|(db, key)| (db, key, source)));
    }
    let mut carried_back = Vec::new();
    for attached in &mut ready.links {
        let (here, peer) = (attached.direction.from(), attached.direction.to());
        // It may have failed over before an engine that has cut the positions and not come any further.
        let failed_over = ready.sites[peer.index()].lineage.is_some_and(|l| l.before.is_some());
        if !plan.two_way || !failed_over {
            continue;
        }
        // The connections of the engine before us are dead: nothing of it comes behind this.
        let end = ready.sites[here.index()].control.info().await?.master_repl_offset.unwrap_or_default();
        let lost =
            attached.link.lost_ahead(end).await.map_err(|e| JobError::passing(e.to_string(), "it is tried again"))?;
        if !lost.keys.is_empty() || plan.cuts.iter().any(|c| c.side == peer) {
            tell_carried_back(context, here, &lost);
        }
        carried_back.extend(lost.keys.into_iter().map(|(db, key)| (db, key, here)));
    }
    let mut open: HashMap<(u32, Vec<u8>), (u64, Side)> = HashMap::new();
    for side in Side::BOTH {
        let db = ready.control_db;
        let Site { control, names, .. } = &mut ready.sites[side.index()];
        let mut notes = fence::read_notes(control, db, &names.notes()).await?;
        // Those of the strands that had these slots before.
        for id in plan.parents.iter().filter(|id| Some(**id) != names.id()) {
            let before = names.of_sibling(*id);
            let shard = places[side.index()].shards.iter_mut().find(|s| s.slots.contains(id.home));
            if let Some(shard) = shard {
                notes.extend(fence::read_notes(&mut shard.control, db, &before.notes()).await?);
            }
        }
        notes.retain(|(_, key, ..)| names.strand().is_none_or(|strand| strand.has(key)));
        for (db, key, number, authority) in notes {
            let entry = open.entry((db, key)).or_insert((number, authority));
            if number > entry.0 {
                *entry = (number, authority);
            }
        }
    }
    let mut open: Vec<_> = open.into_iter().collect();
    open.sort_by_key(|(_, (number, _))| *number);
    let mut core = ready.shared.lock();
    core.arbiter.recover_flushed();
    for ((db, key), (_, authority)) in open {
        if plan.two_way {
            core.arbiter.recover_episode(db, &key, authority);
        } else {
            core.carry_again(db, &key);
        }
    }
    for (db, key, holder) in carried_back {
        core.arbiter.recover_episode(db, &key, holder);
    }
    for (db, key, source) in doubtful {
        let hash = core.arbiter.hash(db, &key);
        let touch = Touch { db, key: &key, hash, class: Class::Write, part: Part::WHOLE };
        core.differs(&touch, source, Cause::Recovery);
    }
    core.carry_out();
    core.settle();
    Ok(())
}

/// What a site got from the other's old master, and the new one never had.
fn tell_carried_back(context: &JobContext, holder: Side, lost: &Lost) {
    let other = holder.other();
    let named: Vec<String> = lost.keys.iter().take(5).map(|(db, key)| format!("{:?} in db{db}", shown(key))).collect();
    let text = match lost.keys.len() {
        0 => format!("nothing that clients wrote at the {other}'s old master is missing at its new one"),
        n => format!(
            "{} changes of {n} keys were lost by the {other} in its failover, and the {holder} has them: these keys are \
             carried back, such as {}",
            lost.changes,
            named.join(", ")
        ),
    };
    let severity = if lost.keys.is_empty() { Severity::Info } else { Severity::Warning };
    context.events.emit(Some(holder.outgoing()), severity, EventKind::Failover, text);
}

/// Deletes what a job has left at both sides, after shutting out its engine.
pub async fn remove_control_keys(job: &Job, id: &JobId) -> Result<(), JobError> {
    let db = job.policy.databases.first();
    let any = Arc::new(Strand::new(SlotSet::all()));
    let mut maps = Vec::new();
    // A one-way job writes nothing at its source, and may have no right to.
    for side in Side::BOTH.into_iter().filter(|s| *s == Side::Target || job.policy.two_way) {
        let named = Dialer::new(job.instance(side), &client_name(id, "control", None));
        let masters = named.masters().await?;
        maps.push((id.control_key(side.incoming()), named, masters));
    }
    // What is called by a strand's name at a standalone side is known from the cluster at the other.
    maps.sort_by_key(|(.., masters)| masters.iter().all(|m| m.slots.is_empty()));
    let mut strands = BTreeSet::new();
    for (base, named, masters) in maps {
        for master in masters {
            let mut control = named.control(&master.address).await?;
            let (apply, replica) = (client_name(id, "apply", None), client_name(id, "replica", None));
            fence::kill_clients(&mut control, &[&apply, &replica]).await?;
            if !master.slots.is_empty() {
                let slots = SlotSet::of(&master.slots);
                let names = Names::of(base.clone(), any.clone(), true);
                let (found, _) = fence::read_slots(&mut control, &names, slots.iter()).await?;
                strands.extend(found.into_iter().filter_map(|(_, key)| key.strand));
                fence::delete_slots(&mut control, &names, slots.iter()).await?;
                continue;
            }
            let by_strand = Names::of(base.clone(), any.clone(), false);
            for names in
                std::iter::once(Names::whole(base.clone())).chain(strands.iter().map(|s| by_strand.of_sibling(*s)))
            {
                let own = [names.control(None), names.notes(), names.part(b"")];
                fence::delete_keys(&mut control, db, &own.each_ref().map(|k| &k[..])).await?;
            }
        }
    }
    Ok(())
}
