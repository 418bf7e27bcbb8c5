//! The RDB reader and decoder over snapshots that real servers wrote (`tests/corpus/rdb`), whole, in pieces, damaged.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use redis_duplex::wire::rdb::decode::{Decoder, Element, decode};
use redis_duplex::wire::rdb::{Item, KeyEntry, Limits, RdbError, Reader, kind};

fn corpus() -> Vec<(String, Bytes)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/rdb");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "rdb"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap().into()))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "the corpus is not there");
    files
}

fn read(rdb: &Bytes, piece: usize, limits: Limits) -> Result<Vec<Item>, RdbError> {
    let mut reader = Reader::new(limits);
    let mut items = Vec::new();
    let mut at = 0;
    while at < rdb.len() {
        let end = rdb.len().min(at + piece);
        reader.feed(rdb.slice(at..end));
        at = end;
        while let Some(item) = reader.next()? {
            items.push(item);
        }
    }
    if !reader.is_done() {
        return Err(RdbError::Short { offset: reader.offset(), expected: "the end" });
    }
    assert_eq!(reader.offset(), rdb.len() as u64);
    Ok(items)
}

fn keys(items: Vec<Item>) -> BTreeMap<(u32, Bytes), KeyEntry> {
    items
        .into_iter()
        .filter_map(|item| match item {
            Item::Key(entry) => Some(((entry.db, entry.key.clone()), entry)),
            _ => None,
        })
        .collect()
}

fn elements(entry: &KeyEntry) -> Vec<Element> {
    let mut found = Vec::new();
    decode(entry.kind, &entry.value, |element| found.push(element)).unwrap();
    found
}

#[test]
fn every_snapshot_is_read_to_its_end() {
    for (name, rdb) in corpus() {
        let items = read(&rdb, usize::MAX, Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(items.last(), Some(&Item::End { checksum_ok: Some(true) }), "{name}");
        assert!(
            items.iter().any(|item| matches!(item, Item::Aux { key, .. } if key == "redis-ver" || key == "valkey-ver"))
        );
        let keys = keys(items);
        assert!(keys.len() > 30, "{name}: {}", keys.len());
        assert_eq!(keys[&(3, Bytes::from("other:db"))].value, Bytes::from("\x08in three"));
        assert_eq!(keys[&(0, Bytes::from("expiring"))].expire_ms, Some(4_102_444_800_000), "{name}");
        for entry in keys.values() {
            match decode(entry.kind, &entry.value, |_| {}) {
                Ok(()) => assert_ne!(kind::logical(entry.kind), Some(kind::Logical::Module)),
                Err(RdbError::Opaque { kind: kind::MODULE_2 }) => {}
                Err(error) => panic!("{name} {:?}: {error}", entry.key),
            }
        }
    }
}

#[test]
fn the_size_of_the_pieces_makes_no_difference() {
    for (name, rdb) in corpus() {
        let whole = read(&rdb, usize::MAX, Limits::default()).unwrap();
        for piece in [1, 2, 3, 7, 64, 1000, 4096, 8000] {
            assert_eq!(read(&rdb, piece, Limits::default()).unwrap(), whole, "{name} in pieces of {piece}");
        }
    }
}

/// Values cut into parts give the same elements as the whole ones.
#[test]
fn parts_hold_what_the_whole_holds() {
    for (name, rdb) in corpus() {
        let whole = keys(read(&rdb, usize::MAX, Limits::default()).unwrap());
        for (piece, big, part) in [(1, 0, 1), (7, 20, 30), (1000, 100, 64), (usize::MAX, 100, 1000), (4096, 300, 1)] {
            let items = read(&rdb, piece, Limits { big, part, ..Limits::default() }).unwrap();
            let mut current: Option<(KeyEntry, Decoder, Vec<Element>)> = None;
            let (mut bigs, mut seen) = (0, 0);
            for item in items {
                match item {
                    Item::Key(entry) => {
                        assert_eq!(entry, whole[&(entry.db, entry.key.clone())], "{name}");
                        seen += 1;
                    }
                    Item::BigBegin(entry) => {
                        let decoder = Decoder::big(entry.kind).unwrap();
                        current = Some((entry, decoder, Vec::new()));
                    }
                    Item::BigPart(bytes) => {
                        let (_, decoder, found) = current.as_mut().unwrap();
                        decoder.feed(&bytes, &mut |e| found.push(e)).unwrap();
                    }
                    Item::BigEnd => {
                        let (entry, decoder, mut found) = current.take().unwrap();
                        decoder.finish().unwrap();
                        let want = &whole[&(entry.db, entry.key.clone())];
                        if entry.kind == kind::STRING {
                            let text: Vec<u8> = found
                                .iter()
                                .flat_map(|e| if let Element::Text(t) = e { t.to_vec() } else { panic!() })
                                .collect();
                            found = vec![Element::Text(text.into())];
                        }
                        assert_eq!(found, elements(want), "{name} {:?}", entry.key);
                        assert_eq!(KeyEntry { value: want.value.clone(), ..entry }, *want);
                        bigs += 1;
                        seen += 1;
                    }
                    _ => {}
                }
            }
            assert_eq!(seen, whole.len(), "{name}");
            assert!(bigs > 3, "{name} in pieces of {piece}: {bigs} in parts");
        }
    }
}

#[test]
fn a_wrong_checksum_is_said_and_can_be_ignored() {
    let (_, rdb) = corpus().remove(0);
    let mut bad = rdb.to_vec();
    let at = bad.len() - 1;
    bad[at] ^= 1;
    let bad = Bytes::from(bad);
    let last = |limits| read(&bad, 100, limits).unwrap().pop();
    assert_eq!(last(Limits::default()), Some(Item::End { checksum_ok: Some(false) }));
    assert_eq!(last(Limits { checksum: false, ..Limits::default() }), Some(Item::End { checksum_ok: None }));
}

#[test]
fn what_follows_the_snapshot_is_left_alone() {
    let (_, rdb) = corpus().remove(0);
    let mut bytes = rdb.to_vec();
    bytes.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
    for piece in [1, 10, 1000, usize::MAX] {
        let bytes = Bytes::from(bytes.clone());
        let mut reader = Reader::new(Limits::default());
        let mut rest = Vec::new();
        for chunk in bytes.chunks(piece.min(bytes.len())) {
            if reader.is_done() {
                rest.extend_from_slice(chunk);
                continue;
            }
            reader.feed(bytes.slice_ref(chunk));
            while reader.next().unwrap().is_some() {}
            if reader.is_done() {
                reader.take_rest().iter().for_each(|b| rest.extend_from_slice(b));
            }
        }
        assert_eq!(rest, b"*1\r\n$4\r\nPING\r\n");
    }
}
