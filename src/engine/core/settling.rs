//! What the core does with keys that can't follow the stream's words: episodes where both links run, states carried in
//! order where there is one link, and giving up what a site does not take.

use super::carry::Key;
use super::expiries::{meant, put_off};
use super::given_up::Verdict;
use super::{Core, NewItem, field, unix_ms};
use crate::engine::apply::outbox::ItemKind;
use crate::engine::apply::replies::State;
use crate::engine::arbiter::episode::{Cause, Episode};
use crate::engine::arbiter::{Token, Touch};
use crate::engine::conflicts::shown;
use crate::engine::transfer::{self, Transfer};
use crate::model::{Direction, EventKind, Severity, Side};
use crate::wire::command::Argv;
use crate::wire::rdb::commands::Lost;

/// Command names that a site has told it does not know; more than this many are not remembered.
const UNKNOWN: usize = 256;
/// A value in conflict of so many bytes keeps its server for some 20 ms or more each time it is read.
const BIG_DUMP: usize = 4 << 20;
/// So many overruled keys are told by name.
const NAMED: u64 = 50;

impl Core {
    /// Keys that are being settled or carried.
    pub fn open(&self) -> usize {
        self.arbiter.episodes().len() + self.carry.len()
    }

    /// The sites differ in this key: it is settled by an episode, or carried where there is one link.
    pub fn differs(&mut self, touch: &Touch<'_>, authority: Side, cause: Cause) {
        if self.arbiter.is_one_way() {
            self.carry_key(touch.db, touch.key, 0);
        } else {
            self.arbiter.differs(touch, authority, cause);
        }
    }

