//! The form of one instance: address, topology, account, TLS. Used by both sides of the wizard's first step and by
//! the inventory.

mod kind;
mod slot;

pub use kind::{KINDS, Kind, READ_FROM, read_from_label, topology_label};
pub use slot::FormSlot;

use crate::{
    control::protocol::{Failure, Probe},
    model::{
        AccountSource, Instance, Topology,
        job::{ReadFrom, Tls},
        secret::Inline,
    },
    tui::{
        i18n::Lang,
        store::{AccountFrom, Saved, SentinelFrom, TlsChoice},
        text::{self, Row},
        theme::Theme,
        widget::field::Field,
    },
};
use ratatui::text::Line;

/// What is known of an instance from dialling it.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Dialled {
    #[default]
    No,
    Now,
    Found(Box<Probe>),
    Failed(Failure),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    pub id: Field,
    pub region: Field,
    pub address: Field,
    pub topology: Topology,
    pub shards: Field,
    pub master: Field,
    pub account_from: AccountFrom,
    pub account: Field,
    pub place: Field,
    pub tls: TlsChoice,
    pub ca: Field,
    pub cert: Field,
    pub key: Field,
    pub server_name: Field,
    pub read_from: ReadFrom,
    pub sentinel_from: AccountFrom,
    pub sentinel_account: Field,
    pub sentinel_place: Field,
    /// The engine may hold the account that was typed before: an empty answer leaves it.
    pub held: bool,
    /// The same of the sentinels' account.
    pub sentinel_held: bool,
    /// The id of the saved instance that was chosen.
    pub chosen: Option<String>,
    pub dialled: Dialled,
    /// What is wrong with an answer, by locale key.
    pub fault: Option<(FormSlot, &'static str)>,
}

impl Default for Form {
    fn default() -> Self {
        Form {
            id: Field::default(),
            region: Field::default(),
            address: Field::default(),
            topology: Topology::Auto,
            shards: Field::default(),
            master: Field::default(),
            account_from: AccountFrom::Typed,
            account: Field::secret(),
            place: Field::default(),
            tls: TlsChoice::Off,
            ca: Field::default(),
            cert: Field::default(),
            key: Field::default(),
            server_name: Field::default(),
            read_from: ReadFrom::Master,
            sentinel_from: AccountFrom::Nowhere,
            sentinel_account: Field::secret(),
            sentinel_place: Field::default(),
            held: false,
            sentinel_held: false,
            chosen: None,
            dialled: Dialled::No,
            fault: None,
        }
    }
}

impl Form {
    /// The parts that apply now, in the order of the tab key.
    pub fn slots(&self, inventory: bool) -> Vec<FormSlot> {
        let mut slots = if inventory { vec![FormSlot::Id, FormSlot::Region] } else { vec![FormSlot::Instance] };
        slots.extend([FormSlot::Address, FormSlot::Topology]);
        if self.topology == Topology::Proxy {
            slots.push(FormSlot::Shards);
        }
        if self.topology == Topology::Sentinel {
            slots.extend([FormSlot::Master, FormSlot::SentinelFrom]);
            match self.sentinel_from {
                typed if typed.is_typed() && inventory => {}
                typed if typed.is_typed() => slots.push(FormSlot::SentinelAccount),
                AccountFrom::Nowhere => {}
                _ => slots.push(FormSlot::SentinelPlace),
            }
        }
        let split = self.kind() == Kind::ReadWriteSplitting;
        if matches!(self.topology, Topology::Cluster | Topology::Sentinel)
            || (self.read_from == ReadFrom::Replica && !split)
        {
            slots.push(FormSlot::ReadFrom);
        }
        slots.push(FormSlot::AccountFrom);
        match self.account_from {
            typed if typed.is_typed() && inventory => {}
            typed if typed.is_typed() => slots.push(FormSlot::Account),
            AccountFrom::Nowhere => {}
            _ => slots.push(FormSlot::Place),
        }
        slots.push(FormSlot::Tls);
        if self.tls == TlsChoice::OwnCa {
            slots.push(FormSlot::Ca);
        }
        if self.tls != TlsChoice::Off {
            slots.extend([FormSlot::Cert, FormSlot::Key, FormSlot::ServerName]);
        }
        slots
    }

    pub fn kind(&self) -> Kind {
        match (self.topology, self.read_from) {
            (Topology::Standalone, ReadFrom::Replica) => Kind::ReadWriteSplitting,
            (topology, _) => Kind::Plain(topology),
        }
    }

    /// Another kind of instance: what only the other one has falls back.
    pub fn set_kind(&mut self, kind: Kind) {
        let was_split = self.kind() == Kind::ReadWriteSplitting;
        match kind {
            Kind::Plain(topology) => {
                self.topology = topology;
                if was_split || topology == Topology::Standalone {
                    self.read_from = ReadFrom::Master;
                }
            }
            Kind::ReadWriteSplitting => (self.topology, self.read_from) = (Topology::Standalone, ReadFrom::Replica),
        }
    }

