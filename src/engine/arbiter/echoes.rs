//! What an echo settles: what is in flight is cleared, states are placed, episodes end.

use super::class::Class;
use super::episode::Phase;
use super::table::What;
use super::{Arbiter, Effect, Token};
use crate::model::Side;

impl Arbiter {
    /// How many deletions of this key the transactions up to `serial` make themselves. A DEL in an echo beyond these
    /// is the site's own: the key had expired when the change reached it.
    pub fn own_deletes(&self, here: Side, serial: u64, hash: u64) -> usize {
        self.tables[here.index()].changes(hash).filter(|(s, e)| *s <= serial && e.class == Class::Delete).count()
    }

    /// Whether anything but deletions of this key was sent to `here` and has not been read as an echo, up to `serial`.
    /// A DEL in an echo that the batch's own DELs (those whose reply was not 0) do not account for then means that the
    /// key had expired when that change reached it: the site [`differs`](Arbiter::differs) from the source of the
    /// change. Without such a change the deletion was what the other site wanted, or is part of a state transfer.
    pub fn writes_up_to(&self, here: Side, serial: u64, hash: u64) -> bool {
        let mut changes = self.tables[here.index()].changes(hash);
        changes.any(|(s, e)| s <= serial && !matches!(e.class, Class::Delete | Class::Transfer))
    }

    /// The serial, in `here`'s table, of what an earlier engine had applied there up to this position of the other
    /// site's stream; 0 if none of it is in flight.
    pub fn serial_of_before(&self, here: Side, offset: u64) -> u64 {
        self.tables[here.index()].recovered_serial(offset)
    }

    /// Tokens that the echo with this serial answers: their states have to be at hand before [`Arbiter::echo`].
    pub fn awaited(&self, here: Side, serial: u64) -> impl Iterator<Item = Token> + '_ {
        let asked = &self.asked[here.index()];
        asked.iter().take_while(move |(s, ..)| *s <= serial).map(|(_, t, _)| *t).filter(|t| self.wants(*t))
    }

    /// Whether the state that this token brings is still wanted.
    pub fn wants(&self, token: Token) -> bool {
        self.episodes.by_token(token).is_some_and(|e| e.phase == Phase::TokenSent)
    }

    /// An echo of this engine was read from `here`'s stream: all that was sent there up to `serial` has happened.
    pub fn echo(&mut self, here: Side, serial: u64, now_ms: u64) {
        let (i, peer) = (here.index(), here.other());
        self.now_ms = self.now_ms.max(now_ms);
        self.tables[i].clear(serial);
        while let Some(&(s, token, at)) = self.asked[i].front()
            && s <= serial
        {
            self.asked[i].pop_front();
            self.room.came_back(self.now_ms.saturating_sub(at));
            let Some(e) = self.episodes.by_token_mut(token) else { continue };
            if e.phase != Phase::TokenSent {
                continue;
            }
            // The state takes its exact place among the changes: older ones are in it, newer ones follow it.
            e.phase = Phase::RestoreSent;
            let (db, key, hash) = (e.db, e.key.clone(), e.hash);
            let serial = self.tables[peer.index()].push(hash, What::transfer());
            self.restored[peer.index()].push_back((serial, token));
            self.effects.push(Effect::Restore { site: peer, token, db, key, serial });
        }
        while let Some(&(s, token)) = self.restored[i].front()
            && s <= serial
        {
            self.restored[i].pop_front();
            let Some(e) = self.episodes.by_token_mut(token) else { continue };
            if e.phase != Phase::RestoreSent {
                continue;
            }
            if e.dirty {
                e.again(now_ms);
                self.episodes.queue(token);
            } else if let Some(mut e) = self.episodes.remove(token) {
                e.settled = Some(now_ms);
                self.counters.settled[e.authority.index()] += 1;
                for site in Side::BOTH {
                    self.effects.push(Effect::Forget { site, db: e.db, key: e.key.clone() });
                }
                self.effects.push(Effect::Settled(Box::new(e)));
            }
        }
    }

    /// An echo that an earlier engine of this job caused: it had applied `here`'s peer up to `offset` by then.
    pub fn echo_of_before(&mut self, here: Side, offset: u64) {
        self.tables[here.index()].clear_recovered(offset);
    }
}
