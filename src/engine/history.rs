//! A link's recent past, for charts: one sample a second for 15 minutes, one each half minute for 6 hours.
//!
//! Pure: the supervisor brings the samples and stores the whole now and then, so that a console that attaches again
//! (and an engine that starts again) shows what was. A gap in time is a gap in the samples.

use crate::model::{LinkStatus, status::Sample};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// One a second, 15 minutes.
const SECONDS: usize = 15 * 60;
/// One each 30 s, 6 hours.
const HALF_MINUTES: usize = 6 * 60 * 2;
/// Seconds of the coarse samples.
const COARSE: u64 = 30;

/// The samples of one link.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkSamples {
    seconds: VecDeque<Sample>,
    half_minutes: VecDeque<Sample>,
    /// The half minute that is being gathered.
    #[serde(skip)]
    open: Option<Gathering>,
}

#[derive(Debug, Clone, PartialEq)]
struct Gathering {
    /// When it began, a multiple of 30.
    at: u64,
    count: u32,
    lag_ms: Option<u32>,
    changes: f64,
    bytes: f64,
}

impl LinkSamples {
    /// Oldest first.
    pub fn seconds(&self) -> impl Iterator<Item = &Sample> {
        self.seconds.iter()
    }

    /// Oldest first; the half minute that is under way is not among them.
    pub fn half_minutes(&self) -> impl Iterator<Item = &Sample> {
        self.half_minutes.iter()
    }

    /// Takes the sample of a second. One that is not newer than the last (the clock was set back) is left out.
    pub fn push(&mut self, sample: Sample) {
        if self.seconds.back().is_some_and(|last| sample.at <= last.at) {
            // A clock that was set far back would stop the chart for as long: begin anew.
            if self.seconds.back().is_some_and(|last| last.at - sample.at < 60) {
                return;
            }
            *self = LinkSamples::default();
        }
        keep(&mut self.seconds, sample, SECONDS);
        let at = sample.at - sample.at % COARSE;
        if let Some(open) = self.open.take_if(|open| open.at != at) {
            keep(&mut self.half_minutes, open.finish(), HALF_MINUTES);
        }
        let open = self.open.get_or_insert(Gathering { at, count: 0, lag_ms: None, changes: 0.0, bytes: 0.0 });
        open.count += 1;
        open.lag_ms = open.lag_ms.max(sample.lag_ms);
        open.changes += f64::from(sample.changes_per_second);
        open.bytes += f64::from(sample.bytes_per_second);
    }
}

impl Gathering {
    fn finish(self) -> Sample {
        let count = f64::from(self.count.max(1));
        Sample {
            at: self.at,
            lag_ms: self.lag_ms,
            changes_per_second: (self.changes / count) as f32,
            bytes_per_second: (self.bytes / count) as f32,
        }
    }
}

fn keep(samples: &mut VecDeque<Sample>, sample: Sample, most: usize) {
    if samples.len() >= most {
        samples.pop_front();
    }
    samples.push_back(sample);
}

/// The sample that a link's state makes at `at`, in seconds since the epoch.
pub fn sample(at: u64, link: &LinkStatus) -> Sample {
    Sample {
        at,
        lag_ms: link.lag_ms.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX)),
        changes_per_second: link.changes_per_second.unwrap_or(0.0) as f32,
        bytes_per_second: link.bytes_per_second.unwrap_or(0) as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at: u64, lag_ms: Option<u32>, changes: f32) -> Sample {
        Sample { at, lag_ms, changes_per_second: changes, bytes_per_second: 10.0 }
    }

    #[test]
    fn a_half_minute_has_the_highest_lag_and_the_mean_rate() {
        let mut samples = LinkSamples::default();
        samples.push(at(60, None, 10.0));
        samples.push(at(61, Some(7), 20.0));
        samples.push(at(89, Some(3), 30.0));
        assert_eq!(samples.half_minutes().count(), 0);
        samples.push(at(90, None, 0.0));
        assert_eq!(samples.half_minutes().collect::<Vec<_>>(), [&at(60, Some(7), 20.0)]);
        samples.push(at(121, None, 0.0));
        assert_eq!(samples.half_minutes().last().unwrap().lag_ms, None, "unknown stays unknown");
    }

    #[test]
    fn both_lists_are_bounded() {
        let mut samples = LinkSamples::default();
        for second in 0..(7 * 3600) {
            samples.push(at(1_000_000 + second, Some(1), 1.0));
        }
        assert_eq!((samples.seconds().count(), samples.half_minutes().count()), (900, 720));
        assert_eq!(samples.seconds().next().unwrap().at, 1_000_000 + 7 * 3600 - 900);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_stop_the_chart() {
        let mut samples = LinkSamples::default();
        samples.push(at(10_000, None, 1.0));
        samples.push(at(9_999, None, 2.0));
        assert_eq!(samples.seconds().count(), 1, "a second twice is left out");
        samples.push(at(5_000, None, 3.0));
        assert_eq!(samples.seconds().map(|s| s.at).collect::<Vec<_>>(), [5_000]);
    }

    #[test]
    fn what_was_stored_goes_on() {
        let mut samples = LinkSamples::default();
        samples.push(at(60, Some(1), 1.0));
        samples.push(at(95, Some(2), 2.0));
        let text = serde_json::to_string(&samples).unwrap();
        let mut again: LinkSamples = serde_json::from_str(&text).unwrap();
        again.push(at(96, Some(3), 3.0));
        assert_eq!(again.seconds().map(|s| s.at).collect::<Vec<_>>(), [60, 95, 96]);
        assert_eq!(again.half_minutes().count(), 1);
    }
}
