//! The RDB reader and decoder over snapshots that real servers wrote (`tests/corpus/rdb`), whole, in pieces, damaged.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use redis_duplex::wire::dialect::Dialect;
use redis_duplex::wire::rdb::commands::rebuild;
use redis_duplex::wire::rdb::decode::{Decoder, Element, decode};
use redis_duplex::wire::rdb::kind::Logical;
use redis_duplex::wire::rdb::payload::parse_dump;
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
                Ok(()) => assert_ne!(kind::logical(entry.kind), Some(Logical::Module)),
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

/// Found by fuzzing: the offset in the error was where the piece began.
#[test]
fn damage_in_a_packed_string_is_told_the_same_whatever_the_pieces() {
    let mut rdb = b"REDIS0009\xfe\x00\x00\x01k".to_vec();
    // Packed: 5,000 bytes that stand for 20,000.
    rdb.extend_from_slice(&[0xc3, 0x40 | (5_000u32 >> 8) as u8, 5_000u32 as u8, 0x80]);
    rdb.extend_from_slice(&20_000u32.to_be_bytes());
    // A byte as it is, then three bytes from ten before it: there are none.
    rdb.extend_from_slice(&[0, b'a', 0x20, 9]);
    rdb.extend_from_slice(&[0; 5_000]);
    let rdb = Bytes::from(rdb);
    let limits = Limits { big: 128, part: 64, ..Limits::default() };
    let error = read(&rdb, usize::MAX, limits).unwrap_err();
    assert!(matches!(error, RdbError::Lzf { .. }), "{error:?}");
    for piece in [1, 2, 3, 7, 64, 1_000] {
        assert_eq!(read(&rdb, piece, limits).unwrap_err(), error, "pieces of {piece}");
    }
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

/// Everything that can be done with a stream, however damaged: it must end, in an error or not, without a panic.
fn use_all(rdb: &Bytes, piece: usize, limits: Limits) -> (Vec<Item>, Option<RdbError>) {
    let mut reader = Reader::new(limits);
    let mut items = Vec::new();
    let mut big: Option<Decoder> = None;
    let mut rest = rdb.clone();
    while !rest.is_empty() {
        reader.feed(rest.split_to(piece.min(rest.len())));
        loop {
            let item = match reader.next() {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(error) => return (items, Some(error)),
            };
            match &item {
                Item::Key(entry) => {
                    let mut commands = Vec::new();
                    let _ = rebuild(entry, Dialect::redis(6, 2), &mut commands);
                }
                Item::BigBegin(entry) => big = Decoder::big(entry.kind).ok(),
                Item::BigPart(part) => {
                    big = big.take().and_then(|mut decoder| decoder.feed(part, &mut |_| {}).is_ok().then_some(decoder));
                }
                Item::BigEnd => drop(big.take().map(Decoder::finish)),
                _ => {}
            }
            items.push(item);
        }
    }
    (items, None)
}

/// Bytes that mean something: length forms, string encodings, opcodes, types.
const TELLING: [u8; 24] = [
    0, 1, 2, 0x3f, 0x40, 0x7f, 0x80, 0x81, 0xbf, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xe0, 0xf0, 0xf4, 0xf5, 0xf7, 0xfa,
    0xfc, 0xfe, 0xff, 26,
];

fn damage(rdb: &Bytes, random: &mut fastrand::Rng) -> Bytes {
    let mut bytes = rdb.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(0..bytes.len());
        match random.u8(0..7) {
            0 => bytes[at] ^= 1 << random.u8(0..8),
            1 => bytes[at] = TELLING[random.usize(0..TELLING.len())],
            2 => bytes[at] = random.u8(..),
            3 => bytes.insert(at, TELLING[random.usize(0..TELLING.len())]),
            4 => drop(bytes.remove(at)),
            5 => bytes.truncate(at.max(1)),
            _ => {
                // A length that nobody has.
                let lie = (1u64 << random.u32(20..64)) - u64::from(random.bool());
                bytes.splice(at..at, [0x81].into_iter().chain(lie.to_be_bytes()));
            }
        }
    }
    bytes.into()
}

