//! The end of step 4: the reverse link proposed with the sides swapped, what will be started, the file that is
//! written and the command line that does the same.

use super::{Launching, Purpose, Slot, Wizard};
use crate::{
    model::{ExistingKeys, Side, job::file},
    tui::{
        mouse::Click,
        text::{self, Row},
        theme::Tone,
        view::{Cx, Page},
    },
};
use ratatui::text::Line;

/// ```text
///   ● Forward link   a → b   full + incremental
///   ↓ sides swapped
///   [x] Reverse link  b → a  incremental
///   Same from a script    duplex start orders
///   Job file              ~/.config/duplex/jobs/orders.toml
///     its text …
///   buttons
/// ```
pub fn page(w: &Wizard, config: &str, cx: &Cx, columns: usize, rows: usize) -> Page {
    let (lang, theme) = (cx.lang, cx.theme);
    let mut page = Page::default();
    let inner = columns.saturating_sub(4);
    let name = w.name.value().trim();
    let (source, target) = (text::clean(&w.form(Side::Source).label()), text::clean(&w.form(Side::Target).label()));
    let label =
        ["launch.forward", "launch.reverse", "launch.script", "launch.file", "launch.secrets_label", "launch.earlier"]
            .iter()
            .map(|k| text::width(lang.t(k)))
            .max()
            .unwrap_or(0)
            + 3;
    page.lines.push(Line::default());
    page.lines.push(
        Row::new()
            .gap(2)
            .cell(lang.t("launch.forward"), label, theme.dim)
            .text("✔   ", theme.good)
            .text(format!("{source} → {target}"), theme.strong)
            .gap(3)
            .text(lang.t("init.full"), theme.good)
            .line(),
    );
    focus(&mut page, w, Slot::Reverse);
    let here = w.slot == Slot::Reverse;
    page.lines.push(
        Row::new()
            .gap(2)
            .cell(lang.t("launch.reverse"), label, theme.dim)
            .text(if w.two_way { "[x] " } else { "[ ] " }, if w.two_way { theme.accent } else { theme.dim })
            .text(format!("{target} → {source}"), if here { theme.field_focused } else { theme.strong })
            .gap(3)
            .text(
                lang.t(if w.two_way { "init.incremental" } else { "init.not_configured" }),
                if w.two_way { theme.good } else { theme.dim },
            )
            .line(),
    );
    let hint = if w.purpose == Purpose::Reverse { "launch.begin_anew" } else { "launch.reverse_hint" };
    for row in text::wrap(lang.t(hint), inner.saturating_sub(label + 4)) {
        page.lines.push(Row::new().gap(6 + label).text(row, theme.dim).line());
    }
    page.lines.push(Line::default());
    page.lines.push(
        Row::new()
            .gap(2)
            .cell(lang.t("launch.script"), label, theme.dim)
            .text(text::cut(&script(w, config, name), inner.saturating_sub(label)), theme.text)
            .line(),
    );
    page.lines.push(
        Row::new()
            .gap(2)
            .cell(lang.t("launch.file"), label, theme.dim)
            .text(text::cut(&format!("{config}/jobs/{name}.toml"), inner.saturating_sub(label)), theme.text)
            .line(),
    );
    if w.has_secrets() {
        focus(&mut page, w, Slot::Secrets);
        let here = w.slot == Slot::Secrets;
        page.lines.push(
            Row::new()
                .gap(2)
                .cell(lang.t("launch.secrets_label"), label, theme.dim)
                .text(
                    if w.write_secrets { "[x] " } else { "[ ] " },
                    if w.write_secrets { theme.accent } else { theme.dim },
                )
                .text(lang.t("launch.secrets"), if here { theme.field_focused } else { theme.text })
                .line(),
        );
        let hint = if w.write_secrets { "launch.secrets_in" } else { "launch.secrets_out" };
        for row in text::wrap(lang.t(hint), inner.saturating_sub(label + 4)) {
            page.lines
                .push(Row::new().gap(6 + label).text(row, if w.write_secrets { theme.warn } else { theme.dim }).line());
        }
    }
    if w.has_unkept() {
        page.lines.push(
            Row::new()
                .gap(2)
                .cell(if w.has_secrets() { "" } else { lang.t("launch.secrets_label") }, label, theme.dim)
                .text("▲   ", theme.warn)
                .text(lang.t("launch.unkept"), theme.text)
                .line(),
        );
        for row in text::wrap(lang.t("launch.unkept_hint"), inner.saturating_sub(label + 4)) {
            page.lines.push(Row::new().gap(6 + label).text(row, theme.dim).line());
        }
    }
    if w.asks_to_discard() {
        focus(&mut page, w, Slot::Discard);
        let here = w.slot == Slot::Discard;
        page.lines.push(
            Row::new()
                .gap(2)
                .cell(lang.t("launch.earlier"), label, theme.dim)
                .text(
                    if w.discard_previous { "[x] " } else { "[ ] " },
                    if w.discard_previous { theme.accent } else { theme.dim },
                )
                .text(lang.t("launch.discard"), if here { theme.field_focused } else { theme.text })
                .line(),
        );
        let hint = if w.discard_previous { "launch.discard_on" } else { "launch.discard_off" };
        for row in text::wrap(lang.t(hint), inner.saturating_sub(label + 4)) {
            page.lines.push(Row::new().gap(6 + label).text(row, theme.dim).line());
        }
    }
    if w.overwrites() {
        page.lines.push(Line::default());
        let key = if w.existing == ExistingKeys::Ignore { "launch.overwrites" } else { "launch.merges" };
        let keys = w.target_keys().map(text::count).unwrap_or_else(|| lang.t("unknown").into());
        let words = lang.f(key, &[("target", &target), ("keys", &keys)]);
        for (i, row) in text::wrap(&words, inner.saturating_sub(2)).into_iter().enumerate() {
            page.lines.push(
                Row::new().gap(2).text(if i == 0 { "▲ " } else { "  " }, theme.warn).text(row, theme.warn).line(),
            );
        }
        focus(&mut page, w, Slot::Confirm);
        let focused = w.slot == Slot::Confirm;
        let ask = lang.f("launch.type_name", &[("name", &name)]);
        let (field, cursor) = w.confirm.draw(30, focused, true, "", theme);
        if focused {
            page.cursor = cursor.map(|c| (page.lines.len(), 4 + text::width(&ask) + 2 + c));
        }
        page.lines.push(Row::new().gap(4).text(ask, theme.text).gap(2).append(field).line());
    }
    let end = ending(w, columns, cx);
    let start = start_button(w);
    let toml = file::to_toml(&shown_job(w), false);
    // comments that explain a value are for those who edit the file
    let toml_rows: Vec<&str> = toml
        .lines()
        .map(|row| if row.starts_with('#') { row } else { row.split(" # ").next().unwrap_or(row).trim_end() })
        .filter(|row| !row.is_empty())
        .collect();
    let room = rows.saturating_sub(page.lines.len() + end.len() + 3).min(toml_rows.len());
    if room >= 3 {
        page.lines.push(Row::new().gap(2).text("╌".repeat(inner), theme.faint).line());
        for row in toml_rows.iter().take(room) {
            let style = if row.starts_with('[') { theme.accent } else { theme.dim };
            page.lines
                .push(Row::new().gap(4).text(text::cut(&text::clean(row), inner.saturating_sub(4)), style).line());
        }
    }
    page.lines.push(Line::default());
    page.lines.extend(end);
    page.buttons(&[(Slot::Back, "button.back"), (Slot::Continue, start)], w.slot, columns, cx);
    if matches!(w.slot, Slot::Back | Slot::Continue) {
        page.focus = Some(page.lines.len() - 1);
    }
    page
}

