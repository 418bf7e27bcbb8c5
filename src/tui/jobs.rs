//! The list of jobs: each with its two links, their states and lag, and the drafts that wait to be finished.

use super::{
    app::App,
    keymap::Action,
    mouse::Click,
    spoken,
    store::Draft,
    text::{self, Row},
    theme::Tone,
    view::{Cx, Page},
    widget::{field::Field, list::Cursor},
};
use crate::model::{Direction, JobStatus, LinkState, LinkStatus};
use ratatui::text::Line;

#[derive(Debug, Default)]
pub struct JobList {
    pub cursor: Cursor,
    pub filter: Field,
    /// The filter has the focus.
    pub filtering: bool,
}

/// A job that the engine knows, or a draft.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    Known(&'a JobStatus),
    Draft(&'a Draft),
}

impl Entry<'_> {
    pub fn name(&self) -> &str {
        match self {
            Entry::Known(job) => &job.name,
            Entry::Draft(draft) => &draft.name,
        }
    }
}

impl App {
    /// What the list shows, filtered: jobs first, then drafts.
    pub fn entries(&self) -> Vec<Entry<'_>> {
        let wanted = self.jobs.filter.value().to_lowercase();
        let mut out: Vec<Entry<'_>> = Vec::new();
        let known = self.status.iter().flat_map(|s| &s.jobs);
        out.extend(known.clone().map(Entry::Known));
        out.extend(self.stored.drafts.iter().filter(|d| !known.clone().any(|j| j.name == d.name)).map(Entry::Draft));
        out.retain(|entry| {
            wanted.is_empty()
                || match entry {
                    Entry::Known(j) => {
                        [&j.name, &j.source, &j.target].iter().any(|t| t.to_lowercase().contains(&wanted))
                    }
                    Entry::Draft(d) => [&d.name, &d.source.address, &d.target.address, &d.source.id, &d.target.id]
                        .iter()
                        .any(|t| t.to_lowercase().contains(&wanted)),
                }
        });
        out
    }

    /// The entry under the cursor.
    pub fn selected_entry(&self) -> Option<Entry<'_>> {
        let entries = self.entries();
        self.jobs.cursor.of(entries.len()).map(|at| entries[at])
    }
}

/// The locale key of a state.
pub fn state_label(state: LinkState) -> String {
    format!("state.{}", state.as_str())
}

/// How far a link's first copy is, in percent.
pub fn snapshot_percent(link: &LinkStatus) -> Option<u64> {
    let s = link.snapshot.as_ref()?;
    let share = |done: u64, total: Option<u64>| {
        total.filter(|t| *t > 0).map(|t| (done.min(t) as u128 * 100 / t as u128) as u64)
    };
    share(s.keys_done, s.keys_total).or_else(|| share(s.bytes_done, s.bytes_total))
}

struct Widths {
    name: usize,
    link: usize,
    ends: usize,
    state: usize,
    lag: usize,
    rate: usize,
}

impl Widths {
    fn new(app: &App, cx: &Cx, columns: usize) -> Widths {
        let inner = columns.saturating_sub(4);
        let longest = app.entries().iter().map(|e| text::width(e.name())).max().unwrap_or(0);
        let link = text::width(cx.lang.t("direction.forward")).max(text::width(cx.lang.t("direction.reverse"))) + 2;
        let state = if columns < 76 { 18 } else { 19 };
        let lag = 7;
        let mut rate = if columns >= 100 { text::width(cx.lang.t("jobs.rate")) + 2 } else { 0 };
        let name = longest.clamp(8, if columns < 76 { 12 } else { 22 }) + 2;
        let ends = inner.saturating_sub(name + link + state + lag + rate).min(60);
        if rate > 0 {
            // what a wide screen has left stands before the last column, which ends at the margin
            rate = inner.saturating_sub(name + link + ends + state + lag);
        }
        Widths { name, link, ends, state, lag, rate }
    }
}

