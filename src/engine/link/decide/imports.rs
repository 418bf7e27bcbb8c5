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

#[derive(Debug, Default)]
pub struct Imports(Vec<(Box<[u8]>, SlotSet)>);

/// What came before a run: no server's name for it.
const BEFORE: &[u8] = b"";

impl Imports {
    /// These slots have come already; where in the stream that was is not known any more.
    pub fn before(slots: &SlotSet) -> Imports {
        let mut imports = Imports::default();
        if !slots.is_empty() {
            imports.begin(BEFORE, slots.clone());
        }
        imports
    }

    /// The stream has been read beyond all of that.
    pub fn before_is_over(&mut self) {
        self.end(BEFORE);
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key is in a slot that is coming.
    pub fn hold(&self, key: &[u8]) -> bool {
        self.hold_slot(slot(key))
    }

    pub fn hold_slot(&self, slot: u16) -> bool {
        self.0.iter().any(|(_, slots)| slots.contains(slot))
    }

    /// A CLUSTER command stands in the stream.
    #[cold]
    pub fn hear(&mut self, argv: &(impl Argv + ?Sized)) {
        let is = |n: usize, word: &str| argv.argc() > n && argv.arg(n).eq_ignore_ascii_case(word.as_bytes());
        if !is(1, "syncslots") {
            return;
        }
        if is(2, "establish") {
            let (Some(name), Some(first)) = (behind(argv, "name"), place(argv, "slotsrange")) else { return };
            let number = |n: usize| atoi::atoi::<u16>(argv.arg(n));
            let ranges = (first..argv.argc().saturating_sub(1)).step_by(2);
            let ranges: Vec<_> = ranges.map_while(|n| Some((number(n)?, number(n + 1)?))).collect();
            self.begin(name, SlotSet::of(&ranges));
        } else if is(2, "finish") {
            behind(argv, "name").into_iter().for_each(|name| self.end(name));
        } else if is(2, "conf") && is(3, "asm-task") && argv.argc() > 4 {
            let words: Vec<&[u8]> = argv.arg(4).split(|b| *b == b':').collect();
            let [name, _, _, operation, state, slots] = words[..] else { return };
            match state {
                _ if operation != b"import" => {}
                b"completed" | b"failed" | b"canceled" => self.end(name),
                _ => {
                    let ranges = String::from_utf8_lossy(slots).replace(' ', ",");
                    ranges.parse().into_iter().for_each(|slots| self.begin(name, slots));
                }
            }
        }
    }

    fn begin(&mut self, name: &[u8], slots: SlotSet) {
        self.end(name);
        self.0.push((name.into(), slots));
    }

    fn end(&mut self, name: &[u8]) {
        self.0.retain(|(known, _)| **known != *name);
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

    fn hear(imports: &mut Imports, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        imports.hear(&words[..]);
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
        let mut imports = Imports::before(&SlotSet::of(&[(3, 4)]));
        hear(&mut imports, "CLUSTER SYNCSLOTS ESTABLISH SOURCE aa NAME n1 SLOTSRANGE 7 7");
        assert_eq!(held(&imports), [3, 4, 7]);
        imports.before_is_over();
        assert_eq!(held(&imports), [7]);
        assert!(Imports::before(&SlotSet::none()).is_empty());
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
