//! The kinds of instances that can be chosen from, and what they are called.

use crate::model::{Topology, job::ReadFrom};

/// What an instance is, as an operator calls it. One with read replicas of which one is to be read is a kind of its own,
/// as at the cloud providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain(Topology),
    ReadWriteSplitting,
}

pub const KINDS: [Kind; 6] = [
    Kind::Plain(Topology::Auto),
    Kind::Plain(Topology::Standalone),
    Kind::ReadWriteSplitting,
    Kind::Plain(Topology::Cluster),
    Kind::Plain(Topology::Sentinel),
    Kind::Plain(Topology::Proxy),
];

impl Kind {
    /// Its locale key.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Plain(topology) => topology_label(topology),
            Kind::ReadWriteSplitting => "topology.read_write",
        }
    }
}

pub const READ_FROM: [ReadFrom; 2] = [ReadFrom::Master, ReadFrom::Replica];

/// The locale key of where changes are read.
pub fn read_from_label(from: ReadFrom) -> &'static str {
    match from {
        ReadFrom::Master => "read_from.master",
        ReadFrom::Replica => "read_from.replica",
    }
}

/// The locale key of a topology.
pub fn topology_label(topology: Topology) -> &'static str {
    match topology {
        Topology::Auto => "topology.auto",
        Topology::Standalone => "topology.standalone",
        Topology::Cluster => "topology.cluster",
        Topology::Sentinel => "topology.sentinel",
        Topology::Proxy => "topology.proxy",
    }
}
