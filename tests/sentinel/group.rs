//! A master with replicas and the sentinels that watch them; each process on a free port of 127.0.0.1, ended by its pid.

use super::support::{
    resp::{Client, Reply},
    server::{Server, free_port},
    versions,
    wait::{secs, until, wait_for},
};
use redis_duplex::{engine::apply::control_key::ControlKey, model::Direction};
use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// The name under which sentinels know the master.
pub const NAME: &str = "main";
/// A sentinel that was held up for two seconds distrusts its clock ("tilt"), and for 30 s from then on does nothing; it may be
/// so again.
const SENTINELS_PATIENCE: Duration = Duration::from_secs(150);

pub struct Sentinel {
    pub port: u16,
    child: Child,
    dir: tempfile::TempDir,
    password: Option<String>,
}

impl Sentinel {
    /// Watches `master`; `lines` go into its file behind the usual ones.
    #[track_caller]
    pub fn watching(server: &str, master: &Server, quorum: usize, lines: &str) -> Sentinel {
        let port = free_port();
        let dir = tempfile::Builder::new().prefix("duplex-sentinel-").tempdir().expect("a temporary folder");
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\nprotected-mode no\ndir {}\nlogfile {}\n\
             sentinel monitor {NAME} 127.0.0.1 {} {quorum}\nsentinel down-after-milliseconds {NAME} 700\n\
             sentinel failover-timeout {NAME} 2000\n{lines}\n",
            dir.path().display(),
            dir.path().join("log").display(),
            master.port
        );
        std::fs::write(&file, text).expect("write the sentinel's configuration");
        let child = Command::new(versions::home(server).join("bin/redis-server"))
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the sentinel");
        let password = lines.lines().find_map(|l| l.strip_prefix("requirepass ")).map(str::to_owned);
        let sentinel = Sentinel { port, child, dir, password };
        wait_for("the sentinel answers", secs(20), || sentinel.try_client().map(drop).map_err(|e| e.to_string()));
        // Since 7.0: it looks at the servers more often than each ten seconds.
        sentinel.client().call(&["SENTINEL", "DEBUG", "info-period", "300"]);
        sentinel
    }

    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn try_client(&self) -> std::io::Result<Client> {
        let mut client = Client::try_to(self.port)?;
        if let Some(p) = &self.password {
            client.try_call(&["AUTH", p])?;
        }
        client.try_call(&["PING"])?;
        Ok(client)
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        self.try_client().unwrap_or_else(|e| panic!("sentinel on port {}: {e}", self.port))
    }

    /// The port of the master, by its word.
    #[track_caller]
    pub fn master(&self) -> u16 {
        let reply = self.client().run(&format!("SENTINEL get-master-addr-by-name {NAME}"));
        reply.items()[1].text().parse().expect("a port")
    }

    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the log of the sentinel on port {}\n{}", self.port, self.log_tail());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two servers of which one is the other's replica at each time, and sentinels.
pub struct Group {
    pub servers: Vec<Server>,
    pub sentinels: Vec<Sentinel>,
}

impl Group {
    /// `server` is a name such as `redis-7.0`. Returns when each sentinel knows the replica.
    #[track_caller]
    pub fn start(server: &str, args: &[&str], sentinels: usize) -> Group {
        let servers = vec![Server::start(server, args), Server::start(server, args)];
        servers[1].client().run(&format!("REPLICAOF 127.0.0.1 {}", servers[0].port));
        in_step(&servers[0], &servers[1]);
        let quorum = sentinels / 2 + 1;
        let sentinels = (0..sentinels).map(|_| Sentinel::watching(server, &servers[0], quorum, "")).collect::<Vec<_>>();
        let group = Group { servers, sentinels };
        group.knows_its_replica();
        group
    }

    /// Waits until each sentinel lists the other server as a replica that is there, and the other sentinels.
    #[track_caller]
    pub fn knows_its_replica(&self) {
        let others = self.sentinels.len() - 1;
        for s in &self.sentinels {
            wait_for("the sentinel knows the replica", secs(30), || {
                let master = s.master();
                let reply = s.client().run(&format!("SENTINEL SLAVES {NAME}"));
                let good = reply.items().iter().any(|r| {
                    let words: Vec<String> = r.items().iter().map(|w| w.text()).collect();
                    let field = |name: &str| words.chunks(2).find(|p| p[0] == name).map(|p| p[1].clone());
                    let port: Option<u16> = field("port").and_then(|p| p.parse().ok());
                    port.is_some_and(|p| p != master && self.servers.iter().any(|s| s.port == p))
                        && field("flags").as_deref() == Some("slave")
                        && field("master-link-status").as_deref() == Some("ok")
                });
                let peers = s.client().run(&format!("SENTINEL SENTINELS {NAME}")).items().len();
                if good && peers == others { Ok(()) } else { Err(format!("{peers} of {others} peers; {reply:?}")) }
            });
        }
    }

