//! Type bytes of RDB values, by the names of `rdb.h`.

pub const STRING: u8 = 0;
pub const LIST: u8 = 1;
pub const SET: u8 = 2;
pub const ZSET: u8 = 3;
pub const HASH: u8 = 4;
pub const ZSET_2: u8 = 5;
pub const MODULE_PRE_GA: u8 = 6;
pub const MODULE_2: u8 = 7;
pub const HASH_ZIPMAP: u8 = 9;
pub const LIST_ZIPLIST: u8 = 10;
pub const SET_INTSET: u8 = 11;
pub const ZSET_ZIPLIST: u8 = 12;
pub const HASH_ZIPLIST: u8 = 13;
pub const LIST_QUICKLIST: u8 = 14;
pub const STREAM: u8 = 15;
pub const HASH_LISTPACK: u8 = 16;
pub const ZSET_LISTPACK: u8 = 17;
pub const LIST_QUICKLIST_2: u8 = 18;
pub const STREAM_2: u8 = 19;
pub const SET_LISTPACK: u8 = 20;
pub const STREAM_3: u8 = 21;
/// Valkey 9: a hash with field expiry.
pub const HASH_2: u8 = 22;
/// Redis 7.4 and later: a hash with field expiry.
pub const HASH_METADATA: u8 = 24;
pub const HASH_LISTPACK_EX: u8 = 25;
/// Redis 8.6: a stream that knows its producers.
pub const STREAM_4: u8 = 26;
/// Redis 8.8: a stream whose groups have pending entries without a consumer.
pub const STREAM_5: u8 = 27;
/// Redis 7.4 release candidates wrote 22 and 23, which Valkey gave another meaning. Our own numbers for them, so that
/// a type byte alone says what it is; no server is ever sent these.
pub const HASH_METADATA_PRE_GA: u8 = 0x80 | 22;
pub const HASH_LISTPACK_EX_PRE_GA: u8 = 0x80 | 23;

/// What a user calls the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Logical {
    String,
    List,
    Set,
    Zset,
    Hash,
    Stream,
    Module,
}

/// The type that a user sees behind a type byte.
pub fn logical(kind: u8) -> Option<Logical> {
    Some(match kind {
        STRING => Logical::String,
        LIST | LIST_ZIPLIST | LIST_QUICKLIST | LIST_QUICKLIST_2 => Logical::List,
        SET | SET_INTSET | SET_LISTPACK => Logical::Set,
        ZSET | ZSET_2 | ZSET_ZIPLIST | ZSET_LISTPACK => Logical::Zset,
        HASH
        | HASH_ZIPMAP
        | HASH_ZIPLIST
        | HASH_LISTPACK
        | HASH_2
        | HASH_METADATA
        | HASH_LISTPACK_EX
        | HASH_METADATA_PRE_GA
        | HASH_LISTPACK_EX_PRE_GA => Logical::Hash,
        STREAM | STREAM_2 | STREAM_3 | STREAM_4 | STREAM_5 => Logical::Stream,
        MODULE_PRE_GA | MODULE_2 => Logical::Module,
        _ => return None,
    })
}
