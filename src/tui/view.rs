//! Draws the application into a buffer. Pure: the same application and size give the same cells.
//!
//! ```text
//!   duplex   title                        engine ● running  EN     header
//! ──────────────────────────────────────────────────────────
//!   the page, scrolled so that the focus is seen
//!   message
//! ──────────────────────────────────────────────────────────
//!   key word  key word                          ? help  q quit     footer
//! ```

use super::{
    app::{App, EngineState, Screen},
    i18n::Lang,
    jobs, keymap,
    mouse::{Click, Zone, Zones},
    overlay, spoken,
    text::{self, Row},
    theme::{self, Theme, Tone},
    widget::list,
    wizard::{self, Purpose, Slot, Step},
};
use crate::model::{JobStatus, LinkState};
use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    style::Style,
    text::Line,
};
use std::cell::RefCell;

/// The smallest terminal that shows a screen.
pub const SMALLEST: (u16, u16) = (60, 15);

/// What every drawing function needs.
pub struct Cx<'a> {
    pub lang: Lang,
    pub theme: &'a Theme,
    pub now_ms: u64,
    pub zone: &'a jiff::tz::TimeZone,
    pub ascii: bool,
    /// The engine is away: what is shown was true when it was last heard.
    pub stale: bool,
    /// Filled while drawing: what can be clicked on.
    pub zones: RefCell<Zones>,
}

impl Cx<'_> {
    /// The row `row` of an area can be clicked on, from one column to another.
    pub fn clickable(&self, area: Rect, row: usize, columns: std::ops::Range<usize>, click: Click) {
        let zone = Rect::new(
            area.x.saturating_add(columns.start as u16),
            area.y.saturating_add(row as u16),
            columns.len() as u16,
            1,
        );
        self.zones.borrow_mut().add(zone.intersection(area), click);
    }

    /// How a key is written.
    pub fn key(&self, name: &str) -> String {
        match name {
            // this glyph has no likeness in ASCII
            "ret" if self.ascii => "Enter".into(),
            name => keymap::display(name),
        }
    }

    /// Glyph and tone of a state; without colour while it is only what was last heard.
    pub fn mark(&self, state: crate::model::LinkState) -> (&'static str, Tone) {
        if self.stale { ("◌", Tone::Dim) } else { theme::link_mark(state) }
    }
}

/// The rows between header and footer.
#[derive(Debug, Default)]
pub struct Page {
    pub lines: Vec<Line<'static>>,
    /// The row that must be seen.
    pub focus: Option<usize>,
    /// Row and column of the text cursor.
    pub cursor: Option<(usize, usize)>,
    /// What can be clicked on.
    pub zones: Vec<Zone>,
    /// The first row to show, where the page is scrolled by hand.
    pub scroll: Option<usize>,
}

impl Page {
    /// The next row can be clicked on, from one column to another.
    pub fn clickable(&mut self, columns: std::ops::Range<usize>, click: Click) {
        self.clickable_at(self.lines.len(), columns, click);
    }

    pub fn clickable_at(&mut self, row: usize, columns: std::ops::Range<usize>, click: Click) {
        self.zones.push(Zone { row, from: columns.start, to: columns.end, click });
    }

    /// Adds buttons in the middle of the page.
    pub fn buttons(&mut self, list: &[(Slot, &str)], at: Slot, columns: usize, cx: &Cx) {
        let left = columns.saturating_sub(button_row(list, at, cx).width()) / 2;
        self.button_zones(list, left, cx);
        self.lines.push(buttons(list, at, columns, cx));
    }

    /// Buttons stand in the next row, from column `left` on.
    pub fn button_zones(&mut self, list: &[(Slot, &str)], left: usize, cx: &Cx) {
        let mut from = left;
        for (slot, key) in list {
            let to = from + text::width(cx.lang.t(key)) + 4;
            self.clickable(from..to, Click::Slot(*slot));
            from = to + BUTTON_GAP;
        }
    }
}

/// Columns between two buttons.
const BUTTON_GAP: usize = 3;

