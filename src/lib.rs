//! redis-duplex: two-way sync between two Redis-compatible instances.
//!
//! | room | what it owns | may import |
//! |---|---|---|
//! | [`model`] | the vocabulary: jobs, links, events, checks; serde only | nothing of ours |
//! | [`wire`] | bytes to values and back, without I/O: RESP, streams, RDB, the command table | nothing of ours |
//! | [`engine`] | the sync itself, usable with no terminal | `wire`, `model` |
//! | [`control`] | how anybody talks to a running engine | `model` |
//! | [`tui`] | the console; the only room that knows ratatui | `control` (client), `model` |
//! | [`cli`] | the command tree; the only room that knows them all | all |
//!
//! `ARCHITECTURE.md` tells how one write travels from A to B. A test holds the table above.

pub mod cli;
pub mod control;
pub mod engine;
pub mod model;
pub mod tui;
pub mod wire;
