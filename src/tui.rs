//! The console. The only room that knows ratatui; it speaks to the engine through the control client alone.