/// The command that does the same.
fn script(w: &Wizard, config: &str, name: &str) -> String {
    // beginning anew wants the file
    if w.discard_previous && w.asks_to_discard() {
        format!("duplex start {config}/jobs/{name}.toml --discard-previous")
    } else {
        format!("duplex start {name}")
    }
}

/// The job without its secrets, for the eye.
fn shown_job(w: &Wizard) -> crate::model::Job {
    w.job()
}

fn focus(page: &mut Page, w: &Wizard, slot: Slot) {
    page.clickable(0..usize::from(u16::MAX), Click::Slot(slot));
    if w.slot == slot {
        page.focus = Some(page.lines.len());
    }
}

fn ending(w: &Wizard, columns: usize, cx: &Cx) -> Vec<Line<'static>> {
    let (lang, theme) = (cx.lang, cx.theme);
    let mut out = Vec::new();
    match &w.launching {
        Launching::No => {}
        Launching::Stopping => {
            out.push(
                Row::new().gap(2).text("◌ ", theme.busy).text(lang.t("launch.stopping"), theme.tone(Tone::Busy)).line(),
            );
        }
        Launching::WritingFile | Launching::Starting => {
            out.push(
                Row::new().gap(2).text("◌ ", theme.busy).text(lang.t("launch.starting"), theme.tone(Tone::Busy)).line(),
            );
        }
        Launching::Failed(why) => {
            for row in text::wrap(&text::clean(why), columns.saturating_sub(6)) {
                out.push(Row::new().gap(2).text("✖ ", theme.bad).text(row, theme.bad).line());
            }
            if w.stopped {
                for row in text::wrap(lang.t("launch.has_stopped"), columns.saturating_sub(6)) {
                    out.push(Row::new().gap(4).text(row, theme.warn).line());
                }
            }
        }
    }
    out
}

fn start_button(w: &Wizard) -> &'static str {
    match (w.purpose, w.stopped, w.two_way) {
        (Purpose::Reverse, false, _) => "button.stop_and_start",
        (_, _, true) => "button.start_both",
        (_, _, false) => "button.start_forward",
    }
}
