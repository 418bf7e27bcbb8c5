//! The sync itself, usable with no terminal.
