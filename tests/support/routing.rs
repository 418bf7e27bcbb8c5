//! A proxy in front of a cluster, as people run them: one address, plain RESP, each command to the node of its key's slot,
//! MOVED and ASK seen to by itself. What such proxies do not do it refuses: cluster, connection and server commands,
//! replication, keys of several slots, and MULTI beyond one slot.

use super::{
    cluster::{SLOTS, slot},
    resp::{Argv, Client, Reply, read_reply},
};
use std::{
    collections::{BTreeSet, HashMap},
    io::{self, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const REFUSED: &[&str] = &[
    "CLUSTER",
    "PSYNC",
    "SYNC",
    "REPLCONF",
    "CLIENT",
    "SCAN",
    "KEYS",
    "RANDOMKEY",
    "INFO",
    "CONFIG",
    "SELECT",
    "DBSIZE",
    "FLUSHALL",
    "FLUSHDB",
    "SWAPDB",
    "MOVE",
    "PUBLISH",
    "SUBSCRIBE",
    "FUNCTION",
    "SCRIPT",
    "ACL",
    "COMMAND",
    "WATCH",
    "WAIT",
    "HELLO",
    "MEMORY",
    "MIGRATE",
    "DEBUG",
    "TIME",
    "ASKING",
    "READONLY",
    "MONITOR",
    "LATENCY",
    "SLOWLOG",
    "MODULE",
    "ROLE",
];

struct Shared {
    nodes: Vec<u16>,
    map: Mutex<Vec<u16>>,
    live: Mutex<Vec<TcpStream>>,
    closing: AtomicBool,
    /// MULTI is refused as well, as by the simplest of them.
    no_transactions: AtomicBool,
    /// What was refused, each name once.
    refused: Mutex<BTreeSet<String>>,
    transactions: AtomicU64,
}

/// Listens on a free port of 127.0.0.1.
pub struct Routing {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Routing {
    /// In front of the cluster that these nodes are part of.
    pub fn before(nodes: Vec<u16>) -> Routing {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            nodes,
            map: Mutex::default(),
            live: Mutex::default(),
            closing: AtomicBool::new(false),
            no_transactions: AtomicBool::new(false),
            refused: Mutex::default(),
            transactions: AtomicU64::new(0),
        });
        let ours = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if ours.closing.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                let _ = client.set_nodelay(true);
                ours.live.lock().expect("the list").extend(client.try_clone());
                let shared = ours.clone();
                // A client that is gone ends its thread.
                thread::spawn(move || Session { shared, nodes: HashMap::new(), queue: None }.serve(client));
            }
        });
        Routing { port, shared }
    }

    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn refuse_transactions(&self) {
        self.shared.no_transactions.store(true, Ordering::SeqCst);
    }

    /// Ends all connections, in the middle of whatever they do.
    pub fn cut(&self) {
        for live in self.shared.live.lock().expect("the list").drain(..) {
            let _ = live.shutdown(Shutdown::Both);
        }
    }

    pub fn transactions(&self) -> u64 {
        self.shared.transactions.load(Ordering::SeqCst)
    }

    pub fn refused(&self) -> Vec<String> {
        self.shared.refused.lock().expect("the list").iter().cloned().collect()
    }
}

impl Drop for Routing {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.cut();
    }
}

impl Shared {
    fn owner(&self, slot: usize) -> Option<u16> {
        let mut map = self.map.lock().expect("the map");
        if map.is_empty() {
            *map = self.nodes.iter().find_map(|port| slots(*port))?;
        }
        Some(map[slot])
    }

    fn forget(&self) {
        self.map.lock().expect("the map").clear();
    }
}

fn slots(port: u16) -> Option<Vec<u16>> {
    let mut map = vec![0u16; SLOTS];
    let Ok(Reply::Array(ranges)) = Client::try_to(port).ok()?.try_call(&["CLUSTER", "SLOTS"]) else { return None };
    for range in &ranges {
        let range = range.items();
        let port = range[2].items()[1].int() as u16;
        (range[0].int()..=range[1].int()).for_each(|s| map[s as usize] = port);
    }
    (!map.contains(&0)).then_some(map)
}

