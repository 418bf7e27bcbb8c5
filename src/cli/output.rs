//! What a command says and how it ends.
//!
//! Results go to standard output, errors to standard error as `error: what` and `  do: remedy`; with `--json`, errors
//! are also an object on standard output. A reader that has gone (`| head`) ends the command without a word.

use crate::{
    control::{ClientError, daemon::DaemonError, listener::ListenError},
    engine::supervisor::EngineError,
    model::{CheckReport, ExitCode},
};
use serde::Serialize;
use std::io::{self, Write};

/// Why a command ends early.
#[derive(Debug)]
pub enum Ending {
    Error(Problem),
    /// The reader of standard output has gone.
    Pipe,
    /// SIGINT.
    Interrupted,
}

/// An error as the user sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub code: ExitCode,
    pub what: String,
    pub remedy: String,
    /// The precheck that failed, where one did.
    pub precheck: Option<Box<CheckReport>>,
}

impl Problem {
    /// With the precheck that it is about.
    pub fn with(mut self, precheck: Option<CheckReport>) -> Problem {
        self.precheck = precheck.map(Box::new);
        self
    }
}

/// How a command ends.
pub type Outcome = Result<ExitCode, Ending>;

/// An ending with an error.
pub fn problem(code: ExitCode, what: impl Into<String>, remedy: impl Into<String>) -> Ending {
    Ending::Error(Problem { code, what: what.into(), remedy: remedy.into(), precheck: None })
}

impl From<ClientError> for Ending {
    fn from(error: ClientError) -> Ending {
        problem(error.exit_code(), error.to_string(), error.remedy())
    }
}

impl From<DaemonError> for Ending {
    fn from(error: DaemonError) -> Ending {
        let code = match &error {
            DaemonError::Client(error) => error.exit_code(),
            _ => ExitCode::NoEngine,
        };
        problem(code, error.to_string(), error.remedy())
    }
}

impl From<ListenError> for Ending {
    fn from(error: ListenError) -> Ending {
        problem(ExitCode::Failed, error.to_string(), error.remedy())
    }
}

impl From<EngineError> for Ending {
    fn from(error: EngineError) -> Ending {
        problem(ExitCode::Failed, error.to_string(), error.remedy())
    }
}

impl From<io::Error> for Ending {
    /// Of standard output: every other file's errors are told with their path.
    fn from(error: io::Error) -> Ending {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Ending::Pipe,
            _ => problem(ExitCode::Failed, format!("can't write to standard output: {error}"), ""),
        }
    }
}

/// Writes a text to standard output, and sees that it is there.
pub fn print(text: &str) -> Result<(), Ending> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes a line to standard output.
pub fn line(text: &str) -> Result<(), Ending> {
    print(&format!("{text}\n"))
}

/// Writes a value as JSON over several lines.
pub fn json<T: Serialize>(value: &T) -> Result<(), Ending> {
    line(&serde_json::to_string_pretty(value).map_err(io::Error::other)?)
}

/// Writes a value as one line of JSON, for streams.
pub fn json_line<T: Serialize>(value: &T) -> Result<(), Ending> {
    line(&serde_json::to_string(value).map_err(io::Error::other)?)
}

/// A line for the person who waits, on standard error, where losing it is no loss.
pub fn note(text: &str) {
    _ = writeln!(io::stderr(), "{text}");
}

/// Tells the error, if there is one, and gives the exit code.
pub fn finish(outcome: Outcome, as_json: bool) -> ExitCode {
    let problem = match outcome {
        Ok(code) => return code,
        Err(Ending::Pipe) => return ExitCode::Fine,
        Err(Ending::Interrupted) => return ExitCode::Interrupted,
        Err(Ending::Error(problem)) => problem,
    };
    if as_json {
        #[derive(Serialize)]
        struct Document<'a> {
            version: u32,
            error: Words<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            precheck: Option<&'a CheckReport>,
        }
        #[derive(Serialize)]
        struct Words<'a> {
            exit_code: u8,
            message: &'a str,
            remedy: &'a str,
        }
        let words = Words { exit_code: problem.code as u8, message: &problem.what, remedy: &problem.remedy };
        _ = json(&Document { version: 1, error: words, precheck: problem.precheck.as_deref() });
    }
    note(&format!("error: {}", problem.what.replace('\n', "\n       ")));
    if !problem.remedy.is_empty() {
        note(&format!("  do: {}", problem.remedy));
    }
    problem.code
}
