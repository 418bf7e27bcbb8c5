//! The product as a black box: the binary, a home of its own, a job file, and nothing that interface.md doesn't promise.

use super::{
    server::{Server, signal},
    wait::{secs, wait_for},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// A job file in the making. Every field has the default of the interface but the two addresses.
#[derive(Clone)]
pub struct JobSpec {
    pub name: String,
    pub source: String,
    pub target: String,
    /// More lines of `[source]` and `[target]`.
    pub source_lines: String,
    pub target_lines: String,
    /// More lines of `[policy]` and `[limits]`.
    pub policy_lines: String,
    pub limits_lines: String,
}

impl JobSpec {
    /// A job between two servers, or whatever listens at these addresses.
    pub fn between(source: impl Into<String>, target: impl Into<String>) -> JobSpec {
        JobSpec {
            name: "orders".into(),
            source: source.into(),
            target: target.into(),
            source_lines: String::new(),
            target_lines: String::new(),
            policy_lines: String::new(),
            limits_lines: String::new(),
        }
    }

    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// One more line of `[policy]`, such as `existing_keys = "merge"`.
    pub fn policy(mut self, line: &str) -> Self {
        self.policy_lines += line;
        self.policy_lines.push('\n');
        self
    }

    pub fn limits(mut self, line: &str) -> Self {
        self.limits_lines += line;
        self.limits_lines.push('\n');
        self
    }

    pub fn source_line(mut self, line: &str) -> Self {
        self.source_lines += line;
        self.source_lines.push('\n');
        self
    }

    pub fn target_line(mut self, line: &str) -> Self {
        self.target_lines += line;
        self.target_lines.push('\n');
        self
    }

    pub fn toml(&self) -> String {
        format!(
            "name = \"{}\"\n\n[source]\naddress = \"{}\"\n{}\n[target]\naddress = \"{}\"\n{}\n[policy]\n{}\n[limits]\n{}",
            self.name,
            self.source,
            self.source_lines,
            self.target,
            self.target_lines,
            self.policy_lines,
            self.limits_lines
        )
    }
}

/// How a command of the binary ended.
pub struct Ended {
    pub what: String,
    /// The exit code; `None` where a signal ended it or it had to be killed.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Everything it wrote.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, Some(expected), "{}: exit code\n{}", self.what, self.text());
        self
    }

    /// Each of these words stands somewhere in what it wrote, in any case.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        // Lines are wrapped for the terminal's width: a phrase may stand on two.
        let text = self.text().to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
        for w in words {
            assert!(text.contains(&w.to_lowercase()), "{}: says nothing of {w:?}:\n{}", self.what, self.text());
        }
        self
    }
}

/// A home, perhaps an engine, one job.
pub struct Duplex {
    home: tempfile::TempDir,
    pub job_file: PathBuf,
    pub name: String,
    engine: Option<Child>,
    env: Vec<(String, String)>,
}

impl Duplex {
    /// Writes the job file; nothing runs yet.
    pub fn new(job: &JobSpec) -> Duplex {
        let mut duplex = Duplex::with_file(&job.toml());
        duplex.name = job.name.clone();
        duplex
    }

    /// The same with any text as the job file.
    pub fn with_file(text: &str) -> Duplex {
        let home = tempfile::Builder::new().prefix("duplex-home-").tempdir().expect("a temporary folder");
        let job_file = home.path().join("job.toml");
        std::fs::write(&job_file, text).expect("write the job file");
        Duplex { home, job_file, name: "orders".into(), engine: None, env: Vec::new() }
    }

    /// A job between two servers whose links run and synchronize.
    #[track_caller]
    pub fn synced(job: &JobSpec) -> Duplex {
        let mut duplex = Duplex::new(job);
        duplex.start();
        duplex.wait_state("synchronizing", secs(60));
        duplex
    }

