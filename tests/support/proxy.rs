//! A TCP proxy in this process, between the engine and a server: delay each way, cut, refuse, stall.
//!
//! Each connection has two directions, each a reader and a writer thread with a bounded queue of timed chunks between
//! them, so that delay costs no throughput (a WAN with a wide pipe, not a slow one).

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Chunks of at most 64 KiB that one direction may hold: enough for 100 MB/s at 200 ms.
const QUEUE: usize = 1024;

struct Shared {
    upstream: u16,
    delay_us: AtomicU64,
    refuse: AtomicBool,
    closing: AtomicBool,
    bytes: AtomicU64,
    accepted: AtomicU64,
    /// Which bytes wait at the gate; every writer passes it before each chunk.
    stalled: Mutex<Stall>,
    gate: Condvar,
    live: Mutex<Vec<TcpStream>>,
}

/// What stays where it is.
#[derive(Clone, Copy, PartialEq)]
enum Stall {
    Nothing,
    /// What a server sends to its replicas.
    Streams,
    All,
}

/// Listens on a free port and carries every connection to one server.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy to `127.0.0.1:upstream`, without delay.
    pub fn to(upstream: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            upstream,
            delay_us: AtomicU64::new(0),
            refuse: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            stalled: Mutex::new(Stall::Nothing),
            gate: Condvar::new(),
            live: Mutex::new(Vec::new()),
        });
        let ours = shared.clone();
        thread::spawn(move || {
            for inbound in listener.incoming() {
                if ours.closing.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(inbound) = inbound {
                    ours.accepted.fetch_add(1, Ordering::SeqCst);
                    ours.carry(inbound);
                }
            }
        });
        Proxy { port, shared }
    }

    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Holds each byte back for so long, each way, from now on.
    pub fn delay(&self, each_way: Duration) {
        self.shared.delay_us.store(each_way.as_micros() as u64, Ordering::SeqCst);
    }

    /// Cuts every connection at once; new ones are carried. Returns how many were cut.
    pub fn cut(&self) -> usize {
        let mut live = self.shared.live.lock().expect("the list of connections");
        for connection in live.iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        std::mem::take(&mut *live).len()
    }

    /// Whether new connections are closed as soon as they are made.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refuse.store(refuse, Ordering::SeqCst);
    }

    /// Whether bytes stay where they are, in both directions, as when packets are dropped on the way.
    pub fn stall(&self, stalled: bool) {
        self.stall_some(if stalled { Stall::All } else { Stall::Nothing });
    }

    /// Whether what the server sends to its replicas stays where it is, as when that is too much for the line; questions
    /// and their answers pass.
    pub fn stall_streams(&self, stalled: bool) {
        self.stall_some(if stalled { Stall::Streams } else { Stall::Nothing });
    }

    fn stall_some(&self, which: Stall) {
        *self.shared.stalled.lock().expect("the gate") = which;
        self.shared.gate.notify_all();
    }

    /// Bytes carried, both ways together.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn carry(self: &Arc<Self>, inbound: TcpStream) {
        if self.refuse.load(Ordering::SeqCst) {
            return;
        }
        let target = ([127, 0, 0, 1], self.upstream).into();
        let Ok(outbound) = TcpStream::connect_timeout(&target, Duration::from_secs(5)) else { return };
        let pair = (|| {
            inbound.set_nodelay(true)?;
            outbound.set_nodelay(true)?;
            Ok::<_, std::io::Error>([
                (inbound.try_clone()?, outbound.try_clone()?),
                (outbound.try_clone()?, inbound.try_clone()?),
            ])
        })();
        let Ok(pair) = pair else { return };
        {
            let mut live = self.live.lock().expect("the list of connections");
            live.retain(|c| c.peer_addr().is_ok());
            live.push(inbound);
        }
        let is_stream = Arc::new(AtomicBool::new(false));
        for (to_server, (from, to)) in [true, false].into_iter().zip(pair) {
            let is_stream = is_stream.clone();
            let asks = is_stream.clone();
            let (put, take) = sync_channel(QUEUE);
            let shared = self.clone();
            thread::spawn(move || {
                let mut from = from;
                let mut buf = vec![0; 1 << 16];
                while let Ok(n @ 1..) = from.read(&mut buf) {
                    let due = Instant::now() + Duration::from_micros(shared.delay_us.load(Ordering::Relaxed));
                    shared.bytes.fetch_add(n as u64, Ordering::Relaxed);
                    if to_server && memchr::memmem::find(&buf[..n], b"PSYNC").is_some() {
                        asks.store(true, Ordering::SeqCst);
                    }
                    if put.send((due, buf[..n].to_vec())).is_err() {
                        break;
                    }
                }
            });
            let shared = self.clone();
            let waits = move |stall| match stall {
                Stall::Nothing => false,
                Stall::Streams => !to_server && is_stream.load(Ordering::SeqCst),
                Stall::All => true,
            };
            thread::spawn(move || shared.write(&take, to, waits));
        }
    }

    fn write(&self, take: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream, waits: impl Fn(Stall) -> bool) {
        while let Ok((due, chunk)) = take.recv() {
            super::wait::until(due);
            let mut stalled = self.stalled.lock().expect("the gate");
            while waits(*stalled) && !self.closing.load(Ordering::SeqCst) {
                stalled = self.gate.wait(stalled).expect("the gate");
            }
            drop(stalled);
            if to.write_all(&chunk).is_err() {
                break;
            }
        }
        // The other end closed, or we were cut: pass it on.
        let _ = to.shutdown(Shutdown::Both);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.gate.notify_all();
        self.cut();
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect_timeout(&([127, 0, 0, 1], self.port).into(), Duration::from_secs(1));
    }
}
