//! What every suite stands on: real servers, a proxy between engine and server, the product as a black box, and a
//! comparer that shares no code with the product.
//!
//! - `server`: starts, stops, freezes one server on a free port of 127.0.0.1; ended by its pid when dropped.
//! - `resp`: a small client with deadlines, so that no suite depends on the product's own decoder.
//! - `proxy`: delay, cut, refuse and stall the connections between engine and server.
//! - `routing`: a proxy in front of a cluster, with all that such proxies refuse.
//! - `duplex`: the `duplex` binary with a home of its own; status polling; crash and revival.
//! - `cluster`: clusters of servers, slots moved, masters killed, a client that follows redirections.
//! - `compare`: reads two servers key by key and says what differs.
//! - `load`: writes whose outcome is known exactly; `spread`: over many slots.
//! - `positions`: how far a job is, by its control keys.
//! - `observer`: a second reader of a server's replication stream.
//! - `wait`: the only place that waits, always with a deadline and always saying what was there instead.
//! - `versions`: which servers are installed and which of them a run uses.
#![allow(dead_code, unused_imports, reason = "each suite uses its own part of the support")]

pub mod cluster;
pub mod compare;
pub mod duplex;
pub mod load;
pub mod observer;
pub mod positions;
pub mod proxy;
pub mod resp;
pub mod router;
pub mod routing;
pub mod server;
pub mod site;
pub mod spread;
pub mod versions;
pub mod wait;
pub mod words;

pub use compare::{assert_equal_within, differences};
pub use duplex::{Duplex, JobSpec};
pub use proxy::Proxy;
pub use resp::{Client, Reply};
pub use server::Server;
pub use wait::{secs, wait_for};
