//! One run of a job: its tasks, and what the end of one of them means for all.

use super::attach::{Ready, ReadyJob, position_lost, share};
use super::moved::Moved;
use super::progress::Progress;
use super::watch::SourceFacts;
use super::{JobContext, JobError};
use crate::engine::apply::control_key::LoadPhase;
use crate::engine::apply::transaction::Envelope;
use crate::engine::apply::writer::{End, Order, Writer, WriterSetup};
use crate::engine::arbiter::Touch;
use crate::engine::arbiter::class::{Class, Part};
use crate::engine::arbiter::episode::Cause;
use crate::engine::core::Shared;
use crate::engine::gauge::Gauge;
use crate::engine::link::{Link, LinkError};
use crate::engine::manifold::Manifold;
use crate::engine::net::{Dialer, ShardAddress};
use crate::engine::replica::{ReplicaHandle, ReplicaState};
use crate::engine::spool::SpoolReleaser;
use crate::engine::strand::Strand;
use crate::model::job::ReadFrom;
use crate::model::{Direction, Side};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// How often positions, rates and lag are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Why a run is over.
#[derive(Debug, Clone)]
pub enum RunEnd {
    /// Begin another.
    Again(JobError),
    /// The same, since a cluster is divided otherwise or another node is a master.
    Topology(JobError),
    /// The reverse stream has to be taken up with a full sync.
    UnknownDb,
    /// A position or a control key is gone, where this run looked for it: begin another, which looks for the site's
    /// master anew. If it is gone there too, a person has to decide.
    Lost(JobError),
    /// A person has to decide.
    Failed(JobError),
}

/// One direction while it runs.
pub struct LinkRun {
    pub direction: Direction,
    pub gauge: Arc<Gauge>,
    pub replica: Arc<ReplicaHandle>,
    pub spool: SpoolReleaser,
    pub with_snapshot: bool,
    /// It has been in step once.
    pub caught_up: AtomicBool,
    pub source: Arc<SourceFacts>,
    /// How far its first copy is.
    pub progress: Mutex<Progress>,
    /// Keys in the selected databases of the source when it was attached.
    pub keys_expected: u64,
    /// So many strands read their shard by this replica, and this is the first of them.
    pub together: usize,
    pub first: bool,
    order: watch::Sender<Order>,
}

/// A strand while it runs: a job without a cluster is one.
pub struct StrandRun {
    pub strand: Option<Arc<Strand>>,
    pub shared: Arc<Shared>,
    pub links: Vec<LinkRun>,
}

pub struct Run {
    pub strands: Vec<StrandRun>,
    /// The shards of both sides.
    pub maps: [Vec<ShardAddress>; 2],
    ends: tokio::sync::Mutex<mpsc::UnboundedReceiver<RunEnd>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    writers: Mutex<Vec<JoinHandle<()>>>,
}

