//! A short list to choose one from: the answer of a field of choice.

use crate::tui::{
    app::{App, FormAt},
    mouse::Click,
    store::{AccountFrom, TlsChoice},
    text::{self, Row},
    view::{Cx, framed, put},
    widget::list::{self, Cursor},
    wizard::{
        Form, FormSlot,
        form::{KINDS, READ_FROM, read_from_label},
    },
};
use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};

#[derive(Debug, Clone)]
pub struct Pick {
    pub form: FormAt,
    pub slot: FormSlot,
    pub cursor: Cursor,
}

/// The choices of a slot, in words.
pub fn options(app: &App, slot: FormSlot) -> Vec<String> {
    let lang = app.lang;
    match slot {
        FormSlot::Instance => {
            let mut out = vec![lang.t("form.typed_below").to_owned()];
            out.extend(app.stored.inventory.instances.iter().map(|s| {
                let region = if s.region.is_empty() { String::new() } else { format!(" · {}", s.region) };
                text::clean(&format!("{}{region}   {}", s.id, s.address))
            }));
            out
        }
        FormSlot::Topology => KINDS.iter().map(|k| lang.t(k.label()).to_owned()).collect(),
        FormSlot::ReadFrom => READ_FROM.iter().map(|r| lang.t(read_from_label(*r)).to_owned()).collect(),
        FormSlot::AccountFrom | FormSlot::SentinelFrom => {
            AccountFrom::ALL.iter().map(|a| lang.t(a.label()).to_owned()).collect()
        }
        FormSlot::Tls => TlsChoice::ALL.iter().map(|t| lang.t(t.label()).to_owned()).collect(),
        _ => Vec::new(),
    }
}

/// Which of the options stands now.
pub fn present(app: &App, form: &Form, slot: FormSlot) -> usize {
    let at = match slot {
        FormSlot::Instance => form
            .chosen
            .as_ref()
            .and_then(|id| app.stored.inventory.instances.iter().position(|s| s.id == *id))
            .map(|i| i + 1),
        FormSlot::Topology => KINDS.iter().position(|k| *k == form.kind()),
        FormSlot::ReadFrom => READ_FROM.iter().position(|r| *r == form.read_from),
        FormSlot::SentinelFrom => AccountFrom::ALL.iter().position(|a| *a == form.sentinel_from),
        FormSlot::AccountFrom => AccountFrom::ALL.iter().position(|a| *a == form.account_from),
        FormSlot::Tls => TlsChoice::ALL.iter().position(|t| *t == form.tls),
        _ => None,
    };
    at.unwrap_or(0)
}

/// Sets the answer to option `at`.
pub fn choose(app: &mut App, form_at: FormAt, slot: FormSlot, at: usize) {
    let saved = at.checked_sub(1).and_then(|i| app.stored.inventory.instances.get(i).cloned());
    let Some(form) = app.form_mut(form_at) else { return };
    match slot {
        FormSlot::Instance => match saved {
            Some(saved) => *form = Form::from_saved(&saved),
            None => {
                form.chosen = None;
                form.id.set("");
                form.region.set("");
            }
        },
        FormSlot::Topology => form.set_kind(KINDS[at.min(KINDS.len() - 1)]),
        FormSlot::ReadFrom => form.read_from = READ_FROM[at.min(READ_FROM.len() - 1)],
        FormSlot::SentinelFrom => form.sentinel_from = AccountFrom::ALL[at.min(AccountFrom::ALL.len() - 1)],
        FormSlot::AccountFrom => form.account_from = AccountFrom::ALL[at.min(AccountFrom::ALL.len() - 1)],
        FormSlot::Tls => form.tls = TlsChoice::ALL[at.min(TlsChoice::ALL.len() - 1)],
        _ => {}
    }
    form.touched();
}

pub fn draw(app: &App, pick: &Pick, cx: &Cx, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let options = options(app, pick.slot);
    let title = match pick.slot {
        FormSlot::Instance => "form.instance",
        FormSlot::Topology => "form.topology",
        FormSlot::AccountFrom => "form.account_from",
        FormSlot::SentinelFrom => "form.sentinel_from",
        FormSlot::ReadFrom => "form.read_from",
        _ => "form.tls",
    };
    let columns = options.iter().map(|o| text::width(o)).max().unwrap_or(0).clamp(24, 60) + 4;
    let shown = options.len().min((area.height as usize).saturating_sub(6));
    let inner = framed(cx.lang.t(title), columns, shown, cx, area, buf);
    let at = pick.cursor.of(options.len());
    let first = list::first_row(at.unwrap_or(0), options.len(), shown);
    for (i, option) in options.iter().enumerate().skip(first).take(shown) {
        let here = at == Some(i);
        let line = Row::new().text(if here { "▌ " } else { "  " }, cx.theme.accent).cell(
            option,
            (inner.width as usize).saturating_sub(2),
            if here { cx.theme.selected } else { cx.theme.text },
        );
        cx.clickable(inner, i - first, 0..inner.width as usize, Click::Row(i));
        put(buf, inner, i - first, line.line());
    }
    None
}
