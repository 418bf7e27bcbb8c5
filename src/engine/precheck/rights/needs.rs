//! The commands that a job needs, each with harmless arguments to try it by and the words that grant it.

/// One command to try.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Words parted by blanks; `K` stands for a key that no pattern but `~*` allows, `C` for such a channel.
    pub command: &'static str,
    /// What `ACL SETUSER` has to be told.
    pub grant: &'static str,
    /// The sync works without it.
    pub optional: bool,
    /// For an optional one: what stays unknown without it.
    pub unlocks: &'static str,
    /// One of the many write commands that a stream may hold.
    pub sample: bool,
    /// Older servers do not have it, and need it not.
    pub since_7: bool,
    /// The category whose grant brings it along; empty for none.
    pub within: &'static str,
}

/// A key that a pattern such as `app:*` does not allow.
const ANY_KEY: &str = "\u{1}any-key-at-all";

impl Need {
    /// The command as it is sent.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.command.split(' ').map(|w| if matches!(w, "K" | "C") { ANY_KEY } else { w })
    }

    /// Tried with a key.
    pub fn has_key(&self) -> bool {
        self.command.split(' ').any(|w| w == "K")
    }

    /// How people call it: `CLIENT KILL`, `PSYNC`.
    pub fn title(&self) -> String {
        let words = if self.grant.contains('|') { 2 } else { 1 };
        self.command.split(' ').take(words).collect::<Vec<_>>().join(" ")
    }
}

const fn need(command: &'static str, grant: &'static str) -> Need {
    Need { command, grant, optional: false, unlocks: "", sample: false, since_7: false, within: "" }
}

/// A need that a category brings along.
const fn within(command: &'static str, grant: &'static str, category: &'static str) -> Need {
    Need { within: category, ..need(command, grant) }
}

const fn optional(command: &'static str, grant: &'static str, unlocks: &'static str) -> Need {
    Need { command, grant, optional: true, unlocks, sample: false, since_7: true, within: "" }
}

const fn write(command: &'static str, grant: &'static str) -> Need {
    Need { command, grant, optional: false, unlocks: "", sample: true, since_7: false, within: "+@write" }
}

/// Where a stream is read.
pub(super) const READS: &[Need] = &[need("PSYNC ? -1", "+psync"), need("REPLCONF ACK 0", "+replconf")];

/// On every connection.
pub(super) const BOTH: &[Need] = &[
    need("PING", "+ping"),
    need("INFO", "+info"),
    need("SELECT 0", "+select"),
    need("CLIENT SETNAME duplex", "+client|setname"),
    need("CLIENT LIST", "+client|list"),
    need("CLIENT KILL ID 1", "+client|kill"),
    need("TIME", "+time"),
    need("MULTI", "+multi"),
    need("EXEC", "+exec"),
    need("DISCARD", "+discard"),
    within("SCAN 0", "+scan", "+@read"),
    within("EXISTS K", "+exists", "+@read"),
    within("TYPE K", "+type", "+@read"),
    within("GET K", "+get", "+@read"),
    within("DUMP K", "+dump", "+@read"),
    within("PTTL K", "+pttl", "+@read"),
    Need { since_7: true, ..within("PEXPIRETIME K", "+pexpiretime", "+@read") },
];

/// Where the instance is a cluster: who has which slots, and the keys of one that has moved.
pub(super) const CLUSTERS: &[Need] = &[
    need("CLUSTER SLOTS", "+cluster|slots"),
    need("CLUSTER INFO", "+cluster|info"),
    need("CLUSTER NODES", "+cluster|nodes"),
    need("CLUSTER COUNTKEYSINSLOT 0", "+cluster|countkeysinslot"),
    need("CLUSTER GETKEYSINSLOT 0 1", "+cluster|getkeysinslot"),
];

/// Where changes are written: what the engine itself sends.
pub(super) const WRITES: &[Need] = &[
    within("SET K v", "+set", "+@write"),
    within("DEL K", "+del", "+@write"),
    within("RESTORE K 0 x", "+restore", "+@write"),
    need("PUBLISH C m", "+publish"),
];

