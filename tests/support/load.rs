//! Load whose outcome is known exactly: a counter, a list and a stream that only grow, at full pipeline.

use super::{
    resp::{Argv, Client, Reply},
    server::Server,
    wait::until,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Whether a test runs in its long form.
pub fn soak() -> bool {
    std::env::var_os("DUPLEX_SOAK").is_some()
}

/// `short` in CI, `long` in a soak.
pub fn sized<T>(short: T, long: T) -> T {
    if soak() { long } else { short }
}

/// Counts, appends and streams at one server until it is told to stop. Its keys begin with its prefix.
pub struct Tally {
    pub prefix: String,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<u64>>,
}

/// Steps in one pipeline; each is an INCR, an RPUSH and an XADD.
const PIPELINE: u64 = 50;

impl Tally {
    /// Starts at `per_second` steps a second; 0 is as fast as the server takes them.
    pub fn start(server: &Server, prefix: &str, per_second: u64) -> Tally {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (halt, count, keys, mut client) = (stop.clone(), sent.clone(), prefix.to_owned(), server.client());
        let thread = thread::spawn(move || {
            let began = Instant::now();
            let mut step = 0;
            while !halt.load(Ordering::SeqCst) {
                let commands = (step..step + PIPELINE).flat_map(|i| steps(&keys, i)).collect::<Vec<_>>();
                for reply in client.pipeline(&commands) {
                    assert!(!reply.is_error(), "{keys}: {reply:?}");
                }
                step += PIPELINE;
                count.store(step, Ordering::SeqCst);
                if per_second > 0 {
                    until(began + Duration::from_secs_f64(step as f64 / per_second as f64));
                }
            }
            step
        });
        Tally { prefix: prefix.to_owned(), stop, sent, thread: Some(thread) }
    }

    /// Steps acknowledged so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Ends the load; returns how many steps there were in all.
    #[track_caller]
    pub fn stop(&mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("it is stopped once").join().expect("the load ran through")
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn steps(prefix: &str, i: u64) -> [Argv; 3] {
    let argv = |parts: [String; 3]| parts.map(String::into_bytes).to_vec();
    let stream = [format!("{prefix}:stream"), format!("{}-1", i + 1), "n".into(), i.to_string()];
    let mut xadd = vec![b"XADD".to_vec()];
    xadd.extend(stream.map(String::into_bytes));
    [
        vec![b"INCR".to_vec(), format!("{prefix}:count").into_bytes()],
        argv(["RPUSH".into(), format!("{prefix}:list"), i.to_string()]),
        xadd,
    ]
}

/// `steps` steps of a tally stand at this server exactly once and in order.
#[track_caller]
pub fn assert_tally(server: &Server, prefix: &str, steps: u64) {
    let mut c: Client = server.client();
    let at = format!("{} on port {}: {prefix}", server.name, server.port);
    assert_eq!(c.run(&format!("GET {prefix}:count")).text(), steps.to_string(), "{at}: counter");
    let list: Vec<u64> = c.run(&format!("LRANGE {prefix}:list 0 -1")).items().iter().map(|r| r.int() as u64).collect();
    assert_in_order(&at, "list", &list, steps);
    let entries = c.run(&format!("XRANGE {prefix}:stream - +"));
    let stream: Vec<u64> = entries.items().iter().map(|e| e.items()[1].items()[1].int() as u64).collect();
    assert_in_order(&at, "stream", &stream, steps);
}

#[track_caller]
fn assert_in_order(at: &str, what: &str, found: &[u64], steps: u64) {
    if let Some(i) = (0..found.len()).find(|&i| found[i] != i as u64) {
        let around = &found[i.saturating_sub(3)..(i + 4).min(found.len())];
        panic!("{at}: {what} of {} (wanted {steps}) goes wrong at {i}: {around:?}", found.len());
    }
    assert_eq!(found.len() as u64, steps, "{at}: length of the {what}");
}

/// Fills a server with `n` keys: strings of 100 bytes, and with `mixed` every tenth of another type, some of each with
/// an expiry.
pub fn fill(server: &Server, n: u64, mixed: bool) {
    let mut client = server.client();
    let argv = |parts: &[&str]| parts.iter().map(|p| p.as_bytes().to_vec()).collect::<Argv>();
    for chunk in 0..n.div_ceil(1000) {
        let mut commands = Vec::new();
        for i in chunk * 1000..n.min((chunk + 1) * 1000) {
            let key = format!("key:{i}");
            let k = key.as_str();
            match if mixed { i % 60 } else { 59 } {
                0 => commands.push(argv(&["RPUSH", k, "1", "two", "three", "4"])),
                10 => commands.push(argv(&["SADD", k, "1", "2", "3"])),
                20 => commands.push(argv(&["HSET", k, "f", "v", "g", "2"])),
                30 => commands.push(argv(&["ZADD", k, "1", "a", "2.5", "b"])),
                40 => commands.push(argv(&["XADD", k, "1-1", "f", "v"])),
                50 => commands.push(argv(&["SADD", k, "a", "b", "1"])),
                _ => commands.push(argv(&["SET", k, &format!("{i:0>100}")])),
            }
            if mixed && i % 7 == 0 {
                commands.push(argv(&["PEXPIRE", k, "86400000"]));
            }
        }
        for reply in client.pipeline(&commands) {
            assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
        }
    }
}