/// Draws everything; where the text cursor stands, if anywhere.
pub fn view(app: &App, area: Rect, buf: &mut Buffer) -> Option<Position> {
    drawn(app, area, buf).0
}

/// What can be clicked on in a terminal of this size.
pub fn zones(app: &App, area: Rect) -> Zones {
    drawn(app, area, &mut Buffer::empty(area)).1
}

fn drawn(app: &App, area: Rect, buf: &mut Buffer) -> (Option<Position>, Zones) {
    let cx = Cx {
        lang: app.lang,
        theme: &app.theme,
        now_ms: app.now_ms,
        zone: &app.zone,
        ascii: app.ascii,
        stale: app.is_stale(),
        zones: RefCell::default(),
    };
    let cursor = if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        too_small(&cx, area, buf);
        None
    } else {
        let cursor = screen(app, &cx, area, buf);
        match app.overlays.last() {
            None => cursor,
            Some(top) => {
                cx.zones.borrow_mut().clear();
                let cursor = overlay::draw(app, top, &cx, area, buf);
                put(buf, area, area.height as usize - 1, footer(app, &cx, area));
                cursor
            }
        }
    };
    if app.ascii {
        to_ascii(app.lang, area, buf);
    }
    (cursor, cx.zones.into_inner())
}

fn too_small(cx: &Cx, area: Rect, buf: &mut Buffer) {
    let size = format!("{}x{}", area.width, area.height);
    let needed = format!("{}x{}", SMALLEST.0, SMALLEST.1);
    let lines = text::wrap(&cx.lang.f("small", &[("size", &size), ("needed", &needed)]), area.width as usize);
    let top = (area.height as usize).saturating_sub(lines.len()) / 2;
    for (i, line) in lines.iter().take(area.height as usize).enumerate() {
        let y = area.y + ((top + i) as u16).min(area.height.saturating_sub(1));
        let x = (area.width as usize).saturating_sub(text::width(line)) / 2;
        buf.set_stringn(area.x + x as u16, y, line, area.width as usize - x, cx.theme.warn);
    }
}

fn screen(app: &App, cx: &Cx, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let columns = area.width as usize;
    put(buf, area, 0, header(app, cx, area));
    let mut top = 2;
    match &app.screen {
        Screen::Jobs => put(buf, area, 1, rule(columns, cx.theme)),
        Screen::Dashboard(d) => put(buf, area, 1, super::dashboard::heading(app, d, cx, columns)),
        Screen::Wizard(w) => {
            put(buf, area, 1, stepper(w, cx, area));
            put(buf, area, 2, rule(columns, cx.theme));
            top = 3;
        }
    }
    let notices = notices(app, cx, columns);
    let rows = area.height as usize;
    let body = rows.saturating_sub(top + 2 + notices.len());
    let page = match &app.screen {
        Screen::Jobs => jobs::page(app, cx, columns, body),
        Screen::Wizard(w) => match w.step {
            Step::Endpoints => wizard::endpoints::page(w, cx, columns),
            Step::Policy => wizard::policy::page(w, cx, columns, body),
            Step::Initialization => wizard::initialization::page(w, cx, columns),
            Step::Precheck => wizard::precheck::page(w, cx, columns, body),
            Step::Launch => wizard::launch::page(w, &app.config, cx, columns, body),
        },
        Screen::Dashboard(d) => super::dashboard::page(app, d, cx, columns, body),
    };
    let total = page.lines.len();
    let first = match page.scroll {
        Some(first) => first.min(total.saturating_sub(body)),
        None => page.focus.map_or(0, |focus| list::first_row(focus, total, body)),
    };
    for (i, line) in page.lines.into_iter().skip(first).take(body).enumerate() {
        put(buf, area, top + i, line);
    }
    for zone in page.zones {
        if let Some(row) = zone.row.checked_sub(first).filter(|row| *row < body) {
            cx.clickable(area, top + row, zone.from..zone.to, zone.click);
        }
    }
    for (i, line) in notices.into_iter().enumerate() {
        put(buf, area, top + body + i, line);
    }
    let hidden = total.saturating_sub(first + body);
    let mut foot = rule(columns, cx.theme);
    if first > 0 || hidden > 0 {
        let mark = cx.lang.f("more_rows", &[("above", &first), ("below", &hidden)]);
        let mark = format!(" {mark} ");
        let left = columns.saturating_sub(text::width(&mark) + 2);
        foot = Row::new()
            .text("─".repeat(left), cx.theme.faint)
            .text(mark, cx.theme.dim)
            .text("──", cx.theme.faint)
            .line();
    }
    put(buf, area, rows - 2, foot);
    put(buf, area, rows - 1, footer(app, cx, area));
    let (row, column) = page.cursor?;
    let row = row.checked_sub(first).filter(|r| *r < body)?;
    Some(Position::new(area.x + (column as u16).min(area.width - 1), area.y + (top + row) as u16))
}

