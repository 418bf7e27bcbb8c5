//! Cluster slots: which of the 16,384 a key belongs to, and a key for each.
//!
//! The rule: CRC-16/XMODEM of the key, or of what stands in its first non-empty `{...}`, modulo 16,384; see
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.

use crc::{CRC_16_XMODEM, Crc, Table};
use std::sync::LazyLock;

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

static CRC: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// The slot of a key.
pub fn slot(key: &[u8]) -> u16 {
    CRC.checksum(hash_tag(key)) % SLOTS
}

/// What of a key decides on its slot: the first `{...}` if there is something in it, else all of it.
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let rest = &key[open + 1..];
    match memchr::memchr(b'}', rest) {
        Some(close) if close > 0 => &rest[..close],
        _ => key,
    }
}

/// A hash tag, without braces, whose slot is the given one: the shortest of letters and digits, at most 4 characters.
/// Slots count modulo [`SLOTS`].
pub fn tag_for_slot(slot: u16) -> &'static str {
    let tag = &TAGS[(slot % SLOTS) as usize];
    let len = tag.iter().position(|&b| b == 0).unwrap_or(tag.len());
    std::str::from_utf8(&tag[..len]).unwrap_or_default()
}

/// A tag a slot, padded with zeros.
static TAGS: LazyLock<Box<[[u8; 4]]>> = LazyLock::new(|| {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut tags = vec![[0u8; 4]; SLOTS as usize].into_boxed_slice();
    let mut missing = SLOTS;
    for len in 1..=4u32 {
        for n in 0..36usize.pow(len) {
            let mut tag = [0u8; 4];
            let mut rest = n;
            for place in tag[..len as usize].iter_mut().rev() {
                *place = ALPHABET[rest % 36];
                rest /= 36;
            }
            let at = &mut tags[slot(&tag[..len as usize]) as usize];
            if at[0] == 0 {
                *at = tag;
                missing -= 1;
                if missing == 0 {
                    return tags;
                }
            }
        }
    }
    tags
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(CRC.checksum(b"123456789"), 0x31c3);
        assert_eq!(slot(b"123456789"), 0x31c3 % SLOTS);
        assert_eq!(slot(b"foo"), 12182); // CLUSTER KEYSLOT foo
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hash_tag(b"foo{bar"), b"foo{bar");
    }

    #[test]
    fn every_slot_has_a_tag_of_its_own_and_it_is_short() {
        for s in 0..SLOTS {
            let tag = tag_for_slot(s);
            assert!((1..=4).contains(&tag.len()), "slot {s}: {tag:?}");
            assert_eq!(slot(tag.as_bytes()), s);
            assert_eq!(slot(format!("x:{{{tag}}}:y").as_bytes()), s);
        }
    }
}
