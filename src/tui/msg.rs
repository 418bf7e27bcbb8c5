//! What reaches the console: keys, time, the engine's words, files that were read or written.

use super::store::Stored;
use crate::{
    control::protocol::{Failure, Reply},
    model::{Direction, Side},
};
use crossterm::event::{KeyEvent, MouseEvent};

#[derive(Debug, Clone)]
pub enum Msg {
    Key(KeyEvent),
    Paste(String),
    Mouse(MouseEvent),
    Resize(u16, u16),
    /// Milliseconds since the Unix epoch; at least one a second.
    Tick(u64),
    Engine(EngineMsg),
    /// An answer to the request that was sent with this tag.
    Reply {
        tag: Tag,
        reply: Box<Reply>,
        last: bool,
    },
    /// The connection ended before the last answer to it.
    Lost {
        tag: Tag,
    },
    File(FileMsg),
}

/// How it stands with the engine's process.
#[derive(Debug, Clone)]
pub enum EngineMsg {
    /// Nobody answers, and one is being started.
    Starting,
    Up {
        pid: u32,
        engine_version: String,
    },
    /// The connection failed or ended; the next attempt follows by itself.
    Down {
        why: String,
    },
    /// It answered, and refuses us: another version, another user.
    Refused(Failure),
}

#[derive(Debug, Clone)]
pub enum FileMsg {
    Loaded(Box<Stored>),
    /// The job file lies at this path; the job may start.
    JobWritten {
        path: String,
    },
    /// A file was exported to this path.
    Exported {
        path: String,
    },
    Saved,
    /// What was tried, what was seen.
    Failed {
        job: bool,
        text: String,
    },
}

/// Which request an answer belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Tag {
    Watch,
    /// The events of the job on the dashboard.
    Events,
    /// The dial of one side; `run` tells a late answer from the present one's.
    Probe {
        side: Side,
        run: u32,
    },
    Precheck {
        run: u32,
    },
    Start {
        job: String,
    },
    /// The start of a job that has failed, from outside the wizard.
    Retry {
        job: String,
    },
    Act {
        act: Act,
        job: String,
    },
    History {
        job: String,
    },
    Conflicts {
        job: String,
    },
    Verify {
        job: String,
    },
    /// The job's file, wanted for a copy or for another look through the wizard.
    JobFile {
        job: String,
        wanted: Wanted,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    Pause,
    Resume,
    Stop,
    Forget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wanted {
    Copy,
    Configure(Direction),
    Precheck,
    /// To ask for the accounts that it lacks.
    Account,
}
