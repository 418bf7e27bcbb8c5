//! A progress bar of eighths of a cell.

use crate::tui::{
    text::Row,
    theme::{Theme, Tone},
};

/// `columns` columns, filled to `share` of 0 to 1.
pub fn draw(columns: usize, share: f64, tone: Tone, theme: &Theme) -> Row {
    let eighths = (share.clamp(0.0, 1.0) * columns as f64 * 8.0).round() as usize;
    let full = (eighths / 8).min(columns);
    let part = if full < columns { ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8] } else { "" };
    let rest = columns - full - usize::from(!part.is_empty());
    Row::new().text("█".repeat(full) + part, theme.tone(tone)).text("░".repeat(rest), theme.faint)
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
