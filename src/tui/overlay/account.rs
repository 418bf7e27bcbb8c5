//! Asks for accounts that are kept nowhere, so that a job can go on after the engine was started anew.

use crate::{
    model::{AccountSource, Job, Side, secret::Inline},
    tui::{
        mouse::Click,
        text::{self, Row},
        view::{Cx, framed, put},
        widget::field::Field,
    },
};
use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};

/// One account that is missing.
#[derive(Debug)]
struct Part {
    side: Side,
    /// The sentinels' account, not the instance's.
    sentinels: bool,
    field: Field,
}

#[derive(Debug)]
pub struct AskAccount {
    job: Box<Job>,
    parts: Vec<Part>,
    at: usize,
    pub reveal: bool,
    /// It was confirmed with an empty answer.
    pub incomplete: bool,
}

fn source(job: &mut Job, side: Side, sentinels: bool) -> &mut AccountSource {
    let instance = if side == Side::Source { &mut job.source } else { &mut job.target };
    if sentinels { &mut instance.sentinel_account } else { &mut instance.account }
}

impl AskAccount {
    /// `None` where the job lacks no account.
    pub fn of(mut job: Job) -> Option<AskAccount> {
        let places = Side::BOTH.into_iter().flat_map(|side| [(side, false), (side, true)]);
        let parts: Vec<Part> = places
            .filter(|(side, sentinels)| {
                matches!(source(&mut job, *side, *sentinels), AccountSource::Inline(i) if i.is_unkept() && i.is_withheld())
            })
            .map(|(side, sentinels)| Part { side, sentinels, field: Field::secret() })
            .collect();
        let job = Box::new(job);
        (!parts.is_empty()).then_some(AskAccount { job, parts, at: 0, reveal: false, incomplete: false })
    }

    pub fn name(&self) -> &str {
        &self.job.name
    }

    pub fn field_mut(&mut self) -> Option<&mut Field> {
        self.parts.get_mut(self.at).map(|p| &mut p.field)
    }

    pub fn step(&mut self, forward: bool) {
        let n = self.parts.len();
        self.at = (self.at + if forward { 1 } else { n - 1 }) % n;
    }

    pub fn focus(&mut self, at: usize) {
        self.at = at.min(self.parts.len() - 1);
    }

    /// The job with what was typed; `None` while an answer is missing, and then the focus is there.
    pub fn answered(&mut self) -> Option<Job> {
        if let Some(at) = self.parts.iter().position(|p| p.field.is_empty()) {
            self.incomplete = at == self.at;
            self.at = at;
            return None;
        }
        let mut job = (*self.job).clone();
        for part in &self.parts {
            *source(&mut job, part.side, part.sentinels) = AccountSource::Inline(Inline::unkept(part.field.value()));
        }
        Some(job)
    }
}

pub fn draw(ask: &AskAccount, cx: &Cx, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (lang, theme) = (cx.lang, cx.theme);
    let columns = (area.width as usize).saturating_sub(10).min(66);
    let mut lines: Vec<Row> =
        text::wrap(lang.t("ask.why"), columns).into_iter().map(|row| Row::new().text(row, theme.text)).collect();
    lines.push(Row::new());
    let label = |part: &Part| {
        let instance = ask.job.instance(part.side);
        let side = lang.t(if part.side == Side::Source { "side.source" } else { "side.target" });
        let what = if part.sentinels { format!(" · {}", lang.t("form.sentinels")) } else { String::new() };
        text::clean(&format!("{side} {}{what}", instance.label()))
    };
    let widest = ask.parts.iter().map(|p| text::width(&label(p))).max().unwrap_or(0).min(columns / 2) + 2;
    let (mut cursor, mut rows) = (None, Vec::new());
    for (i, part) in ask.parts.iter().enumerate() {
        let here = i == ask.at;
        let (row, at) =
            part.field.draw(columns.saturating_sub(widest), here, ask.reveal, lang.t("form.account_hint"), theme);
        if here {
            cursor = at.map(|at| (lines.len(), widest + at));
        }
        rows.push((lines.len(), i));
        let style = if here { theme.text } else { theme.dim };
        lines.push(Row::new().cell(&text::cut(&label(part), widest - 1), widest, style).append(row));
    }
    if ask.incomplete {
        lines.push(Row::new().text(format!("✖ {}", lang.t("ask.missing")), theme.bad));
    }
    lines.push(Row::new());
    lines.extend(text::wrap(lang.t("ask.kept"), columns).into_iter().map(|row| Row::new().text(row, theme.dim)));
    let inner = framed(&lang.f("ask.title", &[("name", &ask.job.name)]), columns, lines.len(), cx, area, buf);
    for (row, i) in rows {
        cx.clickable(inner, row, 0..inner.width as usize, Click::Row(i));
    }
    for (i, row) in lines.into_iter().enumerate() {
        put(buf, inner, i, row.line());
    }
    cursor
        .filter(|(row, _)| *row < inner.height as usize)
        .map(|(row, at)| Position::new(inner.x + (at as u16).min(inner.width.saturating_sub(1)), inner.y + row as u16))
}
