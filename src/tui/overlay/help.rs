//! All keys that hold on the screen below, from the table of keys.

use crate::tui::{
    app::App,
    keymap::{self, Context},
    text::{self, Row},
    view::{Cx, framed, put},
};
use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    text::Line,
};

/// The lines of the help: one group a context.
pub fn lines(contexts: &[Context], cx: &Cx, columns: usize) -> Vec<Line<'static>> {
    let mut out = Vec::new();
    for context in contexts.iter().filter(|c| **c != Context::Help) {
        let rows: Vec<_> = keymap::BINDINGS.iter().filter(|b| b.context == *context && b.listed).collect();
        if rows.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(Line::default());
        }
        out.push(Line::styled(cx.lang.t(context.title()), cx.theme.strong));
        for b in rows {
            let keys: Vec<String> = b.keys.iter().map(|k| cx.key(k)).collect();
            out.push(
                Row::new()
                    .gap(1)
                    .cell(&keys.join(" "), 12, cx.theme.accent)
                    .text(text::cut(cx.lang.t(b.label), columns.saturating_sub(13)), cx.theme.text)
                    .line(),
            );
        }
    }
    out.push(Line::default());
    for row in text::wrap(cx.lang.t("help.leaving"), columns) {
        out.push(Line::styled(row, cx.theme.dim));
    }
    out
}

pub fn draw(app: &App, scroll: usize, cx: &Cx, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let columns = (area.width as usize).saturating_sub(10).min(64);
    let all = lines(&below(app), cx, columns);
    let rows = all.len().min((area.height as usize).saturating_sub(4));
    let inner = framed(cx.lang.t("help.title"), columns, rows, cx, area, buf);
    let first = scroll.min(all.len().saturating_sub(inner.height as usize));
    for (i, line) in all.into_iter().skip(first).take(inner.height as usize).enumerate() {
        put(buf, inner, i, line);
    }
    None
}

/// The contexts that hold under the help.
pub fn below(app: &App) -> Vec<Context> {
    let mut contexts: Vec<Context> = app
        .overlays
        .iter()
        .rev()
        .map(|o| o.context())
        .filter(|c| !matches!(c, Context::Help | Context::Palette))
        .take(1)
        .collect();
    if contexts.is_empty() {
        contexts.extend(app.screen_contexts());
    } else {
        contexts.push(Context::Global);
    }
    contexts
}
