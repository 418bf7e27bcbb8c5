//! Step 1: a name for the job, the two instances, and what dialling them found.

use super::{Dialled, Form, Purpose, Slot, Wizard};
use crate::{
    control::protocol::{Failure, Probe},
    model::Side,
    tui::{
        mouse::Click,
        spoken,
        text::{self, Row},
        theme::Tone,
        view::{Cx, Page},
    },
};
use ratatui::text::{Line, Span};

/// Columns from which both sides stand beside each other.
const BESIDE: usize = 72;

/// ```text
///   Job name  [ … ]  any name will do
///
///   SOURCE               TARGET
///   form                 form
///   what was found       what was found
///         [ Authorize and continue ]
/// ```
pub fn page(w: &Wizard, cx: &Cx, columns: usize) -> Page {
    let (lang, theme) = (cx.lang, cx.theme);
    let mut page = Page::default();
    page.lines.push(Line::default());
    let inner = columns.saturating_sub(4);
    let hint = lang.t("endpoints.name_hint");
    let label = lang.t("endpoints.name");
    let label_columns = text::width(label).max(10) + 2;
    // what is wrong with the name is said in full, beside a shorter field
    let beside = w.name_fault.map_or(text::width(hint), |fault| text::width(lang.t(fault)) + 2);
    let field_columns =
        inner.saturating_sub(label_columns + beside + 2).clamp(20, 44).min(inner.saturating_sub(label_columns));
    let focused = w.slot == Slot::Name;
    let (field, cursor) = w.name.draw(field_columns, focused, true, "", theme);
    if focused {
        page.focus = Some(1);
        page.cursor = cursor.map(|c| (1, 2 + label_columns + c));
    }
    let row =
        Row::new().gap(2).cell(label, label_columns, if focused { theme.text } else { theme.dim }).append(field).gap(2);
    if w.purpose == Purpose::Configure {
        page.clickable(0..columns, Click::Slot(Slot::Name));
    }
    page.lines.push(match w.name_fault {
        Some(fault) => row.text(format!("✖ {}", lang.t(fault)), theme.bad).line(),
        None => row.text(if w.purpose == Purpose::Configure { hint } else { "" }, theme.dim).line(),
    });
    page.lines.push(Line::default());

    if columns >= BESIDE {
        let half = ((inner.saturating_sub(2)) / 2).min(58);
        let gap = inner - 2 * half;
        let gap = gap.min(4);
        let base = page.lines.len();
        let left = side(w, Side::Source, half, cx);
        let right = side(w, Side::Target, half, cx);
        for (part, offset, s) in [(&left, 2, Side::Source), (&right, 2 + half + gap, Side::Target)] {
            for (row, slot) in &part.slots {
                page.clickable_at(base + row, offset..offset + half, Click::Slot(Slot::Form(s, *slot)));
            }
            if let Some(focus) = part.focus {
                page.focus = Some(base + focus);
                page.cursor = part.cursor.map(|(row, column)| (base + row, offset + column));
            }
        }
        for line in text::beside(left.lines, half, Span::raw(" ".repeat(gap)), right.lines) {
            let mut spans = vec![Span::raw("  ")];
            spans.extend(line.spans);
            page.lines.push(Line::from(spans));
        }
    } else {
        for s in Side::BOTH {
            let base = page.lines.len();
            let part = side(w, s, inner, cx);
            if let Some(focus) = part.focus {
                page.focus = Some(base + focus);
                page.cursor = part.cursor.map(|(row, column)| (base + row, 2 + column));
            }
            for (row, slot) in &part.slots {
                page.clickable_at(base + row, 2..columns, Click::Slot(Slot::Form(s, *slot)));
            }
            for line in part.lines {
                let mut spans = vec![Span::raw("  ")];
                spans.extend(line.spans);
                page.lines.push(Line::from(spans));
            }
            page.lines.push(Line::default());
        }
    }
    page.lines.push(Line::default());
    page.buttons(&[(Slot::Continue, button(w))], w.slot, columns, cx);
    if w.slot == Slot::Continue {
        page.focus = Some(page.lines.len() - 1);
        page.cursor = None;
    }
    page
}

fn button(w: &Wizard) -> &'static str {
    if w.sides.iter().any(|s| s.dialled == Dialled::Now) { "button.dialling" } else { "button.authorize" }
}

fn side(w: &Wizard, side: Side, columns: usize, cx: &Cx) -> super::form::FormLines {
    let form = w.form(side);
    let focus = match w.slot {
        Slot::Form(at, slot) if at == side => Some(slot),
        _ => None,
    };
    let mut out = form.draw(focus, false, w.reveal, columns, cx.lang, cx.theme);
    let title = if side == Side::Source { "endpoints.source" } else { "endpoints.target" };
    out.lines.insert(0, Line::styled(cx.lang.t(title), cx.theme.strong));
    out.focus = out.focus.map(|f| f + 1);
    out.cursor = out.cursor.map(|(row, column)| (row + 1, column));
    for (row, _) in &mut out.slots {
        *row += 1;
    }
    out.lines.extend(dialled(form, columns, cx));
    out
}

