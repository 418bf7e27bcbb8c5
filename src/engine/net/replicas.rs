//! The replicas of a master, and which of them a stream may be read from.
//!
//! A replica hands on its master's stream byte for byte, under the same name and with the same offsets (psync2), so a
//! position in one is a position in all.

use super::{Dialer, Lineage, NetError, ServerInfo, join_address};
use crate::model::Offset;
use futures::future::join_all;
use std::time::{Duration, Instant};

/// One replica takes no longer to look at: a dead one must not hold up the choice.
const PATIENCE: Duration = Duration::from_secs(2);

/// A replica that lags behind by more is no choice while there is another: it may be loading, or far away.
const IN_STEP_BYTES: u64 = 1 << 20;

/// A replica in step with its master, as far as it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSeen {
    pub address: String,
    /// Where its stream ends.
    pub offset: Offset,
    /// Bytes of its master's stream that it has not got.
    pub lag_bytes: u64,
    pub round_trip: Duration,
}

/// What became of the look at a master's replicas.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplicasSeen {
    /// Those a stream may be read from, the best first: in step, then the nearest, then the smallest lag.
    pub good: Vec<ReplicaSeen>,
    /// The others, each with the reason.
    pub bad: Vec<(String, String)>,
}

impl ReplicasSeen {
    /// The best one that has the stream up to this offset.
    pub fn best(&self, at: Option<Offset>) -> Option<&ReplicaSeen> {
        self.good.iter().find(|r| at.is_none_or(|at| r.offset >= at))
    }

    /// Why there is none, in words.
    pub fn why_none(&self) -> String {
        match self.bad.as_slice() {
            [] => "the master lists none".into(),
            list => list.iter().map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>().join("; "),
        }
    }
}

impl Dialer {
    /// Looks at the replicas of this master: those it lists, and those that the instance's addresses name.
    pub async fn replicas(&self, master: &str) -> Result<ReplicasSeen, NetError> {
        let info = self.info(master).await?;
        let mut candidates = listed(&info);
        if !self.instance().may_be_sentinels() {
            for address in self.instance().addresses.iter().filter(|a| *a != master) {
                if !candidates.contains(address) {
                    candidates.push(address.clone());
                }
            }
        }
        let looks = candidates.into_iter().map(|address| async {
            let seen = match tokio::time::timeout(PATIENCE, self.look_at(&address, &info)).await {
                Ok(seen) => seen,
                Err(_) => Err(format!("it did not answer within {} s", PATIENCE.as_secs())),
            };
            (address, seen)
        });
        let mut all = ReplicasSeen::default();
        for (address, seen) in join_all(looks).await {
            match seen {
                Ok(Some(replica)) => all.good.push(replica),
                Ok(None) => {}
                Err(why) => all.bad.push((address, why)),
            }
        }
        all.good.sort_by_key(|r| (r.lag_bytes > IN_STEP_BYTES, r.round_trip, r.lag_bytes));
        Ok(all)
    }

    /// `None`: it is no replica at all, but the master by another name.
    async fn look_at(&self, address: &str, master: &ServerInfo) -> Result<Option<ReplicaSeen>, String> {
        let mut control = self.control(address).await.map_err(|e| e.to_string())?;
        let asked = Instant::now();
        let info = control.info().await.map_err(|e| e.to_string())?;
        let round_trip = asked.elapsed();
        if info.is_master() {
            return if info.run_id == master.run_id { Ok(None) } else { Err("it is a master".into()) };
        }
        if info.master_link_up != Some(true) {
            return Err("its link to its master is down".into());
        }
        if info.field("master_sync_in_progress") == Some("1") {
            return Err("it is copying its master's data".into());
        }
        match (Lineage::of(&info), Lineage::of(master)) {
            (Some(own), Some(of)) if own.replid == of.replid => {}
            _ => return Err("it follows another master".into()),
        }
        let offset = info.master_repl_offset.ok_or("it does not tell how far it is")?;
        let lag_bytes = master.master_repl_offset.map_or(0, |end| end.since(offset));
        Ok(Some(ReplicaSeen { address: address.to_owned(), offset, lag_bytes, round_trip }))
    }
}

/// `slave0:ip=10.0.0.2,port=6379,state=online,offset=…,lag=…` of `INFO replication`. Other tools that read the stream
/// are listed as well, ours too: nothing answers where they say they listen.
fn listed(master: &ServerInfo) -> Vec<String> {
    let mut all = Vec::new();
    for line in (0..).map_while(|n| master.field(&format!("slave{n}"))) {
        let part = |name: &str| line.split(',').find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
        if let (Some(host), Some(port)) = (part("ip"), part("port").and_then(|p| p.parse().ok()))
            && part("state") == Some("online")
            && port > 0
        {
            all.push(join_address(host, port));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_read_from_the_masters_word() {
        let info = ServerInfo::parse(
            "role:master\r\nconnected_slaves:3\r\nslave0:ip=10.0.0.2,port=6379,state=online,offset=5,lag=0\r\n\
             slave1:ip=::1,port=7000,state=online,offset=5,lag=1\r\nslave2:ip=10.0.0.3,port=1,state=wait_bgsave,offset=0,lag=0\r\n",
        );
        assert_eq!(listed(&info), ["10.0.0.2:6379", "[::1]:7000"]);
    }

    #[test]
    fn the_best_has_the_position() {
        let seen = |address: &str, offset| ReplicaSeen {
            address: address.into(),
            offset: Offset(offset),
            lag_bytes: 0,
            round_trip: Duration::ZERO,
        };
        let all = ReplicasSeen { good: vec![seen("a", 5), seen("b", 9)], bad: vec![] };
        assert_eq!(all.best(None).map(|r| r.address.as_str()), Some("a"));
        assert_eq!(all.best(Some(Offset(7))).map(|r| r.address.as_str()), Some("b"));
        assert_eq!(all.best(Some(Offset(10))), None);
    }
}
