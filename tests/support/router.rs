//! A client of a site that follows a cluster's redirections.

use super::{
    cluster::{slot, slots_by_port},
    resp::{Client, Reply},
    wait::{secs, until},
};
use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    time::{Duration, Instant},
};

/// A client of a site that follows redirections and goes on through a failover.
pub struct Router {
    ports: Vec<u16>,
    cluster: bool,
    map: Vec<u16>,
    clients: HashMap<u16, Client>,
}

impl Router {
    pub fn new(ports: Vec<u16>, cluster: bool) -> Router {
        Router { ports, cluster, map: Vec::new(), clients: HashMap::new() }
    }

    /// How many nodes it may ask.
    pub fn nodes(&self) -> usize {
        self.ports.len()
    }

    fn client(&mut self, port: u16) -> io::Result<&mut Client> {
        Ok(match self.clients.entry(port) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(none) => none.insert(Client::try_to(port)?),
        })
    }

    fn port_of(&mut self, slot: usize) -> Option<u16> {
        if !self.cluster {
            return self.ports.first().copied();
        }
        if self.map.is_empty() {
            let ports = self.ports.clone();
            self.map = ports.into_iter().find_map(|port| slots_by_port(self.client(port).ok()?))?;
        }
        Some(self.map[slot])
    }

    /// One command for the slot of this key, through redirections; an `io` error tells that nobody knows whether it ran.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, key: &[u8], args: &[A]) -> io::Result<Reply> {
        let deadline = Instant::now() + secs(60);
        let mut asked: Option<u16> = None;
        loop {
            if Instant::now() > deadline {
                return Err(io::Error::other("a minute of redirections"));
            }
            let asking = asked.take();
            let Some(port) = asking.or_else(|| self.port_of(slot(key))) else {
                self.pause();
                continue;
            };
            let sent = match self.client(port) {
                Ok(client) => {
                    if asking.is_some() {
                        client.try_call(&["ASKING"])?;
                    }
                    client.try_call(args)
                }
                // Not connected: it did not run.
                Err(_) => {
                    self.pause();
                    continue;
                }
            };
            let reply = match sent {
                Ok(reply) => reply,
                Err(e) => {
                    self.clients.remove(&port);
                    self.map.clear();
                    return Err(e);
                }
            };
            let Reply::Error(text) = &reply else { return Ok(reply) };
            match text.split(' ').collect::<Vec<_>>()[..] {
                ["MOVED", ..] => self.map.clear(),
                ["ASK", _, at] => asked = at.rsplit(':').next().and_then(|p| p.parse().ok()),
                ["TRYAGAIN" | "CLUSTERDOWN" | "READONLY" | "LOADING" | "MASTERDOWN", ..] => self.pause(),
                _ => return Ok(reply),
            }
        }
    }

    /// Connections from before a death are not used any more: `seen` is how many this one knew of.
    pub fn forget_after(&mut self, deaths: u64, seen: &mut u64) {
        if std::mem::replace(seen, deaths) != deaths {
            self.clients.clear();
            self.map.clear();
        }
    }

    fn pause(&mut self) {
        self.map.clear();
        until(Instant::now() + Duration::from_millis(5));
    }

    #[track_caller]
    pub fn call<A: AsRef<[u8]>>(&mut self, key: &str, args: &[A]) -> Reply {
        match self.try_call(key.as_bytes(), args) {
            Ok(Reply::Error(e)) => panic!("{key}: {e}"),
            Ok(reply) => reply,
            Err(e) => panic!("{key}: {e}"),
        }
    }

    /// A command as a line of text; its first argument is its key.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> Reply {
        let words = super::words::words(line);
        let key = String::from_utf8(words[1].clone()).expect("a name");
        self.call(&key, &words)
    }
}
