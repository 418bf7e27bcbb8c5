//! How much may be under way to a site: little at first, more while it answers easily, less when it is hard put to it.
//!
//! A site that is busy with its own clients is not met with a full window at once. Each answer that comes about as quickly
//! as the quickest of late allows one transaction more, so a window is full after some round trips; an answer that comes
//! far later halves what is allowed. The way there and back counts in neither: it is in the quickest. Of late, since a way
//! may become longer for good: what was quick some seconds ago would call every answer late from then on.

use std::time::{Duration, Instant};

/// Transactions that are always allowed.
const FIRST: usize = 4;
/// An answer that takes so much longer than the quickest, and a quarter of that, was still easy for the site.
const EASY: Duration = Duration::from_millis(50);
/// One that takes so much longer, and as long again, was not.
const HARD: Duration = Duration::from_millis(500);
/// The quickest counts for this long at least, and for twice as long at most.
const OF_LATE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Pace {
    allowed: usize,
    most: usize,
    /// The quickest answer since `since`, and of the time before.
    quickest: [Option<Duration>; 2],
    since: Option<Instant>,
    /// Answers to what was sent before this say nothing about what was changed since.
    halved: Option<Instant>,
}

impl Pace {
    pub fn new(most: usize) -> Self {
        Pace { allowed: FIRST.min(most), most, quickest: [None; 2], since: None, halved: None }
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
        if now.saturating_duration_since(*self.since.get_or_insert(now)) >= OF_LATE {
            self.quickest = [None, self.quickest[0]];
            self.since = Some(now);
        }
        self.quickest[0] = Some(self.quickest[0].map_or(took, |q| q.min(took)));
        let quickest = self.quickest.into_iter().flatten().min().unwrap_or(took);
        if took <= quickest + quickest / 4 + EASY {
            self.allowed = self.most.min(self.allowed + 1);
        } else if took > quickest * 2 + HARD && self.halved.is_none_or(|at| sent >= at) {
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
        // What is sent then is late as well, but for one now and then.
        for _ in 0..20 {
            answers(&mut pace, &mut now, 1, 900);
            answers(&mut pace, &mut now, 1, 300);
            assert!(pace.allowed() <= 64, "neither easy nor hard changes nothing");
            answers(&mut pace, &mut now, 1, 3);
        }
        assert_eq!(pace.allowed(), 5, "never less than four, and one that was easy");
        answers(&mut pace, &mut now, 1_500, 3);
        assert_eq!(pace.allowed(), 128);
    }

    #[test]
    fn a_way_that_has_become_longer_is_learnt_at_once() {
        let (mut pace, mut now) = (Pace::new(128), Instant::now());
        answers(&mut pace, &mut now, 10, 1);
        let longer = now;
        // Four at a time, as many as are allowed.
        while pace.allowed() < 128 {
            let sent = now;
            now += Duration::from_millis(400);
            for _ in 0..pace.allowed() {
                pace.answered(sent, now);
            }
        }
        assert!(now - longer < Duration::from_secs(6), "{:?}", now - longer);
    }
}
