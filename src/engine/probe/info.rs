//! What the checks need of `INFO` beyond what the links do: hash-field expiry, modules, a replica's master.

use crate::{
    engine::net::{ServerInfo, join_address},
    wire::dialect::Dialect,
};

/// The answer to `INFO`, with every field by name.
#[derive(Debug, Clone)]
pub struct Info {
    server: ServerInfo,
    /// Databases that hold any key, in order.
    pub keyspace: Vec<Keyspace>,
    /// Names of loaded modules, from the `modules` section (6.0 and later).
    pub modules: Vec<String>,
    /// `None` where INFO tells no version.
    pub dialect: Option<Dialect>,
}

/// A line such as `db0:keys=1,expires=0,avg_ttl=0,subexpiry=0`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keyspace {
    pub db: u32,
    pub keys: u64,
    /// Hashes whose fields have an expiry of their own (`subexpiry`, Redis 7.4; `keys_with_volatile_items`, Valkey 9).
    pub field_expiries: u64,
}

impl Info {
    pub fn parse(text: &str) -> Self {
        let server = ServerInfo::parse(text);
        let keyspace = server.keyspace.iter().map(|k| {
            let line = server.field(&format!("db{}", k.db)).unwrap_or_default();
            let number = |field| part(line, field).and_then(|v| v.parse().ok()).unwrap_or(0);
            let field_expiries = number("subexpiry").max(number("keys_with_volatile_items"));
            Keyspace { db: k.db, keys: k.keys, field_expiries }
        });
        let modules = text.lines().filter_map(|line| part(line.trim_end().strip_prefix("module:")?, "name"));
        Info {
            keyspace: keyspace.collect(),
            modules: modules.map(str::to_owned).collect(),
            dialect: server.dialect,
            server,
        }
    }

    /// A field as the server wrote it.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.server.field(name)
    }

    /// `standalone`, `cluster` or `sentinel`.
    pub fn mode(&self) -> Option<&str> {
        self.server.mode.as_deref()
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
        Some(join_address(self.text("master_host")?, self.text("master_port")?.parse().ok()?))
    }

    pub fn is_cluster(&self) -> bool {
        self.server.is_cluster()
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
        assert_eq!(info.keyspace, [Keyspace { db: 3, keys: 12, field_expiries: 2 }]);
        assert_eq!(info.modules, ["bf"]);
        assert_eq!(info.master().as_deref(), Some("[::1]:7"));
        assert!(info.is_replica() && !info.is_cluster());
    }
}
