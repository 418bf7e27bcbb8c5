//! What is known of a command.

use super::{Argv, Keys, extract};
use crate::wire::dialect::{Dialect, Flavor};

/// What a command is about, for those who carry it elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It works on the keys that it names.
    Keyed,
    /// It empties or swaps whole databases.
    WholeDatabase(WholeDatabase),
    /// `PUBLISH`, `SPUBLISH`: nothing is kept.
    Publish,
    /// `SCRIPT`: the script cache. Servers before 7.0 put it into the stream.
    Script,
    /// `FUNCTION`: libraries of functions.
    Function,
    /// Whole slots are dropped: `TRIMSLOTS`, `CLUSTER FLUSHSLOT`.
    Slots,
    /// `FT.*`: a search index, kept beside the keyspace.
    SearchIndex,
    /// About the connection, the transaction or the replication: `PING`, `SELECT`, `MULTI`, `REPLCONF`.
    Control,
    /// About the server, or a read of no particular key.
    Other,
}

/// Which whole-database command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WholeDatabase {
    FlushAll,
    FlushDb,
    SwapDb,
}

/// How a command uses one of its keys, in the words of Redis's key specifications: one of RO, RW, OW, RM, and what is
/// done with the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access(u8);

impl Access {
    /// The value is only read.
    pub const RO: Access = Access(0);
    /// The value is changed.
    pub const RW: Access = Access(1);
    /// The value is replaced, whatever it was.
    pub const OW: Access = Access(2);
    /// The key is removed.
    pub const RM: Access = Access(3);
    /// The user's data is read, copied or returned.
    pub const ACCESS: Access = Access(4);
    /// Data is added; what is there stays.
    pub const INSERT: Access = Access(8);
    /// Data may be replaced, or is worked out from what was there.
    pub const UPDATE: Access = Access(16);
    /// Data is removed from the value, or the key itself is.
    pub const DELETE: Access = Access(32);

    pub(super) const fn of(bits: u8) -> Self {
        Access(bits)
    }

    /// The flags as bits, RO to RM in the lowest two.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The key may be other than before.
    pub const fn writes(self) -> bool {
        self.0 & 3 != 0
    }

    /// What the command does depends on the value that was there: all but a plain overwrite or removal.
    pub const fn reads(self) -> bool {
        matches!(self.0 & 3, 0 | 1) || self.0 & Self::ACCESS.0 != 0
    }

    /// The value is replaced whatever it was.
    pub const fn overwrites(self) -> bool {
        self.0 & 3 == Self::OW.0
    }

    /// The key is removed whatever it was.
    pub const fn removes(self) -> bool {
        self.0 & 3 == Self::RM.0
    }

    /// All flags of the other are set, RO to RM aside.
    pub const fn has(self, flag: Access) -> bool {
        self.0 & flag.0 & !3 == flag.0 & !3
    }

    /// These flags and the other's. Of RO to RM the first is kept, unless it is RO.
    pub const fn with(self, other: Access) -> Access {
        let mode = if self.0 & 3 == 0 { other.0 & 3 } else { self.0 & 3 };
        Access(((self.0 | other.0) & !3) | mode)
    }
}

/// A command of any server, or a subcommand (`xgroup|create`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// In lower case.
    pub name: &'static str,
    pub kind: Kind,
    /// It changes data, or may (`EVAL`, `PFCOUNT`).
    pub write: bool,
    /// Arguments with the name; negative: at least so many.
    pub arity: i16,
    /// Its first word is not enough: there are subcommands.
    pub container: bool,
    /// It comes with a module: whether a server knows it, its version does not tell.
    pub module: bool,
    /// The first Redis, Valkey and Redict that know it, as 100 * major + minor; 0: none does. Forks count from 7.2.
    pub since: [u16; 3],
    /// How it may have to be put in other words.
    pub(in crate::wire) rule: Rule,
    /// How its keys are found.
    pub(super) finder: Finder,
    pub keys: &'static [KeySpec],
}

impl Spec {
    /// The keys in a command of this kind; `None` when the arguments are not such as a server accepts.
    pub fn keys(&self, argv: &(impl Argv + ?Sized)) -> Option<Keys> {
        extract::keys(self, argv)
    }

    /// So many arguments, the name included, are enough and not too many.
    pub fn takes(&self, argc: usize) -> bool {
        if self.arity < 0 { argc >= self.arity.unsigned_abs() as usize } else { argc == self.arity as usize }
    }

    /// A server of this make and version has the command. Modules are not counted: whoever loads them knows.
    pub fn known_to(&self, dialect: &Dialect) -> bool {
        let since = match dialect.flavor {
            Flavor::Redis => self.since[0],
            Flavor::Valkey => self.since[1],
            Flavor::Redict => self.since[2],
        };
        since != 0 && since <= dialect.version.0 * 100 + dialect.version.1
    }
}