    /// A change of `here` that the other site has no words for. `end`: where it ends in the stream.
    pub fn change_as_state(&mut self, here: Side, touches: &[Touch<'_>], at: u32, end: u64) {
        if !self.arbiter.is_one_way() {
            return self.arbiter.change_as_state(here, touches, at);
        }
        for t in touches.iter().filter(|t| t.class != crate::engine::arbiter::class::Class::Read) {
            self.carry_key(t.db, t.key, end);
        }
    }

    /// Whether a change must not go to the target since one of its keys is being carried there: then all that it writes
    /// is carried.
    #[inline]
    pub fn keep_back(&mut self, here: Side, touches: &[Touch<'_>], at: u32, end: u64) -> bool {
        if self.carry.is_idle() || !touches.iter().any(|t| self.carry.holds(t.db, t.key)) {
            return false;
        }
        self.change_as_state(here, touches, at, end);
        true
    }

    fn carry_key(&mut self, db: u32, key: &[u8], end: u64) {
        if self.carry.want(db, key, end) {
            // So that a later engine knows of it.
            self.persist(Side::Target, db, key, 0, Side::Source);
            self.carry_bell.notify_one();
        }
    }

    /// Takes up a key that an engine before us was carrying.
    pub fn carry_again(&mut self, db: u32, key: &[u8]) {
        self.carry.want(db, key, 0);
        self.carry_bell.notify_one();
    }

    /// Two databases change places: what is being carried of one of them is now in the other.
    pub fn carry_swapped(&mut self, a: u32, b: u32, end: u64) {
        let keys: Vec<Key> = self.carry.keys().filter(|k| k.0 == a || k.0 == b).cloned().collect();
        for (db, key) in keys {
            self.carry_key(db, &key, end);
            self.carry_key(if db == a { b } else { a }, &key, end);
        }
    }

    /// Places the states whose offset the stream has reached. Nothing that was decided may be waiting to be pushed.
    pub fn place_due(&mut self) {
        let decided = self.decided[Side::Source.index()].offset.0;
        if self.carry.is_idle() || !self.carry.is_due(decided) {
            return;
        }
        for ((db, key), state) in self.carry.take_due(decided) {
            self.carry_token += 1;
            let serial = self.arbiter.last_serial(Side::Target);
            self.transfer(Side::Target, Token(self.carry_token), db, &key, &state, serial);
            self.note(Side::Target, &[b"HDEL", &field(db, &key)]);
        }
    }

    /// The states of some keys have come from the source (`None`: there was no answer), as of this offset.
    pub fn carried(&mut self, keys: &[Key], states: Option<(Vec<State>, u64)>) {
        let now = self.now_ms;
        match states {
            Some((states, at)) => {
                for (name, state) in keys.iter().zip(states) {
                    self.carry.came(name, state, at, now);
                }
            }
            None => keys.iter().for_each(|name| self.carry.unanswered(name, now)),
        }
        self.place_due();
    }

    /// Puts what replaces a key by this state into a site's outbox.
    pub(super) fn transfer(&mut self, site: Side, token: Token, db: u32, key: &[u8], state: &State, serial: u64) {
        let hash = self.arbiter.hash(db, key);
        self.touched(site, hash);
        // A site that catches up may have given one that it puts off itself.
        let mut state = State { dump: state.dump.clone(), expire_at_ms: state.expire_at_ms.map(meant) };
        if let Some(at) = state.expire_at_ms.filter(|_| self.expiries[site.index()].put_off()) {
            state.expire_at_ms = Some(put_off(at, unix_ms()));
            self.expiries[site.index()].note(db, key);
        }
        let slot = self.facts[site.index()].names.slot(key);
        match transfer::restore(key, &state, self.facts[site.index()].dialect) {
            Transfer::Commands { parts, lost } => {
                self.count_lost(site, &lost);
                let last = parts.len().saturating_sub(1);
                for (n, (data, commands)) in parts.into_iter().enumerate() {
                    // The echo that ends it is that of the last part.
                    let serial = if n == last { serial } else { serial.saturating_sub(1) };
                    let item = NewItem::new(data, commands, ItemKind::Restore(token), serial);
                    self.push(site, NewItem { db: Some(db), slot, ..item });
                }
            }
            Transfer::Impossible { why } => {
                self.impossible(site, db, key, &why);
                // An item all the same, so that the episode's end is seen.
                let item = NewItem::new(bytes::Bytes::new(), 0, ItemKind::Restore(token), serial);
                self.push(site, NewItem { slot, ..item });
            }
        }
    }

    /// DUMP gives a value as a whole, and its server answers nobody else meanwhile: the operator is told where that can be
    /// noticed, once an episode.
    pub(super) fn tell_if_big(&self, e: &Episode, state: &State) {
        let size = state.dump.as_ref().map_or(0, |dump| dump.len());
        if size >= BIG_DUMP && e.rounds == 1 {
            let text = format!(
                "{:?} in db{} is in conflict and {} MiB: it is read as a whole, and the {} answers nobody else meanwhile",
                shown(&e.key),
                e.db,
                size >> 20,
                e.authority
            );
            self.events.emit(Some(e.authority.outgoing()), Severity::Warning, EventKind::ConflictDetected, text);
        }
    }

    /// A state's transfer failed at a site: it is tried again, or given up.
    pub fn restore_failed(&mut self, site: Side, touch: &Touch<'_>, token: Token, why: &str) {
        match self.given_up.failed(site, touch.db, touch.key, token, why, self.now_ms) {
            Verdict::Again => self.differs(touch, site.other(), Cause::ApplyError),
            Verdict::GivenUp { news } => {
                self.arbiter.give_up(touch);
                self.carry_out();
                self.tell_given_up(news, site, touch.db, touch.key, why);
            }
        }
    }

    /// The value of a key can't be said in a site's words at all.
    pub fn impossible(&mut self, site: Side, db: u32, key: &[u8], why: &str) {
        if let Verdict::GivenUp { news } = self.given_up.impossible(site, db, key, why, self.now_ms) {
            self.tell_given_up(news, site, db, key, why);
        }
    }

    /// A key was in conflict, and `other`'s order stood, when its slot moved at the other side, whose value stands from now on:
    /// what `other` did since the conflict opened was withheld, and no transfer brings it any more. Told by name; of more
    /// than some the number.
    pub fn overruled(&mut self, db: u32, key: &[u8], other: Side) {
        if !self.overruled_keys.insert(self.arbiter.hash(db, key)) {
            return;
        }
        self.overruled += 1;
        let text = match self.overruled {
            ..=NAMED => format!(
                "{:?} in db{db} was in conflict when its slot moved: the {}'s value stands, and what was done to it at the \
                 {other} since the conflict began may be lost",
                shown(key),
                other.other()
            ),
            n if (n - NAMED).is_power_of_two() => {
                format!("{} more keys were in conflict when their slots moved", n - NAMED)
            }
            _ => return,
        };
        self.events.emit(None, Severity::Warning, EventKind::ConflictDetected, text);
    }

    fn tell_given_up(&self, news: bool, site: Side, db: u32, key: &[u8], why: &str) {
        let (all, _) = self.given_up.of(site);
        // A thousand such keys are no thousand events.
        if !news || (all > 20 && !all.is_multiple_of(1_000)) {
            return;
        }
        let text = format!(
            "{:?} in db{db} can't be carried to the {site}, the two sides differ in it ({all} such keys): {why}",
            shown(key)
        );
        self.events.emit(Some(direction_to(site)), Severity::Error, EventKind::ApplyError, text);
    }

    /// The reply to a state's transfer was seen, and was no error unless [`Core::restore_failed`] was told so.
    pub fn restore_answered(&mut self, site: Side, touch: &Touch<'_>, token: Token) {
        self.given_up.answered(site, touch.db, touch.key, token);
    }

    /// Counts what a site has no word for, and tells of it when the count gets another digit.
    pub fn count_lost(&mut self, site: Side, lost: &[Lost]) {
        for l in lost {
            let (what, n) = l.words();
            self.count_lost_words(site, what, n);
        }
    }

    /// The same, of something with this name in the plural.
    pub fn count_lost_words(&mut self, site: Side, what: &'static str, n: u64) {
        let count = self.lost.entry((site, what)).or_default();
        let before = *count;
        *count += n;
        if *count > 0 && (before == 0 || before.ilog10() < count.ilog10()) {
            let text = format!("{count} {what} could not be carried to the {site}: it has no word for them");
            self.events.emit(Some(direction_to(site)), Severity::Warning, EventKind::ApplyError, text);
        }
    }

    /// What has been counted so.
    pub fn lost_at(&self, site: Side) -> u64 {
        self.lost.iter().filter(|((s, _), _)| *s == site).map(|(_, n)| n).sum()
    }

    /// A site refused a command by this error: if it does not know its name, it is not sent again.
    pub fn command_refused(&mut self, site: Side, error: &str) {
        let names = &mut self.unknown[site.index()];
        if let Some(name) = unknown_name(error)
            && names.len() < UNKNOWN
        {
            names.insert(name.to_ascii_lowercase().into_bytes().into());
        }
    }

    /// A site has said that it does not know this command.
    #[inline]
    pub fn is_unknown(&self, site: Side, argv: &(impl Argv + ?Sized)) -> bool {
        let names = &self.unknown[site.index()];
        !names.is_empty() && names.contains(&argv.arg(0).to_ascii_lowercase()[..])
    }
}

fn direction_to(site: Side) -> Direction {
    match site {
        Side::Target => Direction::Forward,
        Side::Source => Direction::Reverse,
    }
}

/// The name in ``ERR unknown command `x`, with args …`` (5.0 to 7.0) and `ERR unknown command 'x', with args …`.
fn unknown_name(error: &str) -> Option<&str> {
    let rest = error.strip_prefix("ERR unknown command ")?;
    let quote = rest.chars().next().filter(|q| matches!(q, '\'' | '`'))?;
    let name = rest[1..].split(quote).next()?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::unknown_name;

    #[test]
    fn the_name_of_an_unknown_command() {
        assert_eq!(
            unknown_name("ERR unknown command `JSON.SET`, with args beginning with: `k`, `$`, "),
            Some("JSON.SET")
        );
        assert_eq!(unknown_name("ERR unknown command 'hsetex', with args beginning with: 'h' "), Some("hsetex"));
        assert_eq!(unknown_name("ERR wrong number of arguments for 'set' command"), None);
        assert_eq!(unknown_name("ERR unknown command"), None);
    }
}
