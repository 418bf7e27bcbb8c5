//! Where this program keeps its things.
//!
//! `DUPLEX_HOME` holds everything where it is set; else the XDG folders, on every system. Only the paths are made up
//! here; folders are made by those who use them, with mode 0700.

use crate::control::listener::{MAX_SOCKET_PATH, holder};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The folders of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Settings and the inventory of instances.
    pub config: PathBuf,
    /// Jobs, events, history, spools.
    pub state: PathBuf,
    /// The socket.
    pub run: PathBuf,
    pub log: PathBuf,
    /// `DUPLEX_HOME` as an absolute path, where it is set.
    pub home: Option<PathBuf>,
}

/// No folder can be found for this user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("neither DUPLEX_HOME nor HOME is set")]
pub struct Homeless;

impl Places {
    /// The places of this process.
    pub fn of_this_process() -> Result<Places, Homeless> {
        let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
        Places::from_env(|name| std::env::var_os(name), &here, nix::unistd::geteuid().as_raw())
    }

    /// The places by an environment, for a user and a working folder.
    pub fn from_env(get: impl Fn(&str) -> Option<OsString>, here: &Path, uid: u32) -> Result<Places, Homeless> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(home) = get("DUPLEX_HOME") {
            // The engine runs in another folder than the one who starts it.
            let home = here.join(home);
            return Ok(Places {
                config: home.join("config"),
                state: home.join("state"),
                run: home.join("run"),
                log: home.join("log"),
                home: Some(home),
            });
        }
        // The XDG specification: a relative path is to be ignored.
        let xdg = |name: &str| get(name).filter(|path| path.is_absolute()).map(|path| path.join("duplex"));
        let user = get("HOME").filter(|path| path.is_absolute());
        let under = |part: &str| user.as_ref().map(|home| home.join(part).join("duplex")).ok_or(Homeless);
        let config = xdg("XDG_CONFIG_HOME").map_or_else(|| under(".config"), Ok)?;
        let state = xdg("XDG_STATE_HOME").map_or_else(|| under(".local/state"), Ok)?;
        let run = xdg("XDG_RUNTIME_DIR").unwrap_or_else(|| {
            // No session manager: beside the state, which lives on; where that path is too long for a socket, in /tmp,
            // in a folder whose owner is checked.
            let beside = state.join("run");
            match beside.join(SOCKET).as_os_str().len() <= MAX_SOCKET_PATH {
                true => beside,
                false => PathBuf::from(format!("/tmp/duplex-{uid}")),
            }
        });
        Ok(Places { config, log: state.join("log"), state, run, home: None })
    }

    /// Where an engine of these places listens.
    pub fn socket(&self) -> PathBuf {
        self.run.join(SOCKET)
    }

    /// Held by the one engine of this state.
    pub fn lock_file(&self) -> PathBuf {
        self.state.join("engine.lock")
    }

    /// Where the engine that runs listens: where the lock's holder says, since it may have been started in a session
    /// with another `XDG_RUNTIME_DIR`.
    pub fn live_socket(&self) -> PathBuf {
        let own = self.socket();
        if own.exists() {
            return own;
        }
        holder(&self.lock_file()).map(|h| h.socket).filter(|path| path.exists()).unwrap_or(own)
    }
}

const SOCKET: &str = "engine.sock";

#[cfg(test)]
mod tests {
    use super::*;

    fn places(env: &[(&str, &str)]) -> Result<Places, Homeless> {
        let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
        Places::from_env(get, Path::new("/work"), 7)
    }

    #[test]
    fn duplex_home_holds_everything() {
        let found = places(&[("DUPLEX_HOME", "d"), ("HOME", "/home/u"), ("XDG_STATE_HOME", "/x")]).unwrap();
        assert_eq!(found.state, Path::new("/work/d/state"));
        assert_eq!(found.config, Path::new("/work/d/config"));
        assert_eq!(found.log, Path::new("/work/d/log"));
        assert_eq!(found.socket(), Path::new("/work/d/run/engine.sock"));
    }

    #[test]
    fn otherwise_the_xdg_folders() {
        let env =
            [("HOME", "/home/u"), ("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "relative"), ("XDG_RUNTIME_DIR", "/r")];
        let found = places(&env).unwrap();
        assert_eq!(found.config, Path::new("/c/duplex"));
        assert_eq!(found.state, Path::new("/home/u/.local/state/duplex"));
        assert_eq!(found.socket(), Path::new("/r/duplex/engine.sock"));
        assert_eq!(found.log, Path::new("/home/u/.local/state/duplex/log"));
    }

    #[test]
    fn without_a_runtime_folder_the_socket_is_beside_the_state_or_in_tmp() {
        assert_eq!(places(&[("HOME", "/h")]).unwrap().run, Path::new("/h/.local/state/duplex/run"));
        let long = format!("/{}", "h".repeat(100));
        assert_eq!(places(&[("HOME", &long)]).unwrap().run, Path::new("/tmp/duplex-7"));
        assert_eq!(places(&[("DUPLEX_HOME", "")]), Err(Homeless));
    }

    #[test]
    fn an_engine_of_another_session_is_found_by_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let found = places(&[("DUPLEX_HOME", home)]).unwrap();
        assert_eq!(found.live_socket(), found.socket());
        let other = dir.path().join("other.sock");
        std::fs::create_dir_all(&found.state).unwrap();
        std::fs::write(found.lock_file(), format!("42\n{}\n", other.display())).unwrap();
        assert_eq!(found.live_socket(), found.socket(), "nothing is there");
        std::fs::write(&other, "").unwrap();
        assert_eq!(found.live_socket(), other);
    }
}
