//! Generates `src/wire/command/table.rs` from the servers, and holds the checked-in one against them.
//!
//! `DUPLEX_UPDATE_TABLE=1 cargo test --test wire command_table` writes it anew; all servers have to be installed.

use crate::server::{SERVERS, Server, Value, installed};
use redis_duplex::wire::command::{Access, Spec, lookup_name};
use redis_duplex::wire::dialect::Dialect;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What one server says of one command.
#[derive(Debug, Clone, Default)]
struct Said {
    arity: i64,
    write: bool,
    container: bool,
    module: bool,
    keys: Vec<String>,
    /// In its documentation, as 100 * major + minor.
    since: Option<u16>,
}

type Book = BTreeMap<String, Said>;

fn ask(server: &Server) -> (Dialect, Book) {
    let mut client = server.client();
    let info = client.call(&["INFO", "server"]);
    let dialect = Dialect::from_info(info.text().expect("INFO is text")).expect("a server we know");
    let mut book = Book::new();
    for entry in client.call(&["COMMAND"]).list() {
        read(entry.list(), &mut book);
    }
    if dialect.speaks_redis(7, 0) {
        docs(client.call(&["COMMAND", "DOCS"]).list(), &mut book);
    }
    (dialect, book)
}

fn read(entry: &[Value], book: &mut Book) {
    let name = entry[0].text().expect("a name").to_ascii_lowercase();
    let has = |list: &Value, word: &str| list.list().iter().any(|f| f.text() == Some(word));
    let write = has(&entry[2], "write");
    let mut said = Said { arity: entry[1].int(), write, module: has(&entry[2], "module"), ..Said::default() };
    said.module |= name.contains('.') || name.starts_with("timeseries");
    if let Some(specs) = entry.get(8) {
        said.keys = specs.list().iter().filter_map(key_spec).collect();
    } else {
        let (first, last, step) = (entry[3].int(), entry[4].int(), entry[5].int());
        if first > 0 {
            let last = if last < 0 { last } else { last - first };
            said.keys.push(render_key(if write { 1 } else { 0 }, &format!("Index({first})"), last, step, 0));
        }
    }
    if let Some(subcommands) = entry.get(9) {
        said.container = !subcommands.list().is_empty();
        for sub in subcommands.list() {
            read(sub.list(), book);
        }
    }
    book.insert(name, said);
}

fn render_key(access: u8, begin: &str, last: i64, step: i64, limit: i64) -> String {
    format!("k({access}, {begin}, Range {{ last: {last}, step: {step}, limit: {limit} }})")
}

fn map(list: &Value) -> BTreeMap<&str, &Value> {
    list.list().chunks(2).map(|pair| (pair[0].text().expect("a field"), &pair[1])).collect()
}

fn key_spec(value: &Value) -> Option<String> {
    let spec = map(value);
    let mut access = Access::RO;
    for flag in spec["flags"].list() {
        access = access.with(match flag.text()? {
            "RW" => Access::RW,
            "OW" => Access::OW,
            "RM" => Access::RM,
            "access" => Access::ACCESS,
            "insert" => Access::INSERT,
            "update" => Access::UPDATE,
            "delete" => Access::DELETE,
            "not_key" => return None, // a channel
            _ => continue,
        });
    }
    let (begin, find) = (map(spec["begin_search"]), map(spec["find_keys"]));
    let (at, how) = (map(begin["spec"]), map(find["spec"]));
    let begin = match begin["type"].text()? {
        "index" => format!("Index({})", at["index"].int()),
        "keyword" => format!("Keyword({:?}, {})", at["keyword"].text()?, at["startfrom"].int()),
        _ => return None, // SORT's patterns, dealt with by hand
    };
    Some(match find["type"].text()? {
        "range" => render_key(access.bits(), &begin, how["lastkey"].int(), how["keystep"].int(), how["limit"].int()),
        "keynum" => {
            let (count, first, step) = (how["keynumidx"].int(), how["firstkey"].int(), how["keystep"].int());
            let find = format!("Counted {{ count: {count}, first: {first}, step: {step} }}");
            format!("k({}, {begin}, {find})", access.bits())
        }
        _ => return None,
    })
}

