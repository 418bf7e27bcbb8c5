//! What a server says of itself: `INFO`, read once, asked by name.

use crate::model::{Offset, ReplId};
use crate::wire::dialect::Dialect;
use std::collections::HashMap;

/// The answer to `INFO`. Fields that a server does not have are `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerInfo {
    /// `None` where there is no version in it: a proxy, or a right that hides the section.
    pub dialect: Option<Dialect>,
    pub run_id: Option<String>,
    /// `master` or `slave`.
    pub role: Option<String>,
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: Option<String>,
    pub loading: bool,
    pub replid: Option<ReplId>,
    pub replid2: Option<ReplId>,
    /// The first offset of the second history that is *not* this server's.
    pub second_offset: Option<Offset>,
    pub master_repl_offset: Option<Offset>,
    /// For a replica: whether its own master is connected.
    pub master_link_up: Option<bool>,
    pub backlog_active: bool,
    pub backlog_size: Option<u64>,
    /// The server's `repl_backlog_first_byte_offset`: the smallest n that `PSYNC replid n` can be given.
    pub backlog_first: Option<u64>,
    pub backlog_histlen: Option<u64>,
    pub used_memory: Option<u64>,
    pub maxmemory: Option<u64>,
    pub maxmemory_policy: Option<String>,
    /// In the order of the databases; those without a key are not listed.
    pub keyspace: Vec<Keyspace>,
    fields: HashMap<String, String>,
}

/// One line of `INFO keyspace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyspace {
    pub db: u32,
    pub keys: u64,
    pub expires: u64,
}

impl ServerInfo {
    /// Reads the text of `INFO`. Never fails: what can't be read is not there.
    pub fn parse(text: &str) -> ServerInfo {
        let fields: HashMap<String, String> = text
            .lines()
            .filter_map(|line| line.trim_end().split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let word = |name: &str| fields.get(name).cloned();
        let number = |name: &str| fields.get(name).and_then(|v| v.parse::<u64>().ok());
        let flag = |name: &str| fields.get(name).is_some_and(|v| v == "1");
        // A second id of zeroes means that there is none.
        let id = |name: &str| {
            fields.get(name).filter(|v| v.bytes().any(|b| b != b'0')).and_then(|v| v.parse::<ReplId>().ok())
        };
        let mut keyspace: Vec<Keyspace> = fields.iter().filter_map(|(name, value)| keyspace(name, value)).collect();
        keyspace.sort_by_key(|k| k.db);
        ServerInfo {
            dialect: Dialect::from_info(text),
            run_id: word("run_id"),
            role: word("role"),
            mode: word("redis_mode").or_else(|| word("server_mode")),
            loading: flag("loading"),
            replid: id("master_replid"),
            replid2: id("master_replid2"),
            second_offset: number("second_repl_offset").map(Offset),
            master_repl_offset: number("master_repl_offset").map(Offset),
            master_link_up: fields.get("master_link_status").map(|v| v == "up"),
            backlog_active: flag("repl_backlog_active"),
            backlog_size: number("repl_backlog_size"),
            backlog_first: number("repl_backlog_first_byte_offset"),
            backlog_histlen: number("repl_backlog_histlen"),
            used_memory: number("used_memory"),
            maxmemory: number("maxmemory"),
            maxmemory_policy: word("maxmemory_policy"),
            keyspace,
            fields,
        }
    }

    /// Any other field, as the server wrote it.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    pub fn is_master(&self) -> bool {
        self.role.as_deref() == Some("master")
    }

    pub fn is_cluster(&self) -> bool {
        self.mode.as_deref() == Some("cluster") || self.field("cluster_enabled") == Some("1")
    }

    /// Keys in all databases.
    pub fn keys(&self) -> u64 {
        self.keyspace.iter().map(|k| k.keys).sum()
    }
}

/// `db0:keys=12,expires=3,avg_ttl=0`.
fn keyspace(name: &str, value: &str) -> Option<Keyspace> {
    let db = name.strip_prefix("db")?.parse().ok()?;
    let part = |wanted: &str| {
        value.split(',').find_map(|p| p.strip_prefix(wanted)?.strip_prefix('=')).and_then(|v| v.parse().ok())
    };
    Some(Keyspace { db, keys: part("keys")?, expires: part("expires")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_absent_ones_are_none() {
        let info = ServerInfo::parse(
            "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n# Replication\r\nrole:master\r\n\
             master_replid:8a2b1c4d5e6f708192a3b4c5d6e7f8091a2b3c4d\r\n\
             master_replid2:0000000000000000000000000000000000000000\r\nmaster_repl_offset:12\r\n\
             repl_backlog_active:1\r\ndb9:keys=1,expires=0,avg_ttl=0\r\ndb0:keys=41,expires=2,avg_ttl=0\r\n",
        );
        assert_eq!(info.dialect, Some(Dialect { version: (7, 0, 15), ..Dialect::redis(7, 0) }));
        assert!(info.is_master() && info.backlog_active && !info.loading && !info.is_cluster());
        assert_eq!(info.master_repl_offset, Some(Offset(12)));
        assert_eq!((info.replid.is_some(), info.replid2, info.maxmemory), (true, None, None));
        assert_eq!((info.keyspace[0].db, info.keys()), (0, 42));
    }
}
