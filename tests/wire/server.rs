//! Servers for these tests: found, started on free ports, asked, stopped.

use bytes::BytesMut;
use redis_duplex::wire::resp::{Reply, ReplyReader, encode};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Everything there is a claim about, oldest first; of two that disagree the later one is believed.
pub const SERVERS: &[&str] = &[
    "redis-5.0",
    "redis-6.0",
    "redis-6.2",
    "redis-7.0",
    "redis-stack-7.2",
    "redis-7.2",
    "redict-7.3",
    "redis-stack-7.4",
    "redis-7.4",
    "valkey-8.0",
    "valkey-8.1",
    "valkey-9.0",
    "valkey-9.1",
    "redis-8.0",
    "redis-8.2",
    "redis-8.6",
];

/// The names of [`SERVERS`] that are installed here. Says which are not.
///
/// # Panics
/// When none is.
pub fn installed() -> Vec<&'static str> {
    let (here, missing): (Vec<_>, Vec<_>) = SERVERS.iter().partition(|name| folder(name).is_some());
    if !missing.is_empty() {
        eprintln!("SKIPPED, not installed: {}", missing.join(", "));
    }
    assert!(!here.is_empty(), "no server at all; set DUPLEX_SERVERS to a folder with <name>/bin/redis-server");
    here
}

fn folder(name: &str) -> Option<PathBuf> {
    let mut roots: Vec<PathBuf> = Vec::new();
    roots.extend(std::env::var_os("DUPLEX_SERVERS").map(PathBuf::from));
    roots.extend(std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/redis-servers")));
    roots.push(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".servers"));
    roots.into_iter().map(|root| root.join(name).join("bin")).find(|bin| bin.join("redis-server").exists())
}

/// A running server; stopped and swept away when dropped.
pub struct Server {
    pub port: u16,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Server {
    /// Starts it on a port that was free a moment ago; takes another if somebody was faster.
    pub fn start(name: &'static str) -> Server {
        let bin = folder(name).unwrap_or_else(|| panic!("{name} is not installed"));
        // The stack's modules are loaded by a wrapper.
        let binary = ["redis-modules-server", "redis-server"].map(|b| bin.join(b)).into_iter().find(|b| b.exists());
        let binary = binary.unwrap_or_else(|| panic!("{name}: no server in {}", bin.display()));
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
            let dir = tempfile::tempdir().expect("a folder");
            let mut command = Command::new(&binary);
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(["--dir", &dir.path().display().to_string(), "--protected-mode", "no"]);
            if name != "redis-5.0" {
                command.args(["--repl-diskless-sync-delay", "0"]);
            }
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let mut server = Server { port, child: child.expect("the server starts"), _dir: dir };
            if server.ready() {
                return server;
            }
        }
        panic!("{name} did not start ten times over");
    }

    fn ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.child.try_wait().ok().flatten().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                let mut client = self.client();
                // Another server may have got the port: this one knows its own process.
                let info = client.call(&["INFO", "server"]);
                let own = format!("process_id:{}\r", self.child.id());
                match info.text() {
                    Some(text) if text.contains(&own) => return true,
                    Some(_) => return false,
                    None => {}
                }
            }
            std::thread::yield_now();
        }
        false
    }

    pub fn client(&self) -> Client {
        Client::connect(self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A reply that owns its bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(Vec<u8>),
    Error(String),
    Int(i64),
    Null,
    List(Vec<Value>),
}

impl Value {
    fn of(reply: &Reply<'_>) -> Value {
        match reply {
            Reply::Null => Value::Null,
            Reply::Int(n) => Value::Int(*n),
            Reply::Bool(b) => Value::Int((*b).into()),
            Reply::Error(e) => Value::Error(String::from_utf8_lossy(e).into_owned()),
            other => match other.elements() {
                Some(elements) => Value::List(elements.map(|e| Value::of(&e)).collect()),
                None => Value::Text(other.bytes().unwrap_or_default().to_vec()),
            },
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub fn int(&self) -> i64 {
        match self {
            Value::Int(n) => *n,
            other => panic!("{other:?} is no number"),
        }
    }

    pub fn list(&self) -> &[Value] {
        match self {
            Value::List(list) => list,
            other => panic!("{other:?} is no list"),
        }
    }

    pub fn error(&self) -> Option<&str> {
        match self {
            Value::Error(text) => Some(text),
            _ => None,
        }
    }
}

/// A blocking connection, with a deadline on every read.
pub struct Client {
    pub socket: TcpStream,
    replies: ReplyReader,
}

impl Client {
    pub fn connect(port: u16) -> Client {
        let address = ([127, 0, 0, 1], port).into();
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("the server listens");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
        socket.set_write_timeout(Some(Duration::from_secs(30))).expect("a deadline");
        socket.set_nodelay(true).expect("no delay");
        Client { socket, replies: ReplyReader::default() }
    }

    pub fn call(&mut self, args: &[impl AsRef<[u8]>]) -> Value {
        self.send(args);
        self.receive()
    }

    pub fn send(&mut self, args: &[impl AsRef<[u8]>]) {
        let mut out = BytesMut::new();
        encode(&mut out, args);
        self.socket.write_all(&out).expect("the server reads");
    }

    pub fn receive(&mut self) -> Value {
        loop {
            if let Some(reply) = self.replies.next_reply().expect("a reply") {
                return Value::of(&reply);
            }
            let mut chunk = [0u8; 16 << 10];
            let n = self.socket.read(&mut chunk).expect("the server answers in time");
            assert!(n > 0, "the server closed the connection");
            self.replies.buffer().extend_from_slice(&chunk[..n]);
        }
    }
}
