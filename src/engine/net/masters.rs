//! Which shards an instance has, and where their masters are.

use super::{Dialer, NetError, join_address, split_address};
use crate::model::Topology;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use redis::Value;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// How long the other sentinels have, once one has answered.
const OTHER_SENTINELS: Duration = Duration::from_millis(300);

/// One sentinel's word.
struct Named {
    address: String,
    /// Grows with each failover; 0 where the sentinel may not tell.
    config_epoch: u64,
}

/// One master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardAddress {
    /// `host:port`.
    pub address: String,
    /// The node's id in a cluster.
    pub node_id: Option<String>,
    /// Slots it owns, first and last of each range, in order. Empty outside of clusters.
    pub slots: Vec<(u16, u16)>,
}

impl Dialer {
    /// The masters of this instance, now: one, or a cluster's many in the order of their first slots.
    ///
    /// A standalone instance is the first address that answers; a master comes before a replica.
    pub async fn masters(&self) -> Result<Vec<ShardAddress>, NetError> {
        match self.instance.topology {
            Topology::Sentinel => self.ask_sentinels().await,
            Topology::Cluster => self.first_of(|d, a| d.ask_cluster(a).boxed()).await,
            Topology::Proxy if self.instance.hides_shards() => self.proxy().await,
            Topology::Proxy => self.first_of(|d, a| d.ask_cluster(a).boxed()).await,
            Topology::Standalone => self.standalone().await,
            Topology::Auto => self.find_out().await,
        }
    }

    async fn find_out(&self) -> Result<Vec<ShardAddress>, NetError> {
        // Sentinels have accounts of their own, and are known by the master's name that goes with them.
        if self.instance.master_name.is_some() {
            return self.ask_sentinels().await;
        }
        match (self.first_of(|d, a| d.info(a).boxed()).await, self.instance.addresses.as_slice()) {
            (Ok(info), _) if info.is_cluster() => self.first_of(|d, a| d.ask_cluster(a).boxed()).await,
            // It has answered: there is nobody else to ask.
            (Ok(_), [only]) => Ok(vec![ShardAddress { address: only.clone(), node_id: None, slots: vec![] }]),
            _ => self.standalone().await,
        }
    }

    /// Asks one address after the other until one answers.
    async fn first_of<T>(
        &self,
        ask: impl for<'a> Fn(&'a Dialer, &'a str) -> BoxFuture<'a, Result<T, NetError>>,
    ) -> Result<T, NetError> {
        let mut last = NetError::NoAddress;
        for address in self.instance.seeds() {
            match ask(self, address).await {
                Ok(answer) => return Ok(answer),
                Err(e) => last = e,
            }
        }
        match self.instance.seeds().len() {
            0 | 1 => Err(last),
            count => Err(NetError::NoneAnswered { count, last: Box::new(last) }),
        }
    }

    /// One that takes all slots and tells of none.
    async fn proxy(&self) -> Result<Vec<ShardAddress>, NetError> {
        let address = self.instance.addresses.first().ok_or(NetError::NoAddress)?.clone();
        self.conversation(&address).await?;
        Ok(vec![ShardAddress { address, node_id: None, slots: vec![(0, crate::wire::slot::SLOTS - 1)] }])
    }

    async fn standalone(&self) -> Result<Vec<ShardAddress>, NetError> {
        let one = |address: &str| vec![ShardAddress { address: address.to_owned(), node_id: None, slots: vec![] }];
        if let [only] = self.instance.addresses.as_slice() {
            self.conversation(only).await?;
            return Ok(one(only));
        }
        match self.first_of(|d, a| d.ask_for_a_master(a).boxed()).await {
            Ok(address) => Ok(one(&address)),
            // No master among them: the first that answers, whatever it is.
            Err(e) => {
                match self.first_of(|d, a| async move { d.conversation(a).await.map(|_| a.to_owned()) }.boxed()).await {
                    Ok(address) => Ok(one(&address)),
                    Err(_) => Err(e),
                }
            }
        }
    }

