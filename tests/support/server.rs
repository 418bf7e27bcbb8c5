//! One real server on a free port of 127.0.0.1, with a folder of its own. It is ended by its pid when dropped, also
//! when a test panics, and then the end of its log is printed.

use super::{
    resp::Client,
    versions,
    wait::{secs, wait_for},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

pub struct Server {
    pub name: String,
    pub port: u16,
    dir: tempfile::TempDir,
    args: Vec<String>,
    child: Option<Child>,
    password: Option<String>,
}

/// A port that was free a moment ago. Whoever binds it must be ready to find it taken.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

impl Server {
    /// Starts `name` (such as `redis-7.0`) with more arguments than the usual ones, and waits until it answers.
    #[track_caller]
    pub fn start(name: &str, args: &[&str]) -> Server {
        let mut server = Server {
            name: name.to_owned(),
            port: 0,
            dir: tempfile::Builder::new().prefix("duplex-server-").tempdir().expect("a temporary folder"),
            args: args.iter().map(|a| a.to_string()).collect(),
            child: None,
            password: args.windows(2).find(|w| w[0] == "--requirepass").map(|w| w[1].to_owned()),
        };
        for _ in 0..20 {
            server.port = free_port();
            if server.launch().is_ok() {
                return server;
            }
        }
        panic!("{name} did not start on any of 20 free ports:\n{}", server.log_tail());
    }

    /// Starts the process and waits until it answers as itself; `Err` where it ended, as it does on a taken port.
    fn launch(&mut self) -> Result<(), String> {
        let home = versions::home(&self.name).join("bin");
        let with_modules = home.join("redis-modules-server");
        let binary = if with_modules.exists() { with_modules } else { home.join("redis-server") };
        let config = self.dir.path().join("server.conf");
        if !config.exists() {
            // A file of its own, not arguments: the versions split those differently, and CONFIG REWRITE wants one.
            let dir = self.dir.path().display();
            let mut text = format!("dir {dir}\nlogfile {}\n", self.log_path().display());
            text += "bind 127.0.0.1\nprotected-mode no\ndaemonize no\nsave \"\"\nrepl-backlog-size 128mb\n";
            text += "repl-diskless-sync-delay 0\nclient-output-buffer-limit replica 1gb 512mb 60\n";
            if versions::speaks(&self.name) >= (7, 0) {
                text += "enable-debug-command yes\n";
            }
            for word in &self.args {
                match word.strip_prefix("--") {
                    Some(option) => text += &format!("\n{option}"),
                    None => text += &format!(" {}", if word.is_empty() { "\"\"" } else { word }),
                }
            }
            text.push('\n');
            std::fs::write(&config, text).expect("write the server's configuration");
        }
        let mut command = Command::new(&binary);
        command.arg(&config).args(["--port", &self.port.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(self.console()).stderr(self.console()).spawn();
        let child = child.unwrap_or_else(|e| panic!("{}: {e}; run `make servers`", binary.display()));
        self.child = Some(child);
        let pid = self.pid();
        wait_for(&format!("{} answers on port {}", self.name, self.port), secs(60), || {
            if let Ok(Some(status)) = self.child.as_mut().expect("just started").try_wait() {
                return Ok(Err(format!("ended with {status}")));
            }
            let mut client = self.try_client().map_err(|e| e.to_string())?;
            let info = client.try_call(&["INFO"]).map_err(|e| e.to_string())?;
            match field(&info.text(), "process_id") {
                _ if field(&info.text(), "loading").as_deref() == Some("1") => Err("loading".into()),
                // Another process may have taken the port first: then this is not our server.
                Some(p) if p == pid.to_string() => Ok(Ok(())),
                Some(p) => Ok(Err(format!("port {} is process {p}'s", self.port))),
                None => Err(format!("{info:?}")),
            }
        })
        .inspect_err(|_| self.kill())
    }

    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether it was started and neither killed nor stopped.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    fn try_client(&self) -> std::io::Result<Client> {
        let mut client = Client::try_to(self.port)?;
        if let Some(p) = &self.password {
            client.try_call(&["AUTH", p])?;
        }
        Ok(client)
    }

    /// A connection, authenticated where the server wants it.
    #[track_caller]
    pub fn client(&self) -> Client {
        self.try_client().unwrap_or_else(|e| panic!("{} on port {}: {e}", self.name, self.port))
    }

    /// Kills the process at once, as a crash would. It does not run afterwards.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends the process as an operator would (SIGTERM: it saves where it was told to save) and waits for its end.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(child.id(), Signal::SIGTERM);
            wait_for(&format!("{} ends", self.name), secs(30), || match child.try_wait() {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    }

    /// Starts it again, on its port and in its folder. Another process may hold the port for a moment.
    #[track_caller]
    pub fn restart(&mut self) {
        let what = format!("{} starts again on port {}", self.name, self.port);
        wait_for(&what, secs(10), || self.launch().map_err(|e| format!("{e}\n{}", self.log_tail())));
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn freeze(&self) {
        signal(self.pid(), Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        signal(self.pid(), Signal::SIGCONT);
    }

    /// A field of INFO.
    #[track_caller]
    pub fn info(&self, section: &str, name: &str) -> Option<String> {
        field(&self.client().call(&["INFO", section]).text(), name)
    }

    /// Where its replication stream ends now, in bytes.
    #[track_caller]
    pub fn offset(&self) -> u64 {
        self.info("replication", "master_repl_offset").and_then(|o| o.parse().ok()).expect("master_repl_offset")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// Where the process writes what it can't log: a faulty option, for one.
    fn console(&self) -> Stdio {
        match std::fs::File::options().create(true).append(true).open(self.log_path()) {
            Ok(file) => file.into(),
            Err(_) => Stdio::null(),
        }
    }

    /// The end of the server's log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

/// A field of an INFO text.
pub fn field(info: &str, name: &str) -> Option<String> {
    info.lines().find_map(|l| l.trim_end().strip_prefix(name)?.strip_prefix(':')).map(str::to_owned)
}

/// Sends a signal to a process that we started.
pub fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal);
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- end of the log of {} on port {}\n{}", self.name, self.port, self.log_tail());
        }
        if let Some(child) = &self.child {
            signal(child.id(), Signal::SIGCONT);
        }
        self.kill();
    }
}
