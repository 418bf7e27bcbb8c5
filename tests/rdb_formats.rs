//! Records that no server at hand writes, or that a snapshot seldom has, byte by byte.

use bytes::{BufMut, Bytes, BytesMut};
use redis_duplex::wire::rdb::decode::{Decoder, Element, StreamInfo, decode};
use redis_duplex::wire::rdb::{Family, Item, KeyEntry, Limits, RdbError, Reader, StreamId, kind};

fn stream(magic: &str, records: &[&[u8]]) -> Bytes {
    let mut rdb = BytesMut::from(magic.as_bytes());
    records.iter().for_each(|r| rdb.put_slice(r));
    rdb.put_u8(0xff);
    if magic != "REDIS0004" {
        rdb.put_u64_le(0);
    }
    rdb.freeze()
}

fn read(magic: &str, records: &[&[u8]]) -> Result<Vec<Item>, RdbError> {
    let mut reader = Reader::new(Limits::default());
    reader.feed(stream(magic, records));
    let mut items = Vec::new();
    while let Some(item) = reader.next()? {
        items.push(item);
    }
    assert!(reader.is_done());
    assert_eq!(items.pop(), Some(Item::End { checksum_ok: None }));
    Ok(items)
}

fn key(magic: &str, record: &[u8]) -> KeyEntry {
    match read(magic, &[record]).unwrap().remove(0) {
        Item::Key(entry) => entry,
        other => panic!("{other:?}"),
    }
}

fn elements(entry: &KeyEntry) -> Vec<Element> {
    let mut found = Vec::new();
    decode(entry.kind, &entry.value, |e| found.push(e)).unwrap();
    found
}

fn b(text: &'static str) -> Bytes {
    Bytes::from(text)
}

fn field(field: &'static str, value: &'static str, expire_ms: Option<u64>) -> Element {
    Element::Field { field: b(field), value: b(value), expire_ms }
}

#[test]
fn plain_collections_of_the_first_versions() {
    let list = key("REDIS0001", b"\x01\x01k\x02\x01a\xc0\x07");
    assert_eq!(elements(&list), [Element::Item(b("a")), Element::Item(b("7"))]);
    let zset = key("REDIS0002", b"\x03\x01k\x03\x01a\x041e-3\x01b\xfe\x01c\xff");
    let scored = |member, score| Element::Scored { member: b(member), score };
    assert_eq!(elements(&zset), [scored("a", 0.001), scored("b", f64::INFINITY), scored("c", f64::NEG_INFINITY)]);
    let hash = key("REDIS0003", b"\x04\x01k\x01\x01f\x01v");
    assert_eq!(elements(&hash), [field("f", "v", None)]);
    let zipmap = key("REDIS0002", b"\x09\x01k\x0e\x02\x01a\x01\x001\x01b\x01\x022..\xff");
    assert_eq!(elements(&zipmap), [field("a", "1", None), field("b", "2", None)]);
    let nan = key("REDIS0004", b"\x03\x01k\x01\x01a\xfd");
    assert!(decode(nan.kind, &nan.value, |_| {}).is_err());
}

#[test]
fn expiry_in_seconds_and_what_else_stands_before_a_key() {
    let items = read(
        "REDIS0009",
        &[b"\xfe\x02", b"\xfb\x0a\x05", b"\xfd\x10\x00\x00\x00\xf8\x41\x00\x00\x01k\x01v", b"\xf9\x07\x00\x01l\x01v"],
    );
    let entry = |key, expire_ms, idle, freq| {
        Item::Key(KeyEntry { db: 2, key: b(key), kind: 0, value: b("\x01v"), expire_ms, idle, freq })
    };
    let want = [
        Item::Db(2),
        Item::Resize { keys: 10, expires: 5 },
        entry("k", Some(16_000), Some(256), None),
        entry("l", None, None, Some(7)),
    ];
    assert_eq!(items.unwrap(), want, "the second key has nothing of the first");
}

