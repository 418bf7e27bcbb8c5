//! The program's log: a file a day in the log folder; its level by `DUPLEX_LOG` (`info` unless set, as in
//! `DUPLEX_LOG=redis_duplex=debug`). Never a secret: those are types whose Debug shows nothing.

use super::{
    output::{Ending, problem},
    places::Places,
};
use crate::{control::listener::private_dir, model::ExitCode};
use tracing_appender::{
    non_blocking::{NonBlockingBuilder, WorkerGuard},
    rolling,
};
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Days whose files are kept.
const DAYS: usize = 14;
/// Lines that may wait to be written; what comes on top of them while the disk stands still is left out. The queue is made
/// at its full size: the library's 128,000 lines are 4 MiB of every engine.
const LINES_WAITING: usize = 8 << 10;

/// Begins to log into the log folder, and also to standard error where a person looks at it. Keep the guard until the
/// process ends: it writes what waits.
pub fn begin(places: &Places, also_stderr: bool) -> Result<WorkerGuard, Ending> {
    private_dir(&places.log)?;
    let file = rolling::Builder::new()
        .rotation(rolling::Rotation::DAILY)
        .filename_prefix("duplex")
        .filename_suffix("log")
        .max_log_files(DAYS)
        .build(&places.log)
        .map_err(|error| {
            let what = format!("can't write a log in {}: {error}", places.log.display());
            problem(ExitCode::Failed, what, "see to the folder's rights and its free space")
        })?;
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(LINES_WAITING).finish(file);
    let filter = || EnvFilter::try_from_env("DUPLEX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let to_file = fmt::layer().with_writer(writer).with_ansi(false).with_filter(filter());
    let to_stderr = also_stderr.then(|| {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
        fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_filter(filter())
    });
    // A second call in one process (tests of this library) keeps the first log.
    _ = tracing_subscriber::registry().with(to_file).with(to_stderr).try_init();
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("panic: {panic}");
        told(panic);
    }));
    Ok(guard)
}
