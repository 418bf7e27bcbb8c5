//! Where a job's sides are: the shards of each, dialled, and what an engine before us has left there.

use super::client_name;
use crate::engine::apply::control_key::ControlKey;
use crate::engine::core;
use crate::engine::fence::{self, Asked, Left, Look};
use crate::engine::job::JobError;
use crate::engine::link::decide::Ahead;
use crate::engine::net::{ClusterWatch, Control, Dialer, Lineage, NetError, ShardAddress};
use crate::engine::strand::{Names, SlotSet, Strand, StrandId};
use crate::model::job::ReadFrom;
use crate::model::{Job, JobId, Offset, ReplId, Side};
use crate::wire::dialect::Dialect;
use crate::wire::slot::SLOTS;
use futures::future::{try_join, try_join_all};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One master of a side.
pub struct Shard {
    pub control: Control,
    pub address: String,
    pub dialect: Dialect,
    /// Keys in the selected databases when it was dialled.
    pub keys: u64,
    /// Half a round trip.
    pub way_ms: u64,
    pub slots: SlotSet,
    /// The histories of its stream, where it tells them.
    pub lineage: Option<Lineage>,
    /// Not so where a one-way job reads from a replica that its file names.
    pub is_master: bool,
    /// Where its stream ended when the engine before us was shut out.
    pub stream_end: Offset,
    /// From here on it still has its stream, where it tells.
    pub kept_from: Option<Offset>,
    /// Connections of an engine before us have to be shut out first.
    pub not_alone: bool,
    /// What that has left, where slots play no part. `None`: it is not known yet.
    pub left: Option<Left>,
}

impl Shard {
    /// Whether positions in a history of this name are positions in its stream.
    pub fn knows(&self, replid: Option<ReplId>) -> bool {
        replid.zip(self.lineage).is_some_and(|(id, lineage)| lineage.shares(id).is_some())
    }
}

/// One side.
pub struct Place {
    pub dialer: Dialer,
    pub shards: Vec<Shard>,
    pub cluster: bool,
    /// What writes go through, where the job names a proxy.
    pub proxy: Option<String>,
    pub map: Vec<ShardAddress>,
}

impl Place {
    /// Asks the shard that has this slot.
    pub fn control_of(&self, slot: u16) -> Option<Control> {
        self.shards.iter().find(|shard| shard.slots.contains(slot)).map(|shard| shard.control.clone())
    }
}

/// Dials both sides.
pub async fn dial_both(job: &Job, id: &JobId) -> Result<[Place; 2], JobError> {
    let (source, target) = try_join(dial(job, id, Side::Source), dial(job, id, Side::Target)).await?;
    Ok([source, target])
}

async fn dial(job: &Job, id: &JobId, side: Side) -> Result<Place, JobError> {
    let named = Dialer::new(job.instance(side), &client_name(id, "control", None));
    let before = [client_name(id, "apply", None), client_name(id, "replica", None)];
    let names = Names::whole(id.control_key(side.incoming()));
    let (key, notes) = (names.control(None), names.notes());
    let before = before.each_ref().map(String::as_str);
    let asked = Asked { before: &before, db: job.policy.databases.first(), key: &key, notes: &notes };
    // Where there is one address and nobody else to ask, what answers there is all there is: unless it is a cluster's.
    let mut first = match job.instance(side).only_address() {
        Some(address) => Some(fence::look(&named, address, asked).await?),
        None => None,
    };
    let alone = first.as_ref().filter(|look| !look.info.is_cluster());
    let mut map = match alone {
        Some(look) => vec![ShardAddress { address: look.control.address().to_owned(), node_id: None, slots: vec![] }],
        None => {
            first = None;
            named.masters().await?
        }
    };
    let cluster = map.iter().any(|m| !m.slots.is_empty());
    let instance = job.instance(side);
    let hidden = instance.hides_shards();
    if cluster && !hidden {
        // The first that answered may be behind.
        map = ClusterWatch::new(&named).look().await?.shards;
    }
    let shards = match first {
        Some(look) => vec![shard(job, side, &map[0], cluster, look).await?],
        None => {
            let looks = map.iter().map(|m| async {
                if hidden {
                    return hidden_shards(named.control(&m.address).await?, m.address.clone()).await;
                }
                let look = fence::look(&named, &m.address, asked).await?;
                shard(job, side, m, cluster, look).await
            });
            try_join_all(looks).await?
        }
    };
    if cluster {
        let mut covered = SlotSet::none();
        shards.iter().flat_map(|s| s.slots.iter()).for_each(|s| covered.insert(s));
        if let Some(missing) = (0..SLOTS).find(|s| !covered.contains(*s)) {
            return Err(JobError::passing(
                format!("slot {missing} of the {side} has no master"),
                "mend the cluster (redis-cli --cluster fix): its keys can be neither read nor written",
            ));
        }
    }
    let proxy = instance.addresses.first().filter(|_| instance.is_proxied()).cloned();
    Ok(Place { dialer: named, shards, cluster, proxy, map })
}

