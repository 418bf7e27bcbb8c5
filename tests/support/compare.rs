//! Reads two servers key by key, in all databases, and says what differs: type, value, expiry, the expiry of hash
//! fields, a stream's groups. Values are read with the type's own commands, since DUMP differs between versions.
//! Control keys (`duplex:`) are left out.

use super::{
    resp::{Argv, Client, Reply, show},
    server::{Server, field},
    versions::speaks,
    wait::wait_for,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hasher},
    time::Duration,
};

/// A key as it stands: enough to compare it and to print it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: String,
    hash: u64,
    shown: String,
    /// Milliseconds since the epoch; `None` where the key doesn't expire.
    pub expires: Option<i64>,
    /// How exact `expires` is, in milliseconds.
    tolerance: i64,
}

/// All keys of a server by database and name.
pub type Keyspace = BTreeMap<(u32, Vec<u8>), Entry>;

const CHUNK: usize = 500;

/// How closely to look: what one server doesn't know, the other is not asked about.
#[derive(Debug, Clone, Copy)]
pub struct Level {
    speaks: (u32, u32),
    field_expiry: bool,
}

impl Level {
    /// All that this server knows.
    #[track_caller]
    pub fn of(server: &Server) -> Level {
        let info = server.client().call(&["COMMAND", "INFO", "HPEXPIRETIME"]);
        Level { speaks: speaks(&server.name), field_expiry: matches!(info.items(), [Reply::Array(_)]) }
    }

    /// What both know.
    pub fn and(self, other: Level) -> Level {
        Level { speaks: self.speaks.min(other.speaks), field_expiry: self.field_expiry && other.field_expiry }
    }
}

/// What to ask a server about expiry and streams.
struct Skills {
    pexpiretime: bool,
    level: Level,
}

/// Reads everything a server holds, but the control keys.
#[track_caller]
pub fn keyspace(server: &Server) -> Keyspace {
    read(server, Level::of(server), &|key| !key.starts_with(b"duplex:"))
}

/// Reads the keys that `wanted` lets pass.
#[track_caller]
pub fn read(server: &Server, level: Level, wanted: &dyn Fn(&[u8]) -> bool) -> Keyspace {
    let mut client = server.client();
    let skills = Skills { pexpiretime: speaks(&server.name) >= (7, 0), level };
    let mut out = Keyspace::new();
    let info = client.run("INFO keyspace").text();
    let dbs = info.lines().filter_map(|l| l.strip_prefix("db")?.split_once(':')?.0.parse().ok());
    for db in dbs.collect::<Vec<u32>>() {
        client.run(&format!("SELECT {db}"));
        let mut names = BTreeSet::new();
        let mut cursor = b"0".to_vec();
        loop {
            let page = client.call(&[b"SCAN".to_vec(), cursor, b"COUNT".to_vec(), b"2000".to_vec()]);
            names.extend(page.items()[1].items().iter().map(Reply::bytes).filter(|k| wanted(k)));
            cursor = page.items()[0].bytes();
            if cursor == b"0" {
                break;
            }
        }
        let names: Vec<Vec<u8>> = names.into_iter().collect();
        for chunk in names.chunks(CHUNK) {
            for (name, entry) in chunk.iter().zip(entries(&mut client, chunk, &skills)) {
                out.extend(entry.map(|e| ((db, name.clone()), e)));
            }
        }
    }
    out
}

fn argv(parts: &[&[u8]]) -> Argv {
    parts.iter().map(|p| p.to_vec()).collect()
}

/// `None` for a key that is gone by now.
fn entries(client: &mut Client, names: &[Vec<u8>], skills: &Skills) -> Vec<Option<Entry>> {
    let expiry: &[u8] = if skills.pexpiretime { b"PEXPIRETIME" } else { b"PTTL" };
    let now = unix_ms(client);
    let heads =
        client.pipeline(&names.iter().flat_map(|k| [argv(&[b"TYPE", k]), argv(&[expiry, k])]).collect::<Vec<_>>());
    let kinds: Vec<String> = heads.iter().step_by(2).map(Reply::text).collect();
    let values = client.pipeline(&names.iter().zip(&kinds).map(|(k, kind)| value_command(k, kind)).collect::<Vec<_>>());
    let mut out = Vec::new();
    for (i, (name, kind)) in names.iter().zip(kinds).enumerate() {
        if kind == "none" {
            out.push(None);
            continue;
        }
        let expires = match heads[2 * i + 1].int() {
            ..0 => None,
            at if skills.pexpiretime => Some(at),
            left => Some(now + left),
        };
        let canonical = canonical(client, name, &kind, &values[i], skills);
        let mut hasher = DefaultHasher::new();
        hasher.write(&canonical);
        let tolerance = if skills.pexpiretime { 0 } else { 1_000 };
        out.push(Some(Entry { kind, hash: hasher.finish(), shown: show(&canonical), expires, tolerance }));
    }
    out
}

