//! The rules without servers; with them, see `tests/wire/rewrite_matrix.rs`.

use super::*;

const NOW: u64 = 1_000_000;
const OLD: Dialect = Dialect::redis(5, 0);
const MID: Dialect = Dialect::redis(6, 2);
const NEW: Dialect = Dialect::redis(8, 6);
const VALKEY: Dialect = Dialect::valkey(9, 1);

fn told(command: &str, target: Dialect) -> String {
    let argv: Vec<&str> = command.split(' ').collect();
    match rewrite(&argv, NOW, target) {
        Rewrite::AsIs => "as is".into(),
        Rewrite::State => "state".into(),
        Rewrite::Drop => "drop".into(),
        Rewrite::Commands(lines) => {
            let text = |word: &Word| String::from_utf8_lossy(word.bytes(&argv)).into_owned();
            let line = |line: &Line| line.iter().map(text).collect::<Vec<_>>().join(" ");
            lines.iter().map(line).collect::<Vec<_>>().join(" | ")
        }
    }
}

#[test]
fn relative_times_are_counted_from_when_the_command_was_read() {
    for (command, new, old) in [
        ("SETEX k 10 v", "SET k v PXAT 1010000", "SET k v | PEXPIREAT k 1010000"),
        ("psetex k 10 v", "SET k v PXAT 1000010", "SET k v | PEXPIREAT k 1000010"),
        ("SET k v EX 10", "SET k v PXAT 1010000", "SET k v | PEXPIREAT k 1010000"),
        ("SET k v px 10 nx", "SET k v nx PXAT 1000010", "SET k v | PEXPIREAT k 1000010"),
        ("SET k v EXAT 2000", "SET k v PXAT 2000000", "SET k v | PEXPIREAT k 2000000"),
        ("EXPIRE k 10", "PEXPIREAT k 1010000", "PEXPIREAT k 1010000"),
        ("PEXPIRE k 10 GT", "PEXPIREAT k 1000010 GT", "PEXPIREAT k 1000010"),
        ("GETEX k EX 10", "PEXPIREAT k 1010000", "PEXPIREAT k 1010000"),
        ("GETEX k PERSIST", "PERSIST k", "PERSIST k"),
        ("EXPIRE k 9223372036854775807", "PEXPIREAT k 9223372036854775807", "PEXPIREAT k 9223372036854775807"),
    ] {
        assert_eq!(told(command, NEW), new, "{command}");
        assert_eq!(told(command, OLD), old, "{command}");
    }
    assert_eq!(told("HEXPIRE h 10 NX FIELDS 1 f", VALKEY), "HPEXPIREAT h 1010000 NX FIELDS 1 f");
    assert_eq!(told("HSETEX h EX 10 FIELDS 1 f v", NEW), "HSETEX h PXAT 1010000 FIELDS 1 f v");
    assert_eq!(
        told("HSETEX h EX 10 FIELDS 2 f v g w", Dialect::redis(7, 4)),
        "HSET h f v g w | HPEXPIREAT h 1010000 FIELDS 2 f g"
    );
}

#[test]
fn what_every_server_knows_is_left_alone() {
    for command in [
        "GET k",
        "SET k v",
        "SET k v NX",
        "set k v XX",
        "INCRBY k 1",
        "DEL a b",
        "LPUSH k v",
        "HSET h f v",
        "ZADD z NX 1 m",
        "XADD s 1-1 f v",
        "XADD s MAXLEN = 5 1-1 f v",
        "PEXPIREAT k 5",
        "EXPIREAT k 5",
        "XCLAIM s g c 0 1-1 TIME 5 RETRYCOUNT 1 FORCE JUSTID LASTID 1-1",
        "LPOP k",
        "BITOP NOT d s",
        "FLUSHALL ASYNC",
        "JSON.SET k $ 1",
        "NO.SUCH thing",
    ] {
        for target in [OLD, MID, NEW, VALKEY] {
            assert_eq!(told(command, target), "as is", "{command} to {target}");
        }
    }
    assert_eq!(told("SET k v PXAT 5", MID), "as is");
    assert_eq!(told("SET k v KEEPTTL", Dialect::redis(6, 0)), "as is");
}

