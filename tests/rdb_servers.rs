//! What the RDB code makes of a value against what real servers make of it: each type of each server's snapshot is
//! restored, or rebuilt by commands, at other servers and read back.
//!
//! Servers are folders with `bin/up PORT` and `bin/redis-cli` under `$REDIS_SERVERS` (by default `redis-servers` in the
//! user's cache). A handful is used; all of them with `RDB_ALL_SERVERS=1`. Without any the tests say so and pass.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use redis::Value;
use redis_duplex::wire::dialect::Dialect;
use redis_duplex::wire::rdb::commands::{Lost, Rebuild, rebuild};
use redis_duplex::wire::rdb::decode::{Decoder, Element, StreamInfo, decode};
use redis_duplex::wire::rdb::kind::{self, Logical};
use redis_duplex::wire::rdb::payload::{parse_dump, restore_payload};
use redis_duplex::wire::rdb::{Item, KeyEntry, Limits, Reader, StreamId};

const HANDFUL: [&str; 6] = ["redis-5.0", "redis-6.2", "redis-7.0", "redis-7.4", "redis-8.6", "valkey-9.1"];

fn folder() -> PathBuf {
    std::env::var_os("REDIS_SERVERS").map(PathBuf::from).unwrap_or_else(|| {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or(home.join(".cache")).join("redis-servers")
    })
}

fn names() -> Vec<String> {
    let all = std::env::var_os("RDB_ALL_SERVERS").is_some();
    let there = std::fs::read_dir(folder()).into_iter().flatten().flatten();
    let mut names: Vec<String> = there
        .filter(|e| e.path().join("bin/up").exists())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|name| all || HANDFUL.contains(&name.as_str()))
        .collect();
    names.sort();
    if names.is_empty() {
        eprintln!("no servers under {}: nothing was compared", folder().display());
    }
    names
}

struct Server {
    name: String,
    pid: i32,
    port: u16,
    dir: tempfile::TempDir,
    connection: redis::Connection,
    dialect: Dialect,
}

impl Server {
    fn start(name: &str) -> Server {
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let dir = tempfile::tempdir().unwrap();
            let mut up = Process::new(folder().join(name).join("bin/up"));
            up.arg(port.to_string()).env("REDIS_DIR", dir.path());
            if !matches!(name, "redis-5.0" | "redis-6.0" | "redis-6.2") {
                up.args(["--enable-debug-command", "yes"]);
            }
            let output = up.output().unwrap();
            if !output.status.success() {
                continue; // somebody took the port
            }
            let text = String::from_utf8(output.stdout).unwrap();
            let pid = text.split_whitespace().next().unwrap().parse().unwrap();
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
            let connection = client.get_connection_with_timeout(Duration::from_secs(10)).unwrap();
            connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            connection.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut server =
                Server { name: name.to_owned(), pid, port, dir, connection, dialect: Dialect::redis(0, 0) };
            let info: String = server.call(&["INFO", "server"]).map(text_of).unwrap();
            server.dialect = Dialect::from_info(&info).unwrap();
            return server;
        }
        panic!("{name} does not start")
    }

    fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> redis::RedisResult<Value> {
        let mut command = redis::Cmd::new();
        for arg in args {
            command.arg(arg.as_ref());
        }
        command.query(&mut self.connection)
    }

    fn populate(&mut self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/rdb/populate.txt");
        let commands = std::fs::read(path).unwrap();
        let mut cli = Process::new(folder().join(&self.name).join("bin/redis-cli"))
            .args(["-p", &self.port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        cli.stdin.take().unwrap().write_all(&commands).unwrap();
        assert!(cli.wait().unwrap().success());
    }

    fn snapshot(&mut self) -> Vec<KeyEntry> {
        self.call(&["SAVE"]).unwrap();
        entries(std::fs::read(self.dir.path().join("dump.rdb")).unwrap().into())
    }

    fn dump(&mut self, key: &[u8]) -> (u8, Bytes, u16) {
        let payload = match self.call(&[b"DUMP", key]).unwrap() {
            Value::BulkString(payload) => payload,
            other => panic!("{}: DUMP {}: {other:?}", self.name, key.escape_ascii()),
        };
        let (kind, value, version) = parse_dump(&payload).unwrap();
        (kind, Bytes::copy_from_slice(value), version)
    }

    fn logical(&mut self, key: &[u8]) -> Content {
        let (kind, value, _) = self.dump(key);
        Content::of(kind, &value)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while nix::sys::signal::kill(pid, None).is_ok() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

fn text_of(value: Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).unwrap(),
        Value::SimpleString(text) => text,
        Value::VerbatimString { text, .. } => text,
        other => panic!("{other:?}"),
    }
}

fn entries(rdb: Bytes) -> Vec<KeyEntry> {
    let mut reader = Reader::new(Limits::default());
    reader.feed(rdb);
    let mut found = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Key(entry) => found.push(entry),
            Item::End { checksum_ok } => assert_eq!(checksum_ok, Some(true)),
            _ => {}
        }
    }
    assert!(reader.is_done());
    found
}