    /// Whether an account has to be typed and is not there yet.
    pub fn lacks_account(&self) -> bool {
        self.account_from.is_typed() && self.account.is_empty() && !self.held
    }

    pub fn field_mut(&mut self, slot: FormSlot) -> Option<&mut Field> {
        Some(match slot {
            FormSlot::Id => &mut self.id,
            FormSlot::Region => &mut self.region,
            FormSlot::Address => &mut self.address,
            FormSlot::Shards => &mut self.shards,
            FormSlot::Master => &mut self.master,
            FormSlot::Account => &mut self.account,
            FormSlot::Place => &mut self.place,
            FormSlot::Ca => &mut self.ca,
            FormSlot::Cert => &mut self.cert,
            FormSlot::Key => &mut self.key,
            FormSlot::ServerName => &mut self.server_name,
            FormSlot::SentinelAccount => &mut self.sentinel_account,
            FormSlot::SentinelPlace => &mut self.sentinel_place,
            _ => return None,
        })
    }

    fn field(&self, slot: FormSlot) -> Option<&Field> {
        Some(match slot {
            FormSlot::Id => &self.id,
            FormSlot::Region => &self.region,
            FormSlot::Address => &self.address,
            FormSlot::Shards => &self.shards,
            FormSlot::Master => &self.master,
            FormSlot::Account => &self.account,
            FormSlot::Place => &self.place,
            FormSlot::Ca => &self.ca,
            FormSlot::Cert => &self.cert,
            FormSlot::Key => &self.key,
            FormSlot::ServerName => &self.server_name,
            FormSlot::SentinelAccount => &self.sentinel_account,
            FormSlot::SentinelPlace => &self.sentinel_place,
            _ => return None,
        })
    }

    /// An answer changed: what was found by dialling holds no longer.
    pub fn touched(&mut self) {
        self.dialled = Dialled::No;
        self.fault = None;
    }

    pub fn probe(&self) -> Option<&Probe> {
        match &self.dialled {
            Dialled::Found(probe) => Some(probe),
            _ => None,
        }
    }

    /// The addresses that were typed.
    pub fn addresses(&self) -> Vec<String> {
        listed(&self.address, if self.topology == Topology::Sentinel { 26379 } else { 6379 })
    }

    /// The nodes behind a proxy that were typed.
    fn shards(&self) -> Vec<String> {
        if self.topology == Topology::Proxy { listed(&self.shards, 6379) } else { Vec::new() }
    }

    /// Says what is missing; `None` where the form is complete.
    pub fn check(&self) -> Option<(FormSlot, &'static str)> {
        let addresses = self.addresses();
        if addresses.is_empty() {
            return Some((FormSlot::Address, "fault.address_missing"));
        }
        if addresses.iter().any(|a| !is_address(a)) {
            return Some((FormSlot::Address, "fault.address"));
        }
        if self.shards().iter().any(|a| !is_address(a)) {
            return Some((FormSlot::Shards, "fault.address"));
        }
        if matches!(self.topology, Topology::Standalone | Topology::Proxy) && addresses.len() > 1 {
            return Some((FormSlot::Address, "fault.one_address"));
        }
        if self.topology == Topology::Sentinel && self.master.value().trim().is_empty() {
            return Some((FormSlot::Master, "fault.master_missing"));
        }
        let sentinel_place = (self.sentinel_from, &self.sentinel_place, FormSlot::SentinelPlace);
        let places = [sentinel_place, (self.account_from, &self.place, FormSlot::Place)];
        for (from, place, slot) in places.into_iter().skip(usize::from(self.topology != Topology::Sentinel)) {
            let fault = match from {
                AccountFrom::Environment => "fault.environment_missing",
                AccountFrom::File => "fault.file_missing",
                AccountFrom::Command => "fault.command_missing",
                _ => continue,
            };
            if place.value().trim().is_empty() {
                return Some((slot, fault));
            }
        }
        let empty = |field: &Field| field.value().trim().is_empty();
        match self.tls {
            TlsChoice::OwnCa if empty(&self.ca) => Some((FormSlot::Ca, "fault.ca_missing")),
            TlsChoice::Off => None,
            _ if !empty(&self.cert) && empty(&self.key) => Some((FormSlot::Key, "fault.key_missing")),
            _ if empty(&self.cert) && !empty(&self.key) => Some((FormSlot::Cert, "fault.cert_missing")),
            _ => None,
        }
    }

