//! Where the engine's parts report what happened.

mod log;

pub use log::EventLog;

use crate::model::{ConflictRecord, Direction, EventKind, Severity};

/// Takes an event of one job; the supervisor numbers, keeps and hands it out. Cheap to clone, never blocks.
#[derive(Clone)]
pub struct EventSink(std::sync::Arc<dyn Fn(NewEvent) + Send + Sync>);

/// An event before it has a number.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub direction: Option<Direction>,
    pub severity: Severity,
    pub kind: EventKind,
    pub text: String,
    pub conflict: Option<ConflictRecord>,
}

impl EventSink {
    pub fn new(take: impl Fn(NewEvent) + Send + Sync + 'static) -> Self {
        EventSink(std::sync::Arc::new(take))
    }

    pub fn emit(&self, direction: Option<Direction>, severity: Severity, kind: EventKind, text: impl Into<String>) {
        (self.0)(NewEvent { direction, severity, kind, text: text.into(), conflict: None });
    }

    pub fn info(&self, direction: Option<Direction>, kind: EventKind, text: impl Into<String>) {
        self.emit(direction, Severity::Info, kind, text);
    }

    pub fn conflict(&self, kind: EventKind, text: impl Into<String>, record: ConflictRecord) {
        (self.0)(NewEvent {
            direction: None,
            severity: Severity::Info,
            kind,
            text: text.into(),
            conflict: Some(record),
        });
    }
}
