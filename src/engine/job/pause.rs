//! How long is waited before a run is begun, after another or after a try that failed.
//!
//! Where a cluster is just moving its slots about, the next look finds it done: that is taken at once, and a little later each
//! time it does not. Everything else waits longer from one time to the next, until a run has lasted.

use super::JobError;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(10);
/// The longest where nobody has to do anything: a failover that is under way ends all at once.
const MOST_PASSING: Duration = Duration::from_secs(2);
const FIRST_OF_AN_ENGINE: Duration = Duration::from_secs(1);
const MOST_OF_AN_ENGINE: Duration = Duration::from_secs(60);
const FIRST_MOVING: Duration = Duration::from_millis(10);
const MOST_MOVING: Duration = Duration::from_millis(500);
/// A run that has lasted so long begins the count anew.
const LASTED: Duration = Duration::from_secs(30);
const LASTED_MOVING: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
pub struct Pause {
    wait: Duration,
    moving: Duration,
    /// The longest after a try.
    most: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Pause { wait: FIRST, moving: FIRST_MOVING, most: MOST_PASSING }
    }
}

impl Pause {
    /// Of an engine that has just begun and takes up a job: what can't be reached then may be away for long.
    pub fn of_an_engine() -> Self {
        Pause { wait: FIRST_OF_AN_ENGINE, moving: FIRST_MOVING, most: MOST_OF_AN_ENGINE }
    }

    /// A run has ended for this reason.
    pub fn after_run(&mut self, why: &JobError, lasted: Duration) -> Duration {
        if lasted > LASTED {
            self.wait = FIRST;
        }
        if lasted > LASTED_MOVING {
            self.moving = FIRST_MOVING;
        }
        self.next(why, MOST)
    }

    /// None could be begun.
    pub fn after_try(&mut self, why: &JobError) -> Duration {
        match why.passing {
            true => self.next(why, self.most),
            // What needs a person is looked at again now and then: the person may have been there.
            false => MOST,
        }
    }

    fn next(&mut self, why: &JobError, most: Duration) -> Duration {
        let (wait, most) = match why.moving {
            true => (&mut self.moving, MOST_MOVING),
            false => (&mut self.wait, most),
        };
        let now = (*wait).min(most);
        *wait = (now * 2).min(MOST.max(self.most));
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::net::{NetError, ServerError};

    fn refused(text: &str) -> JobError {
        let (address, doing) = ("10.0.0.1:6379".into(), "write the control keys".into());
        NetError::Server { address, doing, kind: ServerError::classify(text), seen: text.into() }.into()
    }

    #[test]
    fn a_slot_that_moves_is_looked_after_at_once() {
        for text in ["MOVED 866 10.0.0.2:6379", "ASK 866 10.0.0.2:6379", "TRYAGAIN Multiple keys"] {
            let (mut pause, error) = (Pause::default(), refused(text));
            assert!(error.moving && error.passing, "{error:?}");
            let waits: Vec<u128> = (0..9).map(|_| pause.after_try(&error).as_millis()).collect();
            assert_eq!(waits, [10, 20, 40, 80, 160, 320, 500, 500, 500], "{text}");
            assert_eq!(pause.after_run(&error, Duration::from_secs(3)), FIRST_MOVING);
        }
    }

    #[test]
    fn everything_else_waits_longer_each_time() {
        let (mut pause, error) = (Pause::default(), refused("LOADING it loads"));
        assert!(!error.moving && error.passing, "{error:?}");
        let waits: Vec<u128> = (0..6).map(|_| pause.after_try(&error).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1_600, 2_000, 2_000]);
        assert_eq!(pause.after_run(&error, Duration::from_secs(1)), Duration::from_secs(4));
        assert_eq!(pause.after_run(&error, Duration::from_secs(31)), FIRST);
        assert_eq!(pause.after_try(&JobError::lasting("x", "y")), MOST);
        // A cluster's slots are another matter.
        assert_eq!(pause.after_try(&refused("MOVED 1 10.0.0.2:1")), FIRST_MOVING);
    }

    #[test]
    fn an_engine_that_begins_has_patience_but_not_with_slots_that_move() {
        let (loading, moved) = (refused("LOADING it loads"), refused("MOVED 1 10.0.0.2:1"));
        let mut pause = Pause::of_an_engine();
        let waits: Vec<u64> = (0..8).map(|_| pause.after_try(&loading).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        let mut pause = Pause::of_an_engine();
        let waits: Vec<u128> = (0..4).map(|_| pause.after_try(&moved).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80]);
        assert_eq!(pause.after_try(&loading), FIRST_OF_AN_ENGINE);
    }
}
