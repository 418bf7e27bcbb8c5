//! How much may be under way to a site: little at first, more while it answers easily, less when it is hard put to it.
//!
//! A site that is busy with its own clients is not met with a full window at once. Each answer that comes about as quickly
//! as the quickest allows one transaction more, so a window is full after some round trips; an answer that comes far later
//! halves what is allowed. The way there and back counts in neither: it is in the quickest.

use std::time::{Duration, Instant};

/// Transactions that are always allowed.
const FIRST: usize = 4;
/// An answer that takes so much longer than the quickest was still easy for the site.
const EASY: Duration = Duration::from_millis(50);
/// One that takes so much longer was not.
const HARD: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct Pace {
    allowed: usize,
    most: usize,
    quickest: Option<Duration>,
    /// Answers to what was sent before this say nothing about what was changed since.
    halved: Option<Instant>,
}

impl Pace {
    pub fn new(most: usize) -> Self {
        Pace { allowed: FIRST.min(most), most, quickest: None, halved: None }
    }

    /// A connection begins.
    pub fn begin(&mut self) {
        *self = Pace::new(self.most);
    }

    /// Transactions that may be under way.
    pub fn allowed(&self) -> usize {
        self.allowed
    }

    /// What was sent at this time has been answered now.
    pub fn answered(&mut self, sent: Instant, now: Instant) {
        let took = now.saturating_duration_since(sent);
        // It creeps up, so that a way that has become longer is learnt.
        let quickest = self.quickest.map_or(took, |q| took.min(q + q / 256));
        self.quickest = Some(quickest);
        if took <= quickest + EASY {
            self.allowed = self.most.min(self.allowed + 1);
        } else if took > quickest + HARD && self.halved.is_none_or(|at| sent >= at) {
            self.allowed = (self.allowed / 2).max(FIRST);
            self.halved = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(pace: &mut Pace, now: &mut Instant, n: usize, ms: u64) {
        for _ in 0..n {
            let sent = *now;
            *now += Duration::from_millis(ms);
            pace.answered(sent, *now);
        }
    }

    #[test]
    fn it_begins_gently_and_is_at_its_most_after_some_answers_however_long_the_way() {
        for way in [0, 400] {
            let (mut pace, mut now) = (Pace::new(128), Instant::now());
            assert_eq!(pace.allowed(), 4);
            answers(&mut pace, &mut now, 20, way);
            assert_eq!(pace.allowed(), 24);
            answers(&mut pace, &mut now, 1_000, way + 20);
            assert_eq!(pace.allowed(), 128);
            pace.begin();
            assert_eq!(pace.allowed(), 4);
        }
    }

    #[test]
    fn a_site_that_is_hard_put_to_it_is_sent_less() {
        let (mut pace, mut now) = (Pace::new(128), Instant::now());
        answers(&mut pace, &mut now, 500, 2);
        // All that was under way answers late: that is one reason, not a hundred.
        let sent = now;
        now += Duration::from_millis(800);
        for _ in 0..100 {
            pace.answered(sent, now);
        }
        assert_eq!(pace.allowed(), 64);
        answers(&mut pace, &mut now, 20, 900);
        assert_eq!(pace.allowed(), 4, "never less than that");
        answers(&mut pace, &mut now, 20, 200);
        assert_eq!(pace.allowed(), 4, "neither easy nor hard");
        answers(&mut pace, &mut now, 500, 3);
        assert_eq!(pace.allowed(), 128);
    }

    #[test]
    fn a_way_that_has_become_longer_is_learnt() {
        let (mut pace, mut now) = (Pace::new(128), Instant::now());
        answers(&mut pace, &mut now, 10, 1);
        answers(&mut pace, &mut now, 4_000, 300);
        assert_eq!(pace.allowed(), 128);
    }
}
