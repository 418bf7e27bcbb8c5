//! What follows each type byte and opcode, as data. One table serves to find where a value ends ([`super::reader`])
//! and to take it apart ([`super::decode`]), so the two cannot disagree.

use super::{Family, kind};

/// A step of a value's encoding, with what it means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    /// A length-encoded number.
    Len(Tag),
    /// A string: plain, as an integer, or compressed.
    Str(Tag),
    /// This many plain bytes.
    Fixed(Tag, usize),
    /// A score as text with a length byte, 253 to 255 being NaN and the infinities.
    Text(Tag),
    /// A number, and as many times these steps.
    Repeat(Tag, &'static [Op]),
    /// A module's annotated fields, up to their end mark.
    Module,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// Of no interest to the decoder.
    None,
    /// A list's or set's element, or the whole of a string.
    Item,
    /// A ziplist, listpack, intset or zipmap.
    Blob,
    /// 1: the node is one plain element, 2: a listpack.
    Container,
    Member,
    Score,
    BinaryScore,
    Field,
    Value,
    /// Relative to the hash's earliest expiry, plus one; 0 is none.
    FieldTtl,
    /// Milliseconds since 1970, -1 is none; stands after the value.
    FieldExpiry,
    MinExpiry,
    NodeId,
    Node,
    Length,
    LastMs,
    LastSeq,
    FirstMs,
    FirstSeq,
    DeletedMs,
    DeletedSeq,
    Added,
    Groups,
    Group,
    GroupMs,
    GroupSeq,
    GroupRead,
    Pending,
    PendingId,
    PendingTime,
    PendingCount,
    Consumers,
    Consumer,
    Seen,
    Active,
    ConsumerPending,
    ConsumerPendingId,
    Released,
    ReleasedId,
    IdmpDuration,
    IdmpMaxSize,
    Producers,
    Producer,
    ProducerIds,
    ProducerId,
    ProducerMs,
    ProducerSeq,
    IdsAdded,
    IdsDuplicate,
}

use Op::{Fixed, Len, Module, Repeat, Str, Text};
use Tag as T;

const ONE: &[Op] = &[Str(T::Item)];
const BLOB: &[Op] = &[Str(T::Blob)];
const ITEMS: &[Op] = &[Repeat(T::None, ONE)];
const BLOBS: &[Op] = &[Repeat(T::None, BLOB)];
const ZSET: &[Op] = &[Repeat(T::None, &[Str(T::Member), Text(T::Score)])];
const ZSET_2: &[Op] = &[Repeat(T::None, &[Str(T::Member), Fixed(T::BinaryScore, 8)])];
const HASH: &[Op] = &[Repeat(T::None, &[Str(T::Field), Str(T::Value)])];
const QUICKLIST_2: &[Op] = &[Repeat(T::None, &[Len(T::Container), Str(T::Blob)])];
const MODULE_2: &[Op] = &[Len(T::None), Module];

const HASH_2: &[Op] = &[Repeat(T::None, &[Str(T::Field), Str(T::Value), Fixed(T::FieldExpiry, 8)])];
const TTL_FIELD: &[Op] = &[Len(T::FieldTtl), Str(T::Field), Str(T::Value)];
const HASH_METADATA_PRE_GA: &[Op] = &[Repeat(T::None, TTL_FIELD)];
const HASH_METADATA: &[Op] = &[Fixed(T::MinExpiry, 8), Repeat(T::None, TTL_FIELD)];
const HASH_LISTPACK_EX: &[Op] = &[Fixed(T::MinExpiry, 8), Str(T::Blob)];

const NODES: Op = Repeat(T::None, &[Str(T::NodeId), Str(T::Node)]);
const PEL: Op = Repeat(T::Pending, &[Fixed(T::PendingId, 16), Fixed(T::PendingTime, 8), Len(T::PendingCount)]);
const CONSUMER_PEL: Op = Repeat(T::ConsumerPending, &[Fixed(T::ConsumerPendingId, 16)]);
const CONSUMERS: Op = Repeat(T::Consumers, &[Str(T::Consumer), Fixed(T::Seen, 8), CONSUMER_PEL]);
const CONSUMERS_3: Op = Repeat(T::Consumers, &[Str(T::Consumer), Fixed(T::Seen, 8), Fixed(T::Active, 8), CONSUMER_PEL]);
const GROUPS: Op = Repeat(T::Groups, &[Str(T::Group), Len(T::GroupMs), Len(T::GroupSeq), PEL, CONSUMERS]);
const GROUPS_2: Op =
    Repeat(T::Groups, &[Str(T::Group), Len(T::GroupMs), Len(T::GroupSeq), Len(T::GroupRead), PEL, CONSUMERS]);
const GROUPS_3: Op =
    Repeat(T::Groups, &[Str(T::Group), Len(T::GroupMs), Len(T::GroupSeq), Len(T::GroupRead), PEL, CONSUMERS_3]);
const GROUPS_5: Op = Repeat(
    T::Groups,
    &[
        Str(T::Group),
        Len(T::GroupMs),
        Len(T::GroupSeq),
        Len(T::GroupRead),
        PEL,
        CONSUMERS_3,
        Repeat(T::Released, &[Fixed(T::ReleasedId, 16)]),
    ],
);
const PRODUCERS: Op = Repeat(
    T::Producers,
    &[Str(T::Producer), Repeat(T::ProducerIds, &[Str(T::ProducerId), Len(T::ProducerMs), Len(T::ProducerSeq)])],
);
const LENGTH: [Op; 3] = [Len(T::Length), Len(T::LastMs), Len(T::LastSeq)];
const HISTORY: [Op; 5] = [Len(T::FirstMs), Len(T::FirstSeq), Len(T::DeletedMs), Len(T::DeletedSeq), Len(T::Added)];
const IDEMPOTENCY: [Op; 5] =
    [Len(T::IdmpDuration), Len(T::IdmpMaxSize), PRODUCERS, Len(T::IdsAdded), Len(T::IdsDuplicate)];

