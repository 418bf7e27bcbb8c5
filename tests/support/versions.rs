//! Which servers are installed, and which of them a run uses.
//!
//! `DUPLEX_SERVERS` is the folder (default `~/.cache/redis-servers`), one folder a server, as `tests/servers.sh`
//! lays them out. `DUPLEX_TEST_SERVERS` is `ci` (the default: oldest, usual, newest Redis, newest Valkey), `all`, or
//! a list of names.

use std::path::PathBuf;

/// The folder of one server.
pub fn home(name: &str) -> PathBuf {
    let root = std::env::var_os("DUPLEX_SERVERS").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var_os("HOME").expect("HOME is set");
        PathBuf::from(home).join(".cache/redis-servers")
    });
    root.join(name)
}

fn installed(name: &str) -> bool {
    home(name).join("bin/redis-server").exists()
}

/// The kinds of server that every suite runs against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Oldest,
    Usual,
    NewestRedis,
    NewestValkey,
}

impl Slot {
    pub const ALL: [Slot; 4] = [Slot::Oldest, Slot::Usual, Slot::NewestRedis, Slot::NewestValkey];

    /// The server that stands for this slot: the first installed of its candidates, since packages of unstable suites
    /// move.
    pub fn server(self) -> &'static str {
        let candidates: &[&'static str] = match self {
            Slot::Oldest => &["redis-5.0", "redis-6.0", "redis-6.2"],
            Slot::Usual => &["redis-7.0", "redis-7.2", "redis-7.4"],
            Slot::NewestRedis => &["redis-8.6", "redis-8.2", "redis-8.0"],
            Slot::NewestValkey => &["valkey-9.1", "valkey-9.0", "valkey-8.1", "valkey-8.0"],
        };
        candidates
            .iter()
            .find(|n| installed(n))
            .unwrap_or_else(|| panic!("none of {candidates:?} is installed: run `make servers`"))
    }
}

/// Every plain server this project knows of, oldest first. Redis Stack is left to its own tests.
const KNOWN: [&str; 14] = [
    "redis-5.0",
    "redis-6.0",
    "redis-6.2",
    "redis-7.0",
    "redis-7.2",
    "redis-7.4",
    "redis-8.0",
    "redis-8.2",
    "redis-8.6",
    "redict-7.3",
    "valkey-8.0",
    "valkey-8.1",
    "valkey-9.0",
    "valkey-9.1",
];

/// The servers of this run, oldest first.
pub fn versions() -> Vec<String> {
    match std::env::var("DUPLEX_TEST_SERVERS").as_deref() {
        Ok("all") => KNOWN.iter().filter(|n| installed(n)).map(|n| n.to_string()).collect(),
        Ok("ci" | "") | Err(_) => Slot::ALL.iter().map(|s| s.server().to_owned()).collect(),
        Ok(list) => {
            let names: Vec<String> = list.split([',', ' ']).filter(|n| !n.is_empty()).map(str::to_owned).collect();
            for n in &names {
                assert!(installed(n), "{n} is not installed: run `tests/servers.sh {n}`");
            }
            names
        }
    }
}

/// Neighbours in `versions()`, both orders: the pairs between which something changed. And each version that is in no
/// slot with itself: those of the slots have tests of their own.
pub fn neighbours() -> Vec<(String, String)> {
    let versions = versions();
    let slots: Vec<&str> = Slot::ALL.iter().map(|s| s.server()).collect();
    let alone = versions.iter().filter(|v| !slots.contains(&v.as_str())).map(|v| (v.clone(), v.clone()));
    let beside = versions.windows(2).flat_map(|w| [(w[0].clone(), w[1].clone()), (w[1].clone(), w[0].clone())]);
    beside.chain(alone).collect()
}

/// Major and minor of the Redis that this server's commands are those of: its own version for Redis, 7.2 for its forks.
pub fn speaks(name: &str) -> (u32, u32) {
    match name.strip_prefix("redis-").map(|n| n.trim_start_matches("stack-")) {
        Some(v) => {
            let (major, minor) = v.split_once('.').unwrap_or_else(|| panic!("{name} is no server name"));
            (major.parse().expect("a number"), minor.parse().expect("a number"))
        }
        None => (7, 2),
    }
}
