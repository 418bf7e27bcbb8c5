//! A position in a list of rows that may grow, shrink or be filtered under it.

/// The selected row. Moving clamps to the length that is given at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    pub at: usize,
}

impl Cursor {
    /// The selected row of `len` rows; `None` where there are none.
    pub fn of(self, len: usize) -> Option<usize> {
        len.checked_sub(1).map(|last| self.at.min(last))
    }

    /// Moves by `by` rows; whether it moved.
    pub fn step(&mut self, by: isize, len: usize) -> bool {
        let Some(now) = self.of(len) else { return false };
        let next = now.saturating_add_signed(by).min(len - 1);
        let moved = next != self.at;
        self.at = next;
        moved
    }
}

/// The first row to show so that `focus` is among `shown` of `total` rows, moving as little as possible from a view
/// centred on it.
pub fn first_row(focus: usize, total: usize, shown: usize) -> usize {
    if total <= shown {
        return 0;
    }
    focus.saturating_sub(shown / 2).min(total - shown)
}