/// Puts a line into a row of the area, cut at its width.
pub fn put(buf: &mut Buffer, area: Rect, row: usize, line: Line<'static>) {
    if row < area.height as usize {
        let line =
            if text::line_width(&line) > area.width as usize { text::fit(line, area.width as usize) } else { line };
        buf.set_line(area.x, area.y + row as u16, &line, area.width);
    }
}

pub fn rule(columns: usize, theme: &Theme) -> Line<'static> {
    Line::styled("─".repeat(columns), theme.faint)
}

fn header(app: &App, cx: &Cx, area: Rect) -> Line<'static> {
    let (lang, theme) = (cx.lang, cx.theme);
    let columns = area.width as usize;
    let left = Row::new().gap(2).text("duplex", theme.accent).gap(3);
    let mut right = match &app.screen {
        Screen::Jobs => Row::new(),
        Screen::Wizard(w) => Row::new().text(lang.f("wizard.step", &[("n", &w.step.number())]), theme.dim),
        Screen::Dashboard(d) => super::dashboard::range_mark(d, cx),
    };
    let range_columns = right.width();
    let engine = engine_mark(app, cx);
    if engine.width() > 0 {
        let gap = if right.width() > 0 { 3 } else { 0 };
        right = right.gap(gap).append(engine);
    }
    if app.readonly {
        right = right.gap(3).text(lang.t("readonly.mark"), theme.warn);
    }
    right = right.gap(3).text(lang.tag(), theme.dim).gap(2);
    let tag = columns.saturating_sub(text::width(lang.tag()) + 2);
    cx.clickable(area, 0, tag..columns, Click::Do(keymap::Action::Language));
    if matches!(app.screen, Screen::Dashboard(_)) {
        let range = columns.saturating_sub(right.width());
        cx.clickable(area, 0, range..range + range_columns, Click::Do(keymap::Action::Range));
    }
    let room = columns.saturating_sub(left.width() + right.width() + 2);
    let middle = match &app.screen {
        Screen::Jobs => Row::new().text(lang.t("jobs.title"), theme.strong),
        Screen::Wizard(w) => {
            let title = match w.purpose {
                Purpose::Reverse => "wizard.title_reverse",
                Purpose::Look => "wizard.title_look",
                Purpose::Configure => "wizard.title",
            };
            Row::new().text(lang.t(title), theme.strong)
        }
        Screen::Dashboard(d) => super::dashboard::title(app, d, cx, room),
    };
    left.append(middle).ending(right, columns)
}

fn engine_mark(app: &App, cx: &Cx) -> Row {
    let (lang, theme) = (cx.lang, cx.theme);
    let quiet = !matches!(app.screen, Screen::Jobs);
    match &app.engine {
        EngineState::Up { .. } if quiet => Row::new(),
        EngineState::Up { .. } => Row::new()
            .text(format!("{} ", lang.t("engine.word")), theme.dim)
            .text("● ", theme.good)
            .text(lang.t("engine.up"), theme.text),
        EngineState::Connecting => Row::new().text("◌ ", theme.busy).text(lang.t("engine.connecting"), theme.dim),
        EngineState::Starting => Row::new().text("◌ ", theme.busy).text(lang.t("engine.starting"), theme.dim),
        EngineState::Down { .. } => Row::new().text("✖ ", theme.bad).text(lang.t("engine.down"), theme.bad),
        EngineState::Refused(_) => Row::new().text("✖ ", theme.bad).text(lang.t("engine.refused"), theme.bad),
    }
}

