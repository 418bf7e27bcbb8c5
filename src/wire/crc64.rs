//! CRC-64 as Redis computes it (Jones polynomial, reflected, no final xor): the checksum at the end of an RDB
//! stream and of a DUMP payload.

use crc::{CRC_64_REDIS, Crc, Digest, Table};

/// Sixteen tables (32 KiB): measured 1.6 to 1.9 GB/s, against 0.35 GB/s with one.
static REDIS: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// The checksum of one run of bytes.
pub fn crc64(bytes: &[u8]) -> u64 {
    REDIS.checksum(bytes)
}

/// A checksum that is computed as the bytes arrive.
#[derive(Clone)]
pub struct Crc64(Digest<'static, u64, Table<16>>);

impl Crc64 {
    pub fn new() -> Self {
        Crc64(REDIS.digest())
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far; more may follow.
    pub fn value(&self) -> u64 {
        self.0.clone().finalize()
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_redis() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(b""), 0);
    }

    #[test]
    fn pieces_give_the_same_as_the_whole() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        let mut crc = Crc64::new();
        for piece in bytes.chunks(37) {
            crc.update(piece);
        }
        assert_eq!(crc.value(), crc64(&bytes));
    }
}