const STREAM: &[Op] = &[NODES, LENGTH[0], LENGTH[1], LENGTH[2], GROUPS];
const STREAM_2: &[Op] = &stream(GROUPS_2);
const STREAM_3: &[Op] = &stream(GROUPS_3);
const STREAM_4: &[Op] = &idempotent(GROUPS_3);
const STREAM_5: &[Op] = &idempotent(GROUPS_5);

const fn stream(groups: Op) -> [Op; 10] {
    let [a, b, c] = LENGTH;
    let [d, e, f, g, h] = HISTORY;
    [NODES, a, b, c, d, e, f, g, h, groups]
}

const fn idempotent(groups: Op) -> [Op; 15] {
    let [a, b, c, d, e, f, g, h, i, j] = stream(groups);
    let [k, l, m, n, o] = IDEMPOTENCY;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o]
}

/// The steps of a value. `None`: not a type that this program knows (or `MODULE_PRE_GA`, whose end cannot be found
/// without the module).
pub(super) fn value(kind: u8) -> Option<&'static [Op]> {
    Some(match kind {
        kind::STRING => ONE,
        kind::LIST | kind::SET => ITEMS,
        kind::ZSET => ZSET,
        kind::ZSET_2 => ZSET_2,
        kind::HASH => HASH,
        kind::MODULE_2 => MODULE_2,
        kind::HASH_ZIPMAP
        | kind::LIST_ZIPLIST
        | kind::SET_INTSET
        | kind::ZSET_ZIPLIST
        | kind::HASH_ZIPLIST
        | kind::HASH_LISTPACK
        | kind::ZSET_LISTPACK
        | kind::SET_LISTPACK
        | kind::HASH_LISTPACK_EX_PRE_GA => BLOB,
        kind::LIST_QUICKLIST => BLOBS,
        kind::LIST_QUICKLIST_2 => QUICKLIST_2,
        kind::STREAM => STREAM,
        kind::STREAM_2 => STREAM_2,
        kind::STREAM_3 => STREAM_3,
        kind::STREAM_4 => STREAM_4,
        kind::STREAM_5 => STREAM_5,
        kind::HASH_2 => HASH_2,
        kind::HASH_METADATA_PRE_GA => HASH_METADATA_PRE_GA,
        kind::HASH_METADATA => HASH_METADATA,
        kind::HASH_LISTPACK_EX => HASH_LISTPACK_EX,
        _ => return None,
    })
}

/// Whether a value of this type has boundaries inside at which it can be cut (a string has them everywhere).
pub(super) fn has_parts(kind: u8) -> bool {
    matches!(value(kind), Some([Repeat(..), ..])) || kind == kind::HASH_METADATA
}

/// Our number for a type byte: the same, except where the two families disagree.
pub(super) fn kind_of(byte: u8, family: Family) -> u8 {
    match (family, byte) {
        (Family::Redis, 22) => kind::HASH_METADATA_PRE_GA,
        (Family::Redis, 23) => kind::HASH_LISTPACK_EX_PRE_GA,
        // Ours never come from outside, and 23 and later of Valkey are not Redis's.
        (_, 0x80..) => u8::MAX,
        (Family::Valkey, 23..) => u8::MAX,
        _ => byte,
    }
}

pub(super) mod opcode {
    pub const KEY_META_OR_SLOT_IMPORT: u8 = 243;
    pub const SLOT_INFO: u8 = 244;
    pub const FUNCTION2: u8 = 245;
    pub const FUNCTION_PRE_GA: u8 = 246;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQ: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZEDB: u8 = 251;
    pub const EXPIRETIME_MS: u8 = 252;
    pub const EXPIRETIME: u8 = 253;
    pub const SELECTDB: u8 = 254;
    pub const EOF: u8 = 255;
    /// The lowest byte that is an opcode and not a type.
    pub const FIRST: u8 = 242;
}

/// The steps after an opcode, except `EOF`, whose checksum is not under itself.
pub(super) fn after(op: u8, family: Family) -> Option<&'static [Op]> {
    const N: Tag = Tag::None;
    Some(match (op, family) {
        (opcode::KEY_META_OR_SLOT_IMPORT, Family::Redis) => &[Repeat(N, &[Fixed(N, 4), Module])],
        (opcode::KEY_META_OR_SLOT_IMPORT, Family::Valkey) => &[Str(N), Repeat(N, &[Len(N), Len(N)])],
        (opcode::SLOT_INFO, _) => &[Len(N), Len(N), Len(N)],
        (opcode::FUNCTION2, _) => &[Str(N)],
        // name, engine, whether a description follows, the description, the code
        (opcode::FUNCTION_PRE_GA, _) => &[Str(N), Str(N), Repeat(N, &[Str(N)]), Str(N)],
        // the module's id, then when it was saved, as a module's field, and its fields
        (opcode::MODULE_AUX, _) => &[Len(N), Module],
        (opcode::IDLE, _) => &[Len(N)],
        (opcode::FREQ, _) => &[Fixed(N, 1)],
        (opcode::AUX, _) => &[Str(N), Str(N)],
        (opcode::RESIZEDB, _) => &[Len(N), Len(N)],
        (opcode::EXPIRETIME_MS, _) => &[Fixed(N, 8)],
        (opcode::EXPIRETIME, _) => &[Fixed(N, 4)],
        (opcode::SELECTDB, _) => &[Len(N)],
        _ => return None,
    })
}