    /// Sets a variable in the environment of everything started from now on.
    pub fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.into(), value.into()));
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        // A long run keeps to one build while the next is being made.
        let binary = std::env::var_os("DUPLEX_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_duplex").into());
        let mut command = Command::new(binary);
        command.args(args).env("DUPLEX_HOME", self.home.path().join("home")).env("NO_COLOR", "1");
        command.env("RUST_BACKTRACE", "1").env("LC_ALL", "C.UTF-8").envs(self.env.iter().cloned());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command of the binary to its end, at most a minute.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ended {
        self.run_within(args, secs(60))
    }

    #[track_caller]
    pub fn run_within(&self, args: &[&str], limit: Duration) -> Ended {
        let what = format!("duplex {}", args.join(" "));
        let mut command = self.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the binary");
        let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let began = Instant::now();
        let status: Option<ExitStatus> = loop {
            match child.try_wait().expect("wait for the binary") {
                Some(status) => break Some(status),
                None if began.elapsed() > limit => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break None;
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        };
        let (stdout, stderr) = (out.join().expect("its output"), err.join().expect("its errors"));
        assert!(status.is_some(), "{what}: not done after {limit:?}\n{stdout}{stderr}");
        Ended { what, code: status.and_then(|s| s.code()), stdout, stderr }
    }

    /// Starts a command of the binary that goes on by itself; what it writes is collected. It is the caller's to end,
    /// and is ended when the returned process is dropped.
    #[track_caller]
    pub fn spawn(&self, args: &[&str]) -> (Running, Arc<Mutex<String>>) {
        let mut child =
            self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the binary");
        let text = Arc::new(Mutex::new(String::new()));
        let pipes: [Option<Box<dyn Read + Send>>; 2] =
            [child.stdout.take().map(|p| Box::new(p) as _), child.stderr.take().map(|p| Box::new(p) as _)];
        for pipe in pipes.into_iter().flatten() {
            let text = text.clone();
            thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    *text.lock().expect("its text") += &(line + "\n");
                }
            });
        }
        (Running(child), text)
    }

    /// Starts the engine as a child of the test and waits until it answers.
    #[track_caller]
    pub fn engine(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.engine_log()).expect("the engine's log");
        let mut command = self.command(&["engine"]);
        command.stdout(log.try_clone().expect("the engine's log")).stderr(log);
        self.engine = Some(command.spawn().expect("start the engine"));
        wait_for("the engine answers", secs(20), || {
            if let Ok(Some(status)) = self.engine.as_mut().expect("just started").try_wait() {
                panic!("the engine ended with {status}:\n{}", self.log_tail());
            }
            match self.run(&["status", "--json"]) {
                // 4: it answers, and a link it took up again is not healthy yet.
                ended if matches!(ended.code, Some(0 | 4)) => Ok(()),
                ended => Err(format!("exit code {:?}: {}", ended.code, ended.text())),
            }
        });
    }

    /// Engine and job; returns when `duplex start` says that both links have started.
    #[track_caller]
    pub fn start(&mut self) {
        self.engine();
        self.start_job();
    }

    /// `duplex start JOB.toml` in the engine that runs.
    #[track_caller]
    pub fn start_job(&self) {
        self.run(&["start", self.job_file.to_str().expect("a path")]).code(0);
    }

    pub fn engine_pid(&self) -> u32 {
        self.engine.as_ref().expect("the engine runs").id()
    }

    /// kill -9.
    pub fn crash(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            let _ = engine.kill();
            let _ = engine.wait();
        }
    }

    /// Starts the engine again after a crash: it takes up its jobs by itself.
    #[track_caller]
    pub fn revive(&mut self) {
        self.engine();
    }

    /// SIGTERM; its exit code.
    #[track_caller]
    pub fn terminate(&mut self) -> Option<i32> {
        let mut engine = self.engine.take().expect("the engine runs");
        signal(engine.id(), Signal::SIGTERM);
        wait_for("the engine ends", secs(20), || match engine.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            other => Err(format!("{other:?}")),
        })
    }

    /// `status NAME --json`.
    #[track_caller]
    pub fn status(&self) -> Status {
        self.try_status().unwrap_or_else(|e| panic!("status: {e}"))
    }

    pub fn try_status(&self) -> Result<Status, String> {
        let ended = self.run(&["status", &self.name, "--json"]);
        let value: Value = serde_json::from_str(&ended.stdout).map_err(|e| format!("{e}: {}", ended.text()))?;
        match value["jobs"].as_array().and_then(|jobs| jobs.iter().find(|j| j["name"] == *self.name)) {
            Some(job) => Ok(Status(job.clone())),
            None => Err(format!("no job {:?} in {value}", self.name)),
        }
    }

    /// Waits until the job, and with it both links, is in `state`.
    #[track_caller]
    pub fn wait_state(&self, state: &str, limit: Duration) -> Status {
        self.wait_status(&format!("the job is {state}"), limit, |s| s.state() == state)
    }

    #[track_caller]
    pub fn wait_status(&self, what: &str, limit: Duration, mut good: impl FnMut(&Status) -> bool) -> Status {
        wait_for(what, limit, || match self.try_status() {
            Ok(status) if good(&status) => Ok(status),
            Ok(status) => Err(format!("{:#}\n{}", status.0, self.log_tail())),
            Err(e) => Err(format!("{e}\n{}", self.log_tail())),
        })
    }

    /// Waits until each link has applied all that its server's stream holds at this moment.
    #[track_caller]
    pub fn wait_applied(&self, source: &Server, target: &Server, limit: Duration) -> Status {
        let forward = source.offset();
        let status = self.wait_status(&format!("forward has applied up to {forward}"), limit, |s| {
            s.applied("forward").is_some_and(|o| o >= forward)
        });
        if status.link("reverse").is_none() {
            return status;
        }
        let reverse = target.offset();
        self.wait_status(&format!("reverse has applied up to {reverse}"), limit, |s| {
            s.applied("reverse").is_some_and(|o| o >= reverse)
        })
    }

    /// What the engines have written to their terminal.
    pub fn engine_log(&self) -> PathBuf {
        self.home.path().join("engine.out")
    }

    /// The ends of what the engine wrote, to its terminal and to its log files.
    pub fn log_tail(&self) -> String {
        let mut out = String::new();
        let mut files = vec![self.engine_log()];
        if let Ok(dir) = std::fs::read_dir(self.home.path().join("home/log")) {
            files.extend(dir.flatten().map(|f| f.path()));
        }
        for file in files {
            let text = std::fs::read(&file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(25)..].join("\n");
            out += &format!("--- {}\n{tail}\n", file.display());
        }
        out
    }
}

