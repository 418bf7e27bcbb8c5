//! Random writes of every family on few keys: the load of the convergence tests.
//!
//! Names share a small space on purpose. A third of the keys are hot for the whole run; the others live for a quarter
//! of a second, since a key that is written again and again heals by itself what a rule forgot. Beside them stand
//! keys that only grow (counters, sets, hashes), whose totals are known exactly.

use crate::support::{
    resp::{Argv, Reply},
    server::Server,
    wait::until,
};
use fastrand::Rng;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What one writer knows for certain.
#[derive(Debug, Default)]
pub struct Certain {
    /// Sum of what was added to each counter.
    pub added: BTreeMap<String, i64>,
    /// Members added to each set, fields set in each hash; all of them unique.
    pub members: BTreeMap<String, Vec<String>>,
    pub fields: BTreeMap<String, Vec<String>>,
    pub writes: u64,
}

/// What a server's version knows beyond 5.0.
#[derive(Clone, Copy)]
pub struct Skills {
    pub six_two: bool,
}

pub struct Writer<'a> {
    pub server: &'a Server,
    /// Names what this writer adds; unique in the run.
    pub name: String,
    pub rng: Rng,
    pub skills: Skills,
    pub per_second: f64,
    /// As many keys `key:0`, `key:1`, … were there before and are being copied; 0 if there is no copy.
    pub copied: u64,
}

