//! The event log of a job: filtered by words and severity, exported as JSON lines.

use super::Dashboard;
use crate::{
    model::{Direction, Event, EventKind, Severity},
    tui::{
        jobs::direction_label,
        mouse::Click,
        spoken,
        text::{self, Row},
        theme::{Tone, severity_mark},
        view::{Cx, Page},
        widget::list,
    },
};
use ratatui::text::Line;

/// The word of an event's kind, as JSON has it.
pub fn kind_word(event: &Event) -> String {
    serde_json::to_value(event.kind).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The local time of day of an event; with its date where it isn't today.
fn time(at_ms: u64, cx: &Cx) -> String {
    let at = |ms: u64| jiff::Timestamp::from_millisecond(ms as i64).map(|t| t.to_zoned(cx.zone.clone()));
    match (at(at_ms), at(cx.now_ms)) {
        (Ok(t), Ok(now)) if t.date() == now.date() => t.strftime("%H:%M:%S").to_string(),
        (Ok(t), _) => t.strftime("%m-%d %H:%M").to_string(),
        _ => "?".into(),
    }
}

/// One event in a row.
pub fn row(event: &Event, columns: usize, here: bool, cx: &Cx) -> Line<'static> {
    let (glyph, tone) = severity_mark(event.severity);
    let kind = format!("event.{}", kind_word(event));
    let style = match tone {
        Tone::Dim => cx.theme.text,
        tone => cx.theme.tone(tone),
    };
    let mut row = Row::new()
        .text(if here { "▌ " } else { "  " }, cx.theme.accent)
        .cell(&time(event.at_ms, cx), 12, cx.theme.dim)
        .text(format!("{glyph} "), cx.theme.tone(tone))
        .cell(cx.lang.t(&kind), 18, style);
    // where there is little room, an arrow stands for the direction
    row = match event.direction {
        None if columns < 100 => row.gap(2),
        Some(Direction::Forward) if columns < 100 => row.text("→ ", cx.theme.dim),
        Some(Direction::Reverse) if columns < 100 => row.text("← ", cx.theme.dim),
        whose => row.cell(whose.map_or("", |d| cx.lang.t(direction_label(d))), 9, cx.theme.dim),
    };
    let words = spoken::event(event, cx.lang).unwrap_or_else(|| text::clean(&in_short(event)));
    let line = row.text(words, cx.theme.text).ending(Row::new(), columns.saturating_sub(1));
    if here { text::selected(line, columns, cx.theme.selected) } else { line }
}

/// What an event says beside its kind: a settled conflict says that it is one a second time, and the way it was settled
/// would not fit any more.
fn in_short(event: &Event) -> String {
    let settled = event.text.strip_prefix("conflict on ").filter(|_| event.kind == EventKind::ConflictSettled);
    match settled.and_then(|rest| rest.split_once(" settled: ")) {
        Some((key, how)) => {
            format!("{}: {}", key.replace(" (db0)", ""), how.replace(" side's order stands", " stands"))
        }
        None => event.text.clone(),
    }
}

/// The words of an event over several lines; the engine's own follow where the screen's are others.
fn in_full(event: &Event, columns: usize, cx: &Cx) -> Vec<String> {
    let own = text::clean(&event.text);
    match (spoken::event(event, cx.lang), cx.lang.engine("original")) {
        (Some(words), Some(original)) => {
            let mut lines = text::wrap(&words, columns);
            lines.extend(text::wrap(&format!("{original}: {own}"), columns));
            lines
        }
        _ => text::wrap(&own, columns),
    }
}

/// ```text
///   filter [ … ]   all severities   212 of 5,000
///   14:02:11  ▲ conflict settled  forward  …
///   ── the selected one in full ──
/// ```
pub fn page(d: &Dashboard, cx: &Cx, columns: usize, rows: usize) -> Page {
    let (lang, theme) = (cx.lang, cx.theme);
    let mut page = Page::default();
    let shown_events = d.shown_events();
    let label = lang.t("filter");
    let (field, cursor) = d.filter.draw(30, d.filtering, true, lang.t("events.filter_hint"), theme);
    page.cursor = cursor.map(|c| (0, 2 + text::width(label) + 2 + c));
    let severity = match d.severity {
        None => "events.all",
        Some(Severity::Error) => "events.errors",
        Some(_) => "events.warnings",
    };
    let counts = lang.f(
        "events.count",
        &[("shown", &text::count(shown_events.len() as u64)), ("total", &text::count(d.events.len() as u64))],
    );
    page.lines.push(
        Row::new()
            .gap(2)
            .text(label, theme.dim)
            .gap(2)
            .append(field)
            .gap(3)
            .text(lang.t(severity), theme.text)
            .ending(Row::new().text(counts, theme.dim).gap(2), columns),
    );
    page.lines.push(Line::default());
    let at = d.cursor.of(shown_events.len());
    let full = at.map(|at| in_full(shown_events[at], columns.saturating_sub(4), cx)).unwrap_or_default();
    let detail_rows = (full.len() + 1).min(rows / 3).max(2);
    let room = rows.saturating_sub(2 + detail_rows).max(1);
    let first = list::first_row(at.unwrap_or(0), shown_events.len(), room);
    for i in 0..room {
        if first + i < shown_events.len() {
            page.clickable(0..columns, Click::Row(first + i));
        }
        page.lines.push(match shown_events.get(first + i) {
            Some(event) => row(event, columns, at == Some(first + i), cx),
            None if i == 0 => Row::new().gap(2).text(lang.t("events.none"), theme.dim).line(),
            None => Line::default(),
        });
    }
    if let Some(event) = at.map(|at| shown_events[at]) {
        let title = format!("{} · {}", time(event.at_ms, cx), lang.t(&format!("event.{}", kind_word(event))));
        page.lines.push(super::section(&title, columns, cx));
        for line in full.into_iter().take(detail_rows - 1) {
            page.lines.push(Row::new().gap(2).text(line, theme.text).line());
        }
    }
    page
}

/// The lines of an export: one event a line, oldest first, as `events --json` prints them.
pub fn export(d: &Dashboard) -> Vec<String> {
    d.shown_events().into_iter().rev().filter_map(|e| serde_json::to_string(e).ok()).collect()
}
