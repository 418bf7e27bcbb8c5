//! Starting an engine that outlives the terminal.
//!
//! The child is this program itself (`engine --detached`). It opens a session of its own, so that neither a closed
//! terminal nor Ctrl-C reaches it, and says `ready` on its standard output once its socket answers: nobody polls.

use super::{Client, ClientError};
use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

/// What the child writes on its standard output when its socket answers.
pub const READY: &str = "ready";
/// An engine that is not ready by then has failed; it only opens files and one socket before it says so.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Lines of the log that an error quotes.
const TAIL_LINES: usize = 5;

/// How to start an engine.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program, normally [`std::env::current_exe`].
    pub program: PathBuf,
    /// Where the engine will answer.
    pub socket: PathBuf,
    /// Where its standard error goes (its own log file is beside it).
    pub output: PathBuf,
    /// Variables to set for it, such as an absolute `DUPLEX_HOME`.
    pub env: Vec<(String, std::ffi::OsString)>,
}

/// Why no engine could be started.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("can't start the engine ({}): {error}", program.display())]
    Spawn { program: PathBuf, error: io::Error },
    #[error("the engine did not start: {tail}")]
    Ended { tail: String, output: PathBuf },
    #[error("the engine was not ready within {} s: {tail}", START_DEADLINE.as_secs())]
    Slow { tail: String, output: PathBuf },
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl DaemonError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            DaemonError::Spawn { .. } => "see whether the program is still there and may be run".into(),
            DaemonError::Ended { output, .. } | DaemonError::Slow { output, .. } => {
                format!("read {}, or run `duplex engine` here to see it", output.display())
            }
            DaemonError::Client(error) => error.remedy(),
        }
    }
}

/// Connects to the engine on `launch.socket`, and starts one first where none runs.
pub async fn connect_or_start(launch: &Launch, readonly: bool) -> Result<Client, DaemonError> {
    match Client::connect(&launch.socket, readonly).await {
        Ok(client) => return Ok(client),
        Err(ClientError::NoEngine { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    start(launch).await?;
    Ok(Client::connect(&launch.socket, readonly).await?)
}

/// Starts an engine, detached, and returns when it is ready. Fine as well where another one becomes ready meanwhile.
pub async fn start(launch: &Launch) -> Result<(), DaemonError> {
    let spawn_error = |error| DaemonError::Spawn { program: launch.program.clone(), error };
    let output = OpenOptions::new().create(true).append(true).mode(0o600).open(&launch.output).map_err(spawn_error)?;
    let begin = output.metadata().map(|m| m.len()).unwrap_or(0);
    let mut child = Command::new(&launch.program)
        .args(["engine", "--detached"])
        .envs(launch.env.iter().map(|(k, v)| (k, v)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(output)
        .spawn()
        .map_err(spawn_error)?;
    let Some(stdout) = child.stdout.take() else {
        return Err(spawn_error(io::Error::other("its output can't be read")));
    };
    let mut line = String::new();
    let mut stdout = BufReader::new(stdout);
    let said = timeout(START_DEADLINE, stdout.read_line(&mut line)).await;
    let tail = || tail(&launch.output, begin);
    match said {
        Err(_) => {
            _ = child.start_kill();
            Err(DaemonError::Slow { tail: tail(), output: launch.output.clone() })
        }
        Ok(_) if line.trim() == READY => {
            // Reaps it, should it end while this process lives.
            tokio::spawn(async move { child.wait().await });
            Ok(())
        }
        Ok(_) => {
            _ = timeout(START_DEADLINE, child.wait()).await;
            // Another session may have been faster; then its engine is the one.
            match Client::connect(&launch.socket, true).await {
                Ok(_) => Ok(()),
                Err(_) => Err(DaemonError::Ended { tail: tail(), output: launch.output.clone() }),
            }
        }
    }
}

/// The last lines that the child wrote.
fn tail(output: &Path, begin: u64) -> String {
    let read = || -> io::Result<String> {
        use io::{Read, Seek};
        let mut file = std::fs::File::open(output)?;
        let end = file.metadata()?.len();
        file.seek(io::SeekFrom::Start(begin.max(end.saturating_sub(8192))))?;
        let mut bytes = Vec::new();
        file.take(8192).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    match lines.as_slice() {
        [] => "it said nothing".into(),
        lines => lines[lines.len().saturating_sub(TAIL_LINES)..].join(" / "),
    }
}
