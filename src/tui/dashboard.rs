//! A job while it runs: both links side by side, their charts, events, alerts, and what lies behind them.

pub mod conflicts;
pub mod detail;
pub mod events;
pub mod link;
pub mod shards;

use super::{
    app::App,
    jobs::{direction_label, state_label},
    keymap::{Action, Context},
    mouse::Click,
    spoken,
    text::{self, Row},
    theme::{Tone, severity_mark},
    view::{Cx, Page},
    widget::{chart::Range, field::Field, list::Cursor},
};
use crate::{
    control::protocol::LinkHistory,
    model::{ConflictRecord, Direction, Event, EventKind, HotKey, JobStatus, LinkState, Severity, status::Sample},
};
use ratatui::text::{Line, Span};
use std::collections::VecDeque;

/// Events that are kept in memory; older ones are at the engine.
pub const MOST_EVENTS: usize = 5_000;

/// Samples that are kept: 15 minutes of seconds, 6 hours of half minutes.
const MOST_SECONDS: usize = 900;
const MOST_HALF_MINUTES: usize = 720;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pane {
    #[default]
    Main,
    Detail,
    Shards,
    Events,
    Conflicts,
}

#[derive(Debug, Default)]
pub struct Dashboard {
    pub job: String,
    pub pane: Pane,
    pub range: Range,
    pub events: VecDeque<Event>,
    /// The `seq` of the newest event, to go on from after a reconnect.
    pub last_seq: u64,
    pub seconds: [VecDeque<Sample>; 2],
    pub half_minutes: [VecDeque<Sample>; 2],
    pub cursor: Cursor,
    pub filter: Field,
    pub filtering: bool,
    /// Less severe events are left out.
    pub severity: Option<Severity>,
    pub conflicts: Option<Conflicts>,
}

#[derive(Debug, Clone, Default)]
pub struct Conflicts {
    pub open: Vec<ConflictRecord>,
    pub settled: Vec<ConflictRecord>,
    pub hottest: Vec<HotKey>,
}

impl Dashboard {
    pub fn new(job: String) -> Dashboard {
        Dashboard { job, ..Dashboard::default() }
    }

    pub fn context(&self) -> Context {
        match self.pane {
            Pane::Main => Context::Dashboard,
            Pane::Detail => Context::Detail,
            Pane::Shards => Context::Shards,
            Pane::Events => Context::Events,
            Pane::Conflicts => Context::Conflicts,
        }
    }

    pub fn show(&mut self, pane: Pane) {
        self.pane = pane;
        self.cursor = Cursor::default();
    }

    /// Takes an event; one that is known already is dropped.
    pub fn take_event(&mut self, event: Event) {
        if event.seq <= self.last_seq && self.last_seq > 0 {
            return;
        }
        self.last_seq = event.seq;
        self.events.push_back(event);
        if self.events.len() > MOST_EVENTS {
            self.events.pop_front();
        }
    }

    /// The history as the engine keeps it, in place of what was gathered here.
    pub fn take_history(&mut self, links: Vec<LinkHistory>) {
        for link in links {
            let i = link.direction as usize;
            self.seconds[i] = link.seconds.into();
            self.half_minutes[i] = link.half_minutes.into();
        }
    }

    /// Goes on with the history from the status that was just received.
    pub fn take_status(&mut self, job: &JobStatus, now_ms: u64) {
        for link in &job.links {
            let i = link.direction as usize;
            let sample = Sample {
                at: now_ms / 1000,
                lag_ms: link.lag_ms.map(|l| l.min(u64::from(u32::MAX)) as u32),
                changes_per_second: link.changes_per_second.unwrap_or(0.0) as f32,
                bytes_per_second: link.bytes_per_second.unwrap_or(0) as f32,
            };
            push(&mut self.seconds[i], sample, 1, MOST_SECONDS);
            push(&mut self.half_minutes[i], sample, 30, MOST_HALF_MINUTES);
        }
    }

