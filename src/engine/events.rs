//! Where the engine's parts report what happened.

mod log;

pub use log::EventLog;

use crate::model::{ConflictRecord, Direction, EventKind, Severity};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Takes an event of one job; the supervisor numbers, keeps and hands it out. Cheap to clone, never blocks.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Fn(NewEvent) + Send + Sync>);

/// An event before it has a number.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub direction: Option<Direction>,
    pub severity: Severity,
    pub kind: EventKind,
    pub text: String,
    pub conflict: Option<Box<ConflictRecord>>,
}

impl EventSink {
    pub fn new(take: impl Fn(NewEvent) + Send + Sync + 'static) -> Self {
        EventSink(Arc::new(take))
    }

    /// The same, but what `quiet` holds back.
    pub fn quieted(&self, quiet: Quiet) -> Self {
        let sink = self.clone();
        EventSink::new(move |event| {
            if quiet.passes(&event) {
                (sink.0)(event);
            }
        })
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
            conflict: Some(Box::new(record)),
        });
    }
}

/// While it is on, each thing is told once: what is tried again and again fails each time in the same words.
#[derive(Clone, Default)]
pub struct Quiet(Arc<Mutex<Option<HashSet<String>>>>);

impl Quiet {
    /// More than so many different ones are told anew.
    const KEPT: usize = 256;

    /// On from here on; goes on where it is on already.
    pub fn on(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    }

    pub fn off(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn passes(&self, event: &NewEvent) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(told) = told.as_mut() else { return true };
        if told.len() >= Self::KEPT {
            told.clear();
        }
        told.insert(format!("{:?} {:?} {}", event.direction, event.kind, event.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again_and_again_is_told_once() {
        let (took, quiet) = (Arc::new(Mutex::new(Vec::new())), Quiet::default());
        let log = took.clone();
        let sink = EventSink::new(move |e| log.lock().unwrap().push(e.text)).quieted(quiet.clone());
        let tell = |text: &str| sink.emit(None, Severity::Error, EventKind::Failed, text);
        tell("a");
        tell("a");
        quiet.on();
        tell("a");
        tell("b");
        quiet.on();
        tell("a");
        tell("b");
        quiet.off();
        tell("a");
        assert_eq!(*took.lock().unwrap(), ["a", "a", "a", "b", "a"]);
    }
}
