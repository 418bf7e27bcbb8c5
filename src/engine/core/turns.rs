//! Which of a job's two links reads on where both are far behind.
//!
//! What a link has sent is in flight until the *other* link has read its echo, and that echo stands behind all that clients
//! wrote at the other site before it. With both sites written faster than they can be read, both tables of changes in
//! flight would grow with both backlogs. So where the two have much in flight together, a link lets the other one read
//! first: to the echoes.
//!
//! That has its price: of the two sites one works while the other has nothing to do, and a server works on one core. Up to
//! what the tables may take, both are written to at once.
//!
//! Invariants, so that nobody waits for ever: at most one link is held; the one that reads on waits for nothing that the
//! held one does (its writer and its replies are its own); and one is held only as long as the other decides something at
//! least every [`STALLED`] milliseconds, whatever the cause of a longer silence.

use crate::model::{Offset, Side};

/// Changes that both links have in flight, up to which neither is held: some 16 MiB of tables. Where one is held, it stays
/// so until it is a quarter less.
const TOGETHER: usize = 1_200 << 10;
/// What a link may have in flight however much the other one has, and down to half of which it is held.
const MANY: usize = 64 << 10;
/// Milliseconds without a decision of the other link that end a hold.
const STALLED: u64 = 100;

#[derive(Debug, Default)]
pub struct Turns {
    held: Option<Held>,
    /// Where the other link stood still, by the side whose link was held for it.
    stalled: [Option<Offset>; 2],
}

#[derive(Debug)]
struct Held {
    side: Side,
    /// How far the other link had come, and since when.
    other: Offset,
    since: u64,
}

/// Changes in flight: what one link has sent and is not read back, and the same of both.
#[derive(Debug, Clone, Copy)]
pub struct InFlight {
    pub own: usize,
    pub together: usize,
}

impl InFlight {
    fn is_much(self, held: bool) -> bool {
        let (own, together) = if held { (MANY / 2, TOGETHER / 4 * 3) } else { (MANY, TOGETHER) };
        self.own > own && self.together > together
    }
}

impl Turns {
    /// Whether the link that reads `here` may decide more. `other`: how far the other link has come.
    pub fn may_go_on(&mut self, here: Side, in_flight: InFlight, other: Offset, now_ms: u64) -> bool {
        let held = self.held.as_ref().is_some_and(|h| h.side == here);
        if !in_flight.is_much(held) {
            if held {
                self.held = None;
            }
            return true;
        }
        match &mut self.held {
            Some(h) if h.side != here => true,
            Some(h) if h.other != other => {
                (h.other, h.since) = (other, now_ms);
                false
            }
            Some(h) if now_ms.saturating_sub(h.since) < STALLED => false,
            Some(_) => {
                self.held = None;
                self.stalled[here.index()] = Some(other);
                true
            }
            None if self.stalled[here.index()] == Some(other) => true,
            None => {
                self.stalled[here.index()] = None;
                self.held = Some(Held { side: here, other, since: now_ms });
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Side = Side::Source;
    const B: Side = Side::Target;

    /// So many of its own, and as many of the other one's as make it much.
    fn of(own: usize) -> InFlight {
        InFlight { own, together: 2 * TOGETHER }
    }

    #[test]
    fn one_is_held_until_half_has_come_back() {
        let mut t = Turns::default();
        assert!(t.may_go_on(A, of(MANY), Offset(1), 1));
        assert!(!t.may_go_on(A, of(MANY + 1), Offset(1), 1));
        assert!(t.may_go_on(B, of(9 * MANY), Offset(7), 2), "the other one reads on, however much it has in flight");
        assert!(!t.may_go_on(A, of(MANY), Offset(2), 3));
        assert!(t.may_go_on(A, of(MANY / 2), Offset(3), 4));
        assert!(!t.may_go_on(B, of(9 * MANY), Offset(7), 5), "now it is the other one's turn to wait");
        assert!(t.may_go_on(A, of(2 * MANY), Offset(3), 6));
    }

    #[test]
    fn none_is_held_while_there_is_room_for_what_both_have() {
        let mut t = Turns::default();
        let own = 3 * MANY;
        let mut goes_on = |together, at| t.may_go_on(A, InFlight { own, together }, Offset(at), at);
        assert!(goes_on(TOGETHER, 1));
        assert!(!goes_on(TOGETHER + 1, 2));
        assert!(!goes_on(TOGETHER, 3), "not on and off with each change");
        assert!(goes_on(TOGETHER / 4 * 3, 4));
        assert!(goes_on(TOGETHER, 5));
    }

    #[test]
    fn nobody_waits_for_one_that_stands_still() {
        let mut t = Turns::default();
        let mut now = 1;
        // It decides something now and then: that may go on for long.
        for n in 0..100 {
            assert!(!t.may_go_on(A, of(2 * MANY), Offset(n), now));
            now += STALLED - 1;
        }
        now += 1;
        assert!(t.may_go_on(A, of(2 * MANY), Offset(99), now));
        assert!(t.may_go_on(A, of(3 * MANY), Offset(99), now + 1), "and it is not tried again before it moves");
        assert!(!t.may_go_on(A, of(3 * MANY), Offset(100), now + 2));
    }

    /// Two links that only ever wait for each other come to their ends, whatever the order in which they are asked, also
    /// where one of them may at any time be silent for long.
    #[test]
    fn both_come_to_an_end() {
        // Far more than may be in flight together.
        const EACH: usize = 1_000_000;
        for seed in 0..8 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut t = Turns::default();
            // A stream: clients' changes, and echoes of the other side's changes, each with its number there.
            let mut streams: [Vec<Option<u32>>; 2] = [vec![None; EACH], vec![None; EACH]];
            let (mut read, mut sent, mut echoed) = ([0usize; 2], [0usize; 2], [0usize; 2]);
            let (mut now, mut silent) = (1u64, [0u64; 2]);
            let mut steps = 0;
            let mut most = 0;
            while read.iter().zip(&streams).any(|(r, s)| *r < s.len()) {
                steps += 1;
                assert!(steps < 500_000, "seed {seed}: {read:?}");
                now += rng.u64(0..3);
                let side = *rng.choice(&Side::BOTH).unwrap_or(&A);
                let (i, peer) = (side.index(), side.other().index());
                if seed % 2 == 1 && rng.u32(..2_000) == 0 {
                    silent[i] = now + rng.u64(..1_000);
                }
                let own = sent[i] - echoed[i];
                let in_flight = InFlight { own, together: own + sent[peer] - echoed[peer] };
                let other = Offset(read[peer] as u64);
                if silent[i] > now {
                    continue;
                }
                let held = !t.may_go_on(side, in_flight, other, now);
                for _ in 0..rng.usize(..4_000) {
                    let Some(entry) = streams[i].get(read[i]).copied() else { break };
                    // One that is held still reads the echoes that are next.
                    if held && entry.is_none() {
                        break;
                    }
                    read[i] += 1;
                    match entry {
                        Some(number) => echoed[peer] = number as usize,
                        None => {
                            sent[i] += 1;
                            streams[peer].push(Some(sent[i] as u32));
                        }
                    }
                }
                most = most.max(sent[0] - echoed[0] + sent[1] - echoed[1]);
            }
            assert_eq!(sent, echoed);
            // When one begins to wait the other has read half as much as is in flight then; it reads the rest of what clients
            // wrote there, and little more.
            let bound = TOGETHER + EACH - TOGETHER / 2 + 3 * MANY;
            assert!(seed % 2 == 1 || most < bound, "seed {seed}: {most} in flight together");
        }
    }
}