#[test]
fn opcodes_beside_the_keys() {
    let items = read(
        "REDIS0013",
        &[
            b"\xf5\x04code",
            b"\xf7\x05\x02\x01\x05\x03abc\x03\0\0\0\0\x04\0\0\0\0\0\0\0\0\x00",
            b"\xf4\x01\x02\x00",
            b"\xf3\x01abcd\x02\x2a\x00",
            b"\x00\x01k\x01v",
        ],
    )
    .unwrap();
    assert_eq!(items[0], Item::Function(b("code")));
    assert!(matches!(&items[1], Item::ModuleAux(raw) if raw.len() == 23), "{:?}", items[1]);
    assert!(matches!(&items[2], Item::KeyMeta(raw) if raw.len() == 8), "{:?}", items[2]);
    assert!(matches!(&items[3], Item::Key(_)));
    // The same byte means something else to Valkey.
    let items = read("VALKEY080", &[b"\xf3\x03job\x01\x00\x44\x00"]).unwrap();
    assert!(matches!(&items[0], Item::SlotImport(raw) if raw.len() == 8), "{items:?}");
}

#[test]
fn a_type_byte_that_two_families_use() {
    let valkey =
        key("VALKEY080", b"\x16\x01k\x02\x01a\x011\xff\xff\xff\xff\xff\xff\xff\xff\x01b\x012\x05\0\0\0\0\0\0\0");
    assert_eq!((valkey.kind, elements(&valkey)), (kind::HASH_2, vec![field("a", "1", None), field("b", "2", Some(5))]));
    let redis = key("REDIS0012", b"\x16\x01k\x02\x00\x01a\x011\x05\x01b\x012");
    assert_eq!(redis.kind, kind::HASH_METADATA_PRE_GA, "never to be taken for Valkey's");
    assert_eq!(elements(&redis), [field("a", "1", None), field("b", "2", Some(5))]);
    let redis = key("REDIS0012", b"\x18\x01k\x64\0\0\0\0\0\0\0\x02\x00\x01a\x011\x06\x01b\x012");
    assert_eq!(elements(&redis), [field("a", "1", None), field("b", "2", Some(105))]);
}

/// A stream of Redis 8.8: what 8.6 writes, and entries released by their consumer.
#[test]
fn a_stream_with_released_entries() {
    let mut record = b"\x1b\x01s\x00".to_vec(); // no nodes
    record.extend_from_slice(b"\x00\x05\x01\x00\x00\x05\x01\x02"); // length, last 5-1, first 0-0, deleted 5-1, added
    record.extend_from_slice(b"\x01\x01g\x05\x01\x02"); // one group, last 5-1, 2 read
    let id = [&5u64.to_be_bytes()[..], &1u64.to_be_bytes()[..]].concat();
    record.push(1); // one pending
    record.extend_from_slice(&id);
    record.extend_from_slice(b"\x09\0\0\0\0\0\0\0\x03");
    record.push(0); // no consumer
    record.push(1); // one released
    record.extend_from_slice(&id);
    record.extend_from_slice(b"\x40\x64\x40\x64\x00\x00\x00"); // 100 s, 100 ids, no producers
    let entry = key("REDIS0014", &record);
    let at = StreamId::new(5, 1);
    assert_eq!(
        elements(&entry),
        [
            Element::Stream(StreamInfo { length: 0, last: at, history: Some((at, 2)) }),
            Element::Group { name: b("g"), last: at, entries_read: Some(2) },
            Element::Pending { id: at, time_ms: 9, count: 3 },
            Element::Released(at),
            Element::Idempotency { duration: 100, max_size: 100 },
        ]
    );
}

#[test]
fn what_is_not_known_is_said_with_its_place() {
    let unknown = |record: &[u8]| read("REDIS0011", &[b"\x00\x01k\x01v", record]).unwrap_err();
    assert_eq!(unknown(b"\x1e\x01k"), RdbError::UnknownType { offset: 14, kind: 30 });
    assert_eq!(unknown(b"\x06\x01k"), RdbError::UnknownType { offset: 14, kind: 6 });
    assert_eq!(unknown(b"\xf2"), RdbError::UnknownOpcode { offset: 14, opcode: 0xf2 });
    let error = unknown(b"\x00\x01k\xc7");
    assert_eq!(error.to_string(), "RDB byte 17: expected a string encoding 0 to 3, saw 0x7");
    let error = unknown(b"\x04\x01k\x02\x01a\x011\x82");
    assert_eq!(error.to_string(), "RDB byte 22: expected a length, saw 0x82");
    let header = |magic: &str| read(magic, &[]).unwrap_err().to_string();
    assert_eq!(header("RESP00011"), "RDB byte 0: expected the magic REDIS or VALKEY, saw 0x52");
    assert!(header("REDIS00x1").contains("an RDB version"));
}

