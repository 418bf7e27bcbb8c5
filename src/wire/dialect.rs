//! What a server of a given make and version understands.

use std::fmt;

use super::rdb::kind;

/// Who made the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    Redis,
    Valkey,
    Redict,
}

/// A server's make and version, from `INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dialect {
    pub flavor: Flavor,
    /// Major, minor, patch of the maker's own numbering (Valkey 9.1.2, not the Redis 7.2.4 it claims to be).
    pub version: (u16, u16, u16),
    /// A long string that is appended to keeps its pages: it is grown by the C library, which on Linux has the kernel move
    /// them. Other allocators copy the string again and again.
    pub appends_in_place: bool,
}

impl Dialect {
    pub const fn redis(major: u16, minor: u16) -> Self {
        Dialect { flavor: Flavor::Redis, version: (major, minor, 0), appends_in_place: false }
    }

    pub const fn valkey(major: u16, minor: u16) -> Self {
        Dialect { flavor: Flavor::Valkey, version: (major, minor, 0), appends_in_place: false }
    }

    /// Reads the text of `INFO` (of its section `server` at least). Valkey and Redict name themselves beside a `redis_version` of 7.2.4.
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
        let appends_in_place = field("mem_allocator").is_some_and(|a| a == "libc")
            && field("os").is_some_and(|os| os.starts_with("Linux"));
        Some(Dialect { flavor, version: (next(), next(), next()), appends_in_place })
    }

    /// At least this Redis version, or a fork that began at 7.2 (all of them did).
    pub fn speaks_redis(&self, major: u16, minor: u16) -> bool {
        match self.flavor {
            Flavor::Redis => (self.version.0, self.version.1) >= (major, minor),
            Flavor::Valkey | Flavor::Redict => (7, 2) >= (major, minor),
        }
    }

    /// At least this version of Redis itself, or of Valkey itself; Redict stands still at 7.2.
    fn since(&self, redis: (u16, u16), valkey: Option<(u16, u16)>) -> bool {
        let version = (self.version.0, self.version.1);
        match self.flavor {
            Flavor::Redis => version >= redis,
            Flavor::Valkey => valkey.is_some_and(|first| version >= first),
            Flavor::Redict => false,
        }
    }

    /// `SET ... KEEPTTL`.
    pub fn has_keepttl(&self) -> bool {
        self.speaks_redis(6, 0)
    }

    /// `SET ... PXAT`.
    pub fn has_pxat(&self) -> bool {
        self.speaks_redis(6, 2)
    }

    /// Fields of a hash can expire: `HPEXPIREAT`.
    pub fn has_field_ttl(&self) -> bool {
        self.since((7, 4), Some((9, 0)))
    }

    /// `KEEPREF`, `DELREF` and `ACKED` in the commands of streams.
    pub fn has_stream_references(&self) -> bool {
        self.since((8, 2), None)
    }

    /// `BITOP DIFF`, `DIFF1`, `ANDOR`, `ONE`.
    pub fn has_bitop_diff(&self) -> bool {
        self.since((8, 2), None)
    }

    /// `XADD ... IDMP`.
    pub fn has_idempotent_xadd(&self) -> bool {
        self.since((8, 6), None)
    }

    /// A comparison as a condition of SET: `IFEQ`, `IFNE`, `IFDEQ`, `IFDNE`.
    pub fn knows_set_condition(&self, word: &[u8]) -> bool {
        let valkey = word.eq_ignore_ascii_case(b"IFEQ").then_some((8, 1));
        self.since((8, 4), valkey)
    }

    /// It takes this payload of a DUMP as it is: by the version in its footer and the type of the value.
    pub fn reads_payload(&self, payload: &[u8]) -> bool {
        // Behind the value stand two bytes of version and eight of checksum.
        let Some((value, &[lo, hi, ..])) = payload.split_last_chunk::<10>() else { return true };
        let Some(&kind) = value.first() else { return true };
        let version = u16::from_le_bytes([lo, hi]);
        // Valkey numbers its own format from 80 and refuses what Redis numbered 12 and above.
        let foreign = self.flavor == Flavor::Valkey && (12..80).contains(&version);
        let field_ttl = match self.flavor {
            Flavor::Redis => (23..=25).contains(&kind) && self.has_field_ttl(),
            Flavor::Valkey => kind == 22 && self.has_field_ttl(),
            Flavor::Redict => false,
        };
        version <= self.rdb_version() && !foreign && (kind < 22 || field_ttl || kind == 26 && self.rdb_version() == 13)
    }

    /// It has vector sets, in the form before Redis 8.2's: [`super::rdb::vectorset`].
    pub fn has_first_vector_sets(&self) -> bool {
        self.flavor == Flavor::Redis && self.version.0 == 8 && self.version.1 < 2
    }

    /// The RDB version to write into a DUMP payload's footer for this server: the highest it takes, as seen in the
    /// payloads of Redis 5.0 to 8.6, Redict 7.3 and Valkey 8.0 to 9.1. Newer servers take older versions, except that
    /// Valkey refuses Redis's from 12 on.
    pub fn rdb_version(&self) -> u16 {
        let (major, minor, _) = self.version;
        match (self.flavor, (major, minor)) {
            (Flavor::Valkey, v) if v >= (9, 0) => 80,
            (Flavor::Valkey, _) => 11,
            (Flavor::Redict, _) => 12,
            (Flavor::Redis, v) if v >= (8, 6) => 13,
            (Flavor::Redis, v) if v >= (7, 4) => 12,
            (Flavor::Redis, v) if v >= (7, 2) => 11,
            (Flavor::Redis, v) if v >= (7, 0) => 10,
            (Flavor::Redis, v) if v >= (5, 0) => 9,
            (Flavor::Redis, v) if v >= (4, 0) => 8,
            (Flavor::Redis, v) if v >= (3, 2) => 7,
            (Flavor::Redis, _) => 6,
        }
    }

    /// The server loads values with this type byte (see [`kind`]), whatever version the payload was written by. For a
    /// module's value it also has to have the module, or it answers "Bad data format".
    pub fn knows_type(&self, byte: u8) -> bool {
        match byte {
            kind::STRING | kind::LIST | kind::SET | kind::ZSET | kind::HASH => true,
            kind::HASH_ZIPMAP..=kind::HASH_ZIPLIST => true,
            kind::LIST_QUICKLIST => self.speaks_redis(3, 2),
            kind::ZSET_2 => self.speaks_redis(4, 0),
            // A server before 6.2 exits when it has not the module: never try.
            kind::MODULE_2 => self.speaks_redis(6, 2),
            kind::STREAM => self.speaks_redis(5, 0),
            kind::HASH_LISTPACK | kind::ZSET_LISTPACK | kind::LIST_QUICKLIST_2 | kind::STREAM_2 => {
                self.speaks_redis(7, 0)
            }
            kind::SET_LISTPACK | kind::STREAM_3 => self.speaks_redis(7, 2),
            kind::HASH_2 => self.flavor == Flavor::Valkey && self.version >= (9, 0, 0),
            kind::HASH_METADATA | kind::HASH_LISTPACK_EX => self.flavor == Flavor::Redis && self.version >= (7, 4, 0),
            kind::STREAM_4 => self.flavor == Flavor::Redis && self.version >= (8, 6, 0),
            kind::STREAM_5 => self.flavor == Flavor::Redis && self.version >= (8, 8, 0),
            _ => false,
        }
    }

    /// Hash fields can expire (`HPEXPIREAT`).
    pub fn knows_field_ttl(&self) -> bool {
        match self.flavor {
            Flavor::Redis => self.version >= (7, 4, 0),
            Flavor::Valkey => self.version >= (9, 0, 0),
            Flavor::Redict => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_grow_where_the_c_library_of_linux_lets_them() {
        let grows = |os: &str, allocator: &str| {
            let info = format!("redis_version:5.0.14\r\nos:{os}\r\nused_memory:1\r\nmem_allocator:{allocator}\r\n");
            Dialect::from_info(&info).is_some_and(|d| d.appends_in_place)
        };
        assert!(grows("Linux 6.1.0 x86_64", "libc"));
        assert!(!grows("Linux 6.1.0 x86_64", "jemalloc-5.3.0"));
        assert!(!grows("FreeBSD 14.1 amd64", "libc"), "the C library's own is another one there");
        assert_eq!(
            Dialect::from_info("redis_version:7.0.15\r\n"),
            Some(Dialect { version: (7, 0, 15), ..Dialect::redis(7, 0) })
        );
    }
}
