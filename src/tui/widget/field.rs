//! A one-line text field on top of `tui-input`: edited by keys, shown by display width, masked where it is a secret.

use crate::tui::{
    text::{self, Row},
    theme::Theme,
};
use crossterm::event::{Event, KeyEvent};
use ratatui::style::Style;
use std::fmt;
use tui_input::{Input, backend::crossterm::EventHandler};
use zeroize::Zeroize;

/// The longest text that a field takes, in bytes: pasted files are cut there.
const LONGEST: usize = 4096;

#[derive(Clone, Default)]
pub struct Field {
    input: Input,
    /// Shown as dots unless revealed, and never in Debug.
    secret: bool,
}

impl Field {
    pub fn new(text: impl Into<String>) -> Self {
        Field { input: Input::new(text.into()), secret: false }
    }

    pub fn secret() -> Self {
        Field { input: Input::default(), secret: true }
    }

    pub fn value(&self) -> &str {
        self.input.value()
    }

    pub fn set(&mut self, text: impl Into<String>) {
        self.wipe();
        self.input = Input::new(text.into());
    }

    pub fn set_secret(&mut self, secret: bool) {
        self.secret = secret;
    }

    pub fn is_empty(&self) -> bool {
        self.value().is_empty()
    }

    /// Edits the field; whether anything changed, the cursor included.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        if self.value().len() >= LONGEST && crate::tui::keymap::is_printable(&key) {
            return false;
        }
        self.input.handle_event(&Event::Key(key)).is_some()
    }

    /// Takes a pasted text up to its first line end.
    pub fn paste(&mut self, pasted: &str) {
        let line = pasted.trim_matches(['\r', '\n']).lines().next().unwrap_or_default();
        for c in line.chars().filter(|c| !c.is_control()) {
            if self.value().len() >= LONGEST {
                return;
            }
            self.input.handle(tui_input::InputRequest::InsertChar(c));
        }
    }

    fn wipe(&mut self) {
        let mut old = self.input.value_and_reset();
        if self.secret {
            old.zeroize();
        }
    }

    /// `[ text ]` in exactly `columns` columns, and the column of the cursor where it has the focus.
    ///
    /// Maps to `[`, a space, the text or its end, a space, `]`; a placeholder stands in an empty field.
    pub fn draw(
        &self,
        columns: usize,
        focused: bool,
        reveal: bool,
        placeholder: &str,
        theme: &Theme,
    ) -> (Row, Option<usize>) {
        let inner = columns.saturating_sub(4);
        let shown =
            if self.secret && !reveal { "•".repeat(self.value().chars().count()) } else { text::clean(self.value()) };
        let at = if self.secret && !reveal { self.input.cursor() } else { self.input.visual_cursor() };
        // keep the cursor inside: show the part of the text that ends one column after it
        let before: String = {
            let mut out = String::new();
            let mut used = 0;
            for c in shown.chars() {
                let w = text::width(c.encode_utf8(&mut [0; 4]));
                if used + w > at {
                    break;
                }
                used += w;
                out.push(c);
            }
            out
        };
        let room = inner.saturating_sub(1).max(1);
        let (visible, skipped) = text::tail(&before, room);
        let rest = &shown[before.len()..];
        let visible_width = text::width(&visible);
        let style = if focused { theme.field_focused } else { theme.field };
        let bracket = if focused { theme.accent } else { theme.faint };
        let body = if shown.is_empty() {
            let hint = if focused { Style { bg: style.bg, ..theme.dim } } else { theme.dim };
            Row::new().text(text::pad(placeholder, inner), hint)
        } else if focused {
            Row::new().text(
                text::pad(&format!("{visible}{}", text::cut(rest, inner.saturating_sub(visible_width))), inner),
                style,
            )
        } else {
            Row::new().text(text::pad(&shown, inner), style)
        };
        let row = Row::new().text("[ ", bracket).append(body).text(" ]", bracket);
        let cursor = focused.then(|| 2 + at.saturating_sub(skipped).min(inner.saturating_sub(1)));
        (row, cursor)
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        if self.secret {
            self.wipe();
        }
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.secret { f.write_str("Field(***)") } else { write!(f, "Field({:?})", self.value()) }
    }
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret && self.value() == other.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::{keymap::keys, theme::ThemeName};

    fn plain(row: Row) -> String {
        row.line().spans.iter().map(|s| s.content.to_string()).collect()
    }

    #[test]
    fn shows_the_end_of_a_long_text_and_keeps_its_width() {
        let theme = Theme::new(ThemeName::Mono);
        let mut field = Field::default();
        for key in keys("同步abcdefghijklmn") {
            field.key(key);
        }
        for columns in 6..30 {
            let (row, cursor) = field.draw(columns, true, false, "", &theme);
            assert_eq!(row.width(), columns);
            assert!(cursor.is_some_and(|c| c < columns - 1), "{columns}");
            let (row, _) = field.draw(columns, false, false, "", &theme);
            assert_eq!(row.width(), columns);
        }
        let (row, _) = field.draw(12, true, false, "", &theme);
        assert_eq!(plain(row), "[ hijklmn  ]");
    }

    #[test]
    fn a_secret_is_masked_until_revealed_and_never_in_debug() {
        let theme = Theme::new(ThemeName::Mono);
        let mut field = Field::secret();
        for key in keys("admin:s3cret") {
            field.key(key);
        }
        assert_eq!(plain(field.draw(20, false, false, "", &theme).0), "[ ••••••••••••     ]");
        assert_eq!(plain(field.draw(20, false, true, "", &theme).0), "[ admin:s3cret     ]");
        assert_eq!(format!("{field:?}"), "Field(***)");
    }

    #[test]
    fn a_paste_is_one_line_without_control_characters() {
        let mut field = Field::default();
        field.paste("10.0.0.1:6379\x1b[31m\nsecond");
        assert_eq!(field.value(), "10.0.0.1:6379[31m");
    }
}