impl Run {
    /// Starts the tasks of an attached job.
    pub fn spawn(context: &JobContext, ready: ReadyJob, nodes: &Arc<Mutex<[BTreeSet<String>; 2]>>) -> Run {
        let (tell, ends) = mpsc::unbounded_channel();
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        let trouble: [Arc<Notify>; 2] = Default::default();
        for side in Side::BOTH.into_iter().filter(|s| ready.maps[s.index()].iter().any(|m| !m.slots.is_empty())) {
            if context.job.instance(side).hides_shards() {
                continue;
            }
            let dialer = Dialer::new(context.job.instance(side), &format!("duplex:{}:control", context.id));
            let (map, bell) = (ready.maps[side.index()].clone(), trouble[side.index()].clone());
            let (tell, nodes) = (tell.clone(), nodes.clone());
            readers.push(tokio::spawn(async move {
                let known = |seen: &BTreeSet<String>| {
                    nodes.lock().unwrap_or_else(|p| p.into_inner())[side.index()].extend(seen.iter().cloned());
                };
                let what = super::topology::changed(side, dialer, map, bell, known).await;
                let _ = tell.send(RunEnd::Topology(JobError::moving(what, "the links go on with what it is now")));
            }));
        }
        for side in Side::BOTH {
            let ([only], instance) = (&ready.maps[side.index()][..], context.job.instance(side)) else { continue };
            if only.slots.is_empty() && instance.may_move() {
                let dialer = Dialer::new(instance, &format!("duplex:{}:control", context.id));
                let (address, tell) = (only.address.clone(), tell.clone());
                readers.push(tokio::spawn(async move {
                    let moved = super::follow::follow(dialer, side, address).await;
                    let _ = tell.send(RunEnd::Again(moved));
                }));
            }
        }
        readers.extend(ready.manifolds.into_iter().flat_map(Manifold::into_tasks));
        let strands = ready.strands.into_iter();
        let strands =
            strands.map(|s| StrandRun::spawn(context, s, &trouble, &tell, &mut readers, &mut writers)).collect();
        Run {
            strands,
            maps: ready.maps,
            ends: tokio::sync::Mutex::new(ends),
            readers: Mutex::new(readers),
            writers: Mutex::new(writers),
        }
    }

    /// Waits until something ends the run.
    pub async fn ended(&self) -> RunEnd {
        match self.ends.lock().await.recv().await {
            Some(end) => end,
            None => RunEnd::Again(JobError::passing("the links' tasks have ended", "they start again")),
        }
    }

    /// Ends all tasks where they are.
    pub fn abort(&self) {
        for list in [&self.readers, &self.writers] {
            for task in list.lock().unwrap_or_else(|p| p.into_inner()).drain(..) {
                task.abort();
            }
        }
    }

    /// Reads no more, writes what was decided, waits for the replies; then ends.
    pub async fn drain(&self, patience: Duration) {
        for task in self.readers.lock().unwrap_or_else(|p| p.into_inner()).drain(..) {
            task.abort();
        }
        for strand in &self.strands {
            for link in &strand.links {
                let _ = link.order.send(Order::Drain);
            }
            strand.shared.wake_writers();
        }
        let writers: Vec<_> = self.writers.lock().unwrap_or_else(|p| p.into_inner()).drain(..).collect();
        let aborts: Vec<_> = writers.iter().map(JoinHandle::abort_handle).collect();
        let _ = tokio::time::timeout(patience, futures::future::join_all(writers)).await;
        for a in aborts {
            a.abort();
        }
    }

    pub fn set_limits(&self, ops: u64, bytes: u64) {
        let n = self.strands.len();
        for strand in &self.strands {
            for link in &strand.links {
                link.gauge.set_limits(share(ops, n), share(bytes, n));
                link.progress.lock().unwrap_or_else(|p| p.into_inner()).reset();
            }
            strand.shared.wake_writers();
        }
    }

    /// Opens episodes for keys that were found to differ.
    pub async fn repair(&self, keys: &[(u32, Vec<u8>)]) {
        for strand in &self.strands {
            let ours = |key: &[u8]| strand.strand.as_ref().is_none_or(|s| s.has(key));
            let keys: Vec<&(u32, Vec<u8>)> = keys.iter().filter(|(_, key)| ours(key)).collect();
            strand.repair(&keys).await;
        }
    }
}