async fn shard(job: &Job, side: Side, at: &ShardAddress, cluster: bool, look: Look) -> Result<Shard, JobError> {
    let (instance, address) = (job.instance(side), at.address.clone());
    let Look { mut control, info, round_trip: mut best, not_alone, left } = look;
    let Some(dialect) = info.dialect else {
        return Err(JobError::lasting(
            format!("{address} does not tell its version"),
            "let the account run INFO, or name the server itself instead of a proxy",
        ));
    };
    if info.is_cluster() && !cluster {
        return Err(JobError::lasting(
            format!("{address} is part of a cluster, and the job names it otherwise"),
            "set `topology = \"cluster\"` for this instance, or leave it out",
        ));
    }
    let only_read = side == Side::Source && !job.policy.two_way && instance.read_from == ReadFrom::Replica;
    if !info.is_master() && !only_read {
        let what = format!("{address} is a replica");
        return Err(match cluster || instance.may_move() {
            true => JobError::passing(what, "nothing, if a failover is under way: its new master is waited for"),
            false => JobError::lasting(what, "name its master"),
        });
    }
    if info.loading {
        return Err(JobError::passing(format!("{address} is loading its data"), "wait until it has"));
    }
    // Over a line that is long, one more question costs more than the jitter that it would find.
    for _ in 0..3 {
        if best > Duration::from_millis(20) {
            break;
        }
        let asked = Instant::now();
        let _: String = control.ask(&redis::cmd("PING")).await?;
        best = best.min(asked.elapsed());
    }
    let keys = info.keyspace.iter().filter(|k| job.policy.databases.contains(k.db)).map(|k| k.keys).sum();
    let slots = if cluster { SlotSet::of(&at.slots) } else { SlotSet::all() };
    let (lineage, way_ms) = (Lineage::of(&info), best.as_millis() as u64 / 2);
    let is_master = info.is_master();
    let stream_end = info.master_repl_offset.filter(|_| !not_alone).unwrap_or(Offset(0));
    // What PSYNC asks for first is the byte behind a position.
    let kept_from = info.backlog_first.filter(|_| info.backlog_active).map(|first| Offset(first.saturating_sub(1)));
    Ok(Shard {
        control,
        address,
        dialect,
        keys,
        way_ms,
        slots,
        lineage,
        is_master,
        stream_end,
        kept_from,
        not_alone,
        left,
    })
}

/// All that is behind a proxy, as one shard of which little can be asked.
async fn hidden_shards(mut control: Control, address: String) -> Result<Shard, JobError> {
    let asked = Instant::now();
    let _: redis::Value = control.ask(&redis::cmd("PING")).await?;
    let way_ms = asked.elapsed().as_millis() as u64 / 2;
    let dialect = proxied_dialect(&mut control).await?;
    let keys = control.ask::<u64>(&redis::cmd("DBSIZE")).await.unwrap_or(0);
    Ok(Shard {
        control,
        address,
        dialect,
        keys,
        way_ms,
        slots: SlotSet::all(),
        lineage: None,
        is_master: true,
        stream_end: Offset(0),
        kept_from: None,
        not_alone: false,
        left: None,
    })
}

/// What the servers behind a proxy understand, as far as it is told: by INFO, or by a command that came with 7.0.
async fn proxied_dialect(control: &mut Control) -> Result<Dialect, JobError> {
    let refused = |e: &NetError| matches!(e, NetError::Server { .. } | NetError::NoPermission { .. });
    match control.info().await {
        Ok(info) if info.dialect.is_some() => return Ok(info.dialect.unwrap_or(Dialect::redis(5, 0))),
        Err(e) if !refused(&e) => return Err(e.into()),
        _ => {}
    }
    match control.ask::<i64>(redis::cmd("PEXPIRETIME").arg("duplex:probe{a}")).await {
        Ok(_) => Ok(Dialect::redis(7, 0)),
        Err(e) if refused(&e) => Ok(Dialect::redis(5, 0)),
        Err(e) => Err(e.into()),
    }
}

