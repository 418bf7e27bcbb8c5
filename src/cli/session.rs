//! How a command reaches an engine, and the job files that it is given.

use super::{
    output::{Ending, problem},
    places::Places,
};
use crate::{
    control::{
        Client,
        daemon::{self, Launch},
        listener::private_dir,
    },
    model::{
        AccountSource, ExitCode, Job,
        job::file::{self, parse},
    },
};
use std::path::{Path, PathBuf};

/// Connects to the engine that runs.
pub async fn connect(places: &Places) -> Result<Client, Ending> {
    Ok(Client::connect(&places.live_socket(), false).await?)
}

/// Connects to the engine that runs; starts one first where none does.
pub async fn connect_or_start(places: &Places, readonly: bool) -> Result<Client, Ending> {
    private_dir(&places.log)?;
    let program = std::env::current_exe().map_err(|error| {
        problem(
            ExitCode::Failed,
            format!("this program's own path is unknown: {error}"),
            "run `duplex engine` yourself",
        )
    })?;
    let launch = Launch {
        program,
        socket: places.live_socket(),
        output: places.log.join("engine.out"),
        env: places.home.iter().map(|home| ("DUPLEX_HOME".into(), home.into())).collect(),
    };
    match daemon::connect_or_start(&launch, readonly).await {
        Ok(client) => Ok(client),
        Err(error) => Err(error.into()),
    }
}

/// Whether an argument that may be a name or a file is meant as a file.
pub fn is_file(argument: &str) -> bool {
    argument.contains('/') || argument.ends_with(".toml") || Path::new(argument).is_file()
}

/// Reads a job file. Its relative paths are taken from its own folder, since the engine runs elsewhere.
pub fn load_job(path: &str) -> Result<Job, Ending> {
    let usage = |what: String, remedy: &str| problem(ExitCode::Usage, what, remedy);
    let text = std::fs::read_to_string(path)
        .map_err(|error| usage(format!("can't read {path}: {error}"), "check the path and its rights"))?;
    let mut job = parse(&text, path).map_err(|error| usage(error.to_string(), "mend the file, then try again"))?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let folder = absolute.parent().map(Path::to_owned).unwrap_or_else(|| "/".into());
    for instance in [&mut job.source, &mut job.target] {
        for account in [&mut instance.account, &mut instance.sentinel_account] {
            if let AccountSource::File(file) = account {
                *file = place(&folder, file);
            }
        }
        if let Some(tls) = &mut instance.tls {
            for file in [&mut tls.ca_file, &mut tls.cert_file, &mut tls.key_file].into_iter().flatten() {
                *file = place(&folder, file);
            }
        }
    }
    Ok(job)
}

fn place(folder: &Path, file: &str) -> String {
    let path = match (file.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => folder.join(file),
    };
    path.to_string_lossy().into_owned()
}

/// Refuses what can't be a job's name, before it goes anywhere.
pub fn check_name(name: &str) -> Result<(), Ending> {
    match file::name_fault(name) {
        Some(fault) => Err(problem(ExitCode::Usage, fault, "see `duplex status` for the names of the jobs")),
        None => Ok(()),
    }
}
