//! What replies tell: what was applied, what failed or differs, and what is told to the arbiter because of it.

use super::{BACKOFF_FIRST, Writer, late};
use crate::engine::apply::control_key::LoadPhase;
use crate::engine::apply::outbox::{Item, ItemKind};
use crate::engine::apply::replies::{Finding, Replies, ReplyError};
use crate::engine::apply::transaction::{Outcome, Transaction};
use crate::engine::arbiter::class::Class;
use crate::engine::arbiter::classify::{Effect, classify};
use crate::engine::arbiter::episode::Cause;
use crate::engine::core::Core;
use crate::engine::gauge::Condition;
use crate::model::{EventKind, Offset, Severity, Side};
use crate::wire::stream::{Batch, Command, Decoder};
use bytes::Buf;
use std::sync::MutexGuard;
use std::time::Instant;

/// Transactions that were answered in a row, for the gauge: to a cluster there are as many as changes.
#[derive(Debug, Default)]
pub(super) struct Booked {
    /// Up to here all is applied.
    offset: Offset,
    changes: u64,
    bytes: u64,
    latency_ms: u64,
    /// So many times all notes were written again.
    all_notes: u32,
    /// A control key that does not say that it loads.
    streaming: bool,
}

impl Writer {
    pub(super) fn take_replies(&mut self, replies: &mut Replies) -> Result<(), ReplyError> {
        let mut findings = Vec::new();
        let mut answered = false;
        let now = Instant::now();
        let (clock, shared) = (self.s.clock.clone(), self.s.shared.clone());
        let came_late = |item: &Item| clock.as_ref().is_some_and(|clock| late::came_late(item, clock, &shared, now));
        while let Some(place) = replies.next(&mut self.window, &mut findings, came_late)? {
            answered = true;
            if !findings.is_empty() {
                let found = std::mem::take(&mut findings);
                let transaction = &self.window[place];
                self.found(transaction, &found);
            }
            self.refusals |= matches!(self.window[place].outcome, Outcome::Refused(_));
            self.park(place);
            while self.window.front().is_some_and(|t| t.outcome == Outcome::Applied) {
                let Some(t) = self.window.pop_front() else { break };
                self.window_bytes -= t.bytes;
                self.answered(&t, now);
            }
        }
        if answered {
            self.s.gauge.set_in_flight(self.window.len() as u64);
            self.tell_answered();
        }
        Ok(())
    }

    /// Echoes of what has been answered may be taken now.
    pub(super) fn tell_answered(&mut self) {
        let Booked { offset, changes, bytes, latency_ms, all_notes, streaming } = std::mem::take(&mut self.booked);
        self.s.gauge.applied(offset, changes, bytes, latency_ms);
        let mut core = self.s.shared.lock();
        let i = self.site.index();
        core.answered[i] = self.acked;
        core.replied[i] = self.replied.max_by_offset(core.replied[i]);
        if streaming {
            core.streaming_is_said(self.site.other());
        }
        if all_notes > 0 {
            core.notes_written(self.site, all_notes);
        }
        drop(core);
        self.s.shared.state_came.notify_waiters();
    }

    /// Books a transaction that was applied; to be followed by [`Writer::tell_answered`].
    pub(super) fn answered(&mut self, t: &Transaction, now: Instant) {
        self.acked = self.acked.max(t.control.number);
        self.pace.answered(t.sent, now);
        if self.parked.held().is_none() {
            self.replied = t.position;
        }
        self.overtakes_parked(t);
        self.restores_answered(t);
        if self.refused_once {
            self.refused_once = false;
            self.backoff = BACKOFF_FIRST;
            if self.s.gauge.set_condition(Condition::Fine) {
                let text = format!("{} takes writes again", self.s.address);
                self.s.events.info(Some(self.s.direction), EventKind::Connected, text);
            }
        }
        let latency = self.s.shared.ms_at(now).saturating_sub(t.decided_ms);
        let latency = if t.items.is_empty() { 0 } else { latency };
        // While a snapshot loads, the source's position is not applied yet.
        let not_yet = t.control.phase == LoadPhase::Loading || self.parked.held().is_some();
        let booked = &mut self.booked;
        booked.streaming |= t.control.phase == LoadPhase::Streaming;
        if t.control.number <= self.notes {
            booked.all_notes += t.items.iter().filter(|i| i.kind == ItemKind::AllNotes).count() as u32;
        }
        if !not_yet {
            booked.offset = booked.offset.max(t.position.offset);
        }
        booked.changes += u64::from(t.changes);
        booked.bytes += t.bytes as u64;
        booked.latency_ms = booked.latency_ms.max(latency);
    }