    /// Fails if that address is a replica's.
    async fn ask_for_a_master(&self, address: &str) -> Result<String, NetError> {
        match self.info(address).await {
            Ok(info) if info.role.as_deref() == Some("slave") => Err(NetError::Server {
                address: address.to_owned(),
                doing: "INFO".into(),
                kind: super::ServerError::Readonly,
                seen: "role:slave".into(),
            }),
            other => other.map(|_| address.to_owned()),
        }
    }

    /// What the sentinels say: they need not agree while one of them is cut off, so all are asked, and the newest
    /// configuration counts. Who has not answered shortly after the first is not waited for.
    async fn ask_sentinels(&self) -> Result<Vec<ShardAddress>, NetError> {
        let name = self.instance.master_name.clone().unwrap_or_default();
        let mut sentinels = self.clone();
        let instance = std::sync::Arc::make_mut(&mut sentinels.instance);
        instance.account = instance.sentinel_account.clone();
        sentinels.has_users = std::sync::Arc::default();
        let sentinels = &sentinels;
        let mut asked: FuturesUnordered<_> =
            self.instance.addresses.iter().map(|address| sentinels.ask_sentinel(address, &name)).collect();
        let (mut best, mut last): (Option<Named>, _) = (None, NetError::NoAddress);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(named) => {
                    best = Some(named);
                    break;
                }
                Err(e) => last = e,
            }
        }
        let Some(mut best) = best else {
            return Err(match self.instance.addresses.len() {
                0 | 1 => last,
                count => NetError::NoneAnswered { count, last: Box::new(last) },
            });
        };
        let rest = async {
            while let Some(answer) = asked.next().await {
                if let Ok(named) = answer
                    && named.config_epoch > best.config_epoch
                {
                    best = named;
                }
            }
        };
        let _ = tokio::time::timeout(OTHER_SENTINELS, rest).await;
        Ok(vec![ShardAddress { address: best.address, node_id: None, slots: vec![] }])
    }

    async fn ask_sentinel(&self, address: &str, name: &str) -> Result<Named, NetError> {
        let mut control = self.control(address).await?;
        let no_master = |seen: String| NetError::NoMaster { name: name.to_owned(), seen };
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(name);
        let named = match control.ask::<Option<(String, u16)>>(&command).await {
            Ok(named) => named,
            Err(NetError::Server { kind: super::ServerError::UnknownCommand, .. }) => {
                return Err(no_master(format!("{address} is no sentinel: it does not know the command SENTINEL")));
            }
            Err(e) => return Err(e),
        };
        let Some((host, port)) = named else {
            let known: Result<Vec<HashMap<String, Value>>, _> =
                control.ask(redis::cmd("SENTINEL").arg("MASTERS")).await;
            let known = known.unwrap_or_default();
            let names: Vec<String> = known
                .iter()
                .filter_map(|m| match m.get("name") {
                    Some(Value::BulkString(b)) => Some(String::from_utf8_lossy(b).into_owned()),
                    _ => None,
                })
                .collect();
            let seen = match names.as_slice() {
                [] => format!("{address} said nil"),
                names => format!("{address} knows {}", names.join(", ")),
            };
            return Err(no_master(seen));
        };
        let about: Result<HashMap<String, String>, _> =
            control.ask(redis::cmd("SENTINEL").arg("MASTER").arg(name)).await;
        let config_epoch = about.ok().and_then(|m| m.get("config-epoch")?.parse().ok()).unwrap_or(0);
        Ok(Named { address: join_address(&host, port), config_epoch })
    }

    /// `CLUSTER SLOTS`: known to every version, and its ports are the TLS ones on a TLS connection.
    async fn ask_cluster(&self, seed: &str) -> Result<Vec<ShardAddress>, NetError> {
        let mut control = self.control(seed).await?;
        let answer: Value = control.ask(redis::cmd("CLUSTER").arg("SLOTS")).await?;
        let (seed_host, _) = split_address(seed)?;
        let shards = read_slots(&answer, &seed_host);
        if shards.is_empty() {
            return Err(NetError::Server {
                address: seed.to_owned(),
                doing: "CLUSTER SLOTS".into(),
                kind: super::ServerError::ClusterDown,
                seen: "no slot has an owner".into(),
            });
        }
        Ok(shards)
    }
}

