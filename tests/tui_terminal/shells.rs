//! The terminal around the console: signals, panics, poor terminals, job control, ssh. Each leaves a sane one.

use crate::{
    console::{Console, Home, PATIENCE},
    support::{self, secs},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

#[test]
fn signals_leave_a_sane_terminal() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let home = Home::new();
        let mut c = Console::open(&home.0, &["--lang", "en"], &[]);
        c.shows(&["No sync job yet"]);
        let pid = c.child.process_id().expect("a process");
        kill(Pid::from_raw(pid as i32), signal).expect("signalled");
        c.ends();
        c.is_sane();
    }
}

#[test]
fn poor_terminals_are_served_or_refused() {
    let home = Home::new();
    let mut dumb = Console::open(&home.0, &[], &[("TERM", "dumb")]);
    assert_eq!(dumb.ends(), 2);
    dumb.shows(&["TERM"]);

    let mut plain = Console::open(&home.0, &[], &[("LANG", "C"), ("NO_COLOR", "1")]);
    plain.shows(&["No sync job yet"]);
    let parser = plain.screen.lock().expect("screen");
    let screen = parser.screen();
    assert!(screen.contents().is_ascii());
    for row in 0..24 {
        for column in 0..80 {
            let cell = screen.cell(row, column).expect("a cell");
            assert_eq!((cell.fgcolor(), cell.bgcolor()), (vt100::Color::Default, vt100::Color::Default));
        }
    }
    drop(parser);
    plain.type_("q");
    assert_eq!(plain.ends(), 0);
}

#[test]
fn a_panic_on_another_thread_leaves_a_sane_terminal() {
    let home = tempfile::tempdir().expect("a home");
    let this = std::env::current_exe().expect("this test");
    let mut c = Console::program(
        this.as_os_str(),
        &home,
        &["--exact", "shells::a_console_whose_connection_breaks_down", "--ignored", "--nocapture", "--test-threads=1"],
        &[("DUPLEX_TEST_TERMINAL", "1")],
    );
    c.until("panic", |text| text.contains("broken on purpose"));
    assert_eq!(c.ends(), 0);
    c.is_sane();
    c.shows(&["the console broke down; the engine and its jobs go on"]);
}

/// The other half of the test above: it needs a terminal of its own.
#[test]
#[ignore = "run by another test, in a terminal"]
fn a_console_whose_connection_breaks_down() {
    if std::env::var_os("DUPLEX_TEST_TERMINAL").is_none() {
        return;
    }
    let folder = PathBuf::from(std::env::var_os("DUPLEX_HOME").expect("a home"));
    let mut options = redis_duplex::tui::Options::new(folder.join("socket"), folder.clone(), folder, false);
    // a task on a worker thread, some frames after the terminal was taken over
    options.connect = Arc::new(|| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            panic!("broken on purpose")
        })
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let error = runtime.block_on(redis_duplex::tui::run(options)).expect_err("it broke down");
    println!("{error}");
}