    pub fn samples(&self, direction: Direction) -> Vec<Sample> {
        let i = direction as usize;
        match self.range {
            Range::SixHours => self.half_minutes[i].iter().copied().collect(),
            _ => self.seconds[i].iter().copied().collect(),
        }
    }

    /// For how long the job is in its state, by the newest event that tells of one. The job's own uptime counts from its
    /// start, whatever has happened since.
    pub fn seconds_so(&self, state: LinkState, now_ms: u64) -> Option<u64> {
        let told = self.events.iter().rev().find(|e| e.kind == EventKind::StateChanged)?;
        let word = told.text.split(':').next()?.trim();
        (word == state.as_str()).then(|| now_ms.saturating_sub(told.at_ms) / 1000)
    }

    /// Events that pass the filter, the newest first.
    pub fn shown_events(&self) -> Vec<&Event> {
        let wanted = self.filter.value().to_lowercase();
        self.events
            .iter()
            .rev()
            .filter(|e| self.severity.is_none_or(|least| e.severity >= least))
            .filter(|e| {
                wanted.is_empty() || e.text.to_lowercase().contains(&wanted) || events::kind_word(e).contains(&wanted)
            })
            .collect()
    }
}

/// Adds to the newest sample while it is of the same interval of `step` seconds.
fn push(samples: &mut VecDeque<Sample>, sample: Sample, step: u64, most: usize) {
    match samples.back_mut() {
        Some(last) if last.at / step >= sample.at / step => {
            last.lag_ms = last.lag_ms.max(sample.lag_ms);
            last.changes_per_second = last.changes_per_second.max(sample.changes_per_second);
            last.bytes_per_second = last.bytes_per_second.max(sample.bytes_per_second);
        }
        _ => samples.push_back(sample),
    }
    while samples.len() > most {
        samples.pop_front();
    }
}

/// The middle of the header in at most `room` columns: the job, its state, and since when, as far as there is room.
pub fn title(app: &App, d: &Dashboard, cx: &Cx, room: usize) -> Row {
    let (lang, theme) = (cx.lang, cx.theme);
    let name = text::clean(&d.job);
    let Some(job) = app.job(&d.job) else { return Row::new().text(text::cut(&name, room), theme.strong) };
    let (glyph, tone) = cx.mark(job.state);
    let both = job.links.len() == 2 && job.links.iter().all(|l| l.state == LinkState::Synchronizing);
    let word = |both: bool| {
        let word = if both { lang.t("dashboard.both_ways") } else { lang.t(&state_label(job.state)) };
        if cx.stale { lang.f("dashboard.last_heard", &[("state", &word)]) } else { word.to_owned() }
    };
    let fits = |word: &str| text::width(&name) + text::width(word) + 5 <= room;
    let word = if both && !cx.stale && fits(&word(true)) { word(true) } else { word(false) };
    let name = text::cut(&name, room.saturating_sub(text::width(&word) + 5).max(8));
    let row = Row::new()
        .text(name, theme.strong)
        .gap(3)
        .text(format!("{glyph} "), theme.tone(tone))
        .text(word, theme.tone(tone));
    let up = job.uptime_seconds.filter(|_| job.state == LinkState::Synchronizing);
    match d.seconds_so(job.state, cx.now_ms).or(up).filter(|_| !cx.stale) {
        Some(up) => {
            let since = text::seconds(up - if up >= 60 { up % 60 } else { 0 });
            if row.width() + text::width(&since) + 3 <= room { row.gap(3).text(since, theme.dim) } else { row }
        }
        None => row,
    }
}

/// The span of the charts and the key that changes it.
pub fn range_mark(d: &Dashboard, cx: &Cx) -> Row {
    Row::new().text("r ", cx.theme.accent).text(d.range.label(), cx.theme.text)
}

