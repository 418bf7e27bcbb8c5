//! The job file: TOML text to a [`Job`] and back.
//!
//! Owns the file's words, what each may be, and the sentences about what is wrong with one. Refuses unknown keys, since
//! a mistyped policy that is silently ignored can cost data. Reads no file itself: the caller brings the text and the
//! name to blame.

mod read;
mod size;
#[cfg(test)]
mod tests;
mod write;

pub use read::{address, name_fault, parse};
pub use size::{format_size, parse_size};
pub use write::to_toml;

use std::fmt;

/// Everything that is wrong with a job file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFileError {
    /// The file's name, as the user gave it.
    pub file: String,
    /// At least one.
    pub mistakes: Vec<Mistake>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is wrong and what is allowed.
    pub text: String,
}

impl std::error::Error for JobFileError {}

impl fmt::Display for JobFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, m) in self.mistakes.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}:{}: {}", self.file, m.line, m.column, m.text)?;
        }
        Ok(())
    }
}
