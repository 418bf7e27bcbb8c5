//! Commands and values as text, for operators who ask for them: short, on one line, and whole in what they show.

use crate::wire::command::Argv;
use crate::wire::dialect::Dialect;
use crate::wire::rdb::KeyEntry;
use crate::wire::rdb::commands::rebuild;
use crate::wire::rdb::decode::{Element, decode};
use crate::wire::rdb::kind::{Logical, logical};
use crate::wire::rdb::payload::parse_dump;
use bytes::Bytes;
use std::fmt::Write;

/// Characters that are shown.
const SHOWN: usize = 256;
/// Values above this are not taken apart to show their beginning.
const BIG: usize = 64 << 10;

/// A command as redis-cli takes it, cut.
pub fn command(argv: &(impl Argv + ?Sized)) -> Box<str> {
    let mut out = String::new();
    for n in 0..argv.argc() {
        if !argument(&mut out, argv.arg(n)) {
            break;
        }
    }
    cut(out).into()
}

/// A value as DUMP gives it: a string as it is, anything else as the commands that make it. Nothing for what is big, or
/// has no commands (a module's).
pub fn value(key: &[u8], dump: &Bytes) -> Option<String> {
    if dump.len() > BIG {
        return None;
    }
    let (kind, value, _) = parse_dump(dump).ok()?;
    let value = dump.slice_ref(value);
    let mut out = String::new();
    if logical(kind) == Some(Logical::String) {
        let mut whole = Vec::new();
        let take = |element| {
            if let Element::Text(piece) = element {
                whole.extend_from_slice(&piece);
            }
        };
        decode(kind, &value, take).ok()?;
        argument(&mut out, &whole);
        return Some(cut(out));
    }
    let entry =
        KeyEntry { db: 0, key: Bytes::copy_from_slice(key), kind, value, expire_ms: None, idle: None, freq: None };
    let mut commands = Vec::new();
    rebuild(&entry, Dialect::redis(8, 6), &mut commands).ok()?;
    // The first clears the way.
    for words in commands.iter().skip_while(|words| *words[0] == *b"UNLINK") {
        for (n, word) in words.iter().enumerate() {
            if n == 0 && !out.is_empty() {
                out.push(';');
            }
            if !argument(&mut out, word) {
                return Some(cut(out));
            }
        }
    }
    Some(cut(out))
}

/// Appends an argument, in quotes where redis-cli would need them; false once there is enough.
fn argument(out: &mut String, bytes: &[u8]) -> bool {
    if !out.is_empty() {
        out.push(' ');
    }
    // A character has four bytes at most.
    let bytes = &bytes[..bytes.len().min(4 * SHOWN + 4)];
    let plain = |b: &u8| *b > b' ' && *b != 0x7f && !matches!(b, b'"' | b'\'' | b'\\' | b';');
    match std::str::from_utf8(bytes) {
        Ok(word) if !word.is_empty() && bytes.iter().all(plain) && !word.chars().any(moves) => {
            out.push_str(word);
        }
        _ => {
            out.push('"');
            for chunk in bytes.utf8_chunks() {
                for c in chunk.valid().chars() {
                    match c {
                        '"' | '\\' => out.extend(['\\', c]),
                        '\n' => out.push_str("\\n"),
                        '\r' => out.push_str("\\r"),
                        '\t' => out.push_str("\\t"),
                        c if moves(c) => c.to_string().bytes().for_each(|b| _ = write!(out, "\\x{b:02x}")),
                        c => out.push(c),
                    }
                }
                chunk.invalid().iter().for_each(|b| _ = write!(out, "\\x{b:02x}"));
            }
            out.push('"');
        }
    }
    out.chars().nth(SHOWN).is_none()
}

/// Does something to a terminal instead of being seen: control characters, and those that turn the direction of text.
fn moves(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(SHOWN) {
        let before = text[..at].char_indices().next_back().map_or(0, |(at, _)| at);
        text.truncate(before);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rdb::payload::restore_payload;

    fn dump(kind: u8, value: &[u8]) -> Bytes {
        let mut out = bytes::BytesMut::new();
        restore_payload(kind, value, 11, &mut out);
        out.freeze()
    }

    #[test]
    fn a_command_is_written_as_redis_cli_takes_it() {
        assert_eq!(&*command(&["SET", "k", "v"]), "SET k v");
        assert_eq!(&*command(&["SET", "a key", ""]), r#"SET "a key" """#);
        assert_eq!(&*command(&[&b"SET"[..], b"k", b"\x00\xff\"\\\n\x1b[2J"]), r#"SET k "\x00\xff\"\\\n\x1b[2J""#);
        assert_eq!(&*command(&["SET", "k", "值"]), "SET k 值");
        assert_eq!(&*command(&["SET", "k", "\u{9b}2J"]), r#"SET k "\xc2\x9b2J""#, "a control character of two bytes");
        assert_eq!(&*command(&["SET", "k", "\u{202e}x"]), r#"SET k "\xe2\x80\xaex""#);
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        let long = command(&["APPEND".to_owned(), "k".into(), "值".repeat(5_000), "never seen".into()]);
        assert_eq!((long.chars().count(), long.ends_with("值…")), (SHOWN, true));
        let exact = command(&["X".to_owned(), "y".repeat(SHOWN - 2)]);
        assert_eq!((exact.chars().count(), exact.ends_with('y')), (SHOWN, true));
        let many = command(&vec!["member"; 100_000]);
        assert_eq!(many.chars().count(), SHOWN);
    }

    #[test]
    fn values_are_shown_by_what_makes_them() {
        assert_eq!(value(b"k", &dump(0, b"\x05a b\x00c")).as_deref(), Some(r#""a b\x00c""#));
        assert_eq!(value(b"k", &dump(1, b"\x02\x02a1\x02b1")).as_deref(), Some("RPUSH k a1 b1"), "a list of two");
        assert_eq!(value(b"k", &dump(2, b"\x01\x01m")).as_deref(), Some("SADD k m"), "a set of one");
        assert_eq!(value(b"k", &Bytes::from_static(b"no dump")), None);
        assert_eq!(value(b"k", &Bytes::from(vec![0; BIG + 1])), None);
    }
}
