//! Stream bytes to batches.

use super::{Batch, Command, Entry};
use crate::wire::resp::{CommandScan, Limits, RespError, Step};
use bytes::Bytes;

/// Where a batch ends, so that it stays small. One entry is always taken, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    pub bytes: usize,
    pub commands: usize,
}

impl Default for BatchLimits {
    /// 256 KiB and 1024 commands: some milliseconds of work for a target, and one round trip's worth on a fast link.
    fn default() -> Self {
        BatchLimits { bytes: 256 << 10, commands: 1024 }
    }
}

/// A stream that can't be understood; the link has to fetch it again, or copy anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("decode the replication stream: {0}")]
    Resp(#[from] RespError),
    #[error(
        "decode the replication stream: SELECT {0:?} names no database; fetch the stream again from the last offset"
    )]
    Select(String),
}

/// Cuts a stream into entries. It is at an entry's boundary whenever [`Decoder::decode`] returns; what it has seen
/// beyond that is remembered, not delivered.
#[derive(Debug, Clone)]
pub struct Decoder {
    limits: Limits,
    batch: BatchLimits,
    /// The database at the boundary.
    db: u32,
    /// How long the rest of the buffer has to be before there can be another entry.
    needed: usize,
    /// The entry under way, from the boundary on.
    part: Part,
}

/// An entry that is not complete, with all ranges counted from its first byte.
#[derive(Debug, Clone, Default)]
struct Part {
    scan: CommandScan,
    args: Vec<(u32, u32)>,
    commands: Vec<Command>,
    walk: Walk,
}

/// The state inside an entry.
#[derive(Debug, Clone, Copy, Default)]
struct Walk {
    db: u32,
    multi: bool,
    /// Where the arguments of the command under way begin.
    first_arg: usize,
}

impl Decoder {
    /// Begins at an entry's boundary, with the database that is selected there: 0 behind a full sync.
    pub fn new(db: u32) -> Self {
        Decoder::with_limits(db, Limits::default(), BatchLimits::default())
    }

    pub fn with_limits(db: u32, limits: Limits, batch: BatchLimits) -> Self {
        let mut decoder = Decoder { limits, batch, db, needed: 0, part: Part::default() };
        decoder.reset(db);
        decoder
    }

    /// Forgets the entry under way: the next buffer begins at another boundary, where this database is selected.
    pub fn reset(&mut self, db: u32) {
        self.db = db;
        self.needed = 0;
        self.part = Part { walk: Walk { db, ..Walk::default() }, ..Part::default() };
    }

    /// The database that is selected at the boundary.
    pub fn db(&self) -> u32 {
        self.db
    }

    /// How many bytes from the boundary on the next buffer has to hold at least before there can be another entry.
    /// 1 when nothing is known. Waiting for as many never hangs.
    pub fn needed(&self) -> usize {
        self.needed.max(1)
    }

    /// Fills `batch` with whole entries from the front of `buf` and says how many bytes they take; 0 when not even one
    /// is complete. The next buffer has to begin behind those bytes, with the ones that were left over and then more.
    ///
    /// # Errors
    /// [`StreamError`]: the bytes are no replication stream. The decoder is still at its last boundary, but only
    /// [`Decoder::reset`] makes it usable.
    pub fn decode(&mut self, buf: &Bytes, batch: &mut Batch) -> Result<usize, StreamError> {
        batch.clear();
        batch.buf = buf.clone();
        let mut consumed = 0;

        // The entry that was under way goes on in its own vectors: moving them each time would cost the square of a
        // long transaction.
        let part = &mut self.part;
        if part.scan.boundary() > 0 || !part.args.is_empty() || self.needed > 0 {
            if buf.len() < self.needed {
                return Ok(0);
            }
            let end = match part.walk.entry(&mut part.scan, buf, &self.limits, &mut part.args, &mut part.commands)? {
                Ok(end) => end,
                Err(needed) => {
                    self.needed = needed;
                    return Ok(0);
                }
            };
            batch.args.append(&mut part.args);
            batch.commands.append(&mut part.commands);
            let walk = part.walk;
            self.part = Part { walk: Walk { multi: false, first_arg: 0, ..walk }, ..Part::default() };
            self.deliver(batch, 0, end, walk);
            consumed = end;
        }

        let mut scan = CommandScan::at(consumed);
        loop {
            if consumed > 0 && (consumed >= self.batch.bytes || batch.commands.len() >= self.batch.commands) {
                self.needed = 0;
                break;
            }
            let (args, commands) = (batch.args.len(), batch.commands.len());
            let mut walk = Walk { db: self.db, multi: false, first_arg: args };
            match walk.entry(&mut scan, buf, &self.limits, &mut batch.args, &mut batch.commands) {
                Ok(Ok(end)) => {
                    self.deliver(batch, commands, end, walk);
                    consumed = end;
                }
                Ok(Err(needed)) => {
                    self.needed = needed - consumed;
                    self.set_aside(batch, args, commands, scan, walk, consumed);
                    break;
                }
                Err(error) if consumed == 0 => return Err(error),
                // What stands before the broken bytes is good: it is delivered, and the next call meets them first.
                Err(_) => {
                    batch.args.truncate(args);
                    batch.commands.truncate(commands);
                    self.reset(self.db);
                    break;
                }
            }
        }
        Ok(consumed)
    }