/// Where some of a command's keys stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    pub access: Access,
    pub begin: Begin,
    pub find: Find,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    Index(u16),
    /// Behind this word, looked for from an argument on; negative: from the end backwards.
    Keyword(&'static str, i16),
}

/// How to go on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Find {
    /// Up to `last` (from the beginning; negative: from the end of the arguments), every `step`-th argument; with
    /// `last` -1 and a `limit` of n, the first n-th part of them.
    Range { last: i16, step: u16, limit: u16 },
    /// A number of keys stands at `count`, the first key at `first`, both from the beginning.
    Counted { count: u16, first: u16, step: u16 },
}

/// Which rule of [`crate::wire::rewrite`] looks at a command; settled when the table is compiled, so that the common
/// case costs one comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wire) enum Rule {
    /// It is the same everywhere, or unknown there.
    None,
    Set,
    SetEx,
    MSetEx,
    GetDel,
    GetEx,
    DelIf,
    Expire,
    Restore,
    HExpire,
    HPersist,
    HSetEx,
    HGetEx,
    HGetDel,
    Pop,
    LMove,
    ZAdd,
    BitOp,
    XAdd,
    XTrim,
    XDelEx,
    XAckDel,
    XSetId,
    XGroup,
    /// Bookkeeping that other servers do not have.
    Omit,
    Flush,
}

impl Rule {
    const RULES: &'static [(&'static str, Rule)] = &[
        ("set", Rule::Set),
        ("setex", Rule::SetEx),
        ("psetex", Rule::SetEx),
        ("msetex", Rule::MSetEx),
        ("getdel", Rule::GetDel),
        ("getex", Rule::GetEx),
        ("delifeq", Rule::DelIf),
        ("delex", Rule::DelIf),
        ("expire", Rule::Expire),
        ("pexpire", Rule::Expire),
        ("expireat", Rule::Expire),
        ("pexpireat", Rule::Expire),
        ("restore", Rule::Restore),
        ("restore-asking", Rule::Restore),
        ("hexpire", Rule::HExpire),
        ("hpexpire", Rule::HExpire),
        ("hexpireat", Rule::HExpire),
        ("hpexpireat", Rule::HExpire),
        ("hpersist", Rule::HPersist),
        ("hsetex", Rule::HSetEx),
        ("hgetex", Rule::HGetEx),
        ("hgetdel", Rule::HGetDel),
        ("lpop", Rule::Pop),
        ("rpop", Rule::Pop),
        ("lmove", Rule::LMove),
        ("zadd", Rule::ZAdd),
        ("bitop", Rule::BitOp),
        ("xadd", Rule::XAdd),
        ("xtrim", Rule::XTrim),
        ("xdelex", Rule::XDelEx),
        ("xackdel", Rule::XAckDel),
        ("xsetid", Rule::XSetId),
        ("xgroup|create", Rule::XGroup),
        ("xgroup|setid", Rule::XGroup),
        ("xgroup|createconsumer", Rule::XGroup),
        ("xcfgset", Rule::Omit),
        ("xidmprecord", Rule::Omit),
        ("flushall", Rule::Flush),
        ("flushdb", Rule::Flush),
    ];

    pub(super) const fn of(name: &str) -> Rule {
        let mut i = 0;
        while i < Self::RULES.len() {
            let (of, rule) = Self::RULES[i];
            if same(of.as_bytes(), name.as_bytes()) {
                return rule;
            }
            i += 1;
        }
        Rule::None
    }
}

/// How a command's keys are found; settled when the table is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finder {
    /// By its key specifications.
    Specs,
    /// By them, and it may read others.
    Script,
    /// The options of these a key specification can't tell from their values, or it does not name the database.
    Sort,
    Migrate,
    GeoRadius,
    Move,
    Copy,
}

impl Finder {
    const FINDERS: &'static [(&'static str, Finder)] = &[
        ("eval", Finder::Script),
        ("evalsha", Finder::Script),
        ("fcall", Finder::Script),
        ("eval_ro", Finder::Script),
        ("evalsha_ro", Finder::Script),
        ("fcall_ro", Finder::Script),
        ("sort", Finder::Sort),
        ("sort_ro", Finder::Sort),
        ("migrate", Finder::Migrate),
        ("georadius", Finder::GeoRadius),
        ("georadiusbymember", Finder::GeoRadius),
        ("move", Finder::Move),
        ("copy", Finder::Copy),
    ];

    pub(super) const fn of(name: &str) -> Finder {
        let mut i = 0;
        while i < Self::FINDERS.len() {
            let (of, finder) = Self::FINDERS[i];
            if same(of.as_bytes(), name.as_bytes()) {
                return finder;
            }
            i += 1;
        }
        Finder::Specs
    }
}

/// `==` is not yet to be had at compile time.
const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