/// The rule under the header that names the two links.
pub fn heading(app: &App, d: &Dashboard, cx: &Cx, columns: usize) -> Line<'static> {
    let theme = cx.theme;
    let Some(job) = app.job(&d.job).filter(|_| d.pane == Pane::Main && columns >= BESIDE) else {
        return super::view::rule(columns, theme);
    };
    let half = half(columns);
    let part = |direction: Direction, columns: usize| {
        let (from, to) = match direction {
            Direction::Forward => (&job.source, &job.target),
            Direction::Reverse => (&job.target, &job.source),
        };
        let word = cx.lang.t(direction_label(direction));
        let ends = text::ends(from, to, columns.saturating_sub(text::width(word) + 7));
        let row = Row::new().text("── ", theme.faint).text(word, theme.strong).gap(2).text(ends, theme.dim).gap(1);
        let rest = columns.saturating_sub(row.width());
        row.text("─".repeat(rest), theme.faint)
    };
    part(Direction::Forward, half).text("┬", theme.faint).append(part(Direction::Reverse, columns - half - 1)).line()
}

/// Columns from which both links stand beside each other.
pub const BESIDE: usize = 76;

fn half(columns: usize) -> usize {
    (columns - 1) / 2
}

pub fn page(app: &App, d: &Dashboard, cx: &Cx, columns: usize, rows: usize) -> Page {
    let Some(job) = app.job(&d.job) else {
        let mut page = Page::default();
        page.lines.push(Line::default());
        let key = if app.status.is_some() { "dashboard.unknown_job" } else { "dashboard.waiting" };
        page.lines.push(Row::new().gap(2).text(cx.lang.f(key, &[("name", &d.job)]), cx.theme.dim).line());
        return page;
    };
    match d.pane {
        Pane::Main => main(job, d, cx, columns, rows),
        Pane::Detail => detail::page(job, d, cx, columns),
        Pane::Shards => shards::page(job, d, cx, columns, rows),
        Pane::Events => events::page(d, cx, columns, rows),
        Pane::Conflicts => conflicts::page(d, cx, columns, rows),
    }
}

/// ```text
///   ● syncing  lag 3 ms  0 B        │  ● syncing …
///   rates, charts, counters         │
/// ─ events ──────────────────────────────────────
///   14:02:11  …
/// ▲ alert
/// ```
fn main(job: &JobStatus, d: &Dashboard, cx: &Cx, columns: usize, rows: usize) -> Page {
    let mut page = Page::default();
    let most_alerts = if rows >= 26 { 6 } else { 2 };
    let alerts = alert_lines(job, columns, most_alerts, cx);
    let alert_rows = alerts.len().min(most_alerts);
    // events get a third of the page, charts what is left
    let counters = link::COUNTERS;
    let least_events = if rows < 14 { 0 } else { (rows / 3).max(3) };
    let spare = rows.saturating_sub(counters + least_events + 1 + alert_rows);
    // charts of more than one row have a free row between them
    let chart_rows = if spare < 6 { 1 } else { ((spare - 2) / 2).min(4) };
    if columns >= BESIDE {
        let half = half(columns);
        let left = link::lines(job, Direction::Forward, d, half, chart_rows, cx);
        let right = link::lines(job, Direction::Reverse, d, columns - half - 2, chart_rows, cx);
        page.lines.extend(text::beside(left, half, Span::styled("│", cx.theme.faint), right));
    } else {
        for direction in Direction::BOTH {
            page.lines.push(narrow_heading(job, direction, columns, cx));
            let mut lines = link::lines(job, direction, d, columns - 2, 1, cx);
            let room = rows.saturating_sub(alert_rows) / 2;
            lines.truncate(room.saturating_sub(1).clamp(2, 6));
            page.lines.extend(lines);
        }
    }
    let room = rows.saturating_sub(page.lines.len() + alert_rows + 1);
    if room > 0 {
        page.lines.push(section(cx.lang.t("dashboard.events"), columns, cx));
        let mut shown = 0;
        page.clickable_at(page.lines.len() - 1, 0..columns, Click::Do(Action::Events));
        for event in d.events.iter().rev().take(room) {
            page.clickable(0..columns, Click::Do(Action::Events));
            page.lines.push(events::row(event, columns, false, cx));
            shown += 1;
        }
        if shown == 0 {
            page.lines.push(Row::new().gap(2).text(cx.lang.t("dashboard.no_events"), cx.theme.dim).line());
            shown = 1;
        }
        page.lines.extend(std::iter::repeat_n(Line::default(), room - shown.min(room)));
    }
    page.lines.extend(alerts.into_iter().take(alert_rows));
    page
}

