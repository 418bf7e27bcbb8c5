//! What is to be written to a site, in the order in which it was decided.
//!
//! The two links push under the job's one lock; the site's writer takes. Items are runs of changes rather than single
//! ones, so that the common case (a stream of small changes) costs one item for some hundred of them.

use super::control_key::{LoadPhase, Position};
use crate::engine::arbiter::Token;
use crate::engine::arbiter::classify::Reveals;
use crate::model::Offset;
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// What the replies to an item mean.
#[derive(Debug, Clone, PartialEq)]
pub enum ItemKind {
    /// Changes: an error means that the sites differ in its keys.
    Changes,
    /// Keys of the snapshot, to be written only where the site has none: BUSYKEY is no error.
    Merge,
    /// DUMP and the expiry of a key, for the state that a token asks for.
    Ask(Token),
    /// The state that settles a key.
    Restore(Token),
    /// A command that takes the control key away (FLUSHALL, SWAPDB): it is written once more behind it.
    Sweeping,
    /// When keys expire is asked: one question a key, and the time behind them where the answers are relative to it.
    /// The number names the question.
    Expiries(u64),
    /// Our own notes; errors are only logged.
    Notes,
    /// The same where all of them are written again: this is the first, and the others stand with it in one transaction.
    AllNotes,
}

impl ItemKind {
    pub fn is_notes(&self) -> bool {
        matches!(self, ItemKind::Notes | ItemKind::AllNotes)
    }
}

/// A reply that is no error and yet tells that the site held something else than the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telltale {
    /// The command's place in the item.
    pub index: u32,
    /// What reply it must not have.
    pub reveals: Reveals,
}

/// A run of commands for one database.
#[derive(Debug, Clone)]
pub struct Item {
    /// The commands as RESP.
    pub data: Bytes,
    pub commands: u32,
    /// `None`: they are about no database.
    pub db: Option<u32>,
    /// The cluster slot of all of its keys, where the site is a cluster. `None`: any.
    pub slot: Option<u16>,
    pub kind: ItemKind,
    /// The arbiter's serial of the last change in it.
    pub serial: u64,
    pub phase: LoadPhase,
    /// Where the first change in it begins in the source's stream.
    pub begin: Offset,
    /// How far the source's stream has come when this item has been applied.
    pub position: Position,
    /// How far this site's own stream had come back as echoes when this item was decided.
    pub echoed: Position,
    /// Up to where replies had been seen when it was decided: what they led to stands before it.
    pub replied: Position,
    /// Milliseconds of the job's clock at which it was decided.
    pub decided_ms: u64,
    /// Changes of the source in it (commands may be more or fewer).
    pub changes: u32,
    pub telltales: SmallVec<[Telltale; 2]>,
    /// The next item belongs to the same transaction of the source.
    pub glued: bool,
}

impl Item {
    /// Of the replies to its commands only errors tell anything.
    pub fn is_plain(&self) -> bool {
        self.telltales.is_empty() && !self.is_token() && !matches!(self.kind, ItemKind::Expiries(_))
    }

    /// A transaction ends behind a token: its state has to be the last thing in it.
    pub fn is_token(&self) -> bool {
        matches!(self.kind, ItemKind::Ask(_))
    }
}

/// The queue of one site.
#[derive(Debug, Default)]
pub struct Outbox {
    items: VecDeque<Item>,
    bytes: usize,
}

impl Outbox {
    pub fn push(&mut self, item: Item) {
        self.bytes += item.data.len();
        self.items.push_back(item);
    }

    /// A source's transaction ends with the newest item, at this position of its stream.
    pub fn seal(&mut self, position: Position) {
        if let Some(last) = self.items.back_mut().filter(|i| i.glued) {
            last.glued = false;
            last.position = position;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes of commands that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest item was decided.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.items.front().map(|i| i.decided_ms)
    }

    /// A source's transaction that spans slots has to be cut. What is cut off says that all of it is applied, so that a
    /// crash between its parts applies none of them twice; `replied` stays before it, so recovery looks at its keys.
    fn cut(&self, taken: &mut [Item]) {
        if let Some(last) = taken.last_mut().filter(|i| i.glued)
            && let Some(end) = self.items.iter().find(|i| !i.glued)
        {
            last.position = end.position;
        }
    }

    /// Takes what makes one transaction: at least one item, of one slot, at most about so many commands and bytes; tokens
    /// last.
    pub fn take(&mut self, commands: usize, bytes: usize) -> Vec<Item> {
        let (mut n, mut size, mut taken) = (0usize, 0usize, Vec::new());
        let mut slot = None;
        while let Some(item) = self.items.front() {
            let last: Option<&Item> = taken.last();
            if last.is_some_and(Item::is_token) && !item.is_token() {
                break;
            }
            if item.slot.is_some() && slot.is_some() && item.slot != slot {
                break;
            }
            slot = slot.or(item.slot);
            let free = last.is_some_and(|l| !l.glued);
            // A MSET is many changes: a rate limit counts those.
            let work = item.commands.max(item.changes) as usize;
            if free && (n + work > commands || size + item.data.len() > bytes) {
                break;
            }
            n += work;
            size += item.data.len();
            if let Some(item) = self.items.pop_front() {
                taken.push(item);
            }
        }
        self.bytes -= size;
        self.cut(&mut taken);
        taken
    }
}
