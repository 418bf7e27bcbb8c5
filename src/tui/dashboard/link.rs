//! One link on the dashboard: its state, rates, charts and counters, in a column of its own.

use super::Dashboard;
use crate::{
    model::{Direction, JobStatus, LinkState, LinkStatus},
    tui::{
        jobs::{snapshot_percent, state_label},
        text::{self, Row},
        theme::Tone,
        view::Cx,
        widget::{bar, chart},
    },
};
use ratatui::{style::Style, text::Line};

/// Rows of a link without those of its charts.
pub const COUNTERS: usize = 7;

/// Columns of a chart's highest value and the spaces before it, such as ` 120 ms`.
const HIGHEST: usize = 8;

/// Columns left free at the left edge.
const MARGIN: usize = 2;

/// Below this resume window its row warns, in seconds.
const SHORT_WINDOW: u64 = 600;

/// ```text
///  ● syncing      lag 3 ms   0 B
///  812/s  96 KB/s      31,204,118 changes
///  lag ▁▁▁▂▁▁▁  max 21 ms
///  ops ▃▃▄▅▅▄▃  max 2.1k/s
///  echoes dropped   …
/// ```
pub fn lines(
    job: &JobStatus,
    direction: Direction,
    d: &Dashboard,
    columns: usize,
    chart_rows: usize,
    cx: &Cx,
) -> Vec<Line<'static>> {
    let (lang, theme) = (cx.lang, cx.theme);
    let Some(link) = job.links.iter().find(|l| l.direction == direction) else {
        return not_configured(columns, cx);
    };
    let (glyph, tone) = cx.mark(link.state);
    let state = Row::new()
        .gap(MARGIN)
        .text(format!("{glyph} "), theme.tone(tone))
        .text(lang.t(&state_label(link.state)), theme.tone(tone));
    let known = |value: Option<String>| match value {
        Some(v) => (v, theme.strong),
        None => (lang.t("unknown").to_owned(), theme.dim),
    };
    let (lag, lag_style) = known(link.lag_ms.filter(|_| !cx.stale).map(text::millis));
    let lag_style = if link.state == LinkState::Lagging { theme.warn } else { lag_style };
    let (behind, behind_style) = known(link.lag_bytes.filter(|_| !cx.stale).map(text::bytes));
    let lag_row = Row::new()
        .text(format!("{} ", lang.t("link.lag")), theme.dim)
        .text(lag, lag_style)
        .gap(2)
        .text(
            if link.lag_ms.is_none() || cx.stale { String::new() } else { behind },
            behind_style.remove_modifier(ratatui::style::Modifier::BOLD),
        )
        .gap(1);
    let mut out = vec![state.ending(lag_row, columns)];
    if link.state == LinkState::Initializing {
        out.extend(snapshot(link, columns, cx));
    } else {
        let rate = link.changes_per_second.map(|r| format!("{}/s", text::short(r)));
        let speed = link.bytes_per_second.map(|b| format!("{}/s", text::bytes(b)));
        let left = Row::new()
            .gap(MARGIN)
            .text(rate.unwrap_or_else(|| lang.t("unknown").into()), theme.text)
            .gap(2)
            .text(speed.unwrap_or_default(), theme.dim);
        let right = Row::new()
            .text(text::count(link.changes_applied), theme.text)
            .text(format!(" {} ", lang.t("link.changes")), theme.dim);
        out.push(left.ending(right, columns));
    }
    let samples = d.samples(direction);
    let label_columns = label_columns(cx);
    let chart_columns = columns.saturating_sub(MARGIN + label_columns + 1).max(4);
    let now = cx.now_ms / 1000;
    let lags = chart::buckets(&samples, now, d.range, chart_columns, |s| s.lag_ms.map(f64::from));
    let ops = chart::buckets(&samples, now, d.range, chart_columns, |s| Some(f64::from(s.changes_per_second)));
    let lag_top = chart::highest(&lags).map(|v| text::millis(v as u64));
    let ops_top = chart::highest(&ops).map(|v| format!("{}/s", text::short(v)));
    // a chart of nothing but small values is calm: a scale below 10 ms or 10 changes is not stretched
    let chart_of =
        |values: &[Option<f64>]| chart::draw(values, chart_rows, chart::highest(values).unwrap_or(0.0).max(10.0));
    for (key, rows, top, style) in [
        ("link.lag", chart_of(&lags), lag_top, theme.chart_lag),
        ("link.ops", chart_of(&ops), ops_top, theme.chart_rate),
    ] {
        let more = rows.len() > 1;
        out.extend(chart_lines(lang.t(key), rows, top, style, label_columns, cx));
        if more {
            out.push(Line::default());
        }
    }
    out.extend(counters(link, columns, cx));
    out
}

/// The label and the highest value stand at the left, the chart begins where the values of the counters do.
fn chart_lines(
    label: &str,
    rows: Vec<String>,
    top: Option<String>,
    style: Style,
    label_columns: usize,
    cx: &Cx,
) -> Vec<Line<'static>> {
    let top = top.map(|t| format!("{} {t}", cx.lang.t("link.max"))).unwrap_or_default();
    let single = rows.len() == 1;
    rows.into_iter()
        .enumerate()
        .map(|(i, row)| {
            let words = match i {
                0 if single => format!("{label} {top}"),
                0 => label.to_owned(),
                1 => top.clone(),
                _ => String::new(),
            };
            Row::new().gap(MARGIN).cell(&words, label_columns, cx.theme.dim).text(row, style).line()
        })
        .collect()
}