#[test]
fn an_error_comes_again_and_is_not_the_end() {
    let mut reader = Reader::new(Limits::default());
    reader.feed(stream("REDIS0011", &[b"\x1e\x01k"]));
    let first = reader.next().unwrap_err();
    assert_eq!(reader.next(), Err(first));
    assert!(!reader.is_done());
    assert!(reader.take_rest().is_empty());
}

#[test]
fn lengths_are_waited_for_not_allocated() {
    // Each claims an exabyte, or just more than the cap.
    for record in [&b"\x00\x01k\x81\x10\0\0\0\0\0\0\0"[..], b"\x00\x81\x10\0\0\0\0\0\0\0", b"\x10\x01k\x80\x40\0\0\0"] {
        let error = read("REDIS0011", &[record]);
        let huge_string = record.starts_with(b"\x00\x01k");
        match error {
            // A string can be in parts, of whatever length, but not this one.
            Err(RdbError::TooBig { .. }) => {}
            other => panic!("{huge_string}: {other:?}"),
        }
    }
    // Under the cap it is waited for: nothing is wrong yet.
    let mut reader = Reader::new(Limits::default());
    reader.feed(Bytes::from_static(b"REDIS0011\x10\x01k\x80\x10\0\0\0....."));
    assert_eq!(reader.next(), Ok(None));
    assert!(!reader.is_done());
}

/// A set of two million members, made while it is read: no part is longer than a part and an element.
#[test]
fn a_huge_value_passes_in_bounded_parts() {
    const MEMBERS: u32 = 2_000_000;
    const CHUNK: usize = 50_000;
    let limits = Limits { big: 200_000, part: 64 << 10, ..Limits::default() };
    let mut reader = Reader::new(limits);
    let mut head = b"REDIS0011\x02\x03set\x80".to_vec();
    head.extend_from_slice(&MEMBERS.to_be_bytes());
    let mut chunk = BytesMut::from(&head[..]);
    let mut decoder = Decoder::big(kind::SET).unwrap();
    let (mut members, mut longest, mut ended) = (0u32, 0, false);
    let mut made = 0;
    while made < MEMBERS || !chunk.is_empty() {
        while chunk.len() < CHUNK && made < MEMBERS {
            chunk.put_u8(8);
            chunk.put_slice(format!("m{made:07}").as_bytes());
            made += 1;
            if made == MEMBERS {
                chunk.put_slice(b"\xff\0\0\0\0\0\0\0\0");
            }
        }
        let at = CHUNK.min(chunk.len());
        reader.feed(chunk.split_to(at).freeze());
        while let Some(item) = reader.next().unwrap() {
            match item {
                Item::BigBegin(entry) => assert_eq!((entry.key, entry.kind), (b("set"), kind::SET)),
                Item::BigPart(part) => {
                    longest = longest.max(part.len());
                    let mut sink = |element| {
                        assert_eq!(element, Element::Member(format!("m{members:07}").into()));
                        members += 1;
                    };
                    decoder.feed(&part, &mut sink).unwrap();
                }
                Item::BigEnd => ended = true,
                Item::End { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(reader.is_done() && ended);
    decoder.finish().unwrap();
    assert_eq!(members, MEMBERS);
    assert!(longest <= limits.part + 9, "{longest}");
}

#[test]
fn a_long_string_comes_in_plain_pieces() {
    let text: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
    let mut record = b"\x00\x01k\x80".to_vec();
    record.extend_from_slice(&(text.len() as u32).to_be_bytes());
    record.extend_from_slice(&text);
    let items = read("REDIS0011", &[&record]).unwrap();
    assert!(matches!(items.first(), Some(Item::BigBegin(entry)) if entry.value.is_empty()));
    assert_eq!(items.last(), Some(&Item::BigEnd));
    let mut got = Vec::new();
    for item in &items[1..items.len() - 1] {
        let Item::BigPart(part) = item else { panic!("{item:?}") };
        assert!(part.len() <= 256 << 10);
        got.extend_from_slice(part);
    }
    assert!(got == text);
}

#[test]
fn the_family_is_known_after_the_header() {
    for (magic, family, version) in [("REDIS0012", Family::Redis, 12), ("VALKEY080", Family::Valkey, 80)] {
        let mut reader = Reader::new(Limits::default());
        reader.feed(stream(magic, &[]));
        while reader.next().unwrap().is_some() {}
        assert_eq!((reader.family(), reader.version()), (family, version));
    }
}
