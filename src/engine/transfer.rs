//! One key's value to the commands that rebuild it at a site: RESTORE where the site knows the value's type, otherwise
//! the commands of its type.

use super::apply::replies::State;
use crate::wire::dialect::Dialect;
use crate::wire::rdb::commands::{Lost, rebuild};
use crate::wire::rdb::kind::{Logical, MODULE_2, logical};
use crate::wire::rdb::payload::{parse_dump, payload_len, restore_payload};
use crate::wire::rdb::{KeyEntry, RdbError, vectorset};
use crate::wire::resp::{encode, encode_header, encode_part, encode_part_int};
use bytes::{BufMut, Bytes, BytesMut};

/// Values above this go in parts. Measured on Redis 5.0 and 7.0: a RESTORE of a hash, set or sorted set takes a server 10
/// to 25 ms a MiB, and nobody wants to wait for longer than that.
pub const BIG: usize = 512 << 10;
/// The longest element, or string: what a server takes with `proto-max-bulk-len` raised. Only what comes is held.
pub const LONGEST: usize = 4 << 30;
/// Bytes of commands in a part: some 2 ms.
const PART: usize = 64 << 10;

/// How a value gets to a site.
#[derive(Debug)]
pub enum Transfer {
    /// In parts, in this order: one as a rule; a big value is several, of which a reader may see the first without the
    /// last, since all at once would hold the site up.
    Commands {
        parts: Vec<(Bytes, u32)>,
        lost: Vec<Lost>,
    },
    Impossible {
        why: String,
    },
}

/// What replaces the key at the site by this state; a DEL where there is none.
pub fn restore(key: &[u8], state: &State, target: Dialect) -> Transfer {
    let Some(dump) = &state.dump else {
        let mut out = BytesMut::new();
        encode(&mut out, &[&b"DEL"[..], key]);
        return Transfer::Commands { parts: vec![(out.freeze(), 1)], lost: Vec::new() };
    };
    let (kind, value) = match parse_dump(dump) {
        Ok((kind, value, _)) => (kind, dump.slice_ref(value)),
        Err(e) => return Transfer::Impossible { why: e.to_string() },
    };
    let entry = KeyEntry {
        db: 0,
        key: Bytes::copy_from_slice(key),
        kind,
        value,
        expire_ms: state.expire_at_ms,
        idle: None,
        freq: None,
    };
    if entry.value.len() > BIG
        && !matches!(logical(kind), Some(Logical::Module | Logical::Stream) | None)
        && let Ok(transfer) = in_parts(&entry, target)
    {
        return transfer;
    }
    let mut out = BytesMut::new();
    match write_entry(&mut out, &entry, target, true) {
        Ok((commands, lost)) => Transfer::Commands { parts: vec![(out.freeze(), commands)], lost },
        Err(e) => Transfer::Impossible { why: e.to_string() },
    }
}

/// Rebuilds a big value by commands that a site takes one after the other.
fn in_parts(entry: &KeyEntry, target: Dialect) -> Result<Transfer, RdbError> {
    let (mut commands, mut parts) = (Vec::new(), Vec::new());
    let lost = rebuild(entry, target, &mut commands)?;
    let (mut out, mut count) = (BytesMut::new(), 0);
    for command in commands.drain(..) {
        encode(&mut out, &command);
        count += 1;
        if out.len() >= PART {
            parts.push((out.split().freeze(), std::mem::take(&mut count)));
        }
    }
    if count > 0 {
        parts.push((out.freeze(), count));
    }
    Ok(Transfer::Commands { parts, lost })
}

/// Appends what writes a key of a snapshot at the target; gives how many commands that takes, and what the target has
/// no word for. `replace`: whatever the target holds under that name goes.
pub fn write_entry(
    out: &mut BytesMut,
    entry: &KeyEntry,
    target: Dialect,
    replace: bool,
) -> Result<(u32, Vec<Lost>), RdbError> {
    if target.knows_type(entry.kind) {
        if entry.kind == MODULE_2
            && target.has_first_vector_sets()
            && let Some(value) = vectorset::as_of_8_0(&entry.value)
        {
            write_restore(out, &KeyEntry { value, ..entry.clone() }, target, replace);
        } else {
            write_restore(out, entry, target, replace);
        }
        return Ok((1, Vec::new()));
    }
    let mut commands = Vec::new();
    let lost = rebuild(entry, target, &mut commands)?;
    for command in &commands {
        encode(out, command);
    }
    Ok((commands.len() as u32, lost))
}

fn write_restore(out: &mut BytesMut, entry: &KeyEntry, target: Dialect, replace: bool) {
    let size = payload_len(entry.value.len());
    let usage = match (entry.idle, entry.freq) {
        (Some(idle), _) => Some((&b"IDLETIME"[..], idle)),
        (None, Some(freq)) => Some((&b"FREQ"[..], u64::from(freq))),
        (None, None) => None,
    };
    out.reserve(size + entry.key.len() + 128);
    encode_header(out, 5 + usize::from(replace) + if usage.is_some() { 2 } else { 0 });
    encode_part(out, b"RESTORE");
    encode_part(out, &entry.key);
    // 0 is no expiry; a key that expired in 1970 is still to expire.
    encode_part_int(out, entry.expire_ms.map_or(0, |t| t.max(1)));
    out.put_u8(b'$');
    out.put_slice(itoa::Buffer::new().format(size).as_bytes());
    out.put_slice(b"\r\n");
    restore_payload(entry.kind, &entry.value, target.rdb_version(), out);
    out.put_slice(b"\r\n");
    encode_part(out, b"ABSTTL");
    if replace {
        encode_part(out, b"REPLACE");
    }
    if let Some((word, value)) = usage {
        encode_part(out, word);
        encode_part_int(out, value);
    }
}
