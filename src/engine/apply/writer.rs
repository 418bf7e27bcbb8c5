//! The writer of one site: takes items from its outbox, writes marked transactions, sees to their replies.
//!
//! ```text
//!   Connecting ─▶ Reconciling ─▶ Writing ──refused──▶ Holding ──retry──▶ Writing
//!       ▲              │ (kill the old connection,        │
//!       │              │  read the control key)           │
//!       └──────────────┴────────── connection lost ───────┘
//! ```
//!
//! It ends only when it is told to, or when going on would be wrong: another engine has taken over, or the site has
//! lost what it had acknowledged.

mod parked;
mod restores;

use self::parked::Parked;
use super::control_key::{ControlKey, LoadPhase, Position};
use super::outbox::{Item, ItemKind};
use super::replies::{Finding, Refusal, Replies, ReplyError};
use super::transaction::{Envelope, Outcome, Transaction};
use crate::engine::arbiter::Verdict;
use crate::engine::arbiter::class::Class;
use crate::engine::arbiter::classify::{Effect, classify};
use crate::engine::arbiter::episode::Cause;
use crate::engine::core::{NewItem, Shared, checkpoint_due};
use crate::engine::events::EventSink;
use crate::engine::gauge::{Condition, Gauge};
use crate::engine::net::{Conversation, Dialer, NetError, RawStream, ServerInfo, Token};
use crate::model::{Direction, EventKind, Offset, ReplId, Severity, Side};
use crate::wire::stream::{Batch, Command, Decoder};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// Transactions and bytes in flight to a site. A window of 128 transactions of up to 256 changes covers a link of
/// 200 ms round trip at 160,000 changes a second; 4 MiB keeps a stalled site from eating memory.
const WINDOW: usize = 128;
const WINDOW_BYTES: usize = 4 << 20;
/// What a transaction takes at most, if its items are small: a target executes that in well under a millisecond.
const COMMANDS: usize = 512;
const BYTES: usize = 64 << 10;
/// A connection on which something is due and nothing comes for so long is dead.
const REPLY_DEADLINE: Duration = Duration::from_secs(30);
/// A bare checkpoint is written when enough of the source has been decided without one, or after this time.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(1000);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// Why a writer ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was told to; all that it took has been answered.
    Stopped,
    /// The site's control key has a higher epoch.
    Fenced,
    /// The site has lost transactions that it had acknowledged: start again from what it says.
    WentBack,
    /// The site has no control key any more.
    Gone,
}

/// How a writer is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Run,
    /// Write what is in the outbox, wait for the replies, then end.
    Drain,
}

/// What a writer needs.
pub struct WriterSetup {
    pub shared: Arc<Shared>,
    pub gauge: Arc<Gauge>,
    pub events: EventSink,
    pub direction: Direction,
    pub dialer: Dialer,
    pub address: String,
    pub envelope: Envelope,
    pub epoch: u64,
    pub two_way: bool,
    pub order: watch::Receiver<Order>,
    /// The history of the stream that is applied here, and of this site's own.
    pub replids: Arc<[std::sync::RwLock<Option<ReplId>>; 2]>,
    /// Rung when the site is perhaps not what it was: a connection was lost, a transaction redirected.
    pub trouble: Arc<tokio::sync::Notify>,
}

pub struct Writer {
    s: WriterSetup,
    site: Side,
    window: VecDeque<Transaction>,
    window_bytes: usize,
    /// The number of the newest transaction.
    number: u64,
    /// The newest whose reply was seen.
    acked: u64,
    /// The newest `replied` that is certainly written down together with what those replies led to.
    safe_replied: Position,
    /// Up to here the replies have been seen.
    replied: Position,
    /// The site has refused something and has taken nothing since.
    refused_once: bool,
    /// The control key's position that was last written, and when.
    saved: Instant,
    holding: Option<Hold>,
    backoff: Duration,
    limiter: super::limiter::Limiter,
    /// What a cluster has redirected.
    parked: Parked,
}

