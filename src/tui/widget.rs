//! Parts that several screens use. Each draws lines of a given width and knows nothing of the application.

pub mod bar;
pub mod chart;
pub mod field;
pub mod list;
