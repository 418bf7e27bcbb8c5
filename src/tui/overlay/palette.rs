//! The command palette: every action that holds now, found by typing a part of its words.

use crate::tui::{
    i18n::Lang,
    keymap::{self, Action, Binding, Context},
    mouse::Click,
    text::{self, Row},
    view::{Cx, framed, put},
    widget::{
        field::Field,
        list::{self, Cursor},
    },
};
use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};

#[derive(Debug, Default)]
pub struct Palette {
    pub field: Field,
    pub cursor: Cursor,
    /// Where the palette was called.
    pub contexts: Vec<Context>,
    /// Actions that a read-only console has not.
    pub readonly: bool,
}

impl Palette {
    /// The bindings that match what was typed, each action once.
    pub fn rows(&self, lang: Lang) -> Vec<&'static Binding> {
        let wanted = self.field.value().trim().to_lowercase();
        let mut seen: Vec<Action> = Vec::new();
        let mut out = Vec::new();
        for context in &self.contexts {
            for b in keymap::BINDINGS.iter().filter(|b| b.context == *context && b.listed) {
                let words = lang.t(b.label).to_lowercase();
                let english = Lang::En.t(b.label).to_lowercase();
                let fits = wanted.is_empty() || words.contains(&wanted) || english.contains(&wanted);
                if fits
                    && !seen.contains(&b.action)
                    && b.action != Action::Palette
                    && !(self.readonly && b.action.changes())
                {
                    seen.push(b.action);
                    out.push(b);
                }
            }
        }
        out
    }
}

pub fn draw(p: &Palette, cx: &Cx, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let columns = (area.width as usize).saturating_sub(12).min(56);
    let rows = p.rows(cx.lang);
    let shown = (area.height as usize).saturating_sub(8).min(12);
    let inner = framed(cx.lang.t("palette.title"), columns, shown + 2, cx, area, buf);
    let (field, cursor) = p.field.draw(inner.width as usize, true, true, "", cx.theme);
    put(buf, inner, 0, field.line());
    let at = p.cursor.of(rows.len());
    let first = list::first_row(at.unwrap_or(0), rows.len(), shown);
    for (i, b) in rows.iter().enumerate().skip(first).take(shown) {
        let here = at == Some(i);
        let key = cx.key(b.keys[0]);
        let line = Row::new()
            .text(if here { "▌ " } else { "  " }, cx.theme.accent)
            .text(cx.lang.t(b.label), if here { cx.theme.selected } else { cx.theme.text })
            .ending(Row::new().text(key, cx.theme.dim).gap(1), inner.width as usize);
        cx.clickable(inner, 2 + i - first, 0..inner.width as usize, Click::Row(i));
        put(buf, inner, 2 + i - first, line);
    }
    if rows.is_empty() {
        put(buf, inner, 2, Row::new().gap(2).text(text::cut(cx.lang.t("palette.none"), columns), cx.theme.dim).line());
    }
    cursor.map(|c| Position::new(inner.x + c as u16, inner.y))
}
