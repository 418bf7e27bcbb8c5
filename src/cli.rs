//! The command tree: one file a subcommand. The only room that knows all the others.

/// Runs the command line of this process.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
