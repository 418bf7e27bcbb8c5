//! `duplex` alone: the console.

use super::{
    output::{Outcome, problem},
    places::Places,
};
use crate::model::ExitCode;
use std::io::IsTerminal;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Watch only: nothing can be changed from this console
    #[arg(long)]
    readonly: bool,
}

/// Opens the console on the engine that runs; starts one first where none does.
pub fn run(_places: &Places, options: Options, _runtime: &tokio::runtime::Runtime) -> Outcome {
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return Err(problem(
            ExitCode::Usage,
            "the console needs a terminal",
            "run `duplex` in one, or use a command: `duplex --help`",
        ));
    }
    // The seam: `session::connect_or_start(places, options.readonly)` gives the client, `tui::run` the screen.
    let _ = options.readonly;
    Err(problem(ExitCode::Failed, "this build has no console", "use a command: `duplex --help`"))
}