/// ```text
///   NAME     LINK     SOURCE → TARGET     STATE       LAG
/// ▌ orders   forward  a → b               ● syncing   3 ms
/// ▌          reverse  b → a               ● syncing   4 ms
///
///   3 jobs · 2 links synchronizing · 1 needs you
/// ```
pub fn page(app: &App, cx: &Cx, columns: usize, rows: usize) -> Page {
    let entries = app.entries();
    let mut page = Page::default();
    let (lang, theme) = (cx.lang, cx.theme);
    if app.jobs.filtering || !app.jobs.filter.is_empty() {
        let (field, cursor) = app.jobs.filter.draw(36.min(columns - 20), app.jobs.filtering, true, "", theme);
        let label = lang.t("filter");
        page.cursor = cursor.map(|c| (0, 2 + text::width(label) + 2 + c));
        page.lines.push(Row::new().gap(2).text(label, theme.dim).gap(2).append(field).line());
    }
    if entries.is_empty() && app.jobs.filter.is_empty() {
        return empty(app, cx, columns, rows);
    }
    let w = Widths::new(app, cx, columns);
    let mut head = Row::new()
        .gap(2)
        .cell(lang.t("jobs.name"), w.name, theme.dim)
        .cell(lang.t("jobs.link"), w.link, theme.dim)
        .cell(lang.t("jobs.ends"), w.ends, theme.dim)
        .cell(lang.t("jobs.state"), w.state, theme.dim)
        .right(lang.t("jobs.lag"), w.lag, theme.dim);
    if w.rate > 0 {
        head = head.right(lang.t("jobs.rate"), w.rate, theme.dim);
    }
    page.lines.push(head.line());
    let selected = app.jobs.cursor.of(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        let here = selected == Some(i);
        if here {
            page.focus = Some(page.lines.len());
        }
        let rows: Vec<Line<'static>> = match entry {
            Entry::Known(job) => {
                let row = |(n, direction)| link_row(job, direction, n == 0, here, &w, cx);
                Direction::BOTH.into_iter().enumerate().map(row).collect()
            }
            Entry::Draft(draft) => draft_rows(draft, here, &w, cx),
        };
        for n in 0..rows.len() {
            page.clickable_at(page.lines.len() + n, 0..columns, Click::Row(i));
        }
        let mark = |row| if here { text::selected(row, columns, theme.selected) } else { row };
        page.lines.extend(rows.into_iter().map(mark));
    }
    if entries.is_empty() {
        page.lines.push(Row::new().gap(2).text(lang.t("jobs.no_match"), theme.dim).line());
    }
    page.lines.push(Line::default());
    page.lines.push(summary(app, cx).ending(Row::new(), columns.saturating_sub(2)));
    page
}

fn link_row(job: &JobStatus, direction: Direction, first: bool, here: bool, w: &Widths, cx: &Cx) -> Line<'static> {
    let (lang, theme) = (cx.lang, cx.theme);
    let (from, to) = match direction {
        Direction::Forward => (&job.source, &job.target),
        Direction::Reverse => (&job.target, &job.source),
    };
    let link = job.links.iter().find(|l| l.direction == direction);
    let state = link.map_or(LinkState::NotConfigured, |l| l.state);
    let (glyph, tone) = cx.mark(state);
    let mut word = lang.t(&state_label(state)).to_owned();
    if state == LinkState::Initializing
        && let Some(percent) = link.and_then(snapshot_percent)
    {
        word = format!("{word} {percent}%");
    }
    // while initializing the time left is what one waits for; then the lag
    let lag = match link {
        Some(l) if state == LinkState::Initializing => l
            .snapshot
            .as_ref()
            .and_then(|s| s.seconds_left)
            .map(|s| text::seconds(s).replace(' ', ""))
            .unwrap_or_default(),
        Some(_) if cx.stale => String::new(),
        Some(l)
            if matches!(
                state,
                LinkState::Synchronizing | LinkState::Lagging | LinkState::CatchingUp | LinkState::Reconnecting
            ) =>
        {
            l.lag_ms.map(text::millis).unwrap_or_else(|| lang.t("unknown").into())
        }
        _ => String::new(),
    };
    let strong = theme.strong;
    let ends_style = if state == LinkState::NotConfigured { theme.dim } else { theme.text };
    let ends = if state == LinkState::NotConfigured && direction == Direction::Reverse && !job.two_way {
        String::new()
    } else {
        text::ends(from, to, w.ends.saturating_sub(2))
    };
    let mut row = Row::new()
        .text(if here { "▌ " } else { "  " }, theme.accent)
        .cell(&if first { text::cut(&job.name, w.name - 2) } else { String::new() }, w.name, strong)
        .cell(lang.t(direction_label(direction)), w.link, theme.dim)
        .cell(&text::cut(&ends, w.ends.saturating_sub(2)), w.ends, ends_style)
        .text(format!("{glyph} "), theme.tone(tone))
        .cell(&text::cut(&word, w.state - 3), w.state - 2, if tone == Tone::Dim { theme.dim } else { theme.tone(tone) })
        .right(&lag, w.lag, if state == LinkState::Lagging { theme.warn } else { theme.text });
    if w.rate > 0 {
        let rate = link.and_then(|l| l.changes_per_second).map(|r| format!("{}/s", text::short(r))).unwrap_or_default();
        row = row.right(&rate, w.rate, theme.dim);
    }
    row.line()
}