/// Where the keys of a command stand.
fn keys<'a>(name: &str, argv: &'a Argv) -> Vec<&'a [u8]> {
    let places: Vec<usize> = match name {
        "DEL" | "UNLINK" | "EXISTS" | "TOUCH" | "MGET" | "SUNIONSTORE" | "SINTERSTORE" | "SDIFFSTORE" | "PFMERGE"
        | "PFCOUNT" => (1..argv.len()).collect(),
        "MSET" | "MSETNX" => (1..argv.len()).step_by(2).collect(),
        "RENAME" | "RENAMENX" | "COPY" | "LMOVE" | "RPOPLPUSH" | "SMOVE" | "ZRANGESTORE" => vec![1, 2],
        "BITOP" => (2..argv.len()).collect(),
        "EVAL" | "EVALSHA" => {
            let n = argv.get(2).and_then(|n| String::from_utf8_lossy(n).parse().ok()).unwrap_or(0);
            (3..3 + n).collect()
        }
        "XGROUP" | "XINFO" | "OBJECT" => vec![2],
        _ => vec![1],
    };
    places.into_iter().filter_map(|n| argv.get(n).map(Vec::as_slice)).collect()
}

/// One client, with connections of its own to the nodes.
struct Session {
    shared: Arc<Shared>,
    nodes: HashMap<u16, Client>,
    /// In a transaction: its slot, what was queued, and whether something of it was refused.
    queue: Option<(Option<usize>, Vec<Argv>, bool)>,
}

