//! Which replication histories a server's stream has borne: after a failover the new master begins a history of its own
//! and shares the one before up to where it was promoted.
//!
//! Source: `master_replid`, `master_replid2` and `second_repl_offset` of `INFO replication` (psync2, Redis 4.0 and later).

use super::ServerInfo;
use crate::model::{Offset, ReplId};

/// The histories of one server, as it told them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lineage {
    /// Its own.
    pub replid: ReplId,
    /// The one before, and how many of its bytes are this server's too.
    pub before: Option<(ReplId, Offset)>,
}

impl Lineage {
    /// `None` where the server does not tell.
    pub fn of(info: &ServerInfo) -> Option<Lineage> {
        let replid = info.replid?;
        // It is the first offset that is *not* shared.
        let before = info.replid2.zip(info.second_offset).map(|(id, first)| (id, Offset(first.0.saturating_sub(1))));
        Some(Lineage { replid, before })
    }

    /// Up to where this server's stream and that history are the same bytes; `None`: it does not know that history.
    pub fn shares(&self, replid: ReplId) -> Option<Offset> {
        if replid == self.replid {
            return Some(Offset(u64::MAX));
        }
        self.before.filter(|(id, _)| *id == replid).map(|(_, upto)| upto)
    }

    /// Whether what that history holds up to this offset is certainly in this server's.
    pub fn holds(&self, replid: ReplId, offset: Offset) -> bool {
        self.shares(replid).is_some_and(|upto| offset <= upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_before_is_shared_up_to_the_promotion() {
        let info = ServerInfo::parse(
            "master_replid:8a2b1c4d5e6f708192a3b4c5d6e7f8091a2b3c4d\r\n\
             master_replid2:00000000000000000000000000000000000000bb\r\nsecond_repl_offset:101\r\n",
        );
        let lineage = Lineage::of(&info).unwrap();
        let (own, before) = (info.replid.unwrap(), info.replid2.unwrap());
        assert!(lineage.holds(own, Offset(1 << 40)));
        assert!(lineage.holds(before, Offset(100)) && !lineage.holds(before, Offset(101)));
        let other = "00000000000000000000000000000000000000cc".parse().unwrap();
        assert_eq!(lineage.shares(other), None);
        let alone = ServerInfo::parse(
            "master_replid:8a2b1c4d5e6f708192a3b4c5d6e7f8091a2b3c4d\r\n\
             master_replid2:0000000000000000000000000000000000000000\r\nsecond_repl_offset:-1\r\n",
        );
        assert_eq!(Lineage::of(&alone).unwrap().before, None);
    }
}
