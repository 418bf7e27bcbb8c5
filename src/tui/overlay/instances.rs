//! The inventory of instances: a list, and the form to add or edit one.

use crate::tui::{
    app::App,
    mouse::Click,
    text::{self, Row},
    view::{Cx, framed, put},
    widget::{
        field::Field,
        list::{self, Cursor},
    },
    wizard::{Form, FormSlot},
};
use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};

/// An instance that is added or edited.
#[derive(Debug, Default)]
pub struct InstanceForm {
    pub form: Form,
    pub slot: Option<FormSlot>,
    /// The id under which it was known.
    pub was: Option<String>,
}

impl InstanceForm {
    pub fn new(form: Form, was: Option<String>) -> InstanceForm {
        InstanceForm { form, slot: Some(FormSlot::Id), was }
    }

    pub fn field_mut(&mut self) -> Option<&mut Field> {
        self.form.field_mut(self.slot?)
    }

    pub fn is_typing(&self) -> bool {
        self.slot.is_some_and(|s| !s.is_choice())
    }

    pub fn step(&mut self, forward: bool) {
        let slots = self.form.slots(true);
        let at = slots.iter().position(|s| Some(*s) == self.slot).unwrap_or(0);
        let next = if forward { at + 1 } else { at + slots.len() - 1 };
        self.slot = slots.get(next % slots.len()).copied();
    }
}

pub fn draw_list(app: &App, at: Cursor, cx: &Cx, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (lang, theme) = (cx.lang, cx.theme);
    let list = &app.stored.inventory.instances;
    let columns = (area.width as usize).saturating_sub(8).min(84);
    let shown = list.len().max(3).min((area.height as usize).saturating_sub(8));
    let inner = framed(lang.t("instances.title"), columns, shown + 2, cx, area, buf);
    let (id, region, topology) = (20, 16, 12);
    let address = (inner.width as usize).saturating_sub(2 + id + region + topology + 5).max(8);
    put(
        buf,
        inner,
        0,
        Row::new()
            .gap(2)
            .cell(lang.t("form.id"), id, theme.dim)
            .cell(lang.t("form.region"), region, theme.dim)
            .cell(lang.t("form.address"), address, theme.dim)
            .cell(lang.t("form.topology"), topology, theme.dim)
            .cell(lang.t("form.tls"), 5, theme.dim)
            .line(),
    );
    let cursor = at.of(list.len());
    let first = list::first_row(cursor.unwrap_or(0), list.len(), shown);
    for (i, saved) in list.iter().enumerate().skip(first).take(shown) {
        let here = cursor == Some(i);
        cx.clickable(inner, 1 + i - first, 0..inner.width as usize, Click::Row(i));
        let cell = |t: &str, w: usize| text::pad(&text::cut(&text::clean(t), w.saturating_sub(1)), w);
        put(
            buf,
            inner,
            1 + i - first,
            Row::new()
                .text(if here { "▌ " } else { "  " }, theme.accent)
                .text(cell(&saved.id, id), if here { theme.selected } else { theme.text })
                .text(cell(&saved.region, region), theme.dim)
                .text(cell(&saved.address, address), theme.text)
                .text(cell(lang.t(crate::tui::wizard::form::topology_label(saved.topology)), topology), theme.dim)
                .text(if saved.tls == crate::tui::store::TlsChoice::Off { "" } else { "✔" }, theme.good)
                .line(),
        );
    }
    if list.is_empty() {
        put(buf, inner, 2, Row::new().gap(2).text(lang.t("instances.empty"), theme.dim).line());
    }
    None
}

pub fn draw_form(f: &InstanceForm, cx: &Cx, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let columns = (area.width as usize).saturating_sub(12).min(60);
    let form = f.form.draw(f.slot, true, false, columns, cx.lang, cx.theme);
    let hint = text::wrap(cx.lang.t("instances.no_secrets"), columns);
    let title = if f.was.is_some() { "instances.edit" } else { "instances.add" };
    let inner = framed(cx.lang.t(title), columns, form.lines.len() + 1 + hint.len(), cx, area, buf);
    // in a low terminal the part that has the focus is what is shown
    let total = form.lines.len();
    let shown = inner.height as usize;
    let first = list::first_row(form.focus.unwrap_or(0), total, shown.min(total));
    for (row, slot) in &form.slots {
        if let Some(row) = row.checked_sub(first) {
            cx.clickable(inner, row, 0..inner.width as usize, Click::Form(*slot));
        }
    }
    for (i, line) in form.lines.into_iter().skip(first).enumerate() {
        put(buf, inner, i, line);
    }
    for (i, row) in hint.into_iter().enumerate() {
        put(buf, inner, total + 1 + i - first.min(total + 1), Row::new().text(row, cx.theme.dim).line());
    }
    let cursor = form.cursor.and_then(|(row, column)| Some((row.checked_sub(first)?, column)));
    cursor.filter(|(row, _)| *row < inner.height as usize).map(|(row, column)| {
        Position::new(inner.x + (column as u16).min(inner.width.saturating_sub(1)), inner.y + row as u16)
    })
}