/// A value without its order where it has none.
#[derive(Debug, PartialEq, Default)]
struct Content {
    text: Vec<u8>,
    items: Vec<Bytes>,
    members: BTreeSet<Bytes>,
    scores: BTreeMap<Bytes, f64>,
    fields: BTreeMap<Bytes, (Bytes, Option<u64>)>,
    entries: Vec<(StreamId, Vec<Bytes>)>,
    stream: StreamInfo,
    groups: BTreeMap<Bytes, Group>,
    produced: usize,
}

#[derive(Debug, PartialEq, Default)]
struct Group {
    last: StreamId,
    read: Option<u64>,
    pending: BTreeMap<StreamId, (u64, u64)>,
    consumers: BTreeMap<Bytes, BTreeSet<StreamId>>,
}

impl Content {
    fn of(kind: u8, value: &Bytes) -> Content {
        let mut content = Content::default();
        let mut at = (Bytes::new(), Bytes::new());
        decode(kind, value, |element| content.add(element, &mut at)).unwrap();
        content
    }

    fn add(&mut self, element: Element, at: &mut (Bytes, Bytes)) {
        let (group, consumer) = at;
        match element {
            Element::Text(text) => self.text.extend_from_slice(&text),
            Element::Item(item) => self.items.push(item),
            Element::Member(member) => assert!(self.members.insert(member)),
            Element::Scored { member, score } => assert_eq!(self.scores.insert(member, score), None),
            Element::Field { field, value, expire_ms } => {
                assert_eq!(self.fields.insert(field, (value, expire_ms)), None);
            }
            Element::Entry { id, fields } => self.entries.push((id, fields)),
            Element::Stream(info) => self.stream = info,
            Element::Group { name, last, entries_read } => {
                self.groups.insert(name.clone(), Group { last, read: entries_read, ..Group::default() });
                *group = name;
            }
            Element::Pending { id, time_ms, count } => {
                self.groups.get_mut(group).unwrap().pending.insert(id, (time_ms, count));
            }
            Element::Consumer { name, .. } => {
                self.groups.get_mut(group).unwrap().consumers.insert(name.clone(), BTreeSet::new());
                *consumer = name;
            }
            Element::Owned(id) => {
                let group = self.groups.get_mut(group).unwrap();
                assert!(group.pending.contains_key(&id));
                group.consumers.get_mut(consumer).unwrap().insert(id);
            }
            Element::Produced { .. } => self.produced += 1,
            _ => {}
        }
    }

    /// Without what one of the two servers cannot know.
    fn fitted(mut self, from: Dialect, to: Dialect, lost: &[Lost]) -> Content {
        let both = |major, minor| from.speaks_redis(major, minor) && to.speaks_redis(major, minor);
        if !both(7, 0) {
            self.stream.history = None;
            self.groups.values_mut().for_each(|g| g.read = None);
        }
        for lost in lost {
            match lost {
                Lost::FieldTtl(_) => self.fields.values_mut().for_each(|(_, ttl)| *ttl = None),
                Lost::Consumers(_) => self.groups.values_mut().for_each(|g| g.consumers.retain(|_, p| !p.is_empty())),
                Lost::ProducerIds(_) => self.produced = 0,
                Lost::Released(_) => {}
            }
        }
        self
    }
}

