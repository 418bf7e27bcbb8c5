//! Step 2: what happens on conflict, what to do with keys that the target holds, which databases are synchronized.

use super::{Slot, Wizard};
use crate::{
    model::{ExistingKeys, Side},
    tui::{
        mouse::Click,
        text::{self, Row},
        view::{Cx, Page},
        widget::list,
    },
};
use ratatui::text::Line;

/// Databases offered where the server does not say how many it has.
const USUAL_DATABASES: u32 = 16;

pub const EXISTING: [(ExistingKeys, &str, &str); 3] = [
    (ExistingKeys::Block, "existing.block", "existing.block_hint"),
    (ExistingKeys::Ignore, "existing.ignore", "existing.ignore_hint"),
    (ExistingKeys::Merge, "existing.merge", "existing.merge_hint"),
];

impl Wizard {
    /// Source databases with their keys: those that hold any, and those that are selected; all of the first sixteen
    /// where none holds any.
    pub fn source_databases(&self) -> Vec<(u32, u64)> {
        let probe = self.form(Side::Source).probe();
        let mut found: Vec<(u32, u64)> = probe.map(|p| p.databases.clone()).unwrap_or_default();
        let count = probe.and_then(|p| p.database_count).unwrap_or(USUAL_DATABASES).min(USUAL_DATABASES);
        for db in (0..count).chain(self.databases.iter().flatten().copied()) {
            if !found.iter().any(|(d, _)| *d == db) {
                found.push((db, 0));
            }
        }
        found.sort_unstable();
        found
    }

    /// What stands in the left box.
    pub fn available_databases(&self) -> Vec<(u32, u64)> {
        match &self.databases {
            None => Vec::new(),
            Some(list) => self.source_databases().into_iter().filter(|(db, _)| !list.contains(db)).collect(),
        }
    }

    /// What stands in the right box.
    pub fn selected_databases(&self) -> Vec<(u32, u64)> {
        match &self.databases {
            // with all of them selected, those that hold keys are worth a row
            None => {
                let all = self.source_databases();
                let held: Vec<_> = all.iter().copied().filter(|(_, keys)| *keys > 0).collect();
                if held.is_empty() { all.into_iter().take(1).collect() } else { held }
            }
            Some(list) => self.source_databases().into_iter().filter(|(db, _)| list.contains(db)).collect(),
        }
    }

    /// Moves the database under the cursor to the other box.
    pub fn transfer(&mut self) {
        match self.slot {
            Slot::Available => {
                let rows = self.available_databases();
                if let (Some(at), Some(list)) = (self.available.of(rows.len()), self.databases.as_mut()) {
                    list.push(rows[at].0);
                    list.sort_unstable();
                }
            }
            Slot::Selected => {
                let rows = self.selected_databases();
                let Some(at) = self.selected.of(rows.len()) else { return };
                let out = rows[at].0;
                // leaving one out of all is choosing the others that hold keys
                let mut list = self.databases.take().unwrap_or_else(|| rows.iter().map(|(db, _)| *db).collect());
                list.retain(|db| *db != out);
                self.databases = Some(list);
            }
            _ => {}
        }
    }

    /// All databases, or back to a choice of those that hold keys.
    pub fn toggle_all(&mut self) {
        self.databases = match self.databases {
            None => Some(self.selected_databases().into_iter().map(|(db, _)| db).collect()),
            Some(_) => None,
        };
    }
}