/// Shuts out the engine before us, at all shards of both sides at once.
pub async fn shut_out(places: &mut [Place; 2], id: &JobId, db: u32) -> Result<(), JobError> {
    let before = [client_name(id, "apply", None), client_name(id, "replica", None)];
    let before = before.each_ref().map(String::as_str);
    let waits = Side::BOTH.into_iter().zip(places.iter_mut()).flat_map(|(side, place)| {
        let names = Names::whole(id.control_key(side.incoming()));
        let cluster = place.cluster;
        place.shards.iter_mut().map(move |shard| {
            let names = names.clone();
            async move {
                let (key, notes) = (names.control(None), names.notes());
                let asked = Asked { before: &before, db, key: &key, notes: &notes };
                if cluster {
                    if shard.not_alone {
                        fence::kill_clients(&mut shard.control, &before).await?;
                    }
                } else if shard.left.is_none() {
                    shard.left = Some(fence::shut_out(&mut shard.control, asked).await?);
                }
                if shard.not_alone {
                    let info = shard.control.info().await?;
                    shard.stream_end = info.master_repl_offset.unwrap_or_default();
                }
                Ok::<_, JobError>(())
            }
        })
    });
    try_join_all(waits.collect::<Vec<_>>()).await?;
    Ok(())
}

/// A strand of the job: its shards at both sides, by their places, and its slots.
pub struct Pair {
    pub shards: [usize; 2],
    /// `None`: the job has no cluster.
    pub strand: Option<Arc<Strand>>,
}

/// Takes the job apart.
pub fn pairs(places: &[Place; 2]) -> Vec<Pair> {
    if !places.iter().any(|p| p.cluster) {
        return vec![Pair { shards: [0, 0], strand: None }];
    }
    let mut pairs = Vec::new();
    let mut led = [BTreeSet::new(), BTreeSet::new()];
    for (a, source) in places[0].shards.iter().enumerate() {
        for (b, target) in places[1].shards.iter().enumerate() {
            let slots = source.slots.and(&target.slots);
            if slots.is_empty() {
                continue;
            }
            let mut strand = Strand::new(slots);
            strand.leads = [led[0].insert(a), led[1].insert(b)];
            pairs.push(Pair { shards: [a, b], strand: Some(Arc::new(strand)) });
        }
    }
    pairs
}

/// What was found of an engine before us at a side.
#[derive(Default)]
pub struct Found {
    /// In a cluster: which strand wrote a slot's control key.
    pub owners: HashMap<u16, StrandId>,
    /// In a cluster: a slot's own.
    pub by_slot: HashMap<u16, ControlKey>,
    /// The newest control key of each strand.
    pub newest: HashMap<StrandId, ControlKey>,
    /// What the strands had noted of slots beside open episodes.
    pub noted: HashMap<StrandId, Noted>,
    /// At a standalone side, of a job with two links: all strands that have keys there.
    pub roll: BTreeSet<StrandId>,
    /// That of a job without strands.
    pub whole: Option<ControlKey>,
}

/// What a strand had noted of its slots at a side.
#[derive(Debug, Default, Clone)]
pub struct Noted {
    /// Slots that had had more of the stream that is written here than the strand.
    pub ahead: Ahead,
    /// By side: slots that had come from another shard and were not settled yet.
    pub moved: [SlotSet; 2],
}

impl Found {
    /// The highest epoch of all.
    pub fn epoch(&self) -> u64 {
        self.newest.values().chain(&self.whole).map(|k| k.epoch).max().unwrap_or(0)
    }

    /// This was noted as a strand's newest control key before those of its slots became others': an attach that did not finish
    /// may have written over the one that said it.
    pub(super) fn keep(&mut self, noted: &str, id: StrandId) {
        let named = self.owners.values().any(|owner| *owner == id);
        if let Some(key) = ControlKey::parse(noted.as_bytes()).filter(|_| named) {
            self.note(key, id);
        }
    }

    pub(super) fn note(&mut self, key: ControlKey, id: StrandId) {
        let newest = self.newest.entry(id).or_insert(key);
        if (key.epoch, key.number) > (newest.epoch, newest.number) {
            *newest = key;
        }
    }
}

/// How long the control keys behind a proxy have to stand still, and how often that is looked at.
const AT_REST: Duration = Duration::from_secs(1);
const LOOKS: usize = 20;

