//! Every command of `tests/corpus/rewrite/cases.txt` on every server; what its stream then says, put in the words of
//! every other server and applied there; both keyspaces compared.
//!
//! `tests/corpus/rewrite/table.txt` is what came out: `DUPLEX_UPDATE_TABLE=1 cargo test --test wire rewrite_matrix`
//! writes it anew.

use crate::server::{Client, SERVERS, Server, Value, installed};
use bytes::{Bytes, BytesMut};
use redis_duplex::wire::command::lookup;
use redis_duplex::wire::dialect::Dialect;
use redis_duplex::wire::rewrite::{Line, Rewrite, rewrite};
use redis_duplex::wire::stream::{Batch, Decoder};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const DATABASES: [u32; 3] = [0, 1, 3];

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

fn dialect(client: &mut Client) -> Dialect {
    Dialect::from_info(client.call(&["INFO", "server"]).text().expect("text")).expect("a server we know")
}

/// A replica that keeps nothing: it reads its master's stream.
struct Replica {
    client: Client,
    buf: BytesMut,
    decoder: Decoder,
}

impl Replica {
    fn attach(server: &Server) -> Replica {
        let mut client = server.client();
        for hello in [&["REPLCONF", "listening-port", "1"][..], &["REPLCONF", "capa", "eof", "capa", "psync2"]] {
            client.call(hello);
        }
        client.call(&["REPLCONF", "version", "9.1.2"]); // Valkey picks its RDB format by it; others refuse
        client.send(&["PSYNC", "?", "-1"]);
        let mut replica = Replica { client, buf: BytesMut::new(), decoder: Decoder::new(0) };
        while !replica.line().starts_with("+FULLRESYNC") {}
        let header = loop {
            let line = replica.line();
            if !line.is_empty() {
                break line;
            }
        };
        match header.strip_prefix("$EOF:") {
            Some(mark) => {
                let mark = mark.as_bytes().to_vec();
                let end = loop {
                    if let Some(at) = replica.buf.windows(mark.len()).position(|w| w == mark) {
                        break at + mark.len();
                    }
                    replica.more();
                };
                let _ = replica.buf.split_to(end);
            }
            None => {
                let size: usize = header.trim_start_matches('$').parse().expect("a size");
                while replica.buf.len() < size {
                    replica.more();
                }
                let _ = replica.buf.split_to(size);
            }
        }
        replica
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.buf.iter().position(|&b| b == b'\n') {
                return String::from_utf8_lossy(&self.buf.split_to(at + 1)).trim_end().to_owned();
            }
            self.more();
        }
    }

    fn more(&mut self) {
        let mut chunk = [0u8; 4096];
        let n = self.client.socket.read(&mut chunk).expect("the master goes on");
        assert!(n > 0, "the master closed the connection");
        self.buf.extend_from_slice(&chunk[..n]);
    }

    /// All commands up to one that sets this key.
    fn until(&mut self, mark: &str) -> Vec<(u32, Vec<Bytes>)> {
        let mut commands = Vec::new();
        let mut batch = Batch::default();
        loop {
            let available = self.buf.clone().freeze();
            let consumed = self.decoder.decode(&available, &mut batch).expect("a stream");
            for command in &batch.commands {
                commands.push((command.db, batch.argv(command).map(Bytes::copy_from_slice).collect()));
            }
            let _ = self.buf.split_to(consumed);
            if let Some(at) = commands.iter().position(|(_, c): &(u32, Vec<Bytes>)| c.get(1).is_some_and(|k| k == mark))
            {
                assert_eq!(at + 1, commands.len(), "the mark is the last thing that was said");
                commands.truncate(at);
                return commands;
            }
            if consumed == 0 {
                self.more();
            }
        }
    }

    /// A master that sent its snapshot without a file says nothing before it has heard an ACK that it heeds.
    fn wake(&mut self, client: &mut Client) {
        client.call(&["SET", "mark", "0"]);
        self.client.socket.set_read_timeout(Some(std::time::Duration::from_millis(20))).expect("a deadline");
        let deadline = Instant::now() + std::time::Duration::from_secs(30);
        while self.buf.is_empty() {
            assert!(Instant::now() < deadline, "the master stays silent");
            self.client.send(&["REPLCONF", "ACK", "0"]);
            let mut chunk = [0u8; 4096];
            if let Ok(n) = self.client.socket.read(&mut chunk) {
                self.buf.extend_from_slice(&chunk[..n]);
            }
        }
        self.client.socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("a deadline");
        self.until("mark");
    }
}