    fn deliver(&mut self, batch: &mut Batch, first: usize, end: usize, walk: Walk) {
        let entry = Entry {
            commands: (first as u32, batch.commands.len() as u32),
            end: end as u64,
            db: walk.db,
            transaction: walk.multi,
        };
        self.db = walk.db;
        let nothing = entry.commands.0 == entry.commands.1 && !walk.multi;
        match batch.entries.last_mut() {
            // A run of PINGs and SELECTs is one entry.
            Some(last) if nothing && last.commands.0 == last.commands.1 && !last.transaction => *last = entry,
            _ => batch.entries.push(entry),
        }
    }

    /// Moves what was found of an incomplete entry out of the batch, and counts its ranges from its own first byte.
    fn set_aside(
        &mut self,
        batch: &mut Batch,
        args: usize,
        commands: usize,
        mut scan: CommandScan,
        walk: Walk,
        consumed: usize,
    ) {
        let shift = consumed as u32;
        let part = &mut self.part;
        part.args.clear();
        part.args.extend(batch.args.drain(args..).map(|(s, e)| (s - shift, e - shift)));
        part.commands.clear();
        part.commands.extend(batch.commands.drain(commands..).map(|c| Command {
            frame: (c.frame.0 - shift, c.frame.1 - shift),
            args: (c.args.0 - args as u32, c.args.1 - args as u32),
            db: c.db,
        }));
        scan.rebase(consumed);
        part.scan = scan;
        part.walk = Walk { first_arg: walk.first_arg - args, ..walk };
    }
}

impl Walk {
    /// Walks to the end of one entry: `Ok(Ok(end))`, or `Ok(Err(needed))` when it is not all there.
    #[inline]
    fn entry(
        &mut self,
        scan: &mut CommandScan,
        buf: &[u8],
        limits: &Limits,
        args: &mut Vec<(u32, u32)>,
        commands: &mut Vec<Command>,
    ) -> Result<Result<usize, usize>, StreamError> {
        loop {
            let (start, end) = match scan.step(buf, limits, args)? {
                Step::NeedMore(needed) => return Ok(Err(needed)),
                Step::Blank { end } => (end, end),
                Step::Command { start, end } => (start, end),
            };
            let first = self.first_arg;
            let word = |n: usize| args.get(first + n).map(|&(s, e)| &buf[s as usize..e as usize]);
            let closes = match classify(word(0)) {
                Word::Data => {
                    commands.push(Command {
                        frame: (start as u32, end as u32),
                        args: (first as u32, args.len() as u32),
                        db: self.db,
                    });
                    self.first_arg = args.len();
                    !self.multi
                }
                word_of_protocol => {
                    match word_of_protocol {
                        // A replica that is told MULTI twice, or EXEC without MULTI, answers an error and goes on;
                        // so do we.
                        Word::Multi => self.multi = true,
                        Word::Select => self.db = database(word(1))?,
                        _ => {}
                    }
                    args.truncate(first);
                    !self.multi || matches!(word_of_protocol, Word::Exec)
                }
            };
            if closes {
                return Ok(Ok(end));
            }
        }
    }
}

enum Word {
    Data,
    Multi,
    Exec,
    Select,
    /// PING, REPLCONF, a newline, an empty command.
    Nothing,
}

#[inline]
fn classify(name: Option<&[u8]>) -> Word {
    let Some(name) = name else { return Word::Nothing };
    match name.len() {
        4 if name.eq_ignore_ascii_case(b"PING") => Word::Nothing,
        4 if name.eq_ignore_ascii_case(b"EXEC") => Word::Exec,
        5 if name.eq_ignore_ascii_case(b"MULTI") => Word::Multi,
        6 if name.eq_ignore_ascii_case(b"SELECT") => Word::Select,
        8 if name.eq_ignore_ascii_case(b"REPLCONF") => Word::Nothing,
        _ => Word::Data,
    }
}