/// Not needed to sync.
pub(super) const OPTIONAL: &[Need] = &[
    optional("CONFIG GET databases", "+config|get", "backlog time, output buffer limit, number of databases"),
    optional("COMMAND INFO get", "+command", "renamed and disabled commands"),
    Need { within: "+@read", ..optional("MEMORY USAGE K", "+memory|usage", "big keys") },
    optional("HGETALL K", "+@read", "verify (it reads values of all types)"),
];

/// The write commands that a stream may hold.
pub(super) const WRITE_SAMPLES: &[Need] = &[
    write("UNLINK K", "+unlink"),
    write("APPEND K v", "+append"),
    write("INCR K", "+incr"),
    write("INCRBY K 1", "+incrby"),
    write("DECR K", "+decr"),
    write("DECRBY K 1", "+decrby"),
    write("INCRBYFLOAT K 1", "+incrbyfloat"),
    write("SETRANGE K 0 v", "+setrange"),
    write("SETBIT K 0 1", "+setbit"),
    write("SETNX K v", "+setnx"),
    write("SETEX K 1 v", "+setex"),
    write("PSETEX K 1 v", "+psetex"),
    write("GETSET K v", "+getset"),
    write("MSET K v", "+mset"),
    write("MSETNX K v", "+msetnx"),
    write("BITOP AND K K", "+bitop"),
    write("BITFIELD K SET u8 0 1", "+bitfield"),
    write("EXPIRE K 1", "+expire"),
    write("PEXPIRE K 1", "+pexpire"),
    write("EXPIREAT K 1", "+expireat"),
    write("PEXPIREAT K 1", "+pexpireat"),
    write("PERSIST K", "+persist"),
    write("RENAME K K", "+rename"),
    write("RENAMENX K K", "+renamenx"),
    write("MOVE K 1", "+move"),
    write("COPY K K", "+copy"),
    write("SORT K STORE K", "+sort"),
    write("LPUSH K v", "+lpush"),
    write("RPUSH K v", "+rpush"),
    write("LPUSHX K v", "+lpushx"),
    write("RPUSHX K v", "+rpushx"),
    write("LPOP K", "+lpop"),
    write("RPOP K", "+rpop"),
    write("LSET K 0 v", "+lset"),
    write("LINSERT K BEFORE a b", "+linsert"),
    write("LREM K 0 v", "+lrem"),
    write("LTRIM K 0 1", "+ltrim"),
    write("RPOPLPUSH K K", "+rpoplpush"),
    write("LMOVE K K LEFT RIGHT", "+lmove"),
    write("SADD K m", "+sadd"),
    write("SREM K m", "+srem"),
    write("SMOVE K K m", "+smove"),
    write("SINTERSTORE K K", "+sinterstore"),
    write("SUNIONSTORE K K", "+sunionstore"),
    write("SDIFFSTORE K K", "+sdiffstore"),
    write("ZADD K 1 m", "+zadd"),
    write("ZREM K m", "+zrem"),
    write("ZINCRBY K 1 m", "+zincrby"),
    write("ZREMRANGEBYSCORE K 0 1", "+zremrangebyscore"),
    write("ZREMRANGEBYRANK K 0 1", "+zremrangebyrank"),
    write("ZREMRANGEBYLEX K - +", "+zremrangebylex"),
    write("ZUNIONSTORE K 1 K", "+zunionstore"),
    write("ZINTERSTORE K 1 K", "+zinterstore"),
    write("ZPOPMIN K", "+zpopmin"),
    write("ZPOPMAX K", "+zpopmax"),
    write("HSET K f v", "+hset"),
    write("HMSET K f v", "+hmset"),
    write("HSETNX K f v", "+hsetnx"),
    write("HDEL K f", "+hdel"),
    write("HINCRBY K f 1", "+hincrby"),
    write("HINCRBYFLOAT K f 1", "+hincrbyfloat"),
    write("PFADD K v", "+pfadd"),
    write("PFMERGE K K", "+pfmerge"),
    write("GEOADD K 1 1 m", "+geoadd"),
    write("XADD K * f v", "+xadd"),
    write("XDEL K 0-1", "+xdel"),
    write("XTRIM K MAXLEN 1", "+xtrim"),
    write("XGROUP CREATE K g 0", "+xgroup"),
    write("XCLAIM K g c 0 0-1", "+xclaim"),
    write("XACK K g 0-1", "+xack"),
    write("XSETID K 0-1", "+xsetid"),
];
