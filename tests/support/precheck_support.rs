//! Real servers on free ports for the suites of precheck and verify; each ends with its test, by its pid.
#![allow(dead_code, reason = "each suite uses its own part")]

use redis_duplex::{
    engine::precheck::{self, PrecheckOptions},
    model::{AccountSource, Check, CheckId, CheckReport, CheckState, Instance, Job, Limits, Policy, secret::Inline},
};
use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub const OLDEST: &str = "redis-5.0";
pub const USUAL: &str = "redis-7.0";
pub const NEWEST: &str = "redis-8.6";
pub const VALKEY: &str = "valkey-9.1";
pub const VERSIONS: [&str; 4] = [OLDEST, USUAL, NEWEST, VALKEY];

pub struct Server {
    pub port: u16,
    pub name: String,
    password: Option<String>,
    child: Child,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts `name`, such as `redis-7.0`, with more lines for its configuration, and waits until it answers.
    pub fn start(name: &str, lines: &[&str]) -> Server {
        Server::start_with(name, &[], lines)
    }

    /// The same with arguments on its command line.
    pub fn start_with(name: &str, arguments: &[&str], lines: &[&str]) -> Server {
        let root = std::env::var_os("DUPLEX_SERVERS").map(PathBuf::from).unwrap_or_else(|| {
            PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/redis-servers")
        });
        let binary = root.join(name).join("bin/redis-server");
        let password = lines.iter().find_map(|l| l.strip_prefix("requirepass ")).map(str::to_owned);
        let mut last = String::new();
        for _ in 0..20 {
            let port = free_port();
            let dir = tempfile::Builder::new().prefix("duplex-server-").tempdir().expect("a temporary folder");
            let mut config = format!("dir {}\nlogfile {}/log\n", dir.path().display(), dir.path().display());
            config += &format!("port {port}\nbind 127.0.0.1\nprotected-mode no\n");
            if arguments.is_empty() {
                config += "save \"\"\n";
            }
            config += &lines.join("\n");
            config.push('\n');
            std::fs::write(dir.path().join("server.conf"), config).expect("write the configuration");
            let mut command = Command::new(&binary);
            command.arg(dir.path().join("server.conf")).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
            let mut child = command.stderr(Stdio::null()).spawn().expect("the server is installed");
            let deadline = Instant::now() + Duration::from_secs(60);
            loop {
                if child.try_wait().expect("the child's state").is_some() {
                    last = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
                    break;
                }
                let mine = format!("process_id:{}", child.id());
                if ask_info(port, password.as_deref()).is_some_and(|info| info.lines().any(|l| l.trim() == mine)) {
                    return Server { port, name: name.to_owned(), password, child, dir };
                }
                assert!(Instant::now() < deadline, "{name} did not answer on port {port}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        panic!("{name} did not start on any of 20 free ports: {last}");
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn data_dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub fn client(&self) -> redis::Connection {
        connect(self.port, self.password.as_deref()).expect("the server answers")
    }

    /// Runs one command, words parted by blanks.
    #[track_caller]
    pub fn run(&self, command: &str) -> redis::Value {
        let words: Vec<&str> = command.split(' ').collect();
        self.call(&words)
    }

    #[track_caller]
    pub fn call(&self, words: &[&str]) -> redis::Value {
        let mut cmd = redis::cmd(words[0]);
        for word in &words[1..] {
            cmd.arg(*word);
        }
        cmd.query(&mut self.client()).unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// Commands on one connection, one a line.
    #[track_caller]
    pub fn script(&self, lines: &str) {
        let mut client = self.client();
        for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let mut words = line.split(' ');
            let mut cmd = redis::cmd(words.next().expect("a name"));
            for word in words {
                cmd.arg(word);
            }
            let done: redis::RedisResult<redis::Value> = cmd.query(&mut client);
            done.unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    pub fn info(&self, name: &str) -> Option<String> {
        let info = ask_info(self.port, self.password.as_deref())?;
        info.lines().find_map(|l| l.trim_end().strip_prefix(name)?.strip_prefix(':')).map(str::to_owned)
    }

    pub fn instance(&self) -> Instance {
        let account = match &self.password {
            Some(p) => AccountSource::Inline(Inline::new(format!(":{p}"))),
            None => AccountSource::None,
        };
        Instance { addresses: vec![self.address()], account, ..Instance::default() }
    }

    pub fn instance_as(&self, account: &str) -> Instance {
        Instance { account: AccountSource::Inline(Inline::new(account)), ..self.instance() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

fn connect(port: u16, password: Option<&str>) -> redis::RedisResult<redis::Connection> {
    let url = match password {
        Some(p) => format!("redis://:{p}@127.0.0.1:{port}/"),
        None => format!("redis://127.0.0.1:{port}/"),
    };
    redis::Client::open(url)?.get_connection_with_timeout(Duration::from_secs(5))
}

fn ask_info(port: u16, password: Option<&str>) -> Option<String> {
    redis::cmd("INFO").query(&mut connect(port, password).ok()?).ok()
}

/// Waits for a state.
#[track_caller]
pub fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < deadline, "not so after 30 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn job(source: Instance, target: Instance) -> Job {
    Job { name: "test".into(), source, target, policy: Policy::default(), limits: Limits::default() }
}

/// Runs one item of the precheck.
pub async fn item(job: &Job, id: CheckId) -> Check {
    report(job, Some(&[id])).await.items.pop().expect("the item's result")
}

pub async fn report(job: &Job, only: Option<&[CheckId]>) -> CheckReport {
    let options = PrecheckOptions { spool_dir: Some(std::env::temp_dir()), ..Default::default() };
    precheck::run(job, None, only, options, None).await
}

/// The item came out so, and says what is expected in what it saw or advises.
#[track_caller]
pub fn expect(check: &Check, state: CheckState, words: &[&str]) {
    assert_eq!(check.state, state, "{check:#?}");
    let all = format!("{}\n{}\n{}", check.seen, check.why, check.remedy);
    for word in words {
        assert!(all.contains(word), "no {word:?} in {check:#?}");
    }
    assert!(!check.seen.is_empty(), "nothing seen: {check:#?}");
    if matches!(check.state, CheckState::Failed | CheckState::Warning) {
        assert!(!check.why.is_empty() && !check.remedy.is_empty(), "no why or remedy: {check:#?}");
    }
}