/// `── title ─────`.
pub fn section(title: &str, columns: usize, cx: &Cx) -> Line<'static> {
    let row = Row::new().text("── ", cx.theme.faint).text(title, cx.theme.strong).gap(1);
    let rest = columns.saturating_sub(row.width());
    row.text("─".repeat(rest), cx.theme.faint).line()
}

fn narrow_heading(job: &JobStatus, direction: Direction, columns: usize, cx: &Cx) -> Line<'static> {
    let (from, to) = match direction {
        Direction::Forward => (&job.source, &job.target),
        Direction::Reverse => (&job.target, &job.source),
    };
    section(
        &format!("{}  {} → {}", cx.lang.t(direction_label(direction)), text::clean(from), text::clean(to)),
        columns,
        cx,
    )
}

/// What needs somebody, in at most `rows` rows; where there is room, what to do has a row of its own.
fn alert_lines(job: &JobStatus, columns: usize, rows: usize, cx: &Cx) -> Vec<Line<'static>> {
    let mut out = Vec::new();
    let two_rows = job.alerts.len() * 2 <= rows;
    for alert in &job.alerts {
        let (glyph, tone) = severity_mark(alert.severity);
        let style = cx.theme.tone(if tone == Tone::Dim { Tone::Plain } else { tone });
        let (what, remedy) = spoken::alert(alert, job, cx.lang);
        // most sentences name their link
        let whose = alert.direction.map(|d| cx.lang.t(direction_label(d))).filter(|word| !what.contains(word));
        let whose = whose.map(|word| format!("{word} · ")).unwrap_or_default();
        let mut row = Row::new().gap(2).text(format!("{glyph} "), style).text(whose, cx.theme.dim).text(what, style);
        let fits = row.width() + text::width(cx.lang.t("colon")) + text::width(&remedy) < columns;
        if !remedy.is_empty() && (fits || !two_rows) {
            row = row.text(cx.lang.t("colon"), cx.theme.dim).text(remedy, cx.theme.text);
            out.push(row.ending(Row::new(), columns.saturating_sub(1)));
            continue;
        }
        out.push(row.ending(Row::new(), columns.saturating_sub(1)));
        if !remedy.is_empty() {
            out.push(Row::new().gap(4).text(remedy, cx.theme.text).ending(Row::new(), columns.saturating_sub(1)));
        }
    }
    if out.is_empty()
        && let Some(reason) = job.reason.as_ref().or_else(|| job.links.iter().find_map(|l| l.reason.as_ref()))
    {
        let (glyph, tone) = cx.mark(job.state);
        let style = cx.theme.tone(tone);
        let words = text::wrap(&spoken::sentence(reason, cx.lang), columns.saturating_sub(5));
        let cut = words.len() > rows;
        for (i, words) in words.into_iter().take(rows).enumerate() {
            let mark = if i == 0 { format!("{glyph} ") } else { "  ".into() };
            let more = if cut && i + 1 == rows { "…" } else { "" };
            out.push(
                Row::new()
                    .gap(2)
                    .text(mark, style)
                    .text(words + more, style)
                    .ending(Row::new(), columns.saturating_sub(1)),
            );
        }
    }
    out
}