fn unix_ms(client: &mut Client) -> i64 {
    let time = client.run("TIME");
    time.items()[0].int() * 1000 + time.items()[1].int() / 1000
}

fn value_command(key: &[u8], kind: &str) -> Argv {
    match kind {
        "string" => argv(&[b"GET", key]),
        "list" => argv(&[b"LRANGE", key, b"0", b"-1"]),
        "set" => argv(&[b"SMEMBERS", key]),
        "hash" => argv(&[b"HGETALL", key]),
        "zset" => argv(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]),
        "stream" => argv(&[b"XRANGE", key, b"-", b"+"]),
        "none" => argv(&[b"EXISTS", key]),
        "vectorset" => argv(&[b"VRANDMEMBER", key, b"1000000"]),
        // A type that only some servers have: its serialized form, which two servers of one version share.
        _ => argv(&[b"DUMP", key]),
    }
}

/// A value in an order and a form that don't depend on how a server stores it.
fn canonical(client: &mut Client, key: &[u8], kind: &str, value: &Reply, skills: &Skills) -> Vec<u8> {
    // Between TYPE and here the key may have gone or changed its type: a difference that the next look settles.
    if value.is_error() || *value == Reply::Nil {
        return format!("changed while read: {value:?}").into_bytes();
    }
    let mut parts: Vec<Vec<u8>> = match kind {
        "list" => value.items().iter().map(Reply::bytes).collect(),
        "set" => {
            let mut members: Vec<_> = value.items().iter().map(Reply::bytes).collect();
            members.sort();
            members
        }
        "hash" => {
            let mut fields: Vec<_> = value.items().chunks(2).map(|f| (f[0].bytes(), f[1].bytes())).collect();
            fields.sort();
            let mut out: Vec<Vec<u8>> = fields.iter().flat_map(|(f, v)| [f.clone(), v.clone()]).collect();
            if skills.level.field_expiry && !fields.is_empty() {
                let mut ask = argv(&[b"HPEXPIRETIME", key, b"FIELDS", fields.len().to_string().as_bytes()]);
                ask.extend(fields.iter().map(|(f, _)| f.clone()));
                let times = client.call(&ask);
                if let Reply::Array(times) = &times
                    && times.iter().any(|t| t.int() >= 0)
                {
                    out.extend(times.iter().map(|t| format!("expires {}", t.int()).into_bytes()));
                }
            }
            out
        }
        "zset" => {
            let score = |r: &Reply| r.text().parse::<f64>().map_or_else(|_| r.bytes(), |f| format!("{f}").into_bytes());
            value.items().chunks(2).flat_map(|m| [m[0].bytes(), score(&m[1])]).collect()
        }
        "stream" => {
            let mut out = vec![format!("{value:?}").into_bytes()];
            out.extend(stream_state(client, key, skills.level));
            out
        }
        "vectorset" => {
            // The graph between the elements is drawn anew at each server; elements, vectors and attributes are not.
            let mut elements: Vec<_> = value.items().iter().map(Reply::bytes).collect();
            elements.sort();
            let vector = |client: &mut Client, e: &[u8]| {
                let parts = [argv(&[b"VEMB", key, e]), argv(&[b"VGETATTR", key, e])];
                format!("{:?}", client.pipeline(&parts)).into_bytes()
            };
            elements.into_iter().flat_map(|e| [vector(client, &e), e]).collect()
        }
        _ => vec![value.bytes()],
    };
    if parts.len() == 1 && kind != "list" {
        return parts.remove(0);
    }
    // Joined with lengths, so that no two values share a form.
    parts.iter().flat_map(|p| [format!("{}:", p.len()).as_bytes(), p, b" "].concat()).collect()
}

