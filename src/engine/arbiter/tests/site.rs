//! A simulated server: databases, expiry in virtual time, and the replication stream as a log of entries.
//!
//! What a real server does and this one keeps to: a command without effect leaves no trace in the log; EXEC does not
//! roll back; a key that had expired is deleted when a command reaches it, and that DEL stands inside the transaction
//! (7.0 and later) or before it (5.0); a time in the past deletes and is propagated as DEL.

use crate::model::Side;
use std::collections::{BTreeMap, BTreeSet};

/// A key: its database and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub db: u32,
    pub id: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(u32),
    Int(i64),
    List(Vec<u32>),
    Set(BTreeSet<u32>),
    Hash(BTreeMap<u32, i64>),
    Sorted(BTreeMap<u32, i64>),
}

/// A key's whole state: what DUMP and PEXPIRETIME tell, in absolute time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub value: Value,
    pub expires: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cmd {
    Set(Key, Value, Option<u64>),
    MSet(Vec<(Key, u32)>),
    Del(Vec<Key>),
    Incr(Key, i64),
    Push(Key, u32),
    LPop(Key),
    SAdd(Key, u32),
    SRem(Key, u32),
    HSet(Key, u32, i64),
    HIncr(Key, u32, i64),
    HDel(Key, u32),
    ZAdd(Key, u32, i64),
    ZRem(Key, u32),
    ExpireAt(Key, u64),
    Persist(Key),
    Rename(Key, Key),
    LMove(Key, Key),
    SMove(Key, Key, u32),
    /// Destination, then the two it reads.
    SUnionStore(Key, Key, Key),
    Move(Key, u32),
    Flush(u32),
    /// `None` deletes: the state of a key that is not there. `false`: only if there is none yet.
    Restore(Key, Option<State>, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It did something, or was propagated as it stands.
    Done,
    /// Zero or nil: nothing happened.
    Nothing,
    Error,
    /// RESTORE without REPLACE met a key.
    Busy,
}

/// The control key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Control {
    pub epoch: u64,
    pub serial: u64,
    /// How far the other site's log has been applied here.
    pub offset: usize,
    /// How far of that the engine had seen the replies.
    pub replied: usize,
    /// How far this site's log had come back as echoes at that point of the other's.
    pub echoed: usize,
    /// The copy of the other site is not certain to survive a crash.
    pub loading: bool,
}

#[derive(Debug, Clone)]
pub enum Entry {
    Local { at: u64, cmds: Vec<Cmd> },
    Marked { control: Control, cmds: Vec<Cmd> },
}

/// What a marked transaction does to the persisted episodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Book {
    Persist { key: Key, number: u64, authority: Side },
    Forget { key: Key },
}

#[derive(Debug, Clone)]
pub struct Site {
    pub data: BTreeMap<Key, State>,
    pub log: Vec<Entry>,
    pub control: Control,
    pub persisted: BTreeMap<Key, (u64, Side)>,
    /// A lazily expired key's DEL stands inside the transaction.
    pub modern: bool,
    /// Milliseconds that this site's clock is ahead by.
    pub skew: u64,
}

impl Site {
    pub fn new(modern: bool, skew: u64) -> Self {
        Site {
            data: BTreeMap::new(),
            log: Vec::new(),
            control: Control::default(),
            persisted: BTreeMap::new(),
            modern,
            skew,
        }
    }

    /// A client's command, or several in MULTI ... EXEC.
    pub fn client(&mut self, now: u64, cmds: &[Cmd]) -> bool {
        let (mut lazy, mut out, mut done) = (Vec::new(), Vec::new(), false);
        for cmd in cmds {
            done |= self.run(now, cmd, &mut lazy, &mut out) == Reply::Done;
        }
        self.propagate_lazy(now, &mut lazy);
        if !out.is_empty() {
            self.log.push(Entry::Local { at: now, cmds: out });
        }
        done
    }

    /// The server's own clean-up of keys that have expired.
    pub fn expire_cycle(&mut self, now: u64, most: usize) {
        let clock = now + self.skew;
        let gone: Vec<Key> = self
            .data
            .iter()
            .filter(|(_, s)| s.expires.is_some_and(|e| e <= clock))
            .map(|(k, _)| *k)
            .take(most)
            .collect();
        for key in gone {
            self.data.remove(&key);
            self.log.push(Entry::Local { at: now, cmds: vec![Cmd::Del(vec![key])] });
        }
    }

