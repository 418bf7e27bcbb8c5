//! How fast a snapshot is walked: a million small strings, and a mix of types, in memory. `cargo bench --bench rdb`.

use std::hint::black_box;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use redis_duplex::wire::rdb::{Item, Limits, Reader};

const KEYS: usize = 1_000_000;
/// What a socket read brings at best, and what a spool hands over.
const CHUNKS: [usize; 3] = [16 << 10, 256 << 10, 4 << 20];

fn length(out: &mut BytesMut, n: usize) {
    if n < 64 {
        out.put_u8(n as u8);
    } else {
        out.put_u16(0x4000 | n as u16);
    }
}

fn text(out: &mut BytesMut, text: &[u8]) {
    length(out, text.len());
    out.put_slice(text);
}

fn snapshot(mut key: impl FnMut(&mut BytesMut, usize)) -> Bytes {
    let mut out = BytesMut::from(&b"REDIS0011\xfe\x00"[..]);
    for i in 0..KEYS {
        key(&mut out, i);
    }
    out.put_u8(0xff);
    let sum = redis_duplex::wire::crc64::crc64(&out);
    out.put_u64_le(sum);
    out.freeze()
}

fn walk(rdb: &Bytes, chunk: usize, limits: Limits) -> usize {
    let mut reader = Reader::new(limits);
    let (mut keys, mut at) = (0, 0);
    while at < rdb.len() {
        let end = rdb.len().min(at + chunk);
        reader.feed(rdb.slice(at..end));
        at = end;
        while let Some(item) = reader.next().expect("the snapshot is sound") {
            match black_box(item) {
                Item::Key(_) => keys += 1,
                Item::End { checksum_ok } => assert_ne!(checksum_ok, Some(false)),
                _ => {}
            }
        }
    }
    keys
}

fn main() {
    let strings = snapshot(|out, i| {
        out.put_u8(0);
        text(out, format!("user:{i:010}:name").as_bytes());
        text(out, &[b'v'; 64]);
    });
    let tiny = snapshot(|out, i| {
        out.put_u8(0);
        text(out, format!("k{i}").as_bytes());
        text(out, b"1234567");
    });
    let mixed = snapshot(|out, i| match i % 3 {
        0 => {
            out.put_u8(0xfc);
            out.put_u64_le(4_102_444_800_000);
            out.put_u8(0);
            text(out, format!("session:{i:010}").as_bytes());
            text(out, &[b'v'; 100]);
        }
        1 => {
            out.put_u8(4);
            text(out, format!("hash:{i:010}").as_bytes());
            length(out, 8);
            for f in 0..8 {
                text(out, format!("field{f}").as_bytes());
                text(out, b"some value");
            }
        }
        _ => {
            out.put_u8(16);
            text(out, format!("packed:{i:010}").as_bytes());
            text(out, &[0; 120]);
        }
    });
    for (name, rdb) in [("strings", &strings), ("tiny", &tiny), ("mixed", &mixed)] {
        for chunk in CHUNKS {
            for checksum in [true, false] {
                let limits = Limits { checksum, ..Limits::default() };
                let best = (0..5)
                    .map(|_| {
                        let start = Instant::now();
                        assert_eq!(walk(rdb, chunk, limits), KEYS);
                        start.elapsed()
                    })
                    .min()
                    .unwrap_or_default();
                let rate = rdb.len() as f64 / 1e6 / best.as_secs_f64();
                let each = best.as_nanos() as f64 / KEYS as f64;
                let checksum = if checksum { "with" } else { "no" };
                println!(
                    "{name:8} {:4} MB, chunks of {:4} KiB, {checksum:4} checksum: {rate:6.0} MB/s, {each:4.0} ns a key",
                    rdb.len() / 1_000_000,
                    chunk >> 10
                );
            }
        }
    }
}
