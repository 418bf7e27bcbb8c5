//! Clicks. Each does what a key does: the part under the pointer is found and the same actions follow.

use super::{
    super::{
        app::{App, Screen},
        effect::Effect,
        keymap::Action,
        mouse::Click,
        overlay::Overlay,
        view,
        wizard::{Slot, Wizard},
    },
    act,
};
use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Rect;

/// Rows that a turn of the wheel scrolls.
const WHEEL: usize = 3;

pub fn mouse(app: &mut App, event: MouseEvent) -> Vec<Effect> {
    match event.kind {
        MouseEventKind::ScrollUp => (0..WHEEL).flat_map(|_| act(app, Action::Up)).collect(),
        MouseEventKind::ScrollDown => (0..WHEEL).flat_map(|_| act(app, Action::Down)).collect(),
        MouseEventKind::Down(MouseButton::Left) => {
            let area = Rect::new(0, 0, app.size.0, app.size.1);
            match view::zones(app, area).at(event.column, event.row) {
                Some(click) => clicked(app, click),
                None => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

fn clicked(app: &mut App, click: Click) -> Vec<Effect> {
    match click {
        Click::Do(action) => act(app, action),
        Click::Row(at) => row(app, at),
        Click::Form(slot) => {
            if let Some(Overlay::InstanceForm(form)) = app.overlays.last_mut() {
                form.slot = Some(slot);
                if slot.is_choice() {
                    return act(app, Action::Enter);
                }
            }
            Vec::new()
        }
        click => match app.wizard_mut() {
            Some(w) => wizard(w, click).map_or_else(Vec::new, |action| act(app, action)),
            None => Vec::new(),
        },
    }
}

/// What else follows a click in the wizard.
fn wizard(w: &mut Wizard, click: Click) -> Option<Action> {
    match click {
        Click::Slot(slot) if w.slots().contains(&slot) => {
            w.slot = slot;
            let acts = match slot {
                Slot::Form(_, part) => part.is_choice(),
                Slot::Flush | Slot::Resnapshot | Slot::ShowValues | Slot::Secrets | Slot::Discard | Slot::Reverse => {
                    true
                }
                Slot::Back | Slot::Continue => true,
                _ => false,
            };
            return acts.then_some(Action::Enter);
        }
        Click::Existing(value) => {
            w.slot = Slot::Existing;
            if w.existing != value {
                w.existing = value;
                w.confirm.set("");
            }
        }
        Click::TwoWay(on) => {
            w.slot = Slot::TwoWay;
            w.two_way = on;
        }
        Click::Database(slot, at) => {
            let cursor = if slot == Slot::Available { &mut w.available } else { &mut w.selected };
            let again = w.slot == slot && cursor.at == at;
            cursor.at = at;
            w.slot = slot;
            return again.then_some(Action::Enter);
        }
        Click::Step(step) => w.show(step),
        _ => {}
    }
    None
}

/// A click on a row selects it; one on the selected row acts on it.
fn row(app: &mut App, at: usize) -> Vec<Effect> {
    let count = app.entries().len();
    match app.overlays.last_mut() {
        Some(Overlay::Pick(p)) => {
            p.cursor.at = at;
            return act(app, Action::Enter);
        }
        Some(Overlay::Palette(p)) => {
            p.cursor.at = at;
            return act(app, Action::Enter);
        }
        Some(Overlay::Account(ask)) => {
            ask.focus(at);
            return Vec::new();
        }
        Some(Overlay::Instances { at: cursor }) => {
            let again = cursor.at == at;
            cursor.at = at;
            return if again { act(app, Action::Enter) } else { Vec::new() };
        }
        Some(_) => return Vec::new(),
        None => {}
    }
    match &mut app.screen {
        Screen::Jobs => {
            let again = app.jobs.cursor.of(count) == Some(at);
            app.jobs.cursor.at = at;
            if again {
                return act(app, Action::Open);
            }
        }
        Screen::Wizard(w) => {
            w.slot = Slot::Items;
            w.precheck.moved = true;
            w.precheck.cursor.at = at;
        }
        Screen::Dashboard(d) => d.cursor.at = at,
    }
    Vec::new()
}