    /// A marked transaction. Returns a reply for each command, and the state of the key that is asked for at its end
    /// (DUMP and PEXPIRETIME).
    pub fn marked(
        &mut self,
        now: u64,
        control: Control,
        cmds: &[Cmd],
        book: &[Book],
        ask: Option<Key>,
    ) -> (Vec<Reply>, Option<State>) {
        let (mut lazy, mut out) = (Vec::new(), Vec::new());
        let replies = cmds.iter().map(|cmd| self.run(now, cmd, &mut lazy, &mut out)).collect();
        let mut state = None;
        if let Some(key) = ask {
            self.reach(now, key, &mut lazy, &mut out);
            state = self.data.get(&key).cloned();
        }
        self.control = control;
        for b in book {
            match b {
                Book::Persist { key, number, authority } => {
                    self.persisted.insert(*key, (*number, *authority));
                }
                Book::Forget { key } => {
                    self.persisted.remove(key);
                }
            }
        }
        self.propagate_lazy(now, &mut lazy);
        self.log.push(Entry::Marked { control, cmds: out });
        (replies, state)
    }

    fn propagate_lazy(&mut self, now: u64, lazy: &mut Vec<Cmd>) {
        for cmd in lazy.drain(..) {
            self.log.push(Entry::Local { at: now, cmds: vec![cmd] });
        }
    }

    fn is_expired(&self, now: u64, key: Key) -> bool {
        self.data.get(&key).is_some_and(|s| s.expires.is_some_and(|e| e <= now + self.skew))
    }

    fn reach(&mut self, now: u64, key: Key, lazy: &mut Vec<Cmd>, out: &mut Vec<Cmd>) {
        if self.is_expired(now, key) {
            self.data.remove(&key);
            let del = Cmd::Del(vec![key]);
            if self.modern { out.push(del) } else { lazy.push(del) }
        }
    }

    fn put(&mut self, key: Key, value: Value) {
        match self.data.get_mut(&key) {
            Some(s) => s.value = value,
            None => {
                self.data.insert(key, State { value, expires: None });
            }
        }
    }

    fn run(&mut self, now: u64, cmd: &Cmd, lazy: &mut Vec<Cmd>, out: &mut Vec<Cmd>) -> Reply {
        match cmd {
            Cmd::Rename(a, b) | Cmd::LMove(a, b) | Cmd::SMove(a, b, _) => {
                self.reach(now, *a, lazy, out);
                self.reach(now, *b, lazy, out);
            }
            Cmd::SUnionStore(d, a, b) => {
                for k in [a, b, d] {
                    self.reach(now, *k, lazy, out);
                }
            }
            Cmd::Move(a, db) => {
                self.reach(now, *a, lazy, out);
                self.reach(now, Key { db: *db, id: a.id }, lazy, out);
            }
            Cmd::Flush(_) => {}
            Cmd::MSet(pairs) => {
                for (k, _) in pairs {
                    self.reach(now, *k, lazy, out);
                }
            }
            Cmd::Del(keys) => {
                for k in keys {
                    self.reach(now, *k, lazy, out);
                }
            }
            Cmd::Restore(k, _, replace) => {
                if !replace {
                    self.reach(now, *k, lazy, out);
                }
            }
            Cmd::Set(k, ..)
            | Cmd::Incr(k, _)
            | Cmd::Push(k, _)
            | Cmd::LPop(k)
            | Cmd::SAdd(k, _)
            | Cmd::SRem(k, _)
            | Cmd::HSet(k, ..)
            | Cmd::HIncr(k, ..)
            | Cmd::HDel(k, _)
            | Cmd::ZAdd(k, ..)
            | Cmd::ZRem(k, _)
            | Cmd::ExpireAt(k, _)
            | Cmd::Persist(k) => self.reach(now, *k, lazy, out),
        }
        let (reply, said) = self.effect(now, cmd);
        if let Some(said) = said {
            out.push(said);
        }
        reply
    }