impl StrandRun {
    fn spawn(
        context: &JobContext,
        ready: Ready,
        trouble: &[Arc<Notify>; 2],
        tell: &mpsc::UnboundedSender<RunEnd>,
        readers: &mut Vec<JoinHandle<()>>,
        writers: &mut Vec<JoinHandle<()>>,
    ) -> StrandRun {
        let Ready { strand, shared, sites, links: attached, epoch, replids, control_db, moved } = ready;
        let mut links = Vec::new();
        for a in attached {
            let (order, orders) = watch::channel(Order::Run);
            let site = &sites[a.direction.to().index()];
            let writer = Writer::new(WriterSetup {
                shared: shared.clone(),
                gauge: a.gauge.clone(),
                events: context.events.clone(),
                direction: a.direction,
                dialer: site.dialer.clone(),
                address: site.written_at().to_owned(),
                one_at_a_time: site.proxy.is_some(),
                envelope: Envelope::new(site.names.clone(), control_db, site.proxy.is_some()),
                epoch,
                two_way: context.job.policy.two_way,
                clock: (!context.job.policy.two_way).then(|| a.clock.clone()),
                order: orders,
                replids: replids.clone(),
                trouble: trouble[a.direction.to().index()].clone(),
                opened: a.writer,
            });
            readers.push(tokio::spawn(super::expiries::see_to(super::expiries::Setup {
                shared: shared.clone(),
                direction: a.direction,
                replica: a.replica.clone(),
                address: site.address.clone(),
                source: {
                    let from = &sites[a.direction.from().index()];
                    let absolute = [from, site].iter().all(|s| s.dialect.speaks_redis(7, 0));
                    (!absolute).then(|| (from.dialer.clone(), from.address.clone(), from.dialect))
                },
                source_control: None,
                source_asked: JoinSet::new(),
                look_control: None,
                // A proxy can't be looked through: what it has, its source had too.
                look_at: match context.job.instance(a.direction.to()).hides_shards() {
                    true => {
                        let from = &sites[a.direction.from().index()];
                        (from.dialer.clone(), from.address.clone())
                    }
                    false => (site.dialer.clone(), site.address.clone()),
                },
                databases: context.job.policy.databases.clone(),
                names: site.names.clone(),
            })));
            writers.push(tokio::spawn(write(writer, a.direction, tell.clone())));
            readers.push(tokio::spawn(read(a.link, a.direction, a.replica.clone(), tell.clone())));
            let control = sites[a.direction.from().index()].control.clone();
            readers.push(tokio::spawn(super::looks::follow(control, shared.clone(), a.clock)));
            links.push(LinkRun {
                direction: a.direction,
                gauge: a.gauge,
                replica: a.replica,
                spool: a.spool,
                with_snapshot: a.with_snapshot,
                together: a.together,
                first: a.first,
                caught_up: AtomicBool::new(false),
                source: Arc::default(),
                progress: Mutex::default(),
                keys_expected: sites[a.direction.from().index()].keys,
                order,
            });
        }
        readers.push(tokio::spawn(settle(shared.clone())));
        for (side, slots) in Side::BOTH.into_iter().zip(moved).filter(|(_, slots)| !slots.is_empty()) {
            let sites = [&sites[0], &sites[1]].map(|s| (s.control.clone(), s.names.clone()));
            let work = Moved { shared: shared.clone(), events: context.events.clone(), sites, side, slots };
            readers.push(tokio::spawn(work.settle()));
        }
        if !context.job.policy.two_way {
            let source = &sites[Side::Source.index()];
            let (dialer, address) = (source.dialer.clone(), source.address.clone());
            readers.push(tokio::spawn(super::carry::ask(
                shared.clone(),
                context.events.clone(),
                dialer,
                address,
                source.dialect,
            )));
        }
        let beats = links.iter().map(|l| (l.direction, l.gauge.clone(), l.replica.clone())).collect();
        readers.push(tokio::spawn(beat(shared.clone(), beats)));
        for (side, site) in Side::BOTH.into_iter().zip(&sites) {
            let Some(link) = links.iter().find(|l| l.direction.from() == side) else { continue };
            if link.first && site.is_master && context.job.instance(side).read_from == ReadFrom::Replica {
                let (control, master) = (site.control.clone(), site.address.clone());
                let task = super::reading::follow(link.replica.clone(), site.dialer.clone(), control, master);
                readers.push(tokio::spawn(task));
            }
        }
        for (side, site) in Side::BOTH.into_iter().zip(sites) {
            if let Some(link) = links.iter().find(|l| l.direction.from() == side) {
                let core = shared.clone();
                let copied_to = move || core.lock().phase[side.other().index()] == LoadPhase::Loading;
                readers.push(tokio::spawn(super::watch::follow(site.control, link.source.clone(), copied_to)));
            }
        }
        StrandRun { strand, shared, links }
    }

