//! `duplex demo`: two throwaway local servers with data and traffic, and a job between them, all of it in a folder that
//! goes when the demo ends. In a terminal the console shows the job and leaving it ends the demo; elsewhere the demo
//! says a line a second and compares the two sides at its end.

mod servers;
mod traffic;

use super::{
    console::{self, Look},
    host::{EndedBy, Host},
    output::{self, Ending, Outcome, note, problem},
    places::Places,
    precheck, start, table,
};
use crate::{
    engine::supervisor::AtOpen,
    model::{CheckReport, ExitCode, job::file},
    tui::{self, terminal::Abilities},
};
use servers::{Folder, Server};
use std::{io::IsTerminal, time::Duration};
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;

/// Writes of each side take this long to arrive at the other before the two are compared.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub struct Options {
    /// End after this many seconds; otherwise when the console is left, or at Ctrl-C
    #[arg(long)]
    seconds: Option<u64>,
    /// Writes a second at each side
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// Keys to begin with
    #[arg(long, default_value_t = 20_000)]
    keys: u64,
    /// Lines instead of the console, also in a terminal
    #[arg(long)]
    no_console: bool,
    #[command(flatten)]
    look: Look,
}

impl Options {
    /// Whether somebody looks who can be shown a screen.
    fn with_console(&self) -> bool {
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        !self.no_console && terminal && Abilities::from_environment(|name| std::env::var(name).ok()).is_ok()
    }
}

pub async fn run(options: Options) -> Outcome {
    let folder = Folder::make()?;
    let program = servers::find_program()?;
    note(&format!("starting two servers ({}) in {}", program.display(), folder.path().display()));
    let left = Server::start(&program, folder.path(), "source").await?;
    let right = Server::start(&program, folder.path(), "target").await?;
    let outcome = play(&options, &folder, &left, &right).await;
    left.end().await;
    right.end().await;
    outcome
}

async fn play(options: &Options, folder: &Folder, left: &Server, right: &Server) -> Outcome {
    traffic::fill(left, options.keys).await?;
    let places = Places {
        config: folder.path().join("config"),
        state: folder.path().join("state"),
        run: folder.path().join("run"),
        log: folder.path().join("log"),
        home: Some(folder.path().to_owned()),
    };
    let text = format!("name='demo'\nsource.address='{}'\ntarget.address='{}'", left.address(), right.address());
    let job = file::parse(&text, "demo").map_err(|e| problem(ExitCode::Failed, e.to_string(), ""))?;
    let host = Host::open(&places, AtOpen::Leave).await?;
    let stop_traffic = CancellationToken::new();
    let work = async {
        let client = host.client().await?;
        let mut seen: Option<CheckReport> = None;
        let started = client.start(job, false, |_| (), |report| seen = Some(report.clone())).await;
        if let Some(report) = &seen {
            precheck::complaints(report);
        }
        started?;
        let mut writers: Vec<_> = [(left, "source"), (right, "target")]
            .map(|(s, site)| tokio::spawn(traffic::write(s.address(), site, options.rate, stop_traffic.clone())))
            .into();
        writers.push(tokio::spawn(traffic::clash([left.address(), right.address()], stop_traffic.clone())));
        let end = options.seconds.map(|s| Instant::now() + Duration::from_secs(s));
        if options.with_console() {
            show(options, &places, &host, end).await?;
            note("the demo has ended; its servers and its folder are gone");
            return Ok(ExitCode::Fine);
        }
        let mut tick = interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => break,
            }
            for job in client.status(Some("demo")).await?.jobs {
                output::line(&format!("{} {}", start::now(), table::job_line(&job)))?;
            }
        }
        stop_traffic.cancel();
        for writer in writers {
            _ = writer.await;
        }
        note("the writers have stopped; comparing the two sides");
        traffic::settle(left, right, SETTLE).await?;
        let outcome = client.verify("demo", false, |_, _, _| ()).await?;
        let differing = outcome.differing + outcome.missing_at_source + outcome.missing_at_target;
        output::line(&format!("{} keys compared, {differing} differ", outcome.keys_compared))?;
        for example in &outcome.examples {
            output::line(&format!("  db{} {:?}: {}", example.db, example.key, example.difference))?;
        }
        Ok(if outcome.equal { ExitCode::Fine } else { ExitCode::Failed })
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        by = host.ended() => match by {
            Ok(EndedBy::Interrupt) => Err(Ending::Interrupted),
            _ => Ok(ExitCode::Fine),
        },
    };
    stop_traffic.cancel();
    host.close().await;
    outcome
}

/// The console on the running job, until it is left or the time is over.
async fn show(options: &Options, places: &Places, host: &Host, end: Option<Instant>) -> Result<(), Ending> {
    let mut console = tui::Options::new(places.socket(), places.config.clone(), places.state.clone(), false);
    console.connect = host.connector();
    console.open = Some("demo".into());
    console.ends_with_console = true;
    options.look.apply(&mut console);
    tokio::select! {
        left = tui::run(console) => left.map_err(console::no_screen),
        _ = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => Ok(()),
    }
}