/// What a stream holds beside its entries: last id, groups, consumers, pending entries. Idle times are left out, and
/// before 7.0 consumers that have nothing pending, since those servers don't tell their replicas of them.
fn stream_state(client: &mut Client, key: &[u8], level: Level) -> Vec<Vec<u8>> {
    let pairs = |r: &Reply, wanted: &[&str]| -> String {
        r.items()
            .chunks(2)
            .filter(|p| p.len() == 2 && wanted.contains(&p[0].text().as_str()))
            .map(|p| format!("{}={:?} ", p[0].text(), p[1]))
            .collect()
    };
    let info = client.call(&argv(&[b"XINFO", b"STREAM", key]));
    if info.is_error() {
        return vec![b"gone".to_vec()];
    }
    let mut fields = vec!["length", "last-generated-id"];
    if level.speaks >= (7, 0) {
        fields.extend(["max-deleted-entry-id", "entries-added"]);
    }
    if level.speaks >= (8, 6) {
        fields.extend(["idmp-duration", "idmp-maxsize", "iids-tracked"]);
    }
    let mut out = vec![pairs(&info, &fields).into_bytes()];
    let groups = client.call(&argv(&[b"XINFO", b"GROUPS", key]));
    if groups.is_error() {
        return out;
    }
    for group in groups.items() {
        out.push(pairs(group, &["name", "pending", "last-delivered-id"]).into_bytes());
        let name = group.items()[1].bytes();
        let pending = client.call(&argv(&[b"XPENDING", key, &name, b"-", b"+", b"100000"]));
        if let Reply::Array(pending) = pending {
            out.extend(pending.iter().map(|p| {
                let p = p.items();
                format!("{:?} {:?} delivered {:?}", p[0], p[1], p[3]).into_bytes()
            }));
        }
        let consumers = client.call(&argv(&[b"XINFO", b"CONSUMERS", key, &name]));
        if let Reply::Array(consumers) = consumers {
            let told = |c: &&Reply| level.speaks >= (7, 0) || !pairs(c, &["pending"]).contains("=0 ");
            let mut names: Vec<_> =
                consumers.iter().filter(told).map(|c| pairs(c, &["name", "pending"]).into_bytes()).collect();
            names.sort();
            out.extend(names);
        }
    }
    out
}

/// Whether two entries stand for the same state.
fn same(a: &Entry, b: &Entry) -> bool {
    let expiry = match (a.expires, b.expires) {
        (None, None) => true,
        (Some(x), Some(y)) => (x - y).abs() <= a.tolerance.max(b.tolerance),
        _ => false,
    };
    a.kind == b.kind && a.hash == b.hash && expiry
}

/// What differs between two keyspaces, in words, one line a key.
pub fn differences(a: &Keyspace, b: &Keyspace) -> Vec<String> {
    let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let line = |e: Option<&Entry>| match e {
        None => "nothing".to_owned(),
        Some(e) => format!("{} {} expires {:?}", e.kind, e.shown, e.expires),
    };
    keys.into_iter()
        .filter(|k| match (a.get(*k), b.get(*k)) {
            (Some(x), Some(y)) => !same(x, y),
            _ => true,
        })
        .map(|k| format!("db{} {}: {} | {}", k.0, show(&k.1), line(a.get(k)), line(b.get(k))))
        .collect()
}

/// Waits until two servers hold the same; after `limit` it panics with what differs. Returns what they hold.
#[track_caller]
pub fn assert_equal_within(a: &Server, b: &Server, limit: Duration) -> Keyspace {
    let level = Level::of(a).and(Level::of(b));
    wait_for(&format!("{} and {} hold the same", a.name, b.name), limit, || {
        let data = |key: &[u8]| !key.starts_with(b"duplex:");
        let (left, right) = (read(a, level, &data), read(b, level, &data));
        let different = differences(&left, &right);
        if different.is_empty() {
            return Ok(left);
        }
        let (n, all) = (different.len(), left.len().max(right.len()));
        Err(format!("{n} of {all} keys differ, the first of them:\n{}", different[..n.min(40)].join("\n")))
    })
}

/// The control keys a server holds, in all databases.
#[track_caller]
pub fn control_keys(server: &Server) -> Vec<String> {
    read(server, Level::of(server), &|key| key.starts_with(b"duplex:"))
        .keys()
        .map(|(db, k)| format!("db{db} {}", show(k)))
        .collect()
}

/// Keys in all databases together, control keys included; cheap.
#[track_caller]
pub fn key_count(server: &Server) -> u64 {
    let info = server.client().run("INFO keyspace").text();
    let counts = info.lines().filter(|l| l.starts_with("db"));
    counts.filter_map(|l| l.split("keys=").nth(1)?.split(',').next()?.parse::<u64>().ok()).sum()
}

/// A field of `INFO` as a number.
#[track_caller]
pub fn info_number(server: &Server, name: &str) -> u64 {
    let info = server.client().run("INFO").text();
    field(&info, name).and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no number {name} in INFO"))
}

/// How often a server has run a command.
#[track_caller]
pub fn calls(server: &Server, command: &str) -> u64 {
    let stats = server.client().run("INFO commandstats").text();
    let line = field(&stats, &format!("cmdstat_{command}"));
    line.and_then(|l| l.strip_prefix("calls=")?.split(',').next()?.parse().ok()).unwrap_or(0)
}
