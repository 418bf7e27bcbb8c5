//! When a change was made.
//!
//! A change is read some time after it was made: later by what a byte takes from its server, and by much more where the
//! stream waits on a slow line. So a server is looked at now and then: what its clock says, beside where its stream ends.
//! The looks tell three things, all in the job's clock (a server's own may be wrong by hours):
//!
//! - how far the server's clock is from ours: between the moment a look was asked for and the one its answer came. The
//!   look that took least time says it best; one that contradicts it says that the clock has been set.
//! - how long a byte takes from there: from the server's time in an answer until the answer came, the least of the last few.
//! - **marks**: the stream ended at this offset at this moment. What stands before a mark was made before it, and what
//!   stands behind it after it, however late it is read.

use crate::model::Offset;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

/// Looks by which a server's clock is known: half a minute of them, in which clocks drift by less than a millisecond.
const LOOKS: usize = 64;
/// Looks by which the way is known: a line that has become slower is known to be so this many looks later.
const WAYS: usize = 8;
/// Marks that are kept: a stream that is farther behind than these, two minutes, is known as of the oldest.
const MARKS: usize = 256;

/// One site's, shared by the task that looks and the link that reads.
#[derive(Debug)]
pub struct StreamClock(Mutex<Clock>);

impl StreamClock {
    /// With the way as it was measured where the site was attached.
    pub fn new(way_ms: u64) -> StreamClock {
        StreamClock(Mutex::new(Clock { way: way_ms * 1_000, ..Clock::default() }))
    }

    pub fn lock(&self) -> MutexGuard<'_, Clock> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What a server said: microseconds of the job's clock, but for its own.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub asked: u64,
    pub came: u64,
    /// The server's TIME, microseconds since 1970.
    pub server: u64,
    /// Where its stream ended.
    pub end: Offset,
}

#[derive(Debug, Default)]
pub struct Clock {
    /// Microseconds that a byte takes from the server.
    way: u64,
    ways: VecDeque<u64>,
    /// What is to be added to the server's clock to have the job's: at least, at most.
    ahead: VecDeque<(i64, i64)>,
    /// In order of both: where the stream ended, and when.
    marks: VecDeque<(u64, u64)>,
}

impl Clock {
    pub fn looked(&mut self, look: Look) {
        let (asked, came, server) = (look.asked as i64, look.came.max(look.asked) as i64, look.server as i64);
        let now = (asked - server, came - server);
        if self.ahead.iter().any(|(low, high)| now.0 > *high || now.1 < *low) {
            self.ahead.clear();
            self.ways.clear();
        }
        push(&mut self.ahead, now, LOOKS);
        let best = self.ahead.iter().min_by_key(|(low, high)| high - low).unwrap_or(&now);
        let made = (server + best.0.midpoint(best.1)).clamp(asked, came) as u64;
        push(&mut self.ways, look.came.saturating_sub(made), WAYS);
        self.way = self.ways.iter().copied().min().unwrap_or(self.way);
        self.mark(look.end.0, made);
    }

    fn mark(&mut self, end: u64, at: u64) {
        // Another history, or a server that has been restarted.
        if self.marks.back().is_some_and(|last| end < last.0 || at < last.1) {
            self.marks.clear();
        }
        // While a stream rests its first mark and its last say all.
        if let [.., (before, _), (last, last_at)] = self.marks.make_contiguous()
            && *before == end
            && *last == end
        {
            *last_at = at;
            return;
        }
        push(&mut self.marks, (end, at), MARKS);
    }

    /// What stands behind this offset was not made before this, in microseconds of the job's clock; `None` where no look tells.
    pub fn not_before(&self, start: Offset) -> Option<u64> {
        let behind = self.marks.partition_point(|(mark, _)| *mark <= start.0);
        behind.checked_sub(1).and_then(|last| self.marks.get(last)).map(|(_, at)| *at)
    }

    /// When the bytes from `start` to `end` were made, which were read at `read`: the parts of them, each up to where and
    /// when. All in microseconds of the job's clock.
    pub fn made(&self, start: Offset, end: Offset, read: u64) -> impl Iterator<Item = (Offset, u64)> {
        let behind = self.marks.partition_point(|(mark, _)| *mark <= start.0);
        let mut since = self.not_before(start).unwrap_or_default();
        let mut done = start >= end;
        let mut marks = self.marks.range(behind..);
        let latest = read.saturating_sub(self.way);
        std::iter::from_fn(move || {
            if done {
                return None;
            }
            let (upto, by) = marks.next().map_or((end.0, u64::MAX), |mark| *mark);
            let at = latest.min(by).max(since);
            since = by;
            done = upto >= end.0;
            Some((Offset(upto.min(end.0)), at))
        })
    }
}

