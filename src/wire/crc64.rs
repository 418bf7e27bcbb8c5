//! crc64
