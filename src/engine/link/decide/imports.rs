//! Slots that come to the shard that is read, with all of their keys, in one step.
//!
//! ```text
//!   Valkey  CLUSTER SYNCSLOTS ESTABLISH … NAME n SLOTSRANGE 5 7   the keys, as commands   … FINISH STATE … NAME n …
//!   Redis   CLUSTER SYNCSLOTS CONF ASM-TASK n:…:import:…:5-7      the keys, as commands   … ASM-TASK n:…:import:completed:5-7
//! ```
//!
//! Between the two, whatever is written to these slots was done at the shard that gives them away, and is told here once more:
//! first each key as it is, in any client's words, then what clients do to it until the slots change hands. To take that for
//! changes would do it twice. What clients of this shard do stands between, and is of other slots.

use crate::engine::strand::SlotSet;
use crate::wire::command::Argv;
use crate::wire::slot::slot;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default, Clone)]
pub struct Imports {
    coming: Vec<(Box<[u8]>, SlotSet)>,
    heard: Heard,
}

/// Of each import that has begun which slots it brings: of its end Valkey tells its name alone, and a run may begin between the
/// two. What an engine has heard in one run it knows in the next.
#[derive(Debug, Default, Clone)]
pub struct Heard(Arc<Mutex<HashMap<Box<[u8]>, SlotSet>>>);

/// So many are remembered.
const HEARD: usize = 4_096;

impl Heard {
    fn note(&self, name: &[u8], slots: &SlotSet) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= HEARD {
            known.clear();
        }
        known.insert(name.into(), slots.clone());
    }

    fn of(&self, name: &[u8]) -> Option<SlotSet> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// What came before a run: no server's name for it.
const BEFORE: &[u8] = b"";

impl Imports {
    /// These slots have come already; where in the stream that was is not known any more.
    pub fn before(slots: &SlotSet, heard: Heard) -> Imports {
        let mut imports = Imports { coming: Vec::new(), heard };
        if !slots.is_empty() {
            imports.begin(BEFORE, slots.clone());
        }
        imports
    }

    /// These as well.
    pub fn came_before(&mut self, slots: &SlotSet) {
        let mut all = slots.clone();
        self.coming.iter().filter(|(name, _)| **name == *BEFORE).for_each(|(_, known)| all.add(known));
        self.begin(BEFORE, all);
    }

    /// Those of which a server has said that they are coming.
    pub fn named(&self) -> SlotSet {
        let mut slots = SlotSet::none();
        self.coming.iter().filter(|(name, _)| **name != *BEFORE).for_each(|(_, coming)| slots.add(coming));
        slots
    }

    /// The stream has been read beyond all of that.
    pub fn before_is_over(&mut self) {
        self.end(BEFORE);
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.coming.is_empty()
    }

    /// The key is in a slot that is coming.
    pub fn hold(&self, key: &[u8]) -> bool {
        self.hold_slot(slot(key))
    }

    pub fn hold_slot(&self, slot: u16) -> bool {
        self.coming.iter().any(|(_, slots)| slots.contains(slot))
    }

    /// A CLUSTER command stands in the stream. Gives the slots that it says are coming or have come, as far as that is known.
    #[cold]
    pub fn hear(&mut self, argv: &(impl Argv + ?Sized)) -> Option<SlotSet> {
        let is = |n: usize, word: &str| argv.argc() > n && argv.arg(n).eq_ignore_ascii_case(word.as_bytes());
        if !is(1, "syncslots") {
            return None;
        }
        if is(2, "establish") {
            let (Some(name), Some(first)) = (behind(argv, "name"), place(argv, "slotsrange")) else { return None };
            let number = |n: usize| atoi::atoi::<u16>(argv.arg(n));
            let ranges = (first..argv.argc().saturating_sub(1)).step_by(2);
            let ranges: Vec<_> = ranges.map_while(|n| Some((number(n)?, number(n + 1)?))).collect();
            let slots = SlotSet::of(&ranges);
            self.heard.note(name, &slots);
            self.begin(name, slots.clone());
            return Some(slots);
        } else if is(2, "finish") {
            let name = behind(argv, "name")?;
            self.end(name);
            return self.heard.of(name);
        } else if is(2, "conf") && is(3, "asm-task") && argv.argc() > 4 {
            let words: Vec<&[u8]> = argv.arg(4).split(|b| *b == b':').collect();
            let [name, _, _, operation, state, slots] = words[..] else { return None };
            if operation != b"import" {
                return None;
            }
            let slots: SlotSet = String::from_utf8_lossy(slots).replace(' ', ",").parse().ok()?;
            match state {
                b"completed" | b"failed" | b"canceled" => self.end(name),
                _ => self.begin(name, slots.clone()),
            }
            return Some(slots);
        }
        None
    }

    fn begin(&mut self, name: &[u8], slots: SlotSet) {
        self.end(name);
        self.coming.push((name.into(), slots));
    }

    fn end(&mut self, name: &[u8]) {
        self.coming.retain(|(known, _)| **known != *name);
    }
}

/// The place behind this word.
fn place(argv: &(impl Argv + ?Sized), word: &str) -> Option<usize> {
    (3..argv.argc()).find(|n| argv.arg(*n).eq_ignore_ascii_case(word.as_bytes())).map(|n| n + 1)
}