/// `① Source and target ── ② Policy …`, the present one named in full where not all fit.
fn stepper(w: &wizard::Wizard, cx: &Cx, area: Rect) -> Line<'static> {
    let columns = area.width as usize;
    let names = ["wizard.step1", "wizard.step2", "wizard.step3", "wizard.step4"];
    let full: usize = names.iter().map(|n| text::width(cx.lang.t(n)) + 2).sum();
    let fits = full + 3 * 3 + 2 <= columns;
    let bar = if fits { (columns.saturating_sub(4 + full) / 3).saturating_sub(2).clamp(1, 6) } else { 2 };
    let now = w.step.number() as usize;
    let mut row = Row::new().gap(2);
    for (i, name) in names.iter().enumerate() {
        let n = i + 1;
        let (glyph, glyph_style, style) = match n {
            n if n < now => ("✔", cx.theme.good, cx.theme.text),
            n if n == now => (["①", "②", "③", "④"][i], cx.theme.accent, cx.theme.strong),
            _ => (["①", "②", "③", "④"][i], cx.theme.dim, cx.theme.dim),
        };
        let from = row.width();
        row = row.text(glyph, glyph_style);
        if fits || n == now {
            row = row.text(format!(" {}", cx.lang.t(name)), style);
        }
        if n < now {
            let step = [Step::Endpoints, Step::Policy, Step::Initialization][i];
            cx.clickable(area, 1, from..row.width(), Click::Step(step));
        }
        if n < names.len() {
            row = row.text(format!(" {} ", "─".repeat(bar)), cx.theme.faint);
        }
    }
    row.line()
}

/// What has to be said above the footer: the engine is gone, a message.
fn notices(app: &App, cx: &Cx, columns: usize) -> Vec<Line<'static>> {
    let (lang, theme) = (cx.lang, cx.theme);
    let mut out = Vec::new();
    let inner = columns.saturating_sub(6);
    let mut say = |tone: Tone, glyph: &str, words: &str, most: usize| {
        for (i, row) in text::wrap(&text::clean(words), inner).into_iter().take(most).enumerate() {
            let mark = if i == 0 { format!("{glyph} ") } else { "  ".into() };
            out.push(Row::new().gap(2).text(mark, theme.tone(tone)).text(row, theme.tone(tone)).line());
        }
    };
    match &app.engine {
        EngineState::Down { since_ms, why } => {
            let since = text::seconds(app.now_ms.saturating_sub(*since_ms) / 1000);
            let key = if app.readonly { "engine.gone_readonly" } else { "engine.gone" };
            say(Tone::Bad, "✖", &lang.f(key, &[("since", &since), ("why", &spoken::sentence(why, lang))]), 3);
        }
        EngineState::Refused(failure) => {
            say(Tone::Bad, "✖", &failure.message, 2);
            if !failure.remedy.is_empty() {
                say(Tone::Plain, " ", &failure.remedy, 2);
            }
        }
        _ => {}
    }
    if let Some(toast) = &app.toast {
        let glyph = match toast.tone {
            Tone::Bad => "✖",
            Tone::Warn => "▲",
            Tone::Good => "✔",
            _ => "·",
        };
        // why something failed, and what to do, is seldom said in two rows
        say(toast.tone, glyph, &toast.text, if toast.tone == Tone::Bad { 3 } else { 2 });
    }
    out
}

