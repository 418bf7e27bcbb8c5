//! Step 4: the items of the precheck as they come in, each with what was seen, why it matters and what to do.

use super::{Purpose, Slot, Wizard};
use crate::{
    model::{Check, CheckId, CheckReport, CheckState, Job, Side},
    tui::{
        mouse::Click,
        spoken,
        text::{self, Row},
        theme::{Tone, check_mark},
        view::{Cx, Page},
        widget::{bar, list},
    },
};
use ratatui::text::Line;
use std::collections::BTreeSet;

/// The results of a run and what the operator did with them.
#[derive(Debug, Default)]
pub struct Pane {
    pub items: Vec<Check>,
    pub cursor: list::Cursor,
    pub accepted: BTreeSet<CheckId>,
    /// Answers to other runs are late ones.
    pub run: u32,
    pub running: bool,
    /// The run itself failed, such as by a lost engine.
    pub failure: Option<String>,
    /// The cursor was moved by hand: it no longer follows what failed.
    pub moved: bool,
    /// The job as it was checked last: other answers need another run.
    pub of: Option<Box<Job>>,
}

impl Pane {
    /// A run of all items, or of `only`, begins.
    pub fn begin(&mut self, run: u32, only: Option<&[CheckId]>) {
        self.run = run;
        self.running = true;
        self.failure = None;
        match only {
            None => {
                self.items = CheckId::ALL.into_iter().map(pending).collect();
                self.accepted.clear();
                self.moved = false;
            }
            Some(ids) => {
                for id in ids {
                    self.accepted.remove(id);
                    self.replace(*id, vec![pending(*id)]);
                }
            }
        }
    }

    /// One item's result, or that it has begun.
    pub fn take(&mut self, check: Check) {
        let unfinished = |state| matches!(state, CheckState::Pending | CheckState::Running);
        let rows = self.items.iter().filter(|c| c.id == check.id).count();
        let other_side = self
            .items
            .iter()
            .any(|c| c.id == check.id && !unfinished(c.state) && !unfinished(check.state) && c.side != check.side);
        if rows > 0 && other_side {
            let at = self.items.iter().rposition(|c| c.id == check.id).map_or(self.items.len(), |p| p + 1);
            self.items.insert(at, check);
        } else {
            self.replace(check.id, vec![check]);
        }
        self.follow();
    }

    /// The end of a run.
    pub fn finish(&mut self, report: CheckReport) {
        self.running = false;
        let mut ids: Vec<CheckId> = report.items.iter().map(|c| c.id).collect();
        ids.dedup();
        for id in ids {
            let rows: Vec<Check> = report.items.iter().filter(|c| c.id == id).cloned().collect();
            self.replace(id, rows);
        }
        // items that this engine does not know were never run
        self.items.retain(|c| !matches!(c.state, CheckState::Pending | CheckState::Running));
        self.follow();
    }

    fn replace(&mut self, id: CheckId, rows: Vec<Check>) {
        let at = self.items.iter().position(|c| c.id == id).unwrap_or(self.items.len());
        self.items.retain(|c| c.id != id);
        for (i, row) in rows.into_iter().enumerate() {
            self.items.insert((at + i).min(self.items.len()), row);
        }
    }

    /// Until it is moved by hand, the cursor stands on the most urgent item.
    fn follow(&mut self) {
        if self.moved {
            return;
        }
        let urgent = |state: CheckState| match state {
            CheckState::Failed => 3,
            CheckState::Warning => 2,
            _ => 0,
        };
        let mut best = 0;
        for (i, item) in self.items.iter().enumerate() {
            if urgent(item.state) > urgent(self.items[best].state) {
                best = i;
            }
        }
        self.cursor.at = best;
    }

    pub fn count(&self, state: CheckState) -> usize {
        self.items.iter().filter(|c| c.state == state).count()
    }

    pub fn selected(&self) -> Option<&Check> {
        self.cursor.of(self.items.len()).and_then(|at| self.items.get(at))
    }

    /// Whether an earlier run left control keys behind.
    pub fn left_behind(&self) -> bool {
        self.items
            .iter()
            .any(|c| c.id == CheckId::ControlKeys && matches!(c.state, CheckState::Warning | CheckState::Failed))
    }

    /// The items to run again: those that failed, and those that were skipped because of them.
    pub fn failed(&self) -> Vec<CheckId> {
        let ids: BTreeSet<CheckId> = self
            .items
            .iter()
            .filter(|c| matches!(c.state, CheckState::Failed | CheckState::Skipped))
            .map(|c| c.id)
            .collect();
        ids.into_iter().collect()
    }

