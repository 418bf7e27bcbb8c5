//! The parts of an instance's form, and what each is called.

use super::Form;
use crate::{model::Topology, tui::store::AccountFrom};

/// One part of the form that can have the focus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FormSlot {
    /// Saved or typed; not in the inventory's own form.
    Instance,
    Id,
    Region,
    Address,
    Topology,
    /// The nodes that are read from, behind a proxy.
    Shards,
    Master,
    SentinelFrom,
    SentinelAccount,
    SentinelPlace,
    ReadFrom,
    AccountFrom,
    /// The account itself, masked.
    Account,
    /// The variable, the file or the command that holds it.
    Place,
    Tls,
    Ca,
    Cert,
    Key,
    ServerName,
}

impl FormSlot {
    /// Whether it is chosen from a list and not typed.
    pub fn is_choice(self) -> bool {
        matches!(
            self,
            FormSlot::Instance
                | FormSlot::Topology
                | FormSlot::SentinelFrom
                | FormSlot::ReadFrom
                | FormSlot::AccountFrom
                | FormSlot::Tls
        )
    }

    /// The locale key of its words, as the instance's kind has them.
    pub fn label(self, form: &Form) -> &'static str {
        match self {
            FormSlot::Address if form.topology == Topology::Cluster => "form.seeds",
            FormSlot::Address if form.topology == Topology::Sentinel => "form.sentinels",
            FormSlot::SentinelFrom => "form.sentinel_from",
            FormSlot::SentinelAccount => "form.sentinel_account",
            FormSlot::SentinelPlace => "form.sentinel_place",
            FormSlot::ReadFrom => "form.read_from",
            FormSlot::Cert => "form.cert",
            FormSlot::Key => "form.key",
            FormSlot::ServerName => "form.server_name",
            FormSlot::Instance => "form.instance",
            FormSlot::Id => "form.id",
            FormSlot::Region => "form.region",
            FormSlot::Address => "form.address",
            FormSlot::Topology => "form.topology",
            FormSlot::Shards => "form.shards",
            FormSlot::Master => "form.master",
            FormSlot::AccountFrom => "form.account_from",
            FormSlot::Account => "form.account",
            FormSlot::Place => "form.place",
            FormSlot::Tls => "form.tls",
            FormSlot::Ca => "form.ca",
        }
    }

    pub(super) fn placeholder(self, form: &Form) -> &'static str {
        match self {
            FormSlot::Id => "form.id_hint",
            FormSlot::Region => "form.region_hint",
            FormSlot::Address => match form.topology {
                Topology::Cluster => "form.seeds_hint",
                Topology::Sentinel => "form.sentinels_hint",
                _ => "form.address_hint",
            },
            FormSlot::Shards => "form.shards_hint",
            FormSlot::Master => "form.master_hint",
            FormSlot::Account if form.held => "form.account_held",
            FormSlot::SentinelAccount if form.sentinel_held => "form.account_held",
            FormSlot::Account | FormSlot::SentinelAccount => "form.account_hint",
            FormSlot::Ca => "form.ca_hint",
            FormSlot::Cert | FormSlot::Key | FormSlot::ServerName => "form.optional",
            FormSlot::Place => place_hint(form.account_from),
            FormSlot::SentinelPlace => place_hint(form.sentinel_from),
            _ => "form.none",
        }
    }
}

fn place_hint(from: AccountFrom) -> &'static str {
    match from {
        AccountFrom::Environment => "form.environment_hint",
        AccountFrom::File => "form.file_hint",
        _ => "form.command_hint",
    }
}
