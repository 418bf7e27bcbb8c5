//! What a site has refused: sent again in its order, overtaken, or settled by state.

use super::replied::each_command;
use super::{BACKOFF_MOST, Hold, REPLY_DEADLINE, Writer};
use crate::engine::apply::outbox::{Item, ItemKind};
use crate::engine::apply::replies::Refusal;
use crate::engine::apply::transaction::{Outcome, Transaction};
use crate::engine::arbiter::Verdict;
use crate::engine::arbiter::class::Class;
use crate::engine::arbiter::classify::{Effect, classify};
use crate::engine::arbiter::episode::Cause;
use crate::engine::core::{Core, NewItem};
use crate::engine::gauge::Condition;
use crate::model::{EventKind, Severity};
use crate::wire::command::Argv;
use crate::wire::resp::{encode_header, encode_part};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

impl Writer {
    /// When all of the window is answered and some of it was refused: decides what to do with those, and gives what is
    /// to be written at once, if anything.
    pub(super) fn after_refusal(&mut self) -> Option<VecDeque<Bytes>> {
        if !self.refusals {
            return None;
        }
        let refused = self.window.iter().any(|t| matches!(t.outcome, Outcome::Refused(_)));
        self.refusals = refused;
        if !refused || self.window.iter().any(|t| t.outcome == Outcome::Pending) {
            if refused && self.holding.is_none() {
                // Nothing new goes out before the rest is answered.
                self.holding = Some(Hold { until: Instant::now() + REPLY_DEADLINE, text: String::new() });
            }
            return None;
        }
        // Some behind a refused one went through: the refused one can't be sent any more, its keys are settled by state.
        let last_applied = self.window.iter().rposition(|t| t.outcome == Outcome::Applied);
        let passed: Vec<Transaction> = match last_applied {
            Some(last) => self.window.drain(..=last).collect(),
            None => Vec::new(),
        };
        let now = Instant::now();
        for t in passed {
            self.window_bytes -= t.bytes;
            match t.outcome {
                Outcome::Applied => self.answered(&t, now),
                _ => self.overtaken(&t.items),
            }
        }
        // Their echoes may be waiting for that.
        self.tell_answered();
        let Some(Outcome::Refused(text)) = self.window.front().map(|t| t.outcome.clone()) else {
            self.holding = None;
            self.s.gauge.set_condition(Condition::Fine);
            return None;
        };
        self.refused_once = true;
        self.s.trouble.notify_one();
        let wait = match Refusal::of(&text) {
            Refusal::Command => {
                self.without_refused_command(&text);
                Duration::ZERO
            }
            Refusal::Passing | Refusal::Standing => {
                self.backoff = (self.backoff * 2).min(BACKOFF_MOST);
                self.backoff
            }
        };
        let remedy = crate::engine::net::ServerError::classify(&text).remedy();
        let why = format!("{} refuses writes: {text}", self.s.address);
        if wait > Duration::ZERO
            && self.s.gauge.set_condition(Condition::Refused { why: why.clone(), remedy: remedy.to_owned() })
        {
            let text = format!("{why}; {remedy}");
            self.s.events.emit(Some(self.s.direction), Severity::Warning, EventKind::TargetRefuses, text);
        }
        self.holding = Some(Hold { until: Instant::now() + wait, text });
        None
    }

    /// The time to try again has come.
    pub(super) fn retry(&mut self) -> Option<VecDeque<Bytes>> {
        let hold = self.holding.as_ref()?;
        if Instant::now() < hold.until || self.window.iter().any(|t| t.outcome == Outcome::Pending) {
            return None;
        }
        tracing::debug!(direction = %self.s.direction, refused = hold.text, "trying again");
        self.holding = None;
        let mut pending = VecDeque::new();
        for t in &mut self.window {
            t.outcome = Outcome::Pending;
            pending.extend(t.segments.iter().cloned());
        }
        (!pending.is_empty()).then_some(pending)
    }

    /// A refused transaction that later ones overtook: nothing of it was applied. What its site has to get all the same
    /// is sent again; the rest is settled by state.
    pub(super) fn overtaken(&self, items: &[Item]) {
        let mut core = self.s.shared.lock();
        core.set_now(self.s.shared.now_ms());
        let mut notes = false;
        for item in items {
            match item.kind {
                ItemKind::Ask(_) | ItemKind::Expiries(_) => self.unanswered(&mut core, item),
                ItemKind::Notes => notes = true,
                ItemKind::AllNotes => {
                    notes = true;
                    core.notes_written(self.site, 1);
                }
                _ => self.send_again(&mut core, item),
            }
        }
        if notes {
            // What they said may have changed since: what is true now is written down.
            core.rewrite_notes(self.site, None);
        }
        self.told(core);
    }

    fn send_again(&self, core: &mut Core, item: &Item) {
        let item_slot = item.slot;
        let mut again = Vec::new();
        each_command(item, |_, batch, command| {
            let args = batch.args(command);
            let effect = classify(&core.arbiter, command.db, &args);
            let apart = matches!(effect, Effect::Apart(_));
            let (Effect::Keys(touches) | Effect::Apart(touches)) = effect else { return };
            let changes = item.kind == ItemKind::Changes && self.s.two_way;
            match &touches[..] {
                [one] if changes => {
                    if let Verdict::Forward(serial) = core.arbiter.overtaken(self.site, one) {
                        core.touched(self.site, one.hash);
                        again.push((batch.frame(command), command.db, serial));
                    }
                }
                // DEL, MSET: each key stands for itself, with what is said of it.
                many if changes && apart => {
                    let each = (args.argc() - 1) / many.len();
                    for (n, one) in many.iter().enumerate() {
                        if let Verdict::Forward(serial) = core.arbiter.overtaken(self.site, one) {
                            core.touched(self.site, one.hash);
                            let mut data = BytesMut::new();
                            encode_header(&mut data, 1 + each);
                            encode_part(&mut data, args.arg(0));
                            (0..each).for_each(|i| encode_part(&mut data, args.arg(1 + n * each + i)));
                            again.push((data.freeze(), command.db, serial));
                        }
                    }
                }
                many => {
                    for t in many.iter().filter(|t| t.class != Class::Read) {
                        core.differs(t, self.site.other(), Cause::ApplyError);
                    }
                }
            }
        });
        core.carry_out();
        for (data, db, serial) in again {
            let item = NewItem::new(data, 1, ItemKind::Changes, serial);
            core.push(self.site, NewItem { db: Some(db), slot: item_slot, ..item });
        }
    }

    /// The server will never take one of the front transaction's commands: each of its keys is settled by state, and
    /// the transaction goes without its changes.
    fn without_refused_command(&mut self, text: &str) {
        let Some(t) = self.window.pop_front() else { return };
        self.s.gauge.apply_error();
        self.s.shared.lock().command_refused(self.site, text);
        let text =
            format!("{} does not take a command: {text}; the keys it touches are settled by state", self.s.address);
        if self.s.gauge.may_log_error() {
            self.s.events.emit(Some(self.s.direction), Severity::Error, EventKind::ApplyError, text);
        }
        self.window_bytes -= t.bytes;
        self.unseen(&t);
        let kept: Vec<Item> = t.items.into_iter().filter(|i| i.kind.is_notes()).collect();
        let mut again = Transaction::encode(&self.s.envelope, &t.control, kept, false, Instant::now(), &mut self.paper);
        // Not on its way yet: it goes with the others behind it.
        again.outcome = Outcome::Refused(String::new());
        self.window_bytes += again.bytes;
        self.window.push_front(again);
    }
}
