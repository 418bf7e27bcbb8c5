//! Where an instance is: its addresses, and the nodes behind a proxy.

use super::*;

impl Reader {
    /// The nodes behind a proxy.
    pub(super) fn shards(
        &mut self,
        section: Section<'_>,
        topology: Topology,
        addresses: Option<&[String]>,
        secure: bool,
    ) -> Vec<String> {
        if topology == Topology::Proxy && addresses.is_some_and(|a| a.len() > 1) {
            let text = format!("a proxy has one address{}; the cluster's own nodes go into `shards`", section.place());
            self.fault(section.key_span("address").start, text);
        }
        if section.get("shards").is_none() {
            return Vec::new();
        }
        if topology != Topology::Proxy {
            let text = format!("shards{} goes with topology \"proxy\" only", section.place());
            self.fault(section.key_span("shards").start, text);
            return Vec::new();
        }
        let Some((shards, shards_secure)) = self.addresses(section, "shards") else { return Vec::new() };
        if let (Some(at), false) = (shards_secure, secure || section.get("tls").is_some()) {
            let text = format!(
                "shards{} begin with rediss:// and the address does not: one instance speaks TLS or not",
                section.place()
            );
            self.fault(at, text);
        }
        shards
    }

    /// Of what is read a proxy is not enough.
    pub(super) fn proxies(&mut self, top: Section<'_>, job: &Job) {
        for (name, instance, read) in [("source", &job.source, true), ("target", &job.target, job.policy.two_way)] {
            if !(read && instance.hides_shards()) {
                continue;
            }
            let two_way = if name == "target" { ", or set two_way = false in [policy]" } else { "" };
            let at = top.get(name).and_then(|v| v.get_ref().as_table()).and_then(|t| t.get("address"));
            self.fault(
                at.map_or(0, |v| v.span().start),
                format!(
                    "the stream of [{name}] can't be read through a proxy: name the cluster's own nodes, \
                     shards = [\"host:port\", …]{two_way}"
                ),
            );
        }
    }

    /// The addresses, and where the first `rediss://` stands, which is `tls = true` in another word.
    pub(super) fn addresses(&mut self, section: Section<'_>, key: &str) -> Option<(Vec<String>, Option<usize>)> {
        let place = section.place();
        let Some(value) = section.get(key) else {
            self.fault(
                section.at,
                format!("the key \"{key}\" is missing{place}; allowed: {ADDRESS}, or a list of such"),
            );
            return None;
        };
        let items: Vec<Value<'_>> = match value.get_ref() {
            DeValue::String(_) => vec![value],
            DeValue::Array(list) => list.iter().collect(),
            other => {
                let kind = kind(other);
                self.fault(
                    value.span().start,
                    format!("\"{key}\"{place} can't be {kind}; allowed: {ADDRESS}, or a list of such"),
                );
                return None;
            }
        };
        if items.is_empty() {
            self.fault(
                value.span().start,
                format!("the list of addresses{place} is empty; allowed: {ADDRESS}, at least one"),
            );
            return None;
        }
        let mut found: Vec<String> = Vec::new();
        let before = self.faults.len();
        let (mut secure, mut plain) = (None, None);
        for item in items {
            let at = item.span().start;
            let text = item.get_ref().as_str();
            let bare = text.and_then(|t| t.strip_prefix("rediss://"));
            if bare.is_some() {
                secure.get_or_insert(at)
            } else {
                plain.get_or_insert(at)
            };
            match bare.map(|b| b.strip_suffix('/').unwrap_or(b)).or(text) {
                None => self.fault(at, format!("an address{place} is a text in quotes; allowed: {ADDRESS}")),
                Some(text) => match address(text) {
                    Err(fault) => self.fault(at, fault),
                    Ok(_) if found.iter().any(|a| a == text) => {
                        self.fault(at, format!("{text:?} stands twice in the list of addresses{place}"));
                    }
                    Ok(_) => found.push(text.to_owned()),
                },
            }
        }
        if let (Some(at), Some(_)) = (secure, plain) {
            self.fault(
                at,
                format!("some addresses{place} begin with rediss:// and others don't: one instance speaks TLS or not"),
            );
        }
        (self.faults.len() == before).then_some((found, secure))
    }

    /// The same server on both sides would be synced with itself. Two masters under the same sentinels are fine.
    pub(super) fn same_address(&mut self, top: Section<'_>, source: &Instance, target: &Instance) {
        if source.master_name.is_some() && target.master_name.is_some() && source.master_name != target.master_name {
            return;
        }
        let of = |i: &Instance| -> Vec<(String, u16)> { i.addresses.iter().filter_map(|a| address(a).ok()).collect() };
        let theirs = of(source);
        if let Some((host, port)) = of(target).into_iter().find(|a| theirs.contains(a)) {
            let at = top.get("target").and_then(|v| v.get_ref().as_table()).and_then(|t| t.get("address"));
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            self.fault(
                at.map_or(0, |v| v.span().start),
                format!("[source] and [target] both name {host}:{port}; a job needs two different instances"),
            );
        }
    }
}
