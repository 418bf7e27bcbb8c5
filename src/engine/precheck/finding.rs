//! What an item found, before it is a [`Check`](crate::model::Check).

use crate::model::{CheckState, Side};

/// A result in words, about one side or both.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finding {
    pub state: CheckState,
    pub side: Option<Side>,
    pub seen: String,
    pub why: String,
    pub remedy: String,
}

impl Finding {
    pub fn passed(seen: impl Into<String>) -> Self {
        Finding { state: CheckState::Passed, side: None, seen: seen.into(), why: String::new(), remedy: String::new() }
    }

    pub fn warning(seen: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding { state: CheckState::Warning, why: why.into(), remedy: remedy.into(), ..Finding::passed(seen) }
    }

    pub fn failed(seen: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding { state: CheckState::Failed, ..Finding::warning(seen, why, remedy) }
    }

    pub fn at(mut self, side: Side) -> Self {
        self.side = Some(side);
        self
    }

    /// All findings of an item as one: the worst state, every `seen`, the `why` and `remedy` of what is not fine.
    /// The side is that of the worst findings where they are about one side only.
    pub fn all(findings: impl IntoIterator<Item = Finding>) -> Finding {
        let findings: Vec<Finding> = findings.into_iter().collect();
        let rank = |s: CheckState| match s {
            CheckState::Failed => 3,
            CheckState::Warning => 2,
            CheckState::Skipped => 1,
            _ => 0,
        };
        let state = findings.iter().map(|f| f.state).max_by_key(|s| rank(*s)).unwrap_or(CheckState::Passed);
        let mut sides = findings.iter().filter(|f| f.state == state).map(|f| f.side);
        let first = sides.next().flatten();
        let side = if sides.all(|s| s == first) { first } else { None };
        let join = |part: fn(&Finding) -> &String, separator: &str| {
            let mut parts: Vec<&str> = Vec::new();
            for text in findings.iter().map(part).map(String::as_str) {
                if !text.is_empty() && !parts.contains(&text) {
                    parts.push(text);
                }
            }
            parts.join(separator)
        };
        Finding {
            state,
            side,
            seen: join(|f| &f.seen, "; "),
            why: join(|f| &f.why, "; "),
            remedy: join(|f| &f.remedy, "\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_state_and_its_side_stand() {
        let all = Finding::all([
            Finding::passed("a").at(Side::Source),
            Finding::failed("b", "w", "r").at(Side::Target),
            Finding::warning("c", "w", "r2").at(Side::Source),
        ]);
        assert_eq!((all.state, all.side), (CheckState::Failed, Some(Side::Target)));
        assert_eq!((all.seen.as_str(), all.why.as_str(), all.remedy.as_str()), ("a; b; c", "w", "r\nr2"));
    }
}
