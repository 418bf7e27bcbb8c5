//! A job as its file describes it: two instances, a policy, limits.

pub mod file;

use super::secret::AccountSource;
use serde::{Deserialize, Serialize};

/// What a job file says, validated. The forward link copies `source` to `target`, the reverse link the other way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// 1 to 64 characters of letters, digits, `-`, `_`, `.`; names the job on the command line.
    pub name: String,
    pub source: Instance,
    pub target: Instance,
    pub policy: Policy,
    pub limits: Limits,
}

impl Job {
    pub fn instance(&self, side: super::Side) -> &Instance {
        match side {
            super::Side::Source => &self.source,
            super::Side::Target => &self.target,
        }
    }

    /// The accounts that were typed and are to be kept nowhere.
    pub fn unkept_accounts(&mut self) -> impl Iterator<Item = &mut super::secret::Inline> {
        let instances = [&mut self.source, &mut self.target].into_iter();
        instances.flat_map(|i| [&mut i.account, &mut i.sentinel_account]).filter_map(|account| match account {
            AccountSource::Inline(inline) if inline.is_unkept() => Some(inline),
            _ => None,
        })
    }

    /// Whether an account that is kept nowhere has to be typed again.
    pub fn lacks_account(&self) -> bool {
        [&self.source, &self.target].into_iter().flat_map(|i| [&i.account, &i.sentinel_account]).any(
            |account| matches!(account, AccountSource::Inline(inline) if inline.is_unkept() && inline.is_withheld()),
        )
    }
}

/// One Redis deployment and how to reach it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// `host:port`, one or more: the server, cluster seeds, or sentinels. `[::1]:6379` for IPv6.
    pub addresses: Vec<String>,
    pub topology: Topology,
    /// For proxy: addresses of the cluster's own nodes behind it, any of them. The streams are read from those.
    #[serde(default)]
    pub shards: Vec<String>,
    pub account: AccountSource,
    pub tls: Option<Tls>,
    /// For sentinel: the name under which the sentinels know the master.
    pub master_name: Option<String>,
    /// For sentinel: the sentinels' own credentials.
    pub sentinel_account: AccountSource,
    pub read_from: ReadFrom,
    /// A label, free text.
    pub region: Option<String>,
    /// A label, free text: the instance's id at its provider.
    pub id: Option<String>,
}

impl Instance {
    /// Its addresses are those of sentinels.
    pub fn may_be_sentinels(&self) -> bool {
        self.topology == Topology::Sentinel || self.master_name.is_some()
    }

    /// Writes go through one endpoint, which has no cluster commands.
    pub fn is_proxied(&self) -> bool {
        self.topology == Topology::Proxy
    }

    /// Nothing of it can be reached but the proxy.
    pub fn hides_shards(&self) -> bool {
        self.is_proxied() && self.shards.is_empty()
    }

    /// Where to ask for its masters: the addresses, or of what is behind a proxy those of the nodes.
    pub fn seeds(&self) -> &[String] {
        if self.shards.is_empty() { &self.addresses } else { &self.shards }
    }

    /// One more place to ask.
    pub fn add_seed(&mut self, address: &str) {
        let seeds = if self.shards.is_empty() { &mut self.addresses } else { &mut self.shards };
        if !seeds.iter().any(|known| known == address) {
            seeds.push(address.to_owned());
        }
    }

    /// Its master may be found at another address later: sentinels tell, or several addresses are tried.
    pub fn may_move(&self) -> bool {
        self.may_be_sentinels() || self.addresses.len() > 1
    }

    /// The one address at which it can be, where that is known before anybody is asked: unless a cluster answers there.
    pub fn only_address(&self) -> Option<&str> {
        let known = match self.topology {
            Topology::Standalone => true,
            Topology::Auto => self.master_name.is_none(),
            Topology::Cluster | Topology::Sentinel | Topology::Proxy => false,
        };
        match self.addresses.as_slice() {
            [only] if known => Some(only),
            _ => None,
        }
    }

    /// How the screens call this instance: its id where it has one, else its first address.
    pub fn label(&self) -> &str {
        self.id.as_deref().or(self.addresses.first().map(String::as_str)).unwrap_or("?")
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tls {
    pub ca_file: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
    /// The name to expect in the server's certificate, where it is not the host's.
    pub server_name: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// Found out by asking the server.
    #[default]
    Auto,
    Standalone,
    Cluster,
    Sentinel,
    /// One endpoint in front of a cluster that hides its shards.
    Proxy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadFrom {
    #[default]
    Master,
    Replica,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub existing_keys: ExistingKeys,
    pub databases: Databases,
    /// `false`: the forward link alone.
    pub two_way: bool,
    /// Forward FLUSHDB and FLUSHALL instead of raising an alert.
    pub forward_flush: bool,
    /// When the stream can't be resumed, take a new snapshot instead of stopping.
    pub allow_resnapshot: bool,
    /// Events of conflicts show commands and values, which are told by size and hash otherwise.
    #[serde(default)]
    pub show_values: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            existing_keys: ExistingKeys::Block,
            databases: Databases::All,
            two_way: true,
            forward_flush: false,
            allow_resnapshot: false,
            show_values: false,
        }
    }
}

/// What to do with keys that the target holds before the first copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExistingKeys {
    /// The precheck fails while the target holds any.
    #[default]
    Block,
    /// The same key is overwritten by the source's; others stay at the target alone.
    Ignore,
    /// What only one side has, both get; where both have a key, the source's stands.
    Merge,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Databases {
    #[default]
    All,
    Only(Vec<u32>),
}

impl Databases {
    pub fn contains(&self, db: u32) -> bool {
        match self {
            Databases::All => true,
            Databases::Only(list) => list.contains(&db),
        }
    }

    /// The database that holds the control keys: the first selected one.
    pub fn first(&self) -> u32 {
        match self {
            Databases::All => 0,
            Databases::Only(list) => list.iter().copied().min().unwrap_or(0),
        }
    }
}

impl Serialize for Databases {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Databases::All => s.serialize_str("all"),
            Databases::Only(list) => list.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Databases {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Word(String),
            List(Vec<u32>),
        }
        match Form::deserialize(d).map_err(|_| serde::de::Error::custom("expected \"all\" or a list such as [0, 3]"))? {
            Form::Word(w) if w == "all" => Ok(Databases::All),
            Form::Word(w) => {
                Err(serde::de::Error::custom(format!("expected \"all\" or a list such as [0, 3], not {w:?}")))
            }
            Form::List(mut list) => {
                list.sort_unstable();
                list.dedup();
                if list.is_empty() {
                    return Err(serde::de::Error::custom("the list of databases is empty: name at least one"));
                }
                Ok(Databases::Only(list))
            }
        }
    }
}

/// Bounds on what the job may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Changes a second that each link applies at most; 0 is no limit.
    pub max_ops_per_second: u64,
    /// Bytes a second that each link applies at most; 0 is no limit.
    pub max_bytes_per_second: u64,
    /// Bytes a link keeps in memory before it writes to the spool's disk.
    pub spool_memory: u64,
    /// Bytes a link may keep in files; then it stops reading and raises an alert.
    pub spool_disk: u64,
    /// Lag above which a link is shown as lagging, in milliseconds.
    pub lag_alert_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_ops_per_second: 0,
            max_bytes_per_second: 0,
            spool_memory: 6 << 20,
            spool_disk: 10 << 30,
            lag_alert_ms: 10_000,
        }
    }
}
