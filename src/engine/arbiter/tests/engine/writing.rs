//! To the sites and back: outboxes, transactions, what becomes of them, replies, and connections that are lost.

use super::*;

impl Engine {
    // ---- writing ---------------------------------------------------------------------------------------------------

    pub(super) fn push(&mut self, target: Side, item: Item) {
        let source = target.other().index();
        let echoed = self.come_back(target.other());
        let lane = &mut self.lanes[target.index()];
        let (offset, replied) = (self.pos[source], lane.replied);
        lane.due = false;
        lane.outbox.push_back(Outgoing { item, offset, echoed, replied, loading: self.loading[source] });
    }

    /// How far the other site's stream has come back in that of `here`: all that was decided of it, where nothing is on its way.
    fn come_back(&self, here: Side) -> usize {
        let (known, peer) = (self.echoed[here.index()], here.other());
        let all = self.arbiter.in_flight(here).0 == 0 && !self.arbiter.runs_after_flush(peer);
        if all && !self.loading.contains(&true) { known.max(self.pos[peer.index()]) } else { known }
    }

    pub(super) fn carry_out(&mut self) {
        let effects: Vec<Effect> = self.arbiter.take_effects().collect();
        for effect in effects {
            match effect {
                Effect::Ask { site, token, db, key, serial } => {
                    self.push(site, Item::Ask { token, key: key_of(db, &key), serial });
                }
                Effect::Restore { site, token, db, key, serial } => {
                    let state = self.dumps.remove(&token).expect("the state had been waited for");
                    self.push(site, Item::Change { cmd: Cmd::Restore(key_of(db, &key), state, true), serial });
                }
                Effect::Persist { site, db, key, number, authority } => {
                    self.push(site, Item::Book(Book::Persist { key: key_of(db, &key), number, authority }));
                }
                Effect::Forget { site, db, key } => {
                    self.push(site, Item::Book(Book::Forget { key: key_of(db, &key) }));
                }
                Effect::Opened { .. } | Effect::Settled(_) => {}
            }
        }
    }

    pub fn settle(&mut self, now: u64) {
        self.look_at_snapshots();
        self.arbiter.settle(now);
        self.carry_out();
    }

    /// Makes a transaction of (the beginning of) an outbox and sends it. `most`: items, as far as it can be cut there.
    /// `bare`: also if it carries nothing but the position.
    pub fn build(&mut self, target: Side, most: usize, bare: bool) -> bool {
        let source = target.other();
        let (pos, echoed) = (self.pos[source.index()], self.come_back(source));
        let loading = self.loading[source.index()];
        let lane = &mut self.lanes[target.index()];
        // While a copy loads there is no position to save.
        let bare = !loading && (lane.due || bare && lane.sent_offset < pos);
        if !lane.rejected.is_empty() || (lane.outbox.is_empty() && !bare) {
            return false;
        }
        lane.due &= !lane.outbox.is_empty();
        let mut txn = Txn { cmds: Vec::new(), book: Vec::new(), again: 0, ask: None, control: Control::default() };
        let c = &mut txn.control;
        (c.epoch, c.offset, c.echoed, c.replied, c.loading) = (self.epoch, pos, echoed, lane.replied, loading);
        let (mut taken, mut serial) = (0, 0);
        while let Some(out) = lane.outbox.pop_front() {
            taken += 1;
            txn.control.loading = out.loading;
            match out.item {
                Item::Change { cmd, serial: s } => {
                    serial = s;
                    txn.cmds.push(cmd);
                }
                Item::Ask { token, key, serial: s } => {
                    serial = s;
                    txn.ask = Some((token, key));
                }
                Item::Book(b) => txn.book.push(b),
                Item::BookAgain(b) => {
                    txn.book.push(b);
                    txn.again += 1;
                }
            }
            let Some(next) = lane.outbox.front() else { break };
            let whole = next.offset > out.offset && serial != 0;
            if txn.ask.is_some() || (taken >= most && whole) {
                let c = &mut txn.control;
                (c.offset, c.echoed, c.replied) = (out.offset, out.echoed, out.replied.min(lane.safe));
                break;
            }
        }
        if taken == 0 && lane.wire.is_empty() && lane.answered.is_empty() {
            // Nothing is unanswered.
            txn.control.replied = pos;
        }
        if lane.wire.iter().chain(lane.answered.iter().map(|(t, _)| t)).any(|t| !t.book.is_empty()) {
            txn.control.replied = txn.control.replied.min(lane.safe);
        }
        if serial <= lane.last_serial {
            let Verdict::Forward(s) = self.arbiter.pass(source) else { unreachable!("a pass is always forwarded") };
            serial = s;
        }
        let lane = &mut self.lanes[target.index()];
        txn.control.serial = serial;
        lane.last_serial = serial;
        lane.sent_offset = txn.control.offset;
        lane.wire.push_back(txn);
        true
    }

    /// The site executes the next transaction, or rejects it as a whole.
    pub fn deliver(&mut self, target: Side, sites: &mut [Site; 2], now: u64, reject: bool) -> bool {
        let lane = &mut self.lanes[target.index()];
        let Some(txn) = lane.wire.pop_front() else { return false };
        let outcome = if reject {
            Outcome::Rejected
        } else {
            let (replies, state) =
                sites[target.index()].marked(now, txn.control, &txn.cmds, &txn.book, txn.ask.map(|(_, k)| k));
            Outcome::Applied(replies, state)
        };
        lane.answered.push_back((txn, outcome));
        true
    }

    // ---- replies ---------------------------------------------------------------------------------------------------

