//! Every number of both links, in full, in one table.

use super::Dashboard;
use crate::{
    model::{Direction, JobStatus, LinkStatus},
    tui::{
        i18n::Lang,
        jobs::{direction_label, state_label},
        spoken,
        text::{self, Row},
        theme::{Tone, severity_mark},
        view::{Cx, Page},
    },
};
use ratatui::text::Line;

/// ```text
///                     forward          reverse
///   State             ● syncing        ● syncing
///   …
/// ```
pub fn page(job: &JobStatus, d: &Dashboard, cx: &Cx, columns: usize) -> Page {
    let (lang, theme) = (cx.lang, cx.theme);
    let mut page = Page { scroll: Some(d.cursor.at), ..Page::default() };
    matters(job, &mut page, columns, cx);
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
        (
            "detail.spool",
            Box::new(move |l| match l.spool_full {
                true => format!("{} {}", text::bytes(l.spool_bytes), lang.t("link.full")),
                false => text::bytes(l.spool_bytes),
            }),
        ),
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
    let mut head = Row::new().gap(2 + label);
    for (direction, _) in &links {
        let (from, to) =
            if *direction == Direction::Forward { (&job.source, &job.target) } else { (&job.target, &job.source) };
        let word = lang.t(direction_label(*direction));
        let ends = text::ends(from, to, value.saturating_sub(text::width(word) + 4));
        head = head.cell(&format!("{word}  {ends}"), value, theme.strong);
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
    page
}

/// What is the matter, in full and with what to do: there is no room for that on the dashboard.
fn matters(job: &JobStatus, page: &mut Page, columns: usize, cx: &Cx) {
    let inner = columns.saturating_sub(6);
    let mut say = |glyph: &str, tone: Tone, words: &str| {
        for (i, row) in text::wrap(words, inner).into_iter().enumerate() {
            let mark = if i == 0 { format!("{glyph} ") } else { "  ".into() };
            page.lines.push(Row::new().gap(2).text(mark, cx.theme.tone(tone)).text(row, cx.theme.tone(tone)).line());
        }
    };
    for alert in &job.alerts {
        let (glyph, tone) = severity_mark(alert.severity);
        // the whole sentence where it has words in this language, else that of its rule
        let known = cx.lang == Lang::En || spoken::is_known(&alert.text, cx.lang);
        let (what, remedy) = match known && spoken::is_known(&alert.remedy, cx.lang) {
            true => (spoken::sentence(&alert.text, cx.lang), spoken::sentence(&alert.remedy, cx.lang)),
            false => spoken::alert(alert, job, cx.lang),
        };
        say(glyph, tone, &what);
        if !remedy.is_empty() {
            say(" ", Tone::Plain, &format!("→ {remedy}"));
        }
        // a cause may have no words in this language
        let caused = !known || alert.text.contains(": ");
        if let Some(original) = cx.lang.engine("original").filter(|_| caused) {
            say(" ", Tone::Dim, &format!("{original}{}{}", cx.lang.t("colon"), text::clean(&alert.text)));
        }
    }
    if job.alerts.is_empty() {
        let mut reasons: Vec<&str> =
            job.reason.iter().chain(job.links.iter().flat_map(|l| &l.reason)).map(String::as_str).collect();
        reasons.dedup();
        for reason in reasons {
            say("▲", Tone::Warn, &spoken::sentence(reason, cx.lang));
        }
    }
    page.lines.push(Line::default());
}