/// What a control key says, as of one item.
struct At {
    serial: u64,
    position: Position,
    echoed: Position,
    replied: Position,
    phase: LoadPhase,
}

impl At {
    fn of(item: &Item) -> At {
        At {
            serial: item.serial,
            position: item.position,
            echoed: item.echoed,
            replied: item.replied,
            phase: item.phase,
        }
    }
}

/// Waiting for a refusal's cause to go away.
struct Hold {
    until: Instant,
    text: String,
}

/// Why a session on one connection ended.
enum Lost {
    Connection(String),
    Stopped,
}

impl Writer {
    pub fn new(s: WriterSetup) -> Self {
        let site = s.direction.to();
        let replied = s.shared.lock().replied[site.index()];
        Writer {
            site,
            window: VecDeque::new(),
            window_bytes: 0,
            number: 0,
            acked: 0,
            safe_replied: replied,
            replied,
            refused_once: false,
            saved: Instant::now(),
            holding: None,
            backoff: BACKOFF_FIRST,
            limiter: super::limiter::Limiter::new(s.gauge.clone()),
            parked: Parked::default(),
            s,
        }
    }

    /// Writes until told to stop, over any number of connections.
    pub async fn run(mut self) -> End {
        let mut attempt = 0u32;
        let mut first = true;
        loop {
            if *self.s.order.borrow() == Order::Drain
                && self.window.is_empty()
                && self.s.shared.lock().out_is_empty(self.site)
            {
                return End::Stopped;
            }
            let opened = match self.open(first).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(end)) => return end,
                Err(e) => Err(e),
            };
            match opened {
                Ok(stream) => {
                    attempt = 0;
                    if !first {
                        self.s.events.info(
                            Some(self.s.direction),
                            EventKind::Connected,
                            format!("writing to {} again", self.s.address),
                        );
                    }
                    first = false;
                    self.s.gauge.set_condition(Condition::Fine);
                    match self.session(stream).await {
                        Lost::Stopped => return End::Stopped,
                        Lost::Connection(why) => self.lost(why),
                    }
                }
                Err(e) => {
                    self.lost(e.to_string());
                    attempt += 1;
                    let wait = BACKOFF_FIRST * 2u32.pow(attempt.min(6)) / 2;
                    let jitter = Duration::from_millis(fastrand::u64(0..=wait.as_millis() as u64 / 4));
                    let mut order = self.s.order.clone();
                    tokio::select! {
                        () = tokio::time::sleep(wait.min(BACKOFF_MOST) + jitter) => {}
                        // A job that is told to stop does not wait for a server that is away.
                        _ = order.wait_for(|o| *o == Order::Drain) => return End::Stopped,
                    }
                }
            }
        }
    }

    fn lost(&self, why: String) {
        self.s.trouble.notify_one();
        let fresh = self.s.gauge.set_condition(Condition::Reconnecting { why: why.clone() });
        if fresh {
            self.s.gauge.reconnected();
            self.s.events.emit(
                Some(self.s.direction),
                Severity::Warning,
                EventKind::Disconnected,
                format!("writing: {why}; trying again"),
            );
        }
    }

    // ---- opening -----------------------------------------------------------------------------------------------

    /// Dials; on a reconnect makes sure that the old connection is dead and learns what it applied.
    async fn open(&mut self, first: bool) -> Result<Result<RawStream, End>, NetError> {
        if !first && let Err(end) = self.reconcile().await? {
            return Ok(Err(end));
        }
        let mut talk = self.s.dialer.conversation(&self.s.address).await?;
        if self.has_new_history(&mut talk).await? {
            return Ok(Err(End::WentBack));
        }
        if !self.s.envelope.names.is_cluster() && self.s.envelope.db != 0 {
            let db = self.s.envelope.db.to_string();
            talk.ask(&[b"SELECT", db.as_bytes()], Duration::from_secs(10)).await?;
        }
        Ok(Ok(talk.into_parts().0))
    }

    /// Behind this address (a name, a virtual one) is another server than before, or the same with another past. What
    /// that means for the positions has to be looked at before anything is written.
    async fn has_new_history(&self, talk: &mut Conversation) -> Result<bool, NetError> {
        let known = *self.s.replids[self.site.index()].read().unwrap_or_else(|p| p.into_inner());
        let Some(known) = known else { return Ok(false) };
        let answer = talk.ask(&[b"INFO", b"replication"], self.s.dialer.deadlines().response).await?;
        let Token::Bulk(text) = answer else { return Ok(false) };
        let now = ServerInfo::parse(&String::from_utf8_lossy(&text)).replid;
        Ok(now.is_some_and(|now| now != known))
    }

    async fn reconcile(&mut self) -> Result<Result<(), End>, NetError> {
        let apply = self.s.dialer.client_name();
        let asking = self.s.dialer.named(&apply.replacen(":apply", ":control", 1));
        let mut control = asking.control(&self.s.address).await?;
        crate::engine::fence::kill_clients(&mut control, &[apply]).await?;
        let names = &self.s.envelope.names;
        let key = crate::engine::fence::read_position(&mut control, self.s.envelope.db, names).await?;
        let Some(key) = key else {
            return Ok(if self.number == 0 { Ok(()) } else { Err(End::Gone) });
        };
        if key.epoch > self.s.epoch {
            return Ok(Err(End::Fenced));
        }
        if key.epoch < self.s.epoch || key.number < self.acked {
            return Ok(Err(End::WentBack));
        }
        // Applied, but their replies are lost: what failed in them has to be found by the keys.
        while self.window.front().is_some_and(|t| t.control.number <= key.number) {
            let Some(t) = self.window.pop_front() else { break };
            self.window_bytes -= t.bytes;
            self.unseen(&t);
            self.answered(&t);
        }
        for t in &mut self.window {
            t.outcome = Outcome::Pending;
        }
        self.tell_answered();
        Ok(Ok(()))
    }

    // ---- one connection ----------------------------------------------------------------------------------------

    async fn session(&mut self, stream: RawStream) -> Lost {
        let (mut reader, mut writer) = stream.into_split();
        let mut replies = Replies::default();
        let mut pending: VecDeque<Bytes> = self.window.iter().flat_map(|t| t.segments.iter().cloned()).collect();
        self.holding = None;
        let shared = self.s.shared.clone();
        let mut order = self.s.order.clone();
        let mut last_reply = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looked = false;
        loop {
            let wait = if pending.is_empty() && self.holding.is_none() { self.fill(&mut pending) } else { None };
            if self.drained() && pending.is_empty() {
                return Lost::Stopped;
            }
            if self.window.is_empty() {
                last_reply = Instant::now();
            }
            let again = wait.or(self.holding.as_ref().map(|h| h.until.saturating_duration_since(Instant::now())));
            // Reading comes first: replies make room. Writing next. Only then is there time to wait.
            tokio::select! {
                biased;
                read = reader.read_buf(replies.buffer()) => {
                    match read {
                        Ok(0) => return Lost::Connection(format!("{} closed the connection", self.s.address)),
                        Err(e) => return Lost::Connection(format!("reading from {}: {e}", self.s.address)),
                        Ok(_) => {}
                    }
                    last_reply = Instant::now();
                    if let Err(e) = self.take_replies(&mut replies) {
                        return Lost::Connection(format!("{}: {e}", self.s.address));
                    }
                    if let Some(again) = self.after_refusal() {
                        pending = again;
                    }
                }
                wrote = write_some(&mut writer, &pending), if !pending.is_empty() => {
                    match wrote {
                        Ok(0) => return Lost::Connection(format!("{} takes no more bytes", self.s.address)),
                        Ok(n) => consume(&mut pending, n),
                        Err(e) => return Lost::Connection(format!("writing to {}: {e}", self.s.address)),
                    }
                }
                () = shared.ready[self.site.index()].notified() => {}
                _ = order.changed(), if !looked => looked = *order.borrow() == Order::Drain,
                () = tokio::time::sleep(again.unwrap_or(Duration::from_secs(3600))), if again.is_some() => {
                    if let Some(again) = self.retry() {
                        pending = again;
                    }
                }
                _ = tick.tick() => {
                    self.look_at_parked();
                    if !self.window.is_empty() && self.holding.is_none() && last_reply.elapsed() > REPLY_DEADLINE {
                        return Lost::Connection(format!(
                            "{} has not answered for {} s", self.s.address, REPLY_DEADLINE.as_secs()));
                    }
                }
            }
        }
    }

    fn drained(&self) -> bool {
        *self.s.order.borrow() == Order::Drain && self.window.is_empty() && self.s.shared.lock().out_is_empty(self.site)
    }

    /// Makes transactions of what waits, as far as the window has room. Gives how long to wait for the rate limit.
    fn fill(&mut self, pending: &mut VecDeque<Bytes>) -> Option<Duration> {
        let mut made = false;
        let mut wait = None;
        while self.window.len() < WINDOW && self.window_bytes < WINDOW_BYTES && !self.parked.is_full() {
            if let Some(delay) = self.limiter.delay() {
                wait = Some(delay);
                break;
            }
            let taken = {
                let mut core = self.s.shared.lock();
                let i = self.site.index();
                self.s.gauge.set_in_flight(self.window.len() as u64 + u64::from(!core.out[i].is_empty()));
                if core.out[i].is_empty() {
                    self.checkpoint(&mut core)
                } else {
                    let items = core.out[i].take(COMMANDS, BYTES);
                    if self.parked.wants(&items) {
                        self.parked.add(&mut core, items);
                        continue;
                    }
                    items.last().map(At::of).map(|at| (items, self.control_key(at)))
                }
            };
            let Some((items, control)) = taken else { break };
            self.number = control.number;
            self.safe_replied = control.replied;
            let transaction = Transaction::encode(&self.s.envelope, &control, items);
            self.limiter.spend(transaction.changes.into(), transaction.bytes as u64);
            pending.extend(transaction.segments.iter().cloned());
            self.window_bytes += transaction.bytes;
            self.window.push_back(transaction);
            self.saved = Instant::now();
            made = true;
        }
        if made {
            self.s.shared.room[self.site.index()].notify_one();
        }
        wait
    }

    /// A transaction with nothing but the control key, when the position has moved and nothing carries it.
    fn checkpoint(&self, core: &mut crate::engine::core::Core) -> Option<(Vec<Item>, ControlKey)> {
        let i = self.site.index();
        let (bytes, real) = core.unsaved[i];
        let draining = *self.s.order.borrow() == Order::Drain;
        let due = bytes > 0
            && (checkpoint_due((bytes, real)) || real && (self.saved.elapsed() >= CHECKPOINT_EVERY || draining));
        // While a snapshot loads there is no position to save.
        // Nor may a slot's control key say more than the slot has had.
        let waits = self.s.envelope.names.home().is_some_and(|home| self.parked.holds(home));
        if !due || waits || core.phase[self.site.other().index()] == LoadPhase::Loading {
            return None;
        }
        core.unsaved[i] = (0, false);
        let from = self.site.other().index();
        let serial = core.arbiter.last_serial(self.site);
        let at = At {
            serial,
            position: core.decided[from],
            echoed: core.echoed[from],
            replied: core.replied[i],
            phase: core.phase[from],
        };
        Some((Vec::new(), self.control_key(at)))
    }

    fn control_key(&self, at: At) -> ControlKey {
        let replid = |side: Side| {
            self.s.replids[side.index()].read().map(|r| *r).unwrap_or_else(|poisoned| *poisoned.into_inner())
        };
        ControlKey {
            epoch: self.s.epoch,
            number: self.number + 1,
            serial: at.serial,
            phase: at.phase,
            replid: replid(self.site.other()),
            applied: at.position,
            // What replies have led to is written down by our notes. While one of those is under way it may still be
            // refused and overtaken, so what it stands for does not count as seen.
            replied: match self.parked.held() {
                Some(held) if held.offset < at.replied.offset => held,
                _ if self.notes_under_way() => self.safe_replied,
                _ => at.replied,
            },
            peer_replid: replid(self.site),
            echoed: at.echoed,
            strand: self.s.envelope.names.id(),
        }
    }

    fn notes_under_way(&self) -> bool {
        self.window.iter().any(|t| t.items.iter().any(|i| i.kind == ItemKind::Notes))
    }

    // ---- replies -----------------------------------------------------------------------------------------------

    fn take_replies(&mut self, replies: &mut Replies) -> Result<(), ReplyError> {
        let mut findings = Vec::new();
        let mut answered = false;
        while let Some(place) = replies.next(&mut self.window, &mut findings)? {
            answered = true;
            if !findings.is_empty() {
                let found = std::mem::take(&mut findings);
                let transaction = &self.window[place];
                self.found(transaction, &found);
            }
            self.park(place);
            while self.window.front().is_some_and(|t| t.outcome == Outcome::Applied) {
                let Some(t) = self.window.pop_front() else { break };
                self.window_bytes -= t.bytes;
                self.answered(&t);
            }
        }
        if answered {
            self.s.gauge.set_in_flight(self.window.len() as u64);
            self.tell_answered();
        }
        Ok(())
    }

    /// Echoes of what has been answered may be taken now.
    fn tell_answered(&self) {
        let mut core = self.s.shared.lock();
        let i = self.site.index();
        core.answered[i] = self.acked;
        core.replied[i] = self.replied.max_by_offset(core.replied[i]);
        drop(core);
        self.s.shared.state_came.notify_waiters();
    }

    /// Books a transaction that was applied.
    fn answered(&mut self, t: &Transaction) {
        self.acked = self.acked.max(t.control.number);
        if self.parked.held().is_none() {
            self.replied = t.position;
        }
        self.restores_answered(t);
        if self.refused_once {
            self.refused_once = false;
            self.backoff = BACKOFF_FIRST;
            if self.s.gauge.set_condition(Condition::Fine) {
                let text = format!("{} takes writes again", self.s.address);
                self.s.events.info(Some(self.s.direction), EventKind::Connected, text);
            }
        }
        let latency = self.s.shared.now_ms().saturating_sub(t.decided_ms);
        let latency = if t.items.is_empty() { 0 } else { latency };
        // While a snapshot loads, the source's position is not applied yet.
        let not_yet = t.control.phase == LoadPhase::Loading || self.parked.held().is_some();
        let offset = if not_yet { Offset(0) } else { t.position.offset };
        self.s.gauge.applied(offset, t.changes.into(), t.bytes as u64, latency);
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
                Finding::Expiries(at) => core.expiries_came(self.site, Some(at)),
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
    fn unseen(&self, t: &Transaction) {
        let mut core = self.s.shared.lock();
        core.set_now(self.s.shared.now_ms());
        for item in &t.items {
            match item.kind {
                ItemKind::Ask(token) => {
                    let now = core.now_ms();
                    core.arbiter.token_lost(token, now);
                }
                ItemKind::Expiries => core.expiries_came(self.site, None),
                ItemKind::Notes => {}
                _ => {
                    self.differs(&mut core, item, None, self.site.other(), Cause::Recovery);
                }
            }
        }
        core.carry_out();
        core.settle();
        drop(core);
        self.s.shared.wake_writers();
        self.s.shared.state_came.notify_waiters();
        self.s.shared.settle.notify_one();
    }

    /// The hashes of the keys of a DEL.
    fn deleted(&self, core: &crate::engine::core::Core, item: &Item, index: u32) -> Vec<u64> {
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
        core: &mut crate::engine::core::Core,
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
            let args = batch.args(command);
            if let Effect::Keys(touches) | Effect::Apart(touches) = classify(&core.arbiter, command.db, &args) {
                let name = String::from_utf8_lossy(args.get(0).unwrap_or_default()).into_owned();
                let key = touches.first().map(|t| crate::engine::conflicts::shown(t.key)).unwrap_or_default();
                shown.get_or_insert(format!("{name} {key:?}"));
                for t in touches.iter().filter(|t| t.class != Class::Read) {
                    core.differs(t, authority, cause);
                }
            }
        });
        core.carry_out();
        shown
    }

    // ---- refusals ----------------------------------------------------------------------------------------------

    /// When all of the window is answered and some of it was refused: decides what to do with those, and gives what is
    /// to be written at once, if anything.
    fn after_refusal(&mut self) -> Option<VecDeque<Bytes>> {
        let refused = self.window.iter().any(|t| matches!(t.outcome, Outcome::Refused(_)));
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
        for t in passed {
            self.window_bytes -= t.bytes;
            match t.outcome {
                Outcome::Applied => self.answered(&t),
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
    fn retry(&mut self) -> Option<VecDeque<Bytes>> {
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
    fn overtaken(&self, items: &[Item]) {
        let mut core = self.s.shared.lock();
        core.set_now(self.s.shared.now_ms());
        let mut notes = false;
        for item in items {
            match item.kind {
                ItemKind::Ask(token) => {
                    let now = core.now_ms();
                    core.arbiter.token_lost(token, now);
                }
                ItemKind::Expiries => core.expiries_came(self.site, None),
                ItemKind::Notes => notes = true,
                _ => self.send_again(&mut core, item),
            }
        }
        if notes {
            // What they said may have changed since: what is true now is written down.
            core.rewrite_notes(self.site, None);
        }
        core.carry_out();
        core.settle();
        drop(core);
        self.s.shared.wake_writers();
        self.s.shared.state_came.notify_waiters();
        self.s.shared.settle.notify_one();
    }

    fn send_again(&self, core: &mut crate::engine::core::Core, item: &Item) {
        let item_slot = item.slot;
        let mut again = Vec::new();
        each_command(item, |_, batch, command| {
            let args = batch.args(command);
            let (Effect::Keys(touches) | Effect::Apart(touches)) = classify(&core.arbiter, command.db, &args) else {
                return;
            };
            match &touches[..] {
                [one] if item.kind == ItemKind::Changes && self.s.two_way => {
                    if let Verdict::Forward(serial) = core.arbiter.overtaken(self.site, one) {
                        core.touched(self.site, one.hash);
                        again.push((batch.frame(command), command.db, serial));
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
        let kept: Vec<Item> = t.items.into_iter().filter(|i| i.kind == ItemKind::Notes).collect();
        let mut again = Transaction::encode(&self.s.envelope, &t.control, kept);
        // Not on its way yet: it goes with the others behind it.
        again.outcome = Outcome::Refused(String::new());
        self.window_bytes += again.bytes;
        self.window.push_front(again);
    }
}

/// Gives each command of an item with its place.
fn each_command(item: &Item, mut f: impl FnMut(u32, &Batch, &Command)) {
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

async fn write_some(writer: &mut (impl AsyncWriteExt + Unpin), pending: &VecDeque<Bytes>) -> std::io::Result<usize> {
    const SLICES: usize = 64;
    let mut slices = [IoSlice::new(&[]); SLICES];
    let mut n = 0;
    for (slot, bytes) in slices.iter_mut().zip(pending.iter()) {
        *slot = IoSlice::new(bytes);
        n += 1;
    }
    writer.write_vectored(&slices[..n]).await
}

fn consume(pending: &mut VecDeque<Bytes>, mut n: usize) {
    while n > 0 {
        let Some(front) = pending.front_mut() else { return };
        if n < front.len() {
            front.advance(n);
            return;
        }
        n -= front.len();
        pending.pop_front();
    }
    while pending.front().is_some_and(Bytes::is_empty) {
        pending.pop_front();
    }
}