    /// The instance with its account, for the engine.
    pub fn instance(&self) -> Instance {
        let label = |field: &Field| Some(field.value().trim().to_owned()).filter(|v| !v.is_empty());
        let sentinel = self.topology == Topology::Sentinel;
        Instance {
            addresses: self.addresses(),
            topology: self.topology,
            account: account(self.account_from, &self.account, &self.place, self.held),
            tls: (self.tls != TlsChoice::Off).then(|| Tls {
                ca_file: label(&self.ca).filter(|_| self.tls == TlsChoice::OwnCa),
                cert_file: label(&self.cert),
                key_file: label(&self.key),
                server_name: label(&self.server_name),
            }),
            master_name: label(&self.master).filter(|_| sentinel),
            sentinel_account: match sentinel {
                true => account(self.sentinel_from, &self.sentinel_account, &self.sentinel_place, self.sentinel_held),
                false => AccountSource::None,
            },
            read_from: self.read_from,
            shards: self.shards(),
            region: label(&self.region),
            id: label(&self.id),
        }
    }

    /// The form of an instance that the engine told of. Typed accounts are not told, only that there are.
    pub fn from_instance(instance: &Instance) -> Form {
        let (account_from, place) = told(&instance.account, AccountFrom::Typed);
        let (sentinel_from, sentinel_place) = told(&instance.sentinel_account, AccountFrom::Nowhere);
        let tls = instance.tls.clone().unwrap_or_default();
        Form::from_saved(&Saved {
            id: instance.id.clone().unwrap_or_default(),
            region: instance.region.clone().unwrap_or_default(),
            address: instance.addresses.join(", "),
            topology: instance.topology,
            shards: instance.shards.join(", "),
            master_name: instance.master_name.clone().unwrap_or_default(),
            account_from,
            account_place: place,
            tls: match (&instance.tls, &tls.ca_file) {
                (None, _) => TlsChoice::Off,
                (Some(_), Some(_)) => TlsChoice::OwnCa,
                (Some(_), None) => TlsChoice::System,
            },
            ca_file: tls.ca_file.clone().unwrap_or_default(),
            cert_file: tls.cert_file.clone().unwrap_or_default(),
            key_file: tls.key_file.clone().unwrap_or_default(),
            server_name: tls.server_name.clone().unwrap_or_default(),
            read_from: instance.read_from,
            sentinel_from: SentinelFrom(sentinel_from),
            sentinel_place,
        })
    }

    pub fn from_saved(saved: &Saved) -> Form {
        Form {
            id: Field::new(&saved.id),
            region: Field::new(&saved.region),
            address: Field::new(&saved.address),
            topology: saved.topology,
            shards: Field::new(&saved.shards),
            master: Field::new(&saved.master_name),
            account_from: saved.account_from,
            place: Field::new(&saved.account_place),
            tls: saved.tls,
            ca: Field::new(&saved.ca_file),
            cert: Field::new(&saved.cert_file),
            key: Field::new(&saved.key_file),
            server_name: Field::new(&saved.server_name),
            read_from: saved.read_from,
            sentinel_from: saved.sentinel_from.0,
            sentinel_place: Field::new(&saved.sentinel_place),
            chosen: Some(saved.id.clone()).filter(|id| !id.is_empty()),
            ..Form::default()
        }
    }

    /// Without the accounts that were typed.
    pub fn to_saved(&self) -> Saved {
        let text = |field: &Field| field.value().trim().to_owned();
        Saved {
            id: text(&self.id),
            region: text(&self.region),
            address: text(&self.address),
            topology: self.topology,
            shards: text(&self.shards),
            master_name: text(&self.master),
            account_from: self.account_from,
            account_place: text(&self.place),
            tls: self.tls,
            ca_file: text(&self.ca),
            cert_file: text(&self.cert),
            key_file: text(&self.key),
            server_name: text(&self.server_name),
            read_from: self.read_from,
            sentinel_from: SentinelFrom(self.sentinel_from),
            sentinel_place: text(&self.sentinel_place),
        }
    }

    /// How the screens call the instance.
    pub fn label(&self) -> String {
        let id = self.id.value().trim();
        if id.is_empty() { self.addresses().into_iter().next().unwrap_or_else(|| "?".into()) } else { id.to_owned() }
    }

    /// What a choice shows as chosen.
    fn choice(&self, slot: FormSlot, lang: Lang) -> String {
        match slot {
            FormSlot::Instance => match &self.chosen {
                Some(id) if self.region.is_empty() => id.clone(),
                Some(id) => format!("{id} · {}", self.region.value()),
                None => lang.t("form.typed_below").into(),
            },
            FormSlot::Topology => lang.t(self.kind().label()).into(),
            FormSlot::ReadFrom => lang.t(read_from_label(self.read_from)).into(),
            FormSlot::AccountFrom => lang.t(self.account_from.label()).into(),
            FormSlot::SentinelFrom => lang.t(self.sentinel_from.label()).into(),
            _ => lang.t(self.tls.label()).into(),
        }
    }