#[test]
fn older_targets_get_older_words() {
    for (command, target, expected) in [
        ("SET k v KEEPTTL", OLD, "state"),
        ("SET k v IFEQ w", MID, "SET k v"),
        ("SET k v IFEQ w", VALKEY, "as is"),
        ("SET k v IFDEQ w", VALKEY, "SET k v"),
        ("GETDEL k", OLD, "DEL k"),
        ("DELEX k IFEQ v", VALKEY, "DEL k"),
        ("DELIFEQ k v", NEW, "DEL k"),
        ("COPY a b", OLD, "state"),
        ("LMOVE a b RIGHT LEFT", OLD, "RPOPLPUSH a b"),
        ("LMOVE a b LEFT LEFT", OLD, "state"),
        ("LPOP k 3", OLD, "LTRIM k 3 -1"),
        ("RPOP k 3", OLD, "LTRIM k 0 -4"),
        ("ZADD z GT 5 m", OLD, "ZADD z 5 m"),
        ("ZADD z GT CH 5 m", OLD, "ZADD z CH 5 m"),
        ("ZADD z GT 5 m 6 n", OLD, "state"),
        ("ZRANGESTORE d z 0 -1", OLD, "state"),
        ("MSETEX 2 a 1 b 2", MID, "MSET a 1 b 2"),
        ("MSETEX 1 a 1 NX PXAT 5", OLD, "SET a 1 | PEXPIREAT a 5"),
        ("MSETEX 2 a 1 b 2 PXAT 5", MID, "SET a 1 PXAT 5 | SET b 2 PXAT 5"),
        ("HSETEX h KEEPTTL FIELDS 1 f v", MID, "HSET h f v"),
        ("HSETEX h KEEPTTL FIELDS 1 f v", Dialect::redis(7, 4), "state"),
        ("HGETDEL h FIELDS 2 f g", NEW, "as is"),
        ("HGETDEL h FIELDS 2 f g", MID, "HDEL h f g"),
        ("HPEXPIREAT h 5 FIELDS 1 f", MID, "state"),
        ("XADD s NOMKSTREAM MAXLEN 3 5-1 f v", OLD, "XADD s MAXLEN 3 5-1 f v"),
        ("XADD s MINID = 1-1 LIMIT 10 5-1 f v", NEW, "XADD s MINID = 1-1 5-1 f v"),
        ("XADD s LIMIT 1 MINID = 1-1 LIMIT 10 5-1 f v", NEW, "XADD s MINID = 1-1 5-1 f v"),
        ("XADD s MINID = 1-1 5-1 f v", OLD, "state"),
        ("XADD s IDMP p i 5-1 f v", MID, "XADD s 5-1 f v"),
        ("XADD s IDMP p i 5-1 f v", NEW, "XADD s 5-1 f v | XIDMPRECORD s p i 5-1"),
        ("XADD s KEEPREF MAXLEN 1 5-1 f v", VALKEY, "XADD s MAXLEN 1 5-1 f v"),
        ("XTRIM s MAXLEN 1 ACKED", VALKEY, "state"),
        ("XDELEX s KEEPREF IDS 2 1-1 2-1", MID, "XDEL s 1-1 2-1"),
        ("XDELEX s DELREF IDS 1 1-1", MID, "state"),
        ("XACKDEL s g IDS 1 1-1", MID, "XACK s g 1-1 | XDEL s 1-1"),
        ("XACKDEL s g IDS 2 1-1 2-1", MID, "state"),
        ("XSETID s 9-9 ENTRIESADDED 5 MAXDELETEDID 1-1", MID, "XSETID s 9-9"),
        ("XGROUP CREATE s g 0 MKSTREAM ENTRIESREAD 1", MID, "XGROUP CREATE s g 0 MKSTREAM"),
        ("XGROUP CREATECONSUMER s g c", OLD, "drop"),
        ("XIDMPRECORD s p i 1-1", VALKEY, "drop"),
        ("BITOP DIFF d a b", VALKEY, "state"),
        ("FLUSHDB SYNC", OLD, "FLUSHDB"),
        ("SPUBLISH c m", OLD, "drop"),
        ("FUNCTION FLUSH", MID, "drop"),
    ] {
        assert_eq!(told(command, target), expected, "{command} to {target}");
    }
}

#[test]
fn a_payload_goes_where_its_format_and_type_are_read() {
    let payload = |kind: u8, version: u16| {
        let mut bytes = vec![kind, b'x'];
        bytes.extend(version.to_le_bytes());
        bytes.extend([0; 8]);
        bytes
    };
    let told = |payload: &[u8], target| rewrite(&[b"RESTORE", b"k".as_slice(), b"0", payload], NOW, target);
    assert_eq!(told(&payload(0, 9), OLD), Rewrite::AsIs);
    assert_eq!(told(&payload(18, 10), OLD), Rewrite::State);
    assert_eq!(told(&payload(20, 12), VALKEY), Rewrite::State, "numbers of Redis that Valkey refuses");
    assert_eq!(told(&payload(22, 80), VALKEY), Rewrite::AsIs);
    assert_eq!(told(&payload(22, 80), NEW), Rewrite::State);
    assert_eq!(told(&payload(25, 12), NEW), Rewrite::AsIs);
    assert_eq!(
        told(
            &payload(25, 12),
            Dialect { flavor: crate::wire::dialect::Flavor::Redict, version: (7, 3, 6), ..Dialect::redis(7, 0) }
        ),
        Rewrite::State
    );

    let argv: [&[u8]; 4] = [b"RESTORE-ASKING", b"k", b"50", &payload(0, 9)];
    let Rewrite::Commands(lines) = rewrite(&argv, NOW, OLD) else { panic!("a relative time") };
    let words: Vec<&[u8]> = lines[0].iter().map(|w| w.bytes(&argv)).collect();
    assert_eq!(words, [b"RESTORE", &b"k"[..], b"1000050", argv[3], b"ABSTTL"]);
}
