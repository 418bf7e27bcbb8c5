//! The engine's place on this machine: a lock that one engine can hold, and the socket it answers on.
//!
//! The lock (`flock` on `engine.lock` in the state folder) is the truth about whether an engine runs: the system lets
//! it go when the process dies, however it dies. A socket file without a held lock is left over and is replaced; with
//! a held lock nothing is touched. The lock file tells who holds it and where its socket is, so that a session with
//! another `XDG_RUNTIME_DIR` finds the engine too.

use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use tokio::net::{UnixListener, UnixStream};

/// The longest path of a Unix socket in bytes: `sun_path` is 108 with its closing zero on Linux, 104 on macOS.
pub const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Why this process can't be the engine of these places.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("an engine runs already{}", pid.map(|p| format!(" (process {p})")).unwrap_or_default())]
    Running { pid: Option<u32> },
    #[error("the socket's path {} is {} bytes long; a Unix socket takes {MAX_SOCKET_PATH}", path.display(), path.as_os_str().len())]
    PathTooLong { path: PathBuf },
    #[error("{} is not a folder of this user's own", path.display())]
    NotOurs { path: PathBuf },
    #[error("{what} {}: {error}", path.display())]
    Io { what: &'static str, path: PathBuf, error: io::Error },
}

impl ListenError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            ListenError::Running { .. } => "use it (duplex status), or end it first".into(),
            ListenError::PathTooLong { .. } => "set DUPLEX_HOME or XDG_RUNTIME_DIR to a shorter path".into(),
            ListenError::NotOurs { path } => {
                format!("remove {} or set XDG_RUNTIME_DIR to a folder of yours", path.display())
            }
            ListenError::Io { path, .. } => format!("see to the rights and the free space of {}", path.display()),
        }
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ListenError {
    let path = path.to_owned();
    move |error| ListenError::Io { what, path, error }
}

/// Makes a folder (and those above it) that only this user can enter, or checks that an existing one is such.
pub fn private_dir(path: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("can't make", path))?;
        }
        Err(e) => return Err(io_error("can't look at", path)(e)),
        Ok(_) => {}
    }
    // A folder that is a link is followed: users do put their state elsewhere. Whose it is counts.
    let found = fs::metadata(path).map_err(io_error("can't look at", path))?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(ListenError::NotOurs { path: path.to_owned() });
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io_error("can't close to others", path))?;
    }
    Ok(())
}

/// The right to be the one engine of a state folder. Dropping it lets the next one in.
#[derive(Debug)]
pub struct EngineLock {
    held: Flock<File>,
}

impl EngineLock {
    /// Takes the lock, or says who holds it.
    pub fn take(lock_file: &Path) -> Result<EngineLock, ListenError> {
        if let Some(dir) = lock_file.parent() {
            private_dir(dir)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(lock_file)
            .map_err(io_error("can't open", lock_file))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(EngineLock { held }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                Err(ListenError::Running { pid: holder(lock_file).map(|h| h.pid) })
            }
            Err((_, errno)) => Err(io_error("can't lock", lock_file)(errno.into())),
        }
    }

    /// Writes into the lock file who holds it and where it answers.
    fn sign(&mut self, socket: &Path) -> io::Result<()> {
        let text = format!("{}\n{}\n", std::process::id(), socket.display());
        self.held.set_len(0)?;
        io::Seek::rewind(&mut &*self.held)?;
        (&*self.held).write_all(text.as_bytes())
    }
}

/// What a lock file says of its holder. It may be gone: only the lock itself tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub socket: PathBuf,
}

/// Reads who signed a lock file last.
pub fn holder(lock_file: &Path) -> Option<Holder> {
    let text = fs::read_to_string(lock_file).ok()?;
    let (pid, socket) = text.trim_end().split_once('\n')?;
    Some(Holder { pid: pid.parse().ok()?, socket: socket.into() })
}

/// A bound socket. Dropping it removes the socket file and lets the lock go.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    _lock: EngineLock,
}

impl Listener {
    /// Binds the socket with mode 0600 in a folder of mode 0700. A socket file that an engine left behind is replaced.
    pub fn bind(path: &Path, mut lock: EngineLock) -> Result<Listener, ListenError> {
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(ListenError::PathTooLong { path: path.to_owned() });
        }
        if let Some(dir) = path.parent() {
            private_dir(dir)?;
        }
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("can't replace", path)(e)),
            _ => {}
        }
        let socket = UnixListener::bind(path).map_err(io_error("can't listen on", path))?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(io_error("can't close to others", path))?;
        lock.sign(path).map_err(io_error("can't write the lock beside", path))?;
        Ok(Listener { socket, path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection of this process's own user; those of others are closed unheard.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.socket.accept().await?;
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == nix::unistd::geteuid().as_raw() => return Ok(stream),
                Ok(peer) => tracing::warn!(uid = peer.uid(), "refused a connection of another user"),
                Err(error) => tracing::warn!(%error, "refused a connection whose user is unknown"),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Before the lock goes, so that it can't be the next engine's socket.
        _ = fs::remove_file(&self.path);
    }
}
