//! Clusters of real servers on free ports of 127.0.0.1, a client that follows their redirections, and a site that is one
//! server or a cluster.

use super::{
    compare::{self, Keyspace, Level, differences},
    resp::{Argv, Client, Reply},
    server::{Server, free_port},
    versions::speaks,
    wait::{secs, until, wait_for},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub const SLOTS: usize = 16_384;

/// The slot of a key, as the cluster specification says: CRC-16/XMODEM of it, or of what stands in `{}`.
pub fn slot(key: &[u8]) -> usize {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|b| *b == b'}').filter(|n| *n > 0).map(|n| &rest[..n])
    });
    let mut crc = 0u16;
    for byte in tag.unwrap_or(key) {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
        }
    }
    crc as usize % SLOTS
}

/// Masters, and perhaps replicas of them.
pub struct Cluster {
    pub nodes: Vec<Server>,
}

impl Cluster {
    /// `shards` masters that share the slots evenly, with so many replicas each.
    #[track_caller]
    pub fn start(name: &str, shards: usize, replicas: usize) -> Cluster {
        let even: Vec<usize> = (1..shards).map(|n| n * SLOTS / shards).collect();
        Cluster::split(name, &even, replicas)
    }

    /// The same, with the slots cut at these.
    #[track_caller]
    pub fn split(name: &str, cuts: &[usize], replicas: usize) -> Cluster {
        let shards = cuts.len() + 1;
        let cluster = Cluster::bare(name, shards * (1 + replicas));
        let bounds: Vec<usize> = [0].into_iter().chain(cuts.iter().copied()).chain([SLOTS]).collect();
        for n in 0..shards {
            let (first, last) = (bounds[n], bounds[n + 1] - 1);
            cluster.nodes[n].client().run(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
        }
        cluster.wait_whole();
        for n in shards..cluster.nodes.len() {
            let master = cluster.nodes[n % shards].client().run("CLUSTER MYID").text();
            wait_for("a replica takes its master", secs(30), || {
                match cluster.nodes[n].client().call(&["CLUSTER", "REPLICATE", &master]) {
                    Reply::Status(_) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
        for n in shards..cluster.nodes.len() {
            cluster.wait_in_sync(n);
        }
        cluster
    }

    /// Nodes that know each other, without slots.
    #[track_caller]
    pub fn bare(name: &str, nodes: usize) -> Cluster {
        assert!(speaks(name) >= (7, 0), "{name}: its bus port can't be chosen");
        let mut bus = Vec::new();
        let nodes: Vec<Server> = (0..nodes)
            .map(|_| {
                let port = free_port();
                bus.push(port);
                let port = port.to_string();
                let args = ["--cluster-enabled", "yes", "--cluster-port", &port, "--cluster-node-timeout", "1500"];
                let more = ["--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"];
                Server::start(name, &[&args[..], &more[..]].concat())
            })
            .collect();
        for (n, node) in nodes.iter().enumerate() {
            node.client().run(&format!("CLUSTER SET-CONFIG-EPOCH {}", n + 1));
        }
        for (node, bus) in nodes.iter().zip(&bus).skip(1) {
            nodes[0].client().run(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port));
        }
        let count = nodes.len();
        for (node, bus) in nodes.iter().zip(&bus) {
            let mut met = Instant::now();
            wait_for("the nodes know each other", secs(60), || {
                let known = node.client().run("CLUSTER NODES").text();
                if known.lines().filter(|l| !l.contains("handshake")).count() == count {
                    return Ok(());
                }
                // A handshake that took too long is given up by the servers.
                if met.elapsed() > Duration::from_secs(3) {
                    met = Instant::now();
                    nodes[0].client().run(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port));
                }
                Err(known)
            });
        }
        Cluster { nodes }
    }

    /// Every node sees all slots served.
    #[track_caller]
    pub fn wait_whole(&self) {
        for node in self.nodes.iter().filter(|n| n.is_running()) {
            wait_for("the cluster serves all slots", secs(60), || {
                let mut client = node.client();
                let info = client.run("CLUSTER INFO").text();
                if info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384") {
                    Ok(())
                } else {
                    Err(format!("{info}\n{}", client.run("CLUSTER NODES").text()))
                }
            });
        }
    }

    /// A replica follows its master.
    #[track_caller]
    pub fn wait_in_sync(&self, n: usize) {
        wait_for("the replica is in sync", secs(60), || {
            match self.nodes[n].info("replication", "master_link_status").as_deref() {
                Some("up") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// A replica takes its master's place, who steps back in good order.
    #[track_caller]
    pub fn take_over(&self, n: usize) {
        self.wait_in_sync(n);
        wait_for("the replica takes over", secs(30), || {
            let mut client = self.nodes[n].client();
            if client.run("ROLE").items()[0].text() == "master" {
                return Ok(());
            }
            Err(format!("{:?}", client.call(&["CLUSTER", "FAILOVER"])))
        });
    }

    /// Kills a master, waits until its replica has taken its place, and starts it again as a replica of that one.
    #[track_caller]
    pub fn kill_a_master(&mut self, which: usize) {
        let masters: Vec<u16> = self.masters().iter().map(|m| m.port).collect();
        let port = masters[which % masters.len()];
        let n = self.node_with_port(port);
        self.nodes[n].kill();
        wait_for("a replica is promoted", secs(60), || {
            let node = self.nodes.iter().find(|n| n.is_running()).expect("a node runs");
            match slots_by_port(&mut node.client()) {
                Some(map) if !map.contains(&port) => Ok(()),
                _ => Err(node.client().run("CLUSTER NODES").text()),
            }
        });
        self.nodes[n].restart();
        self.wait_in_sync(n);
        self.wait_whole();
    }

    /// The nodes that are masters with slots, by what the nodes say.
    #[track_caller]
    pub fn masters(&self) -> Vec<&Server> {
        let map = self.map();
        let mut ports: Vec<u16> = map.clone();
        ports.sort_unstable();
        ports.dedup();
        ports.iter().map(|p| self.nodes.iter().find(|n| n.port == *p).expect("one of ours")).collect()
    }

    /// The port that serves each slot.
    #[track_caller]
    pub fn map(&self) -> Vec<u16> {
        let node = self.nodes.iter().find(|n| n.is_running()).expect("a node runs");
        wait_for("a map of all slots", secs(60), || match slots_by_port(&mut node.client()) {
            Some(map) => Ok(map),
            None => Err(node.client().run("CLUSTER NODES").text()),
        })
    }

    pub fn node_with_port(&self, port: u16) -> usize {
        self.nodes.iter().position(|n| n.port == port).expect("one of ours")
    }

    /// Moves a slot with all of its keys to another node, key by key, as `redis-cli --cluster reshard` does.
    #[track_caller]
    pub fn migrate(&self, slot: usize, to: u16) {
        let from = self.map()[slot];
        if from == to {
            return;
        }
        let (source, target) = (&self.nodes[self.node_with_port(from)], &self.nodes[self.node_with_port(to)]);
        let (mut a, mut b) = (source.client(), target.client());
        let (from_id, to_id) = (a.run("CLUSTER MYID").text(), b.run("CLUSTER MYID").text());
        b.run(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
        a.run(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
        loop {
            let keys = a.run(&format!("CLUSTER GETKEYSINSLOT {slot} 10"));
            if keys.items().is_empty() {
                break;
            }
            let mut argv: Argv = ["MIGRATE", "127.0.0.1", &to.to_string(), "", "0", "60000", "KEYS"]
                .map(|w| w.as_bytes().to_vec())
                .into();
            argv.extend(keys.items().iter().map(Reply::bytes));
            match a.call(&argv) {
                Reply::Error(e) => panic!("MIGRATE: {e}"),
                _ => continue,
            }
        }
        // The new owner first: it makes a config epoch of its own.
        b.run(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
        a.run(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
        for node in self.nodes.iter().filter(|n| n.is_running()) {
            wait_for("all nodes know of the slot's move", secs(30), || match slots_by_port(&mut node.client()) {
                Some(map) if map[slot] == to => Ok(()),
                Some(map) => Err(format!("slot {slot} is at {}", map[slot])),
                None => Err("no map".into()),
            });
        }
    }
}

/// `None` while a slot is not served.
fn slots_by_port(client: &mut Client) -> Option<Vec<u16>> {
    let mut map = vec![0u16; SLOTS];
    // The node may just be dying.
    let Ok(Reply::Array(ranges)) = client.try_call(&["CLUSTER", "SLOTS"]) else { return None };
    for range in &ranges {
        let range = range.items();
        let port = range[2].items()[1].int() as u16;
        for s in range[0].int()..=range[1].int() {
            map[s as usize] = port;
        }
    }
    (!map.contains(&0)).then_some(map)
}

/// One server, or a cluster.
pub enum Site {
    One(Server),
    Many(Cluster),
}

impl Site {
    pub fn one(name: &str) -> Site {
        Site::One(Server::start(name, &[]))
    }

    pub fn many(name: &str, shards: usize) -> Site {
        Site::Many(Cluster::start(name, shards, 0))
    }

    pub fn split(name: &str, cuts: &[usize]) -> Site {
        Site::Many(Cluster::split(name, cuts, 0))
    }

    pub fn cluster(&self) -> &Cluster {
        match self {
            Site::Many(cluster) => cluster,
            Site::One(_) => panic!("it is one server"),
        }
    }

    pub fn cluster_mut(&mut self) -> &mut Cluster {
        match self {
            Site::Many(cluster) => cluster,
            Site::One(_) => panic!("it is one server"),
        }
    }

    pub fn masters(&self) -> Vec<&Server> {
        match self {
            Site::One(server) => vec![server],
            Site::Many(cluster) => cluster.masters(),
        }
    }

    /// An address for the job file.
    pub fn addr(&self) -> String {
        match self {
            Site::One(server) => server.addr(),
            Site::Many(cluster) => cluster.nodes[0].addr(),
        }
    }

    pub fn router(&self) -> Router {
        let ports = match self {
            Site::One(server) => vec![server.port],
            Site::Many(cluster) => cluster.nodes.iter().map(|n| n.port).collect(),
        };
        Router::new(ports, matches!(self, Site::Many(_)))
    }

    /// All that it holds but control keys. A key that two shards hold is told.
    pub fn keyspace(&self, level: Level) -> Result<Keyspace, String> {
        let mut all = Keyspace::new();
        for server in self.masters() {
            for (name, entry) in compare::read(server, level, &|key| !key.starts_with(b"duplex:")) {
                if all.insert(name.clone(), entry).is_some() {
                    return Err(format!("two shards hold {:?}", String::from_utf8_lossy(&name.1)));
                }
            }
        }
        Ok(all)
    }

    /// Waits until a crash would not begin the first copy to this site again: of each strand the newest control key says so.
    /// `source`: written to, so that each has something to say.
    pub fn wait_copied(&self, source: &Site) {
        let mut router = source.router();
        wait_for("the first copy is kept", secs(60), || {
            (0..400).for_each(|n| drop(router.run(&format!("SET warm:{n} {n}"))));
            let mut newest: BTreeMap<String, (u64, u64, String)> = BTreeMap::new();
            for server in self.masters() {
                let mut client = server.client();
                let names = client.run("KEYS duplex:*:forward*");
                let reads: Vec<Argv> =
                    names.items().iter().map(|name| vec![b"GET".to_vec(), name.bytes().to_vec()]).collect();
                for reply in client.pipeline(&reads) {
                    let Reply::Bulk(text) = reply else { continue };
                    let text = String::from_utf8_lossy(&text).into_owned();
                    let words: Vec<&str> = text.split(' ').collect();
                    if words.len() < 5 {
                        continue;
                    }
                    let strand = words.get(13).map_or(String::new(), |w| (*w).to_owned());
                    let said = (words[1].parse().unwrap_or(0), words[2].parse().unwrap_or(0), words[4].to_owned());
                    let known = newest.entry(strand).or_insert_with(|| said.clone());
                    if said > *known {
                        *known = said;
                    }
                }
            }
            let loading: Vec<_> = newest.iter().filter(|(_, (.., phase))| phase != "s").collect();
            if loading.is_empty() && !newest.is_empty() { Ok(()) } else { Err(format!("not so of {loading:?}")) }
        });
    }

    pub fn level(&self) -> Level {
        Level::of(self.masters()[0])
    }
}

/// Waits until both sites hold the same.
#[track_caller]
pub fn assert_sites_equal(a: &Site, b: &Site, limit: Duration) -> Keyspace {
    let level = a.level().and(b.level());
    wait_for("both sites hold the same", limit, || {
        let (left, right) = (a.keyspace(level)?, b.keyspace(level)?);
        let different = differences(&left, &right);
        if different.is_empty() {
            return Ok(left);
        }
        let (n, all) = (different.len(), left.len().max(right.len()));
        Err(format!("{n} of {all} keys differ, the first of them:\n{}", different[..n.min(40)].join("\n")))
    })
}

/// A client of a site that follows redirections and goes on through a failover.
pub struct Router {
    ports: Vec<u16>,
    cluster: bool,
    map: Vec<u16>,
    clients: HashMap<u16, Client>,
}

impl Router {
    fn new(ports: Vec<u16>, cluster: bool) -> Router {
        Router { ports, cluster, map: Vec::new(), clients: HashMap::new() }
    }

    fn client(&mut self, port: u16) -> io::Result<&mut Client> {
        Ok(match self.clients.entry(port) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(none) => none.insert(Client::try_to(port)?),
        })
    }

    fn port_of(&mut self, slot: usize) -> Option<u16> {
        if !self.cluster {
            return self.ports.first().copied();
        }
        if self.map.is_empty() {
            let ports = self.ports.clone();
            self.map = ports.into_iter().find_map(|port| slots_by_port(self.client(port).ok()?))?;
        }
        Some(self.map[slot])
    }

    /// One command for the slot of this key, through redirections; an `io` error tells that nobody knows whether it ran.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, key: &[u8], args: &[A]) -> io::Result<Reply> {
        let deadline = Instant::now() + secs(60);
        let mut asked: Option<u16> = None;
        loop {
            if Instant::now() > deadline {
                return Err(io::Error::other("a minute of redirections"));
            }
            let asking = asked.take();
            let Some(port) = asking.or_else(|| self.port_of(slot(key))) else {
                self.pause();
                continue;
            };
            let sent = match self.client(port) {
                Ok(client) => {
                    if asking.is_some() {
                        client.try_call(&["ASKING"])?;
                    }
                    client.try_call(args)
                }
                // Not connected: it did not run.
                Err(_) => {
                    self.pause();
                    continue;
                }
            };
            let reply = match sent {
                Ok(reply) => reply,
                Err(e) => {
                    self.clients.remove(&port);
                    self.map.clear();
                    return Err(e);
                }
            };
            let Reply::Error(text) = &reply else { return Ok(reply) };
            match text.split(' ').collect::<Vec<_>>()[..] {
                ["MOVED", ..] => self.map.clear(),
                ["ASK", _, at] => asked = at.rsplit(':').next().and_then(|p| p.parse().ok()),
                ["TRYAGAIN" | "CLUSTERDOWN" | "READONLY" | "LOADING" | "MASTERDOWN", ..] => self.pause(),
                _ => return Ok(reply),
            }
        }
    }

    fn pause(&mut self) {
        self.map.clear();
        until(Instant::now() + Duration::from_millis(5));
    }

    #[track_caller]
    pub fn call<A: AsRef<[u8]>>(&mut self, key: &str, args: &[A]) -> Reply {
        match self.try_call(key.as_bytes(), args) {
            Ok(Reply::Error(e)) => panic!("{key}: {e}"),
            Ok(reply) => reply,
            Err(e) => panic!("{key}: {e}"),
        }
    }

    /// A command as a line of text; its first argument is its key.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> Reply {
        let words = super::words::words(line);
        let key = String::from_utf8(words[1].clone()).expect("a name");
        self.call(&key, &words)
    }
}

/// Counters, lists and streams in many slots that only grow, whose outcome is known exactly.
pub struct Spread {
    pub prefix: String,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<BTreeMap<u64, u64>>>,
}

/// Tags of a spread: as many slots, give or take.
const TAGS: u64 = 40;

impl Spread {
    /// Starts at about `per_second` steps a second.
    pub fn start(site: &Site, prefix: &str, per_second: u64) -> Spread {
        Spread::with(site, prefix, per_second, false)
    }

    /// The same through servers that die: a write whose outcome is unknown is passed over, so nothing exact is known
    /// in the end.
    pub fn through(site: &Site, prefix: &str, per_second: u64) -> Spread {
        Spread::with(site, prefix, per_second, true)
    }

    fn with(site: &Site, prefix: &str, per_second: u64, through: bool) -> Spread {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (halt, count, prefix_there, mut router) = (stop.clone(), sent.clone(), prefix.to_owned(), site.router());
        let thread = thread::spawn(move || {
            let prefix = prefix_there;
            let began = Instant::now();
            let mut steps: BTreeMap<u64, u64> = BTreeMap::new();
            let mut n = 0u64;
            while !halt.load(Ordering::SeqCst) {
                let tag = n * 7 % TAGS;
                let i = steps.entry(tag).or_default();
                let key = |kind: &str| format!("{{{prefix}{tag}}}:{kind}");
                let (count_key, list, stream) = (key("count"), key("list"), key("stream"));
                let mut call = |key: &str, argv: &[&str]| match router.try_call(key.as_bytes(), argv) {
                    Ok(Reply::Error(e)) if !through => panic!("{key}: {e}"),
                    Err(e) if !through => panic!("{key}: {e}"),
                    _ => {}
                };
                call(&count_key, &["INCR", &count_key]);
                call(&list, &["RPUSH", &list, &i.to_string()]);
                call(&stream, &["XADD", &stream, &format!("{}-1", *i + 1), "n", &i.to_string()]);
                // Both sites count on this one.
                let shared = format!("{{both{tag}}}:count");
                call(&shared, &["INCR", &shared]);
                *i += 1;
                n += 1;
                count.store(n, Ordering::SeqCst);
                if per_second > 0 {
                    until(began + Duration::from_secs_f64(n as f64 / per_second as f64));
                }
            }
            steps
        });
        Spread { prefix: prefix.to_owned(), stop, sent, thread: Some(thread) }
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Waits for so many steps more.
    #[track_caller]
    pub fn more(&self, steps: u64) {
        let goal = self.sent() + steps;
        wait_for(&format!("load {} goes on", self.prefix), secs(60), || match self.sent() {
            n if n >= goal => Ok(()),
            n => Err(format!("{n} of {goal}")),
        });
    }

    /// Ends the load; steps of each tag.
    #[track_caller]
    pub fn stop(&mut self) -> BTreeMap<u64, u64> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("it is stopped once").join().expect("the load ran through")
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// All steps of a spread stand at a site exactly once and in order.
#[track_caller]
pub fn assert_spread(site: &Site, prefix: &str, steps: &BTreeMap<u64, u64>, but: &BTreeSet<String>) {
    let mut router = site.router();
    let mut faults = Vec::new();
    for (tag, wanted) in steps {
        let key = |kind: &str| format!("{{{prefix}{tag}}}:{kind}");
        let count = router.run(&format!("GET {}", key("count"))).text();
        if count != wanted.to_string() && !but.contains(&key("count")) {
            faults.push(format!("{}: {count} instead of {wanted}", key("count")));
        }
        let list: Vec<String> =
            router.run(&format!("LRANGE {} 0 -1", key("list"))).items().iter().map(Reply::text).collect();
        let right: Vec<String> = (0..*wanted).map(|n| n.to_string()).collect();
        if list != right && !but.contains(&key("list")) {
            let at = list.iter().zip(&right).position(|(a, b)| a != b).unwrap_or(list.len().min(right.len()));
            let around = &list[at.saturating_sub(2)..(at + 3).min(list.len())];
            faults.push(format!("{}: {} of {wanted}, wrong at {at}: {around:?}", key("list"), list.len()));
        }
        let stream = router.run(&format!("XLEN {}", key("stream"))).int() as u64;
        if stream != *wanted && !but.contains(&key("stream")) {
            faults.push(format!("{}: {stream} of {wanted}", key("stream")));
        }
    }
    assert!(faults.is_empty(), "{prefix}: {} faults:\n{}", faults.len(), faults.join("\n"));
}

/// What both sites counted on is the sum of both. `but`: keys that are left out.
#[track_caller]
pub fn assert_shared(site: &Site, a: &BTreeMap<u64, u64>, b: &BTreeMap<u64, u64>, but: &BTreeSet<String>) {
    let mut router = site.router();
    let mut faults = Vec::new();
    for tag in 0..TAGS {
        let wanted = a.get(&tag).unwrap_or(&0) + b.get(&tag).unwrap_or(&0);
        let key = format!("{{both{tag}}}:count");
        let found = router.run(&format!("GET {key}")).text();
        if wanted > 0 && found != wanted.to_string() && !but.contains(&key) {
            faults.push(format!("{key}: {found} instead of {wanted}"));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Ends loads at both sides and waits until each of their steps stands exactly once at both.
#[track_caller]
pub fn assert_all_there(a: &Site, b: &Site, duplex: &super::duplex::Duplex, loads: &mut [Spread; 2]) {
    let steps = loads.each_mut().map(Spread::stop);
    duplex.wait_state("synchronizing", secs(60));
    assert_sites_equal(a, b, secs(90));
    for site in [a, b] {
        for (load, steps) in loads.iter().zip(&steps) {
            assert_spread(site, &load.prefix, steps, &BTreeSet::new());
        }
        assert_shared(site, &steps[0], &steps[1], &BTreeSet::new());
    }
}