    async fn repair(&self, keys: &[&(u32, Vec<u8>)]) {
        if keys.is_empty() {
            return;
        }
        {
            let mut core = self.shared.lock();
            core.set_now(self.shared.now_ms());
            for (db, key) in keys {
                let hash = core.arbiter.hash(*db, key);
                let touch = Touch { db: *db, key, hash, class: Class::Write, part: Part::WHOLE };
                core.differs(&touch, Side::Source, Cause::Repair);
                core.carry_out();
            }
            core.settle();
        }
        self.shared.wake_writers();
        self.shared.settle.notify_one();
        // A handful at a time: a repair must not push the clients' changes aside.
        while self.shared.lock().open() > 128 {
            tokio::time::sleep(TICK).await;
        }
    }
}

async fn read(link: Link, direction: Direction, replica: Arc<ReplicaHandle>, tell: mpsc::UnboundedSender<RunEnd>) {
    let end = match link.run().await {
        Err(LinkError::UnknownDb) => RunEnd::UnknownDb,
        Err(e) => RunEnd::Again(JobError::passing(format!("{direction} link: {e}"), "it starts again")),
        // The replica has ended: its state tells why.
        Ok(()) => match replica.state().borrow().clone() {
            ReplicaState::PositionLost { asked, .. } => RunEnd::Lost(position_lost(direction, asked.1)),
            other => RunEnd::Again(JobError::passing(
                format!("{direction} link: reading the source has ended ({other:?})"),
                "it starts again",
            )),
        },
    };
    let _ = tell.send(end);
}

async fn write(writer: Writer, direction: Direction, tell: mpsc::UnboundedSender<RunEnd>) {
    let to = direction.to();
    let end = match writer.run().await {
        End::Stopped => return,
        End::Fenced => RunEnd::Failed(JobError::lasting(
            format!("another engine has taken this job over at the {to}"),
            "stop one of the two; then resume here if it is to run here",
        )),
        End::WentBack => RunEnd::Again(JobError::passing(
            format!("the {to} has lost writes that it had acknowledged: it was restarted or failed over"),
            "the links start again from what it still has",
        )),
        End::Redirected => RunEnd::Topology(JobError::moving(
            format!("slots of the {to} have been moving for some time"),
            "the links go on with what it is now",
        )),
        End::Gone => RunEnd::Lost(JobError::needs_copy(
            direction,
            format!("the {to} holds no control key of this job any more: it was flushed or replaced"),
            "compare both sides, then start with a new copy: duplex start --discard-previous",
        )),
    };
    let _ = tell.send(end);
}

/// Sends tokens when they are due.
async fn settle(shared: Arc<Shared>) {
    loop {
        let next = {
            let mut core = shared.lock();
            core.set_now(shared.now_ms());
            let next = core.settle();
            let next = next.map(|at| at.saturating_sub(core.now_ms()).max(1));
            shared.ring(core);
            next
        };
        let wait = Duration::from_millis(next.unwrap_or(3_600_000));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.settle.notified() => {}
        }
    }
}

/// Keeps positions and rates up to date while nothing else moves them.
async fn beat(shared: Arc<Shared>, links: Vec<(Direction, Arc<Gauge>, Arc<ReplicaHandle>)>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for (direction, gauge, replica) in &links {
            let idle = {
                let mut core = shared.lock();
                core.look_at_snapshots();
                let from = direction.from().index();
                (core.out_is_empty(direction.to())
                    && gauge.in_flight() == 0
                    && core.phase[from] == LoadPhase::Streaming)
                    .then(|| core.decided[from].offset)
            };
            if let Some(offset) = idle {
                gauge.advance(offset);
            }
            gauge.tick(replica.received());
        }
    }
}
