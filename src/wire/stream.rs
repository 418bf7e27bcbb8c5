//! A shard's replication stream, cut into entries: what Redis executed as one unit.
//!
//! Owns the notion of an [`Entry`] (a bare command, or a MULTI ... EXEC as a whole), the selected database, and what of
//! the stream is no data at all: PING, REPLCONF, SELECT, newlines. It does not know keys, jobs or offsets: the caller
//! adds [`Entry::end`] to the offset at which it began.
//!
//! Invariants: only whole entries are delivered; every byte of the stream belongs to exactly one entry, so the sum of
//! lengths is the offset; a byte is looked at once, however small the pieces in which a transaction comes.

mod decoder;

pub use decoder::{BatchLimits, Decoder, StreamError};

use bytes::{Bytes, BytesMut};

/// Puts bytes behind the rest of those before; copies only what straddles. `room`: so many there will be at least.
pub fn append(rest: &mut Bytes, bytes: Bytes, room: usize) {
    if rest.is_empty() {
        *rest = bytes;
        return;
    }
    // A long command comes in many pieces: grow in place instead of copying it with each.
    let mut whole = std::mem::take(rest).try_into_mut().unwrap_or_else(|rest| {
        let mut whole = BytesMut::with_capacity(rest.len() + bytes.len().max(room));
        whole.extend_from_slice(&rest);
        whole
    });
    whole.extend_from_slice(&bytes);
    *rest = whole.freeze();
}

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
    /// The database that is selected behind this entry: what a decoder that goes on from here has to begin with, since
    /// a PSYNC that is continued does not say SELECT again.
    pub db: u32,
    /// It came as MULTI ... EXEC.
    pub transaction: bool,
}

impl Batch {
    /// The commands of an entry.
    pub fn commands(&self, entry: &Entry) -> &[Command] {
        &self.commands[entry.commands.0 as usize..entry.commands.1 as usize]
    }

    /// The arguments of a command, name first.
    pub fn argv<'a>(
        &'a self,
        command: &Command,
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone + use<'a> {
        self.args[command.args.0 as usize..command.args.1 as usize]
            .iter()
            .map(|&(s, e)| &self.buf[s as usize..e as usize])
    }

    /// The `n`-th argument of a command; 0 is its name.
    pub fn arg(&self, command: &Command, n: usize) -> Option<&[u8]> {
        let (s, e) = *self.args.get(command.args.0 as usize..command.args.1 as usize)?.get(n)?;
        self.buf.get(s as usize..e as usize)
    }

    /// The arguments of a command with random access, name first.
    pub fn args<'a>(&'a self, command: &Command) -> Args<'a> {
        Args { buf: &self.buf, ranges: &self.args[command.args.0 as usize..command.args.1 as usize] }
    }

    /// The bytes of a whole command, as they came.
    pub fn frame(&self, command: &Command) -> Bytes {
        self.buf.slice(command.frame.0 as usize..command.frame.1 as usize)
    }

    /// The same, borrowed.
    pub fn frame_bytes(&self, command: &Command) -> &[u8] {
        &self.buf[command.frame.0 as usize..command.frame.1 as usize]
    }

    /// Stream bytes that the batch's entries take.
    pub fn len(&self) -> u64 {
        self.entries.last().map_or(0, |e| e.end)
    }

    /// No entry at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Lets go of the bytes, which may be many: the entries have been dealt with.
    pub fn release(&mut self) {
        self.clear();
        self.buf = Bytes::new();
    }

    fn clear(&mut self) {
        // One giant transaction must not pin its memory for ever.
        const KEEP: usize = 1 << 16;
        self.commands.clear();
        self.commands.shrink_to(KEEP);
        self.args.clear();
        self.args.shrink_to(KEEP);
        self.entries.clear();
    }
}

/// A command's arguments where they stand.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    buf: &'a [u8],
    ranges: &'a [(u32, u32)],
}

impl crate::wire::command::Argv for Args<'_> {
    fn argc(&self) -> usize {
        self.ranges.len()
    }

    fn arg(&self, n: usize) -> &[u8] {
        self.get(n).unwrap_or_default()
    }
}

impl<'a> Args<'a> {
    /// The `n`-th argument; 0 is the name.
    pub fn get(&self, n: usize) -> Option<&'a [u8]> {
        let &(s, e) = self.ranges.get(n)?;
        self.buf.get(s as usize..e as usize)
    }
}