fn push<T>(to: &mut VecDeque<T>, one: T, most: usize) {
    if to.len() == most {
        to.pop_front();
    }
    to.push_back(one);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000;
    /// A server's clock, far from ours.
    const SERVER: u64 = 1_700_000_000_000_000;

    /// Asked at `at`, with these ways there and back; its stream ends at `end`.
    fn look(c: &mut Clock, at: u64, there: u64, back: u64, end: u64) {
        let made = at + there;
        c.looked(Look { asked: at, came: made + back, server: SERVER + made, end: Offset(end) });
    }

    /// When one entry was made.
    fn when(c: &Clock, start: u64, end: u64, read: u64) -> u64 {
        let parts: Vec<_> = c.made(Offset(start), Offset(end), read).collect();
        assert_eq!(parts.last().map(|(upto, _)| *upto), Some(Offset(end)));
        parts[0].1
    }

    #[test]
    fn the_way_follows_the_line() {
        let mut c = Clock { way: 3 * MS, ..Clock::default() };
        let now = |c: &Clock, at| when(c, 900, 1_000, at);
        assert_eq!(now(&c, 50 * MS), 47 * MS, "as measured where it was attached");
        look(&mut c, 100 * MS, MS, MS, 0);
        assert_eq!(now(&c, 150 * MS), 149 * MS);
        for i in 0..WAYS as u64 {
            look(&mut c, (1_000 + 500 * i) * MS, 200 * MS, 200 * MS, 0);
        }
        assert_eq!(now(&c, 9_000 * MS), 8_800 * MS, "the line has become slower");
        // One way alone: the clock tells which.
        for i in 0..WAYS as u64 {
            look(&mut c, (10_000 + 500 * i) * MS, MS, 80 * MS, 0);
        }
        assert_eq!(now(&c, 20_000 * MS), 19_920 * MS);
        look(&mut c, 21_000 * MS, MS, MS, 0);
        assert_eq!(now(&c, 22_000 * MS), 21_999 * MS, "and a better one counts at once");
    }

    #[test]
    fn what_is_read_late_was_made_between_two_looks() {
        let mut c = Clock::default();
        look(&mut c, 1_000 * MS, MS, MS, 100);
        look(&mut c, 1_500 * MS, MS, MS, 200);
        look(&mut c, 2_000 * MS, MS, MS, 900);
        let late = 9_000 * MS;
        assert_eq!(when(&c, 100, 150, late), 1_501 * MS);
        assert_eq!(when(&c, 200, 900, late), 2_001 * MS);
        assert_eq!(when(&c, 900, 950, late), 8_999 * MS, "no look has seen it");
        assert_eq!(when(&c, 900, 950, 1_900 * MS), 2_001 * MS, "it was not there yet");
        let earliest = |at: u64| c.not_before(Offset(at)).map(|at| at / MS);
        let [first, second, third] = [1_001, 1_501, 2_001].map(Some);
        assert_eq!([50, 99, 100, 899, 900, 5_000].map(earliest), [None, None, first, second, third, third]);
        // One batch with all of it: each part for itself.
        let parts: Vec<_> = c.made(Offset(50), Offset(950), late).map(|(upto, at)| (upto.0, at / MS)).collect();
        assert_eq!(parts, [(100, 1_001), (200, 1_501), (900, 2_001), (950, 8_999)]);
    }

    #[test]
    fn a_stream_that_rests_needs_two_marks() {
        let mut c = Clock::default();
        for i in 0..10 * MARKS as u64 {
            look(&mut c, i * 500 * MS, MS, MS, 700);
        }
        assert_eq!(c.marks.len(), 2);
        let last = (10 * MARKS as u64 - 1) * 500 * MS;
        assert_eq!(when(&c, 600, 700, last), MS, "made before the first");
        assert_eq!(when(&c, 700, 800, last), last + MS, "and after the last");
    }

    #[test]
    fn a_clock_that_is_set_and_an_offset_that_goes_back() {
        let mut c = Clock::default();
        look(&mut c, 1_000 * MS, MS, MS, 100);
        c.looked(Look { asked: 1_500 * MS, came: 1_510 * MS, server: 77, end: Offset(200) });
        assert_eq!(when(&c, 100, 200, 5_000 * MS), 1_505 * MS, "an hour back or two: it is the middle");
        look(&mut c, 2_000 * MS, 0, 0, 10);
        assert_eq!(when(&c, 5, 10, 5_000 * MS), 2_000 * MS);
        assert_eq!(when(&c, 150, 160, 5_000 * MS), 5_000 * MS, "of another history nothing is known");
    }

    proptest! {
        /// However the line and the server's clock behave, what is said lies between the looks around the change, wrong by
        /// no more than half of the shortest round trip until then.
        #[test]
        fn a_change_lies_between_the_looks_around_it(
            looks in prop::collection::vec((1u64..2_000, 0u64..300, 0u64..300, 0u64..50), 1..80),
            (start, length, read) in (0u64..4_000, 1u64..50, 0u64..400_000),
        ) {
            let (mut c, mut now, mut end) = (Clock::default(), 0, 0);
            let mut seen = Vec::new();
            for (pause, there, back, grown) in looks {
                now += pause * MS;
                end += grown;
                look(&mut c, now, there * MS, back * MS, end);
                let shortest = c.ahead.iter().map(|(low, high)| (high - low) as u64).min().unwrap();
                seen.push((end, now + there * MS, shortest.div_ceil(2) + 1));
                now += (there + back) * MS;
            }
            let made = when(&c, start, start + length, read * MS);
            let since = seen.iter().rfind(|(mark, ..)| *mark <= start);
            // Marks stand between entries.
            prop_assume!(!seen.iter().any(|(mark, ..)| (start + 1..start + length).contains(mark)));
            if let Some((_, at, wrong)) = since {
                prop_assert!(made + wrong >= *at, "{made} {at} {wrong}");
            }
            if let Some((_, by, wrong)) = seen.iter().find(|(mark, ..)| *mark >= start + length) {
                let since = since.map_or(0, |(_, at, wrong)| at + wrong);
                prop_assert!(made <= (by + wrong).max(since), "{made} {by} {wrong}");
            }
        }
    }
}
