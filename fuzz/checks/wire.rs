//! What must hold for any bytes at all. The fuzz targets run it without end, `tests/wire/mutation.rs` within bounds.

use bytes::{Bytes, BytesMut};
use redis_duplex::wire::command::{Argv, keys, lookup};
use redis_duplex::wire::dialect::Dialect;
use redis_duplex::wire::resp::{Limits, Reply, ReplyScan, frame_len};
use redis_duplex::wire::rewrite::{Rewrite, Word, encode_line, rewrite};
use redis_duplex::wire::slot::slot;
use redis_duplex::wire::stream::{Batch, BatchLimits, Decoder, StreamError};

/// A command: its database and its arguments.
type Command = (u32, Vec<Vec<u8>>);

/// What a stream says, without regard to how it was cut into batches.
#[derive(Debug, PartialEq, Clone)]
pub struct Told {
    /// Where it ends, whether it is a transaction, its commands with their databases; runs of nothing are one.
    pub entries: Vec<(u64, bool, Vec<Command>)>,
    pub db: u32,
    pub error: Option<StreamError>,
}

/// Small enough that a hostile length is refused before anybody waits for it.
const LIMITS: Limits = Limits { bulk: 1 << 20, args: 1 << 16, line: 256 };

/// Decodes a stream that comes in pieces of these lengths, the last one again and again.
pub fn decode(data: &[u8], pieces: &[usize], batch_limits: BatchLimits) -> Told {
    let mut decoder = Decoder::with_limits(0, LIMITS, batch_limits);
    let mut batch = Batch::default();
    let mut told = Told { entries: Vec::new(), db: 0, error: None };
    let (mut begin, mut end, mut piece) = (0, 0, 0);
    loop {
        let available = Bytes::copy_from_slice(&data[begin..end]);
        match decoder.decode(&available, &mut batch) {
            Ok(0) => {
                assert!(batch.is_empty());
                assert!(decoder.needed() > available.len(), "it asks for what it has");
                if end == data.len() {
                    break;
                }
                let more = pieces.get(piece).or(pieces.last()).copied().unwrap_or(usize::MAX).max(1);
                piece += 1;
                end = end.saturating_add(more).min(data.len());
            }
            Ok(consumed) => {
                check(&batch, consumed);
                tell(&batch, begin as u64, &mut told);
                begin += consumed;
                assert_eq!(batch.entries.last().map(|e| e.db), Some(decoder.db()));
            }
            Err(error) => {
                told.error = Some(error);
                break;
            }
        }
    }
    told.db = decoder.db();
    told
}

fn check(batch: &Batch, consumed: usize) {
    assert_eq!(batch.len(), consumed as u64);
    let (mut at, mut end) = (0, 0);
    for entry in &batch.entries {
        assert_eq!(entry.commands.0, at, "entries cover the commands");
        assert!(entry.end > end, "an entry has bytes");
        for command in batch.commands(entry) {
            assert!(u64::from(command.frame.0) >= end && u64::from(command.frame.1) <= entry.end);
            assert!(batch.argv(command).len() > 0, "a command has a name");
            for arg in batch.argv(command) {
                let at = arg.as_ptr() as usize - batch.buf.as_ptr() as usize;
                assert!(at >= command.frame.0 as usize && at + arg.len() <= command.frame.1 as usize);
            }
        }
        (at, end) = (entry.commands.1, entry.end);
    }
    assert_eq!(at as usize, batch.commands.len());
}

fn tell(batch: &Batch, begin: u64, told: &mut Told) {
    for entry in &batch.entries {
        let commands: Vec<_> = batch
            .commands(entry)
            .iter()
            .map(|c| (c.db, batch.argv(c).map(<[u8]>::to_vec).collect::<Vec<_>>()))
            .collect();
        let nothing = commands.is_empty() && !entry.transaction;
        match told.entries.last_mut() {
            Some(last) if nothing && last.2.is_empty() && !last.1 => last.0 = begin + entry.end,
            _ => told.entries.push((begin + entry.end, entry.transaction, commands)),
        }
    }
}