    /// Why the job can't start yet, by locale key; `None` where it can.
    pub fn obstacle(&self) -> Option<&'static str> {
        if self.running {
            return Some("precheck.still_running");
        }
        if self.items.is_empty() {
            return Some("precheck.not_run");
        }
        if self.items.iter().any(|c| !matches!(c.state, CheckState::Passed | CheckState::Warning)) {
            return Some("precheck.blocked");
        }
        if self.items.iter().any(|c| c.state == CheckState::Warning && !self.accepted.contains(&c.id)) {
            return Some("precheck.unaccepted");
        }
        None
    }
}

fn pending(id: CheckId) -> Check {
    Check {
        id,
        state: CheckState::Pending,
        side: None,
        seen: String::new(),
        why: String::new(),
        remedy: String::new(),
        took_ms: 0,
    }
}

/// Rows below which the detail of an item takes most of the page.
const LOW: usize = 12;

/// The locale key of an item's title.
pub fn title(id: CheckId) -> String {
    format!("check.{}", id.as_str())
}

/// ```text
///   Precheck  ■■■■■■■■  17 of 19     1 failed · 2 warnings
///   ✔ item        what was seen
/// ▌ ✖ item        what was seen
///   ─ item ─────────────────────
///     Seen …  Why …  Do …
/// ```
pub fn page(w: &Wizard, cx: &Cx, columns: usize, rows: usize) -> Page {
    let (lang, theme) = (cx.lang, cx.theme);
    let pane = &w.precheck;
    let mut page = Page::default();
    let total = pane.items.len();
    let done = total - pane.count(CheckState::Pending) - pane.count(CheckState::Running);
    let (failed, warned) = (pane.count(CheckState::Failed), pane.count(CheckState::Warning));
    let tone = if failed > 0 {
        Tone::Bad
    } else if warned > 0 {
        Tone::Warn
    } else {
        Tone::Good
    };
    let share = if total == 0 { 0.0 } else { done as f64 / total as f64 };
    let verdict = match (pane.running, &pane.failure, failed) {
        (_, Some(failure), _) => Row::new().text(text::clean(failure), theme.bad),
        (true, None, _) => Row::new().text(lang.t("precheck.running"), theme.busy),
        (false, None, 0) if total > 0 && pane.count(CheckState::Skipped) == 0 => {
            Row::new().text("✔ ", theme.good).text(lang.t("precheck.passed"), theme.good)
        }
        (false, None, _) if total > 0 => Row::new().text("✖ ", theme.bad).text(lang.t("precheck.failed"), theme.bad),
        _ => Row::new(),
    };
    let mut counts = Row::new();
    for (n, key, style) in [(failed, "precheck.n_failed", theme.bad), (warned, "precheck.n_warnings", theme.warn)] {
        if n > 0 {
            counts = counts.text(" · ", theme.dim).text(lang.f(key, &[("n", &n)]), style);
        }
    }
    let bar_columns = (columns / 4).clamp(8, 30);
    page.lines.push(
        Row::new()
            .gap(2)
            .append(bar::draw(bar_columns, share, tone, theme))
            .gap(2)
            .text(lang.f("precheck.of", &[("done", &done), ("total", &total)]), theme.dim)
            .gap(3)
            .append(verdict)
            .append(counts)
            .line(),
    );
    page.lines.push(Line::default());

    let selected = pane.selected();
    let room = rows.saturating_sub(page.lines.len() + 1);
    let told = |parts: &[&str]| {
        selected.map(|c| detail(c, pane.accepted.contains(&c.id), columns, parts, cx)).unwrap_or_default()
    };
    // the list gets what the detail leaves, mostly a third at least; what to do is never left out
    let mut detail = told(&["heading", "precheck.seen", "precheck.why", "precheck.do"]);
    let mut detail_rows = room * 2 / 3;
    for parts in [&["heading", "precheck.seen", "precheck.do"][..], &["precheck.seen", "precheck.do"], &["precheck.do"]]
    {
        if detail.len() > detail_rows && room < LOW {
            detail_rows = room.saturating_sub(1);
            if detail.len() > detail_rows {
                detail = told(parts);
            }
        }
    }
    let detail_rows = detail.len().min(detail_rows);
    let shown = room.saturating_sub(detail_rows).max(1);
    let at = pane.cursor.of(total).unwrap_or(0);
    let first = list::first_row(at, total, shown);
    let title_columns =
        CheckId::ALL.iter().map(|id| text::width(lang.t(&title(*id)))).max().unwrap_or(20).min(columns / 2) + 2;
    for (i, check) in pane.items.iter().enumerate().skip(first).take(shown) {
        let here = i == at && w.slot == Slot::Items;
        let (glyph, tone) = check_mark(check.state);
        let accepted = check.state == CheckState::Warning && pane.accepted.contains(&check.id);
        let name = match check.state {
            CheckState::Pending => theme.dim,
            _ if here => theme.selected,
            _ => theme.text,
        };
        let seen = match check.state {
            CheckState::Running => lang.t("precheck.measuring").to_owned(),
            CheckState::Pending => String::new(),
            _ => spoken::check(check, lang).map_or_else(|| text::clean(&check.seen), |(words, _)| text::clean(&words)),
        };
        let seen_style = match check.state {
            CheckState::Failed => theme.bad,
            CheckState::Warning if !accepted => theme.warn,
            _ => theme.dim,
        };
        let mark = if accepted { lang.t("precheck.accepted") } else { "" };
        let tail = Row::new().text(if mark.is_empty() { String::new() } else { format!(" {mark} ") }, theme.good);
        let row = Row::new()
            .text(if here { "▌ " } else { "  " }, theme.accent)
            .text(format!("{glyph} "), theme.tone(tone))
            .cell(lang.t(&title(check.id)), title_columns, name)
            .text(seen, seen_style)
            .ending(tail, columns.saturating_sub(2));
        page.clickable(0..columns, Click::Row(i));
        page.lines.push(if here { text::selected(row, columns, theme.selected) } else { row });
    }
    for _ in pane.items.len().min(shown)..shown {
        page.lines.push(Line::default());
    }
    page.lines.extend(detail.into_iter().take(detail_rows));
    let obstacle = match pane.obstacle() {
        Some(_) if pane.running => Row::new(),
        Some(key) => Row::new().text(lang.t(key), theme.dim),
        None => Row::new().text("✔ ", theme.good).text(lang.t("precheck.go_on"), theme.text),
    };
    let on = if w.purpose == Purpose::Look { "button.to_job" } else { "button.summary" };
    let list = [(Slot::Back, "button.back"), (Slot::Continue, on)];
    let list = if w.purpose == Purpose::Look { &list[1..] } else { &list[..] };
    let row = crate::tui::view::button_row(list, w.slot, cx);
    page.button_zones(list, columns.saturating_sub(2 + row.width()), cx);
    page.lines.push(Row::new().gap(2).append(obstacle).ending(row, columns.saturating_sub(2)));
    page
}

