//! The shards of both links: where each stream stands.

use super::Dashboard;
use crate::{
    model::JobStatus,
    tui::{
        jobs::{direction_label, state_label},
        mouse::Click,
        text::{self, Row},
        view::{Cx, Page},
        widget::list,
    },
};

/// ```text
///   LINK     SHARD            STATE      LAG   APPLIED OF RECEIVED     STREAM
/// ▌ forward  10.0.0.1:6379    ● syncing  3 ms  88,120,441 −0           8f2c…
/// ```
pub fn page(job: &JobStatus, d: &Dashboard, cx: &Cx, columns: usize, rows: usize) -> Page {
    let (lang, theme) = (cx.lang, cx.theme);
    let mut page = Page::default();
    let shards: Vec<_> = job.links.iter().flat_map(|l| l.shards.iter().map(move |s| (l, s))).collect();
    let wide = columns >= 100;
    let address = shards.iter().map(|(_, s)| text::width(&s.address)).max().unwrap_or(8).clamp(8, 28) + 2;
    let link = 10;
    let state = 18;
    let offset = if wide { 18 } else { 15 };
    page.lines.push(
        Row::new()
            .gap(2)
            .cell(lang.t("shards.link"), link, theme.dim)
            .cell(lang.t("shards.shard"), address, theme.dim)
            .cell(lang.t("shards.state"), state, theme.dim)
            .right(lang.t("shards.lag"), 8, theme.dim)
            .right(lang.t("shards.applied"), offset, theme.dim)
            .right(lang.t("shards.behind"), 10, theme.dim)
            .gap(2)
            .text(if wide { lang.t("shards.stream") } else { "" }, theme.dim)
            .line(),
    );
    let at = d.cursor.of(shards.len());
    let shown = rows.saturating_sub(4).max(1);
    let first = list::first_row(at.unwrap_or(0), shards.len(), shown);
    for (i, (l, s)) in shards.iter().enumerate().skip(first).take(shown) {
        let here = at == Some(i);
        let shard_state = s.state.unwrap_or(l.state);
        let (glyph, tone) = cx.mark(shard_state);
        let unknown = || lang.t("unknown").to_owned();
        let behind = match (s.offset_received, s.offset_applied) {
            (Some(received), Some(applied)) => text::bytes(received.saturating_sub(applied)),
            _ => unknown(),
        };
        let row = Row::new()
            .text(if here { "▌ " } else { "  " }, theme.accent)
            .cell(lang.t(direction_label(l.direction)), link, theme.dim)
            .cell(&text::clean(&s.address), address, if here { theme.selected } else { theme.text })
            .text(format!("{glyph} "), theme.tone(tone))
            .cell(lang.t(&state_label(shard_state)), state - 2, theme.tone(tone))
            .right(&s.lag_ms.map(text::millis).unwrap_or_else(unknown), 8, theme.text)
            .right(&s.offset_applied.map(text::count).unwrap_or_else(unknown), offset, theme.text)
            .right(&behind, 10, theme.dim)
            .gap(2)
            .text(if wide { s.replid.clone().unwrap_or_default() } else { String::new() }, theme.dim)
            .line();
        page.clickable(0..columns, Click::Row(i));
        page.lines.push(if here { text::selected(row, columns, theme.selected) } else { row });
    }
    if shards.is_empty() {
        page.lines.push(Row::new().gap(2).text(lang.t("shards.none"), theme.dim).line());
    }
    if let Some((_, s)) = at.and_then(|at| shards.get(at)) {
        page.lines.push(super::section(&text::clean(&s.address), columns, cx));
        let replid = s.replid.clone().unwrap_or_else(|| lang.t("unknown").into());
        page.lines.push(
            Row::new().gap(2).text(format!("{}  ", lang.t("shards.stream")), theme.dim).text(replid, theme.text).line(),
        );
        if let Some(slots) = &s.slots {
            page.lines.push(
                Row::new()
                    .gap(2)
                    .text(format!("{}  ", lang.t("shards.slots")), theme.dim)
                    .text(text::clean(slots), theme.text)
                    .line(),
            );
        }
    }
    page
}
