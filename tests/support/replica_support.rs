//! Servers and a collector for the tests of the replica: real servers on free ports of 127.0.0.1.
#![allow(dead_code, reason = "each suite uses its own part")]

use bytes::Bytes;
use redis_duplex::engine::events::EventSink;
use redis_duplex::engine::net::{Control, Dialer};
use redis_duplex::engine::replica::{Replica, ReplicaHandle, ReplicaOptions, ReplicaState, Start};
use redis_duplex::engine::spool::{Item, Spool, SpoolError, SpoolOptions, SpoolReader};
use redis_duplex::model::{AccountSource, Direction, Instance, Offset, ReplId};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Nothing that a test waits for may take longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The servers that every such test runs on: oldest, usual, newest Redis, newest Valkey; or what
/// `DUPLEX_TEST_SERVERS` lists.
pub fn versions() -> Vec<String> {
    let list = std::env::var("DUPLEX_TEST_SERVERS").unwrap_or_default();
    let list = if list.contains('-') { list } else { "redis-5.0,redis-7.0,redis-8.6,valkey-9.1".to_owned() };
    list.split([',', ' ']).filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

fn program(name: &str) -> PathBuf {
    let root = std::env::var_os("DUPLEX_SERVERS")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/redis-servers"));
    let program = root.join(name).join("bin/redis-server");
    assert!(program.exists(), "{} is not there: install the test servers first", program.display());
    program
}

/// A server of its own, ended by its pid when dropped.
pub struct TestServer {
    pub port: u16,
    child: Child,
    pub dir: tempfile::TempDir,
}

impl TestServer {
    pub async fn start(name: &str, args: &[&str]) -> TestServer {
        Self::start_on(name, free_port(), args).await
    }

    /// `args` may hold other ports (TLS): then the plain port is for the test itself.
    pub async fn start_on(name: &str, port: u16, args: &[&str]) -> TestServer {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let out = std::fs::File::create(&log).unwrap();
        let child = Command::new(program(name))
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--repl-diskless-sync-delay", "0", "--dir", dir.path().to_str().unwrap()])
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let server = TestServer { port, child, dir };
        let ready = || std::fs::read_to_string(&log).unwrap_or_default().contains("Ready to accept connections");
        until(&format!("{name} listens"), async || ready().then_some(()).ok_or("no line in its log")).await;
        server
    }

    /// A sentinel that watches `master` alone, under the name `main`.
    pub async fn start_sentinel(name: &str, master: &TestServer) -> TestServer {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 1000\n",
            dir.path().display(),
            master.port
        );
        std::fs::write(&file, text).unwrap();
        let child = Command::new(program(name))
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = TestServer { port, child, dir };
        until("the sentinel listens", async || server.dialer().control(&server.address()).await.map(drop)).await;
        server
    }

    /// The pid that it was started with.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn instance(&self) -> Instance {
        Instance { addresses: vec![self.address()], ..Instance::default() }
    }

    pub fn instance_with(&self, account: &str) -> Instance {
        let account = AccountSource::Inline(redis_duplex::model::secret::Inline::new(account));
        Instance { account, ..self.instance() }
    }

    pub fn dialer(&self) -> Dialer {
        Dialer::new(&self.instance(), "duplex-test")
    }

    pub async fn control(&self) -> Control {
        self.dialer().control(&self.address()).await.unwrap()
    }

    /// `count` keys of `size` bytes that don't compress.
    pub async fn fill(&self, count: usize, size: usize) {
        let mut control = self.control().await;
        for from in (0..count).step_by(500) {
            let mut pipe = redis::pipe();
            for i in from..(from + 500).min(count) {
                let value: Vec<u8> = (0..size).map(|_| fastrand::u8(..)).collect();
                pipe.set(format!("key:{i}"), value).ignore();
            }
            pipe.query_async::<()>(&mut control).await.unwrap();
        }
    }

    /// Sets a counter `count` times, one command each.
    pub async fn write(&self, count: usize) {
        let mut control = self.control().await;
        for i in 0..count {
            control.ask::<()>(redis::cmd("SET").arg("counter").arg(i)).await.unwrap();
        }
    }

    /// Cuts all replicas off.
    pub async fn kill_replicas(&self) {
        let mut control = self.control().await;
        control.ask::<i64>(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("slave")).await.unwrap();
    }

    pub async fn offset(&self) -> Offset {
        self.control().await.info().await.unwrap().master_repl_offset.unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks again and again until the answer is there; at the end says what was there instead.
pub async fn until<T, W: std::fmt::Debug>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, W>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(instead) if tokio::time::Instant::now() > deadline => panic!("{what}: still {instead:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// What came out of a spool.
#[derive(Debug, Default, Clone)]
pub struct Collected {
    pub markers: Vec<Item>,
    pub snapshot: Vec<u8>,
    /// Position of the stream's first byte.
    pub begin: Option<Offset>,
    pub stream: Vec<u8>,
}

impl Collected {
    pub fn end(&self) -> Option<Offset> {
        self.begin.map(|b| b.plus(self.stream.len() as u64))
    }
}

/// A replica whose spool is read by a task.
pub struct Watched {
    pub handle: ReplicaHandle,
    pub applied: watch::Sender<Offset>,
    pub collected: Arc<Mutex<Collected>>,
    pub events: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

pub struct Setup {
    pub memory: u64,
    pub disk: u64,
    pub allow_full: bool,
    pub follow_master: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup { memory: 64 << 20, disk: 1 << 30, allow_full: false, follow_master: false }
    }
}

impl Watched {
    pub fn start(dialer: Dialer, start: Start) -> Watched {
        Self::start_with(dialer, start, Setup::default())
    }

    pub fn start_with(dialer: Dialer, start: Start, setup: Setup) -> Watched {
        let address = dialer.instance().addresses[0].clone();
        Self::start_at(dialer, &address, start, setup)
    }

    /// At a master that is not the instance's first address.
    pub fn start_at(dialer: Dialer, address: &str, start: Start, setup: Setup) -> Watched {
        let (watched, reader) = Self::prepare(dialer, address, start, setup);
        tokio::spawn(collect(reader, watched.collected.clone()));
        watched
    }

    /// Nobody reads the spool yet.
    pub fn start_unread(dialer: Dialer, start: Start, setup: Setup) -> (Watched, SpoolReader) {
        let address = dialer.instance().addresses[0].clone();
        Self::prepare(dialer, &address, start, setup)
    }

    fn prepare(dialer: Dialer, address: &str, start: Start, setup: Setup) -> (Watched, SpoolReader) {
        let dir = tempfile::tempdir().unwrap();
        let options = SpoolOptions { memory_bytes: setup.memory, disk_bytes: setup.disk, dir: dir.path().join("s") };
        let (writer, reader) = Spool::new(options).unwrap();
        let (applied, applied_seen) = watch::channel(Offset(0));
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let events = events.clone();
            EventSink::new(move |e| events.lock().unwrap().push(format!("{:?}: {}", e.kind, e.text)))
        };
        let mut options = ReplicaOptions::new(sink, Direction::Forward, applied_seen);
        options.allow_full = setup.allow_full;
        options.follow_master = setup.follow_master;
        let handle = Replica::spawn(dialer, address, start, writer, options);
        (Watched { handle, applied, collected: Arc::default(), events, _dir: dir }, reader)
    }

    pub fn now(&self) -> Collected {
        self.collected.lock().unwrap().clone()
    }

    /// Waits for a state.
    pub async fn state(&self, what: &str, wanted: impl Fn(&ReplicaState) -> bool) -> ReplicaState {
        let mut state = self.handle.state();
        let seen = tokio::time::timeout(PATIENCE, state.wait_for(|s| wanted(s))).await;
        match seen {
            Ok(Ok(state)) => state.clone(),
            _ => panic!("{what}: still {:?}; {:#?}", self.handle.state().borrow(), self.events.lock().unwrap()),
        }
    }

    /// Waits until the stream is collected up to the server's present offset.
    pub async fn caught_up(&self, server: &TestServer) -> Collected {
        let goal = server.offset().await;
        until("caught up", async || {
            let end = self.collected.lock().unwrap().end();
            if end >= Some(goal) { Ok(self.now()) } else { Err((end, goal, self.handle.state().borrow().clone())) }
        })
        .await
    }
}

/// Takes everything out of a spool, and checks that the stream has no gap.
pub async fn collect(mut reader: SpoolReader, into: Arc<Mutex<Collected>>) {
    loop {
        let item = match reader.next().await {
            Ok(item) => item,
            Err(SpoolError::Closed) => return,
            Err(e) => panic!("{e}"),
        };
        let mut c = into.lock().unwrap();
        match item {
            Item::Snapshot(bytes) => c.snapshot.extend_from_slice(&bytes),
            Item::Stream { offset, bytes } => {
                if let Some(end) = c.end() {
                    assert_eq!(end, offset, "the stream has a gap or a byte twice");
                }
                c.begin.get_or_insert(offset);
                c.stream.extend_from_slice(&bytes);
                reader.release(offset.plus(bytes.len() as u64));
            }
            Item::Lost { .. } => {
                let mut markers = std::mem::take(&mut c.markers);
                markers.push(item);
                *c = Collected { markers, ..Collected::default() };
            }
            marker => c.markers.push(marker),
        }
    }
}

/// Whether these bytes are a whole RDB file: its head, its end mark and its CRC-64 (Jones), which is 0 where the
/// server has `rdbchecksum no`.
pub fn assert_whole_rdb(bytes: &[u8]) {
    assert!(bytes.starts_with(b"REDIS") || bytes.starts_with(b"VALKEY"), "{:?}", Bytes::copy_from_slice(&bytes[..9]));
    let (body, sum) = bytes.split_at(bytes.len() - 8);
    assert_eq!(body.last(), Some(&0xFF), "the end's opcode");
    let crc = crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(body);
    assert_eq!(u64::from_le_bytes(sum.try_into().unwrap()), crc, "the checksum of {} bytes", bytes.len());
}

pub fn replid(letter: char) -> ReplId {
    letter.to_string().repeat(40).parse().unwrap()
}