fn behind<'a>(argv: &'a (impl Argv + ?Sized), word: &str) -> Option<&'a [u8]> {
    place(argv, word).filter(|n| *n < argv.argc()).map(|n| argv.arg(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(imports: &mut Imports, line: &str) -> Option<SlotSet> {
        let words: Vec<&str> = line.split(' ').collect();
        imports.hear(&words[..])
    }

    fn held(imports: &Imports) -> Vec<u16> {
        (0..20).filter(|slot| imports.hold_slot(*slot)).collect()
    }

    #[test]
    fn slots_come_from_the_first_word_of_it_to_the_last() {
        let mut imports = Imports::default();
        hear(&mut imports, "CLUSTER SYNCSLOTS ESTABLISH SOURCE aa NAME n1 SLOTSRANGE 3 5 9 9");
        hear(&mut imports, "CLUSTER SYNCSLOTS ESTABLISH SOURCE aa NAME n2 SLOTSRANGE 7 7");
        for other in ["ACK", "SNAPSHOT-EOF", "PAUSED", "FAILOVER-GRANTED"] {
            hear(&mut imports, &format!("CLUSTER SYNCSLOTS {other}"));
        }
        assert_eq!(held(&imports), [3, 4, 5, 7, 9]);
        hear(&mut imports, "CLUSTER SYNCSLOTS FINISH STATE SUCCESS NAME n1 MESSAGE ");
        assert_eq!(held(&imports), [7]);
        hear(&mut imports, "CLUSTER SYNCSLOTS FINISH STATE FAILED NAME n2 MESSAGE x");
        assert!(imports.is_empty());
    }

    #[test]
    fn what_is_given_away_does_not_come() {
        let mut imports = Imports::default();
        hear(&mut imports, "CLUSTER SYNCSLOTS CONF ASM-TASK t1:aa:bb:migrate:wait-rdbchannel:3-5");
        assert!(imports.is_empty());
        hear(&mut imports, "CLUSTER SYNCSLOTS CONF ASM-TASK t2:aa:bb:import:connecting:3-5");
        hear(&mut imports, "CLUSTER SYNCSLOTS CONF SLOT-INFO 4:8:1");
        assert_eq!(held(&imports), [3, 4, 5]);
        hear(&mut imports, "CLUSTER SYNCSLOTS CONF ASM-TASK t2:aa:bb:import:completed:3-5");
        assert!(imports.is_empty());
        let mut two = ["CLUSTER", "SYNCSLOTS", "CONF", "ASM-TASK", "t3:aa:bb:import:connecting:3-4 8-8"];
        imports.hear(&two[..]);
        assert_eq!(held(&imports), [3, 4, 8]);
        two[4] = "t3:aa:bb:import:failed:3-4 8-8";
        imports.hear(&two[..]);
        assert!(imports.is_empty());
    }

    #[test]
    fn what_came_before_is_over_when_it_is_said_to_be() {
        let mut imports = Imports::before(&SlotSet::of(&[(3, 4)]), Heard::default());
        hear(&mut imports, "CLUSTER SYNCSLOTS ESTABLISH SOURCE aa NAME n1 SLOTSRANGE 7 7");
        assert_eq!(held(&imports), [3, 4, 7]);
        imports.before_is_over();
        assert_eq!(held(&imports), [7]);
        assert!(Imports::before(&SlotSet::none(), Heard::default()).is_empty());
    }

    #[test]
    fn what_has_come_is_told_as_far_as_it_is_said() {
        let mut imports = Imports::default();
        let these = |first, last| Some(SlotSet::of(&[(first, last)]));
        assert_eq!(hear(&mut imports, "CLUSTER SYNCSLOTS ESTABLISH SOURCE aa NAME n1 SLOTSRANGE 3 5"), these(3, 5));
        assert_eq!(imports.named(), SlotSet::of(&[(3, 5)]));
        assert_eq!(hear(&mut imports, "CLUSTER SYNCSLOTS FINISH STATE SUCCESS NAME n1 MESSAGE "), these(3, 5));
        // It began in a run before.
        let mut next = Imports::before(&SlotSet::none(), imports.heard.clone());
        assert_eq!(hear(&mut next, "CLUSTER SYNCSLOTS FINISH STATE SUCCESS NAME n1 MESSAGE "), these(3, 5));
        assert_eq!(hear(&mut next, "CLUSTER SYNCSLOTS FINISH STATE SUCCESS NAME n0 MESSAGE "), None);
        assert_eq!(hear(&mut imports, "CLUSTER SYNCSLOTS CONF ASM-TASK t:aa:bb:import:completed:7-8"), these(7, 8));
        assert_eq!(hear(&mut imports, "CLUSTER SYNCSLOTS CONF ASM-TASK t:aa:bb:migrate:completed:7-8"), None);
        imports.came_before(&SlotSet::of(&[(1, 1)]));
        imports.came_before(&SlotSet::of(&[(2, 2)]));
        assert_eq!((held(&imports), imports.named()), (vec![1, 2], SlotSet::none()));
    }

    #[test]
    fn what_is_cut_short_or_strange_is_passed_over() {
        let mut imports = Imports::default();
        for line in [
            "CLUSTER",
            "CLUSTER SYNCSLOTS",
            "CLUSTER SYNCSLOTS ESTABLISH",
            "CLUSTER SYNCSLOTS ESTABLISH NAME",
            "CLUSTER SYNCSLOTS ESTABLISH NAME n SLOTSRANGE",
            "CLUSTER SYNCSLOTS CONF ASM-TASK",
            "CLUSTER SYNCSLOTS CONF ASM-TASK a:b:import:c",
            "CLUSTER SYNCSLOTS CONF ASM-TASK t:a:b:import:connecting:x-y",
        ] {
            hear(&mut imports, line);
        }
        assert_eq!(held(&imports), [0u16; 0]);
    }
}
