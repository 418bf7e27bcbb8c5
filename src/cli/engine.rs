//! `duplex engine`: the engine in the foreground, or (`--detached`) as the daemon that other commands start.

use super::{
    host::{EndedBy, Host},
    logging,
    output::{self, Ending, Outcome, note, problem},
    places::Places,
    session,
};
use crate::{
    control::{
        Client,
        daemon::READY,
        listener::{EngineLock, ListenError},
    },
    engine::supervisor::AtOpen,
    model::ExitCode,
};
use std::time::Duration;

/// A session that starts an engine a moment after another one waits this long for that one.
const OTHER_DEADLINE: Duration = Duration::from_secs(10);
/// How long an engine may take to end: its links write down where they are.
const END_DEADLINE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Leave the terminal's session and say `ready` on standard output
    #[arg(long, hide = true)]
    detached: bool,
    /// End the engine that runs; its jobs go on when it is started again
    #[arg(long, conflicts_with = "detached")]
    stop: bool,
}

/// What glibc's allocator is told: buffers of 128 KiB and more are given back to the system when they are free, whatever
/// was freed before, and threads share two arenas. Without these an engine under load holds 30 to 40 MiB that nothing
/// is in; they can't be set within a process without unsafe code.
const ALLOCATOR: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "262144")];

impl Options {
    /// Becomes this program anew, as the same process, with [`ALLOCATOR`] in its environment. Goes on as it is where that
    /// can't be done, or where somebody has told the allocator something already.
    pub fn begin_again_thrifty(&self) {
        use std::os::unix::process::CommandExt;
        let told = ALLOCATOR.iter().any(|(name, _)| std::env::var_os(name).is_some());
        if self.stop || told || !cfg!(target_env = "gnu") || std::env::var_os("GLIBC_TUNABLES").is_some() {
            return;
        }
        let Ok(program) = std::env::current_exe() else { return };
        let mut args = std::env::args_os();
        let mut again = std::process::Command::new(program);
        if let Some(name) = args.next() {
            again.arg0(name);
        }
        // Only comes back with an error.
        let _ = again.args(args).envs(ALLOCATOR).exec();
    }
}

pub async fn run(places: &Places, options: Options) -> Outcome {
    if options.stop {
        let client = session::connect(places).await?;
        let pid = client.engine().pid;
        client.shutdown().await?;
        // Its word comes before its end: whoever starts the next one at once must not meet this one.
        if !is_free(places).await {
            let what = format!(
                "the engine (process {pid}) has been told to end, and had not after {} s",
                END_DEADLINE.as_secs()
            );
            return Err(output::problem(
                ExitCode::Failed,
                what,
                "look into its log (`duplex doctor` says where it is)",
            ));
        }
        output::line("the engine has ended; its jobs go on when it is started again")?;
        return Ok(ExitCode::Fine);
    }
    if options.detached {
        // Out of the terminal's session: neither its end nor its Ctrl-C comes here. Fails only where this process
        // leads a group, and then it is nobody's child in a terminal.
        _ = nix::unistd::setsid();
    }
    let _log = logging::begin(places, !options.detached)?;
    let taken = match options.detached {
        true => lock_or_other(places).await,
        false => EngineLock::take(&places.lock_file()).map(Some),
    };
    let Some(lock) = taken.inspect_err(|error| tracing::error!("{error}"))? else {
        tracing::info!("an engine runs already; that one is used");
        return ready();
    };
    let host = match Host::with(places, lock, AtOpen::Resume).await {
        Ok(host) => host,
        Err(error) => {
            if let Ending::Error(error) = &error {
                tracing::error!("{}", error.what);
            }
            return Err(error);
        }
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), socket = %places.socket().display(), "engine runs");
    if options.detached {
        ready()?;
    } else {
        note(&format!("engine runs, process {}, socket {}", std::process::id(), places.socket().display()));
    }
    let by = host
        .ended()
        .await
        .map_err(|error| problem(ExitCode::Failed, format!("can't listen for signals: {error}"), ""))?;
    tracing::info!(?by, "engine ends");
    host.close().await;
    tracing::info!("engine has ended");
    Ok(match by {
        EndedBy::Interrupt | EndedBy::Terminate | EndedBy::Client => ExitCode::Fine,
    })
}

/// Tells the one who started this process. It may have gone, which is no reason to end.
fn ready() -> Outcome {
    _ = output::line(READY);
    Ok(ExitCode::Fine)
}

/// The lock, or nothing where another engine answers. One that is starting answers soon, one that ends lets the lock go.
async fn lock_or_other(places: &Places) -> Result<Option<EngineLock>, ListenError> {
    let until = tokio::time::Instant::now() + OTHER_DEADLINE;
    loop {
        match EngineLock::take(&places.lock_file()) {
            Err(error @ ListenError::Running { .. }) => {
                if Client::connect(&places.live_socket(), true).await.is_ok() {
                    return Ok(None);
                }
                if tokio::time::Instant::now() > until {
                    return Err(error);
                }
            }
            taken => return taken.map(Some),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether nobody holds the lock any more, soon.
async fn is_free(places: &Places) -> bool {
    let until = tokio::time::Instant::now() + END_DEADLINE;
    while matches!(EngineLock::take(&places.lock_file()), Err(ListenError::Running { .. })) {
        if tokio::time::Instant::now() > until {
            return false;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    true
}
