//! The console. The only room that knows ratatui; it speaks to the engine through the control client alone.
//!
//! ```text
//!  terminal ─▶ Msg ─▶ update(&mut App, Msg) -> Vec<Effect> ─▶ runtime ─▶ control client, files
//!                        │                                       │
//!                      view(&App, Buffer) ─▶ terminal            └──▶ Msg
//! ```
//!
//! `update` and `view` are pure; the runtime alone does what effects say. One table of keys ([`keymap`]) feeds the
//! dispatch, the footer, the help and the palette.

pub mod app;
pub mod dashboard;
pub mod effect;
pub mod i18n;
pub mod jobs;
pub mod keymap;
pub mod mouse;
pub mod msg;
pub mod overlay;
mod runtime;
pub mod spoken;
pub mod store;
pub mod terminal;
pub mod text;
pub mod theme;
pub mod update;
pub mod view;
pub mod widget;
pub mod wizard;

pub use runtime::{Connect, Options, StartEngine, run};
pub use terminal::TerminalError;
