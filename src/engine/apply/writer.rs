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

mod checkpoint;
mod late;
mod opening;
mod parked;
mod refused;
mod replied;
mod restores;
mod unanswered;

use self::checkpoint::Checkpoints;
use self::parked::Parked;
use self::unanswered::Unanswered;
use super::control_key::{ControlKey, LoadPhase, Position};
use super::outbox::Item;
use super::replies::Replies;
use super::transaction::{Envelope, Paper, Transaction, slot_of};
use crate::engine::clock::StreamClock;
use crate::engine::core::Shared;
use crate::engine::events::EventSink;
use crate::engine::gauge::{Condition, Gauge};
use crate::engine::net::{Dialer, RawStream};
use crate::model::{Direction, EventKind, ReplId, Side};
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
/// Transactions in flight to a cluster, where one is mostly one change.
const WINDOW_OF_SMALL: usize = 512;
/// What a transaction takes at most, if its items are small: a target executes that in well under a millisecond.
const COMMANDS: usize = 512;
const BYTES: usize = 64 << 10;
/// A connection on which something is due and nothing comes for so long is dead.
const REPLY_DEADLINE: Duration = Duration::from_secs(30);
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
    /// A slot has been moving for long: look again whose it is.
    Redirected,
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
    /// What is behind a proxy runs in an order of its own, so each transaction has to be answered before the next.
    pub one_at_a_time: bool,
    pub envelope: Envelope,
    pub epoch: u64,
    pub two_way: bool,
    /// Where there is one link: when what it reads was made.
    pub clock: Option<Arc<StreamClock>>,
    pub order: watch::Receiver<Order>,
    /// The history of the stream that is applied here, and of this site's own.
    pub replids: Arc<[std::sync::RwLock<Option<ReplId>>; 2]>,
    /// Rung when the site is perhaps not what it was: a connection was lost, a transaction redirected.
    pub trouble: Arc<tokio::sync::Notify>,
    /// The first connection, where it is open already.
    pub opened: Option<RawStream>,
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
    /// Something in the window may have been refused.
    refusals: bool,
    /// The newest transaction that carries notes.
    notes: u64,
    paper: Paper,
    booked: replied::Booked,
    /// The control key's position that was last written, and when.
    saved: Instant,
    holding: Option<Hold>,
    backoff: Duration,
    limiter: super::limiter::Limiter,
    pace: super::pace::Pace,
    /// What a cluster has redirected.
    parked: Parked,
    unanswered: Unanswered,
    checkpoints: Checkpoints,
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
    Redirected,
}

impl Writer {
    pub fn new(s: WriterSetup) -> Self {
        let site = s.direction.to();
        let (replied, echoed) = {
            let core = s.shared.lock();
            (core.replied[site.index()], core.echoed[site.other().index()])
        };
        Writer {
            site,
            window: VecDeque::new(),
            window_bytes: 0,
            number: 0,
            acked: 0,
            safe_replied: replied,
            replied,
            refused_once: false,
            refusals: false,
            notes: 0,
            paper: Paper::default(),
            booked: replied::Booked::default(),
            saved: Instant::now(),
            holding: None,
            backoff: BACKOFF_FIRST,
            limiter: super::limiter::Limiter::new(s.gauge.clone()),
            pace: super::pace::Pace::new(WINDOW),
            parked: Parked::default(),
            unanswered: Unanswered::default(),
            checkpoints: Checkpoints::from(echoed.offset),
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
                        Lost::Redirected => return End::Redirected,
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

    // ---- one connection ----------------------------------------------------------------------------------------

    async fn session(&mut self, stream: RawStream) -> Lost {
        let (mut reader, mut writer) = stream.into_split();
        let mut replies = Replies::default();
        let mut pending: VecDeque<Bytes> = self.window.iter().flat_map(|t| t.segments.iter().cloned()).collect();
        self.holding = None;
        self.pace.begin();
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
                    if self.parked_too_long() {
                        return Lost::Redirected;
                    }
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
        // By its bytes: what burdens a site is full transactions. Small ones, of which each question for a state ends one,
        // would be ten a second over a way of 400 ms, and settling what a cut line left would take many seconds.
        let allowed = WINDOW_BYTES.min(self.pace.allowed() * BYTES);
        let most = match self.s.one_at_a_time {
            true => 1,
            false if self.s.envelope.names.is_cluster() => WINDOW_OF_SMALL,
            false => WINDOW,
        };
        let now = Instant::now();
        let shared = self.s.shared.clone();
        while self.window.len() < most && self.window_bytes < allowed && !self.parked.is_full() {
            if let Some(delay) = self.limiter.delay() {
                wait = Some(delay);
                break;
            }
            let taken = {
                let mut core = shared.lock();
                let i = self.site.index();
                self.s.gauge.set_in_flight(self.window.len() as u64 + u64::from(!core.out[i].is_empty()));
                if core.out[i].is_empty() {
                    self.checkpoint(&mut core)
                } else {
                    let items = core.out[i].take(COMMANDS, BYTES);
                    if self.parked.wants(&items) {
                        self.parked.add(&mut core, self.site, self.number, items);
                        continue;
                    }
                    items.last().map(At::of).map(|at| (items, self.control_key(at)))
                }
            };
            let Some((items, control)) = taken else { break };
            self.number = control.number;
            self.safe_replied = control.replied;
            self.checkpoints.said_back = control.echoed.offset;
            if !items.is_empty() {
                self.checkpoints.carried();
            }
            if items.iter().any(|i| i.kind.is_notes()) {
                self.notes = control.number;
            }
            let transaction = self.encode(&control, items, now);
            self.limiter.spend(transaction.changes.into(), transaction.bytes as u64);
            pending.extend(transaction.segments.iter().cloned());
            self.window_bytes += transaction.bytes;
            self.window.push_back(transaction);
            self.saved = now;
            made = true;
        }
        if made {
            self.s.shared.room[self.site.index()].notify_one();
        }
        wait
    }

    fn encode(&mut self, control: &ControlKey, items: Vec<Item>, now: Instant) -> Transaction {
        let envelope = &self.s.envelope;
        let slot = slot_of(&items).or(envelope.names.home()).filter(|_| envelope.joins);
        let alone = slot.is_some_and(|slot| !self.unanswered.has(slot, &self.window));
        let transaction = Transaction::encode(envelope, control, items, alone, now, &mut self.paper);
        if let Some(slot) = slot {
            self.unanswered.sent(slot, control.number);
        }
        transaction
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
        self.window.front().is_some_and(|t| t.control.number <= self.notes)
            && self.window.iter().any(|t| t.items.iter().any(|i| i.kind.is_notes()))
    }
}

async fn write_some(writer: &mut (impl AsyncWriteExt + Unpin), pending: &VecDeque<Bytes>) -> std::io::Result<usize> {
    const SLICES: usize = 256;
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
