//! A job's side as tests know it: one server, or a cluster.

use super::{
    cluster::Cluster,
    compare::{self, Keyspace, Level, differences},
    router::Router,
    server::Server,
    wait::wait_for,
};
use std::time::Duration;

/// One server, or a cluster.
pub enum Site {
    One(Server),
    Many(Cluster),
}

impl Site {
    pub fn one(name: &str) -> Site {
        Site::One(Server::start(name, &[]))
    }

    pub fn many(name: &str, shards: usize) -> Site {
        Site::Many(Cluster::start(name, shards, 0))
    }

    pub fn split(name: &str, cuts: &[usize]) -> Site {
        Site::Many(Cluster::split(name, cuts, 0))
    }

    pub fn cluster(&self) -> &Cluster {
        match self {
            Site::Many(cluster) => cluster,
            Site::One(_) => panic!("it is one server"),
        }
    }

    pub fn cluster_mut(&mut self) -> &mut Cluster {
        match self {
            Site::Many(cluster) => cluster,
            Site::One(_) => panic!("it is one server"),
        }
    }

    pub fn masters(&self) -> Vec<&Server> {
        match self {
            Site::One(server) => vec![server],
            Site::Many(cluster) => cluster.masters(),
        }
    }

    /// An address for the job file.
    pub fn addr(&self) -> String {
        match self {
            Site::One(server) => server.addr(),
            Site::Many(cluster) => cluster.nodes[0].addr(),
        }
    }

    pub fn router(&self) -> Router {
        let ports = match self {
            Site::One(server) => vec![server.port],
            Site::Many(cluster) => cluster.nodes.iter().map(|n| n.port).collect(),
        };
        Router::new(ports, matches!(self, Site::Many(_)))
    }

    /// All that it holds but control keys. A key that two shards hold is told.
    pub fn keyspace(&self, level: Level) -> Result<Keyspace, String> {
        let mut all = Keyspace::new();
        for server in self.masters() {
            for (name, entry) in compare::read(server, level, &|key| !key.starts_with(b"duplex:")) {
                if all.insert(name.clone(), entry).is_some() {
                    return Err(format!("two shards hold {:?}", String::from_utf8_lossy(&name.1)));
                }
            }
        }
        Ok(all)
    }

    pub fn level(&self) -> Level {
        Level::of(self.masters()[0])
    }
}

/// Waits until both sites hold the same.
#[track_caller]
pub fn assert_sites_equal(a: &Site, b: &Site, limit: Duration) -> Keyspace {
    let level = a.level().and(b.level());
    wait_for("both sites hold the same", limit, || {
        let (left, right) = (a.keyspace(level)?, b.keyspace(level)?);
        let different = differences(&left, &right);
        if different.is_empty() {
            return Ok(left);
        }
        let (n, all) = (different.len(), left.len().max(right.len()));
        Err(format!("{n} of {all} keys differ, the first of them:\n{}", different[..n.min(40)].join("\n")))
    })
}