/// The strings in a reply, however deep.
fn flat(value: Value, out: &mut Vec<Bytes>) {
    match value {
        Value::BulkString(bytes) => out.push(bytes.into()),
        Value::SimpleString(text) => out.push(text.into()),
        Value::Int(n) => out.push(n.to_string().into()),
        Value::Array(values) => values.into_iter().for_each(|v| flat(v, out)),
        Value::Nil => {}
        other => panic!("{other:?}"),
    }
}

fn ask<A: AsRef<[u8]>>(server: &mut Server, args: &[A]) -> Vec<Bytes> {
    let mut out = Vec::new();
    flat(server.call(args).unwrap(), &mut out);
    out
}

/// What clients of the server see, read with the commands of each type.
fn compare_with_replies(server: &mut Server, entry: &KeyEntry) {
    let key: &[u8] = &entry.key;
    let content = Content::of(entry.kind, &entry.value);
    let told = |server: &mut Server, head: &str, tail: &[&str]| {
        let mut args = vec![head.as_bytes(), key];
        args.extend(tail.iter().map(|a| a.as_bytes()));
        ask(server, &args)
    };
    let name = format!("{} {:?} (type {})", server.name, entry.key, entry.kind);
    match kind::logical(entry.kind).unwrap() {
        Logical::String => assert_eq!(told(server, "GET", &[]), [Bytes::from(content.text)], "{name}"),
        Logical::List => assert_eq!(told(server, "LRANGE", &["0", "-1"]), content.items, "{name}"),
        Logical::Set => {
            assert_eq!(told(server, "SMEMBERS", &[]).into_iter().collect::<BTreeSet<_>>(), content.members, "{name}");
        }
        Logical::Zset => {
            let reply = told(server, "ZRANGE", &["0", "-1", "WITHSCORES"]);
            let scores: BTreeMap<_, f64> =
                reply.chunks(2).map(|p| (p[0].clone(), std::str::from_utf8(&p[1]).unwrap().parse().unwrap())).collect();
            assert_eq!(scores, content.scores, "{name}");
        }
        Logical::Hash => {
            let reply = told(server, "HGETALL", &[]);
            assert_eq!(reply.len(), content.fields.len() * 2, "{name}");
            for pair in reply.chunks(2) {
                let (value, expiry) = &content.fields[&pair[0]];
                assert_eq!(value, &pair[1], "{name}");
                if server.dialect.knows_field_ttl() {
                    let field = std::str::from_utf8(&pair[0]).unwrap();
                    let time = told(server, "HPEXPIRETIME", &["FIELDS", "1", field]);
                    let want = expiry.map_or(Bytes::from("-1"), |ms| ms.to_string().into());
                    assert_eq!(time, [want], "{name} {field}");
                }
            }
        }
        Logical::Stream => {
            let mut flat = Vec::new();
            for (id, fields) in &content.entries {
                flat.push(Bytes::from(id.to_string()));
                flat.extend(fields.iter().cloned());
            }
            assert_eq!(told(server, "XRANGE", &["-", "+"]), flat, "{name}");
            assert_eq!(content.stream.length, content.entries.len() as u64, "{name}");
            let info = ask(server, &[&b"XINFO"[..], b"STREAM", key]);
            let at = info.iter().position(|w| w == "last-generated-id").unwrap();
            assert_eq!(info[at + 1], content.stream.last.to_string(), "{name}");
            for (group, want) in &content.groups {
                let pending = ask(server, &[&b"XPENDING"[..], key, group, b"-", b"+", b"100"]);
                let ids: Vec<_> = pending.chunks(4).map(|p| (p[0].clone(), p[1].clone(), p[3].clone())).collect();
                let mut owned = Vec::new();
                for (consumer, ids) in &want.consumers {
                    for id in ids {
                        let count = want.pending[id].1.to_string();
                        owned.push((Bytes::from(id.to_string()), consumer.clone(), Bytes::from(count)));
                    }
                }
                owned.sort();
                assert_eq!(ids, owned, "{name} {group:?}");
            }
        }
        Logical::Module => {}
    }
}

