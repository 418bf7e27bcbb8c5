//! What a server of a given make and version understands.

use std::fmt;

/// Who made the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    Redis,
    Valkey,
    Redict,
}

/// A server's make and version, from `INFO server`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dialect {
    pub flavor: Flavor,
    /// Major, minor, patch of the maker's own numbering (Valkey 9.1.2, not the Redis 7.2.4 it claims to be).
    pub version: (u16, u16, u16),
}

impl Dialect {
    pub const fn redis(major: u16, minor: u16) -> Self {
        Dialect { flavor: Flavor::Redis, version: (major, minor, 0) }
    }

    pub const fn valkey(major: u16, minor: u16) -> Self {
        Dialect { flavor: Flavor::Valkey, version: (major, minor, 0) }
    }

    /// Reads the text of `INFO server`. Valkey and Redict name themselves beside a `redis_version` of 7.2.4.
    pub fn from_info(info: &str) -> Option<Self> {
        let field = |name: &str| {
            info.lines().find_map(|l| l.trim_end().strip_prefix(name)?.strip_prefix(':')).map(str::to_owned)
        };
        let (flavor, text) = if let Some(v) = field("valkey_version") {
            (Flavor::Valkey, v)
        } else if let Some(v) = field("redict_version") {
            (Flavor::Redict, v)
        } else {
            (Flavor::Redis, field("redis_version")?)
        };
        let mut parts = text.split(['.', '-']).map(|p| p.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        Some(Dialect { flavor, version: (next(), next(), next()) })
    }

    /// At least this Redis version, or a fork that began at 7.2 (all of them did).
    pub fn speaks_redis(&self, major: u16, minor: u16) -> bool {
        match self.flavor {
            Flavor::Redis => (self.version.0, self.version.1) >= (major, minor),
            Flavor::Valkey | Flavor::Redict => (7, 2) >= (major, minor),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b, c) = self.version;
        let name = match self.flavor {
            Flavor::Redis => "Redis",
            Flavor::Valkey => "Valkey",
            Flavor::Redict => "Redict",
        };
        write!(f, "{name} {a}.{b}.{c}")
    }
}