impl Session {
    fn serve(mut self, client: TcpStream) {
        let Ok(mut to) = client.try_clone() else { return };
        let mut from = BufReader::new(client);
        while let Ok(request) = read_request(&mut from) {
            let Some(argv) = request else { continue };
            let reply = self.answer(argv);
            let mut out = Vec::new();
            put(&mut out, &reply);
            if to.write_all(&out).is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, argv: Argv) -> Reply {
        let name = String::from_utf8_lossy(&argv[0]).to_uppercase();
        let ok = |text: &str| Reply::Status(text.into());
        match name.as_str() {
            "PING" => return ok("PONG"),
            "AUTH" => return Reply::Error("ERR Client sent AUTH, but no password is set".into()),
            "MULTI" if self.shared.no_transactions.load(Ordering::SeqCst) => return self.refuse(&name),
            "MULTI" => {
                self.queue = Some((None, Vec::new(), false));
                return ok("OK");
            }
            "DISCARD" => {
                self.queue = None;
                return ok("OK");
            }
            "EXEC" => return self.exec(),
            _ => {}
        }
        if REFUSED.contains(&name.as_str()) {
            return self.refuse(&name);
        }
        let keys = keys(&name, &argv);
        let Some(first) = keys.first().map(|k| slot(k)) else { return self.refuse(&name) };
        let mut home = first;
        if let Some((pinned, ..)) = &mut self.queue {
            home = *pinned.get_or_insert(first);
        }
        if first != home || keys.iter().any(|k| slot(k) != first) {
            if let Some((.., poisoned)) = &mut self.queue {
                *poisoned = true;
            }
            return Reply::Error("CROSSSLOT Keys in request don't hash to the same slot".into());
        }
        if let Some((_, queued, _)) = &mut self.queue {
            queued.push(argv);
            return ok("QUEUED");
        }
        self.at_owner(first, |client, asking| {
            if asking {
                client.try_call(&["ASKING"])?;
            }
            client.try_call(&argv)
        })
    }

    fn refuse(&mut self, name: &str) -> Reply {
        self.shared.refused.lock().expect("the list").insert(name.to_owned());
        if let Some((.., poisoned)) = &mut self.queue {
            *poisoned = true;
        }
        Reply::Error(format!("ERR unsupported command '{}'", name.to_lowercase()))
    }

    fn exec(&mut self) -> Reply {
        let Some((slot, queued, poisoned)) = self.queue.take() else {
            return Reply::Error("ERR EXEC without MULTI".into());
        };
        if poisoned {
            return Reply::Error("EXECABORT Transaction discarded because of previous errors.".into());
        }
        let Some(slot) = slot else { return Reply::Array(Vec::new()) };
        self.shared.transactions.fetch_add(1, Ordering::SeqCst);
        self.at_owner(slot, |client, asking| {
            if asking {
                client.try_call(&["ASKING"])?;
            }
            client.try_call(&["MULTI"])?;
            let mut moved = None;
            for argv in &queued {
                if let Reply::Error(e) = client.try_call(argv)? {
                    moved = moved.or(Some(e));
                }
            }
            let done = client.try_call(&["EXEC"])?;
            // The node says only that it was aborted; why, it has said before.
            Ok(match moved {
                Some(e) if e.starts_with("MOVED") || e.starts_with("ASK") => Reply::Error(e),
                _ => done,
            })
        })
    }

    /// At the node that owns the slot, wherever that is by now.
    fn at_owner(&mut self, slot: usize, ask: impl Fn(&mut Client, bool) -> io::Result<Reply>) -> Reply {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut elsewhere = None;
        while Instant::now() < deadline {
            let asking = elsewhere.take();
            let Some(port) = asking.or_else(|| self.shared.owner(slot)) else {
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            let client = match self.nodes.remove(&port).map_or_else(|| Client::try_to(port), Ok) {
                Ok(client) => client,
                Err(_) => {
                    self.shared.forget();
                    thread::sleep(Duration::from_millis(20));
                    continue;
                }
            };
            let client = self.nodes.entry(port).or_insert(client);
            match ask(client, asking.is_some()) {
                Err(e) => {
                    // Whether it ran is not known: it is not sent again.
                    self.nodes.remove(&port);
                    self.shared.forget();
                    return Reply::Error(format!("ERR upstream failure: {e}"));
                }
                Ok(Reply::Error(e)) if e.starts_with("MOVED") => self.shared.forget(),
                Ok(Reply::Error(e)) if e.starts_with("ASK ") => {
                    elsewhere = e.rsplit(':').next().and_then(|p| p.parse().ok());
                }
                Ok(reply) => return reply,
            }
        }
        Reply::Error("ERR no upstream host".into())
    }
}

/// A command, or nothing where a line was empty.
fn read_request(from: &mut BufReader<TcpStream>) -> io::Result<Option<Argv>> {
    use std::io::BufRead;
    if from.fill_buf()?.first() == Some(&b'*') {
        let Reply::Array(items) = read_reply(from)? else { return Err(io::ErrorKind::InvalidData.into()) };
        return Ok(Some(items.iter().map(Reply::bytes).collect()).filter(|argv: &Argv| !argv.is_empty()));
    }
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let argv: Argv = line.split_whitespace().map(|w| w.as_bytes().to_vec()).collect();
    Ok(Some(argv).filter(|argv| !argv.is_empty()))
}

fn put(out: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::Status(text) => out.extend(format!("+{text}\r\n").bytes()),
        Reply::Error(text) => out.extend(format!("-{text}\r\n").bytes()),
        Reply::Int(n) => out.extend(format!(":{n}\r\n").bytes()),
        Reply::Nil => out.extend(b"$-1\r\n"),
        Reply::Bulk(bytes) => {
            out.extend(format!("${}\r\n", bytes.len()).bytes());
            out.extend(bytes);
            out.extend(b"\r\n");
        }
        Reply::Array(items) => {
            out.extend(format!("*{}\r\n", items.len()).bytes());
            items.iter().for_each(|item| put(out, item));
        }
    }
}
