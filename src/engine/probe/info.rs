//! The text of `INFO`, taken apart.

use crate::wire::dialect::Dialect;
use std::collections::HashMap;

/// All fields of all sections, by name, and what is derived from them.
#[derive(Debug, Clone, Default)]
pub struct Info {
    fields: HashMap<String, String>,
    /// Keys of each database that holds any.
    pub keyspace: Vec<Keyspace>,
    /// Names of loaded modules, from the `modules` section (6.0 and later).
    pub modules: Vec<String>,
    pub dialect: Option<Dialect>,
}

/// A line such as `db0:keys=1,expires=0,avg_ttl=0,subexpiry=0`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keyspace {
    pub db: u32,
    pub keys: u64,
    pub expires: u64,
    /// Hashes whose fields have an expiry of their own (`subexpiry`, Redis 7.4; `keys_with_volatile_items`, Valkey 9).
    pub field_expiries: u64,
}

impl Info {
    pub fn parse(text: &str) -> Self {
        let mut info = Info { dialect: Dialect::from_info(text), ..Info::default() };
        for (name, value) in text.lines().filter_map(|line| line.trim_end().split_once(':')) {
            if name == "module" {
                info.modules.extend(part(value, "name").map(str::to_owned));
            } else if let Some(db) = name.strip_prefix("db").and_then(|n| n.parse().ok()) {
                let number = |field| part(value, field).and_then(|v| v.parse().ok()).unwrap_or(0);
                let field_expiries = number("subexpiry").max(number("keys_with_volatile_items"));
                info.keyspace.push(Keyspace { db, keys: number("keys"), expires: number("expires"), field_expiries });
            } else {
                info.fields.insert(name.to_owned(), value.to_owned());
            }
        }
        info
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// The server is a replica of another.
    pub fn is_replica(&self) -> bool {
        self.text("role") == Some("slave")
    }

    /// `host:port` of the master of a replica.
    pub fn master(&self) -> Option<String> {
        let host = self.text("master_host")?;
        let port = self.text("master_port")?;
        Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }

    pub fn is_cluster(&self) -> bool {
        self.text("cluster_enabled") == Some("1")
    }

    /// `Redis 7.0.15`, or what can be said without a version.
    pub fn version(&self) -> String {
        self.dialect.map_or_else(|| "an unknown version".into(), |d| d.to_string())
    }
}

fn part<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    value.split(',').find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_keyspace_and_modules() {
        let info = Info::parse(
            "# Server\r\nredis_version:7.4.1\r\nrole:slave\r\nmaster_host:::1\r\nmaster_port:7\r\n# Modules\r\n\
             module:name=bf,ver=1,api=1\r\n# Keyspace\r\ndb3:keys=12,expires=4,avg_ttl=9,subexpiry=2\r\n",
        );
        assert_eq!(info.version(), "Redis 7.4.1");
        assert_eq!(info.keyspace, [Keyspace { db: 3, keys: 12, expires: 4, field_expiries: 2 }]);
        assert_eq!(info.modules, ["bf"]);
        assert_eq!(info.master().as_deref(), Some("[::1]:7"));
        assert!(info.is_replica() && !info.is_cluster());
    }
}