    /// One row per part, `columns` wide: label, then the field. Also the row and column of the cursor.
    pub fn draw(
        &self,
        focus: Option<FormSlot>,
        inventory: bool,
        reveal: bool,
        columns: usize,
        lang: Lang,
        theme: &Theme,
    ) -> FormLines {
        let slots = self.slots(inventory);
        let label_columns = slots.iter().map(|s| text::width(lang.t(s.label(self)))).max().unwrap_or(0) + 1;
        let label_columns = label_columns.max(11).min(columns / 2);
        let field_columns = columns.saturating_sub(label_columns);
        let mut out = FormLines::default();
        for slot in slots {
            let focused = focus == Some(slot);
            let label = if focused { theme.text } else { theme.dim };
            let row = Row::new().cell(lang.t(slot.label(self)), label_columns, label);
            let (field, cursor) = match self.field(slot) {
                Some(field) => field.draw(field_columns, focused, reveal, lang.t(slot.placeholder(self)), theme),
                None => (choice_row(&self.choice(slot, lang), field_columns, focused, theme), None),
            };
            if focused {
                out.focus = Some(out.lines.len());
                out.cursor = cursor.map(|c| (out.lines.len(), label_columns + c));
            }
            out.slots.push((out.lines.len(), slot));
            out.lines.push(row.append(field).line());
            if let Some((_, fault)) = self.fault.filter(|(at, _)| *at == slot) {
                for (i, line) in text::wrap(lang.t(fault), field_columns.saturating_sub(2)).into_iter().enumerate() {
                    let mark = if i == 0 { "✖ " } else { "  " };
                    out.lines.push(Row::new().gap(label_columns).text(mark, theme.bad).text(line, theme.bad).line());
                }
            }
        }
        out
    }
}

/// Addresses apart by commas or spaces; the usual port where none is given.
fn listed(field: &Field, port: u16) -> Vec<String> {
    let words = field.value().split([',', ' ', '，', '；', ';']).map(str::trim).filter(|a| !a.is_empty());
    words.map(|a| if has_port(a) { a.to_owned() } else { format!("{a}:{port}") }).collect()
}

/// The rows of a form and where the focus is among them.
#[derive(Debug, Default)]
pub struct FormLines {
    pub lines: Vec<Line<'static>>,
    pub focus: Option<usize>,
    pub cursor: Option<(usize, usize)>,
    /// The row of each part.
    pub slots: Vec<(usize, FormSlot)>,
}

/// Where an account comes from, with the account that was typed. One that the engine holds is told by an empty text.
fn account(from: AccountFrom, typed: &Field, place: &Field, held: bool) -> AccountSource {
    let place = place.value().trim().to_owned();
    match from {
        AccountFrom::Unkept if held || !typed.is_empty() => AccountSource::Inline(Inline::unkept(typed.value())),
        AccountFrom::Typed if held || !typed.is_empty() => AccountSource::Inline(Inline::new(typed.value())),
        AccountFrom::Typed | AccountFrom::Unkept | AccountFrom::Nowhere => AccountSource::None,
        AccountFrom::Environment => AccountSource::Env(place),
        AccountFrom::File => AccountSource::File(place),
        AccountFrom::Command => AccountSource::Command(place),
    }
}

/// The answers that an account of the engine's stands for; `none` where it told of none.
fn told(account: &AccountSource, none: AccountFrom) -> (AccountFrom, String) {
    match account {
        AccountSource::Env(place) => (AccountFrom::Environment, place.clone()),
        AccountSource::File(place) => (AccountFrom::File, place.clone()),
        AccountSource::Command(place) => (AccountFrom::Command, place.clone()),
        AccountSource::Inline(inline) if inline.is_unkept() => (AccountFrom::Unkept, String::new()),
        AccountSource::Inline(_) => (AccountFrom::Typed, String::new()),
        AccountSource::None => (none, String::new()),
    }
}

/// `[ chosen ▾ ]`.
pub fn choice_row(chosen: &str, columns: usize, focused: bool, theme: &Theme) -> Row {
    let style = if focused { theme.field_focused } else { theme.field };
    let bracket = if focused { theme.accent } else { theme.faint };
    Row::new()
        .text("[ ", bracket)
        .text(text::pad(&text::clean(chosen), columns.saturating_sub(6)), style)
        .text(" ▾", if focused { style.patch(theme.accent) } else { theme.dim })
        .text(" ]", bracket)
}

fn has_port(address: &str) -> bool {
    match address.rfind(']') {
        Some(end) => address[end..].contains(':'),
        None => address.matches(':').count() == 1,
    }
}

/// `host:port` or `[v6]:port`.
fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let host_fine = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "[]:/@".contains(c)),
    };
    host_fine && port.parse::<u16>().is_ok_and(|p| p > 0)
}

#[cfg(test)]
mod tests;
