//! From what the links of a run read: each strand from a replica of its own, or several of one shard from one.

use super::Begun;
use super::direction::{self, Reading};
use super::plan::Begin;
use crate::engine::job::{JobContext, JobError};
use crate::engine::link::UNKNOWN_DB;
use crate::engine::manifold::{Manifold, Outlet, Routes, Setup, lowest};
use crate::engine::replica::Start;
use crate::model::{Direction, ReplId};
use futures::future::try_join_all;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a shard sends lies here until it is handed to its strands, which takes no longer than they have room.
const HANDED_ON: u64 = 1 << 20;

/// How a stream begins: only what begins in one way can be read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Snapshot,
    Passed,
    Now,
    Position(ReplId),
}

impl Kind {
    fn of(begin: Begin) -> Kind {
        match begin {
            Begin::Snapshot | Begin::Nothing(Start::Full { keep_snapshot: true }) => Kind::Snapshot,
            Begin::Nothing(Start::Full { keep_snapshot: false }) => Kind::Passed,
            Begin::Nothing(Start::Current) => Kind::Now,
            Begin::Nothing(Start::Resume { replid, .. }) | Begin::Position(replid, _) => Kind::Position(replid),
        }
    }
}

/// What is read, by strand and direction.
pub(super) type Readings = BTreeMap<(usize, Direction), Reading>;

/// Opens what these strands read in these directions.
pub(super) async fn open(
    context: &JobContext,
    begun: &[Begun],
    wanted: &[(usize, Direction)],
    limits: (u64, u64),
) -> Result<(Readings, Vec<Manifold>), JobError> {
    let mut groups: BTreeMap<(Direction, usize, Kind), Vec<usize>> = BTreeMap::new();
    for &(n, direction) in wanted {
        let kind = Kind::of(begun[n].plan.start(direction));
        groups.entry((direction, begun[n].shards[direction.from().index()], kind)).or_default().push(n);
    }
    let opened = groups.iter().map(|((direction, shard, _), group)| async move {
        let strands: Vec<&Begun> = group.iter().map(|n| &begun[*n]).collect();
        match strands[..] {
            [one] => Ok((vec![alone(context, one, *direction, limits, begun.len()).await?], None)),
            _ => together(context, &strands, *direction, *shard, limits, begun.len()).await,
        }
    });
    let opened: Vec<(Vec<Reading>, Option<Manifold>)> = try_join_all(opened).await?;
    let (mut readings, mut manifolds) = (Readings::new(), Vec::new());
    for (((direction, ..), group), (parts, manifold)) in groups.iter().zip(opened) {
        readings.extend(group.iter().map(|n| (*n, *direction)).zip(parts));
        manifolds.extend(manifold);
    }
    Ok((readings, manifolds))
}

async fn alone(
    context: &JobContext,
    one: &Begun,
    direction: Direction,
    limits: (u64, u64),
    strands: usize,
) -> Result<Reading, JobError> {
    let begin = one.plan.start(direction);
    let (writer, spool) = direction::spool(context, &one.ready, direction, strands)?;
    let gauge = direction::gauge(direction, begin, limits, &one.plan);
    let (replica, replid, at) =
        direction::replica(context, &one.ready, direction, begin, writer, gauge.watch_applied()).await?;
    Ok(Reading { gauge, replica: Arc::new(replica), spool, together: 1, first: true, replid, at })
}

async fn together(
    context: &JobContext,
    strands: &[&Begun],
    direction: Direction,
    shard: usize,
    limits: (u64, u64),
    all: usize,
) -> Result<(Vec<Reading>, Option<Manifold>), JobError> {
    let begins: Vec<Begin> = strands.iter().map(|s| s.plan.start(direction)).collect();
    let position = |begin: &Begin| match begin {
        Begin::Position(_, at) => Some(*at),
        _ => None,
    };
    // The replica begins where the first of them does.
    let (earliest, begin) = begins
        .iter()
        .enumerate()
        .min_by_key(|(_, begin)| position(begin).map(|at| at.offset))
        .ok_or_else(|| JobError::passing("a shard without slots", "it is looked at again"))?;
    let from = direction.from().index();
    let gauges: Vec<_> =
        strands.iter().zip(&begins).map(|(s, begin)| direction::gauge(direction, *begin, limits, &s.plan)).collect();
    let (applied, follows) = lowest(gauges.iter().map(|g| g.watch_applied()).collect());
    let (writer, reader) = direction::spool_in(context, &format!("{direction}-shard-{shard}"), HANDED_ON, 0)?;
    let first = &strands[earliest].ready;
    let opened = direction::replica(context, first, direction, *begin, writer, applied.clone()).await;
    let (replica, replid, at) = match opened {
        Ok(opened) => opened,
        Err(e) => {
            follows.abort();
            return Err(e);
        }
    };
    let replica = Arc::new(replica);
    let cluster = first.sites[from].names.is_cluster();
    let (mut outlets, mut readings) = (Vec::new(), Vec::new());
    for (n, ((strand, begin), gauge)) in strands.iter().zip(&begins).zip(gauges).enumerate() {
        let (writer, spool) = direction::spool(context, &strand.ready, direction, all)?;
        let own = position(begin).map_or(at, |own| own.offset);
        outlets.push(Outlet::new(writer, own));
        let (replica, together) = (replica.clone(), strands.len());
        readings.push(Reading { gauge, replica, spool, together, first: n == 0, replid, at: own });
    }
    let parts = strands.iter().filter_map(|s| Some((s.ready.strand.as_ref()?, &s.ready.sites[from].names)));
    let manifold = Manifold::spawn(Setup {
        replica,
        applied,
        spool: reader,
        outlets,
        routes: Routes::new(parts),
        from: at,
        db: position(begin).filter(|_| !cluster).map_or(0, |at| at.db),
        nameless: match Kind::of(*begin) {
            _ if cluster => None,
            Kind::Now => Some(at),
            _ => begins.iter().filter_map(position).filter(|own| own.db == UNKNOWN_DB).map(|own| own.offset).max(),
        },
    });
    Ok((readings, Some(manifold.with(follows))))
}