/// What a keyspace holds: values as text, and times at which something expires.
#[derive(Debug, Default, PartialEq)]
struct Keyspace {
    values: BTreeMap<String, String>,
    deadlines: BTreeMap<String, i64>,
    field_deadlines: BTreeMap<String, i64>,
}

impl Keyspace {
    fn read(client: &mut Client, dialect: Dialect) -> Keyspace {
        let mut all = Keyspace::default();
        for db in DATABASES {
            client.call(&["SELECT", &db.to_string()]);
            for key in client.call(&["KEYS", "*"]).list() {
                let key = key.text().expect("a key of ours");
                if !key.starts_with("mark") {
                    all.read_key(client, dialect, db, key);
                }
            }
        }
        client.call(&["SELECT", "0"]);
        all
    }

    fn read_key(&mut self, client: &mut Client, dialect: Dialect, db: u32, key: &str) {
        let path = format!("{db}/{key}");
        let kind = client.call(&["TYPE", key]);
        let kind = kind.text().expect("a type");
        let mut value = match kind {
            "string" => client.call(&["GET", key]),
            "list" => client.call(&["LRANGE", key, "0", "-1"]),
            "set" => client.call(&["SMEMBERS", key]),
            "hash" => client.call(&["HGETALL", key]),
            "zset" => client.call(&["ZRANGE", key, "0", "-1", "WITHSCORES"]),
            "stream" => client.call(&["XRANGE", key, "-", "+"]),
            _ => Value::Null,
        };
        if let Value::List(list) = &mut value {
            match kind {
                "set" => list.sort_by_key(|v| format!("{v:?}")),
                "hash" => {
                    let mut pairs: Vec<_> = list.chunks(2).map(<[Value]>::to_vec).collect();
                    pairs.sort_by_key(|p| format!("{p:?}"));
                    *list = pairs.concat();
                }
                // Versions write large scores differently.
                "zset" => list.iter_mut().skip(1).step_by(2).for_each(|score| {
                    let number: f64 = score.text().and_then(|t| t.parse().ok()).expect("a score");
                    *score = Value::Text(format!("{number}").into_bytes());
                }),
                _ => {}
            }
        }
        let mut text = format!("{kind} {value:?}");
        if kind == "stream" {
            for group in client.call(&["XINFO", "GROUPS", key]).list() {
                let field = |name: &str| {
                    let at = group.list().iter().position(|v| v.text() == Some(name)).expect("a field");
                    group.list()[at + 1].clone()
                };
                let name = field("name");
                let name = name.text().expect("a name");
                let pending = client.call(&["XPENDING", key, name, "-", "+", "10"]);
                let pending: Vec<_> =
                    pending.list().iter().map(|p| [&p.list()[0], &p.list()[1], &p.list()[3]]).collect();
                write!(text, " {name} {:?} {pending:?}", field("last-delivered-id")).expect("text");
            }
        }
        if kind == "hash" && dialect.has_field_ttl() {
            for pair in client.call(&["HGETALL", key]).list().chunks(2) {
                let field = pair[0].text().expect("a field");
                let at = client.call(&["HPEXPIRETIME", key, "FIELDS", "1", field]).list()[0].int();
                self.field_deadlines.insert(format!("{path}/{field}"), at);
            }
        }
        let ttl = client.call(&["PTTL", key]).int();
        self.deadlines.insert(path.clone(), if ttl > 0 { now_ms() as i64 + ttl } else { ttl });
        self.values.insert(path, text);
    }

