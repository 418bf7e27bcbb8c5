//! The sync itself, usable with no terminal.
//!
//! ```text
//! engine ── supervisor ── job ── link (forward), link (reverse)
//! a link:  shard ─▶ replica ─▶ spool ─▶ wire (rdb, stream) ─▶ arbiter ─▶ apply ─▶ other instance
//! ```

pub mod apply;
pub mod arbiter;
pub mod clock;
pub mod conflicts;
pub mod core;
pub mod events;
pub mod fence;
pub mod gauge;
pub mod history;
pub mod job;
pub mod link;
pub mod manifold;
pub mod net;
pub mod precheck;
pub mod probe;
pub mod replica;
pub mod spool;
pub mod strand;
pub mod supervisor;
pub mod transfer;
pub mod verify;
