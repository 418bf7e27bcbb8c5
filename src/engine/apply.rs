//! Writing to an instance: marked transactions, a bounded window of them in flight, replies matched to changes.
//!
//! ```text
//!   outbox (items, in the order of decisions) ─▶ writer: MULTI, SET control key, items…, EXEC ─▶ socket
//!        ▲                                         │ unacked transactions, kept until their replies are here
//!        └── effects of replies ◀── replies ◀──────┘
//! ```
//!
//! Invariants
//! - Every write stands in a MULTI … EXEC whose first command writes the control key, so data and position move
//!   together. A transaction ends behind a token, never inside a source's transaction.
//! - What was refused as a whole (OOM, READONLY, LOADING, …) is sent again in its order once the cause is gone. If
//!   later transactions of the window went through meanwhile, the keys of the refused one are settled by state.
//! - After a broken connection, nothing is sent before the old connection is known to be dead and the control key has
//!   said what it applied.

pub mod control_key;
pub mod limiter;
pub mod outbox;
pub mod pace;
mod pairs;
pub mod replies;
pub mod transaction;
pub mod writer;
