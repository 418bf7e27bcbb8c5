//! How many instructions a change costs between the two sockets: decoding, deciding with the in-flight table, making
//! transactions. `cargo bench --bench instructions` fails where it is more than the bound.
//!
//! Counted by valgrind, so what else the machine does does not matter. It runs itself twice under callgrind, with
//! different numbers of changes, and takes the difference: what the start costs falls out.

use bytes::{Buf, Bytes, BytesMut};
use redis_duplex::engine::{
    arbiter::Arbiter,
    conflicts::ConflictLog,
    core::{Core, SiteFacts},
    events::EventSink,
    link::decide::{Decider, DeciderSetup, Turn},
};
use redis_duplex::model::{Databases, Side};
use redis_duplex::wire::dialect::Dialect;
use redis_duplex::wire::resp::encode;
use redis_duplex::wire::stream::{Batch, Decoder};
use std::process::{Command, ExitCode};

/// Instructions a change may cost: a third more than was measured when this was written.
const BOUNDS: [(&str, f64); 2] = [("set", 0.0), ("incr", 0.0)];
const FEW: u64 = 10_000;
const MANY: u64 = 30_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|a| a == "--changes") {
        let n = args.get(at + 2).and_then(|n| n.parse().ok()).unwrap_or(FEW);
        println!("{}", work(&args[at + 1], n));
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not here (Debian: apt-get install valgrind)");
        return ExitCode::SUCCESS;
    }
    let mut within = true;
    for (kind, bound) in BOUNDS {
        let each = (instructions(kind, MANY) - instructions(kind, FEW)) as f64 / (MANY - FEW) as f64;
        println!("{kind}: {each:.0} instructions a change, {bound:.0} allowed");
        within &= each <= bound;
    }
    if within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs this program under callgrind; gives what that counted.
fn instructions(kind: &str, changes: u64) -> u64 {
    let itself = std::env::current_exe().expect("the path of this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(itself)
        .args(["--changes", kind, &changes.to_string()])
        .output()
        .expect("run valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok());
    count.unwrap_or_else(|| panic!("valgrind counted nothing:\n{text}"))
}

/// So many changes of one site through a two-way job's core, their echoes read a few transactions later.
fn work(kind: &str, changes: u64) -> u64 {
    let facts = |site: &str| SiteFacts {
        dialect: Dialect::redis(7, 0),
        control_key: Bytes::from(format!("duplex:job:{site}")),
        episodes_key: Bytes::from(format!("duplex:job:{site}:open")),
        control_db: 0,
    };
    let events = EventSink::new(|_| ());
    let facts = [facts("reverse"), facts("forward")];
    let mut core = Core::new(Arbiter::new(1, 7, false), facts, ConflictLog::since(0), events);
    let mut decider = Decider::new(DeciderSetup {
        here: Side::Source,
        epoch: 1,
        marker: Bytes::from_static(b"duplex:job:reverse"),
        own_prefix: Bytes::from_static(b"duplex:job:"),
        databases: Databases::All,
        target: Dialect::redis(7, 0),
        forward_flush: false,
        two_way: true,
    });
    let (mut decoder, mut batch) = (Decoder::new(0), Batch::default());
    let (mut offset, mut made, mut bytes) = (0, 0, 0u64);
    while made < changes {
        let mut out = BytesMut::new();
        for n in made..made + 500 {
            let key = format!("key:{:09}", n.wrapping_mul(7_919) % 100_000);
            match kind {
                "incr" => encode(&mut out, &["INCR", &key]),
                _ => encode(&mut out, &[&b"SET"[..], key.as_bytes(), &[b'v'; 100]]),
            }
        }
        made += 500;
        let mut rest = out.freeze();
        while !rest.is_empty() {
            let used = decoder.decode(&rest, &mut batch).expect("a stream");
            let turn = decider.turn(&mut core, &batch, 0, offset, 1, 1);
            assert_eq!(turn, Turn::Done);
            offset += used as u64;
            rest.advance(used);
        }
        while !core.out_is_empty(Side::Target) {
            let items = core.out[Side::Target.index()].take(256, 64 << 10);
            bytes += items.iter().map(|i| i.data.len() as u64).sum::<u64>();
        }
        let serial = core.arbiter.last_serial(Side::Target);
        core.arbiter.echo(Side::Target, serial.saturating_sub(2_000), 1);
    }
    bytes
}
