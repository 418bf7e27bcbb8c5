//! The task: attach, pump, and again.

use super::attach::{Answer, Want, attach};
use super::pump::{self, End};
use super::retry::Backoff;
use super::shared::{Publisher, ReplicaState};
use super::{ReplicaOptions, Start};
use crate::engine::net::{Dialer, NetError};
use crate::engine::spool::{Item, SpoolError, SpoolWriter};
use crate::model::{EventKind, Offset, ReplId, Severity};
use std::time::Instant;

pub(super) async fn run(
    dialer: Dialer,
    start: Start,
    spool: SpoolWriter,
    options: ReplicaOptions,
    publisher: Publisher,
) {
    let want = match start {
        Start::Resume { replid, offset } => {
            publisher.set_received(offset);
            Want::Position(replid, offset)
        }
        Start::Current => Want::Current,
        Start::Full { keep_snapshot } => Want::Full { keep: keep_snapshot },
    };
    let stop = publisher.stop_wanted();
    let mut task = Task {
        dialer,
        spool,
        options,
        publisher,
        want,
        name: None,
        backoff: Backoff::default(),
        trouble: None,
        attached_before: false,
    };
    let stopped = stop.notified();
    let last = tokio::select! {
        _ = stopped => ReplicaState::Stopped,
        last = task.live() => last,
    };
    task.publisher.state(last);
}

struct Task {
    dialer: Dialer,
    spool: SpoolWriter,
    options: ReplicaOptions,
    publisher: Publisher,
    want: Want,
    /// The history's name as the spool was last told.
    name: Option<ReplId>,
    backoff: Backoff,
    /// Since when there is trouble, and whether it was said that a person is needed.
    trouble: Option<(Instant, bool)>,
    attached_before: bool,
}

impl Task {
    /// Until the task's end; the state that stays.
    async fn live(&mut self) -> ReplicaState {
        loop {
            let bytes_before = self.publisher.bytes();
            let error = match self.once().await {
                Ok(Some(end)) => return end,
                Ok(None) => continue,
                Err(e) => e,
            };
            // Only bytes prove that a connection was of use: a master that takes us and throws us out at once
            // must not be asked to fork ten times a second.
            if self.publisher.bytes() > bytes_before && matches!(self.want, Want::Position(..)) {
                self.backoff.reset();
                self.trouble = None;
            }
            self.pause(error).await;
        }
    }

    /// One connection: its failure, or the state in which the task ends; `None`: there is another to go to.
    async fn once(&mut self) -> Result<Option<ReplicaState>, NetError> {
        let address = self.publisher.address();
        let untroubled = self.trouble.is_none();
        if untroubled {
            self.publisher.state(ReplicaState::Connecting);
        }
        let publisher = &self.publisher;
        let attached = attach(&self.dialer, &address, self.want, self.options.allow_full, self.options.dialect, || {
            if untroubled {
                publisher.state(ReplicaState::Handshaking);
            }
        })
        .await?;
        match self.accept(&address, attached.answer).await {
            Ok(None) => {}
            Ok(Some(end)) => return Ok(Some(end)),
            Err(e) => return Ok(Some(self.spool_failed(e))),
        }
        let keep = !matches!(self.want, Want::Full { keep: false } | Want::Current);
        let applied = self.options.applied.clone();
        let end = pump::run(attached, &address, keep, &mut self.spool, applied, &self.publisher).await;
        if let Some((replid, offset)) = self.publisher.position() {
            // Whatever was wanted at first: from now on it is this history's continuation.
            self.name = Some(replid);
            self.want = Want::Position(replid, offset);
        }
        match end {
            End::Net(e) => Err(e),
            End::Left => {
                self.look_for_another().await;
                Ok(None)
            }
            End::Spool(e) => Ok(Some(self.spool_failed(e))),
            End::SnapshotCut(e) => match self.spool.push(Item::Lost { why: e.to_string() }).await {
                Ok(()) => Err(e),
                Err(e) => Ok(Some(self.spool_failed(e))),
            },
        }
    }