/// Hints of the keys that hold now; help and quit always fit. A click on one does the same.
fn footer(app: &App, cx: &Cx, area: Rect) -> Line<'static> {
    let columns = area.width as usize;
    let bottom = (area.height as usize).saturating_sub(1);
    let (contexts, typing) = app.contexts();
    let mut seen = Vec::new();
    let mut row = Row::new().gap(2);
    let hint = |key: &str, label: &str| {
        Row::new().text(cx.key(key), cx.theme.accent).gap(1).text(cx.lang.t(label), cx.theme.dim)
    };
    let mut last = Row::new();
    let mut last_zones = Vec::new();
    for binding in keymap::BINDINGS.iter().filter(|b| b.footer && b.context == keymap::Context::Global) {
        if let Some(key) = usable(binding, typing) {
            let from = last.width() + 2;
            last = last.gap(2).append(hint(key, binding.label));
            last_zones.push((from..last.width(), binding.action));
        }
    }
    if contexts.first() == Some(&keymap::Context::Help) {
        (last, last_zones) = (Row::new(), Vec::new());
    }
    let left = columns.saturating_sub(last.width() + 2);
    for (zone, action) in last_zones {
        cx.clickable(area, bottom, left + zone.start..left + zone.end, Click::Do(action));
    }
    let room = columns.saturating_sub(last.width() + 2);
    for context in contexts.iter().filter(|c| **c != keymap::Context::Global) {
        let of = |b: &keymap::Binding| b.context == *context;
        let here = |b: &&keymap::Binding| of(b) && b.footer;
        // what brings a job that stands still on its way again is never what a narrow screen leaves out
        let first = |b: &&keymap::Binding| of(b) && (label_now(b, app) != b.label || shows_what_failed(b, app));
        let (before, after) = (keymap::BINDINGS.iter().filter(first), keymap::BINDINGS.iter().filter(here));
        for binding in before.chain(after) {
            if seen.contains(&binding.action)
                || (app.readonly && binding.action.changes())
                || !makes_sense(binding.action, app)
            {
                continue;
            }
            let no_way_back =
                matches!(&app.screen, Screen::Wizard(w) if w.step.previous().is_none() || w.purpose == Purpose::Look);
            if binding.action == keymap::Action::Previous && no_way_back {
                continue;
            }
            let Some(key) = usable(binding, typing) else { continue };
            seen.push(binding.action);
            let next = hint(key, label_now(binding, app));
            if row.width() + next.width() + 2 > room {
                continue;
            }
            let from = row.width();
            row = row.append(next);
            cx.clickable(area, bottom, from..row.width(), Click::Do(binding.action));
            row = row.gap(2);
        }
    }
    row.ending(last.gap(2), columns)
}

/// The job that the keys of the screen are about.
fn job_here(app: &App) -> Option<&JobStatus> {
    match &app.screen {
        Screen::Dashboard(d) => app.job(&d.job),
        _ => match app.selected_entry() {
            Some(jobs::Entry::Known(job)) => Some(job),
            _ => None,
        },
    }
}

/// The words of a binding as the job stands.
fn label_now(binding: &keymap::Binding, app: &App) -> &'static str {
    use LinkState::{Failed, NotConfigured, Paused, PrecheckFailed};
    match (binding.action, job_here(app).map(|job| job.state)) {
        (keymap::Action::PauseResume, Some(Paused)) => "action.resume",
        (keymap::Action::PauseResume, Some(Failed | PrecheckFailed | NotConfigured)) => "action.retry",
        _ => binding.label,
    }
}

/// The items of a precheck that failed, which say what to do, are behind this key.
fn shows_what_failed(binding: &keymap::Binding, app: &App) -> bool {
    binding.action == keymap::Action::Precheck && job_here(app).is_some_and(|j| j.state == LinkState::PrecheckFailed)
}

/// Whether the footer offers an action as things stand; what it does not offer answers why not.
fn makes_sense(action: keymap::Action, app: &App) -> bool {
    use keymap::Action as A;
    let ended = job_here(app).is_some_and(|job| job.state == LinkState::Ended);
    let running = matches!(action, A::PauseResume | A::Stop);
    if !matches!(app.screen, Screen::Jobs) || !app.overlays.is_empty() {
        return !(running && ended);
    }
    match app.selected_entry() {
        Some(jobs::Entry::Known(_)) => !(running && ended),
        Some(jobs::Entry::Draft(_)) => !running,
        None => !matches!(action, A::Configure | A::PauseResume | A::Stop | A::Filter),
    }
}