fn draft_rows(draft: &Draft, here: bool, w: &Widths, cx: &Cx) -> Vec<Line<'static>> {
    let (lang, theme) = (cx.lang, cx.theme);
    let label = |saved: &super::store::Saved| {
        let name = if saved.id.is_empty() { &saved.address } else { &saved.id };
        if name.is_empty() { "?".to_owned() } else { text::clean(name) }
    };
    let ends = format!("{} → {}", label(&draft.source), label(&draft.target));
    let step = lang.f("jobs.draft", &[("step", &draft.step)]);
    vec![
        Row::new()
            .text(if here { "▌ " } else { "  " }, theme.accent)
            .cell(&text::cut(&draft.name, w.name - 2), w.name, theme.strong)
            .cell(lang.t("direction.forward"), w.link, theme.dim)
            .cell(&text::cut(&ends, w.ends.saturating_sub(2)), w.ends, theme.dim)
            .text("○ ", theme.dim)
            .text(step, theme.dim)
            .line(),
        Row::new()
            .text(if here { "▌ " } else { "  " }, theme.accent)
            .cell("", w.name, theme.dim)
            .cell(lang.t("direction.reverse"), w.link, theme.dim)
            .cell("", w.ends, theme.dim)
            .text("○ ", theme.dim)
            .text(lang.t("state.not_configured"), theme.dim)
            .line(),
    ]
}

/// The locale key of a direction.
pub fn direction_label(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "direction.forward",
        Direction::Reverse => "direction.reverse",
    }
}

fn summary(app: &App, cx: &Cx) -> Row {
    let (lang, theme) = (cx.lang, cx.theme);
    let jobs: Vec<&JobStatus> = app.status.iter().flat_map(|s| &s.jobs).collect();
    let syncing = jobs.iter().flat_map(|j| &j.links).filter(|l| l.state == LinkState::Synchronizing).count();
    let mut row = Row::new()
        .gap(2)
        .text(lang.f("jobs.summary", &[("jobs", &app.entries().len()), ("links", &syncing)]), theme.dim);
    let urgent: Vec<&&JobStatus> = jobs
        .iter()
        .filter(|j| {
            matches!(
                j.state,
                LinkState::Failed | LinkState::PrecheckFailed | LinkState::Lagging | LinkState::Reconnecting
            ) || !j.alerts.is_empty()
        })
        .collect();
    if let Some(first) = urgent.iter().max_by_key(|j| j.state.urgency()) {
        let why = first
            .alerts
            .first()
            .map(|a| spoken::alert(a, first, lang).0)
            .or_else(|| first.reason.clone())
            .or_else(|| first.links.iter().find_map(|l| l.reason.clone()))
            .map(|why| spoken::sentence(&why, lang))
            .unwrap_or_else(|| lang.t(&state_label(first.state)).into());
        row = row.text(" · ", theme.dim).text(
            lang.f("jobs.needs_you", &[("n", &urgent.len()), ("name", &first.name), ("why", &text::clean(&why))]),
            theme.warn,
        );
    }
    row
}

/// What stands where no job is: the way to the first one.
fn empty(app: &App, cx: &Cx, columns: usize, rows: usize) -> Page {
    let (lang, theme) = (cx.lang, cx.theme);
    let mut lines: Vec<(Row, usize)> = Vec::new();
    let mut add = |row: Row| {
        let w = row.width();
        lines.push((row, w));
    };
    if app.status.is_none() && !app.is_up() {
        add(Row::new().text(lang.t("jobs.waiting"), theme.dim));
    } else {
        add(Row::new().text("●", theme.good).text(" ──→ ", theme.faint).text("●", theme.chart_lag));
        add(Row::new().text("●", theme.good).text(" ←── ", theme.faint).text("●", theme.chart_lag));
        add(Row::new());
        add(Row::new().text(lang.t("jobs.empty"), theme.strong));
        for row in text::wrap(lang.t("jobs.empty_hint"), columns.saturating_sub(12).min(64)) {
            add(Row::new().text(row, theme.dim));
        }
        add(Row::new());
        if !app.readonly {
            add(Row::new()
                .text("[", theme.accent)
                .text(format!(" {} ", lang.t("jobs.empty_button")), theme.field_focused.patch(theme.strong))
                .text("]", theme.accent)
                .gap(2)
                .text("n", theme.accent)
                .text(format!(" {} ", lang.t("or")), theme.dim)
                .text(cx.key("ret"), theme.accent));
        }
    }
    let top = rows.saturating_sub(lines.len()) / 2;
    let count = lines.len();
    let mut page = Page::default();
    page.lines.extend(std::iter::repeat_n(Line::default(), top));
    for (row, w) in lines {
        let left = columns.saturating_sub(w) / 2;
        if row.width() > 0 && page.lines.len() + 1 == top + count && !app.readonly {
            page.clickable(left..left + w, Click::Do(Action::NewJob));
        }
        page.lines.push(Row::new().gap(columns.saturating_sub(w) / 2).append(row).line());
    }
    page
}
