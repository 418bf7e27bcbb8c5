//! Dialogs over a screen: help, palette, lists to pick from, confirmations, the inventory, a verification.

pub mod account;
pub mod confirm;
pub mod help;
pub mod instances;
pub mod palette;
pub mod pick;
pub mod verify;

use super::{app::App, keymap::Context, view::Cx, widget::field::Field};
use account::AskAccount;
use confirm::Confirm;
use instances::InstanceForm;
use palette::Palette;
use pick::Pick;
use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};
use verify::Verify;

#[derive(Debug)]
pub enum Overlay {
    Help { scroll: usize },
    Palette(Palette),
    Pick(Pick),
    Confirm(Confirm),
    Instances { at: super::widget::list::Cursor },
    InstanceForm(Box<InstanceForm>),
    Verify(Verify),
    Account(Box<AskAccount>),
}

impl Overlay {
    pub fn context(&self) -> Context {
        match self {
            Overlay::Help { .. } => Context::Help,
            Overlay::Palette(_) => Context::Palette,
            Overlay::Pick(_) => Context::Pick,
            Overlay::Confirm(_) => Context::Confirm,
            Overlay::Instances { .. } => Context::Instances,
            Overlay::InstanceForm(_) => Context::InstanceForm,
            Overlay::Verify(_) => Context::Verify,
            Overlay::Account(_) => Context::Account,
        }
    }

    pub fn field_mut(&mut self) -> Option<&mut Field> {
        match self {
            Overlay::Palette(p) => Some(&mut p.field),
            Overlay::Confirm(c) => c.typed.as_mut(),
            Overlay::InstanceForm(f) => f.field_mut(),
            Overlay::Account(a) => a.field_mut(),
            _ => None,
        }
    }

    pub fn is_typing(&self) -> bool {
        match self {
            Overlay::Palette(_) | Overlay::Account(_) => true,
            Overlay::Confirm(c) => c.typed.is_some(),
            Overlay::InstanceForm(f) => f.is_typing(),
            _ => false,
        }
    }
}

/// Draws the topmost dialog; where its text cursor stands.
pub fn draw(app: &App, overlay: &Overlay, cx: &Cx, area: Rect, buf: &mut Buffer) -> Option<Position> {
    match overlay {
        Overlay::Help { scroll } => help::draw(app, *scroll, cx, area, buf),
        Overlay::Palette(p) => palette::draw(p, cx, area, buf),
        Overlay::Pick(p) => pick::draw(app, p, cx, area, buf),
        Overlay::Confirm(c) => confirm::draw(c, cx, area, buf),
        Overlay::Instances { at } => instances::draw_list(app, *at, cx, area, buf),
        Overlay::InstanceForm(f) => instances::draw_form(f, cx, area, buf),
        Overlay::Verify(v) => verify::draw(v, cx, area, buf),
        Overlay::Account(a) => account::draw(a, cx, area, buf),
    }
}
