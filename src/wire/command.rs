//! The command table: what every server at hand calls a command, whether it writes, and where its keys stand.
//!
//! Owns names, key positions and access, merged from the `COMMAND` and `COMMAND DOCS` answers of Redis 5.0 to 8.6,
//! Redict, Valkey 8.0 to 9.1 and the Redis Stack modules (`table.rs` is generated and checked against the servers by
//! `tests/wire/command_table.rs`). It does not know what a command does beyond that.
//!
//! Invariants: [`lookup`] ignores case and does not allocate; a command that is not in the table has no keys that we
//! could name, so [`keys`] answers `None` and never an empty list for it.
//!
//! Key specifications: <https://redis.io/docs/latest/develop/reference/key-specs/>.

mod extract;
mod index;
mod spec;
#[rustfmt::skip]
mod table;

pub use extract::{KeyRef, Keys};
pub use index::{lookup, lookup_name, number, numbered};
pub(in crate::wire) use spec::Rule;
pub use spec::{Access, Kind, Spec, WholeDatabase};

/// A command's arguments, name first, wherever they are kept.
pub trait Argv {
    /// How many there are, the name included.
    fn argc(&self) -> usize;
    /// The `n`-th; empty when there are not that many.
    fn arg(&self, n: usize) -> &[u8];
}

impl<T: AsRef<[u8]>> Argv for [T] {
    fn argc(&self) -> usize {
        self.len()
    }

    fn arg(&self, n: usize) -> &[u8] {
        self.get(n).map_or(&[], AsRef::as_ref)
    }
}

impl<T: AsRef<[u8]>> Argv for Vec<T> {
    fn argc(&self) -> usize {
        self.len()
    }

    fn arg(&self, n: usize) -> &[u8] {
        self.as_slice().arg(n)
    }
}

impl<T: AsRef<[u8]>, const N: usize> Argv for [T; N] {
    fn argc(&self) -> usize {
        N
    }

    fn arg(&self, n: usize) -> &[u8] {
        self.as_slice().arg(n)
    }
}

impl<A: Argv + ?Sized> Argv for &A {
    fn argc(&self) -> usize {
        (**self).argc()
    }

    fn arg(&self, n: usize) -> &[u8] {
        (**self).arg(n)
    }
}

/// The keys of a command, in the order of its arguments' meaning. `None`: the command is unknown, or its arguments are
/// not such as a server accepts, so nothing can be said.
pub fn keys(argv: &(impl Argv + ?Sized)) -> Option<Keys> {
    lookup(argv)?.keys(argv)
}
