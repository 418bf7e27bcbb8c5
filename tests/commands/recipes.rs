//! For each write command, a way to make it write: what has to be there, and the command itself.
//!
//! `@name` is a key of the recipe's own. `$last` is the reply before. `$now+N` is the Unix time in seconds N seconds
//! from now, `$ms+N` the same in milliseconds. `$third` is the port of a server outside the job. A line that begins
//! with `&` is sent on a second connection and blocks there until a later line serves it.

/// One way to make a command write.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// As the server's own list has it: `XGROUP|CREATE`.
    pub command: &'static str,
    pub setup: &'static [&'static str],
    pub act: &'static [&'static str],
    /// The first Redis (major, minor) that knows these options; a command that is not in a server's list is left out
    /// anyway.
    pub since: (u32, u32),
    pub effect: Effect,
}

/// Where the effect shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The recipe's keys differ afterwards.
    Keys,
    /// The libraries of functions differ afterwards.
    Functions,
}

const fn r(command: &'static str, setup: &'static [&'static str], act: &'static [&'static str]) -> Recipe {
    Recipe { command, setup, act, since: (5, 0), effect: Effect::Keys }
}

const fn since(major: u32, minor: u32, recipe: Recipe) -> Recipe {
    Recipe { since: (major, minor), ..recipe }
}

const fn functions(recipe: Recipe) -> Recipe {
    Recipe { effect: Effect::Functions, ..recipe }
}

/// The list of commands that DTS promises to sync: none of them may lack a recipe.
pub const DTS: &[&str] = &[
    "APPEND",
    "BITOP",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "DECR",
    "DECRBY",
    "DEL",
    "EVAL",
    "EVALSHA",
    "EXEC",
    "EXPIRE",
    "EXPIREAT",
    "GEOADD",
    "GETSET",
    "HDEL",
    "HINCRBY",
    "HINCRBYFLOAT",
    "HMSET",
    "HSET",
    "HSETNX",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "LINSERT",
    "LPOP",
    "LPUSH",
    "LPUSHX",
    "LREM",
    "LSET",
    "LTRIM",
    "MOVE",
    "MSET",
    "MSETNX",
    "MULTI",
    "PERSIST",
    "PEXPIRE",
    "PEXPIREAT",
    "PFADD",
    "PFMERGE",
    "PSETEX",
    "PUBLISH",
    "RENAME",
    "RENAMENX",
    "RPOP",
    "RPOPLPUSH",
    "RPUSH",
    "RPUSHX",
    "SADD",
    "SDIFFSTORE",
    "SELECT",
    "SET",
    "SETBIT",
    "SETEX",
    "SETNX",
    "SETRANGE",
    "SINTERSTORE",
    "SMOVE",
    "SPOP",
    "SREM",
    "SUNIONSTORE",
    "UNLINK",
    "ZADD",
    "ZINCRBY",
    "ZINTERSTORE",
    "ZREM",
    "ZREMRANGEBYLEX",
    "ZUNIONSTORE",
    "ZREMRANGEBYRANK",
    "ZREMRANGEBYSCORE",
    "SWAPDB",
];

/// Write commands without a recipe, each with its reason. Anything else that a server lists has to have one.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("FLUSHALL", "not forwarded by default; two_way.rs has both policies"),
    ("FLUSHDB", "not forwarded by default; two_way.rs has both policies"),
    ("RESTORE-ASKING", "only between the nodes of a cluster, for a slot that moves"),
    ("TRIMSLOTS", "only in a cluster"),
    ("CLUSTER|FLUSHSLOT", "only in a cluster"),
    ("PFDEBUG", "a tool for developers of the server; it converts an encoding and changes no value"),
    ("XIDMPRECORD", "internal: the server's own rewrite of XADD ... IDMP, refused for an id that was added otherwise"),
    ("PUBLISH", "no key; two_way.rs listens at the other side"),
];

pub const RECIPES: &[Recipe] = &[
    // strings
    r("SET", &[], &["SET @a v"]),
    r("SET", &["SET @a v EX 1000"], &["SET @a \"\\x00\\xff\\r\\n*3\\r\\n\""]),
    r("SET", &["SET @a v"], &["SET @a w XX PX 900000"]),
    r("SET", &[], &["SET @empty \"\""]),
    since(6, 0, r("SET", &["SET @a v EX 1000"], &["SET @a w KEEPTTL"])),
    since(6, 2, r("SET", &["SET @a v"], &["SET @a w EXAT $now+1000 GET"])),
    r("SETNX", &[], &["SETNX @a v"]),
    r("SETEX", &[], &["SETEX @a 1000 v"]),
    r("PSETEX", &[], &["PSETEX @a 1000000 v"]),
    r("GETSET", &["SET @a v EX 1000"], &["GETSET @a w"]),
    r("GETDEL", &["SET @a v"], &["GETDEL @a"]),
    r("GETEX", &["SET @a v"], &["GETEX @a EX 1000"]),
    r("GETEX", &["SET @a v EX 1000"], &["GETEX @a PERSIST"]),
    r("APPEND", &["SET @a x"], &["APPEND @a yz"]),
    r("SETRANGE", &["SET @a hello"], &["SETRANGE @a 7 x"]),
    r("SETBIT", &["SET @a a"], &["SETBIT @a 77 1"]),
    r("BITOP", &["SET @a abc", "SET @b bcd"], &["BITOP XOR @c @a @b"]),
    r("BITFIELD", &["SET @a x"], &["BITFIELD @a INCRBY u8 100 7 SET i5 3 -2 OVERFLOW SAT INCRBY u4 40 99"]),
    r("MSET", &["SET @a x EX 1000"], &["MSET @a 1 @b 2"]),
    r("MSETNX", &[], &["MSETNX @a 1 @b 2"]),
    r("MSETEX", &[], &["MSETEX 2 @a 1 @b 2 EX 1000"]),
    r("INCR", &["SET @a 41"], &["INCR @a"]),
    r("INCRBY", &[], &["INCRBY @a 9000000000"]),
    r("INCRBYFLOAT", &["SET @a 10.5"], &["INCRBYFLOAT @a 0.1"]),
    // 5.0 tells its replicas of a plain SET here, so the expiry is lost at them, native ones too.
    since(6, 0, r("INCRBYFLOAT", &["SET @a 10.5 EX 1000"], &["INCRBYFLOAT @a 0.1"])),
    r("DECR", &[], &["DECR @a"]),
    r("DECRBY", &["SET @a 10"], &["DECRBY @a 33"]),
    r("DELIFEQ", &["SET @a v"], &["DELIFEQ @a v"]),
    r("DELEX", &["SET @a v"], &["DELEX @a IFEQ v"]),
    // keys
    r("DEL", &["MSET @a 1 @b 2 @c 3"], &["DEL @a @b @none"]),
    r("UNLINK", &["MSET @a 1 @b 2 @c 3"], &["UNLINK @a @b"]),
    r("EXPIRE", &["SET @a v"], &["EXPIRE @a 1000"]),
    r("EXPIRE", &["SET @a v"], &["EXPIRE @a -1"]),
    since(7, 0, r("EXPIRE", &["SET @a v EX 1000"], &["EXPIRE @a 2000 GT"])),
    r("PEXPIRE", &["RPUSH @a v"], &["PEXPIRE @a 1000000"]),
    r("EXPIREAT", &["SADD @a v"], &["EXPIREAT @a $now+1000"]),
    r("PEXPIREAT", &["HSET @a f v"], &["PEXPIREAT @a $ms+1000000"]),
    r("PERSIST", &["SET @a v EX 1000"], &["PERSIST @a"]),
    r("RENAME", &["SET @a v EX 1000", "SET @b w"], &["RENAME @a @b"]),
    r("RENAMENX", &["RPUSH @a 1 2"], &["RENAMENX @a @b"]),
    r("COPY", &["ZADD @a 1 m", "EXPIRE @a 1000"], &["COPY @a @b"]),
    r("COPY", &["SET @a v"], &["COPY @a @a DB 1"]),
    r("MOVE", &["SET @a v EX 1000"], &["MOVE @a 1"]),
    r("SELECT", &[], &["SELECT 1", "SET @a in1", "SELECT 3", "SET @a in3", "SELECT 0", "SET @a in0"]),
    r("SWAPDB", &["SELECT 7", "SET @a v"], &["SWAPDB 7 8"]),
    r("RESTORE", &["RPUSH @a 1 2 3", "DUMP @a"], &["RESTORE @b 1000000 $last"]),
    r("RESTORE", &["SET @b w", "SET @a v", "DUMP @a"], &["RESTORE @b 0 $last REPLACE IDLETIME 10"]),
    r("MIGRATE", &["SET @a v"], &["MIGRATE 127.0.0.1 $third @a 0 5000"]),
    r("SORT", &["RPUSH @a 3 1 2"], &["SORT @a STORE @b"]),
    // lists
    r("LPUSH", &[], &["LPUSH @a 1 2 3"]),
    r("RPUSH", &[], &["RPUSH @a 1 2 \"\\x00\\n\""]),
    r("LPUSHX", &["RPUSH @a 1"], &["LPUSHX @a 2 3"]),
    r("RPUSHX", &["RPUSH @a 1"], &["RPUSHX @a 2 3"]),
    r("LPOP", &["RPUSH @a 1 2 3"], &["LPOP @a"]),
    since(6, 2, r("LPOP", &["RPUSH @a 1 2 3"], &["LPOP @a 2"])),
    r("RPOP", &["RPUSH @a 1"], &["RPOP @a"]),
    r("LINSERT", &["RPUSH @a 1 3"], &["LINSERT @a BEFORE 3 2"]),
    r("LSET", &["RPUSH @a 1 2 3"], &["LSET @a -1 x"]),
    r("LREM", &["RPUSH @a x y x z x"], &["LREM @a -2 x"]),
    r("LTRIM", &["RPUSH @a 1 2 3 4"], &["LTRIM @a 1 2"]),
    r("RPOPLPUSH", &["RPUSH @a 1 2", "RPUSH @b 3"], &["RPOPLPUSH @a @b"]),
    r("RPOPLPUSH", &["RPUSH @a 1 2 3"], &["RPOPLPUSH @a @a"]),
    r("LMOVE", &["RPUSH @a 1 2", "RPUSH @b 3"], &["LMOVE @a @b LEFT RIGHT"]),
    r("LMPOP", &["RPUSH @b 1 2 3"], &["LMPOP 2 @a @b LEFT COUNT 2"]),
    r("BLPOP", &["RPUSH @a 1 2"], &["BLPOP @none @a 1"]),
    r("BLPOP", &[], &["&BLPOP @a 0", "RPUSH @a 1 2"]),
    r("BRPOP", &["RPUSH @a 1 2"], &["BRPOP @a 1"]),
    r("BRPOP", &[], &["&BRPOP @a 0", "LPUSH @a 1 2"]),
    r("BRPOPLPUSH", &["RPUSH @a 1 2"], &["BRPOPLPUSH @a @b 1"]),
    r("BRPOPLPUSH", &[], &["&BRPOPLPUSH @a @b 0", "RPUSH @a 1"]),
    r("BLMOVE", &["RPUSH @a 1 2"], &["BLMOVE @a @b RIGHT LEFT 1"]),
    r("BLMOVE", &[], &["&BLMOVE @a @b RIGHT LEFT 0", "RPUSH @a 1"]),
    r("BLMPOP", &["RPUSH @a 1 2 3"], &["BLMPOP 1 1 @a RIGHT COUNT 2"]),
    // sets
    r("SADD", &[], &["SADD @a 1 2 x"]),
    r("SREM", &["SADD @a 1 2 x"], &["SREM @a x 1"]),
    r("SPOP", &["SADD @a 1 2 3 4 5"], &["SPOP @a"]),
    r("SPOP", &["SADD @a 1 2 3 4 5"], &["SPOP @a 3"]),
    r("SPOP", &["SADD @a 1 2"], &["SPOP @a 5"]),
    r("SMOVE", &["SADD @a 1 2", "SADD @b 3"], &["SMOVE @a @b 1"]),
    r("SDIFFSTORE", &["SADD @a 1 2 3", "SADD @b 2"], &["SDIFFSTORE @c @a @b"]),
    r("SINTERSTORE", &["SADD @a 1 2 3", "SADD @b 2"], &["SINTERSTORE @c @a @b"]),
    r("SINTERSTORE", &["SADD @a 1", "SADD @b 2", "SET @c v"], &["SINTERSTORE @c @a @b"]),
    r("SUNIONSTORE", &["SADD @a 1 2 3", "SADD @b x"], &["SUNIONSTORE @c @a @b"]),
    // hashes
    r("HSET", &[], &["HSET @a f 1 g 2"]),
    r("HMSET", &["HSET @a f 1"], &["HMSET @a f 2 g 3"]),
    r("HSETNX", &["HSET @a f 1"], &["HSETNX @a g 2"]),
    r("HDEL", &["HSET @a f 1 g 2"], &["HDEL @a f none"]),
    r("HINCRBY", &[], &["HINCRBY @a f -7"]),
    r("HINCRBYFLOAT", &["HSET @a f 1.5"], &["HINCRBYFLOAT @a f 0.1"]),
    r("HEXPIRE", &["HSET @a f 1 g 2"], &["HEXPIRE @a 1000 FIELDS 1 f"]),
    r("HPEXPIRE", &["HSET @a f 1 g 2"], &["HPEXPIRE @a 1000000 FIELDS 2 f g"]),
    r("HEXPIREAT", &["HSET @a f 1 g 2"], &["HEXPIREAT @a $now+1000 FIELDS 1 f"]),
    r("HPEXPIREAT", &["HSET @a f 1 g 2"], &["HPEXPIREAT @a $ms+1000000 FIELDS 1 f"]),
    r("HPERSIST", &["HSET @a f 1 g 2", "HEXPIRE @a 1000 FIELDS 1 f"], &["HPERSIST @a FIELDS 1 f"]),
    r("HSETEX", &["HSET @a f 1"], &["HSETEX @a EX 1000 FIELDS 2 f 2 g 3"]),
    r("HGETEX", &["HSET @a f 1 g 2"], &["HGETEX @a EX 1000 FIELDS 1 g"]),
    r("HGETDEL", &["HSET @a f 1 g 2"], &["HGETDEL @a FIELDS 1 g"]),
    // sorted sets
    r("ZADD", &[], &["ZADD @a 1 x 2.5 y -inf z"]),
    r("ZADD", &["ZADD @a 1 x"], &["ZADD @a XX CH INCR 5 x"]),
    since(6, 2, r("ZADD", &["ZADD @a 1 x"], &["ZADD @a GT CH 5 x 2 y"])),
    r("ZINCRBY", &["ZADD @a 1 x"], &["ZINCRBY @a 0.1 x"]),
    r("ZREM", &["ZADD @a 1 x 2 y"], &["ZREM @a x"]),
    r("ZREMRANGEBYLEX", &["ZADD @a 0 a 0 b 0 c"], &["ZREMRANGEBYLEX @a [a (c"]),
    r("ZREMRANGEBYRANK", &["ZADD @a 1 a 2 b 3 c"], &["ZREMRANGEBYRANK @a 0 1"]),
    r("ZREMRANGEBYSCORE", &["ZADD @a 1 a 2 b 3 c"], &["ZREMRANGEBYSCORE @a (1 +inf"]),
    r("ZUNIONSTORE", &["ZADD @a 1 x", "ZADD @b 2 x 3 y"], &["ZUNIONSTORE @c 2 @a @b WEIGHTS 2 3"]),
    r("ZINTERSTORE", &["ZADD @a 1 x", "ZADD @b 2 x 3 y"], &["ZINTERSTORE @c 2 @a @b AGGREGATE MAX"]),
    r("ZDIFFSTORE", &["ZADD @a 1 x 2 y", "ZADD @b 2 x"], &["ZDIFFSTORE @c 2 @a @b"]),
    r("ZRANGESTORE", &["ZADD @a 1 x 2 y 3 z"], &["ZRANGESTORE @b @a 1 2"]),
    r("ZPOPMIN", &["ZADD @a 1 x 2 y"], &["ZPOPMIN @a"]),
    r("ZPOPMAX", &["ZADD @a 1 x 2 y 3 z"], &["ZPOPMAX @a 2"]),
    r("ZMPOP", &["ZADD @a 1 x 2 y 3 z"], &["ZMPOP 2 @none @a MAX COUNT 2"]),
    r("BZPOPMIN", &["ZADD @a 1 x 2 y"], &["BZPOPMIN @a 1"]),
    r("BZPOPMIN", &[], &["&BZPOPMIN @a 0", "ZADD @a 1 x 2 y"]),
    r("BZPOPMAX", &["ZADD @a 1 x 2 y"], &["BZPOPMAX @a 1"]),
    r("BZMPOP", &["ZADD @a 1 x 2 y"], &["BZMPOP 1 1 @a MIN"]),
    r("GEOADD", &[], &["GEOADD @a 13.361389 38.115556 Palermo 15.087269 37.502669 Catania"]),
    r("GEORADIUS", &["GEOADD @a 13.361389 38.115556 Palermo"], &["GEORADIUS @a 15 37 300 km STORE @b"]),
    r("GEORADIUSBYMEMBER", &["GEOADD @a 13.361389 38.115556 p"], &["GEORADIUSBYMEMBER @a p 9 km STOREDIST @b"]),
    r(
        "GEOSEARCHSTORE",
        &["GEOADD @a 13.361389 38.115556 p"],
        &["GEOSEARCHSTORE @b @a FROMLONLAT 15 37 BYRADIUS 300 km"],
    ),
    // probabilistic
    r("PFADD", &[], &["PFADD @a x y z"]),
    r("PFMERGE", &["PFADD @a x", "PFADD @b y z"], &["PFMERGE @c @a @b"]),
    // streams
    r("XADD", &[], &["XADD @a * f v g w"]),
    r("XADD", &["XADD @a 1-1 f v", "XADD @a 2-1 f v"], &["XADD @a MAXLEN 2 3-1 f v"]),
    r("XADD", &["XADD @a 1-1 f v"], &["XADD @a MAXLEN ~ 1000 2-1 f v"]),
    since(7, 0, r("XADD", &["XADD @a 1-1 f v"], &["XADD @a NOMKSTREAM MINID 2-0 2-* f v"])),
    r("XDEL", &["XADD @a 1-1 f v", "XADD @a 2-1 f v"], &["XDEL @a 1-1"]),
    r("XTRIM", &["XADD @a 1-1 f v", "XADD @a 2-1 f v"], &["XTRIM @a MAXLEN 1"]),
    r("XSETID", &["XADD @a 1-1 f v"], &["XSETID @a 9-9"]),
    r("XGROUP|CREATE", &[], &["XGROUP CREATE @a g $ MKSTREAM"]),
    since(7, 0, r("XGROUP|CREATECONSUMER", &["XGROUP CREATE @a g 0 MKSTREAM"], &["XGROUP CREATECONSUMER @a g c"])),
    // 6.2 has it too; what is compared there of a consumer is what it has pending.
    since(
        6,
        2,
        r(
            "XGROUP|CREATECONSUMER",
            &["XADD @a 1-1 f v", "XGROUP CREATE @a g 0"],
            &["XGROUP CREATECONSUMER @a g c", "XREADGROUP GROUP g c STREAMS @a >"],
        ),
    ),
    r(
        "XGROUP|DELCONSUMER",
        &["XADD @a 1-1 f v", "XGROUP CREATE @a g 0", "XREADGROUP GROUP g c STREAMS @a >"],
        &["XGROUP DELCONSUMER @a g c"],
    ),
    r("XGROUP|DESTROY", &["XGROUP CREATE @a g $ MKSTREAM"], &["XGROUP DESTROY @a g"]),
    r("XGROUP|SETID", &["XADD @a 1-1 f v", "XGROUP CREATE @a g 0"], &["XGROUP SETID @a g $"]),
    r(
        "XREADGROUP",
        &["XADD @a 1-1 f v", "XADD @a 2-1 f v", "XGROUP CREATE @a g 0"],
        &["XREADGROUP GROUP g c COUNT 1 STREAMS @a >"],
    ),
    r("XREADGROUP", &["XADD @a 1-1 f v", "XGROUP CREATE @a g 0"], &["XREADGROUP GROUP g c NOACK STREAMS @a >"]),
    r(
        "XREADGROUP",
        &["XGROUP CREATE @a g $ MKSTREAM"],
        &["&XREADGROUP GROUP g c BLOCK 0 STREAMS @a >", "XADD @a 5-1 f v"],
    ),
    r("XACK", &["XADD @a 1-1 f v", "XGROUP CREATE @a g 0", "XREADGROUP GROUP g c STREAMS @a >"], &["XACK @a g 1-1"]),
    r(
        "XCLAIM",
        &["XADD @a 1-1 f v", "XGROUP CREATE @a g 0", "XREADGROUP GROUP g c STREAMS @a >"],
        &["XCLAIM @a g d 0 1-1"],
    ),
    r(
        "XAUTOCLAIM",
        &["XADD @a 1-1 f v", "XGROUP CREATE @a g 0", "XREADGROUP GROUP g c STREAMS @a >"],
        &["XAUTOCLAIM @a g d 0 0"],
    ),
    r(
        "XACKDEL",
        &["XADD @a 1-1 f v", "XGROUP CREATE @a g 0", "XREADGROUP GROUP g c STREAMS @a >"],
        &["XACKDEL @a g ACKED IDS 1 1-1"],
    ),
    r("XDELEX", &["XADD @a 1-1 f v", "XADD @a 2-1 f v"], &["XDELEX @a DELREF IDS 1 1-1"]),
    r("XCFGSET", &["XADD @a 1-1 f v"], &["XCFGSET @a IDMP-DURATION 100 IDMP-MAXSIZE 50"]),
    since(8, 6, r("XADD", &["XADD @a 1-1 f v"], &["XADD @a IDMP producer 77 * f v"])),
    // vector sets
    r("VADD", &[], &["VADD @a VALUES 3 1 2 3 x", "VADD @a VALUES 3 4 5 6 y SETATTR {\"n\":1}"]),
    r("VREM", &["VADD @a VALUES 2 1 2 x", "VADD @a VALUES 2 2 1 y"], &["VREM @a x"]),
    r("VSETATTR", &["VADD @a VALUES 2 1 2 x"], &["VSETATTR @a x {\"year\":1999}"]),
    // transactions and scripts
    r("MULTI", &["SET @n 1"], &["MULTI", "INCR @n", "RPUSH @l x y", "EXEC"]),
    r("EXEC", &[], &["MULTI", "SET @a 1", "SELECT 1", "SET @a 2", "SELECT 0", "DEL @none", "EXEC"]),
    r("EXEC", &["SET @a 1"], &["MULTI", "INCR @a", "EXEC"]),
    r(
        "EVAL",
        &["SET @a 5"],
        &["EVAL \"redis.call('INCRBY', KEYS[1], ARGV[1]) redis.call('RPUSH', KEYS[2], 'x')\" 2 @a @b 7"],
    ),
    r("EVAL", &[], &["EVAL \"return redis.call('SET', KEYS[1], 'v', 'EX', 1000)\" 1 @a"]),
    r("EVALSHA", &["SCRIPT LOAD \"return redis.call('SADD', KEYS[1], ARGV[1], 'two')\""], &["EVALSHA $last 1 @a one"]),
    // functions
    since(
        7,
        0,
        functions(r(
            "FUNCTION|LOAD",
            &[],
            &[
                "FUNCTION LOAD REPLACE \"#!lua name=@lib\\nredis.register_function('@lib', function(k) return redis.call('INCR', k[1]) end)\"",
            ],
        )),
    ),
    since(
        7,
        0,
        r(
            "FCALL",
            &[
                "FUNCTION LOAD REPLACE \"#!lua name=@called\\nredis.register_function('@called', function(k) return redis.call('INCR', k[1]) end)\"",
            ],
            &["FCALL @called 1 @a"],
        ),
    ),
    since(
        7,
        0,
        functions(r(
            "FUNCTION|DELETE",
            &[
                "FUNCTION LOAD REPLACE \"#!lua name=@gone\\nredis.register_function('@gone', function(k) return 1 end)\"",
            ],
            &["FUNCTION DELETE @gone"],
        )),
    ),
    since(
        7,
        0,
        functions(r(
            "FUNCTION|RESTORE",
            &[
                "FUNCTION LOAD REPLACE \"#!lua name=@dumped\\nredis.register_function('@dumped', function(k) return 1 end)\"",
                "FUNCTION DUMP",
            ],
            &[
                "FUNCTION DELETE @dumped",
                "FUNCTION RESTORE $last REPLACE",
                "FUNCTION LOAD REPLACE \"#!lua name=@dumped2\\nredis.register_function('@dumped2', function(k) return 1 end)\"",
            ],
        )),
    ),
    since(
        7,
        0,
        functions(r(
            "FUNCTION|FLUSH",
            &[
                "FUNCTION LOAD REPLACE \"#!lua name=@flushed\\nredis.register_function('@flushed', function(k) return 1 end)\"",
            ],
            &["FUNCTION FLUSH"],
        )),
    ),
];