impl Writer<'_> {
    /// Writes until told to stop.
    pub fn run(mut self, stop: &AtomicBool) -> Certain {
        let mut client = self.server.client();
        let mut certain = Certain::default();
        let began = Instant::now();
        while !stop.load(Ordering::SeqCst) {
            let commands = self.step(&mut certain);
            for c in &commands {
                client.queue(c);
            }
            client.flush().expect("the server takes writes");
            for _ in &commands {
                // WRONGTYPE and its kind are part of the storm: they change nothing.
                let _: Reply = client.read().expect("the server answers");
            }
            certain.writes += commands.len() as u64;
            until(began + Duration::from_secs_f64(certain.writes as f64 / self.per_second));
        }
        certain
    }

    /// What it writes next.
    pub fn step(&mut self, certain: &mut Certain) -> Vec<Argv> {
        match self.rng.u32(0..100) {
            0..8 => vec![self.growing(certain)],
            8..14 => {
                let mut all = vec![argv(["MULTI"])];
                all.extend((0..self.rng.u32(2..5)).map(|_| self.any()));
                if self.rng.bool() {
                    all.push(self.growing(certain));
                }
                all.push(argv(["EXEC"]));
                all
            }
            14..18 => vec![self.script()],
            _ => vec![self.any()],
        }
    }

    /// A key that may be hot, or may live for a quarter of a second.
    fn key(&mut self, kind: &str) -> String {
        if self.rng.u32(0..3) == 0 {
            return format!("hot:{kind}:{}", self.rng.u32(0..2));
        }
        let quarter = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() / 250;
        format!("brief:{kind}:{quarter}:{}", self.rng.u32(0..2))
    }

    /// A change to a key that only grows.
    fn growing(&mut self, certain: &mut Certain) -> Argv {
        let n = self.rng.u32(0..3);
        let unique = format!("{}-{}", self.name, certain.writes * 16 + u64::from(self.rng.u32(0..16)));
        match self.rng.u32(0..4) {
            0 | 1 => {
                let by = self.rng.i64(-5..20);
                *certain.added.entry(format!("sum:{n}")).or_default() += by;
                argv(["INCRBY".into(), format!("sum:{n}"), by.to_string()])
            }
            2 => {
                certain.members.entry(format!("all:{n}")).or_default().push(unique.clone());
                argv(["SADD".into(), format!("all:{n}"), unique])
            }
            _ => {
                certain.fields.entry(format!("each:{n}")).or_default().push(unique.clone());
                argv(["HSET".into(), format!("each:{n}"), unique, "v".into()])
            }
        }
    }

    fn script(&mut self) -> Argv {
        let kind = ["s", "l", "h"][self.rng.usize(0..3)];
        let (x, y) = (self.key(kind), self.key(kind));
        let body = match kind {
            "s" => "redis.call('SET', KEYS[1], ARGV[1]) redis.call('APPEND', KEYS[2], ARGV[1])",
            "l" => "local v = redis.call('RPOP', KEYS[1]) redis.call('LPUSH', KEYS[2], v or ARGV[1])",
            _ => "redis.call('HSET', KEYS[1], 'f', ARGV[1]) redis.call('DEL', KEYS[2])",
        };
        argv(["EVAL".into(), body.into(), "2".into(), x, y, self.word()])
    }

    fn word(&mut self) -> String {
        format!("{}{}", self.name, self.rng.u32(0..1000))
    }

    /// A write to a key that is being copied: one of all, or one of a few that both sites write again and again.
    fn copied_key(&mut self) -> Argv {
        let n = if self.rng.bool() { self.rng.u64(0..self.copied) } else { self.rng.u64(0..200) * (self.copied / 200) };
        let (k, w) = (format!("key:{n}"), self.word());
        match self.rng.u32(0..12) {
            0..4 => argv(["SET", &k, &w]),
            4 | 5 => argv(["DEL", &k]),
            6 => argv(["APPEND", &k, &w]),
            7 => argv(["PEXPIRE", &k, &self.rng.u32(10..2_000).to_string()]),
            8 => argv(["PERSIST", &k]),
            9 => argv(["RENAME", &k, &format!("key:{}", self.rng.u64(0..self.copied))]),
            10 => argv(["SADD", &k, &w]),
            _ => argv(["RPUSH", &k, &w]),
        }
    }

    /// Any command of any family.
    fn any(&mut self) -> Argv {
        if self.copied > 0 && self.rng.u32(0..5) < 2 {
            return self.copied_key();
        }
        match self.rng.u32(0..8) {
            0 => self.string(),
            1 => self.list(),
            2 => self.set(),
            3 => self.hash(),
            4 => self.zset(),
            5 => self.stream(),
            _ => self.generic(),
        }
    }

    fn string(&mut self) -> Argv {
        let (k, w) = (self.key("s"), self.word());
        let ms = self.rng.u32(20..600).to_string();
        match self.rng.u32(0..11) {
            0..3 => argv(["SET", &k, &w]),
            3 => argv(["SET", &k, &w, "PX", &ms]),
            4 => argv(["SETNX", &k, &w]),
            5 => argv(["APPEND", &k, &w]),
            6 => argv(["SETRANGE", &k, "2", &w]),
            7 => argv(["GETSET", &k, &w]),
            8 => argv(["SETBIT", &k, &self.rng.u32(0..64).to_string(), "1"]),
            9 => argv(["MSET", &k, &w, &self.key("s"), &w]),
            _ => argv(["INCRBY", &self.key("n"), "3"]),
        }
    }

    fn list(&mut self) -> Argv {
        let (k, w) = (self.key("l"), self.word());
        match self.rng.u32(0..12) {
            0 | 1 => argv(["RPUSH", &k, &w, "x"]),
            2 => argv(["LPUSH", &k, &w]),
            3 => argv(["LPOP", &k]),
            4 => argv(["RPOP", &k]),
            5 | 6 if self.skills.six_two => argv(["LMOVE", &k, &self.key("l"), "LEFT", "RIGHT"]),
            5 | 6 => argv(["RPOPLPUSH", &k, &self.key("l")]),
            7 => argv(["LTRIM", &k, "0", "5"]),
            8 => argv(["LSET", &k, "0", &w]),
            9 => argv(["LREM", &k, "1", "x"]),
            10 => argv(["LINSERT", &k, "BEFORE", "x", &w]),
            _ => argv(["RPUSHX", &k, &w]),
        }
    }

    fn set(&mut self) -> Argv {
        let (k, m) = (self.key("t"), self.rng.u32(0..8).to_string());
        match self.rng.u32(0..9) {
            0..3 => argv(["SADD", &k, &m, &self.word()]),
            3 => argv(["SREM", &k, &m]),
            4 => argv(["SPOP", &k]),
            5 => argv(["SMOVE", &k, &self.key("t"), &m]),
            6 => argv(["SUNIONSTORE", &k, &self.key("t"), &self.key("t")]),
            7 => argv(["SDIFFSTORE", &k, &self.key("t"), &self.key("t")]),
            _ => argv(["SINTERSTORE", &k, &self.key("t"), &self.key("t")]),
        }
    }

    fn hash(&mut self) -> Argv {
        let (k, f, w) = (self.key("h"), format!("f{}", self.rng.u32(0..6)), self.word());
        match self.rng.u32(0..7) {
            0..3 => argv(["HSET", &k, &f, &w]),
            3 => argv(["HDEL", &k, &f]),
            4 => argv(["HINCRBY", &k, "n", "2"]),
            5 => argv(["HINCRBYFLOAT", &k, "x", "0.5"]),
            _ => argv(["HSETNX", &k, &f, &w]),
        }
    }

    fn zset(&mut self) -> Argv {
        let (k, m) = (self.key("z"), format!("m{}", self.rng.u32(0..6)));
        let score = self.rng.u32(0..100).to_string();
        match self.rng.u32(0..8) {
            0..3 => argv(["ZADD", &k, &score, &m]),
            3 => argv(["ZINCRBY", &k, "1.5", &m]),
            4 => argv(["ZREM", &k, &m]),
            5 => argv(["ZPOPMIN", &k]),
            6 => argv(["ZUNIONSTORE", &k, "2", &self.key("z"), &self.key("z")]),
            _ => argv(["ZREMRANGEBYRANK", &k, "3", "-1"]),
        }
    }

    fn stream(&mut self) -> Argv {
        let k = self.key("x");
        match self.rng.u32(0..5) {
            0..3 => argv(["XADD", &k, "*", "f", &self.word()]),
            3 => argv(["XADD", &k, "MAXLEN", "5", "*", "f", &self.word()]),
            _ => argv(["XTRIM", &k, "MAXLEN", "2"]),
        }
    }

    fn generic(&mut self) -> Argv {
        let kind = ["s", "l", "t", "h", "z", "x", "n"][self.rng.usize(0..7)];
        let (k, other) = (self.key(kind), self.key(kind));
        let ms = self.rng.u32(10..500).to_string();
        match self.rng.u32(0..12) {
            0 | 1 => argv(["DEL", &k]),
            2 => argv(["UNLINK", &k, &other]),
            3 | 4 => argv(["PEXPIRE", &k, &ms]),
            5 => argv(["EXPIRE", &k, "1"]),
            6 => argv(["PERSIST", &k]),
            7 | 8 => argv(["RENAME", &k, &other]),
            9 => argv(["RENAMENX", &k, &other]),
            10 if self.skills.six_two => argv(["COPY", &k, &other, "REPLACE"]),
            // The same name as another type: what is forwarded may meet WRONGTYPE at the other side.
            _ => argv(["RPUSH", &self.key("s"), &self.word()]),
        }
    }
}

fn argv<S: AsRef<str>, const N: usize>(parts: [S; N]) -> Argv {
    parts.iter().map(|p| p.as_ref().as_bytes().to_vec()).collect()
}