    /// Tells the arbiter what replies have shown.
    fn found(&self, t: &Transaction, findings: &[Finding]) {
        let mut core = self.s.shared.lock();
        core.set_now(self.s.shared.now_ms());
        let (mut states, mut failed) = (false, None);
        for finding in findings {
            match finding {
                Finding::State(token, state) => {
                    core.state_came(*token, state.clone());
                    states = true;
                }
                Finding::Differs { item, index, reply } => {
                    let telltale = reply == "0" || reply == "nil";
                    let (cause, authority) =
                        if telltale { (Cause::Expiry, self.site.other()) } else { (Cause::ApplyError, Side::Source) };
                    self.s.gauge.apply_error();
                    if let Some(shown) = self.differs(&mut core, &t.items[*item], Some(*index), authority, cause)
                        && self.s.gauge.may_log_error()
                    {
                        let what = if telltale { format!("answered {reply}") } else { format!("failed: {reply}") };
                        let text = format!("{shown} {what}; its key is settled by state");
                        self.s.events.emit(Some(self.s.direction), Severity::Warning, EventKind::ApplyError, text);
                    }
                }
                Finding::Renewed { item, commands } => self.renewed(&mut core, &t.items[*item], commands),
                Finding::Nil { item, index } => self.answered_nil(&mut core, &t.items[*item], *index),
                Finding::DeletedFewer { item, index } => {
                    for hash in self.deleted(&core, &t.items[*item], *index) {
                        core.deleted_nothing(self.site, t.control.number, hash);
                    }
                }
                // A value that is rebuilt fails in one command or in many: it is one failure.
                Finding::RestoreFailed { token, .. } if failed == Some(*token) => {}
                Finding::RestoreFailed { item, reply, token } => {
                    failed = Some(*token);
                    self.restore_failed(&mut core, &t.items[*item], *token, reply);
                }
                Finding::Expiries(question, at) => core.expiries_came(self.site, *question, Some(at)),
                Finding::NoteFailed { reply } => {
                    tracing::warn!(direction = %self.s.direction, reply, "a note of an open conflict could not be written");
                }
            }
        }
        core.settle();
        drop(core);
        self.s.shared.wake_writers();
        if states {
            self.s.shared.state_came.notify_waiters();
        }
        self.s.shared.settle.notify_one();
    }

    /// A transaction was applied but its replies were lost: every key in it may have failed.
    pub(super) fn unseen(&self, t: &Transaction) {
        let mut core = self.s.shared.lock();
        core.set_now(self.s.shared.now_ms());
        for item in &t.items {
            match item.kind {
                ItemKind::Ask(_) | ItemKind::Expiries(_) => self.unanswered(&mut core, item),
                ItemKind::Notes | ItemKind::AllNotes => {}
                _ => {
                    self.differs(&mut core, item, None, self.site.other(), Cause::Recovery);
                }
            }
        }
        self.told(core);
    }

    /// A question whose answer nobody will see.
    pub(super) fn unanswered(&self, core: &mut Core, item: &Item) {
        match item.kind {
            ItemKind::Ask(token) => {
                let now = core.now_ms();
                core.arbiter.token_lost(token, now);
            }
            ItemKind::Expiries(question) => core.expiries_came(self.site, question, None),
            _ => {}
        }
    }

    /// What was told to the core takes effect, and who waits for that is woken.
    pub(super) fn told(&self, mut core: MutexGuard<'_, Core>) {
        core.carry_out();
        core.settle();
        drop(core);
        self.s.shared.wake_writers();
        self.s.shared.state_came.notify_waiters();
        self.s.shared.settle.notify_one();
    }

    /// The hashes of the keys of a DEL.
    fn deleted(&self, core: &Core, item: &Item, index: u32) -> Vec<u64> {
        let mut hashes = Vec::new();
        each_command(item, |seen, batch, command| {
            if seen == index
                && let Effect::Keys(t) | Effect::Apart(t) = classify(&core.arbiter, command.db, &batch.args(command))
            {
                hashes.extend(t.iter().map(|t| t.hash));
            }
        });
        hashes
    }

    /// Tells the arbiter that the sites differ in the keys of an item's command (of all, without an index). Gives the
    /// command as text.
    fn differs(
        &self,
        core: &mut Core,
        item: &Item,
        index: Option<u32>,
        authority: Side,
        cause: Cause,
    ) -> Option<String> {
        let mut shown = None;
        each_command(item, |seen, batch, command| {
            if index.is_some_and(|i| i != seen) {
                return;
            }
            if let Some(text) = self.differs_in(core, batch, command, authority, cause) {
                shown.get_or_insert(text);
            }
        });
        core.carry_out();
        shown
    }

    /// The same, in the keys of one command.
    pub(super) fn differs_in(
        &self,
        core: &mut Core,
        batch: &Batch,
        command: &Command,
        authority: Side,
        cause: Cause,
    ) -> Option<String> {
        let args = batch.args(command);
        let (Effect::Keys(touches) | Effect::Apart(touches)) = classify(&core.arbiter, command.db, &args) else {
            return None;
        };
        let name = String::from_utf8_lossy(args.get(0).unwrap_or_default()).into_owned();
        let key = touches.first().map(|t| crate::engine::conflicts::shown(t.key)).unwrap_or_default();
        for t in touches.iter().filter(|t| t.class != Class::Read) {
            core.differs(t, authority, cause);
        }
        Some(format!("{name} {key:?}"))
    }
}

/// Gives each command of an item with its place.
pub(super) fn each_command(item: &Item, mut f: impl FnMut(u32, &Batch, &Command)) {
    let mut decoder = Decoder::new(item.db.unwrap_or(0));
    let mut batch = Batch::default();
    let mut rest = item.data.clone();
    let mut seen = 0u32;
    while !rest.is_empty() {
        let Ok(used @ 1..) = decoder.decode(&rest, &mut batch) else { return };
        for command in &batch.commands {
            f(seen, &batch, command);
            seen += 1;
        }
        rest.advance(used);
    }
}