    /// The server that the sentinels name.
    #[track_caller]
    pub fn master(&self) -> &Server {
        let port = self.sentinels[0].master();
        self.servers.iter().find(|s| s.port == port).expect("one of ours")
    }

    #[track_caller]
    pub fn replica(&self) -> &Server {
        let port = self.sentinels[0].master();
        self.servers.iter().find(|s| s.port != port).expect("one of ours")
    }

    /// Waits until all sentinels name another master than `old`, which says of itself that it is one.
    #[track_caller]
    pub fn moved_from(&self, old: u16) {
        wait_for("another master is named", SENTINELS_PATIENCE, || {
            let names: Vec<u16> = self.sentinels.iter().map(Sentinel::master).collect();
            if names.iter().any(|n| *n == old || *n != names[0]) {
                return Err(format!("{names:?}"));
            }
            let role = self.master().info("replication", "role").unwrap_or_default();
            if role == "master" { Ok(()) } else { Err(format!("{} is a {role}", names[0])) }
        });
    }

    /// A planned failover, the old master alive and taking writes until it is told.
    #[track_caller]
    pub fn fail_over(&self) {
        let old = self.sentinels[0].master();
        wait_for("the failover begins", SENTINELS_PATIENCE, || {
            let reply = self.sentinels[0].client().run(&format!("SENTINEL FAILOVER {NAME}"));
            if reply.is_error() { Err(format!("{reply:?}")) } else { Ok(()) }
        });
        self.moved_from(old);
    }

    /// Kills the master without a word; its replica is promoted.
    #[track_caller]
    pub fn kill_master(&mut self) {
        let old = self.sentinels[0].master();
        self.servers.iter_mut().find(|s| s.port == old).expect("one of ours").kill();
        self.moved_from(old);
    }

    /// Starts whoever does not run, empty as it may be, and waits until it is a replica in step.
    #[track_caller]
    pub fn heal(&mut self) {
        for s in self.servers.iter_mut().filter(|s| !s.is_running()) {
            s.restart();
        }
        let (master, replica) = (self.master(), self.replica());
        // A sentinel takes ten seconds or so to tell an old master, if it lives.
        replica.client().run(&format!("REPLICAOF 127.0.0.1 {}", master.port));
        wait_for("the old master is a replica in step", secs(60), || {
            match (replica.info("replication", "role"), replica.info("replication", "master_link_status")) {
                (Some(role), Some(link)) if role == "slave" && link == "up" => {
                    let port = replica.info("replication", "master_port");
                    if port == Some(master.port.to_string()) { Ok(()) } else { Err(format!("of {port:?}")) }
                }
                other => Err(format!("{other:?}")),
            }
        });
        self.knows_its_replica();
    }

    /// `address` and what belongs to it, for a job file: the sentinels.
    pub fn addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(Sentinel::addr).collect()
    }

    /// The lines of the job file beside the addresses.
    pub fn lines() -> String {
        format!("topology = \"sentinel\"\nmaster_name = \"{NAME}\"\n")
    }
}

/// Waits until a replica has all that its master has, and its master knows: one that has copied is "up" by its own word
/// while the master still sees its own child off, and calls it `wait_bgsave` until then.
#[track_caller]
pub fn in_step(master: &Server, replica: &Server) {
    wait_for("the replica is in step", secs(30), || {
        let up = replica.info("replication", "master_link_status");
        let (a, b) = (master.offset(), replica.offset());
        let listed = master.client().run("INFO replication").text();
        let port = format!("port={},", replica.port);
        let listed = listed.lines().find(|l| l.contains(&port)).unwrap_or("not listed by its master");
        let online = listed.contains("state=online");
        if up.as_deref() == Some("up") && b >= a && online {
            Ok(())
        } else {
            Err(format!("{up:?}, {b} of {a}, {listed}"))
        }
    });
}

/// Waits until either group's replica could take over: where it copies its master, its backlog begins there, and it can't
/// give what came before. So it has to hold control keys (its own, and the other group's) whose positions are in it.
#[track_caller]
pub fn could_be_heirs(groups: &[Group; 2]) {
    let heirs = groups.each_ref().map(Group::replica);
    let field = |heir: &Server, name: &str| heir.info("replication", name).and_then(|v| v.parse().ok());
    let key = |heir: &Server, direction: Direction| {
        let reply = heir.client().run(&format!("KEYS duplex:*:{direction}"));
        let name = reply.items().first().map(Reply::text)?;
        let value = heir.client().call(&["GET", &name]);
        ControlKey::parse(value.text().as_bytes())
    };
    wait_for("the replicas hold positions that they could go on from", secs(60), || {
        for direction in Direction::BOTH {
            // Whose stream it reads, and who holds how far that was read.
            let (from, to) = (heirs[direction.from().index()], heirs[direction.to().index()]);
            let begins: Option<u64> = field(from, "repl_backlog_first_byte_offset");
            let (own, other) = (key(to, direction), key(from, direction.other()));
            let (Some(begins), Some(own), Some(other)) = (begins, own, other) else {
                return Err(format!("{direction}: {begins:?}, {own:?}, {other:?}"));
            };
            let needed = [own.applied, own.replied, other.echoed].map(|p| p.offset.0);
            if needed.iter().any(|p| *p < begins) {
                return Err(format!("{direction}: {needed:?} are needed, from {begins} on it is there"));
            }
        }
        Ok(())
    });
}