/// The key of a binding that works while a field has, or has not, the focus.
fn usable(binding: &keymap::Binding, typing: bool) -> Option<&'static str> {
    binding.keys.iter().copied().find(|k| !typing || k.chars().count() > 1 && *k != "space")
}

/// Buttons in the middle of the page.
pub fn buttons(list: &[(Slot, &str)], at: Slot, columns: usize, cx: &Cx) -> Line<'static> {
    let row = button_row(list, at, cx);
    let left = columns.saturating_sub(row.width()) / 2;
    Row::new().gap(left).append(row).line()
}

pub fn button_row(list: &[(Slot, &str)], at: Slot, cx: &Cx) -> Row {
    let mut row = Row::new();
    for (i, (slot, key)) in list.iter().enumerate() {
        let focused = *slot == at;
        let (edge, style) = if focused {
            (cx.theme.accent, cx.theme.field_focused.patch(cx.theme.strong))
        } else {
            (cx.theme.faint, cx.theme.text)
        };
        row = row
            .gap(if i > 0 { BUTTON_GAP } else { 0 })
            .text("[", edge)
            .text(format!(" {} ", cx.lang.t(key)), style)
            .text("]", edge);
    }
    row
}

/// A framed box in the middle of the screen; what lies under it stays, dimmed. Gives the area inside the frame.
pub fn framed(title: &str, columns: usize, rows: usize, cx: &Cx, area: Rect, buf: &mut Buffer) -> Rect {
    for y in area.top()..area.bottom() {
        for x in area.left()..area.right() {
            buf[(x, y)].set_style(Style::reset());
            buf[(x, y)].set_style(cx.theme.faint);
        }
    }
    let width = (columns as u16 + 4).min(area.width.saturating_sub(2)).max(4);
    let height = (rows as u16 + 2).min(area.height.saturating_sub(2)).max(3);
    let outer = Rect::new(
        area.x + (area.width.saturating_sub(width)) / 2,
        area.y + (area.height.saturating_sub(height)) / 2,
        width,
        height,
    );
    let inner = width as usize - 2;
    // wide characters that the box cuts in half leave no half behind
    for y in outer.top()..outer.bottom() {
        if outer.x > area.x && text::width(buf[(outer.x - 1, y)].symbol()) > 1 {
            buf[(outer.x - 1, y)].set_symbol(" ");
        }
        for x in outer.left()..outer.right() {
            buf[(x, y)].reset();
        }
    }
    let title = text::cut(&format!(" {} ", text::clean(title)), inner.saturating_sub(2));
    let frame = cx.theme.accent;
    let top = Row::new()
        .text("╭─", frame)
        .text(title.clone(), cx.theme.strong)
        .text("─".repeat(inner.saturating_sub(1 + text::width(&title))), frame)
        .text("╮", frame);
    buf.set_line(outer.x, outer.y, &top.line(), width);
    for y in outer.y + 1..outer.bottom() - 1 {
        buf.set_string(outer.x, y, "│", frame);
        buf.set_string(outer.right() - 1, y, "│", frame);
    }
    buf.set_string(outer.x, outer.bottom() - 1, format!("╰{}╯", "─".repeat(inner)), frame);
    Rect::new(outer.x + 2, outer.y + 1, width.saturating_sub(4), height - 2)
}

/// Replaces every glyph by an ASCII one; letters stay where the terminal's language needs them.
fn to_ascii(lang: Lang, area: Rect, buf: &mut Buffer) {
    for y in area.top()..area.bottom() {
        for x in area.left()..area.right() {
            let cell = &mut buf[(x, y)];
            let symbol = cell.symbol();
            if symbol.is_ascii() {
                continue;
            }
            match theme::ascii(symbol) {
                Some(plain) => _ = cell.set_symbol(plain),
                None if lang == Lang::En => {
                    let stand_in = "?".repeat(text::width(symbol).max(1));
                    cell.set_symbol(&stand_in);
                }
                None => {}
            }
        }
    }
}
