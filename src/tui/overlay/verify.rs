//! A verification while it runs, and what it found.

use crate::{
    control::protocol::VerifyOutcome,
    tui::{
        text::{self, Row},
        theme::Tone,
        view::{Cx, framed, put},
        widget::{
            bar,
            list::{self, Cursor},
        },
    },
};
use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};

#[derive(Debug)]
pub struct Verify {
    pub job: String,
    pub repair: bool,
    pub state: VerifyState,
    pub cursor: Cursor,
}

#[derive(Debug)]
pub enum VerifyState {
    Running { text: String, done: u64, total: Option<u64> },
    Done(Box<VerifyOutcome>),
    Failed(String),
}

impl Verify {
    pub fn new(job: String, repair: bool) -> Verify {
        let state = VerifyState::Running { text: String::new(), done: 0, total: None };
        Verify { job, repair, state, cursor: Cursor::default() }
    }

    /// Whether there is something to repair.
    pub fn differs(&self) -> bool {
        matches!(&self.state, VerifyState::Done(o) if !o.equal)
    }
}

pub fn draw(v: &Verify, cx: &Cx, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (lang, theme) = (cx.lang, cx.theme);
    let columns = (area.width as usize).saturating_sub(10).min(76);
    let mut lines: Vec<Row> = Vec::new();
    match &v.state {
        VerifyState::Running { text, done, total } => {
            let share = total.filter(|t| *t > 0).map_or(0.0, |t| *done as f64 / t as f64);
            let counts = match total {
                Some(total) => format!("{} / {}", text::count(*done), text::count(*total)),
                None => text::count(*done),
            };
            let bar_columns = columns.saturating_sub(text::width(&counts) + 2);
            lines.push(bar::draw(bar_columns, share, Tone::Busy, theme).gap(2).text(counts, theme.text));
            let words = if text.is_empty() { lang.t("verify.running").to_owned() } else { text::clean(text) };
            lines.push(Row::new().text(text::cut(&words, columns), theme.dim));
            lines.push(Row::new());
            lines
                .extend(text::wrap(lang.t("verify.leave"), columns).into_iter().map(|r| Row::new().text(r, theme.dim)));
        }
        VerifyState::Failed(why) => {
            lines.extend(text::wrap(&text::clean(why), columns).into_iter().map(|r| Row::new().text(r, theme.bad)));
        }
        VerifyState::Done(o) => {
            let compared = lang.f(
                "verify.compared",
                &[("keys", &text::count(o.keys_compared)), ("time", &text::millis((o.seconds * 1000.0) as u64))],
            );
            lines.push(if o.equal {
                Row::new()
                    .text("✔ ", theme.good)
                    .text(lang.t("verify.equal"), theme.good)
                    .gap(2)
                    .text(compared, theme.dim)
            } else {
                Row::new()
                    .text("✖ ", theme.bad)
                    .text(lang.t("verify.differs"), theme.bad)
                    .gap(2)
                    .text(compared, theme.dim)
            });
            lines.push(Row::new().text(
                lang.f(
                    "verify.counts",
                    &[
                        ("differing", &text::count(o.differing)),
                        ("source", &text::count(o.missing_at_source)),
                        ("target", &text::count(o.missing_at_target)),
                    ],
                ),
                theme.text,
            ));
            if o.repaired > 0 {
                lines.push(Row::new().text(lang.f("verify.repaired", &[("n", &text::count(o.repaired))]), theme.good));
            }
            let room = (area.height as usize).saturating_sub(lines.len() + 8).min(o.examples.len());
            if room > 0 {
                lines.push(Row::new());
                let at = v.cursor.of(o.examples.len()).unwrap_or(0);
                let first = list::first_row(at, o.examples.len(), room);
                let key = columns * 3 / 5;
                for (i, d) in o.examples.iter().enumerate().skip(first).take(room) {
                    lines.push(
                        Row::new()
                            .text(if i == at { "▌ " } else { "  " }, theme.accent)
                            .cell(
                                &text::cut(&format!("db{} {}", d.db, text::clean(&d.key)), key - 3),
                                key - 2,
                                theme.text,
                            )
                            .text(text::clean(&d.difference), theme.dim),
                    );
                }
            }
        }
    }
    let title = lang.f(if v.repair { "verify.title_repair" } else { "verify.title" }, &[("name", &v.job)]);
    let inner = framed(&title, columns, lines.len(), cx, area, buf);
    for (i, row) in lines.into_iter().enumerate() {
        put(buf, inner, i, row.line());
    }
    None
}