/// Writes to whoever of a group is its master, through failovers: a counter and a list, in one transaction a step. A step
/// that was not answered is never sent again, so that each is there once or not at all.
pub struct Faithful {
    pub prefix: String,
    stop: Arc<AtomicBool>,
    tried: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<Vec<u64>>>,
}

/// Steps sent at once; behind them is asked whether somebody else has them.
const STEPS: u64 = 20;

impl Faithful {
    /// `ports`: the servers of the group.
    pub fn start(ports: Vec<u16>, prefix: &str, per_second: u64) -> Faithful {
        let (stop, tried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (halt, count, keys) = (stop.clone(), tried.clone(), prefix.to_owned());
        let thread = thread::spawn(move || {
            let (began, mut kept, mut client) = (Instant::now(), Vec::new(), None);
            while !halt.load(SeqCst) {
                let Some(c) = client.as_mut() else {
                    client = ports.iter().find_map(|p| writable(*p));
                    if client.is_none() {
                        until(Instant::now() + Duration::from_millis(20));
                    }
                    continue;
                };
                let from = count.fetch_add(STEPS, SeqCst);
                match steps(c, &keys, from) {
                    Ok(true) => kept.extend(from..from + STEPS),
                    Ok(false) => {}
                    Err(_) => client = None,
                }
                until(began + Duration::from_secs_f64((from + STEPS) as f64 / per_second as f64));
            }
            kept
        });
        Faithful { prefix: prefix.to_owned(), stop, tried, thread: Some(thread) }
    }

    /// Steps tried so far.
    pub fn tried(&self) -> u64 {
        self.tried.load(SeqCst)
    }

    /// Waits until so many more were tried.
    #[track_caller]
    pub fn more(&self, steps: u64) {
        let goal = self.tried() + steps;
        wait_for(&format!("load {} goes on", self.prefix), secs(60), || match self.tried() {
            n if n >= goal => Ok(()),
            n => Err(format!("{n} of {goal}")),
        });
    }

    /// Ends the load; the steps that somebody beside the master had acknowledged: these must be there.
    #[track_caller]
    pub fn stop(&mut self) -> Vec<u64> {
        self.stop.store(true, SeqCst);
        self.thread.take().expect("it is stopped once").join().expect("the load ran through")
    }
}

impl Drop for Faithful {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
    }
}

/// A connection to this server, if it is a master.
pub fn writable(port: u16) -> Option<Client> {
    let mut client = Client::try_to(port).ok()?;
    let role = client.try_call(&["ROLE"]).ok()?;
    matches!(&role, Reply::Array(r) if r.first().is_some_and(|w| w.text() == "master")).then_some(client)
}

/// Whether all of them were taken and are at one other place at least.
fn steps(client: &mut Client, keys: &str, from: u64) -> std::io::Result<bool> {
    for i in from..from + STEPS {
        client.queue(&["MULTI"]);
        client.queue(&["INCR", &format!("{keys}:count")]);
        client.queue(&["RPUSH", &format!("{keys}:list"), &i.to_string()]);
        client.queue(&["EXEC"]);
    }
    client.queue(&["WAIT", "1", "300"]);
    client.flush()?;
    let mut refused = false;
    for _ in 0..4 * STEPS {
        refused |= client.read()?.is_error();
    }
    let witnesses = client.read()?;
    if refused {
        return Err(std::io::Error::other("it takes no writes any more"));
    }
    Ok(matches!(witnesses, Reply::Int(1..)))
}

/// Of this load, a server holds each step at most once and in order, and all that must be there.
#[track_caller]
pub fn assert_faithful(server: &Server, prefix: &str, kept: &[u64]) -> usize {
    let mut client = server.client();
    let at = format!("{} on port {}: {prefix}", server.name, server.port);
    let reply = client.run(&format!("LRANGE {prefix}:list 0 -1"));
    let list: Vec<u64> = reply.items().iter().map(|r| r.int() as u64).collect();
    if let Some(i) = list.windows(2).position(|w| w[0] >= w[1]) {
        panic!(
            "{at}: the list of {} goes wrong at {i}: {:?}",
            list.len(),
            &list[i.saturating_sub(3)..(i + 5).min(list.len())]
        );
    }
    let lost: Vec<u64> = kept.iter().filter(|k| list.binary_search(k).is_err()).copied().collect();
    assert!(
        lost.is_empty(),
        "{at}: {} acknowledged steps are gone, such as {:?}",
        lost.len(),
        &lost[..lost.len().min(9)]
    );
    assert_eq!(client.run(&format!("GET {prefix}:count")).text(), list.len().to_string(), "{at}: counter and list");
    list.len()
}
