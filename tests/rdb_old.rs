//! Snapshots of servers from before 5.0, read and written as commands, beside what the servers say of them.
//!
//! `corpus/old` was written by Redis 2.8.17 and 3.2.6, built from their sources and filled by a client with every type and
//! encoding that they have (strings of each integer size, compressed and binary ones; ziplists, intsets, linked lists,
//! quicklists, hash tables and skip lists; expiries; databases 0, 3 and 15) before SAVE. What they held is known by
//! their own DEBUG DIGEST, which is made of keys, types and elements.
//!
//! `corpus/old/public` are files of servers from 2.2 to 4.0 (RDB 2 to 7: zipmaps, ziplists, intsets, quicklists) that parsers
//! of this format have been tested with for years; here they come from the crate `rdb` 0.4.0 (MIT). Who wrote them said nothing
//! of a digest: what the servers of today make of them is what counts.

mod support;

use bytes::{Bytes, BytesMut};
use redis_duplex::wire::dialect::Dialect;
use redis_duplex::wire::rdb::commands::{Rebuild, rebuild};
use redis_duplex::wire::rdb::decode::Decoder;
use redis_duplex::wire::rdb::kind::logical;
use redis_duplex::wire::rdb::payload::restore_payload;
use redis_duplex::wire::rdb::{Item, KeyEntry, Limits, Reader};
use support::{
    load::sized,
    versions::{Slot, speaks},
    *,
};

/// Who wrote the snapshot, how many keys are in its databases, and the writer's DEBUG DIGEST.
const FILES: [(&str, [usize; 3], &str); 2] = [
    ("redis-2.8", [40, 34, 34], "25d93c33134e53ebab39e125c7de00af1bb5e444"),
    ("redis-3.2", [41, 35, 35], "59ded79175c205bc638d4acceeb540895f7ea031"),
];

fn file(name: &str) -> Bytes {
    let path = format!("{}/tests/corpus/old/{name}.rdb", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}")).into()
}

fn entries(rdb: &Bytes) -> Vec<KeyEntry> {
    let mut reader = Reader::new(Limits::default());
    reader.feed(rdb.clone());
    let mut found = Vec::new();
    while let Some(item) = reader.next().expect("it is read") {
        match item {
            Item::Key(entry) => found.push(entry),
            // There was none before RDB 5.
            Item::End { checksum_ok } => assert_eq!(checksum_ok, (rdb[5..9] >= b"0005"[..]).then_some(true)),
            _ => {}
        }
    }
    assert!(reader.is_done());
    found
}

/// How a value gets to a server.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Commands,
    /// As a big value does: the elements of pieces of the snapshot.
    Parts,
    Restore,
}

fn commands(entry: &KeyEntry, target: Dialect, way: Way) -> Vec<Vec<Bytes>> {
    let mut out = Vec::new();
    match way {
        Way::Commands => assert_eq!(rebuild(entry, target, &mut out).expect("it is decoded"), []),
        Way::Parts => {
            // Pieces as the reader hands them out where values are too big to be held.
            let record = [&[entry.kind, 1, b'k'][..], &entry.value, &[0xff]].concat();
            let head = [&b"REDIS0006"[..], &record, &[0; 8]].concat();
            let mut reader = Reader::new(Limits { big: 1, part: 64, ..Limits::default() });
            reader.feed(head.into());
            let mut decoder = Decoder::big(entry.kind).expect("a type of its own");
            let mut making = Rebuild::new(entry.key.clone(), target);
            while let Some(item) = reader.next().expect("it is read") {
                match item {
                    Item::BigPart(part) => {
                        decoder.feed(&part, &mut |element| making.push(element, &mut out)).expect("it is decoded");
                    }
                    // It has no parts.
                    Item::Key(_) => return commands(entry, target, Way::Commands),
                    _ => {}
                }
            }
            decoder.finish().expect("nothing is missing");
            assert_eq!(making.finish(entry.expire_ms, &mut out), []);
        }
        Way::Restore => {
            let mut payload = BytesMut::new();
            restore_payload(entry.kind, &entry.value, target.rdb_version(), &mut payload);
            let at = entry.expire_ms.unwrap_or_default().to_string();
            let words: [&[u8]; 6] = [b"RESTORE", &entry.key, at.as_bytes(), &payload, b"ABSTTL", b"REPLACE"];
            out.push(words.iter().map(|w| Bytes::copy_from_slice(w)).collect());
        }
    }
    out
}

