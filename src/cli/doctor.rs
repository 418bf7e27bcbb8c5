//! `duplex doctor`: places, versions, and whether an engine runs.

use super::{
    output::{self, Outcome},
    places::Places,
    table,
};
use crate::{
    control::{Client, ClientError, listener, protocol::PROTOCOL_VERSION},
    model::ExitCode,
};
use serde::Serialize;
use std::{io::IsTerminal, path::PathBuf};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Findings {
    version: u32,
    program: String,
    protocol: u32,
    places: Folders,
    engine: Engine,
    terminal: Terminal,
    /// What is not as it should be.
    trouble: Vec<String>,
}

#[derive(Serialize)]
struct Folders {
    config: PathBuf,
    state: PathBuf,
    run: PathBuf,
    log: PathBuf,
    socket: PathBuf,
}

#[derive(Serialize)]
struct Engine {
    running: bool,
    pid: Option<u32>,
    program: Option<String>,
    socket: PathBuf,
    jobs: Option<usize>,
    /// Why it can't be talked to, where it can't.
    error: Option<String>,
}

#[derive(Serialize)]
struct Terminal {
    term: Option<String>,
    interactive: bool,
    unicode: bool,
}

pub async fn run(places: &Places, options: Options) -> Outcome {
    let found = findings(places).await;
    match options.json {
        true => output::json(&found)?,
        false => output::print(&words(&found))?,
    }
    Ok(ExitCode::Fine)
}

async fn findings(places: &Places) -> Findings {
    let mut trouble = Vec::new();
    let socket = places.live_socket();
    let engine = match Client::connect(&socket, true).await {
        Ok(client) => Engine {
            running: true,
            pid: Some(client.engine().pid),
            program: Some(client.engine().version.clone()),
            jobs: client.status(None).await.ok().map(|s| s.jobs.len()),
            socket,
            error: None,
        },
        Err(ClientError::NoEngine { .. }) => {
            Engine { running: false, pid: None, program: None, jobs: None, socket, error: None }
        }
        Err(error) => {
            trouble.push(format!("{error}; {}", error.remedy()));
            let pid = listener::holder(&places.lock_file()).map(|h| h.pid);
            Engine { running: true, pid, program: None, jobs: None, socket, error: Some(error.to_string()) }
        }
    };
    let own = places.socket();
    if own.as_os_str().len() > listener::MAX_SOCKET_PATH {
        let error = listener::ListenError::PathTooLong { path: own.clone() };
        trouble.push(format!("{error}; {}", error.remedy()));
    }
    let folders = [&places.config, &places.state, &places.run, &places.log];
    for folder in folders.into_iter().filter(|f| f.exists()) {
        if let Err(error) = listener::private_dir(folder) {
            trouble.push(format!("{error}; {}", error.remedy()));
        }
    }
    Findings {
        version: 1,
        program: env!("CARGO_PKG_VERSION").into(),
        protocol: PROTOCOL_VERSION,
        places: Folders {
            config: places.config.clone(),
            state: places.state.clone(),
            run: places.run.clone(),
            log: places.log.clone(),
            socket: own,
        },
        engine,
        terminal: Terminal {
            term: std::env::var("TERM").ok(),
            interactive: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
            unicode: table::unicode(),
        },
        trouble,
    }
}

fn words(found: &Findings) -> String {
    let mut text = format!("duplex    {} (protocol {})\n", found.program, found.protocol);
    let place = |name: &str, path: &PathBuf| {
        let there = if path.exists() { "" } else { "  (not made yet)" };
        format!("{name:<9} {}{there}\n", path.display())
    };
    let places = &found.places;
    for (name, path) in
        [("config", &places.config), ("state", &places.state), ("log", &places.log), ("run", &places.run)]
    {
        text.push_str(&place(name, path));
    }
    let engine = &found.engine;
    let said = match (engine.running, &engine.error) {
        (_, Some(error)) => error.clone(),
        (false, None) => "does not run".into(),
        (true, None) => format!(
            "runs: process {}, duplex {}, {} jobs, {}",
            engine.pid.unwrap_or(0),
            engine.program.as_deref().unwrap_or("?"),
            engine.jobs.map_or("?".into(), |n| n.to_string()),
            engine.socket.display()
        ),
    };
    text.push_str(&format!("engine    {said}\n"));
    let terminal = &found.terminal;
    text.push_str(&format!(
        "terminal  {}, {}, {}\n",
        terminal.term.as_deref().unwrap_or("TERM is not set"),
        if terminal.interactive { "interactive" } else { "not interactive" },
        if terminal.unicode { "UTF-8" } else { "ASCII" }
    ));
    for trouble in &found.trouble {
        text.push_str(&format!("trouble   {trouble}\n"));
    }
    text
}
