//! `duplex completions SHELL`.

use super::{
    Cli,
    output::{self, Outcome},
};
use crate::model::ExitCode;
use clap::CommandFactory;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The shell to write the script for
    shell: clap_complete::Shell,
}

pub fn run(options: &Options) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "duplex", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Fine)
}
