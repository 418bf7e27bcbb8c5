//! How an engine begins: with a copy, with a copy anew, or with the three steps of recovery. As `job/attach/recovery` and
//! `link/rebuild` do it, in the same order.

use super::*;

impl Engine {
    /// Begins with a copy of all that `side` holds.
    pub fn load_snapshot(&mut self, side: Side, sites: &mut [Site; 2], merge: bool) {
        let i = side.index();
        self.snapshots[i] = sites[i].data.iter().map(|(k, s)| (*k, s.clone())).collect();
        self.merge[i] = merge;
        self.loading[i] = true;
        sites[side.other().index()].control.loading = true;
        if !merge {
            self.arbiter.loading(Some(side));
        }
        if self.snapshots[i].is_empty() {
            if !merge {
                self.delete_leftovers(side, sites);
            }
            self.snapshot_read(side);
        }
    }

    /// The copy of the source was not finished when the engine died: it begins anew, over what the first has left. The
    /// reverse stream goes on from where it was.
    pub fn copy_again(sites: &mut [Site; 2], options: Options) -> Self {
        let epoch = sites.iter().map(|s| s.control.epoch).max().unwrap_or(0) + 1;
        let mut e = Engine::new(epoch, options);
        let (s, t) = (Side::Source.index(), Side::Target.index());
        let reverse = sites[s].control;
        e.pos = [sites[s].log.len(), reverse.offset];
        e.echoed = [reverse.offset, reverse.echoed];
        let (offset, echoed) = (e.pos[s], reverse.offset);
        let forward = Control { epoch, serial: 0, offset, replied: offset, echoed, loading: true };
        sites[t].control = forward;
        sites[s].control = Control { epoch, serial: 0, ..reverse };
        for (lane, control) in e.lanes.iter_mut().zip([reverse, forward]) {
            (lane.replied, lane.safe, lane.sent_offset) = (control.offset, control.offset, control.offset);
        }
        for site in sites.iter_mut() {
            site.persisted.clear();
        }
        let hashes = sites[t].data.keys().map(|k| e.arbiter.hash(k.db, &k.id.to_be_bytes())).collect();
        e.arbiter.expect_leftovers(Leftovers::new(hashes));
        e.doubtful_until = sites[t].log.len();
        e.load_snapshot(Side::Source, sites, false);
        e
    }

    /// What an unfinished copy left and the new one has not named.
    pub(super) fn delete_leftovers(&mut self, here: Side, sites: &[Site; 2]) {
        let keys: Vec<Key> = sites[here.other().index()].data.keys().copied().collect();
        for key in keys {
            let word = [(key, Class::Delete, super::super::whole())];
            let hash = self.arbiter.hash(key.db, &key.id.to_be_bytes());
            if self.arbiter.leftovers().holds(hash) {
                self.arbiter.name_leftover(hash);
                let verdict = with_touches(&mut self.arbiter, &word, |a, t| a.change(here, &t[0], 0));
                self.forward(here, verdict, Cmd::Del(vec![key]));
            }
        }
        self.arbiter.leftovers_deleted();
    }

    /// The three steps of recovery, from what the sites hold.
    pub fn recover(sites: &[Site; 2], options: Options) -> Self {
        let epoch = sites.iter().map(|s| s.control.epoch).max().unwrap_or(0) + 1;
        let mut e = Engine::new(epoch, options);
        for s in Side::BOTH {
            let here = &sites[s.other().index()].control;
            e.pos[s.index()] = here.offset;
            e.echoed[s.index()] = here.echoed;
            let lane = &mut e.lanes[s.index()];
            let own = &sites[s.index()].control;
            (lane.replied, lane.safe, lane.sent_offset) = (own.replied, own.replied, own.offset);
        }
        // 1: what was applied at a site and has not been read as an echo yet, in its own words.
        for source in Side::BOTH {
            let (from, to) = (e.echoed[source.other().index()], sites[source.other().index()].control.offset);
            for offset in from..to {
                match &sites[source.index()].log[offset] {
                    Entry::Local { cmds, .. } if matches!(cmds[..], [Cmd::Flush(_)]) => {
                        let [Cmd::Flush(db)] = cmds[..] else { continue };
                        e.arbiter.recover_flush(source, Some(db), offset as u64 + 1);
                    }
                    // As they were decided: each command of a transaction for itself, and each key of an MSET.
                    Entry::Local { cmds, .. } if options.split => {
                        for part in cmds.iter().flat_map(split) {
                            let all = words(&part);
                            with_touches(&mut e.arbiter, &all, |a, t| a.recover_change(source, t, offset as u64 + 1));
                        }
                    }
                    Entry::Local { cmds, .. } => {
                        let all: Vec<Word> = cmds.iter().flat_map(words).collect();
                        with_touches(&mut e.arbiter, &all, |a, t| a.recover_change(source, t, offset as u64 + 1));
                    }
                    Entry::Marked { cmds, .. } if options.hidden_as_change => {
                        for key in deleted_keys(cmds).keys() {
                            let w = [(*key, Class::Delete, super::super::whole())];
                            with_touches(&mut e.arbiter, &w, |a, t| a.recover_change(source, t, offset as u64 + 1));
                        }
                    }
                    Entry::Marked { .. } => {}
                }
            }
        }
        e.arbiter.recover_flushed();
        // 2: the episodes that were open, the highest number of each key.
        let mut open: BTreeMap<Key, (u64, Side)> = BTreeMap::new();
        for site in sites {
            for (k, p) in &site.persisted {
                let best = open.entry(*k).or_insert(*p);
                if p.0 > best.0 {
                    *best = *p;
                }
            }
        }
        let mut open: Vec<_> = open.into_iter().collect();
        open.sort_by_key(|(_, (n, _))| *n);
        for (key, (_, authority)) in open {
            e.arbiter.recover_episode(key.db, &key.id.to_be_bytes(), authority);
        }
        // 3: what was applied, but may have failed unseen.
        for source in Side::BOTH {
            let control = sites[source.other().index()].control;
            for offset in control.replied..control.offset {
                let Entry::Local { cmds, .. } = &sites[source.index()].log[offset] else { continue };
                for cmd in cmds {
                    e.differs(&words(cmd), source, Cause::Recovery);
                }
            }
        }
        e.carry_out();
        for s in Side::BOTH {
            // What follows from an unseen reply is in the outbox now, so all counts as seen from here on.
            let lane = &mut e.lanes[s.index()];
            lane.replied = sites[s.index()].control.offset;
        }
        e
    }
}
