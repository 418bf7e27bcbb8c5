//! A shard's replication stream, cut into entries: what Redis executed as one unit.

use bytes::Bytes;

/// A run of whole entries, decoded in place. Nothing is copied: every range points into `buf`.
#[derive(Debug, Default)]
pub struct Batch {
    /// The bytes from which the entries were decoded.
    pub buf: Bytes,
    /// All commands of all entries, in order, without MULTI, EXEC, SELECT, PING and REPLCONF.
    pub commands: Vec<Command>,
    /// The arguments of all commands, as (start, end) in `buf`; each command names its run of them.
    pub args: Vec<(u32, u32)>,
    pub entries: Vec<Entry>,
}

/// One command, its arguments and where it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// The whole RESP frame in `Batch::buf`.
    pub frame: (u32, u32),
    /// The run of `Batch::args`; the first is the command's name as it was sent.
    pub args: (u32, u32),
    /// The database that was selected when it ran.
    pub db: u32,
}

/// What a shard executed as one: a bare command, or a MULTI ... EXEC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The run of `Batch::commands`; may be empty (a PING, a SELECT, an empty transaction).
    pub commands: (u32, u32),
    /// Stream bytes from the beginning of the batch's first entry to the end of this one.
    pub end: u64,
    /// It came as MULTI ... EXEC.
    pub transaction: bool,
}

impl Batch {
    /// The arguments of a command, name first.
    pub fn argv<'a>(&'a self, command: &Command) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone {
        self.args[command.args.0 as usize..command.args.1 as usize]
            .iter()
            .map(|&(s, e)| &self.buf[s as usize..e as usize])
    }

    /// The `n`-th argument of a command; 0 is its name.
    pub fn arg(&self, command: &Command, n: usize) -> Option<&[u8]> {
        let (s, e) = *self.args.get(command.args.0 as usize..command.args.1 as usize)?.get(n)?;
        self.buf.get(s as usize..e as usize)
    }

    /// The bytes of a whole command, as they came.
    pub fn frame(&self, command: &Command) -> Bytes {
        self.buf.slice(command.frame.0 as usize..command.frame.1 as usize)
    }
}