/// ```text
///   SOURCE      Redis 7.0.15, sees us as 10.9.8.7
///   Conflict resolution   (•) Overwrite   …
///   Existing keys         (•) …  ( ) …  ( ) …
///   SOURCE DATABASES        SELECTED
///   ╭ box ╮  →  ╭ box ╮
///   buttons
/// ```
pub fn page(w: &Wizard, cx: &Cx, columns: usize, rows: usize) -> Page {
    let (lang, theme) = (cx.lang, cx.theme);
    let mut page = Page::default();
    let inner = columns.saturating_sub(4);
    for side in Side::BOTH {
        if let Some(found) = super::endpoints::found_line(w.form(side), side, inner, cx) {
            page.lines.push(Row::new().gap(2).append(found).line());
        }
    }
    page.lines.push(Line::default());
    let label = (text::width(lang.t("policy.conflict")).max(text::width(lang.t("policy.existing"))) + 3).min(inner / 2);
    let option = EXISTING.iter().map(|(_, l, _)| text::width(lang.t(l))).max().unwrap_or(0) + 6;
    page.lines.push(
        Row::new()
            .gap(2)
            .cell(lang.t("policy.conflict"), label, theme.dim)
            .text("(•) ", theme.accent)
            .cell(lang.t("policy.overwrite"), option - 4, theme.text)
            .text(lang.t("policy.overwrite_hint"), theme.dim)
            .line(),
    );
    if w.slot == Slot::Existing {
        page.focus = Some(page.lines.len());
    }
    for (i, (value, name, hint)) in EXISTING.iter().enumerate() {
        let on = w.existing == *value;
        let focused = w.slot == Slot::Existing && on;
        let title = if i == 0 { lang.t("policy.existing") } else { "" };
        let hint_style = match (on, value) {
            (_, ExistingKeys::Block) => theme.dim,
            (true, _) => theme.warn,
            (false, _) => theme.dim,
        };
        let mark = if *value == ExistingKeys::Ignore { "⚠ " } else { "" };
        page.clickable(0..columns, Click::Existing(*value));
        page.lines.push(
            Row::new()
                .gap(2)
                .cell(title, label, theme.dim)
                .text(if on { "(•) " } else { "( ) " }, if on { theme.accent } else { theme.dim })
                .cell(lang.t(name), option - 4, if focused { theme.field_focused } else { theme.text })
                .text(format!("{mark}{}", lang.t(hint)), hint_style)
                .line(),
        );
    }
    if w.existing != ExistingKeys::Block {
        let held = match w.target_keys() {
            Some(0) => (lang.t("policy.target_empty").to_owned(), theme.dim),
            Some(keys) => (lang.f("policy.target_holds", &[("keys", &text::count(keys))]), theme.warn),
            None => (lang.t("policy.target_unknown").to_owned(), theme.dim),
        };
        page.lines.push(Row::new().gap(2 + label).text(held.0, held.1).line());
    }
    page.lines.push(Line::default());

    let box_columns = ((inner.saturating_sub(5)) / 2).min(44);
    let used = page.lines.len() + 3;
    let box_rows = rows.saturating_sub(used + 2).clamp(3, 12);
    let left = w.available_databases();
    let right = w.selected_databases();
    let total = left.len() + w.databases.as_ref().map_or(right.len(), Vec::len);
    let selected_title = match &w.databases {
        None => lang.t("policy.selected_all").to_owned(),
        Some(list) => lang.f("policy.selected_some", &[("n", &list.len())]),
    };
    let available_title = lang.f("policy.available", &[("n", &left.len()), ("total", &total)]);
    let left_box = database_box(
        &available_title,
        &left,
        w.available,
        w.slot == Slot::Available,
        box_columns,
        box_rows,
        lang.t("policy.none_left"),
        cx,
    );
    let right_box = database_box(
        &selected_title,
        &right,
        w.selected,
        w.slot == Slot::Selected,
        box_columns,
        box_rows,
        lang.t("policy.none_selected"),
        cx,
    );
    page.lines.push(
        Row::new()
            .gap(2)
            .cell(lang.t("policy.source_databases"), box_columns, theme.strong)
            .gap(5)
            .text(lang.t("policy.selected"), theme.strong)
            .line(),
    );
    let top = page.lines.len();
    if matches!(w.slot, Slot::Available | Slot::Selected) {
        page.focus = Some(top + box_rows / 2);
    }
    let middle = box_rows / 2;
    for (slot, cursor, len, from) in
        [(Slot::Available, w.available, left.len(), 2), (Slot::Selected, w.selected, right.len(), 2 + box_columns + 5)]
    {
        let first = list::first_row(cursor.of(len).unwrap_or(0), len, box_rows);
        for i in (0..box_rows).filter(|i| first + i < len) {
            page.clickable_at(top + 1 + i, from..from + box_columns, Click::Database(slot, first + i));
        }
    }
    for (i, (l, r)) in left_box.into_iter().zip(right_box).enumerate() {
        let arrow = match i {
            i if i == middle && w.slot == Slot::Available => Row::new().text("  →  ", theme.accent),
            i if i == middle => Row::new().text("  →  ", theme.faint),
            i if i == middle + 1 && w.slot == Slot::Selected => Row::new().text("  ←  ", theme.accent),
            i if i == middle + 1 => Row::new().text("  ←  ", theme.faint),
            _ => Row::new().gap(5),
        };
        page.lines.push(Row::new().gap(2).append(l).append(arrow).append(r).line());
    }
    page.buttons(&[(Slot::Back, "button.back"), (Slot::Continue, "button.continue")], w.slot, columns, cx);
    if matches!(w.slot, Slot::Back | Slot::Continue) {
        page.focus = Some(page.lines.len() - 1);
    }
    page
}

#[allow(clippy::too_many_arguments)]
fn database_box(
    title: &str,
    rows: &[(u32, u64)],
    cursor: list::Cursor,
    focused: bool,
    columns: usize,
    shown: usize,
    empty: &str,
    cx: &Cx,
) -> Vec<Row> {
    let theme = cx.theme;
    let frame = if focused { theme.accent } else { theme.faint };
    let inner = columns.saturating_sub(2);
    let title = text::cut(&format!(" {title} "), inner.saturating_sub(1));
    let mut out = vec![
        Row::new()
            .text("╭─", frame)
            .text(title.clone(), if focused { theme.text } else { theme.dim })
            .text("─".repeat(inner.saturating_sub(1 + text::width(&title))), frame)
            .text("╮", frame),
    ];
    let at = cursor.of(rows.len());
    let first = list::first_row(at.unwrap_or(0), rows.len(), shown);
    for i in 0..shown {
        let body = match rows.get(first + i) {
            Some((db, keys)) => {
                let here = focused && at == Some(first + i);
                let style = if here { theme.selected } else { theme.text };
                let keys_text = if *keys == 0 { "0".to_owned() } else { text::count(*keys) };
                let keys_style = if here { theme.selected } else { theme.dim };
                Row::new()
                    .text(if here { "▌ " } else { "  " }, theme.accent)
                    .cell(&format!("db{db}"), 7, style)
                    .right(&keys_text, inner.saturating_sub(11), keys_style)
                    .text("  ", keys_style)
            }
            None if rows.is_empty() && i == shown / 2 => {
                Row::new().gap(2).cell(empty, inner.saturating_sub(2), theme.dim)
            }
            None => Row::new().gap(inner),
        };
        let mut row = Row::new().text("│", frame).append(body);
        let missing = (inner + 1).saturating_sub(row.width());
        row = row.gap(missing).text("│", frame);
        out.push(row);
    }
    out.push(Row::new().text(format!("╰{}╯", "─".repeat(inner)), frame));
    out
}