fn database(arg: Option<&[u8]>) -> Result<u32, StreamError> {
    let text = arg.unwrap_or_default();
    std::str::from_utf8(text)
        .ok()
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| StreamError::Select(String::from_utf8_lossy(&text[..text.len().min(32)]).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::resp::encode;
    use bytes::BytesMut;

    fn stream(commands: &[&str]) -> Bytes {
        let mut out = BytesMut::new();
        for command in commands {
            encode(&mut out, &command.split(' ').collect::<Vec<_>>());
        }
        out.freeze()
    }

    fn text(batch: &Batch) -> Vec<(bool, u32, Vec<String>)> {
        let command = |c: &Command| {
            let words: Vec<_> = batch.argv(c).map(String::from_utf8_lossy).collect();
            format!("{}:{}", c.db, words.join(" "))
        };
        batch.entries.iter().map(|e| (e.transaction, e.db, batch.commands(e).iter().map(command).collect())).collect()
    }

    #[test]
    fn a_select_inside_a_transaction_is_not_undone_by_its_end() {
        let bytes = stream(&["SELECT 2", "MULTI", "SET a 1", "select 5", "SET b 1", "EXEC", "SET c 1", "PING"]);
        let (mut decoder, mut batch) = (Decoder::new(0), Batch::default());
        assert_eq!(decoder.decode(&bytes, &mut batch), Ok(bytes.len()));
        assert_eq!(
            text(&batch),
            [
                (false, 2, vec![]),
                (true, 5, vec!["2:SET a 1".to_owned(), "5:SET b 1".to_owned()]),
                (false, 5, vec!["5:SET c 1".to_owned()]),
                (false, 5, vec![]),
            ]
        );
        assert_eq!(decoder.db(), 5);
        assert_eq!(batch.len(), bytes.len() as u64);
    }

    #[test]
    fn an_unfinished_transaction_leaves_no_trace_at_the_boundary() {
        let bytes = stream(&["SET a 1", "MULTI", "SELECT 7", "SET b 1"]);
        let (mut decoder, mut batch) = (Decoder::new(3), Batch::default());
        let consumed = decoder.decode(&bytes, &mut batch).expect("a stream");
        assert_eq!(consumed, stream(&["SET a 1"]).len());
        assert_eq!((batch.commands.len(), batch.entries.len(), decoder.db()), (1, 1, 3));
        assert!(decoder.needed() > bytes.len() - consumed);
    }

    #[test]
    fn keepalives_newlines_and_empty_commands_are_one_entry_that_advances() {
        let mut bytes = BytesMut::from(&b"\n\n*0\r\nPING\r\n"[..]);
        bytes.extend_from_slice(&stream(&["REPLCONF GETACK *", "PING", "SELECT 1", "INCR k"]));
        let bytes = bytes.freeze();
        let (mut decoder, mut batch) = (Decoder::new(0), Batch::default());
        assert_eq!(decoder.decode(&bytes, &mut batch), Ok(bytes.len()));
        assert_eq!(text(&batch), [(false, 1, vec![]), (false, 1, vec!["1:INCR k".to_owned()])]);
    }

    #[test]
    fn a_second_multi_and_a_lone_exec_are_taken_as_a_replica_takes_them() {
        let bytes = stream(&["MULTI", "SET a 1", "MULTI", "SET b 1", "EXEC", "SET c 1", "EXEC", "SET d 1"]);
        let (mut decoder, mut batch) = (Decoder::new(0), Batch::default());
        assert_eq!(decoder.decode(&bytes, &mut batch), Ok(bytes.len()));
        let sizes: Vec<_> = batch.entries.iter().map(|e| (e.transaction, e.commands.1 - e.commands.0)).collect();
        assert_eq!(sizes, [(true, 2), (false, 1), (false, 0), (false, 1)]);
    }

    #[test]
    fn a_batch_ends_at_its_limit_but_never_inside_an_entry() {
        let limits = BatchLimits { bytes: usize::MAX, commands: 2 };
        let bytes = stream(&["MULTI", "SET a 1", "SET b 1", "SET c 1", "EXEC", "SET d 1", "SET e 1", "SET f 1"]);
        let (mut decoder, mut batch) = (Decoder::with_limits(0, Limits::default(), limits), Batch::default());
        let (mut at, mut sizes) = (0, Vec::new());
        while at < bytes.len() {
            at += decoder.decode(&bytes.slice(at..), &mut batch).expect("a stream");
            sizes.push(batch.commands.len());
        }
        assert_eq!(sizes, [3, 2, 1]);
    }

    #[test]
    fn what_stands_before_broken_bytes_is_delivered_first() {
        let mut bytes = BytesMut::from(&stream(&["SET a 1"])[..]);
        let good = bytes.len();
        bytes.extend_from_slice(b"*1\r\n:1\r\n");
        let bytes = bytes.freeze();
        let (mut decoder, mut batch) = (Decoder::new(0), Batch::default());
        assert_eq!(decoder.decode(&bytes, &mut batch), Ok(good));
        assert_eq!(batch.commands.len(), 1);
        assert!(matches!(decoder.decode(&bytes.slice(good..), &mut batch), Err(StreamError::Resp(_))));
        let wrong = stream(&["SELECT x"]);
        assert!(matches!(Decoder::new(0).decode(&wrong, &mut batch), Err(StreamError::Select(_))));
    }
}
