//! What a click means. The screens say where their rows, fields and buttons are while they are drawn; a click looks
//! there. Everything that a click does has a key as well.

use super::{
    keymap::Action,
    wizard::{FormSlot, Slot, Step},
};
use crate::model::ExistingKeys;
use ratatui::layout::{Position, Rect};

/// What lies under the pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Click {
    /// The hint of a key, or a button.
    Do(Action),
    /// A row of the list that the screen or the topmost dialog shows: selected, and acted on when it is already.
    Row(usize),
    /// A part of the wizard: a field gets the focus, a choice opens, a box or a button is pressed.
    Slot(Slot),
    /// One of the three policies for existing keys.
    Existing(ExistingKeys),
    /// Both ways, or forward only.
    TwoWay(bool),
    /// A row of the boxes of databases.
    Database(Slot, usize),
    /// A step of the wizard that lies behind.
    Step(Step),
    /// A part of the inventory's form.
    Form(FormSlot),
}

/// A part of a page that can be clicked on, in the page's rows and columns.
#[derive(Debug, Clone, Copy)]
pub struct Zone {
    pub row: usize,
    pub from: usize,
    /// The column behind it.
    pub to: usize,
    pub click: Click,
}

/// The parts of a drawn screen that can be clicked on; of two that overlap the later one is meant.
#[derive(Debug, Default)]
pub struct Zones(Vec<(Rect, Click)>);

impl Zones {
    pub fn add(&mut self, area: Rect, click: Click) {
        self.0.push((area, click));
    }

    /// A dialog opened over what was drawn.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn at(&self, column: u16, row: u16) -> Option<Click> {
        self.0.iter().rev().find(|(area, _)| area.contains(Position::new(column, row))).map(|(_, click)| *click)
    }

    /// Every part, as it was drawn.
    pub fn all(&self) -> &[(Rect, Click)] {
        &self.0
    }
}
