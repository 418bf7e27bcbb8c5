//! Slots that had come further than their strand when it was put together anew: what they have had is not sent again.
//! Noted as text beside the open episodes, so that an engine's end does not lose it.

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
}
