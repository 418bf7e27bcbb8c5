//! To which strands an entry goes.

use crate::engine::apply::control_key::ControlKey;
use crate::engine::strand::{Names, Strand};
use crate::wire::command::{self, Argv, Kind};
use crate::wire::slot::{SLOTS, slot};
use crate::wire::stream::{Batch, Command, Entry};
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

const NOBODY: u16 = u16::MAX;
/// Every key of this product.
const KEY_PREFIX: &[u8] = b"duplex:";

/// Strands, by their numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum To {
    Nobody,
    One(u16),
    Some(SmallVec<[u16; 4]>),
    /// It can't be told whose it is, or it is everybody's.
    All,
}

impl To {
    fn and(self, n: u16) -> To {
        match self {
            To::Nobody => To::One(n),
            To::One(m) if m == n => To::One(m),
            To::One(m) => To::Some(SmallVec::from_slice(&[m, n])),
            To::Some(mut list) => {
                if !list.contains(&n) {
                    list.push(n);
                }
                To::Some(list)
            }
            To::All => To::All,
        }
    }
}

/// Whose slot a slot is.
pub struct Routes {
    owner: Box<[u16]>,
    /// Of strands whose control keys are known by name and not by slot.
    named: HashMap<Bytes, u16>,
    /// How the job's control keys at this site begin.
    base: Bytes,
}

impl Routes {
    /// The strands that read the shard, and what their control keys there are called.
    pub fn new<'a>(strands: impl Iterator<Item = (&'a Arc<Strand>, &'a Names)>) -> Routes {
        let mut routes =
            Routes { owner: vec![NOBODY; SLOTS as usize].into(), named: HashMap::new(), base: Bytes::new() };
        for (n, (strand, names)) in (0..NOBODY).zip(strands) {
            strand.slots.iter().for_each(|slot| routes.owner[slot as usize] = n);
            routes.base = names.base().clone();
            if !names.is_cluster() {
                routes.named.insert(names.control(None), n);
            }
        }
        routes
    }

    pub(super) fn of_key(&self, key: &[u8]) -> To {
        match self.owner[slot(key) as usize] {
            NOBODY => To::Nobody,
            n => To::One(n),
        }
    }

    pub(super) fn of_entry(&self, batch: &Batch, entry: &Entry) -> To {
        let mut to = To::Nobody;
        for command in batch.commands(entry) {
            to = self.with(to, batch, command);
            if to == To::All {
                break;
            }
        }
        to
    }

    fn with(&self, mut to: To, batch: &Batch, command: &Command) -> To {
        let args = batch.args(command);
        // What is no change of keys is for the first of the strands, whichever that is.
        let keys = command::lookup(&args).filter(|spec| spec.kind == Kind::Keyed).and_then(|spec| spec.keys(&args));
        let Some(keys) = keys.filter(|keys| keys.complete && !keys.is_empty()) else { return To::All };
        for key in keys.iter() {
            let key = args.arg(key.arg as usize);
            if key.starts_with(KEY_PREFIX)
                && let Some(n) = self.named.get(key)
            {
                to = to.and(*n);
                continue;
            }
            let n = self.owner[slot(key) as usize];
            if n != NOBODY {
                to = to.and(n);
            }
        }
        to
    }

    /// A control key of the job is written in it.
    pub(super) fn has_marker(&self, batch: &Batch, entry: &Entry) -> bool {
        let is_marker = |c: &Command| {
            let args = batch.args(c);
            args.arg(1).starts_with(&self.base)
                && ControlKey::set_by(args.arg(0), args.get(2), self.named.is_empty()).is_some()
        };
        batch.commands(entry).iter().any(is_marker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::strand::SlotSet;
    use crate::wire::resp::encode;
    use crate::wire::stream::Decoder;
    use bytes::BytesMut;

    fn routed(routes: &Routes, commands: &[&[&str]]) -> To {
        let mut out = BytesMut::new();
        for words in commands {
            encode(&mut out, words);
        }
        let mut batch = Batch::default();
        Decoder::new(0).decode(&out.freeze(), &mut batch).unwrap();
        assert_eq!(batch.entries.len(), 1);
        routes.of_entry(&batch, &batch.entries[0])
    }

    #[test]
    fn entries_go_to_those_whose_keys_they_name() {
        // foo is in slot 12182, bar in 5061.
        let strands = [(0, 5460), (5461, 10_922), (12_000, 16_383)].map(|r| Arc::new(Strand::new(SlotSet::of(&[r]))));
        let names: Vec<Names> =
            strands.iter().map(|s| Names::of("duplex:j:reverse".into(), s.clone(), false)).collect();
        let routes = Routes::new(strands.iter().zip(&names));
        assert_eq!(routed(&routes, &[&["SET", "foo", "1"]]), To::One(2));
        assert_eq!(routed(&routes, &[&["set", "x{bar}", "1"]]), To::One(0));
        assert_eq!(routed(&routes, &[&["RENAME", "foo", "bar"]]), To::Some(SmallVec::from_slice(&[2, 0])));
        assert_eq!(routed(&routes, &[&["PUBLISH", "foo", "1"]]), To::All);
        assert_eq!(routed(&routes, &[&["SPUBLISH", "foo", "1"]]), To::All);
        assert_eq!(routed(&routes, &[&["FLUSHALL"]]), To::All);
        assert_eq!(routed(&routes, &[&["NO.SUCH", "foo"]]), To::All);
        let ours = String::from_utf8(names[1].control(None).to_vec()).unwrap();
        let echo: [&[&str]; 4] = [&["MULTI"], &["SET", &ours, "1 2"], &["SET", "abc", "1"], &["EXEC"]];
        // abc is in slot 7638.
        assert_eq!(routed(&routes, &echo), To::One(1));
        // Slot 11,000 is nobody's here.
        let lost = format!("{{{}}}", crate::wire::slot::tag_for_slot(11_000));
        assert_eq!(routed(&routes, &[&["SET", &lost, "1"]]), To::Nobody);
    }
}