/// However a stream is cut, it says the same.
pub fn stream(data: &[u8]) {
    let one = BatchLimits { bytes: 1, commands: 1 };
    let whole = decode(data, &[], BatchLimits::default());
    let mut told = vec![decode(data, &[], one), decode(data, &[7], BatchLimits::default())];
    if data.len() < 4096 {
        told.push(decode(data, &[1], BatchLimits::default()));
        told.push(decode(data, &[1], one));
    }
    if let Some((&cut, rest)) = data.split_first() {
        told.push(decode(data, &[cut as usize + 1, rest.len() / 3 + 1], one));
    }
    for other in told {
        assert_eq!(other.entries, whole.entries);
        assert_eq!(other.db, whole.db);
        // Who waits for what a length promised may not have come to the broken bytes yet.
        assert!(whole.error.is_some() || other.error.is_none(), "{:?}", other.error);
    }
    for (_, _, commands) in &whole.entries {
        for (_, argv) in commands {
            command(argv);
        }
    }
}

/// However replies are cut, they have the same lengths; a complete one can be read to its last element.
pub fn replies(data: &[u8]) {
    let mut rest = data;
    loop {
        let whole = frame_len(rest);
        let mut scan = ReplyScan::default();
        let mut in_pieces = Ok(Err(1));
        // A hint is a lower bound: nothing is complete before as many bytes are there.
        let mut needed = 1;
        for n in 0..=rest.len() {
            in_pieces = scan.step(&rest[..n], &Limits::default());
            match in_pieces {
                Ok(Ok(len)) => {
                    assert!(n >= needed, "complete with {n} bytes, {needed} were needed");
                    assert_eq!(len, n);
                    break;
                }
                Ok(Err(n)) => needed = needed.max(n),
                Err(_) => break,
            }
        }
        match (whole, in_pieces) {
            (Ok(Ok(len)), Ok(Ok(same))) => {
                assert_eq!(len, same);
                let reply = Reply::parse(&rest[..len]).expect("a complete reply can be read");
                walk(reply, len);
                rest = &rest[len..];
            }
            (Ok(Err(_)), Ok(Err(_))) => break,
            (Err(_), Err(_)) => break,
            (whole, in_pieces) => panic!("{whole:?} and {in_pieces:?}"),
        }
    }
}

fn walk(reply: Reply<'_>, len: usize) {
    let mut open = vec![reply];
    let mut seen = 0;
    while let Some(reply) = open.pop() {
        seen += 1;
        assert!(seen <= len, "more elements than bytes");
        let _ = (reply.int(), reply.bytes(), reply.error(), reply.is_ok());
        if let Some(elements) = reply.elements() {
            let said = elements.len();
            let before = open.len();
            open.extend(elements);
            assert_eq!(open.len() - before, said, "all elements of a complete array are there");
        }
        // Deep nests cost their square, which is a test's time only.
        if seen > 2_000 {
            return;
        }
    }
}

/// Arguments, cut at newlines.
pub fn commands(data: &[u8]) {
    let argv: Vec<&[u8]> = data.split(|&b| b == b'\n').collect();
    command(&argv);
    let upper: Vec<Vec<u8>> = argv.iter().map(|a| a.to_ascii_uppercase()).collect();
    assert_eq!(lookup(&argv).map(|s| s.name), lookup(&upper).map(|s| s.name), "case does not matter");
}

/// Targets between which the rules differ.
pub const TARGETS: [Dialect; 11] = [
    Dialect::redis(5, 0),
    Dialect::redis(6, 0),
    Dialect::redis(6, 2),
    Dialect::redis(7, 0),
    Dialect::redis(7, 4),
    Dialect::redis(8, 0),
    Dialect::redis(8, 2),
    Dialect::redis(8, 6),
    Dialect::valkey(8, 0),
    Dialect::valkey(9, 0),
    Dialect::valkey(9, 1),
];

fn command(argv: &[impl AsRef<[u8]>]) {
    if let Some(keys) = keys(argv) {
        for key in keys.iter() {
            assert!(key.arg > 0 && (key.arg as usize) < argv.len());
            assert!(slot(argv.arg(key.arg as usize)) < 16_384);
        }
    }
    for target in TARGETS {
        let Rewrite::Commands(lines) = rewrite(argv, 1_700_000_000_000, target) else { continue };
        assert!(!lines.is_empty());
        for line in lines {
            let words: Vec<Vec<u8>> = line.iter().map(|w| w.bytes(argv).to_vec()).collect();
            assert!(line.iter().all(|w| !matches!(w, Word::Arg(n) if *n as usize >= argv.len())));
            let mut out = BytesMut::new();
            encode_line(&mut out, &line, argv);
            assert_eq!(frame_len(&out), Ok(Ok(out.len())));
            // What was put in the target's words needs no further change for that target.
            let again = rewrite(&words, 1_700_000_000_000, target);
            assert_eq!(again, Rewrite::AsIs, "{:?}", String::from_utf8_lossy(&words.join(&b' ')));
        }
    }
}