/// What dialling found, in full: one fact a row.
fn dialled(form: &Form, columns: usize, cx: &Cx) -> Vec<Line<'static>> {
    let (lang, theme) = (cx.lang, cx.theme);
    match &form.dialled {
        Dialled::No => {
            let resumed = form.lacks_account() && form.chosen.is_some();
            if resumed { vec![Line::styled(lang.t("endpoints.password_again"), theme.dim)] } else { Vec::new() }
        }
        Dialled::Now => vec![Row::new().text("◌ ", theme.busy).text(lang.t("endpoints.dialling"), theme.dim).line()],
        Dialled::Found(probe) => {
            let mut lines = vec![
                Row::new()
                    .text("✔ ", theme.good)
                    .text(text::cut(&what(probe, cx), columns.saturating_sub(2)), theme.text)
                    .line(),
            ];
            for shard in probe.shards.iter().take(3) {
                lines.push(
                    Row::new()
                        .gap(2)
                        .text(
                            text::cut(
                                &lang.f(
                                    "endpoints.sees_us",
                                    &[("address", &host(&shard.seen_as)), ("rtt", &text::micros(shard.round_trip_us))],
                                ),
                                columns.saturating_sub(2),
                            ),
                            theme.dim,
                        )
                        .line(),
                );
            }
            if probe.shards.len() > 3 {
                lines.push(
                    Row::new()
                        .gap(2)
                        .text(lang.f("endpoints.more_shards", &[("n", &(probe.shards.len() - 3))]), theme.dim)
                        .line(),
                );
            }
            lines
        }
        Dialled::Failed(failure) => failure_lines(failure, columns, cx),
    }
}

fn failure_lines(failure: &Failure, columns: usize, cx: &Cx) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let message = spoken::sentence(&failure.message, cx.lang);
    for (i, row) in text::wrap(&message, columns.saturating_sub(2)).into_iter().take(6).enumerate() {
        lines.push(Row::new().text(if i == 0 { "✖ " } else { "  " }, cx.theme.bad).text(row, cx.theme.bad).line());
    }
    if !failure.remedy.is_empty() {
        for row in text::wrap(&format!("→ {}", spoken::sentence(&failure.remedy, cx.lang)), columns.saturating_sub(2))
            .into_iter()
            .take(6)
        {
            lines.push(Row::new().gap(2).text(row, cx.theme.text).line());
        }
    }
    lines
}

/// `Redis 7.0.15 · cluster, 3 shards · master`.
fn what(probe: &Probe, cx: &Cx) -> String {
    let first = probe.shards.first();
    let mut parts = vec![text::clean(first.map(|s| s.version.as_str()).unwrap_or("?"))];
    let topology = cx.lang.t(super::form::topology_label(probe.topology));
    parts.push(if probe.shards.len() > 1 {
        cx.lang.f("endpoints.shards", &[("topology", &topology), ("n", &probe.shards.len())])
    } else {
        topology.to_owned()
    });
    if let Some(role) = first.map(|s| s.role.as_str()).filter(|r| !r.is_empty()) {
        parts.push(text::clean(role));
    }
    parts.join(" · ")
}

/// The address without its port: what belongs on an allow list.
fn host(seen_as: &str) -> String {
    match seen_as.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')) => {
            text::clean(host.trim_matches(['[', ']']))
        }
        _ => text::clean(seen_as),
    }
}

/// What was found, in one row for the later steps.
pub fn found_line(form: &Form, side: Side, columns: usize, cx: &Cx) -> Option<Row> {
    let probe = form.probe()?;
    let first = probe.shards.first();
    let title = if side == Side::Source { "endpoints.source" } else { "endpoints.target" };
    let seen = first.map(|s| host(&s.seen_as)).unwrap_or_default();
    let version = text::clean(first.map(|s| s.version.as_str()).unwrap_or("?"));
    let topology = cx.lang.t(super::form::topology_label(probe.topology));
    let seen = cx.lang.f("endpoints.sees_us_short", &[("address", &seen)]);
    let facts = format!("{version} · {topology} · {seen}");
    let label = 9;
    let name = form.label();
    let name_columns = text::width(&name).min(columns / 3);
    Some(
        Row::new()
            .cell(cx.lang.t(title), label, cx.theme.dim)
            .text("✔ ", cx.theme.tone(Tone::Good))
            .cell(&text::clean(&name), name_columns, cx.theme.text)
            .gap(2)
            .text(text::cut(&facts, columns.saturating_sub(label + 4 + name_columns)), cx.theme.dim),
    )
}