/// A process that ends when this is dropped.
pub struct Running(Child);

impl std::ops::Deref for Running {
    type Target = Child;
    fn deref(&self) -> &Child {
        &self.0
    }
}

impl std::ops::DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Drop for Duplex {
    fn drop(&mut self) {
        if let Some(to) = std::env::var_os("KEEP_LOG") {
            let _ = std::fs::copy(self.engine_log(), to);
        }
        if thread::panicking() {
            eprintln!("{}", self.log_tail());
            if self.engine.is_some() {
                let events = self.run(&["events", "--json"]).stdout;
                let lines: Vec<&str> = events.lines().collect();
                eprintln!("--- the last events\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
        self.crash();
        // An engine that a command brought up by itself outlives that command, but not the test.
        if self.home.path().join("home/run").exists() {
            let status = self.command(&["status", "--json"]).output().map(|o| o.stdout).unwrap_or_default();
            let status: Value = serde_json::from_slice(&status).unwrap_or_default();
            if let Some(pid) = status["engine_pid"].as_u64().and_then(|p| u32::try_from(p).ok()) {
                signal(pid, Signal::SIGKILL);
            }
        }
    }
}

/// One job of `status --json`.
#[derive(Clone, Debug)]
pub struct Status(pub Value);

impl Status {
    pub fn state(&self) -> &str {
        self.0["state"].as_str().unwrap_or("?")
    }

    /// The job's id, which its control keys bear.
    pub fn id(&self) -> &str {
        self.0["id"].as_str().unwrap_or("?")
    }

    pub fn link(&self, direction: &str) -> Option<&Value> {
        self.0["links"].as_array()?.iter().find(|l| l["direction"] == direction)
    }

    /// A counter of a link.
    #[track_caller]
    pub fn count(&self, direction: &str, field: &str) -> u64 {
        let link = self.link(direction).unwrap_or_else(|| panic!("no {direction} link in {:#}", self.0));
        link[field].as_u64().unwrap_or_else(|| panic!("{direction}.{field} is no number in {link:#}"))
    }

    /// The sum over both links.
    #[track_caller]
    pub fn total(&self, field: &str) -> u64 {
        ["forward", "reverse"].iter().filter(|d| self.link(d).is_some()).map(|d| self.count(d, field)).sum()
    }

    /// The lowest applied offset of the link's shards; `None` while one is unknown.
    pub fn applied(&self, direction: &str) -> Option<u64> {
        let shards = self.link(direction)?["shards"].as_array()?;
        shards.iter().map(|s| s["offset_applied"].as_u64()).collect::<Option<Vec<_>>>()?.into_iter().min()
    }
}
