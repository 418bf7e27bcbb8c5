//! How fast streams are decoded and looked at: `cargo bench --bench decode`.
//!
//! Timed by hand, three runs each and the best of them: what is measured is a loop over memory.

use bytes::{Bytes, BytesMut};
use redis_duplex::wire::command::{keys, lookup};
use redis_duplex::wire::dialect::Dialect;
use redis_duplex::wire::resp::{ReplyReader, encode};
use redis_duplex::wire::rewrite::rewrite_as;
use redis_duplex::wire::stream::{Batch, Decoder};
use std::hint::black_box;
use std::time::Instant;

const BYTES: usize = 100 << 20;

fn main() {
    let sets = stream(|out, n| encode(out, &[&b"SET"[..], format!("key:{n:012}").as_bytes(), &[b'v'; 100]]));
    let small = stream(|out, n| encode(out, &["INCR", &format!("c:{}", n % 1000)]));
    let big = stream(|out, n| encode(out, &[&b"SET"[..], format!("key:{n}").as_bytes(), &vec![b'v'; 64 << 10]]));
    println!("{:<44} {:>9} {:>12}", "", "MB/s", "M commands/s");
    for (name, bytes) in [("SET of 100 bytes", &sets), ("INCR", &small), ("SET of 64 KiB", &big)] {
        report(&format!("decode {name}"), bytes.len(), || decode(bytes, |_| {}));
        report(&format!("decode {name}, find keys"), bytes.len(), || {
            decode(bytes, |batch| {
                for command in &batch.commands {
                    black_box(keys(&batch.args(command)));
                }
            })
        });
    }
    report("decode SET of 100 bytes, keys and rewriting", sets.len(), || {
        decode(&sets, |batch| {
            for command in &batch.commands {
                let argv = batch.args(command);
                let Some(spec) = lookup(&argv) else { continue };
                black_box(spec.keys(&argv));
                black_box(rewrite_as(spec, &argv, 0, Dialect::redis(7, 4)));
            }
        })
    });

    // One transaction that comes in pieces of 64 KiB must not cost the square of its length.
    let mut whole = BytesMut::new();
    encode(&mut whole, &["MULTI"]);
    whole.extend_from_slice(&sets);
    encode(&mut whole, &["EXEC"]);
    let whole = whole.freeze();
    report("decode one transaction in pieces of 64 KiB", whole.len(), || {
        let (mut decoder, mut batch) = (Decoder::new(0), Batch::default());
        let mut end = 0;
        while decoder.decode(&whole.slice(..end), &mut batch).expect("a stream") == 0 {
            end = (end + (64 << 10)).min(whole.len());
        }
        batch.commands.len()
    });

    let replies = Bytes::from(b"*3\r\n+OK\r\n:1\r\n$5\r\nhello\r\n".repeat(1 << 20));
    report("read replies *3", replies.len(), || {
        let mut reader = ReplyReader::default();
        let mut n = 0;
        for piece in replies.chunks(64 << 10) {
            reader.buffer().extend_from_slice(piece);
            while let Some(reply) = reader.next_reply().expect("a reply") {
                n += reply.elements().map_or(0, |e| e.filter(|r| r.error().is_none()).count());
            }
        }
        n / 3
    });
}

fn stream(one: impl Fn(&mut BytesMut, usize)) -> Bytes {
    let mut out = BytesMut::with_capacity(BYTES + (1 << 20));
    let mut n = 0;
    while out.len() < BYTES {
        one(&mut out, n);
        n += 1;
    }
    out.freeze()
}

fn decode(bytes: &Bytes, look: impl Fn(&Batch)) -> usize {
    let (mut decoder, mut batch) = (Decoder::new(0), Batch::default());
    let (mut at, mut commands) = (0, 0);
    while at < bytes.len() {
        at += decoder.decode(&bytes.slice(at..), &mut batch).expect("a stream");
        look(&batch);
        commands += batch.commands.len();
    }
    commands
}

fn report(name: &str, bytes: usize, run: impl Fn() -> usize) {
    let (mut best, mut commands) = (f64::INFINITY, 0);
    for _ in 0..3 {
        let begin = Instant::now();
        commands = black_box(run());
        best = best.min(begin.elapsed().as_secs_f64());
    }
    println!("{name:<44} {:>9.0} {:>12.1}", bytes as f64 / best / 1e6, commands as f64 / best / 1e6);
}
