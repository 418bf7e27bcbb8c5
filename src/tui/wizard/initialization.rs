//! Step 3: what is copied first, and which links there will be.

use super::{Slot, Wizard};
use crate::{
    model::Side,
    tui::{
        mouse::Click,
        text::{self, Row},
        view::{Cx, Page},
    },
};
use ratatui::text::Line;

/// ```text
///   Forward link   a → b   full + incremental
///                  explained
///   Reverse link   b → a   incremental
///                  explained
///   Links          (•) both ways  ( ) forward only
///   Options        [ ] … [ ] …  limit
///   buttons
/// ```
pub fn page(w: &Wizard, cx: &Cx, columns: usize) -> Page {
    let (lang, theme) = (cx.lang, cx.theme);
    let mut page = Page::default();
    let inner = columns.saturating_sub(4);
    let (source, target) = (w.form(Side::Source).label(), w.form(Side::Target).label());
    let label = ["init.forward", "init.reverse", "init.links", "init.options", "init.limit"]
        .iter()
        .map(|k| text::width(lang.t(k)))
        .max()
        .unwrap_or(0)
        + 3;
    let wide = inner.saturating_sub(label);
    page.lines.push(Line::default());
    let links = [
        ("init.forward", format!("{source} → {target}"), "init.full", "init.full_hint", true),
        ("init.reverse", format!("{target} → {source}"), "init.incremental", "init.incremental_hint", w.two_way),
    ];
    for (title, ends, how, hint, on) in links {
        let (name, value) = if on { (theme.strong, theme.good) } else { (theme.dim, theme.dim) };
        let how = if on { lang.t(how) } else { lang.t("init.not_configured") };
        page.lines.push(
            Row::new()
                .gap(2)
                .cell(lang.t(title), label, theme.dim)
                .text(text::cut(&text::clean(&ends), wide.saturating_sub(text::width(how) + 3)), name)
                .gap(3)
                .text(how, value)
                .line(),
        );
        for row in text::wrap(lang.t(hint), wide) {
            page.lines.push(Row::new().gap(2 + label).text(row, theme.dim).line());
        }
        page.lines.push(Line::default());
    }
    let marked = |at: Slot| if w.slot == at { theme.field_focused } else { theme.text };
    let focus = |page: &mut Page, at: Slot| {
        if w.slot == at {
            page.focus = Some(page.lines.len());
        }
    };
    focus(&mut page, Slot::TwoWay);
    for (i, (on, key)) in [(w.two_way, "init.two_way"), (!w.two_way, "init.one_way")].into_iter().enumerate() {
        page.clickable(0..columns, Click::TwoWay(i == 0));
        page.lines.push(
            Row::new()
                .gap(2)
                .cell(if i == 0 { lang.t("init.links") } else { "" }, label, theme.dim)
                .text(if on { "(•) " } else { "( ) " }, if on { theme.accent } else { theme.dim })
                .text(lang.t(key), if on { marked(Slot::TwoWay) } else { theme.text })
                .line(),
        );
    }
    page.lines.push(Line::default());
    let options = [
        (Slot::Flush, w.forward_flush, "init.flush", "init.flush_hint"),
        (Slot::Resnapshot, w.allow_resnapshot, "init.resnapshot", "init.resnapshot_hint"),
        (Slot::ShowValues, w.show_values, "init.show_values", "init.show_values_hint"),
    ];
    for (i, (slot, on, key, hint)) in options.into_iter().enumerate() {
        focus(&mut page, slot);
        page.clickable(0..columns, Click::Slot(slot));
        page.lines.push(
            Row::new()
                .gap(2)
                .cell(if i == 0 { lang.t("init.options") } else { "" }, label, theme.dim)
                .text(if on { "[x] " } else { "[ ] " }, if on { theme.accent } else { theme.dim })
                .text(lang.t(key), marked(slot))
                .line(),
        );
        if on || w.slot == slot {
            for row in text::wrap(lang.t(hint), wide.saturating_sub(4)) {
                page.lines.push(Row::new().gap(6 + label).text(row, if on { theme.warn } else { theme.dim }).line());
            }
        }
    }
    focus(&mut page, Slot::MaxOps);
    let focused = w.slot == Slot::MaxOps;
    let (field, cursor) = w.max_ops.draw(16, focused, true, "0", theme);
    if focused {
        page.cursor = cursor.map(|c| (page.lines.len(), 2 + label + c));
    }
    page.clickable(0..columns, Click::Slot(Slot::MaxOps));
    let hint = if w.max_ops_value().is_none() {
        Row::new().text(format!("✖ {}", lang.t("fault.number")), theme.bad)
    } else {
        Row::new().text(lang.t("init.limit_hint"), theme.dim)
    };
    page.lines.push(
        Row::new()
            .gap(2)
            .cell(lang.t("init.limit"), label, if focused { theme.text } else { theme.dim })
            .append(field)
            .gap(2)
            .append(hint)
            .line(),
    );
    page.lines.push(Line::default());
    page.buttons(&[(Slot::Back, "button.back"), (Slot::Continue, "button.continue")], w.slot, columns, cx);
    if matches!(w.slot, Slot::Back | Slot::Continue) {
        page.focus = Some(page.lines.len() - 1);
    }
    page
}
