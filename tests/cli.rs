//! The whole program, run as a user or a script runs it, each test with a `DUPLEX_HOME` of its own.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};
use tempfile::TempDir;

/// Far more than any of these needs; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// Both sides refuse connections, so a start fails soon.
const NOBODY: &str = "name = \"orders\"\n[source]\naddress = \"127.0.0.1:1\"\n[target]\naddress = \"[::1]:1\"\n";

/// A user with a home; whatever engine runs in it is ended with the test.
struct User {
    home: TempDir,
}

impl User {
    fn new() -> User {
        User { home: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duplex"));
        command.args(args).stdin(Stdio::null()).env_clear().env("DUPLEX_HOME", self.home.path()).env("LANG", "C.UTF-8");
        command
    }

    /// Runs to the end, with a deadline.
    fn run(&self, args: &[&str]) -> Ran {
        let child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Ran::of(wait(child, args))
    }

    /// Starts an engine in the foreground and waits until it says that it runs.
    fn engine(&self) -> Engine {
        let mut child = self.command(&["engine"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut all = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                all.push_str(&line);
                all.push('\n');
                if line.starts_with("engine runs") {
                    _ = tell.send(());
                }
            }
        });
        let engine = Engine { child: Some(child) };
        told.recv_timeout(DEADLINE).expect("the engine did not say that it runs");
        engine
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // The pid of an engine that a command started for this home; of no other.
        let Ok(text) = std::fs::read_to_string(self.path("state/engine.lock")) else { return };
        if !self.path("run/engine.sock").exists() {
            return;
        }
        if let Some(pid) = text.lines().next().and_then(|l| l.parse::<i32>().ok()) {
            _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

struct Engine {
    child: Option<Child>,
}

impl Engine {
    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal and waits for the end; gives the exit code.
    fn signal(mut self, signal: nix::sys::signal::Signal) -> Option<i32> {
        let child = self.child.take().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
        wait(child, &["engine"]).status.code()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// Waits with a deadline, after which the child is killed and the test fails.
fn wait(child: Child, what: &[&str]) -> Output {
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    match told.recv_timeout(DEADLINE) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            panic!("duplex {what:?} did not end in {DEADLINE:?}")
        }
    }
}

#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn code(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

#[test]
fn usage_errors_end_with_2_and_say_what_to_do() {
    let user = User::new();
    for args in [&["nonsense"][..], &["start"], &["status", "--jsn"], &["pause"], &["completions", "tcsh-ish"]] {
        let ran = user.run(args).code(2);
        assert!(ran.out.is_empty() && ran.err.contains("error:"), "{ran:?}");
    }
    let ran = user.run(&["pause", "two words"]).code(2);
    assert!(ran.err.starts_with("error: \"two words\" can't be a job's name"), "{}", ran.err);
    assert!(ran.err.contains("\n  do: "), "{}", ran.err);
    let ran = user.run(&["start", "absent.toml"]).code(2);
    assert!(ran.err.contains("can't read absent.toml"), "{}", ran.err);
    user.run(&["start", "known", "--discard-previous"]).code(2);
}

#[test]
fn a_mistake_in_a_job_file_names_its_line() {
    let user = User::new();
    let job = user.write("orders.toml", &format!("{NOBODY}[polcy]\nconflict = \"overwrite\"\n"));
    for args in [&["precheck", &job][..], &["start", &job], &["start", &job, "--foreground"]] {
        let ran = user.run(args).code(2);
        assert!(ran.err.contains("orders.toml:6:2: unknown key \"polcy\" (did you mean \"policy\"?)"), "{}", ran.err);
    }
    let ran = user.run(&["precheck", &job, "--json"]).code(2);
    let error = &ran.json()["error"];
    assert_eq!((ran.json()["version"].as_u64(), error["exit_code"].as_u64()), (Some(1), Some(2)));
    assert!(error["message"].as_str().unwrap().contains(":6:2:"));
    assert!(!user.path("run/engine.sock").exists(), "an engine was started for a file that can't be read");
}

#[test]
fn without_an_engine_the_code_is_5() {
    let user = User::new();
    for args in [&["status"][..], &["events"], &["pause", "orders"], &["stop", "orders"], &["verify", "orders"]] {
        let ran = user.run(args).code(5);
        assert!(ran.err.starts_with("error: no engine runs"), "{ran:?}");
        assert!(ran.err.contains("  do: start one with `duplex engine`"), "{ran:?}");
    }
    let ran = user.run(&["status", "--json"]).code(5);
    assert_eq!(ran.json()["error"]["exit_code"], 5);
    assert!(!user.path("run").exists(), "asking made a folder");
}

#[test]
fn the_console_needs_a_terminal() {
    let ran = User::new().run(&[]).code(2);
    assert!(ran.err.contains("the console needs a terminal"), "{}", ran.err);
}

#[test]
fn doctor_tells_the_places_and_the_engine() {
    let user = User::new();
    let found = user.run(&["doctor", "--json"]).code(0).json();
    assert_eq!(found["engine"]["running"], false);
    assert_eq!(found["places"]["state"], user.path("state").to_str().unwrap());
    let engine = user.engine();
    let found = user.run(&["doctor", "--json"]).code(0).json();
    assert_eq!(found["engine"]["pid"], engine.pid());
    assert_eq!(found["trouble"], Value::Array(vec![]));
    assert!(user.run(&["doctor"]).code(0).out.contains(&format!("runs: process {}", engine.pid())));
}

#[test]
fn an_engine_in_the_foreground_serves_and_ends_cleanly() {
    let user = User::new();
    let engine = user.engine();
    let status = user.run(&["status", "--json"]).code(0).json();
    assert_eq!(status, serde_json::json!({"version": 1, "engine_pid": engine.pid(), "jobs": []}));
    assert_eq!(user.run(&["status"]).code(0).out, "no jobs yet: `duplex start JOB.toml` starts one\n");
    let ran = user.run(&["engine"]).code(1);
    assert!(ran.err.contains(&format!("error: an engine runs already (process {})", engine.pid())), "{}", ran.err);
    user.run(&["status"]).code(0);
    assert_eq!(engine.signal(nix::sys::signal::Signal::SIGTERM), Some(0));
    assert!(!user.path("run/engine.sock").exists());
    user.run(&["status"]).code(5);
}

#[test]
fn a_killed_engine_leaves_nothing_in_the_way() {
    let user = User::new();
    assert_eq!(user.engine().signal(nix::sys::signal::Signal::SIGKILL), None);
    assert!(user.path("run/engine.sock").exists(), "the test is about a socket that was left behind");
    user.run(&["status"]).code(5);
    let engine = user.engine();
    user.run(&["status"]).code(0);
    assert_eq!(engine.signal(nix::sys::signal::Signal::SIGINT), Some(0));
}

#[test]
fn start_brings_an_engine_up_that_outlives_it_and_keeps_what_it_knows() {
    let user = User::new();
    let job = user.write("orders.toml", NOBODY);
    // The start fails, since nobody listens there; the engine stays.
    let ran = user.run(&["start", &job]);
    assert!(matches!(ran.code, Some(1 | 3)), "{ran:?}");
    assert!(ran.err.contains("error: "), "{ran:?}");
    let status = user.run(&["status", "--json"]).code(4).json();
    assert_eq!(status["jobs"][0]["name"], "orders");
    assert!(["failed", "precheck_failed"].contains(&status["jobs"][0]["state"].as_str().unwrap()), "{status}");
    let pid = status["engine_pid"].as_u64().unwrap() as i32;
    let session = |pid| nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap().as_raw();
    assert_eq!(session(pid), pid, "it did not leave this session");
    let events = user.run(&["events", "orders", "--json"]).code(0);
    let first: Value = serde_json::from_str(events.out.lines().next().unwrap()).unwrap();
    assert_eq!((first["job"].as_str(), first["seq"].as_u64()), (Some("orders"), Some(1)));
    // Unknown names are usage errors that tell the known ones.
    assert!(user.run(&["pause", "carts"]).code(2).err.contains("it knows: orders"));
    user.run(&["engine", "--stop"]).code(0);
    user.run(&["status"]).code(5);
    // What it knew is known to the next one.
    let engine = user.engine();
    let status = user.run(&["status", "orders", "--json"]).code(4).json();
    assert_eq!(status["jobs"][0]["name"], "orders");
    user.run(&["forget", "orders"]).code(0);
    assert_eq!(user.run(&["status", "--json"]).code(0).json()["jobs"], Value::Array(vec![]));
    drop(engine);
}

#[test]
fn a_refused_start_is_one_document_with_json() {
    let user = User::new();
    let job = user.write("orders.toml", NOBODY);
    let ran = user.run(&["start", &job, "--json"]);
    let document = ran.json();
    assert_eq!(document["version"], 1);
    assert_eq!(document["error"]["exit_code"].as_i64().map(|c| c as i32), ran.code);
    assert!(!document["error"]["message"].as_str().unwrap().is_empty());
}

#[test]
fn a_start_in_the_foreground_that_fails_ends_and_lets_the_lock_go() {
    let user = User::new();
    let job = user.write("orders.toml", NOBODY);
    let ran = user.run(&["start", &job, "--foreground"]);
    assert!(matches!(ran.code, Some(1 | 3)), "{ran:?}");
    let engine = user.engine();
    // An engine runs already: a second one in the foreground is refused, and the first goes on.
    let ran = user.run(&["start", &job, "--foreground"]).code(1);
    assert!(ran.err.contains("an engine runs already"), "{}", ran.err);
    assert_eq!(engine.signal(nix::sys::signal::Signal::SIGTERM), Some(0));
}

#[test]
fn an_engine_that_can_not_start_says_why() {
    let user = User::new();
    std::fs::write(user.path("state"), "not a folder").unwrap();
    let job = user.write("orders.toml", NOBODY);
    let ran = user.run(&["start", &job]).code(5);
    assert!(ran.err.contains("the engine did not start: "), "{}", ran.err);
    assert!(ran.err.contains("state"), "{}", ran.err);
}

#[test]
fn a_home_too_deep_for_a_socket_is_told() {
    let user = User::new();
    let deep = user.path(&"d".repeat(100));
    let mut command = user.command(&["engine"]);
    command.env("DUPLEX_HOME", &deep).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = Ran::of(wait(command.spawn().unwrap(), &["engine"])).code(1);
    assert!(ran.err.contains("a Unix socket takes 10"), "{}", ran.err);
    assert!(ran.err.contains("do: set DUPLEX_HOME or XDG_RUNTIME_DIR to a shorter path"), "{}", ran.err);
}

#[test]
fn a_reader_that_goes_away_ends_the_command_without_a_word() {
    let user = User::new();
    for args in [&["man"][..], &["completions", "bash"], &["doctor"]] {
        let mut child = user.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let output = wait(child, args);
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn no_secret_reaches_a_log_an_event_or_a_message() {
    let user = User::new();
    let job = user.write("orders.toml", &NOBODY.replace("[target]", "account = \"admin:hunter2\"\n[target]"));
    let ran = user.run(&["start", &job]);
    assert!(!format!("{ran:?}").contains("hunter2"));
    user.run(&["engine", "--stop"]).code(0);
    let mut kept = Vec::new();
    files(user.home.path(), &mut kept);
    let holding: Vec<&PathBuf> = kept
        .iter()
        .filter(|f| std::fs::read(f).is_ok_and(|b| String::from_utf8_lossy(&b).contains("hunter2")))
        .filter(|f| f.file_name().unwrap() != "orders.toml")
        .collect();
    // The job's record alone, which the engine needs to go on after a restart.
    assert!(holding.iter().all(|f| f.parent().unwrap().ends_with("state/jobs")), "{holding:?}");
    for file in kept.iter().filter(|f| f.file_name().unwrap() != "orders.toml") {
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(file).unwrap());
        assert_eq!(mode & 0o077, 0, "{} is open to others", file.display());
    }
}

fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, into),
            false => into.push(path),
        }
    }
}

#[test]
fn help_of_every_command() {
    let user = User::new();
    let main = user.run(&["--help"]).code(0).out;
    let mut all = format!("$ duplex --help\n{main}");
    let commands = main.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    for command in commands.filter_map(|l| l.split_whitespace().next()) {
        all.push_str(&format!("\n$ duplex {command} --help\n{}", user.run(&[command, "--help"]).code(0).out));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn the_manual_page() {
    let page = User::new().run(&["man"]).code(0).out;
    insta::assert_snapshot!(page.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}

#[test]
fn completions_know_every_command() {
    let user = User::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = user.run(&["completions", shell]).code(0).out;
        for word in ["precheck", "discard-previous", "foreground", "doctor"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
}
