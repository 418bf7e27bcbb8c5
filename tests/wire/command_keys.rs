//! Keys as we find them and as the servers do: `COMMAND GETKEYS` and `GETKEYSANDFLAGS`.

use crate::server::{Server, Value, installed};
use redis_duplex::wire::command::{Access, keys};
use redis_duplex::wire::dialect::Dialect;
use std::collections::BTreeSet;

/// Beside those of the rewrite corpus: what is hard to find keys in.
const SAMPLES: &[&str] = &[
    "EVAL script 2 a b c",
    "EVAL script 0 c",
    "EVALSHA sha 1 a c",
    "FCALL f 1 a c",
    "SORT k",
    "SORT k BY w_* GET # LIMIT 0 5 STORE d",
    "SORT k STORE d STORE e",
    "SORT k BY store LIMIT 0 store STORE d",
    "SORT_RO k BY w_*",
    "GEORADIUS k 1 1 9 km STORE d",
    "GEORADIUS k 1 1 9 km WITHDIST COUNT 5 ANY STOREDIST d",
    "GEORADIUSBYMEMBER k m 9 km STORE d",
    "MIGRATE h 6379 k 0 100",
    "ZUNIONSTORE d 2 a b WEIGHTS 1 2",
    "ZINTERSTORE d 1 a AGGREGATE MAX",
    "ZDIFFSTORE d 2 a b",
    "ZUNION 2 a b",
    "SINTERCARD 2 a b LIMIT 1",
    "ZINTERCARD 2 a b",
    "LMPOP 2 a b LEFT",
    "BLMPOP 0 2 a b LEFT",
    "ZMPOP 2 a b MIN",
    "BZMPOP 0 2 a b MIN",
    "BITOP AND d a b",
    "BITOP NOT d a",
    "COPY a b",
    "MSET a 1 b 2",
    "MSETNX a 1 b 2",
    "MGET a b c",
    "DEL a b c",
    "UNLINK a",
    "TOUCH a b",
    "EXISTS a b",
    "RENAME a b",
    "RENAMENX a b",
    "SMOVE a b m",
    "SINTERSTORE d a b",
    "SUNIONSTORE d a",
    "PFMERGE d a b",
    "PFMERGE d",
    "PFCOUNT a b",
    "XREAD COUNT 2 STREAMS a b 0 0",
    "XREADGROUP GROUP STREAMS c COUNT 2 STREAMS a b > >",
    "XGROUP CREATE k g $",
    "XGROUP DESTROY k g",
    "XINFO STREAM k",
    "XAUTOCLAIM k g c 0 0",
    "BLPOP a b 0",
    "BRPOPLPUSH a b 0",
    "BZPOPMIN a b 0",
    "LCS a b",
    "OBJECT ENCODING k",
    "MEMORY USAGE k",
    "GEOSEARCHSTORE d k FROMLONLAT 1 1 BYRADIUS 9 km",
    "RESTORE k 0 x",
    "HSETEX k EX 10 FIELDS 1 f v",
    "WATCH a b",
    "GETEX k",
    "PFDEBUG ENCODING k",
];

#[test]
fn keys_are_where_the_servers_find_them() {
    let corpus = include_str!("../corpus/rewrite/cases.txt");
    let cases = corpus.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once("=>"));
    let mut commands: BTreeSet<&str> = SAMPLES.iter().copied().collect();
    commands.extend(cases.flat_map(|(_, commands)| commands.split(';')));
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for name in installed() {
        let server = Server::start(name);
        let mut client = server.client();
        let info = client.call(&["INFO", "server"]);
        let dialect = Dialect::from_info(info.text().expect("text")).expect("a server we know");
        let flags = dialect.speaks_redis(7, 0);
        for command in &commands {
            let argv: Vec<&str> = command.split_whitespace().collect();
            let question = if flags { "GETKEYSANDFLAGS" } else { "GETKEYS" };
            let Value::List(theirs) = client.call(&[&["COMMAND", question][..], &argv].concat()) else {
                continue; // a command that this server does not have, or that has no keys
            };
            asked += 1;
            let Some(ours) = keys(&argv) else {
                wrong.push(format!("{name}: {command}: we find none"));
                continue;
            };
            // Ours on purpose: MOVE names the key's two databases, XREADGROUP is a write. Theirs by mistake: TOUCH of 5.0.
            let mut named = BTreeSet::new();
            let mut ours: Vec<(String, bool)> = ours
                .iter()
                .filter(|k| named.insert(k.arg))
                .map(|k| (argv[k.arg as usize].to_owned(), k.access.writes()))
                .collect();
            let mut theirs: Vec<(String, bool)> = theirs
                .iter()
                .map(|key| match key {
                    Value::List(pair) => {
                        let reads = pair[1].list().iter().any(|flag| flag.text() == Some("RO"));
                        (pair[0].text().expect("a key").to_owned(), !reads)
                    }
                    key => (key.text().expect("a key").to_owned(), false),
                })
                .collect();
            ours.sort();
            theirs.sort();
            if !flags || command.starts_with("XREADGROUP") {
                ours.iter_mut().for_each(|key| key.1 = false);
            }
            if ours != theirs && (name, *command) != ("redis-5.0", "TOUCH a b") {
                wrong.push(format!("{name}: {command}: {ours:?}, the server says {theirs:?}"));
            }
        }
    }
    assert!(asked > 40, "too few questions were answered: {asked}");
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_a_key_specification_can_not_say_is_known() {
    let access = |command: &str| {
        let argv: Vec<&str> = command.split_whitespace().collect();
        keys(&argv).map(|keys| keys.iter().map(|k| (k.arg, k.db)).collect::<Vec<_>>())
    };
    assert_eq!(access("MOVE k 3"), Some(vec![(1, None), (1, Some(3))]));
    assert_eq!(access("COPY a b DB 2 REPLACE"), Some(vec![(1, None), (2, Some(2))]));
    assert_eq!(access("MIGRATE h 1 k 0 9 AUTH KEYS"), Some(vec![(3, None)]));
    assert_eq!(access("CMS.MERGE d 2 a b WEIGHTS 1 2"), Some(vec![(1, None), (3, None), (4, None)]));
    assert_eq!(access("NOSUCH k"), None);
    assert_eq!(access("EVAL s 3 a b"), None, "fewer keys than it says");
    assert_eq!(access("EVAL s -1 a"), None);
    assert_eq!(access("ZUNIONSTORE d 18446744073709551615 a"), None);
    assert_eq!(access("XREADGROUP GROUP g c STREAMS"), None);
    assert!(!keys(&["SORT", "k", "BY", "w_*", "STORE", "d"]).expect("keys").complete);
    assert!(keys(&["SORT", "k", "BY", "nosort", "STORE", "d"]).expect("keys").complete);

    let of = |command: &str| {
        let argv: Vec<&str> = command.split_whitespace().collect();
        keys(&argv).expect("keys")[0].access
    };
    assert!(of("DEL k").removes() && of("DEL k").has(Access::DELETE) && !of("DEL k").reads());
    assert!(of("INCR k").writes() && of("INCR k").reads());
    assert!(of("MSET k v").overwrites() && !of("MSET k v").reads());
    assert!(!of("GET k").writes());
    assert!(of("XREADGROUP GROUP g c STREAMS k >").writes());
}
