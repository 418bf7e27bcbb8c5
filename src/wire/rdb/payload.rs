//! DUMP payloads: type byte, value, RDB version (2 bytes, little endian), CRC-64 of all that (8 bytes).

use bytes::{BufMut, BytesMut};

use super::{Family, RdbError, grammar};
use crate::wire::crc64::{Crc64, crc64};

const FOOTER: usize = 10;

/// Valkey gave its own formats the versions from 80 on; what is below is Redis's.
const VALKEY_FROM: u16 = 80;

/// Appends the payload that `RESTORE` takes. `rdb_version` is the target's own, from
/// [`crate::wire::dialect::Dialect::rdb_version`]: servers refuse versions above theirs, and look no further than the
/// type byte for what they can read. Whether they can, ask [`crate::wire::dialect::Dialect::knows_type`].
pub fn restore_payload(kind: u8, value: &[u8], rdb_version: u16, out: &mut BytesMut) {
    let begin = out.len();
    out.reserve(1 + value.len() + FOOTER);
    out.put_u8(kind);
    out.put_slice(value);
    out.put_u16_le(rdb_version);
    let sum = crc64(&out[begin..]);
    out.put_u64_le(sum);
}

/// The length of the payload that [`restore_payload`] makes of a value of this length.
pub fn payload_len(value: usize) -> usize {
    1 + value + FOOTER
}

/// Opens a payload as `DUMP` gave it: the type byte, the value and the RDB version. The checksum is verified.
pub fn parse_dump(payload: &[u8]) -> Result<(u8, &[u8], u16), RdbError> {
    let bytes = payload.len();
    let Some((body, sum)) = payload.split_last_chunk::<8>() else {
        return Err(RdbError::Payload { bytes, what: "too short for a footer" });
    };
    let mut crc = Crc64::new();
    crc.update(body);
    if crc.value() != u64::from_le_bytes(*sum) {
        return Err(RdbError::Payload { bytes, what: "its checksum does not match" });
    }
    let Some((body, version)) = body.split_last_chunk::<2>() else {
        return Err(RdbError::Payload { bytes, what: "too short for a version" });
    };
    let version = u16::from_le_bytes(*version);
    let family = if version >= VALKEY_FROM { Family::Valkey } else { Family::Redis };
    let Some((&first, value)) = body.split_first() else {
        return Err(RdbError::Payload { bytes, what: "without a value" });
    };
    if first >= grammar::opcode::FIRST {
        return Err(RdbError::Payload { bytes, what: "with a module's metadata before the value" });
    }
    Ok((grammar::kind_of(first, family), value, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_opens_to_what_it_was_made_of() {
        let mut out = BytesMut::from(&b"before"[..]);
        restore_payload(0, b"\x03abc", 9, &mut out);
        let payload = &out[6..];
        assert_eq!(payload.len(), payload_len(4));
        assert_eq!(parse_dump(payload).unwrap(), (0, &b"\x03abc"[..], 9));
    }

    #[test]
    fn damage_is_found() {
        let mut out = BytesMut::new();
        restore_payload(0, b"\x03abc", 9, &mut out);
        for at in 0..out.len() {
            let mut bad = out.to_vec();
            bad[at] ^= 1;
            assert!(parse_dump(&bad).is_err(), "byte {at}");
            assert!(parse_dump(&out[..at]).is_err(), "cut at {at}");
        }
    }
}
