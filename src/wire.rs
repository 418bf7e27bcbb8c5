//! Bytes to values and back, without I/O and without a task: everything here is fuzzed.

pub mod command;
pub mod crc64;
pub mod dialect;
pub mod lzf;
pub mod rdb;
pub mod resp;
pub mod rewrite;
pub mod slot;
pub mod stream;