#[test]
fn what_is_decoded_is_what_the_server_says() {
    for name in names() {
        let mut server = Server::start(&name);
        server.populate();
        let entries = server.snapshot();
        assert!(entries.len() > 30);
        for entry in entries.iter().filter(|e| e.db == 0 && kind::logical(e.kind) != Some(Logical::Module)) {
            compare_with_replies(&mut server, entry);
            // The same in a DUMP, and our payload is the server's to the last byte.
            let (kind, value, version) = server.dump(&entry.key);
            assert_eq!(Content::of(kind, &value), Content::of(entry.kind, &entry.value), "{name} {:?}", entry.key);
            assert_eq!(version, server.dialect.rdb_version(), "{name}");
            let mut made = BytesMut::new();
            restore_payload(kind, &value, version, &mut made);
            assert_eq!(server.call(&[b"DUMP", &entry.key[..]]).unwrap(), Value::BulkString(made.to_vec()));
        }
    }
}

/// Every type of every snapshot at every server: restored where the type byte is known, refused where not, and then
/// rebuilt by commands, whole and in parts.
#[test]
fn every_value_arrives_at_every_server() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/rdb");
    let (mut restored, mut rebuilt) = (0, 0);
    let names = names();
    for target in &names {
        let mut server = Server::start(target);
        let to = server.dialect;
        for source in &names {
            let rdb: Bytes = std::fs::read(folder.join(format!("{source}.rdb"))).unwrap().into();
            let from = source_dialect(&rdb);
            for entry in entries(rdb) {
                let what = format!("{source} -> {target}: {:?} (type {})", entry.key, entry.kind);
                let module = kind::logical(entry.kind) == Some(Logical::Module);

                if module && !to.knows_type(entry.kind) {
                    continue; // seen: Redis 5.0 and 6.0 exit when they have not the module
                }
                server.call(&["FLUSHALL"]).unwrap();
                let mut payload = BytesMut::new();
                restore_payload(entry.kind, &entry.value, to.rdb_version(), &mut payload);
                let reply = server.call(&[b"RESTORE", &entry.key[..], b"0", &payload]);
                if module {
                    continue; // only the target knows whether it has the module
                }
                assert_eq!(reply.is_ok(), to.knows_type(entry.kind), "{what}: {reply:?}");
                if reply.is_ok() {
                    let got = server.logical(&entry.key).fitted(from, to, &[]);
                    assert_eq!(got, Content::of(entry.kind, &entry.value).fitted(from, to, &[]), "{what}");
                    restored += 1;
                }
                let mut commands = Vec::new();
                let lost = rebuild(&entry, to, &mut commands).unwrap();
                run(&mut server, &commands, &what);
                let got = server.logical(&entry.key).fitted(from, to, &lost);
                assert_eq!(got, Content::of(entry.kind, &entry.value).fitted(from, to, &lost), "{what}: {commands:?}");
                assert_eq!(
                    server.call(&[b"PTTL", &entry.key[..]]).unwrap() == Value::Int(-1),
                    entry.expire_ms.is_none(),
                    "{what}"
                );
                rebuilt += 1;
            }
        }
    }
    eprintln!("{restored} restored, {rebuilt} rebuilt by commands");
    assert!(names.is_empty() || (restored > 500 && rebuilt > 500));
}