    /// Equal, but for the times that it takes to run a command here and there.
    fn same(&self, other: &Keyspace, fields: bool) -> bool {
        let near = |a: &BTreeMap<String, i64>, b: &BTreeMap<String, i64>| {
            a.keys().eq(b.keys()) && a.values().zip(b.values()).all(|(a, b)| (a - b).abs() < 3_000)
        };
        self.values == other.values
            && near(&self.deadlines, &other.deadlines)
            && (!fields || near(&self.field_deadlines, &other.field_deadlines))
    }
}

/// One case on one source.
struct Capture {
    case: String,
    source: &'static str,
    /// The stream with times left out: sources that say the same are applied once.
    shape: String,
    commands: Vec<(u32, Vec<Bytes>)>,
    read_at_ms: u64,
    keyspace: Keyspace,
    expires_fields: bool,
}

fn shape(words: &[impl AsRef<[u8]>]) -> String {
    let one = |word: &[u8]| {
        let digits = word.iter().take_while(|b| b.is_ascii_digit()).count();
        match std::str::from_utf8(word) {
            Ok(text) if digits >= 12 => format!("<ms>{}", &text[digits..]),
            Ok(text) if text.chars().all(|c| !c.is_control()) && !text.is_empty() => text.to_owned(),
            _ => match word {
                [kind, .., lo, hi, _, _, _, _, _, _, _, _] => {
                    format!("<type {kind} of RDB {}>", u16::from_le_bytes([*lo, *hi]))
                }
                _ => "<bytes>".to_owned(),
            },
        }
    };
    words.iter().map(|w| one(w.as_ref())).collect::<Vec<_>>().join(" ")
}

fn run(client: &mut Client, command: &str) -> Value {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[..] {
        ["DUMPED", from, to, ttl] => {
            let Value::Text(payload) = client.call(&["DUMP", from]) else { return Value::Error("no key".into()) };
            client.call(&[b"RESTORE", to.as_bytes(), ttl.as_bytes(), &payload])
        }
        _ => client.call(&words),
    }
}

fn capture(name: &'static str, cases: &[&str]) -> Vec<Capture> {
    let server = Server::start(name);
    let mut client = server.client();
    let dialect = dialect(&mut client);
    let mut replica = Replica::attach(&server);
    replica.wake(&mut client);
    let mut captures = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        let (setup, commands) = case.split_once("=>").expect("a case has an arrow");
        client.call(&["FLUSHALL"]);
        let mark = format!("mark:{n}");
        client.call(&["SET", &mark, "1"]);
        replica.until(&mark);
        let mut known = true;
        for command in setup.split(';').chain(commands.split(';')).filter(|c| !c.is_empty()) {
            known &= run(&mut client, command).error().is_none();
        }
        client.call(&["DISCARD"]);
        let keyspace = Keyspace::read(&mut client, dialect);
        let end = format!("end:{n}");
        client.call(&["SET", &end, "1"]);
        let commands = replica.until(&end);
        if known {
            captures.push(Capture {
                case: (*case).to_owned(),
                source: name,
                shape: commands.iter().map(|(_, c)| shape(c)).collect::<Vec<_>>().join(" | "),
                commands,
                read_at_ms: now_ms(),
                keyspace,
                expires_fields: dialect.has_field_ttl(),
            });
        }
    }
    captures
}

fn words(line: &Line, original: &[Bytes]) -> Vec<Bytes> {
    line.iter().map(|word| Bytes::copy_from_slice(word.bytes(original))).collect()
}

