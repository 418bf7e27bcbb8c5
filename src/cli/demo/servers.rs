//! Two servers for the demo: found on this machine, on free ports, ended by what started them.

use crate::cli::output::{Ending, problem};
use crate::model::ExitCode;
use std::{
    fs,
    net::TcpListener,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

/// A server on this host is up long before.
const START_DEADLINE: Duration = Duration::from_secs(15);
const END_DEADLINE: Duration = Duration::from_secs(10);

fn failed(what: impl Into<String>, remedy: &str) -> Ending {
    problem(ExitCode::Failed, what, remedy)
}

/// A folder that goes when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn make() -> Result<Folder, Ending> {
        let path = std::env::temp_dir().join(format!("duplex-demo-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            failed(format!("can't make {}: {error}", path.display()), "set TMPDIR to a folder that can be written to")
        })?;
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// The server program: `DUPLEX_REDIS_SERVER`, or the first that the PATH has.
pub fn find_program() -> Result<PathBuf, Ending> {
    if let Some(path) = std::env::var_os("DUPLEX_REDIS_SERVER").filter(|p| !p.is_empty()).map(PathBuf::from) {
        if path.is_file() {
            return Ok(path);
        }
        let what = format!("DUPLEX_REDIS_SERVER names {}, and there is no such file", path.display());
        return Err(problem(ExitCode::Usage, what, "set it to a redis-server or valkey-server program"));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for name in ["redis-server", "valkey-server"] {
        if let Some(found) = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()) {
            return Ok(found);
        }
    }
    Err(problem(
        ExitCode::Usage,
        "neither redis-server nor valkey-server is on the PATH",
        "install one, or set DUPLEX_REDIS_SERVER to the program",
    ))
}

/// A server that ends with this process's interest in it.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts a server in a folder of its own, and waits until it takes connections.
    pub async fn start(program: &Path, under: &Path, name: &str) -> Result<Server, Ending> {
        let dir = under.join(name);
        fs::create_dir(&dir).map_err(|e| failed(format!("can't make {}: {e}", dir.display()), ""))?;
        // Free a moment ago: another process can take it, and then the server says so and ends.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .map_err(|e| failed(format!("no free port on 127.0.0.1: {e}"), ""))?
            .port();
        let mut child = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-backlog-size", "64mb"])
            .arg("--dir")
            .arg(&dir)
            .arg("--logfile")
            .arg(dir.join("log"))
            // Of the terminal's locale the machine may know nothing, and then the newest servers do not start.
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            // Ctrl-C in the terminal is for the demo, which halts the job before it ends the servers.
            .process_group(0)
            .spawn()
            .map_err(|e| failed(format!("can't start {}: {e}", program.display()), "see whether it may be run"))?;
        let address = format!("127.0.0.1:{port}");
        let up = async {
            while TcpStream::connect(&address).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            up = timeout(START_DEADLINE, up) => match up {
                Ok(()) => Ok(Server { child, address }),
                Err(_) => Err(failed(format!("{} did not listen on {address}", program.display()), "try again")),
            },
            _ = child.wait() => {
                let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
                let last = log.lines().next_back().unwrap_or("it wrote no log").to_owned();
                Err(failed(format!("{} ended at once: {last}", program.display()), "try another server program"))
            }
        }
    }

    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Ends it and waits until it has.
    pub async fn end(mut self) {
        _ = self.child.start_kill();
        _ = timeout(END_DEADLINE, self.child.wait()).await;
    }
}