/// Columns of the labels: charts and counters line up behind them.
fn label_columns(cx: &Cx) -> usize {
    ["link.echoes", "link.conflicts", "link.window", "link.spool", "link.errors"]
        .iter()
        .map(|k| text::width(cx.lang.t(k)))
        .max()
        .unwrap_or(0)
        .max(text::width(cx.lang.t("link.lag")) + text::width(cx.lang.t("link.max")) + HIGHEST)
        + 1
}

fn snapshot(link: &LinkStatus, columns: usize, cx: &Cx) -> Vec<Line<'static>> {
    let (lang, theme) = (cx.lang, cx.theme);
    let Some(s) = &link.snapshot else {
        return vec![Row::new().gap(MARGIN).text(lang.t("link.snapshot_waiting"), theme.dim).line()];
    };
    let percent = snapshot_percent(link);
    let keys = match s.keys_total {
        Some(total) => format!("{}/{}", text::short(s.keys_done as f64), text::short(total as f64)),
        None => text::short(s.keys_done as f64),
    };
    let left = s.seconds_left.map(text::seconds).map(|t| lang.f("link.left", &[("time", &t)])).unwrap_or_default();
    let tail = Row::new()
        .gap(1)
        .text(percent.map(|p| format!("{p}%")).unwrap_or_default(), theme.strong)
        .gap(1)
        .text(keys, theme.dim)
        .gap(1)
        .text(left, theme.text);
    let bar_columns = columns.saturating_sub(tail.width() + 2).max(4);
    vec![
        Row::new()
            .gap(MARGIN)
            .append(bar::draw(bar_columns, percent.unwrap_or(0) as f64 / 100.0, Tone::Busy, theme))
            .append(tail)
            .line(),
    ]
}

fn counters(link: &LinkStatus, columns: usize, cx: &Cx) -> Vec<Line<'static>> {
    let (lang, theme) = (cx.lang, cx.theme);
    let label_columns = label_columns(cx);
    let row = |key: &str, value: Row| {
        Row::new().gap(MARGIN).cell(lang.t(key), label_columns, theme.dim).append(value).ending(Row::new(), columns)
    };
    let short = link.resume_window_seconds.is_some_and(|s| s < SHORT_WINDOW);
    let window_style = if short { theme.warn } else { theme.text };
    let mut window = match link.resume_window_seconds {
        Some(s) => Row::new().text(text::seconds(s), window_style).text(if short { " ▲" } else { "" }, theme.warn),
        None => Row::new().text(lang.t("unknown"), theme.dim),
    };
    if let Some(backlog) = link.backlog_bytes {
        let words = format!(" {}", lang.f("link.backlog", &[("size", &text::bytes(backlog))]));
        // half a number says less than none
        if MARGIN + label_columns + window.width() + text::width(&words) <= columns {
            window = window.text(words, theme.dim);
        }
    }
    let open_style = if link.conflicts_open > 0 { theme.busy } else { theme.dim };
    let errors_style = if link.apply_errors > 0 { theme.warn } else { theme.text };
    vec![
        row("link.echoes", Row::new().text(text::count(link.echoes_dropped), theme.text)),
        row(
            "link.conflicts",
            Row::new()
                .text(lang.f("link.settled", &[("n", &text::count(link.conflicts_settled))]), theme.text)
                .text(lang.t("comma"), theme.dim)
                .text(lang.f("link.open", &[("n", &link.conflicts_open)]), open_style),
        ),
        row("link.window", window),
        row("link.spool", spool(link, cx).append(shards(link, cx))),
        row(
            "link.errors",
            Row::new()
                .text(text::count(link.apply_errors), errors_style)
                .text(format!("  {}", lang.f("link.reconnects", &[("n", &link.reconnects)])), theme.dim),
        ),
    ]
}

/// What waits there; full, nothing more is read from the source.
fn spool(link: &LinkStatus, cx: &Cx) -> Row {
    let row = Row::new().text(text::bytes(link.spool_bytes), cx.theme.text);
    match link.spool_full {
        true => row.text(format!(" ▲ {}", cx.lang.t("link.full")), cx.theme.warn),
        false => row,
    }
}

/// How many shards, and how many of them are not in step, where there is more than one.
fn shards(link: &LinkStatus, cx: &Cx) -> Row {
    let n = link.shards.len();
    if n < 2 {
        return Row::new();
    }
    let away = link.shards.iter().filter(|s| s.state.is_some_and(LinkState::is_unhealthy)).count();
    match away {
        0 => Row::new().gap(2).text(cx.lang.f("link.shards", &[("n", &n)]), cx.theme.dim),
        _ => Row::new().gap(2).text(cx.lang.f("link.shards_away", &[("n", &n), ("away", &away)]), cx.theme.warn),
    }
}

fn not_configured(columns: usize, cx: &Cx) -> Vec<Line<'static>> {
    let mut out = vec![
        Row::new().gap(MARGIN).text("○ ", cx.theme.dim).text(cx.lang.t("state.not_configured"), cx.theme.dim).line(),
    ];
    for row in text::wrap(cx.lang.t("link.not_configured_hint"), columns.saturating_sub(2)) {
        out.push(Row::new().gap(MARGIN).text(row, cx.theme.dim).line());
    }
    out
}
