//! Slots that had come further than their strand when it was put together anew: what they have had is not sent again.
//! Noted as text beside the open episodes, so that an engine's end does not lose it.

use crate::engine::net::Lineage;
use crate::engine::strand::SlotSet;
use crate::model::{Offset, ReplId};
use std::collections::{BTreeMap, HashMap};

/// Up to where of the stream the changes to some slots are at the other site already.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ahead {
    pub slots: HashMap<u16, Offset>,
    /// The furthest.
    pub until: Offset,
    /// Of these slots, up to where the replies had been seen; of others, nothing is known of them.
    pub replied: HashMap<u16, Offset>,
    /// The stream's history.
    pub stream: Option<ReplId>,
}

impl Ahead {
    pub fn new(slots: HashMap<u16, Offset>, stream: Option<ReplId>) -> Self {
        let until = slots.values().copied().max().unwrap_or_default();
        Ahead { slots, until, replied: HashMap::new(), stream }
    }

    /// The stream is taken up where this is its history: it is named by that from now on, as the control keys are, since the name of
    /// the one before is known for one failover alone. What a new master tells behind the end of what it shares with the old one
    /// is its own, and no slot has had any of it. Tells whether that is anything new.
    pub fn take_up(&mut self, lineage: Lineage) -> bool {
        let Some(upto) = self.stream.and_then(|stream| lineage.shares(stream)) else { return false };
        self.slots.values_mut().chain(self.replied.values_mut()).for_each(|offset| *offset = (*offset).min(upto));
        self.until = self.until.min(upto);
        self.stream.replace(lineage.replid) != Some(lineage.replid)
    }

    /// `REPLID 1234=0-5,7 1300=6 r1250=6`: behind an `r` up to where the replies had been seen. Nothing where no slot is
    /// ahead.
    pub fn to_text(&self) -> String {
        let Some(stream) = self.stream.filter(|_| !self.slots.is_empty()) else { return String::new() };
        let mut text = stream.to_string();
        for (letter, offsets) in [("", &self.slots), ("r", &self.replied)] {
            let mut by_offset: BTreeMap<Offset, SlotSet> = BTreeMap::new();
            for (slot, offset) in offsets {
                by_offset.entry(*offset).or_default().insert(*slot);
            }
            for (offset, slots) in by_offset {
                text += &format!(" {letter}{offset}={slots}");
            }
        }
        text
    }

    /// What can't be read is not there.
    pub fn from_text(text: &str) -> Self {
        let (mut slots, mut replied) = (HashMap::new(), HashMap::new());
        let mut words = text.split(' ');
        let stream = words.next().and_then(|word| word.parse().ok());
        for (offset, set) in words.filter_map(|part| part.split_once('=')) {
            let (to, offset) = match offset.strip_prefix('r') {
                Some(offset) => (&mut replied, offset),
                None => (&mut slots, offset),
            };
            if let (Ok(offset), Ok(set)) = (offset.parse::<u64>(), set.parse::<SlotSet>()) {
                to.extend(set.iter().map(|slot| (slot, Offset(offset))));
            }
        }
        Ahead { replied, ..Ahead::new(slots, stream) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_slots_have_had_is_written_and_read() {
        let stream: ReplId = "00000000000000000000000000000000000000bb".parse().unwrap();
        let ahead = Ahead::new([(3, Offset(70)), (4, Offset(70)), (9, Offset(80))].into(), Some(stream));
        assert_eq!(ahead.to_text(), format!("{stream} 70=3-4 80=9"));
        assert_eq!(Ahead::from_text(&ahead.to_text()), ahead);
        let ahead = Ahead { replied: [(3, Offset(60)), (9, Offset(80))].into(), ..ahead };
        assert_eq!(ahead.to_text(), format!("{stream} 70=3-4 80=9 r60=3 r80=9"));
        assert_eq!(Ahead::from_text(&ahead.to_text()), ahead);
        assert_eq!((ahead.until, Ahead::from_text("").until), (Offset(80), Offset(0)));
        assert!(Ahead::from_text("x=1 5=y").slots.is_empty());
    }

    #[test]
    fn it_is_known_after_two_failovers_and_holds_nothing_of_a_new_masters_own() {
        let history = |c: char| c.to_string().repeat(40).parse::<ReplId>().unwrap();
        let slots = HashMap::from([(3, Offset(70)), (4, Offset(50))]);
        let mut ahead = Ahead { replied: [(3, Offset(65))].into(), ..Ahead::new(slots, Some(history('a'))) };
        let first = ahead.clone();
        assert!(!ahead.take_up(Lineage { replid: history('a'), before: None }));
        assert_eq!(ahead, first);
        assert!(ahead.take_up(Lineage { replid: history('b'), before: Some((history('a'), Offset(60))) }));
        assert_eq!((ahead.slots[&3], ahead.slots[&4]), (Offset(60), Offset(50)));
        assert_eq!((ahead.until, ahead.replied[&3]), (Offset(60), Offset(60)));
        let noted = Ahead::from_text(&ahead.to_text());
        let now = Lineage { replid: history('c'), before: Some((history('b'), Offset(90))) };
        assert_eq!(noted.stream.and_then(|stream| now.shares(stream)), Some(Offset(90)));
        assert_eq!(noted.slots, ahead.slots);
        // Of another shard's stream it says nothing.
        assert!(!ahead.take_up(Lineage { replid: history('f'), before: None }));
        assert_eq!(ahead.stream, Some(history('b')));
    }
}