/// Has the server load the file: what it speaks, and the digest of what it makes of it.
fn loaded(server: &mut Server, rdb: &[u8]) -> (Client, Dialect, String) {
    server.kill();
    std::fs::write(server.dir().join("dump.rdb"), rdb).expect("written");
    server.restart();
    let mut c = server.client();
    let dialect = Dialect::from_info(&c.run("INFO").text()).expect("it tells");
    let own = c.run("DEBUG DIGEST").text();
    (c, dialect, own)
}

/// Writes these keys and gives the server's digest then.
fn written(c: &mut Client, entries: &[&KeyEntry], dialect: Dialect, way: Way, name: &str) -> String {
    c.run("FLUSHALL");
    for entry in entries {
        c.run(&format!("SELECT {}", entry.db));
        assert!(logical(entry.kind).is_some(), "{entry:?}");
        if way == Way::Restore {
            assert!(dialect.knows_type(entry.kind), "{entry:?}");
        }
        for command in commands(entry, dialect, way) {
            let command: Vec<Vec<u8>> = command.iter().map(|w| w.to_vec()).collect();
            let reply = c.call(&command);
            assert!(!reply.is_error(), "{name}, {way:?}: {entry:?}: {reply:?}");
        }
    }
    c.run("DEBUG DIGEST").text()
}

#[test]
fn public_files_of_old_servers_arrive_by_each_way() {
    let folder = format!("{}/tests/corpus/old/public", env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("the files")
        .map(|e| e.expect("one of them").file_name().to_string_lossy().trim_end_matches(".rdb").to_owned())
        .collect();
    names.sort();
    assert_eq!(names.len(), 20);
    for slot in sized(vec![Slot::Oldest, Slot::NewestRedis], Slot::ALL.to_vec()) {
        let mut server = Server::start(slot.server(), &[]);
        let (mut kinds, mut versions) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        for name in &names {
            let rdb = file(&format!("public/{name}"));
            versions.insert(String::from_utf8_lossy(&rdb[5..9]).into_owned());
            let (mut c, dialect, own) = loaded(&mut server, &rdb);
            let all = entries(&rdb);
            assert!(!all.is_empty(), "{name}");
            kinds.extend(all.iter().map(|e| e.kind));
            // Those with an expiry have been gone for years.
            let there: Vec<&KeyEntry> = all.iter().filter(|e| e.expire_ms.is_none()).collect();
            let at = format!("{name} at {}", server.name);
            assert_eq!(own == "0".repeat(40), there.is_empty(), "{at}");
            for way in [Way::Commands, Way::Parts, Way::Restore] {
                assert_eq!(written(&mut c, &there, dialect, way, &at), own, "{at}, {way:?}");
            }
        }
        // Strings, sets, sorted sets and hashes; zipmaps (9), ziplists of lists, intsets, ziplists of sorted sets and of
        // hashes, quicklists.
        assert!([0, 2, 9, 10, 11, 12, 13, 14].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
        assert!(["0002", "0003", "0004", "0005", "0006", "0007"].iter().all(|v| versions.contains(*v)), "{versions:?}");
    }
}

#[test]
fn what_servers_before_5_0_saved_arrives_by_each_way() {
    for slot in Slot::ALL {
        let mut server = Server::start(slot.server(), &[]);
        for (name, keys, said) in FILES {
            let rdb = file(name);
            // What the server itself makes of the file.
            let (mut c, dialect, own) = loaded(&mut server, &rdb);
            // Scores are told in fewer digits from 7.2 on.
            if speaks(slot.server()) < (7, 2) {
                assert_eq!(own, said, "{name} at {}", server.name);
            }
            let entries = entries(&rdb);
            let in_db = |db| entries.iter().filter(|e| e.db == db).count();
            assert_eq!([in_db(0), in_db(3), in_db(15)], keys, "{name}");
            let expiries: Vec<(u32, Bytes, i64)> =
                entries.iter().filter_map(|e| Some((e.db, e.key.clone(), e.expire_ms? as i64))).collect();
            assert_eq!(expiries.len(), 9, "{name}");
            for way in [Way::Commands, Way::Parts, Way::Restore] {
                let at = format!("{name} at {}", server.name);
                let all: Vec<&KeyEntry> = entries.iter().collect();
                assert_eq!(written(&mut c, &all, dialect, way, &at), own, "{at}, {way:?}");
                for (db, key, at) in &expiries {
                    c.run(&format!("SELECT {db}"));
                    let left = c.call(&[b"PTTL".to_vec(), key.to_vec()]).int();
                    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
                    let off = (now.as_millis() as i64 + left - at).abs();
                    assert!(off < 10_000, "{name} at {}, {way:?}: {key:?} is {off} ms off", server.name);
                }
            }
        }
    }
}
