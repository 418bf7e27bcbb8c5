//! A question before something is done: what it will do is said first. Where data could be overwritten or a job
//! ends, the job's name is typed.

use crate::tui::{
    keymap::Action,
    mouse::Click,
    text::{self, Row},
    view::{Cx, framed, put},
    widget::field::Field,
};
use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    Pause(String),
    Resume(String),
    /// Start again what has failed.
    Retry(String),
    /// Forget a job whose control keys can't be removed.
    Abandon(String),
    Stop(String),
    Forget(String),
    DeleteDraft(String),
    RemoveInstance(String),
    Verify(String),
    Repair(String),
    /// Give a one-way job that runs its reverse link.
    AddReverse(String),
}

impl Intent {
    /// The locale keys of its title and of what it will do.
    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Intent::Pause(_) => ("confirm.pause", "confirm.pause_does"),
            Intent::Resume(_) => ("confirm.resume", "confirm.resume_does"),
            Intent::Retry(_) => ("confirm.retry", "confirm.retry_does"),
            Intent::Abandon(_) => ("confirm.abandon", "confirm.abandon_does"),
            Intent::Stop(_) => ("confirm.stop", "confirm.stop_does"),
            Intent::Forget(_) => ("confirm.forget", "confirm.forget_does"),
            Intent::DeleteDraft(_) => ("confirm.delete_draft", "confirm.delete_draft_does"),
            Intent::RemoveInstance(_) => ("confirm.remove_instance", "confirm.remove_instance_does"),
            Intent::Verify(_) => ("confirm.verify", "confirm.verify_does"),
            Intent::Repair(_) => ("confirm.repair", "confirm.repair_does"),
            Intent::AddReverse(_) => ("confirm.add_reverse", "confirm.add_reverse_does"),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Intent::Pause(n)
            | Intent::Resume(n)
            | Intent::Retry(n)
            | Intent::Abandon(n)
            | Intent::Stop(n)
            | Intent::Forget(n)
            | Intent::DeleteDraft(n)
            | Intent::RemoveInstance(n)
            | Intent::Verify(n)
            | Intent::Repair(n)
            | Intent::AddReverse(n) => n,
        }
    }
}

#[derive(Debug)]
pub struct Confirm {
    pub intent: Intent,
    /// The name has to be typed here.
    pub typed: Option<Field>,
    /// It was confirmed with another text than the name.
    pub mistyped: bool,
}

impl Confirm {
    pub fn new(intent: Intent) -> Confirm {
        let typed = matches!(intent, Intent::Stop(_) | Intent::Repair(_) | Intent::Abandon(_)).then(Field::default);
        Confirm { intent, typed, mistyped: false }
    }

    /// Whether what was typed is the name.
    pub fn agreed(&self) -> bool {
        self.typed.as_ref().is_none_or(|f| f.value().trim() == self.intent.name())
    }
}

pub fn draw(c: &Confirm, cx: &Cx, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (title, does) = c.intent.words();
    let columns = (area.width as usize).saturating_sub(12).min(62);
    let name = text::clean(c.intent.name());
    let mut lines: Vec<Row> = text::wrap(&cx.lang.f(does, &[("name", &name)]), columns)
        .into_iter()
        .map(|row| Row::new().text(row, cx.theme.text))
        .collect();
    let mut cursor = None;
    lines.push(Row::new());
    if let Some(field) = &c.typed {
        lines.push(
            Row::new().text(text::cut(&cx.lang.f("confirm.type_name", &[("name", &name)]), columns), cx.theme.warn),
        );
        let (row, at) = field.draw(columns.min(40), true, true, "", cx.theme);
        cursor = at.map(|at| (lines.len(), at));
        lines.push(row);
        if c.mistyped {
            lines.push(Row::new().text(format!("✖ {}", cx.lang.t("confirm.mistyped")), cx.theme.bad));
        }
    } else {
        lines.push(
            Row::new()
                .text(format!("{} ", cx.key("ret")), cx.theme.accent)
                .text(cx.lang.t("action.do_it"), cx.theme.text)
                .gap(3)
                .text("esc ", cx.theme.accent)
                .text(cx.lang.t("action.cancel"), cx.theme.text),
        );
    }
    let title = cx.lang.f(title, &[("name", &name)]);
    let inner = framed(&title, columns, lines.len(), cx, area, buf);
    if c.typed.is_none() {
        let yes = text::width(&cx.key("ret")) + 1 + text::width(cx.lang.t("action.do_it"));
        let no = yes + 3 + 4 + text::width(cx.lang.t("action.cancel"));
        cx.clickable(inner, lines.len() - 1, 0..yes, Click::Do(Action::Enter));
        cx.clickable(inner, lines.len() - 1, yes + 3..no, Click::Do(Action::Back));
    }
    for (i, row) in lines.into_iter().enumerate() {
        put(buf, inner, i, row.line());
    }
    cursor
        .filter(|(row, _)| *row < inner.height as usize)
        .map(|(row, at)| Position::new(inner.x + (at as u16).min(inner.width.saturating_sub(1)), inner.y + row as u16))
}
