//! Every number of both links, in full, in one table.

use crate::{
    model::{Direction, JobStatus, LinkStatus},
    tui::{
        jobs::{direction_label, state_label},
        spoken,
        text::{self, Row},
        view::{Cx, Page},
    },
};
use ratatui::text::Line;

/// ```text
///                     forward          reverse
///   State             ● syncing        ● syncing
///   …
/// ```
pub fn page(job: &JobStatus, cx: &Cx, columns: usize) -> Page {
    let (lang, theme) = (cx.lang, cx.theme);
    let mut page = Page::default();
    let unknown = || lang.t("unknown").to_owned();
    type Value<'a> = (&'static str, Box<dyn Fn(&LinkStatus) -> String + 'a>);
    let values: Vec<Value<'_>> = vec![
        ("detail.lag", Box::new(move |l| l.lag_ms.map(text::millis).unwrap_or_else(unknown))),
        (
            "detail.lag_bytes",
            Box::new(move |l| {
                l.lag_bytes.map(|b| format!("{} ({})", text::bytes(b), text::count(b))).unwrap_or_else(unknown)
            }),
        ),
        ("detail.rate", Box::new(move |l| l.changes_per_second.map(|r| format!("{r:.1}/s")).unwrap_or_else(unknown))),
        (
            "detail.speed",
            Box::new(move |l| l.bytes_per_second.map(|b| format!("{}/s", text::bytes(b))).unwrap_or_else(unknown)),
        ),
        ("detail.applied", Box::new(|l| text::count(l.changes_applied))),
        ("detail.echoes", Box::new(|l| text::count(l.echoes_dropped))),
        ("detail.in_flight", Box::new(|l| text::count(l.in_flight))),
        ("detail.settled", Box::new(|l| text::count(l.conflicts_settled))),
        ("detail.open", Box::new(|l| text::count(l.conflicts_open))),
        ("detail.rounds", Box::new(|l| text::count(l.conflict_rounds))),
        ("detail.errors", Box::new(|l| text::count(l.apply_errors))),
        ("detail.reconnects", Box::new(|l| text::count(l.reconnects))),
        ("detail.window", Box::new(move |l| l.resume_window_seconds.map(text::seconds).unwrap_or_else(unknown))),
        ("detail.backlog", Box::new(move |l| l.backlog_bytes.map(text::bytes).unwrap_or_else(unknown))),
        ("detail.spool", Box::new(|l| text::bytes(l.spool_bytes))),
        (
            "detail.snapshot",
            Box::new(move |l| match &l.snapshot {
                None => "-".into(),
                Some(s) => match s.keys_total {
                    Some(total) => format!("{} / {}", text::count(s.keys_done), text::count(total)),
                    None => text::count(s.keys_done),
                },
            }),
        ),
    ];
    let label = values.iter().map(|(k, _)| text::width(lang.t(k))).max().unwrap_or(0) + 3;
    let value = columns.saturating_sub(label + 4) / 2;
    let links: Vec<(Direction, Option<&LinkStatus>)> =
        Direction::BOTH.into_iter().map(|d| (d, job.links.iter().find(|l| l.direction == d))).collect();
    page.lines.push(Line::default());
    let mut head = Row::new().gap(2 + label);
    for (direction, _) in &links {
        let (from, to) =
            if *direction == Direction::Forward { (&job.source, &job.target) } else { (&job.target, &job.source) };
        let text = format!("{}  {} → {}", lang.t(direction_label(*direction)), text::clean(from), text::clean(to));
        head = head.cell(&text::cut(&text, value.saturating_sub(2)), value, theme.strong);
    }
    page.lines.push(head.line());
    let mut state = Row::new().gap(2).cell(lang.t("detail.state"), label, theme.dim);
    for (_, link) in &links {
        let s = link.map_or(crate::model::LinkState::NotConfigured, |l| l.state);
        let (glyph, tone) = cx.mark(s);
        state = state.cell(&format!("{glyph} {}", lang.t(&state_label(s))), value, theme.tone(tone));
    }
    page.lines.push(state.line());
    for (key, show) in values {
        let mut row = Row::new().gap(2).cell(lang.t(key), label, theme.dim);
        for (_, link) in &links {
            let text = link.map(&show).unwrap_or_default();
            row = row.cell(&text, value, theme.text);
        }
        page.lines.push(row.line());
    }
    for (direction, link) in links {
        if let Some(reason) = link.and_then(|l| l.reason.as_ref()) {
            for (i, row) in text::wrap(&spoken::sentence(reason, cx.lang), columns.saturating_sub(label + 4))
                .into_iter()
                .enumerate()
            {
                let title = if i == 0 { lang.t(direction_label(direction)) } else { "" };
                page.lines.push(Row::new().gap(2).cell(title, label, theme.dim).text(row, theme.warn).line());
            }
        }
    }
    page
}