fn docs(list: &[Value], book: &mut Book) {
    for pair in list.chunks(2) {
        let doc = map(&pair[1]);
        let since = doc.get("since").and_then(|v| v.text()).and_then(|text| {
            let mut parts = text.split('.').map(|p| p.parse::<u16>().ok());
            Some(parts.next()?? * 100 + parts.next()??)
        });
        if let Some(said) = book.get_mut(&pair[0].text().expect("a name").to_ascii_lowercase()) {
            said.since = since;
        }
        if let Some(subcommands) = doc.get("subcommands") {
            docs(subcommands.list(), book);
        }
    }
}

/// Where the servers' own word is missing or wrong.
fn mend(name: &str, said: &mut Said) {
    let one = |access: Access, at: u16| render_key(access.bits(), &format!("Index({at})"), 0, 1, 0);
    let change = Access::RW.with(Access::ACCESS).with(Access::UPDATE);
    let read = Access::RO.with(Access::ACCESS);
    match name {
        // It moves the group's position and fills the pending list, and is flagged as a write: not just a read.
        "xreadgroup" => said.keys.iter_mut().for_each(|k| *k = k.replacen("k(4,", &format!("k({},", change.bits()), 1)),
        // Modules name their first key only.
        "cms.merge" | "tdigest.merge" => {
            let counted = format!("k({}, Index(2), Counted {{ count: 0, first: 1, step: 1 }})", read.bits());
            said.keys = vec![one(change, 1), counted];
        }
        "ts.createrule" | "ts.deleterule" => said.keys = vec![one(change, 1), one(change, 2)],
        // The name of an index is no key; that of a suggestion dictionary is.
        _ if name.starts_with("ft.") && !name.starts_with("ft.sug") => said.keys.clear(),
        _ => {}
    }
    // `EVAL` and `PFCOUNT` are not flagged as writes but may change their keys.
    said.write |= said.keys.iter().any(|k| {
        let bits: u8 = k[2..].split(',').next().and_then(|b| b.parse().ok()).expect("access bits");
        bits & 3 != 0
    });
}

fn kind(name: &str, keyed: bool) -> &'static str {
    let container = name.split('|').next().expect("a name");
    match container {
        _ if keyed => "Keyed",
        "flushall" => "WholeDatabase(FlushAll)",
        "flushdb" => "WholeDatabase(FlushDb)",
        "swapdb" => "WholeDatabase(SwapDb)",
        "publish" | "spublish" => "Publish",
        "script" => "Script",
        "function" => "Function",
        "trimslots" => "Slots",
        "cluster" if name == "cluster|flushslot" => "Slots",
        _ if name.starts_with("ft.") => "SearchIndex",
        "ping" | "replconf" | "select" | "multi" | "exec" | "discard" | "watch" | "unwatch" | "auth" | "hello"
        | "quit" | "reset" | "echo" | "asking" | "readonly" | "readwrite" | "client" | "psync" | "sync"
        | "replicaof" | "slaveof" | "subscribe" | "unsubscribe" | "psubscribe" | "punsubscribe" | "ssubscribe"
        | "sunsubscribe" | "monitor" | "wait" | "waitaof" => "Control",
        _ => "Other",
    }
}

struct Row {
    said: Said,
    since: [u16; 3],
}

