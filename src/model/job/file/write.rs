//! Job to text, in the order and with the comments that people know from the documentation.

use super::size::format_size;
use crate::model::{AccountSource, Databases, ExistingKeys, Instance, Job, Side, Topology, job::ReadFrom};
use std::fmt::Write;

/// Writes a job file that [`super::parse`] reads as the same job. Without `with_secrets`, accounts that are kept in
/// the job itself are left out, and a comment stands in their place.
pub fn to_toml(job: &Job, with_secrets: bool) -> String {
    let mut out = String::new();
    line(&mut out, &format!("name = {}", quote(&job.name)), "");
    out.push('\n');
    let head = "forward link: source -> target; the reverse link is the other way round";
    line(&mut out, "[source]", head);
    instance(&mut out, &job.source, Side::Source, with_secrets);
    out.push('\n');
    line(&mut out, "[target]", "");
    instance(&mut out, &job.target, Side::Target, with_secrets);
    out.push('\n');
    let existing = match job.policy.existing_keys {
        ExistingKeys::Block => "block",
        ExistingKeys::Ignore => "ignore",
        ExistingKeys::Merge => "merge",
    };
    let databases = match &job.policy.databases {
        Databases::All => quote("all"),
        Databases::Only(list) => format!("[{}]", list.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
    };
    line(&mut out, "[policy]", "");
    line(&mut out, "conflict         = \"overwrite\"", "the later write wins; both sides end equal");
    line(&mut out, &format!("existing_keys    = {}", quote(existing)), "block | ignore | merge");
    line(&mut out, &format!("databases        = {databases}"), "\"all\", or a list such as [0, 3]");
    line(&mut out, &format!("two_way          = {}", job.policy.two_way), "false: the forward link alone");
    line(&mut out, &format!("forward_flush    = {}", job.policy.forward_flush), "true: forward FLUSHDB and FLUSHALL");
    line(
        &mut out,
        &format!("allow_resnapshot = {}", job.policy.allow_resnapshot),
        "true: copy all again when the stream can't be resumed",
    );
    line(&mut out, &format!("show_values      = {}", job.policy.show_values), "true: events of conflicts show values");
    out.push('\n');
    let limits = &job.limits;
    line(&mut out, "[limits]", "all optional");
    line(&mut out, &format!("max_ops_per_second   = {}", limits.max_ops_per_second), "0: no limit");
    line(&mut out, &format!("max_bytes_per_second = {}", limits.max_bytes_per_second), "0: no limit");
    line(&mut out, &format!("spool_memory         = {}", quote(&format_size(limits.spool_memory))), "for each link");
    line(&mut out, &format!("spool_disk           = {}", quote(&format_size(limits.spool_disk))), "for each link");
    line(&mut out, &format!("lag_alert_ms         = {}", limits.lag_alert_ms), "more is shown as lagging");
    out
}

/// A line with its comment in column 35, as far as there is room.
fn line(out: &mut String, text: &str, comment: &str) {
    match comment {
        "" => _ = writeln!(out, "{text}"),
        _ => _ = writeln!(out, "{text:<33} # {comment}"),
    }
}

fn quote(text: &str) -> String {
    // A basic string on one line: the file stays a file of lines, whatever a label holds.
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => _ = write!(quoted, "\\u{:04X}", c as u32),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn instance(out: &mut String, instance: &Instance, side: Side, with_secrets: bool) {
    let address = match instance.addresses.as_slice() {
        [one] => quote(one),
        list => format!("[{}]", list.iter().map(|a| quote(a)).collect::<Vec<_>>().join(", ")),
    };
    line(out, &format!("address  = {address}"), "or a list: cluster seeds, sentinels");
    let topology = match instance.topology {
        Topology::Auto => "auto",
        Topology::Standalone => "standalone",
        Topology::Cluster => "cluster",
        Topology::Sentinel => "sentinel",
        Topology::Proxy => "proxy",
    };
    line(out, &format!("topology = {}", quote(topology)), "auto | standalone | cluster | sentinel | proxy");
    if !instance.shards.is_empty() {
        let list = instance.shards.iter().map(|a| quote(a)).collect::<Vec<_>>().join(", ");
        line(out, &format!("shards   = [{list}]"), "nodes of the cluster behind the proxy");
    }
    account(out, "account", &instance.account, side, with_secrets);
    if let Some(tls) = &instance.tls {
        line(out, "tls = true", "");
        let files = [
            ("ca_file", &tls.ca_file),
            ("cert_file", &tls.cert_file),
            ("key_file", &tls.key_file),
            ("tls_server_name", &tls.server_name),
        ];
        for (key, value) in files {
            optional(out, key, value.as_deref(), "");
        }
    }
    optional(out, "master_name", instance.master_name.as_deref(), "as the sentinels know it");
    account(out, "sentinel_account", &instance.sentinel_account, side, with_secrets);
    if instance.read_from == ReadFrom::Replica {
        line(out, "read_from = \"replica\"", "master | replica");
    }
    optional(out, "region", instance.region.as_deref(), "a label, free text");
    optional(out, "id", instance.id.as_deref(), "a label, free text");
}

fn optional(out: &mut String, key: &str, value: Option<&str>, comment: &str) {
    if let Some(value) = value {
        line(out, &format!("{key} = {}", quote(value)), comment);
    }
}

fn account(out: &mut String, key: &str, source: &AccountSource, side: Side, with_secrets: bool) {
    let (word, value) = match source {
        AccountSource::None => return,
        AccountSource::Inline(account) if with_secrets && !account.is_unkept() && !account.is_withheld() => {
            return line(out, &format!("{key}  = {}", quote(account.expose())), "<user>:<password>");
        }
        AccountSource::Inline(_) => {
            let example = match side {
                Side::Source => "SRC_ACCOUNT",
                Side::Target => "DST_ACCOUNT",
            };
            return line(out, &format!("# {key}_env = \"{example}\""), "the account was not written; say where it is");
        }
        AccountSource::Env(value) => ("env", value),
        AccountSource::File(value) => ("file", value),
        AccountSource::Command(value) => ("command", value),
    };
    line(out, &format!("{key}_{word} = {}", quote(value)), "gives <user>:<password>");
}
