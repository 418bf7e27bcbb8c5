//! How many instructions a change costs the decoder and the arbiter: `make instructions`.
//!
//! Counted by valgrind (callgrind), so the same on a busy machine as on a quiet one. Each case runs twice in a process
//! of its own, once with twice the rounds; the difference is what the rounds cost, without what a process begins with.
//! The counts are held against `benches/instructions.txt`, which says by which compiler they were made: with that one, a
//! count may differ by 3 %, with another they are only printed. `DUPLEX_INSTRUCTIONS=write` writes the file anew.

use bytes::{Bytes, BytesMut};
use redis_duplex::engine::arbiter::class::{Class, Part};
use redis_duplex::engine::arbiter::classify::{Effect, classify};
use redis_duplex::engine::arbiter::{Arbiter, Touch, Verdict};
use redis_duplex::model::Side;
use redis_duplex::wire::dialect::Dialect;
use redis_duplex::wire::rdb::{Item, Limits, Reader};
use redis_duplex::wire::resp::{ReplyReader, encode};
use redis_duplex::wire::rewrite::rewrite;
use redis_duplex::wire::stream::{Batch, Decoder};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::{Command, ExitCode};

/// How much a count may differ.
const BOUND: f64 = 0.03;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
/// Changes in one round of each case.
const CHANGES: usize = 4_000;
const ROUNDS: usize = 20;

/// Runs so many rounds of something.
type Case = (&'static str, fn(usize));

const CASES: [Case; 7] = [
    ("decode SET of 100 bytes", decode_sets),
    ("decode and classify a mix of commands", classify_mix),
    ("rewrite a mix of commands for an older target", rewrite_mix),
    ("arbiter: a change there and its echo back", change_and_echo),
    ("arbiter: the same with changes of both sites", both_sites),
    ("replies to a transaction of SETs", replies),
    ("snapshot: a string of 64 bytes", snapshot),
];

fn stream(one: impl Fn(&mut BytesMut, usize)) -> Bytes {
    let mut out = BytesMut::new();
    (0..CHANGES).for_each(|n| one(&mut out, n));
    out.freeze()
}

fn sets() -> Bytes {
    stream(|out, n| encode(out, &[&b"SET"[..], format!("key:{n:012}").as_bytes(), &[b'v'; 100]]))
}

fn mix() -> Bytes {
    stream(|out, n| match n % 6 {
        0 => encode(out, &["INCR".to_owned(), format!("c:{}", n % 100)]),
        1 => encode(out, &["HSET".to_owned(), format!("h:{n}"), "field".into(), "value".into()]),
        2 => encode(out, &["PEXPIREAT".to_owned(), format!("k:{n}"), "1700000000000".into()]),
        3 => encode(out, &["DEL".to_owned(), format!("k:{n}")]),
        4 => encode(out, &["SET".to_owned(), format!("k:{n}"), "v".into(), "PXAT".into(), "1700000000000".into()]),
        _ => encode(out, &["RENAME".to_owned(), format!("k:{n}"), format!("l:{n}")]),
    })
}

fn decoded(bytes: &Bytes, rounds: usize, mut look: impl FnMut(&Batch)) {
    let mut batch = Batch::default();
    for _ in 0..rounds {
        let mut decoder = Decoder::new(0);
        let mut at = 0;
        while at < bytes.len() {
            at += decoder.decode(&bytes.slice(at..), &mut batch).expect("a stream");
            look(&batch);
        }
    }
}

fn decode_sets(rounds: usize) {
    decoded(&sets(), rounds, |batch| {
        black_box(batch.commands.len());
    });
}

fn classify_mix(rounds: usize) {
    let arbiter = Arbiter::new(1, 7, false);
    decoded(&mix(), rounds, |batch| {
        for command in &batch.commands {
            let args = batch.args(command);
            if let Effect::Keys(touches) | Effect::Apart(touches) = classify(&arbiter, 0, &args) {
                black_box(touches.len());
            }
        }
    });
}

fn rewrite_mix(rounds: usize) {
    decoded(&mix(), rounds, |batch| {
        for command in &batch.commands {
            black_box(rewrite(&batch.args(command), 1_600_000_000_000, Dialect::redis(5, 0)));
        }
    });
}

fn change(arbiter: &mut Arbiter, here: Side, key: &[u8]) -> u64 {
    let touch = Touch { db: 0, key, hash: arbiter.hash(0, key), class: Class::Write, part: Part::WHOLE };
    match arbiter.change(here, &touch, 5) {
        Verdict::Forward(serial) => serial,
        Verdict::Withhold => panic!("no two sites write the same key here"),
    }
}

/// Echoes come back some thousand changes later.
fn change_and_echo(rounds: usize) {
    let mut arbiter = Arbiter::new(1, 7, false);
    let keys: Vec<String> = (0..CHANGES).map(|n| format!("key:{n:012}")).collect();
    for round in 0..rounds {
        for (n, key) in keys.iter().enumerate() {
            let serial = change(&mut arbiter, Side::Source, key.as_bytes());
            if n % 256 == 255 && round > 0 {
                arbiter.echo(Side::Target, serial - CHANGES as u64 / 2, 5);
            }
        }
    }
}

fn both_sites(rounds: usize) {
    let mut arbiter = Arbiter::new(1, 7, false);
    let keys: Vec<[String; 2]> = (0..CHANGES / 2).map(|n| [format!("a:{n:012}"), format!("b:{n:012}")]).collect();
    for round in 0..rounds {
        for (n, pair) in keys.iter().enumerate() {
            for (here, key) in Side::BOTH.into_iter().zip(pair) {
                let serial = change(&mut arbiter, here, key.as_bytes());
                if n % 256 == 255 && round > 0 {
                    arbiter.echo(here.other(), serial - CHANGES as u64 / 4, 5);
                }
            }
        }
    }
}

fn replies(rounds: usize) {
    let mut one = b"+OK\r\n".to_vec();
    (0..CHANGES).for_each(|_| one.extend_from_slice(b"+QUEUED\r\n"));
    one.extend_from_slice(format!("*{CHANGES}\r\n").as_bytes());
    (0..CHANGES).for_each(|_| one.extend_from_slice(b"+OK\r\n"));
    let mut reader = ReplyReader::default();
    for _ in 0..rounds {
        reader.buffer().extend_from_slice(&one);
        black_box(reader.skip(b"+OK\r\n", CHANGES + 1) + reader.skip(b"+QUEUED\r\n", CHANGES + 1));
        while let Some(reply) = reader.next_reply().expect("a reply") {
            black_box(reply.elements().is_some());
        }
    }
}

fn snapshot(rounds: usize) {
    let mut out = b"REDIS0011\xfe\x00".to_vec();
    for n in 0..CHANGES {
        let key = format!("user:{n:010}:name");
        out.extend_from_slice(&[0, key.len() as u8]);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(&[0x40, 64]);
        out.extend_from_slice(&[b'v'; 64]);
    }
    out.push(0xff);
    out.extend_from_slice(&redis_duplex::wire::crc64::crc64(&out).to_le_bytes());
    let rdb = Bytes::from(out);
    for _ in 0..rounds {
        let mut reader = Reader::new(Limits::default());
        reader.feed(rdb.clone());
        let mut keys = 0;
        while let Some(item) = reader.next().expect("the snapshot is sound") {
            keys += usize::from(matches!(item, Item::Key(_)));
        }
        assert_eq!(keys, CHANGES);
    }
}

/// Instructions of a whole process that runs this case so many rounds.
fn count(case: usize, rounds: usize) -> Result<u64, String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(me);
    valgrind.env("DUPLEX_INSTRUCTIONS_CASE", format!("{case} {rounds}"));
    let ended = valgrind.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&ended.stderr);
    // ==123== Collected : 12345678
    let number = text.lines().find_map(|l| l.split("Collected :").nth(1)?.split_whitespace().next()?.parse().ok());
    number.filter(|_| ended.status.success()).ok_or_else(|| format!("valgrind says:\n{text}"))
}

