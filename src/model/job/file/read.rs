//! Text to job. All mistakes are collected, so that one run shows them all.

mod addresses;

use super::{JobFileError, Mistake, size};
use crate::model::{
    AccountSource, Databases, ExistingKeys, Instance, Job, Limits, Policy, Topology,
    job::{ReadFrom, Tls},
    secret::Inline,
};
use std::ops::Range;
use toml::{Spanned, de::DeTable, de::DeValue};

const TOP_KEYS: &[&str] = &["name", "source", "target", "policy", "limits"];
const INSTANCE_KEYS: &[&str] = &[
    "address",
    "topology",
    "shards",
    "account",
    "account_env",
    "account_file",
    "account_command",
    "tls",
    "ca_file",
    "cert_file",
    "key_file",
    "tls_server_name",
    "master_name",
    "sentinel_account",
    "sentinel_account_env",
    "sentinel_account_file",
    "sentinel_account_command",
    "read_from",
    "region",
    "id",
];
const POLICY_KEYS: &[&str] =
    &["conflict", "existing_keys", "databases", "two_way", "forward_flush", "allow_resnapshot", "show_values"];
const LIMITS_KEYS: &[&str] =
    &["max_ops_per_second", "max_bytes_per_second", "spool_memory", "spool_disk", "lag_alert_ms"];
const ADDRESS: &str = "host:port with a port from 1 to 65535, such as \"10.0.0.1:6379\" or \"[::1]:6379\"";

/// Reads a job file's text. `file` is the name that messages give.
pub fn parse(text: &str, file: &str) -> Result<Job, JobFileError> {
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let at = error.span().unwrap_or(0..0);
            let (line, column) = position(text, at.start);
            let what = error.message().replace('\n', ", ");
            let text = format!("this is not TOML: {what}");
            return Err(JobFileError { file: file.to_owned(), mistakes: vec![Mistake { line, column, text }] });
        }
    };
    let mut reader = Reader { faults: Vec::new() };
    let job = reader.job(document.get_ref(), text.len());
    match job {
        Some(job) if reader.faults.is_empty() => Ok(job),
        _ => {
            reader.faults.sort_by_key(|(at, _)| *at);
            let mistakes = reader
                .faults
                .into_iter()
                .map(|(at, what)| {
                    let (line, column) = position(text, at);
                    Mistake { line, column, text: what }
                })
                .collect();
            Err(JobFileError { file: file.to_owned(), mistakes })
        }
    }
}

/// Line and column, from 1, of a byte position.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

/// Splits `host:port`. The host of an IPv6 address comes without its brackets. The error says what is wrong.
pub fn address(text: &str) -> Result<(String, u16), String> {
    let fault = |why: &str| Err(format!("{text:?} is no address: {why}; allowed: {ADDRESS}"));
    if text.contains("://") {
        return fault("leave the scheme out (and write tls = true for rediss)");
    }
    if text.contains('@') {
        return fault("an account has a key of its own (account)");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return fault("it holds a blank");
    }
    let Some((host, port)) = text.rsplit_once(':') else { return fault("the port is missing") };
    let port = match port.parse::<u16>() {
        Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
        _ => return fault("the port is not a number from 1 to 65535"),
    };
    if let Some(inner) = host.strip_prefix('[') {
        let Some(inner) = inner.strip_suffix(']') else { return fault("the bracket is not closed") };
        let bare = inner.split('%').next().unwrap_or("");
        if bare.parse::<std::net::Ipv6Addr>().is_err() {
            return fault("what stands in brackets is not an IPv6 address");
        }
        return Ok((inner.to_ascii_lowercase(), port));
    }
    if host.contains(':') {
        return fault("an IPv6 address stands in brackets");
    }
    if host.is_empty() {
        return fault("the host is missing");
    }
    if host.len() > 253 || host.contains(['/', '[', ']', '"', '\'', '\\']) {
        return fault("that is not a host's name");
    }
    Ok((host.to_ascii_lowercase(), port))
}

/// What is wrong with a job's name, if anything is.
pub fn name_fault(name: &str) -> Option<String> {
    let allowed = "1 to 64 letters, digits, '-', '_' or '.'; no '-' or '.' at the start, no \".toml\" at the end";
    let fits = (1..=64).contains(&name.chars().count())
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
        // `-x` reads as an option, `.x` and `x.toml` as a file.
        && !name.starts_with(['-', '.'])
        && !name.ends_with(".toml");
    (!fits).then(|| format!("{name:?} can't be a job's name; allowed: {allowed}"))
}

struct Reader {
    /// Byte position and sentence.
    faults: Vec<(usize, String)>,
}