/// Reads the reply of `CLUSTER SLOTS`: `[[first, last, [host, port, id, …], replicas …], …]`.
pub(super) fn read_slots(answer: &Value, seed_host: &str) -> Vec<ShardAddress> {
    let Value::Array(ranges) = answer else { return vec![] };
    let mut shards: BTreeMap<String, ShardAddress> = BTreeMap::new();
    for range in ranges {
        let Value::Array(parts) = range else { continue };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else { continue };
        let (Ok(first), Ok(last)) = (u16::try_from(*first), u16::try_from(*last)) else { continue };
        let text = |i: usize| match master.get(i) {
            Some(Value::BulkString(b)) => String::from_utf8_lossy(b).into_owned(),
            Some(Value::SimpleString(s)) => s.clone(),
            _ => String::new(),
        };
        let Some(Value::Int(port)) = master.get(1) else { continue };
        let Ok(port) = u16::try_from(*port) else { continue };
        // A node that does not know its own address says nothing, or "?": it is the one that we asked.
        let host = match text(0).as_str() {
            "" | "?" => seed_host.to_owned(),
            host => host.to_owned(),
        };
        let address = join_address(&host, port);
        let id = Some(text(2)).filter(|id| !id.is_empty());
        let shard = shards.entry(address.clone()).or_insert(ShardAddress { address, node_id: id, slots: vec![] });
        shard.slots.push((first, last));
    }
    let mut shards: Vec<_> = shards.into_values().collect();
    for shard in &mut shards {
        shard.slots.sort_unstable();
    }
    shards.sort_by_key(|s| s.slots.first().copied());
    shards
}

/// The replicas in the same reply.
pub(super) fn replicas(answer: &Value, seed_host: &str) -> Vec<String> {
    let Value::Array(ranges) = answer else { return vec![] };
    let nodes = ranges.iter().filter_map(|r| match r {
        Value::Array(parts) => parts.get(3..),
        _ => None,
    });
    let address = |node: &Value| {
        let Value::Array(node) = node else { return None };
        let host = match node.first()? {
            Value::BulkString(b) if !b.is_empty() && b != b"?" => String::from_utf8_lossy(b).into_owned(),
            Value::SimpleString(s) if !s.is_empty() && s != "?" => s.clone(),
            _ => seed_host.to_owned(),
        };
        let Value::Int(port) = node.get(1)? else { return None };
        Some(join_address(&host, u16::try_from(*port).ok()?))
    };
    nodes.flatten().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_gathered_by_master() {
        let node = |port: i64| {
            Value::Array(vec![
                Value::BulkString(b"".to_vec()),
                Value::Int(port),
                Value::BulkString(format!("id{port}").into_bytes()),
            ])
        };
        let range = |a, b, port| Value::Array(vec![Value::Int(a), Value::Int(b), node(port), node(9)]);
        let answer = Value::Array(vec![range(10, 16383, 7001), range(5, 9, 7000), range(0, 4, 7001)]);
        let shards = read_slots(&answer, "10.0.0.1");
        assert_eq!(shards.len(), 2);
        assert_eq!((shards[0].address.as_str(), &shards[0].slots[..]), ("10.0.0.1:7001", &[(0, 4), (10, 16383)][..]));
        assert_eq!(shards[1].node_id.as_deref(), Some("id7000"));
    }
}