fn merge(books: &[(&'static str, Dialect, Book)]) -> BTreeMap<String, Row> {
    use redis_duplex::wire::dialect::Flavor;
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for (_, dialect, book) in books {
        let (column, version) = match dialect.flavor {
            Flavor::Redis => (0, dialect.version.0 * 100 + dialect.version.1),
            Flavor::Valkey => (1, dialect.version.0 * 100 + dialect.version.1),
            Flavor::Redict => (2, dialect.version.0 * 100 + dialect.version.1),
        };
        for (name, said) in book {
            let mut said = said.clone();
            mend(name, &mut said);
            let row = rows.entry(name.clone()).or_insert_with(|| Row { said: said.clone(), since: [0; 3] });
            // The documentation knows versions that are not at hand. What is older than the fork, the fork has had
            // from its first version on.
            let documented = said.since.filter(|_| !said.module).map(|v| if column > 0 { v.max(702) } else { v });
            if row.since[column] == 0 {
                row.since[column] = documented.filter(|d| *d <= version).unwrap_or(version);
            } else if let Some(v) = documented {
                row.since[column] = row.since[column].min(v);
            }
            row.said = said;
        }
    }
    // A container is what its subcommands are: as a whole it was asked about before 7.0, and is when one is unknown.
    let subcommands: Vec<(String, bool, bool)> = rows
        .iter()
        .filter_map(|(name, row)| Some((name.split_once('|')?.0.to_owned(), row.said.write, row.said.keys.is_empty())))
        .collect();
    for (container, write, keyless) in subcommands {
        let Some(row) = rows.get_mut(&container) else { continue };
        row.said.write |= write;
        if !keyless && row.said.keys.is_empty() {
            row.said.keys.push(String::new()); // rendered as none
        }
    }
    rows
}

fn render(rows: &BTreeMap<String, Row>) -> String {
    let mut out = String::from(
        "//! Generated by `tests/wire/command_table.rs` from the servers' COMMAND and COMMAND DOCS; do not edit.\n\n\
         use super::spec::Begin::{Index, Keyword};\n\
         use super::spec::Find::{Counted, Range};\n\
         use super::spec::Kind::*;\n\
         use super::spec::WholeDatabase::*;\n\
         use super::spec::{Access, Begin, Find, Finder, KeySpec, Kind, Rule, Spec};\n\n\
         const W: u8 = 1;\nconst CONTAINER: u8 = 2;\nconst MODULE: u8 = 4;\n\n\
         const fn k(access: u8, begin: Begin, find: Find) -> KeySpec {\n    \
         KeySpec { access: Access::of(access), begin, find }\n}\n\n\
         const fn c(\n    name: &'static str,\n    arity: i16,\n    flags: u8,\n    since: [u16; 3],\n    kind: Kind,\n    \
         keys: &'static [KeySpec],\n) -> Spec {\n    \
         let (write, container, module) = (flags & W != 0, flags & CONTAINER != 0, flags & MODULE != 0);\n    \
         Spec { name, kind, write, arity, container, module, since, rule: Rule::of(name), finder: Finder::of(name), keys }\n}\n\n\
         #[rustfmt::skip]\npub(super) static TABLE: &[Spec] = &[\n",
    );
    for (name, row) in rows {
        let said = &row.said;
        let flags: Vec<&str> = [(said.write, "W"), (said.container, "CONTAINER"), (said.module, "MODULE")]
            .into_iter()
            .filter_map(|(set, flag)| set.then_some(flag))
            .collect();
        let flags = if flags.is_empty() { "0".to_owned() } else { flags.join(" | ") };
        let keys = said.keys.join(", ");
        let kind = kind(name, !said.keys.is_empty());
        writeln!(out, "    c({name:?}, {}, {flags}, {:?}, {kind}, &[{keys}]),", said.arity, row.since).expect("text");
    }
    out.push_str("];\n");
    out
}

#[test]
fn the_checked_in_table_is_what_the_servers_say() {
    let here = installed();
    let books: Vec<_> = here
        .iter()
        .map(|name| {
            let (dialect, book) = ask(&Server::start(name));
            (*name, dialect, book)
        })
        .collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/wire/command/table.rs");
    if std::env::var_os("DUPLEX_UPDATE_TABLE").is_some() {
        assert_eq!(here.len(), SERVERS.len(), "a table of fewer servers would forget commands");
        std::fs::write(path, render(&merge(&books))).expect("the table is written");
        return;
    }
    if here.len() == SERVERS.len() {
        let checked_in = std::fs::read_to_string(path).expect("the table");
        let fresh = render(&merge(&books));
        let differs: Vec<_> = fresh.lines().filter(|line| !checked_in.contains(line)).take(10).collect();
        assert!(checked_in == fresh, "DUPLEX_UPDATE_TABLE=1 writes it anew; the first lines: {differs:#?}");
    }
    // With some servers missing: each command of those at hand is there, as a write where it is one.
    for (server, dialect, book) in &books {
        for (name, said) in book {
            let spec: &Spec =
                lookup_name(name.as_bytes()).unwrap_or_else(|| panic!("{name} of {server} is not in the table"));
            assert!(spec.write || !said.write, "{name} of {server} writes");
            assert!(spec.known_to(dialect), "{name}: the table says that {server} does not know it");
        }
    }
}