/// A table with its name in messages.
#[derive(Clone, Copy)]
struct Section<'a> {
    name: &'a str,
    table: &'a DeTable<'a>,
    /// Where it begins, for what is missing in it.
    at: usize,
}

type Value<'a> = &'a Spanned<DeValue<'a>>;

impl<'a> Section<'a> {
    fn get(&self, key: &str) -> Option<Value<'a>> {
        self.table.get(key)
    }

    fn key_span(&self, key: &str) -> Range<usize> {
        self.table.get_key_value(key).map_or(self.at..self.at, |(k, _)| k.span())
    }

    /// ` in [policy]`, or nothing at the top.
    fn place(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" in [{}]", self.name) }
    }
}

impl Reader {
    fn fault(&mut self, at: usize, what: impl Into<String>) {
        self.faults.push((at, what.into()));
    }

    fn job(&mut self, table: &DeTable<'_>, end: usize) -> Option<Job> {
        let top = Section { name: "", table, at: 0 };
        self.keys(top, TOP_KEYS);
        let name = match self.text(top, "name") {
            Some(name) => {
                if let Some(fault) = name_fault(&name) {
                    let at = top.get("name").map_or(0, |v| v.span().start);
                    self.fault(at, fault);
                }
                Some(name)
            }
            None => {
                if top.get("name").is_none() {
                    self.fault(0, "the key \"name\" is missing; write for example name = \"orders\" above [source]");
                }
                None
            }
        };
        let source = self.side(top, "source", end);
        let target = self.side(top, "target", end);
        if let (Some(s), Some(t)) = (&source, &target) {
            self.same_address(top, s, t);
        }
        let policy = match self.section(top, "policy") {
            Some(section) => self.policy(section),
            None => Policy::default(),
        };
        let limits = match self.section(top, "limits") {
            Some(section) => self.limits(section),
            None => Limits::default(),
        };
        let job = Job { name: name?, source: source?, target: target?, policy, limits };
        self.proxies(top, &job);
        Some(job)
    }

    /// Complains about each key that is not in `allowed`.
    fn keys(&mut self, section: Section<'_>, allowed: &[&str]) {
        for key in section.table.keys() {
            let word: &str = key.get_ref();
            if allowed.contains(&word) {
                continue;
            }
            let hint = match nearest(word, allowed) {
                Some(near) => format!(" (did you mean {near:?}?)"),
                None => String::new(),
            };
            let place = section.place();
            let list = allowed.join(", ");
            self.fault(key.span().start, format!("unknown key {word:?}{place}{hint}; allowed: {list}"));
        }
    }