    /// Judges the master's answer and tells the spool what it means.
    async fn accept(&mut self, address: &str, answer: Answer) -> Result<Option<ReplicaState>, SpoolError> {
        match answer {
            Answer::Continue { replid, at } => {
                if self.name != Some(replid) {
                    self.spool.push(Item::NewReplid { replid, at }).await?;
                    if let (Some(old), true) = (self.name.or(self.asked().map(|a| a.0)), self.attached_before) {
                        let text = format!("{address} goes on with history {replid}, before {old}, from offset {at}");
                        self.tell(Severity::Warning, EventKind::Failover, text);
                    }
                }
                self.name = Some(replid);
                self.publisher.attached(replid, at, true);
                self.want = Want::Position(replid, at);
                let kind = if self.attached_before { EventKind::Resumed } else { EventKind::Connected };
                self.tell(Severity::Info, kind, format!("reading the stream of {address} from offset {at}"));
            }
            Answer::Lost { replid, offset } => {
                let asked = self.asked().unwrap_or((replid, offset));
                let text =
                    format!("{address} has no longer the stream behind offset {} of history {}", asked.1, asked.0);
                self.tell(Severity::Warning, EventKind::Disconnected, text.clone());
                self.spool.push(Item::Lost { why: text }).await?;
                return Ok(Some(ReplicaState::PositionLost { asked, offered: (replid, offset) }));
            }
            Answer::Full { replid, offset } => {
                if let Some(asked) = self.asked() {
                    let offered = (replid, offset);
                    let text = format!(
                        "{address} has no longer the stream behind offset {} and offers a snapshot at {offset}; a \
                         larger repl-backlog-size would have kept it",
                        asked.1
                    );
                    self.tell(Severity::Error, EventKind::FullResync, text.clone());
                    self.spool.push(Item::Lost { why: text }).await?;
                    if !self.options.allow_full {
                        return Ok(Some(ReplicaState::PositionLost { asked, offered }));
                    }
                    self.want = Want::Full { keep: true };
                }
                self.name = None;
                self.publisher.resynced();
                self.publisher.attached(replid, offset, false);
                let what = match self.want {
                    Want::Full { keep: true } => "takes a snapshot",
                    _ => "reads a snapshot only to get at the stream",
                };
                let text = format!("{what} of {address}; its stream starts at offset {offset}");
                self.tell(Severity::Info, EventKind::SnapshotStarted, text);
            }
        }
        if self.attached_before {
            self.publisher.reconnected();
        }
        self.attached_before = true;
        Ok(None)
    }

    fn asked(&self) -> Option<(ReplId, Offset)> {
        match self.want {
            Want::Position(replid, offset) => Some((replid, offset)),
            _ => None,
        }
    }

    /// Says why, waits, and looks where the master is now.
    async fn pause(&mut self, error: NetError) {
        let person = error.needs_a_person();
        let pause = self.backoff.next(person);
        let (since, told) = match self.trouble {
            Some((since, told)) => (since, told || !person),
            None => (Instant::now(), false),
        };
        self.trouble = Some((since, person));
        let (why, remedy) = error.parts();
        if !told {
            let (severity, kind) = if person {
                (Severity::Error, EventKind::Failed)
            } else {
                (Severity::Warning, EventKind::Disconnected)
            };
            self.tell(severity, kind, error.to_string());
        }
        self.publisher.state(if person {
            ReplicaState::Failed { why, remedy, since }
        } else {
            ReplicaState::Reconnecting { why: error.to_string(), attempt: self.backoff.attempt(), since }
        });
        tokio::time::sleep(pause).await;
        self.look_for_another().await;
    }

    /// Where to go next.
    async fn look_for_another(&mut self) {
        if let Some(master) = &self.options.replicas_of {
            let at = self.asked().map(|(_, offset)| offset);
            let (before, seen) = (self.publisher.address(), self.dialer.replicas(master).await);
            let best = seen.as_ref().ok().and_then(|seen| seen.best(at)).map(|r| r.address.clone());
            let next = best.unwrap_or_else(|| master.clone());
            if next != before {
                let why = match seen {
                    Ok(seen) if next == *master => format!("; no replica of it can be read from: {}", seen.why_none()),
                    _ => String::new(),
                };
                self.publisher.set_address(&next);
                let text = format!("the stream is read from {next} now, and was from {before}{why}");
                self.tell(Severity::Warning, EventKind::Failover, text);
            }
            return;
        }
        if self.options.follow_master
            && let Ok(masters) = self.dialer.masters().await
            && let [only] = masters.as_slice()
        {
            self.publisher.set_address(&only.address);
        }
    }

    fn spool_failed(&self, error: SpoolError) -> ReplicaState {
        match error {
            SpoolError::Closed => ReplicaState::Stopped,
            e => {
                self.tell(Severity::Error, EventKind::Failed, e.to_string());
                let remedy = "start the link anew".to_owned();
                ReplicaState::Failed { why: e.to_string(), remedy, since: Instant::now() }
            }
        }
    }

    fn tell(&self, severity: Severity, kind: EventKind, text: String) {
        self.options.events.emit(Some(self.options.direction), severity, kind, text);
    }
}