#[test]
fn damage_ends_in_an_error_or_in_other_values() {
    let mut random = fastrand::Rng::with_seed(7);
    let corpus = corpus();
    let mut errors = 0;
    let rounds = std::env::var("RDB_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
    for round in 0..rounds {
        let (name, rdb) = &corpus[round % corpus.len()];
        let bad = damage(rdb, &mut random);
        let small = Limits { big: random.usize(0..2000), part: random.usize(1..500), value: 100_000, checksum: true };
        for limits in [Limits::default(), small] {
            let (items, error) = use_all(&bad, usize::MAX, limits);
            errors += usize::from(error.is_some());
            let piece = random.usize(1..3000);
            let (same, as_well) = use_all(&bad, piece, limits);
            // Parts are cut where the pieces end, and damage in the first element above the threshold is found before
            // or after the value was begun: so only what is whole can be compared.
            let whole = |mut items: Vec<Item>| -> Vec<Item> {
                items.retain(|item| !matches!(item, Item::BigPart(_)));
                items.pop_if(|last| error.is_some() && matches!(last, Item::BigBegin(_)));
                items
            };
            let (items, same) = (whole(items), whole(same));
            assert!(items == same, "{name}, round {round}, pieces of {piece}: {error:?} and {as_well:?}");
            assert_eq!(error, as_well, "{name}, round {round}, pieces of {piece}");
        }
    }
    assert!(errors > rounds / 4, "{errors} errors: was anything damaged?");
}

proptest! {
    #[test]
    fn any_bytes_as_a_value_end_well(kind in 0u8..30, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(kind, &Bytes::from(bytes), |_| {});
    }

    #[test]
    fn any_bytes_as_a_blob_end_well(
        kind in prop::sample::select(vec![9u8, 10, 11, 12, 13, 14, 16, 17, 18, 20, 25]),
        mut blob in proptest::collection::vec(any::<u8>(), 11..63),
    ) {
        // With the length in the head right, so that it is looked into.
        let size = (blob.len() as u32).to_le_bytes();
        blob[..4].copy_from_slice(&size);
        if let Some(last) = blob.last_mut() {
            *last = 0xff;
        }
        let mut value = match kind {
            14 => vec![1],
            18 => vec![1, 2],
            25 => vec![0; 8],
            _ => vec![],
        };
        value.push(blob.len() as u8);
        value.extend_from_slice(&blob);
        let _ = decode(kind, &Bytes::from(value), |_| {});
    }

    #[test]
    fn any_bytes_as_a_payload_end_well(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        prop_assert!(parse_dump(&bytes).is_err() || bytes.len() >= 11);
    }

    #[test]
    fn any_bytes_after_a_header_end_well(bytes in proptest::collection::vec(any::<u8>(), 0..400), piece in 1usize..50) {
        let mut rdb = b"REDIS0012".to_vec();
        rdb.extend_from_slice(&bytes);
        use_all(&rdb.into(), piece, Limits { big: 30, part: 10, value: 1000, checksum: true });
    }
}

/// Snapshots that somebody else has: a folder named by `RDB_FIXTURES`, beside our own.
fn with_fixtures() -> Vec<(String, Bytes)> {
    let mut all = corpus();
    if let Some(folder) = std::env::var_os("RDB_FIXTURES") {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|e| e == "rdb") {
                all.push((path.display().to_string(), std::fs::read(path).unwrap().into()));
            }
        }
    }
    all
}

/// The five plain types against another reader's word, in its order.
#[test]
fn another_reader_sees_the_same() {
    for (name, rdb) in with_fixtures() {
        let items = read(&rdb, usize::MAX, Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(!matches!(items.last(), Some(Item::End { checksum_ok: Some(false) })), "{name}");
        let mut ours = items.into_iter().filter_map(|item| match item {
            Item::Key(entry) if !matches!(kind::logical(entry.kind), Some(Logical::Stream | Logical::Module)) => {
                Some(entry)
            }
            _ => None,
        });
        if rdb.starts_with(b"VALKEY") {
            continue; // it does not know them
        }
        let theirs = rdb::RdbDecoder::new(&rdb[..], rdb::Simple::new()).unwrap();
        for value in theirs {
            use rdb::RdbValue as Their;
            let (key, expiry, want) = match value.unwrap_or_else(|e| panic!("{name}: {e:?}")) {
                Their::String { key, value, expiry } => (key, expiry, vec![Element::Text(value.into())]),
                Their::List { key, values, expiry } => {
                    (key, expiry, values.into_iter().map(|v| Element::Item(v.into())).collect())
                }
                Their::Set { key, members, expiry } => {
                    (key, expiry, members.into_iter().map(|m| Element::Member(m.into())).collect())
                }
                Their::SortedSet { key, values, expiry } => {
                    let scored = |(score, member): (f64, Vec<u8>)| Element::Scored { member: member.into(), score };
                    (key, expiry, values.into_iter().map(scored).collect())
                }
                Their::Hash { key, values, expiry } => {
                    let field = |(f, v): (Vec<u8>, Vec<u8>)| Element::Field {
                        field: f.into(),
                        value: v.into(),
                        expire_ms: None,
                    };
                    (key, expiry, values.into_iter().map(field).collect())
                }
                _ => continue,
            };
            let entry = ours.next().unwrap_or_else(|| panic!("{name}: {key:?} is missing"));
            assert_eq!(entry.key, key, "{name}");
            assert_eq!(entry.expire_ms, expiry, "{name}");
            let mut found = elements(&entry);
            for element in &mut found {
                if let Element::Field { expire_ms, .. } = element {
                    *expire_ms = None; // it does not tell
                }
            }
            assert_eq!(found, want, "{name} {:?}", entry.key);
        }
        assert_eq!(ours.next(), None, "{name}");
    }
}
