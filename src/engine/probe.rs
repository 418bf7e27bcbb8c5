//! What an instance says of itself: the wizard's *Authorize and continue*.
//!
//! Only asks; writes nothing to any server.

pub mod info;
pub mod server;

use super::net::{Dialer, NetError, ShardAddress};
use crate::model::{Instance, Topology};
use info::Info;
use server::{Refusal, Server, bytes, int, items, text};
use std::time::{Duration, Instant};

/// The name under which the probe's connections are seen in `CLIENT LIST`.
const CLIENT_NAME: &str = "duplex-probe";

/// PINGs of which the median round trip is taken.
const PINGS: usize = 5;

/// What an instance said of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Probed {
    /// One for each master.
    pub shards: Vec<ProbedShard>,
    pub topology: Topology,
    /// Keys in each database that holds any, by database; summed over the shards.
    pub databases: Vec<(u32, u64)>,
    /// How many databases the server has; `None` where it does not say.
    pub database_count: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProbedShard {
    pub address: String,
    /// `Redis 7.0.15`, `Valkey 9.1.2`.
    pub version: String,
    /// `master` or `replica of <host:port>`.
    pub role: String,
    /// The address from which the server sees us, such as `10.0.0.7:51234`; empty where it does not say.
    pub seen_as: String,
    /// Median of five PINGs, in microseconds.
    pub round_trip_us: u64,
}

/// Dials every shard of `instance` and asks it about itself. Fails with the first shard that can't be talked to.
pub async fn probe(instance: &Instance) -> Result<Probed, NetError> {
    let dialer = Dialer::new(instance, CLIENT_NAME);
    let masters = dialer.masters().await?;
    let mut probed = Probed { topology: instance.topology, ..Probed::default() };
    for (i, ShardAddress { address, .. }) in masters.iter().enumerate() {
        let server = Server::new(dialer.control(address).await?);
        let info = server.info().await.map_err(|e| unanswered(address, "INFO", &e))?;
        probed.shards.push(shard(&server, info).await?);
        for space in &info.keyspace {
            match probed.databases.iter_mut().find(|(db, _)| *db == space.db) {
                Some((_, keys)) => *keys += space.keys,
                None => probed.databases.push((space.db, space.keys)),
            }
        }
        if i == 0 {
            probed.topology = topology(instance, info);
            // SELECT is tried on a connection of its own, which is then dropped.
            let own = Server::new(dialer.control(address).await?);
            probed.database_count = database_count(&own, info).await;
        }
    }
    probed.databases.sort_unstable();
    Ok(probed)
}

async fn shard(server: &Server, info: &Info) -> Result<ProbedShard, NetError> {
    let mut trips = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let start = Instant::now();
        server.ask(&redis::cmd("PING")).await.map_err(|e| unanswered(&server.address, "PING", &e))?;
        trips.push(start.elapsed());
    }
    trips.sort_unstable();
    let round_trip = trips.get(PINGS / 2).copied().unwrap_or(Duration::ZERO);
    Ok(ProbedShard {
        address: server.address.clone(),
        version: info.version(),
        role: match info.master() {
            Some(master) if info.is_replica() => format!("replica of {master}"),
            _ => info.text("role").unwrap_or("unknown").to_owned(),
        },
        seen_as: seen_as(server).await.unwrap_or_default(),
        round_trip_us: u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX),
    })
}

/// The address from which the server sees this connection: `CLIENT INFO` (6.2), else our line of `CLIENT LIST`.
pub async fn seen_as(server: &Server) -> Option<String> {
    let client = |what: &str| {
        let mut cmd = redis::cmd("CLIENT");
        cmd.arg(what);
        cmd
    };
    let field = |line: &str, name: &str| line.split(' ').find_map(|p| p.strip_prefix(name)).map(str::to_owned);
    if let Ok(line) = server.ask(&client("INFO")).await {
        return field(&text(&line)?, "addr=");
    }
    let id = int(&server.ask(&client("ID")).await.ok()?)?;
    let list = text(&server.ask(&client("LIST")).await.ok()?)?;
    let mine = format!("id={id} ");
    list.lines().find(|l| l.starts_with(&mine)).and_then(|l| field(l, "addr="))
}

/// What the server is, where the instance leaves it open.
fn topology(instance: &Instance, info: &Info) -> Topology {
    match instance.topology {
        Topology::Auto if info.is_cluster() => Topology::Cluster,
        Topology::Auto if instance.master_name.is_some() => Topology::Sentinel,
        Topology::Auto => Topology::Standalone,
        told => told,
    }
}

/// How many databases there are: `CONFIG GET databases`, else by trying `SELECT`. Leaves the connection in another
/// database: give it one of its own.
pub async fn database_count(own: &Server, info: &Info) -> Option<u32> {
    if info.is_cluster() && info.dialect.is_none_or(|d| d.version.0 < 9) {
        return Some(1);
    }
    if let Ok(Some(n)) = own.config("databases").await {
        return n.parse().ok();
    }
    // Highest index that can be selected, by bisection; a million is far above what anybody configures.
    let (mut low, mut high) = (0u32, 1 << 20);
    if !selectable(own, 0).await? {
        return None;
    }
    for tried in [15, 16, 255] {
        if selectable(own, tried).await? {
            low = tried;
        } else {
            high = tried;
            break;
        }
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if selectable(own, middle).await? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low + 1)
}

/// Whether a database can be selected; `None` when that can't be told.
pub async fn selectable(own: &Server, db: u32) -> Option<bool> {
    let mut cmd = redis::cmd("SELECT");
    cmd.arg(db);
    match own.ask(&cmd).await {
        Ok(_) => Some(true),
        Err(Refusal::Refused(line)) if line.contains("NOPERM") || line.contains("unknown command") => None,
        Err(Refusal::Refused(_)) => Some(false),
        Err(Refusal::Broken(_)) => None,
    }
}

/// Names of loaded modules: the section of `INFO` (6.0), else `MODULE LIST`.
pub async fn modules(server: &Server, info: &Info) -> Vec<String> {
    if !info.modules.is_empty() || info.dialect.is_some_and(|d| d.speaks_redis(6, 0)) {
        return info.modules.clone();
    }
    let mut cmd = redis::cmd("MODULE");
    cmd.arg("LIST");
    let Ok(list) = server.ask(&cmd).await else { return Vec::new() };
    items(list)
        .into_iter()
        .filter_map(|module| {
            let mut fields = items(module).into_iter();
            while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
                if text(&name).as_deref() == Some("name") {
                    return bytes(value).map(|b| String::from_utf8_lossy(&b).into_owned());
                }
            }
            None
        })
        .collect()
}

/// Names of search indexes; none where the server has no search, or does not tell.
pub async fn search_indexes(server: &Server) -> Vec<String> {
    let Ok(list) = server.ask(&redis::cmd("FT._LIST")).await else { return Vec::new() };
    items(list).into_iter().filter_map(bytes).map(|name| String::from_utf8_lossy(&name).into_owned()).collect()
}

fn unanswered(address: &str, doing: &'static str, refusal: &Refusal) -> NetError {
    match refusal {
        Refusal::Refused(line) => NetError::from_reply(address, doing, line),
        Refusal::Broken(seen) => {
            NetError::Io { address: address.to_owned(), doing: "read an answer", seen: seen.clone() }
        }
    }
}