fn compiler() -> String {
    let version = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into())).arg("--version").output();
    let version = version.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    format!("{version}, {}", std::env::consts::ARCH)
}

/// The file's compiler and its counts.
fn known() -> (String, BTreeMap<String, f64>) {
    let text = std::fs::read_to_string(FILE).unwrap_or_default();
    let mut lines = text.lines();
    let made_by = lines.next().and_then(|l| l.strip_prefix("# ")).unwrap_or_default().to_owned();
    let counts = lines.filter_map(|l| {
        let (count, name) = l.trim().split_once(' ')?;
        Some((name.trim().to_owned(), count.parse().ok()?))
    });
    (made_by, counts.collect())
}

fn main() -> ExitCode {
    if let Ok(wanted) = std::env::var("DUPLEX_INSTRUCTIONS_CASE") {
        let (case, rounds) = wanted.split_once(' ').expect("a case and its rounds");
        CASES[case.parse::<usize>().expect("a case")].1(rounds.parse().expect("rounds"));
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not on PATH (Debian: apt-get install valgrind); no instruction was counted");
        return ExitCode::SUCCESS;
    }
    let (made_by, known) = known();
    let compiler = compiler();
    let write = std::env::var("DUPLEX_INSTRUCTIONS").is_ok_and(|w| w == "write");
    if made_by != compiler && !write {
        println!("the bounds were made by {made_by}; this is {compiler}: the counts are printed and not judged");
    }
    let (mut file, mut wrong) = (format!("# {compiler}\n"), 0);
    println!("{:>8} {:>8} {:>7}  instructions a change", "now", "before", "");
    for (case, (name, _)) in CASES.iter().enumerate() {
        let counted = count(case, ROUNDS).and_then(|less| Ok(count(case, 2 * ROUNDS)?.saturating_sub(less)));
        let each = match counted {
            Ok(more) => more as f64 / (ROUNDS * CHANGES) as f64,
            Err(e) => {
                eprintln!("{name}: {e}");
                return ExitCode::FAILURE;
            }
        };
        file += &format!("{each:8.1} {name}\n");
        let Some(before) = known.get(*name) else {
            println!("{each:8.1} {:>8} {:>7}  {name}", "-", "");
            wrong += u32::from(!write && made_by == compiler);
            continue;
        };
        let off = each / before - 1.0;
        let bad = off.abs() > BOUND && made_by == compiler && !write;
        wrong += u32::from(bad);
        println!(
            "{each:8.1} {before:8.1} {:+6.1} %  {name}{}",
            off * 100.0,
            if bad { "  <-- out of bounds" } else { "" }
        );
    }
    if write {
        if let Err(e) = std::fs::write(FILE, file) {
            eprintln!("{FILE}: {e}");
            return ExitCode::FAILURE;
        }
        println!("written to benches/instructions.txt");
    }
    if wrong > 0 {
        println!(
            "{wrong} of {} differ by more than 3 %: find out why; make instructions-write where it is meant",
            CASES.len()
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