    pub(super) fn differs(&mut self, words: &[Word], authority: Side, cause: Cause) {
        for w in words.iter().filter(|w| w.1 != Class::Read) {
            with_touches(&mut self.arbiter, std::slice::from_ref(w), |a, t| a.differs(&t[0], authority, cause));
        }
        self.carry_out();
    }

    /// Sees the next reply from a site.
    pub fn see(&mut self, target: Side, now: u64) -> bool {
        let lane = &mut self.lanes[target.index()];
        let Some((txn, outcome)) = lane.answered.pop_front() else { return false };
        match outcome {
            Outcome::Rejected => lane.rejected.push_back(txn),
            Outcome::Applied(replies, state) => {
                // One behind them has passed: they are overtaken, and can't be sent again.
                for lost in std::mem::take(&mut self.lanes[target.index()].rejected) {
                    self.lost(target, &lost, true, now);
                }
                self.applied(target, txn, &replies, state);
            }
        }
        let lane = &mut self.lanes[target.index()];
        if lane.wire.is_empty() && lane.answered.is_empty() {
            lane.wire = std::mem::take(&mut lane.rejected);
        }
        true
    }

    fn applied(&mut self, target: Side, txn: Txn, replies: &[Reply], state: Option<State>) {
        let source = target.other();
        let mut effective: BTreeMap<Key, usize> = BTreeMap::new();
        for (cmd, reply) in txn.cmds.iter().zip(replies) {
            match (cmd, reply) {
                (_, Reply::Error) => {
                    self.differs(&words(cmd), self.options.error_authority.unwrap_or(source), Cause::ApplyError);
                }
                (Cmd::ExpireAt(..) | Cmd::Persist(_), Reply::Nothing) => {
                    self.differs(&words(cmd), source, Cause::Expiry);
                }
                (Cmd::Del(keys), Reply::Done) => {
                    for k in keys {
                        *effective.entry(*k).or_insert(0) += 1;
                    }
                }
                (Cmd::Restore(k, ..), Reply::Done) => *effective.entry(*k).or_insert(0) += 1,
                _ => {}
            }
        }
        if let Some((token, _)) = txn.ask {
            self.dumps.insert(token, state);
        }
        let lane = &mut self.lanes[target.index()];
        lane.deleted.push_back((txn.control.serial, effective));
        lane.safe = lane.safe.max(txn.control.replied);
        self.resolve(target, &txn);
    }

    fn resolve(&mut self, target: Side, txn: &Txn) {
        let lane = &mut self.lanes[target.index()];
        lane.owed -= txn.again;
        // As `Core::streaming_is_said` does it.
        let source = target.other();
        if !txn.control.loading && !self.loading[source.index()] && self.arbiter.is_loading(source) {
            self.arbiter.loading(None);
        }
        lane.resolved = txn.control.serial;
        lane.replied = lane.replied.max(txn.control.offset);
    }

    /// A transaction that was not applied though later ones were, or that was, but its replies are lost.
    fn lost(&mut self, target: Side, txn: &Txn, certainly: bool, now: u64) {
        for cmd in txn.cmds.iter().flat_map(split) {
            let w = words(&cmd);
            if certainly && w.len() == 1 && !matches!(cmd, Cmd::Restore(..)) {
                let verdict = with_touches(&mut self.arbiter, &w, |a, t| a.overtaken(target, &t[0]));
                self.forward(target.other(), verdict, cmd);
            } else {
                self.differs(&w, target.other(), Cause::ApplyError);
            }
        }
        if let Some((token, _)) = txn.ask {
            self.arbiter.token_lost(token, now);
        }
        for b in &txn.book {
            // What holds now, behind all that has been said meanwhile.
            let (Book::Persist { key, .. } | Book::Forget { key }) = b;
            let open = self.arbiter.episodes().iter().find(|e| key_of(e.db, &e.key) == *key);
            let b = match open {
                Some(e) => Book::Persist { key: *key, number: e.number, authority: e.authority },
                None => Book::Forget { key: *key },
            };
            self.lanes[target.index()].owed += 1;
            self.push(target, Item::BookAgain(b));
        }
        self.carry_out();
        self.resolve(target, txn);
    }

    // ---- faults ----------------------------------------------------------------------------------------------------

    /// The engine dies: of what was sent, some still arrives, a prefix.
    pub fn die(mut self, sites: &mut [Site; 2], now: u64, rng: &mut fastrand::Rng, rejections: bool) {
        for target in Side::BOTH {
            let n = rng.usize(..=self.lanes[target.index()].wire.len());
            for _ in 0..n {
                self.deliver(target, sites, now, rejections && rng.u32(..6) == 0);
            }
        }
    }

    /// The connection to a site is lost: of what was sent some still arrives, and no reply is seen any more. The old
    /// connection is killed, the control key is read, and the rest is sent again as it was.
    pub fn cut(&mut self, target: Side, sites: &mut [Site; 2], now: u64, rng: &mut fastrand::Rng, rejections: bool) {
        let n = rng.usize(..=self.lanes[target.index()].wire.len());
        for _ in 0..n {
            self.deliver(target, sites, now, rejections && rng.u32(..6) == 0);
        }
        let control = sites[target.index()].control;
        let upto = if control.epoch == self.epoch { control.serial } else { 0 };
        let lane = &mut self.lanes[target.index()];
        let mut all: VecDeque<Txn> = std::mem::take(&mut lane.rejected);
        all.extend(std::mem::take(&mut lane.answered).into_iter().map(|(t, _)| t));
        all.extend(std::mem::take(&mut lane.wire));
        for txn in all {
            if txn.control.serial <= upto {
                self.lost(target, &txn, false, now);
            } else {
                self.lanes[target.index()].wire.push_back(txn);
            }
        }
    }
}
