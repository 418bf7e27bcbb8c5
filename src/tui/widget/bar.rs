//! A progress bar: a thin line of halves of a cell.

use crate::tui::{
    text::Row,
    theme::{Theme, Tone},
};

/// `columns` columns, filled to `share` of 0 to 1.
pub fn draw(columns: usize, share: f64, tone: Tone, theme: &Theme) -> Row {
    let halves = (share.clamp(0.0, 1.0) * columns as f64 * 2.0).round() as usize;
    let full = (halves / 2).min(columns);
    let half = usize::from(full < columns && halves % 2 == 1);
    Row::new()
        .text("━".repeat(full) + &"╸".repeat(half), theme.tone(tone))
        .text("─".repeat(columns - full - half), theme.faint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::theme::ThemeName;

    #[test]
    fn is_always_as_wide_as_asked() {
        let theme = Theme::new(ThemeName::Mono);
        for columns in 0..12 {
            for share in [-1.0, 0.0, 0.01, 0.33, 0.999, 1.0, 2.0, f64::NAN] {
                assert_eq!(draw(columns, share, Tone::Good, &theme).width(), columns, "{columns} {share}");
            }
        }
    }
}
