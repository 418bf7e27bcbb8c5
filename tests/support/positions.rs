//! How far a job is, as its control keys tell it.

use super::{
    cluster::Site,
    resp::{Argv, Reply},
    server::{Server, field},
    wait::{secs, wait_for},
};
use std::collections::BTreeMap;

/// What a control key says, as far as tests ask for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    epoch: u64,
    number: u64,
    phase: String,
    /// The history of the stream that is applied here; up to where it is, and up to where that has been answered.
    stream: (String, [u64; 2]),
    /// The history of this site's own stream, and up to where that has come back.
    back: (String, u64),
    strand: String,
}

impl Said {
    fn parse(text: &str) -> Option<Said> {
        let words: Vec<&str> = text.split(' ').collect();
        let word = |n: usize| words.get(n).map(|w| (*w).to_owned());
        let number = |n: usize| words.get(n)?.parse().ok();
        Some(Said {
            epoch: number(1)?,
            number: number(2)?,
            phase: word(4)?,
            stream: (word(5)?, [number(6)?, number(8)?]),
            back: (word(10)?, number(11)?),
            strand: word(13).unwrap_or_default(),
        })
    }
}

/// The newest of each strand's control keys at a site.
fn newest(site: &Site) -> BTreeMap<String, Said> {
    let mut newest: BTreeMap<String, Said> = BTreeMap::new();
    for server in site.masters() {
        let mut client = server.client();
        let names = client.run("KEYS duplex:*");
        let reads: Vec<Argv> = names.items().iter().map(|name| vec![b"GET".to_vec(), name.bytes().to_vec()]).collect();
        for reply in client.pipeline(&reads) {
            // Notes beside it are hashes.
            let Reply::Bulk(text) = reply else { continue };
            let Some(said) = Said::parse(&String::from_utf8_lossy(&text)) else { continue };
            let known = newest.entry(said.strand.clone()).or_insert_with(|| said.clone());
            if said > *known {
                *known = said;
            }
        }
    }
    newest
}

impl Site {
    /// Waits until a crash would not begin the first copy to this site again: of each strand the newest control key says so.
    /// `source`: written to, so that each has something to say.
    pub fn wait_copied(&self, source: &Site) {
        let mut router = source.router();
        wait_for("the first copy is kept", secs(60), || {
            (0..400).for_each(|n| drop(router.run(&format!("SET warm:{n} {n}"))));
            let newest = newest(self);
            let loading: Vec<_> = newest.values().filter(|said| said.phase != "s").collect();
            if loading.is_empty() && !newest.is_empty() { Ok(()) } else { Err(format!("not so of {loading:?}")) }
        });
    }
}

/// Waits until each strand's control key at this server tells how far its stream has come back, to within so many bytes.
#[track_caller]
pub fn wait_come_back(site: &Site, within: u64) {
    let Site::One(server) = site else { unreachable!("one server") };
    wait_for("all strands tell how far the stream has come back", secs(30), || {
        let end = server.offset();
        let newest = newest(site);
        let behind: Vec<_> = newest.values().filter(|said| said.back.1 + within < end).collect();
        if behind.is_empty() && !newest.is_empty() { Ok(()) } else { Err(format!("{behind:?} at {end}")) }
    });
}

/// The replication section of what a server says of itself.
struct Replication {
    port: String,
    text: String,
}

impl Replication {
    fn of(server: &Server) -> Replication {
        Replication { port: server.port.to_string(), text: server.client().run("INFO replication").text() }
    }

    fn word(&self, name: &str) -> String {
        field(&self.text, name).unwrap_or_default()
    }

    /// The names of the histories that its stream goes on.
    fn histories(&self) -> [String; 2] {
        ["master_replid", "master_replid2"].map(|name| self.word(name))
    }
}

/// Waits until the job could go on from any replica of this side. One that has been synchronized anew holds the stream only from
/// then on: were it promoted while the job is behind that, nobody would have what is in between, and the job could but say so.
/// Nobody should write meanwhile: on a busy machine a job that is far behind comes no nearer.
#[track_caller]
pub fn wait_resumable(sites: &[Site; 2], side: usize) {
    let Site::Many(cluster) = &sites[side] else { return };
    wait_for("the replicas hold the stream from where the job is", secs(60), || {
        let replicas = cluster.nodes.iter().filter(|n| n.is_running()).map(Replication::of);
        let replicas: Vec<Replication> = replicas.filter(|r| r.word("role") == "slave").collect();
        let masters: Vec<Replication> = sites[side].masters().into_iter().map(Replication::of).collect();
        let [here, there] = [&sites[side], &sites[1 - side]].map(newest);
        for (strand, reads) in there.iter().filter(|(strand, _)| here.contains_key(*strand)) {
            let known = masters.iter().any(|m| m.histories().contains(&reads.stream.0));
            if !known {
                return Err(format!("strand {strand} is in a history that is no master's: {reads:?}"));
            }
            let back = &here[strand].back;
            for replica in &replicas {
                let port = replica.word("master_port");
                let Some(master) = masters.iter().find(|m| m.port == port) else {
                    return Err(format!("{port} has a replica and is no master"));
                };
                // Nor does it know the names that its master's stream had before.
                let has = |(history, at): (&String, u64)| {
                    let first: u64 = replica.word("repl_backlog_first_byte_offset").parse().unwrap_or_default();
                    !master.histories().contains(history) || replica.histories().contains(history) && at >= first
                };
                let at =
                    [(&reads.stream.0, reads.stream.1[0]), (&reads.stream.0, reads.stream.1[1]), (&back.0, back.1)];
                if !at.into_iter().all(has) {
                    return Err(format!("strand {strand}, {reads:?}, {back:?}: not had by {}", replica.text));
                }
            }
        }
        Ok(())
    });
}