    fn section<'a>(&mut self, top: Section<'a>, name: &'a str) -> Option<Section<'a>> {
        let value = top.get(name)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Section { name, table, at: value.span().start }),
            None => {
                self.fault(
                    value.span().start,
                    format!("{name:?} has to be a table: write [{name}] on a line of its own"),
                );
                None
            }
        }
    }

    fn side(&mut self, top: Section<'_>, name: &str, end: usize) -> Option<Instance> {
        if top.get(name).is_none() {
            self.fault(end, format!("the table [{name}] is missing; it needs at least address = \"host:port\""));
            return None;
        }
        let section = self.section(top, name)?;
        self.keys(section, INSTANCE_KEYS);
        let (addresses, secure) =
            self.addresses(section, "address").map_or((None, None), |(all, secure)| (Some(all), secure));
        let topology = self
            .choice(
                section,
                "topology",
                &[
                    ("auto", Topology::Auto),
                    ("standalone", Topology::Standalone),
                    ("cluster", Topology::Cluster),
                    ("sentinel", Topology::Sentinel),
                    ("proxy", Topology::Proxy),
                ],
            )
            .unwrap_or_default();
        let read_from = self
            .choice(section, "read_from", &[("master", ReadFrom::Master), ("replica", ReadFrom::Replica)])
            .unwrap_or_default();
        let master_name = self.filled(section, "master_name");
        match topology {
            Topology::Sentinel if section.get("master_name").is_none() => self.fault(
                section.at,
                format!(
                    "topology \"sentinel\" needs master_name in [{name}]: the name that the sentinels give the master"
                ),
            ),
            Topology::Standalone | Topology::Cluster | Topology::Proxy if master_name.is_some() => self.fault(
                section.key_span("master_name").start,
                format!("master_name in [{name}] goes with topology \"sentinel\" or \"auto\" only"),
            ),
            _ => {}
        }
        if topology == Topology::Standalone && addresses.as_ref().is_some_and(|a| a.len() > 1) {
            self.fault(
                section.key_span("address").start,
                format!("a standalone instance has one address; in [{name}] choose topology \"cluster\" or \"sentinel\" for a list"),
            );
        }
        let shards = self.shards(section, topology, addresses.as_deref(), secure.is_some());
        let account = self.account(section, "account");
        let sentinel_account = self.account(section, "sentinel_account");
        let tls = self.tls(section, secure);
        let region = self.filled(section, "region");
        let id = self.filled(section, "id");
        Some(Instance {
            addresses: addresses?,
            topology,
            shards,
            account,
            tls,
            master_name,
            sentinel_account,
            read_from,
            region,
            id,
        })
    }

    fn account(&mut self, section: Section<'_>, key: &str) -> AccountSource {
        let mut found: Vec<(String, AccountSource)> = Vec::new();
        for suffix in ["", "_env", "_file", "_command"] {
            let word = format!("{key}{suffix}");
            let text = if suffix.is_empty() { self.text(section, &word) } else { self.filled(section, &word) };
            let Some(text) = text else { continue };
            let source = match suffix {
                "" if text.is_empty() => AccountSource::None,
                "" => AccountSource::Inline(Inline::new(text)),
                "_env" => AccountSource::Env(text),
                "_file" => AccountSource::File(text),
                _ => AccountSource::Command(text),
            };
            found.push((word, source));
        }
        if found.len() > 1 {
            let words: Vec<&str> = found.iter().map(|(w, _)| w.as_str()).collect();
            let last = section.key_span(words[words.len() - 1]).start;
            self.fault(
                last,
                format!(
                    "{}{} exclude each other; allowed: one of {key}, {key}_env, {key}_file, {key}_command",
                    words.join(" and "),
                    section.place()
                ),
            );
        }
        found.pop().map(|(_, source)| source).unwrap_or_default()
    }

    /// `secure`: where an address says so by itself.
    fn tls(&mut self, section: Section<'_>, secure: Option<usize>) -> Option<Tls> {
        let told = self.flag(section, "tls");
        if let (Some(false), Some(at)) = (told, secure) {
            let place = section.place();
            self.fault(at, format!("rediss:// and tls = false{place} exclude each other"));
        }
        let on = told.unwrap_or(false) || secure.is_some();
        let tls = Tls {
            ca_file: self.filled(section, "ca_file"),
            cert_file: self.filled(section, "cert_file"),
            key_file: self.filled(section, "key_file"),
            server_name: self.filled(section, "tls_server_name"),
        };
        if !on {
            for key in ["ca_file", "cert_file", "key_file", "tls_server_name"] {
                if section.get(key).is_some() {
                    let place = section.place();
                    self.fault(
                        section.key_span(key).start,
                        format!("{key}{place} has no effect without tls = true; write that too"),
                    );
                }
            }
            return None;
        }
        for (one, other) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
            if section.get(one).is_some() && section.get(other).is_none() {
                let place = section.place();
                self.fault(
                    section.key_span(one).start,
                    format!("{one}{place} needs {other}: a client certificate has both"),
                );
            }
        }
        Some(tls)
    }

    fn policy(&mut self, section: Section<'_>) -> Policy {
        self.keys(section, POLICY_KEYS);
        let default = Policy::default();
        self.choice(section, "conflict", &[("overwrite", ())]);
        let existing_keys = self.choice(
            section,
            "existing_keys",
            &[("block", ExistingKeys::Block), ("ignore", ExistingKeys::Ignore), ("merge", ExistingKeys::Merge)],
        );
        Policy {
            existing_keys: existing_keys.unwrap_or(default.existing_keys),
            databases: self.databases(section),
            two_way: self.flag(section, "two_way").unwrap_or(default.two_way),
            forward_flush: self.flag(section, "forward_flush").unwrap_or(default.forward_flush),
            allow_resnapshot: self.flag(section, "allow_resnapshot").unwrap_or(default.allow_resnapshot),
            show_values: self.flag(section, "show_values").unwrap_or(default.show_values),
        }
    }

    fn databases(&mut self, section: Section<'_>) -> Databases {
        let allowed = "\"all\", or a list of database numbers such as [0, 3]";
        let Some(value) = section.get("databases") else { return Databases::All };
        let at = value.span().start;
        match value.get_ref() {
            DeValue::String(word) if word == "all" => Databases::All,
            DeValue::Array(list) if !list.is_empty() => {
                let mut numbers = Vec::new();
                for item in list.iter() {
                    match integer(item.get_ref()).and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= i32::MAX as u32)
                    {
                        Some(n) => numbers.push(n),
                        None => self.fault(item.span().start, format!("not a database's number; allowed: {allowed}")),
                    }
                }
                numbers.sort_unstable();
                numbers.dedup();
                Databases::Only(numbers)
            }
            DeValue::Array(_) => {
                self.fault(at, format!("the list of databases is empty; allowed: {allowed}"));
                Databases::All
            }
            other => {
                let shown = show(other);
                self.fault(at, format!("databases in [policy] can't be {shown}; allowed: {allowed}"));
                Databases::All
            }
        }
    }

    fn limits(&mut self, section: Section<'_>) -> Limits {
        self.keys(section, LIMITS_KEYS);
        let default = Limits::default();
        let mut limits = Limits {
            max_ops_per_second: self.number(section, "max_ops_per_second", 0).unwrap_or(default.max_ops_per_second),
            max_bytes_per_second: self.size(section, "max_bytes_per_second", 0).unwrap_or(default.max_bytes_per_second),
            spool_memory: self.size(section, "spool_memory", 1 << 20).unwrap_or(default.spool_memory),
            spool_disk: self.size(section, "spool_disk", 0).unwrap_or(default.spool_disk),
            lag_alert_ms: self.number(section, "lag_alert_ms", 1).unwrap_or(default.lag_alert_ms),
        };
        limits.spool_memory = limits.spool_memory.max(1 << 20);
        limits
    }

    fn wrong(&mut self, section: Section<'_>, key: &str, value: Value<'_>, allowed: &str) {
        let shown = show(value.get_ref());
        let place = section.place();
        self.fault(value.span().start, format!("{key}{place} can't be {shown}; allowed: {allowed}"));
    }

    fn text(&mut self, section: Section<'_>, key: &str) -> Option<String> {
        let value = section.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(text.to_owned()),
            None => {
                // Never shown: it may be a password that lacks its quotes.
                let kind = kind(value.get_ref());
                let place = section.place();
                self.fault(value.span().start, format!("{key}{place} is {kind}; allowed: a text in quotes"));
                None
            }
        }
    }

    /// A text that is not empty.
    fn filled(&mut self, section: Section<'_>, key: &str) -> Option<String> {
        let text = self.text(section, key)?;
        if text.is_empty() {
            let at = section.get(key).map_or(section.at, |v| v.span().start);
            let place = section.place();
            self.fault(at, format!("{key}{place} is empty; fill it, or leave the line out"));
            return None;
        }
        Some(text)
    }

    fn flag(&mut self, section: Section<'_>, key: &str) -> Option<bool> {
        let value = section.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong(section, key, value, "true or false, without quotes");
        }
        flag
    }

    fn number(&mut self, section: Section<'_>, key: &str, least: u64) -> Option<u64> {
        let value = section.get(key)?;
        let number = integer(value.get_ref()).filter(|n| *n >= least && *n <= i64::MAX as u64);
        if number.is_none() {
            self.wrong(section, key, value, &format!("a whole number from {least} on"));
        }
        number
    }

    fn size(&mut self, section: Section<'_>, key: &str, least: u64) -> Option<u64> {
        let value = section.get(key)?;
        let size = match value.get_ref() {
            DeValue::String(text) => size::parse_size(text),
            other => integer(other),
        };
        let size = size.filter(|n| *n >= least);
        if size.is_none() {
            let least = if least > 0 { format!(", at least {}", size::format_size(least)) } else { String::new() };
            self.wrong(section, key, value, &format!("{}{least}", size::ALLOWED));
        }
        size
    }

    fn choice<T: Copy>(&mut self, section: Section<'_>, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = section.get(key)?;
        let word = value.get_ref().as_str();
        if let Some((_, found)) = word.and_then(|w| choices.iter().find(|(c, _)| *c == w)) {
            return Some(*found);
        }
        let words: Vec<&str> = choices.iter().map(|(c, _)| *c).collect();
        let list = words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", ");
        let hint = word.and_then(|w| nearest(w, &words)).map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default();
        let (shown, place) = (show(value.get_ref()), section.place());
        self.fault(value.span().start, format!("{key}{place} can't be {shown}{hint}; allowed: {list}"));
        None
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A value's type with its article.
fn kind(value: &DeValue<'_>) -> String {
    let word = value.type_str();
    format!("{} {word}", if word.starts_with(['a', 'i']) { "an" } else { "a" })
}

/// A value as messages show it. Only called for keys that hold no secret.
fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
        DeValue::Integer(n) => n.to_string(),
        DeValue::Float(n) => n.to_string(),
        DeValue::Boolean(b) => b.to_string(),
        other => kind(other),
    }
}

/// The allowed word that a mistyped one is nearest to, if it is near: at most a third of its letters differ, and
/// never more than three.
fn nearest<'w>(word: &str, allowed: &[&'w str]) -> Option<&'w str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    allowed.iter().map(|a| (distance(word, a), *a)).filter(|(d, _)| *d <= limit).min().map(|(_, a)| a)
}

/// Letters to insert, remove, change or swap with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>(); a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}
