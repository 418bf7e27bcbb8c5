//! The command tree: one file a subcommand. The only room that knows all the others.

mod completions;
mod console;
mod demo;
mod doctor;
mod engine;
mod events;
mod host;
mod limit;
mod logging;
mod man;
mod manage;
mod output;
pub mod places;
mod precheck;
mod service;
mod session;
mod start;
mod status;
mod table;
mod verify;

use crate::model::ExitCode;
use clap::{Parser, Subcommand};
use output::{Ending, Outcome, problem};
use places::Places;
use std::future::Future;

/// Two-way sync between two Redis-compatible instances, set up and watched in a terminal.
///
/// Without a command: the console.
#[derive(Debug, Parser)]
#[command(name = "duplex", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Exit codes: 0 fine, 1 failed, 2 usage, 3 precheck failed, 4 a link is unhealthy, 5 no engine, \
                        130 interrupted"
)]
pub struct Cli {
    #[command(flatten)]
    console: console::Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Two throwaway local servers with data and traffic, and a job between them
    Demo(demo::Options),
    /// Check a job without starting it: every item with its result
    Precheck(precheck::Options),
    /// Precheck, then start both links; resumes a job that is known
    Start(start::Options),
    /// Halt both links of a job; their positions are kept
    Pause(manage::Options),
    /// Attach both links of a paused job again, or start one again that failed
    Resume(manage::Options),
    /// End a job and remove its control keys from both sides
    Stop(manage::Options),
    /// Forget a job that has ended
    Forget(manage::ForgetOptions),
    /// Change the rate limits of a job while it runs
    Limit(limit::Options),
    /// How the jobs and their links are
    Status(status::Options),
    /// What happened
    Events(events::Options),
    /// Compare the two sides of a job
    Verify(verify::Options),
    /// Run the engine in the foreground, as a service manager does
    Engine(engine::Options),
    /// Show places and versions, and whether an engine runs
    Doctor(doctor::Options),
    /// Print a completion script
    Completions(completions::Options),
    /// Print the manual page
    Man,
}

impl Command {
    fn json(&self) -> bool {
        match self {
            Command::Precheck(o) => o.json,
            Command::Start(o) => o.json,
            Command::Pause(o) | Command::Resume(o) | Command::Stop(o) => o.json,
            Command::Forget(o) => o.job.json,
            Command::Limit(o) => o.json,
            Command::Status(o) => o.json,
            Command::Events(o) => o.json,
            Command::Verify(o) => o.json,
            Command::Doctor(o) => o.json,
            Command::Demo(_) | Command::Engine(_) | Command::Completions(_) | Command::Man => false,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> std::process::ExitCode {
    // Whatever this process makes is for its user alone.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Fine };
            // A reader that has gone is no reason to panic.
            _ = error.print();
            return std::process::ExitCode::from(code as u8);
        }
    };
    let json = cli.command.as_ref().is_some_and(Command::json);
    let code = output::finish(run(cli), json);
    std::process::ExitCode::from(code as u8)
}

fn run(cli: Cli) -> Outcome {
    // These need no places and no runtime.
    match &cli.command {
        Some(Command::Completions(options)) => return completions::run(options),
        Some(Command::Man) => return man::run(),
        Some(Command::Engine(options)) => options.begin_again_thrifty(),
        _ => {}
    }
    let places = Places::of_this_process()
        .map_err(|error| problem(ExitCode::Usage, error.to_string(), "set DUPLEX_HOME to a folder"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| problem(ExitCode::Failed, format!("can't start this program's threads: {error}"), ""))?;
    let Some(command) = cli.command else { return console::run(&places, cli.console, &runtime) };
    let outcome = runtime.block_on(async {
        match command {
            // These end by signals in their own way.
            Command::Demo(options) => demo::run(options).await,
            Command::Engine(options) => engine::run(&places, options).await,
            Command::Start(options) if options.foreground => start::foreground(&places, options).await,
            Command::Start(options) => interruptible(start::run(&places, options)).await,
            Command::Precheck(options) => interruptible(precheck::run(&places, options)).await,
            Command::Pause(options) => interruptible(manage::pause(&places, options)).await,
            Command::Resume(options) => interruptible(manage::resume(&places, options)).await,
            Command::Stop(options) => interruptible(manage::stop(&places, options)).await,
            Command::Forget(options) => interruptible(manage::forget(&places, options)).await,
            Command::Limit(options) => interruptible(limit::run(&places, options)).await,
            Command::Status(options) => interruptible(status::run(&places, options)).await,
            Command::Events(options) => interruptible(events::run(&places, options)).await,
            Command::Verify(options) => interruptible(verify::run(&places, options)).await,
            Command::Doctor(options) => interruptible(doctor::run(&places, options)).await,
            Command::Completions(_) | Command::Man => Ok(ExitCode::Fine),
        }
    });
    // Nothing that still runs in the background is waited for: all that matters has been closed.
    runtime.shutdown_background();
    outcome
}

/// Runs until it is done or SIGINT comes.
async fn interruptible(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err(Ending::Interrupted),
    }
}