/// Who wrote a snapshot, by its own words.
fn source_dialect(rdb: &Bytes) -> Dialect {
    let mut reader = Reader::new(Limits::default());
    reader.feed(rdb.clone());
    let mut info = String::new();
    while let Ok(Some(Item::Aux { key, value })) = reader.next() {
        let name = if key == "redis-ver" { "redis_version" } else { "valkey_version" };
        if key == "redis-ver" || key == "valkey-ver" {
            info += &format!("{name}:{}\r\n", String::from_utf8_lossy(&value));
        }
    }
    Dialect::from_info(&info).unwrap()
}

fn run(server: &mut Server, commands: &[Vec<Bytes>], what: &str) {
    for command in commands {
        if let Err(error) = server.call(command) {
            panic!("{what}: {command:?}: {error}");
        }
    }
}

/// A value of each collection type, far above the threshold, goes from one server to another in parts.
#[test]
fn big_values_go_in_parts() {
    let names = names();
    let Some((first, last)) = names.first().zip(names.last()) else { return };
    for (source, target) in [(first, last), (last, first)] {
        let (mut source, mut target) = (Server::start(source), Server::start(target));
        let fill = "for i=1,20000 do local v = 'value ' .. i; redis.call('RPUSH', 'list', v); \
                    redis.call('SADD', 'set', v); redis.call('ZADD', 'zset', i / 7, v); \
                    redis.call('HSET', 'hash', 'field' .. i, v); redis.call('XADD', 'stream', i .. '-1', 'f', v); end \
                    redis.call('SET', 'string', string.rep('\\0\\r\\n abc', 200000)) \
                    redis.call('XGROUP', 'CREATE', 'stream', 'g', '0') return 1";
        source.call(&["CONFIG", "SET", "rdbcompression", "no"]).unwrap();
        source.call(&["EVAL", fill, "0"]).unwrap();
        source.call(&["XREADGROUP", "GROUP", "g", "c", "COUNT", "3000", "STREAMS", "stream", ">"]).unwrap();
        source.call(&["PEXPIREAT", "hash", "4102444800000"]).unwrap();
        source.call(&["SAVE"]).unwrap();
        let rdb = Bytes::from(std::fs::read(source.dir.path().join("dump.rdb")).unwrap());

        let mut reader = Reader::new(Limits { big: 50_000, part: 10_000, ..Limits::default() });
        let mut current = None;
        let mut done = 0;
        for chunk in rdb.chunks(16 << 10) {
            reader.feed(rdb.slice_ref(chunk));
            while let Some(item) = reader.next().unwrap() {
                let mut commands = Vec::new();
                match item {
                    Item::BigBegin(entry) => {
                        let rebuild = Rebuild::new(entry.key.clone(), target.dialect);
                        current = Some((Decoder::big(entry.kind).unwrap(), rebuild, entry));
                    }
                    Item::BigPart(part) => {
                        assert!(part.len() < 30_000, "{}", part.len());
                        let (decoder, rebuild, _) = current.as_mut().unwrap();
                        decoder.feed(&part, &mut |element| rebuild.push(element, &mut commands)).unwrap();
                    }
                    Item::BigEnd => {
                        let (decoder, rebuild, entry) = current.take().unwrap();
                        decoder.finish().unwrap();
                        assert_eq!(rebuild.finish(entry.expire_ms, &mut commands), []);
                        done += 1;
                    }
                    Item::Key(entry) => panic!("{:?} came whole", entry.key),
                    _ => {}
                }
                for command in &commands {
                    assert!(command.len() <= 2 * 512 + 12);
                    assert!(command.iter().map(Bytes::len).sum::<usize>() < 300_000);
                }
                run(&mut target, &commands, "big");
            }
        }
        assert_eq!(done, 6);
        for key in ["list", "set", "zset", "hash", "stream", "string"] {
            let (from, to) = (source.dialect, target.dialect);
            let want = source.logical(key.as_bytes()).fitted(from, to, &[]);
            assert!(target.logical(key.as_bytes()).fitted(from, to, &[]) == want, "{key} differs");
        }
        assert_ne!(target.call(&["PTTL", "hash"]).unwrap(), Value::Int(-1));
    }
}