/// Puts a capture on a target: what was said there (only what differs), and what went wrong.
fn apply(capture: &Capture, client: &mut Client, target: Dialect) -> (String, Option<String>) {
    client.call(&["FLUSHALL"]);
    let (mut told, mut errors, mut by_state) = (Vec::new(), Vec::new(), false);
    for (db, argv) in &capture.commands {
        if lookup(argv).is_some_and(|spec| spec.module && !spec.known_to(&target)) {
            return ("a module's".into(), None);
        }
        let lines = match rewrite(argv, capture.read_at_ms, target) {
            Rewrite::AsIs => vec![argv.clone()],
            Rewrite::Commands(lines) => {
                let lines: Vec<_> = lines.iter().map(|line| words(line, argv)).collect();
                told.push(lines.iter().map(|line| shape(line)).collect::<Vec<_>>().join(" + "));
                lines
            }
            Rewrite::Drop => {
                told.push(format!("drops {}", shape(argv)));
                continue;
            }
            Rewrite::State => {
                told.push(format!("state for {}", shape(argv)));
                by_state = true;
                continue;
            }
        };
        client.call(&["SELECT", &db.to_string()]);
        for line in lines {
            if let Some(error) = client.call(&line).error() {
                errors.push(format!("{}: {error}", shape(&line)));
            }
        }
    }
    let told = told.join("; ");
    if by_state {
        return (told, None); // what came later stands on what was not said
    }
    if errors.is_empty() {
        let there = Keyspace::read(client, target);
        if !there.same(&capture.keyspace, capture.expires_fields && target.has_field_ttl()) {
            errors.push(format!("there: {:?}\nhere:  {there:?}", capture.keyspace));
        }
    }
    let _ = client.socket.flush();
    let errors = (!errors.is_empty()).then(|| errors.join("\n"));
    (told, errors)
}

#[test]
fn what_a_stream_says_is_so_on_every_other_server() {
    let text = include_str!("../corpus/rewrite/cases.txt");
    let cases: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let here = installed();
    let captures: Vec<Capture> = here.iter().flat_map(|name| capture(name, &cases)).collect();

    // Sources that say the same in one case are one.
    let mut distinct: BTreeMap<(usize, &str), Vec<&Capture>> = BTreeMap::new();
    for capture in &captures {
        let number = cases.iter().position(|case| *case == capture.case).expect("a case");
        distinct.entry((number, &capture.shape)).or_default().push(capture);
    }
    let mut wrong = Vec::new();
    let mut table: BTreeMap<(usize, &str), BTreeMap<String, Vec<&str>>> = BTreeMap::new();
    for target in &here {
        let server = Server::start(target);
        let mut client = server.client();
        let dialect = dialect(&mut client);
        for (which, captures) in &distinct {
            let capture = captures[0];
            let (told, errors) = apply(capture, &mut client, dialect);
            if captures.iter().any(|c| c.source == *target) && told.contains("state for") {
                wrong.push(format!("{target} can't be told its own words {:?}: {told}", capture.shape));
            }
            if let Some(errors) = errors {
                wrong.push(format!("{} from {} to {target}, {told:?}:\n{errors}", capture.case, capture.source));
            }
            if !told.is_empty() {
                table.entry(*which).or_default().entry(told).or_default().push(target);
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    if here.len() < SERVERS.len() {
        return;
    }
    let mut out = String::new();
    for ((number, shape), rows) in &table {
        writeln!(out, "{}\n  in the stream: {shape}", cases[*number]).expect("text");
        for (told, targets) in rows {
            writeln!(out, "    {}\n      {told}", targets.join(" ")).expect("text");
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/rewrite/table.txt");
    if std::env::var_os("DUPLEX_UPDATE_TABLE").is_some() {
        std::fs::write(path, out).expect("the table is written");
    } else {
        let before = std::fs::read_to_string(path).expect("the table");
        assert!(before == out, "what is said to the servers has changed; DUPLEX_UPDATE_TABLE=1 shows how");
    }
}
