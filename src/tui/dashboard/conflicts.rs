//! Conflicts of a job, open and settled, and the keys that conflict again and again.

use super::{Dashboard, section};
use crate::{
    model::{
        ConflictRecord, Side,
        conflict::{ConflictChange, ConflictValue},
    },
    tui::{
        mouse::Click,
        text::{self, Row},
        view::{Cx, Page},
        widget::list,
    },
};
use ratatui::text::Line;

/// ```text
///   3 open · 120 settled        hottest: cart:881 (12)
///   KEY          STATE     AUTHORITY  CAUSE            ROUNDS  SETTLED IN
/// ▌ db0 cart:881 settled   source     concurrent write  1      18 ms
///   ── the selected one ──
/// ```
pub fn page(d: &Dashboard, cx: &Cx, columns: usize, rows: usize) -> Page {
    let (lang, theme) = (cx.lang, cx.theme);
    let mut page = Page::default();
    let Some(conflicts) = &d.conflicts else {
        page.lines.push(Line::default());
        page.lines.push(Row::new().gap(2).text(lang.t("conflicts.waiting"), theme.dim).line());
        return page;
    };
    let all: Vec<&ConflictRecord> = conflicts.open.iter().chain(&conflicts.settled).collect();
    page.lines.push(
        Row::new()
            .gap(2)
            .text(
                lang.f("conflicts.counts", &[("open", &conflicts.open.len()), ("settled", &conflicts.settled.len())]),
                theme.text,
            )
            .line(),
    );
    let hottest: Vec<String> = conflicts
        .hottest
        .iter()
        .take(5)
        .map(|k| format!("{} ({})", text::cut(&text::clean(&k.key), 24), text::short(k.conflicts as f64)))
        .collect();
    if !hottest.is_empty() {
        page.lines.push(
            Row::new()
                .gap(2)
                .text(format!("{}  ", lang.t("conflicts.hottest")), theme.dim)
                .text(hottest.join("  "), theme.text)
                .ending(Row::new(), columns.saturating_sub(2)),
        );
    }
    page.lines.push(Line::default());
    let (state, authority, cause, rounds, took) = (10, 11, 22, 8, 9);
    let key = columns.saturating_sub(4 + state + authority + cause + rounds + took).max(8);
    page.lines.push(
        Row::new()
            .gap(2)
            .cell(lang.t("conflicts.key"), key, theme.dim)
            .cell(lang.t("conflicts.state"), state, theme.dim)
            .cell(lang.t("conflicts.authority"), authority, theme.dim)
            .cell(lang.t("conflicts.cause"), cause, theme.dim)
            .right(lang.t("conflicts.rounds"), rounds, theme.dim)
            .right(lang.t("conflicts.took"), took, theme.dim)
            .line(),
    );
    let at = d.cursor.of(all.len());
    let detail_rows = 4;
    let room = rows.saturating_sub(page.lines.len() + detail_rows).max(1);
    let first = list::first_row(at.unwrap_or(0), all.len(), room);
    for i in 0..room {
        let Some(c) = all.get(first + i) else {
            page.lines.push(if i == 0 {
                Row::new().gap(2).text(lang.t("conflicts.none"), theme.dim).line()
            } else {
                Line::default()
            });
            continue;
        };
        let here = at == Some(first + i);
        let (word, style) = match c.settled_ms {
            Some(_) => ("conflicts.settled", theme.good),
            None => ("conflicts.open", theme.busy),
        };
        let row = Row::new()
            .text(if here { "▌ " } else { "  " }, theme.accent)
            .cell(
                &text::cut(&format!("db{} {}", c.db, text::clean(&c.key)), key - 1),
                key,
                if here { theme.selected } else { theme.text },
            )
            .cell(lang.t(word), state, style)
            .cell(side(c.authority, cx), authority, theme.text)
            .cell(&text::cut(&cause_text(&c.cause, cx), cause - 1), cause, theme.dim)
            .right(&c.rounds.to_string(), rounds, theme.dim)
            .right(
                &c.settled_ms.map(|s| text::millis(s.saturating_sub(c.opened_ms))).unwrap_or_default(),
                took,
                theme.text,
            )
            .line();
        page.clickable(0..columns, Click::Row(first + i));
        page.lines.push(if here { text::selected(row, columns, theme.selected) } else { row });
    }
    if let Some(c) = at.and_then(|at| all.get(at)) {
        page.lines.push(section(&text::clean(&c.key), columns, cx));
        for (s, change) in [(Side::Source, &c.source_change), (Side::Target, &c.target_change)] {
            page.lines.push(
                Row::new()
                    .gap(2)
                    .cell(side(s, cx), 10, theme.dim)
                    .text(
                        change.as_ref().map(|c| describe(c, cx)).unwrap_or_else(|| lang.t("unknown").into()),
                        theme.text,
                    )
                    .line(),
            );
        }
        page.lines.push(match &c.value {
            Some(value) => Row::new()
                .gap(2)
                .cell(lang.t("conflicts.value"), 10, theme.dim)
                .text(worth(value, cx), theme.text)
                .ending(Row::new(), columns),
            None => Line::default(),
        });
    }
    page
}

/// What stands for the value that was carried, and the value itself where the job shows it.
fn worth(value: &ConflictValue, cx: &Cx) -> String {
    let of = cx.lang.f("conflicts.dump", &[("size", &text::bytes(value.size)), ("hash", &value.hash)]);
    match &value.text {
        Some(shown) => format!("{} · {of}", text::clean(shown)),
        None => of,
    }
}

fn side(side: Side, cx: &Cx) -> &'static str {
    match side {
        Side::Source => cx.lang.t("side.source"),
        Side::Target => cx.lang.t("side.target"),
    }
}

/// The cause in words of the language; a cause of a newer engine as it is.
fn cause_text(cause: &str, cx: &Cx) -> String {
    let key = format!("cause.{cause}");
    let text = cx.lang.t(&key);
    if text == key { text::clean(cause) } else { text.to_owned() }
}

fn describe(change: &ConflictChange, cx: &Cx) -> String {
    // A word in small letters is no command: it is said in the screen's language.
    let word = cx.lang.t(&format!("made_by.{}", change.command));
    let command = if word.starts_with("made_by.") { text::clean(&change.command) } else { word.to_owned() };
    let mut parts = vec![command];
    if let Some(size) = change.size {
        parts.push(text::bytes(size));
    }
    if let Some(at) = change.at_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms as i64).ok()) {
        parts.push(at.to_zoned(cx.zone.clone()).strftime("%H:%M:%S%.3f").to_string());
    }
    parts.extend(change.text.as_deref().map(text::clean));
    parts.join(" · ")
}