fn detail(check: &Check, accepted: bool, columns: usize, parts: &[&str], cx: &Cx) -> Vec<Line<'static>> {
    let (lang, theme) = (cx.lang, cx.theme);
    if matches!(check.state, CheckState::Pending) {
        return Vec::new();
    }
    let heading = match check.side {
        Some(Side::Source) => format!("{} · {}", lang.t(&title(check.id)), lang.t("side.source")),
        Some(Side::Target) => format!("{} · {}", lang.t(&title(check.id)), lang.t("side.target")),
        None => lang.t(&title(check.id)).to_owned(),
    };
    let inner = columns.saturating_sub(4);
    let mut out = Vec::new();
    if parts.contains(&"heading") {
        out.push(
            Row::new()
                .gap(2)
                .text("── ", theme.faint)
                .text(heading.clone(), theme.strong)
                .text(format!(" {}", "─".repeat(inner.saturating_sub(text::width(&heading) + 4))), theme.faint)
                .line(),
        );
    }
    let label =
        ["precheck.seen", "precheck.why", "precheck.do"].iter().map(|k| text::width(lang.t(k))).max().unwrap_or(4) + 3;
    let part = |key: &str, value: &str| {
        let rows = text::wrap(&text::clean(value), inner.saturating_sub(label + 2));
        let style = if key == "precheck.do" { theme.strong } else { theme.text };
        let line = |(i, row)| {
            Row::new().gap(4).cell(if i == 0 { lang.t(key) } else { "" }, label, theme.dim).text(row, style).line()
        };
        rows.into_iter().enumerate().map(line).collect::<Vec<_>>()
    };
    let own = [("precheck.seen", &check.seen), ("precheck.why", &check.why), ("precheck.do", &check.remedy)];
    let own = own.into_iter().filter(|(key, value)| !value.is_empty() && parts.contains(key));
    match (spoken::check(check, lang), lang.engine("original")) {
        (Some((seen, advice)), Some(original)) => {
            out.extend(part("precheck.seen", &seen));
            out.extend(advice.iter().flat_map(|advice| part("precheck.do", advice)));
            out.push(Row::new().gap(4).text(original, theme.dim).line());
            for (_, value) in own {
                for row in text::wrap(&text::clean(value), inner.saturating_sub(4)) {
                    out.push(Row::new().gap(6).text(row, theme.dim).line());
                }
            }
        }
        _ => out.extend(own.flat_map(|(key, value)| part(key, value))),
    }
    if check.state == CheckState::Warning {
        let key = if accepted { "precheck.is_accepted" } else { "precheck.accept_hint" };
        out.push(Row::new().gap(4).cell("", label, theme.dim).text(lang.t(key), theme.dim).line());
    }
    out
}
