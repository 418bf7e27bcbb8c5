//! Charts of a link's history, drawn with eighths of a cell.
//!
//! Time is cut into buckets that are aligned to the clock, not to the present: a chart moves one column when a bucket
//! is full and in between only its last column changes. That keeps a frame small on a slow line.

use crate::model::status::Sample;

/// The span of time that a chart shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Range {
    Minute,
    #[default]
    Quarter,
    SixHours,
}

impl Range {
    pub fn seconds(self) -> u64 {
        match self {
            Range::Minute => 60,
            Range::Quarter => 15 * 60,
            Range::SixHours => 6 * 3600,
        }
    }

    pub fn next(self) -> Range {
        match self {
            Range::Minute => Range::Quarter,
            Range::Quarter => Range::SixHours,
            Range::SixHours => Range::Minute,
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Range::Minute => "1m",
            Range::Quarter => "15m",
            Range::SixHours => "6h",
        }
    }
}

/// The highest value of each bucket, oldest first; `None` where there is no sample or none with a value.
pub fn buckets(
    samples: &[Sample],
    now: u64,
    range: Range,
    columns: usize,
    value: impl Fn(&Sample) -> Option<f64>,
) -> Vec<Option<f64>> {
    let columns = columns.max(1) as u64;
    let step = range.seconds().div_ceil(columns).max(1);
    let last = now / step;
    let first = (last + 1).saturating_sub(columns);
    let mut out = vec![None; columns as usize];
    for sample in samples {
        let bucket = sample.at / step;
        if bucket < first || bucket > last {
            continue;
        }
        let slot = &mut out[(bucket + columns - 1 - last) as usize];
        if let Some(v) = value(sample) {
            *slot = Some(slot.map_or(v, |old: f64| old.max(v)));
        }
    }
    out
}

/// `rows` strings, the top one first, each as wide as there are values. Unknown buckets are blank; a known 0 is a
/// low line, so that unknown never looks like 0. `top` is the value of a full column.
pub fn draw(values: &[Option<f64>], rows: usize, top: f64) -> Vec<String> {
    const PARTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let rows = rows.max(1);
    let mut out = vec![String::with_capacity(values.len() * 3); rows];
    for value in values {
        let eighths = match value {
            None => 0,
            Some(v) if top > 0.0 && v.is_finite() => {
                ((v / top).clamp(0.0, 1.0) * (rows * 8) as f64).round().max(1.0) as usize
            }
            Some(_) => 1,
        };
        for (i, row) in out.iter_mut().enumerate() {
            let below = (rows - 1 - i) * 8;
            row.push(PARTS[eighths.saturating_sub(below).min(8)]);
        }
    }
    out
}

/// The highest known value.
pub fn highest(values: &[Option<f64>]) -> Option<f64> {
    values.iter().flatten().copied().reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, lag: Option<u32>) -> Sample {
        Sample { at, lag_ms: lag, ..Sample::default() }
    }

    #[test]
    fn unknown_is_blank_and_zero_is_a_line() {
        assert_eq!(draw(&[None, Some(0.0), Some(4.0), Some(8.0)], 1, 8.0), [" ▁▄█"]);
        assert_eq!(draw(&[Some(8.0), Some(12.0)], 2, 16.0), [" ▄", "██"]);
    }

    #[test]
    fn a_bucket_keeps_the_highest_and_moves_only_when_it_is_full() {
        let samples: Vec<_> = (0..120).map(|s| sample(s, Some(s as u32))).collect();
        let lag = |s: &Sample| s.lag_ms.map(f64::from);
        let at = |now| buckets(&samples[..=now as usize], now, Range::Minute, 20, lag);
        assert_eq!(at(60)[..19], at(62)[..19]);
        assert_ne!(at(60)[..19], at(63)[..19]);
        assert_eq!(at(62).last().copied().flatten(), Some(62.0));
    }

    #[test]
    fn any_width_and_any_time_is_safe() {
        for columns in [0, 1, 7, 300] {
            for now in [0, 1, 59, 100_000] {
                assert_eq!(
                    buckets(&[sample(0, None), sample(50, Some(1))], now, Range::SixHours, columns, |s| s
                        .lag_ms
                        .map(f64::from))
                    .len(),
                    columns.max(1)
                );
            }
        }
    }
}
