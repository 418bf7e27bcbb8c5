//! Bytes of real streams and replies, changed at random, always in the same way.

#[path = "../../fuzz/checks/wire.rs"]
mod checks;

use checks::{Told, decode};
use redis_duplex::wire::stream::BatchLimits;
use std::path::Path;

fn corpus(kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the corpus")
        .map(|f| f.expect("a file").path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("a file that can be read")))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// One to four changes: a byte turned, a run removed, doubled or moved, a length made huge, an end cut off.
fn mutate(data: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut out = data.to_vec();
    for _ in 0..random.usize(1..=4) {
        if out.is_empty() {
            break;
        }
        let at = random.usize(..out.len());
        let run = random.usize(1..=16).min(out.len() - at);
        match random.u8(..7) {
            0 => out[at] = random.u8(..),
            1 => out[at] ^= 1 << random.u8(..8),
            2 => drop(out.drain(at..at + run)),
            3 => {
                let copy = out[at..at + run].to_vec();
                let to = random.usize(..=out.len());
                out.splice(to..to, copy);
            }
            4 => out.truncate(at),
            5 => {
                let numbers = ["$9223372036854775807\r\n", "*2147483648\r\n", "$-2\r\n", "*-1\r\n", "$0\r\n", "*1\r\n"];
                out.splice(at..at, numbers[random.usize(..numbers.len())].bytes());
            }
            _ => out[at] = b"\r\n*$+-:%~>|_#,(!=0123456789"[random.usize(..27)],
        }
    }
    out
}

/// A window of a file, so that a change is met often and a run is short.
fn window<'a>(data: &'a [u8], random: &mut fastrand::Rng) -> &'a [u8] {
    let at = random.usize(..data.len());
    // A stream is only understood from a frame on.
    let at = data[at..].windows(3).position(|w| w == b"\n*1" || w == b"\n*3").map_or(0, |n| at + n + 1);
    &data[at..(at + 600).min(data.len())]
}

#[test]
fn real_streams_say_the_same_however_they_are_cut() {
    for (name, data) in corpus("stream") {
        let Told { entries, error, .. } = decode(&data, &[], BatchLimits::default());
        assert_eq!(error, None, "{name}");
        assert_eq!(entries.last().map(|e| e.0), Some(data.len() as u64), "{name}: all of it is entries");
        checks::stream(&data);
    }
}

#[test]
fn a_stream_cut_at_every_byte_says_the_same() {
    for (name, data) in corpus("stream") {
        let data = &data[..data.len().min(3_000)];
        let whole = decode(data, &[], BatchLimits::default());
        for cut in 1..data.len() {
            let cut_in_two = decode(data, &[cut, usize::MAX], BatchLimits::default());
            assert_eq!(cut_in_two, whole, "{name} cut at {cut}");
        }
    }
}

/// Found by fuzzing: a line above the limit was taken when its end had come with it.
#[test]
fn a_line_that_is_too_long_is_refused_however_it_is_cut() {
    let line = [b"INCR ".as_slice(), &[b'k'; 300], b"\r\n"].concat();
    checks::stream(&line);
    assert!(decode(&line, &[], BatchLimits::default()).error.is_some());
}

#[test]
fn a_changed_stream_is_told_or_refused_and_never_more() {
    let mut random = fastrand::Rng::with_seed(0x5eed);
    for (_, data) in corpus("stream") {
        for _ in 0..400 {
            checks::stream(&mutate(window(&data, &mut random), &mut random));
        }
    }
}

#[test]
fn replies_hold_what_they_say_also_when_they_are_changed() {
    let mut random = fastrand::Rng::with_seed(7);
    for (_, data) in corpus("reply") {
        checks::replies(&data);
        for _ in 0..3_000 {
            checks::replies(&mutate(&data, &mut random));
        }
    }
}

#[test]
fn changed_commands_have_keys_within_their_arguments() {
    let mut random = fastrand::Rng::with_seed(11);
    for (_, data) in corpus("stream") {
        let told = decode(&data, &[], BatchLimits::default());
        for (_, argv) in told.entries.iter().flat_map(|e| &e.2) {
            let lines = argv.join(&b'\n');
            checks::commands(&lines);
            for _ in 0..20 {
                checks::commands(&mutate(&lines, &mut random));
            }
        }
    }
}
