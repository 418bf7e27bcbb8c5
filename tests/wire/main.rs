//! What `wire` claims about servers, held against the servers.
//!
//! They are looked for in `$DUPLEX_SERVERS`, `~/.cache/redis-servers` and `.servers`; those that are not there are
//! skipped, and named in the output, but not all of them may be missing.

mod command_keys;
mod command_table;
mod mutation;
mod properties;
mod rewrite_matrix;
mod server;