    /// Runs a command whose keys have been looked at; returns what is propagated.
    fn effect(&mut self, now: u64, cmd: &Cmd) -> (Reply, Option<Cmd>) {
        use Reply::{Busy, Done, Error, Nothing};
        let clock = now + self.skew;
        let same = || Some(cmd.clone());
        let gone = |was: bool, key: Key| if was { Some(Cmd::Del(vec![key])) } else { None };
        match cmd {
            Cmd::Set(k, v, ttl) => {
                if ttl.is_some_and(|t| t <= clock) {
                    return (Done, gone(self.data.remove(k).is_some(), *k));
                }
                self.data.insert(*k, State { value: v.clone(), expires: *ttl });
                (Done, same())
            }
            Cmd::MSet(pairs) => {
                for (k, v) in pairs {
                    self.data.insert(*k, State { value: Value::Text(*v), expires: None });
                }
                (Done, same())
            }
            Cmd::Del(keys) => {
                let there: Vec<Key> = keys.iter().copied().filter(|k| self.data.remove(k).is_some()).collect();
                // The command is propagated with all its keys when one was there.
                if there.is_empty() { (Nothing, None) } else { (Done, same()) }
            }
            Cmd::Incr(k, by) => match self.data.get(k).map(|s| &s.value) {
                None => {
                    self.put(*k, Value::Int(*by));
                    (Done, same())
                }
                Some(Value::Int(n)) => {
                    let n = n + by;
                    self.put(*k, Value::Int(n));
                    (Done, same())
                }
                Some(_) => (Error, None),
            },
            Cmd::Push(k, v) => match self.data.get_mut(k).map(|s| &mut s.value) {
                None => {
                    self.put(*k, Value::List(vec![*v]));
                    (Done, same())
                }
                Some(Value::List(l)) => {
                    l.push(*v);
                    (Done, same())
                }
                Some(_) => (Error, None),
            },
            Cmd::LPop(k) => match self.pop(*k) {
                Ok(Some(_)) => (Done, same()),
                Ok(None) => (Nothing, None),
                Err(()) => (Error, None),
            },
            Cmd::SAdd(k, m) => match self.data.get_mut(k).map(|s| &mut s.value) {
                None => {
                    self.put(*k, Value::Set([*m].into()));
                    (Done, same())
                }
                Some(Value::Set(s)) => {
                    if s.insert(*m) {
                        (Done, same())
                    } else {
                        (Nothing, None)
                    }
                }
                Some(_) => (Error, None),
            },
            Cmd::SRem(k, m) => match self.data.get_mut(k).map(|s| &mut s.value) {
                None => (Nothing, None),
                Some(Value::Set(s)) => {
                    let was = s.remove(m);
                    if s.is_empty() {
                        self.data.remove(k);
                    }
                    if was { (Done, same()) } else { (Nothing, None) }
                }
                Some(_) => (Error, None),
            },
            Cmd::HSet(k, f, v) => match self.data.get_mut(k).map(|s| &mut s.value) {
                None => {
                    self.put(*k, Value::Hash([(*f, *v)].into()));
                    (Done, same())
                }
                Some(Value::Hash(h)) => {
                    h.insert(*f, *v);
                    (Done, same())
                }
                Some(_) => (Error, None),
            },
            Cmd::HIncr(k, f, by) => match self.data.get_mut(k).map(|s| &mut s.value) {
                None => {
                    self.put(*k, Value::Hash([(*f, *by)].into()));
                    (Done, same())
                }
                Some(Value::Hash(h)) => {
                    *h.entry(*f).or_insert(0) += by;
                    (Done, same())
                }
                Some(_) => (Error, None),
            },
            Cmd::HDel(k, f) => match self.data.get_mut(k).map(|s| &mut s.value) {
                None => (Nothing, None),
                Some(Value::Hash(h)) => {
                    let was = h.remove(f).is_some();
                    if h.is_empty() {
                        self.data.remove(k);
                    }
                    if was { (Done, same()) } else { (Nothing, None) }
                }
                Some(_) => (Error, None),
            },
            Cmd::ZAdd(k, m, score) => match self.data.get_mut(k).map(|s| &mut s.value) {
                None => {
                    self.put(*k, Value::Sorted([(*m, *score)].into()));
                    (Done, same())
                }
                Some(Value::Sorted(z)) => {
                    if z.insert(*m, *score) == Some(*score) {
                        (Nothing, None)
                    } else {
                        (Done, same())
                    }
                }
                Some(_) => (Error, None),
            },
            Cmd::ZRem(k, m) => match self.data.get_mut(k).map(|s| &mut s.value) {
                None => (Nothing, None),
                Some(Value::Sorted(z)) => {
                    let was = z.remove(m).is_some();
                    if z.is_empty() {
                        self.data.remove(k);
                    }
                    if was { (Done, same()) } else { (Nothing, None) }
                }
                Some(_) => (Error, None),
            },
            Cmd::ExpireAt(k, t) => {
                if !self.data.contains_key(k) {
                    return (Nothing, None);
                }
                if *t <= clock {
                    self.data.remove(k);
                    return (Done, gone(true, *k));
                }
                if let Some(s) = self.data.get_mut(k) {
                    s.expires = Some(*t);
                }
                (Done, same())
            }
            Cmd::Persist(k) => match self.data.get_mut(k) {
                Some(s) if s.expires.is_some() => {
                    s.expires = None;
                    (Done, same())
                }
                _ => (Nothing, None),
            },
            Cmd::Rename(a, b) => match self.data.remove(a) {
                None => (Error, None),
                Some(s) => {
                    self.data.insert(*b, s);
                    (Done, same())
                }
            },
            Cmd::LMove(a, b) => {
                let list = |s: &State| matches!(s.value, Value::List(_));
                match self.data.get(a) {
                    None => return (Nothing, None),
                    Some(s) if !list(s) => return (Error, None),
                    Some(_) => {}
                }
                if self.data.get(b).is_some_and(|s| !list(s)) {
                    return (Error, None);
                }
                let Ok(Some(v)) = self.pop(*a) else { return (Nothing, None) };
                match self.data.get_mut(b).map(|s| &mut s.value) {
                    Some(Value::List(l)) => l.push(v),
                    _ => self.put(*b, Value::List(vec![v])),
                }
                (Done, same())
            }
            Cmd::SMove(a, b, m) => {
                let set = |s: &State| matches!(s.value, Value::Set(_));
                match self.data.get(a) {
                    None => return (Nothing, None),
                    Some(s) if !set(s) => return (Error, None),
                    Some(_) => {}
                }
                if self.data.get(b).is_some_and(|s| !set(s)) {
                    return (Error, None);
                }
                let Some(Value::Set(s)) = self.data.get_mut(a).map(|s| &mut s.value) else { return (Nothing, None) };
                if !s.remove(m) {
                    return (Nothing, None);
                }
                if s.is_empty() {
                    self.data.remove(a);
                }
                match self.data.get_mut(b).map(|s| &mut s.value) {
                    Some(Value::Set(s)) => {
                        s.insert(*m);
                    }
                    _ => self.put(*b, Value::Set([*m].into())),
                }
                (Done, same())
            }
            Cmd::SUnionStore(d, a, b) => {
                let mut all = BTreeSet::new();
                for k in [a, b] {
                    match self.data.get(k).map(|s| &s.value) {
                        None => {}
                        Some(Value::Set(s)) => all.extend(s.iter().copied()),
                        Some(_) => return (Error, None),
                    }
                }
                let was = self.data.remove(d).is_some();
                if all.is_empty() {
                    return if was { (Done, same()) } else { (Nothing, None) };
                }
                self.put(*d, Value::Set(all));
                (Done, same())
            }
            Cmd::Move(a, db) => {
                let to = Key { db: *db, id: a.id };
                if to == *a || self.data.contains_key(&to) {
                    return (Nothing, None);
                }
                match self.data.remove(a) {
                    None => (Nothing, None),
                    Some(s) => {
                        self.data.insert(to, s);
                        (Done, same())
                    }
                }
            }
            Cmd::Flush(db) => {
                self.data.retain(|k, _| k.db != *db);
                (Done, same())
            }
            Cmd::Restore(k, None, _) => {
                let was = self.data.remove(k).is_some();
                (if was { Done } else { Nothing }, gone(was, *k))
            }
            Cmd::Restore(k, Some(state), replace) => {
                let was = self.data.contains_key(k);
                if was && !replace {
                    return (Busy, None);
                }
                if state.expires.is_some_and(|e| e <= clock) {
                    self.data.remove(k);
                    return (Done, gone(was, *k));
                }
                self.data.insert(*k, state.clone());
                (Done, same())
            }
        }
    }

    /// Takes the first element of a list.
    fn pop(&mut self, k: Key) -> Result<Option<u32>, ()> {
        match self.data.get_mut(&k).map(|s| &mut s.value) {
            None => Ok(None),
            Some(Value::List(l)) => {
                let v = l.remove(0);
                if l.is_empty() {
                    self.data.remove(&k);
                }
                Ok(Some(v))
            }
            Some(_) => Err(()),
        }
    }
}
