//! How anybody talks to a running engine: one protocol, over a Unix socket or an in-memory pipe.
//!
//! A frame is a 4-byte big-endian length and that many bytes of JSON. A connection begins with `Hello`, whose
//! version is checked before anything else. Each request carries an id; its replies carry the same id, any number of
//! them, and the last says so. Requests of one connection may run side by side.
//!
//! ```text
//! cli, tui ── Client ══ Unix socket or in-memory pipe ══ server ── Service ── engine
//! ```

pub mod client;
pub mod codec;
pub mod daemon;
pub mod listener;
pub mod protocol;
pub mod server;
pub mod service;

pub use client::{Client, ClientError};