/// A tmux server of its own, ended with the test.
struct Tmux {
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Tmux {
    fn open() -> Option<Tmux> {
        let folder = tempfile::tempdir().expect("a folder");
        let tmux = Tmux { socket: folder.path().join("socket"), _folder: folder };
        let home = tmux._folder.path().to_str().expect("a path").to_owned();
        let open = ["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "-e"];
        let shell = ["env", "PS1=ready> ", "bash", "--norc", "--noprofile", "-i"];
        let mut args: Vec<&str> = open.to_vec();
        let home = format!("DUPLEX_HOME={home}");
        args.push(&home);
        args.extend(shell);
        tmux.run(&args).map(|_| tmux)
    }

    fn run(&self, args: &[&str]) -> Option<String> {
        let done = std::process::Command::new("tmux")
            .arg("-S")
            .arg(&self.socket)
            .args(args)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .output()
            .ok()?;
        assert!(done.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        Some(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat()).expect("tmux");
    }

    #[track_caller]
    fn until(&self, what: &str, good: impl Fn(&str) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = self.run(&["capture-pane", "-p"]).expect("tmux");
            if good(&text) {
                return;
            }
            assert!(Instant::now() < end, "no {what} within {PATIENCE:?}; the pane:\n{text}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = std::process::Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

#[test]
fn job_control_in_tmux() {
    let Some(tmux) = Tmux::open() else {
        eprintln!("tmux is not installed: job control was not tried");
        return;
    };
    tmux.until("shell", |text| text.contains("ready>"));
    tmux.keys(&[&format!("{} --readonly --lang en", env!("CARGO_BIN_EXE_duplex")), "Enter"]);
    tmux.until("console", |text| text.contains("quit") && text.contains("help"));
    for _ in 0..2 {
        tmux.keys(&["C-z"]);
        tmux.until("shell again", |text| text.contains("Stopped") && !text.contains("help"));
        // the shell has a cooked terminal: what is typed is echoed and run
        tmux.keys(&["clear; echo $((40 + 2))", "Enter"]);
        tmux.until("answer", |text| text.lines().any(|line| line.trim() == "42"));
        tmux.keys(&["clear; fg", "Enter"]);
        tmux.until("console again", |text| text.contains("quit") && text.contains("help") && !text.contains("ready>"));
    }
    tmux.keys(&["?"]);
    tmux.until("help", |text| text.contains("next theme"));
    tmux.keys(&["Escape"]);
    tmux.until("no help", |text| !text.contains("next theme"));
    tmux.keys(&["q"]);
    tmux.until("end", |text| text.contains("ready>"));
}

/// Over a real `ssh` into a server of its own on this machine: `make soak` runs it.
#[test]
#[ignore = "needs sshd; part of the soak"]
fn over_ssh_to_this_machine() {
    let Some(sshd) =
        ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"].into_iter().find(|p| Path::new(p).exists())
    else {
        eprintln!("sshd is not installed: nothing was tried over ssh");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    for key in ["host", "user"] {
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])
            .status()
            .expect("ssh-keygen");
        assert!(made.success());
    }
    // what a service manager makes for sshd; without root it is not wanted
    if nix::unistd::geteuid().is_root() && !Path::new("/run/sshd").exists() {
        std::fs::create_dir("/run/sshd").expect("/run/sshd");
    }
    let port = support::server::free_port().to_string();
    let log = std::fs::File::create(path("log")).expect("a log");
    let mut server = Ended(
        std::process::Command::new(sshd)
            .args(["-D", "-e", "-f", "/dev/null", "-p", &port, "-h", &path("host")])
            .args(["-o", "ListenAddress=127.0.0.1", "-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PidFile=none"])
            .args(["-o", &format!("AuthorizedKeysFile={}", path("user.pub")), "-o", "PermitRootLogin=yes"])
            .stdin(std::process::Stdio::null())
            .stderr(log)
            .spawn()
            .expect("sshd"),
    );
    support::wait_for("sshd", secs(20), || {
        let said = || std::fs::read_to_string(path("log")).unwrap_or_default();
        assert!(server.0.try_wait().expect("sshd").is_none(), "sshd ended: {}", said());
        std::net::TcpStream::connect(format!("127.0.0.1:{port}")).map_err(|e| format!("{e}; {}", said()))
    });
    let home = Home::new();
    let there = format!("DUPLEX_HOME={}", home.0.path().display());
    let identity = path("user");
    let pids = || -> Vec<i32> {
        // the consoles of this home, by what they were started with
        let mark = format!("DUPLEX_HOME={}", home.0.path().display());
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = processes.filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok());
        let ours = |pid: &i32| {
            let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let has = |text: &[u8], what: &str| text.windows(what.len()).any(|w| w == what.as_bytes());
            let command = read("cmdline");
            let program = command.split(|b| *b == 0).next().unwrap_or_default();
            program.ends_with(b"/duplex") && !has(&command, "engine") && has(&read("environ"), &mark)
        };
        pids.filter(ours).collect()
    };
    let mut args = vec!["-tt", "-p", &port, "-i", &identity, "-F", "/dev/null", "-o", "BatchMode=yes"];
    args.extend(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
    args.extend(["127.0.0.1", "env", "LANG=C.UTF-8", &there, env!("CARGO_BIN_EXE_duplex"), "--lang", "zh-CN"]);
    let mut c = Console::program("ssh".as_ref(), &home.0, &args, &[]);
    c.shows(&["还没有同步作业"]);
    c.resize(100, 30);
    c.type_("n");
    c.shows(&["[ sync-"]);
    c.type_("<esc>");
    c.shows(&["还没有同步作业"]);
    c.type_("q");
    assert_eq!(c.ends(), 0);
    // the engine outlives the session
    assert!(home.engine_pid().is_some());
    // and a session that is cut off
    let mut cut = Console::program("ssh".as_ref(), &home.0, &args, &[]);
    cut.shows(&["还没有同步作业"]);
    assert_eq!(pids().len(), 1, "one console");
    cut.child.kill().expect("cut off");
    cut.ends();
    support::wait_for("the end of the console", secs(20), || match pids() {
        pids if pids.is_empty() => Ok(()),
        pids => Err(format!("{pids:?}")),
    });
    assert!(home.engine_pid().is_some());
}

/// A process that is ended with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