/// Reads the control keys of both sides. Behind a proxy the connections of an engine before us can't be ended: what it had
/// sent is waited for.
pub async fn find_at_rest(
    places: &mut [Place; 2],
    id: &JobId,
    db: u32,
    pairs: &[Pair],
    two_way: bool,
) -> Result<[Found; 2], JobError> {
    let mut found = find(places, id, db, pairs, two_way).await?;
    let told = |found: &[Found; 2]| -> Vec<(StrandId, ControlKey)> {
        let mut all: Vec<_> = found.iter().flat_map(|f| f.newest.iter().map(|(id, key)| (*id, *key))).collect();
        all.sort_by_key(|(id, key)| (*id, key.epoch, key.number));
        all
    };
    if places.iter().all(|place| place.proxy.is_none()) || told(&found).is_empty() {
        return Ok(found);
    }
    for _ in 0..LOOKS {
        tokio::time::sleep(AT_REST).await;
        let now = find(places, id, db, pairs, two_way).await?;
        if told(&now) == told(&found) {
            return Ok(now);
        }
        found = now;
    }
    Err(JobError::passing(
        "another engine of this job still writes through the proxy",
        "stop it there; where none runs, it is waited for what the proxy still holds",
    ))
}

/// Reads the control keys of both sides.
pub async fn find(
    places: &mut [Place; 2],
    id: &JobId,
    db: u32,
    pairs: &[Pair],
    two_way: bool,
) -> Result<[Found; 2], JobError> {
    let base = |side: Side| id.control_key(side.incoming());
    let mut found = [Found::default(), Found::default()];
    if let [Pair { strand: None, .. }] = pairs {
        for side in Side::BOTH {
            found[side.index()].whole = places[side.index()].shards[0].left.as_ref().and_then(|left| left.key);
        }
        return Ok(found);
    }
    let any = Arc::new(Strand::new(SlotSet::all()));
    let clusters = [places[0].cluster, places[1].cluster];
    let mut known: BTreeSet<StrandId> = pairs.iter().filter_map(|p| p.strand.as_ref().map(|s| s.id)).collect();
    for side in Side::BOTH.into_iter().filter(|s| clusters[s.index()]) {
        let names = Names::of(base(side), any.clone(), true);
        let reads = places[side.index()].shards.iter_mut().map(|shard| {
            let slots = shard.slots.clone();
            let (control, names) = (&mut shard.control, &names);
            async move { fence::read_slots(control, names, slots.iter()).await }
        });
        let read = try_join_all(reads).await?;
        let unread = || read.iter().flat_map(|(_, unread)| unread);
        // A slot that moves is looked after sooner than a cluster that is down.
        if let Some((_, error)) = unread().find(|(_, error)| !error.is_redirection()) {
            return Err(error.clone().into());
        }
        if let Some((slot, _)) = unread().next() {
            return Err(JobError::moving(
                format!("slot {slot} of the {side} is on its way to another shard just now"),
                "nothing: it is waited for, since it takes along how far it is",
            ));
        }
        for (slot, key) in read.into_iter().flat_map(|(found, _)| found) {
            let Some(id) = key.strand else { continue };
            found[side.index()].owners.insert(slot, id);
            found[side.index()].by_slot.insert(slot, key);
            found[side.index()].note(key, id);
            known.insert(id);
        }
    }
    for side in Side::BOTH.into_iter().filter(|s| !clusters[s.index()]) {
        let names = Names::of(base(side), any.clone(), false);
        if two_way {
            let control = &mut places[side.index()].shards[0].control;
            found[side.index()].roll = fence::read_roll(control, db, &names).await?;
        }
        for id in &known {
            let control = &mut places[side.index()].shards[0].control;
            let name = names.of_sibling(*id).control(None);
            if let Some(key) = fence::read_control_key(control, db, &name).await? {
                found[side.index()].note(key, *id);
            }
        }
    }
    for side in Side::BOTH {
        let (place, found) = (&mut places[side.index()], &mut found[side.index()]);
        let names = Names::of(base(side), any.clone(), place.cluster);
        for id in &known {
            let Some(shard) = place.shards.iter_mut().find(|s| s.slots.contains(id.home)) else { continue };
            let notes = names.of_sibling(*id).notes();
            let fields = [
                core::ahead_field(*id),
                core::moved_field(Side::Source, *id),
                core::moved_field(Side::Target, *id),
                core::newest_field(*id),
            ];
            let fields = fields.each_ref().map(String::as_str);
            let [ahead, source, target, newest] =
                fence::read_fields(&mut shard.control, db, &notes, fields).await?.map(Option::unwrap_or_default);
            found.keep(&newest, *id);
            let moved = [source, target].map(|text| text.parse().unwrap_or_default());
            found.noted.insert(*id, Noted { ahead: Ahead::from_text(&ahead), moved });
        }
    }
    Ok(found)
}
