//! The form of one instance: address, topology, account, TLS. Used by both sides of the wizard's first step and by
//! the inventory.

use crate::{
    control::protocol::{Failure, Probe},
    model::{AccountSource, Instance, Topology, job::Tls, secret::Inline},
    tui::{
        i18n::Lang,
        store::{AccountFrom, Saved, TlsChoice},
        text::{self, Row},
        theme::Theme,
        widget::field::Field,
    },
};
use ratatui::text::Line;

/// One part of the form that can have the focus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FormSlot {
    /// Saved or typed; not in the inventory's own form.
    Instance,
    Id,
    Region,
    Address,
    Topology,
    Master,
    AccountFrom,
    /// The account itself, masked.
    Account,
    /// The variable, the file or the command that holds it.
    Place,
    Tls,
    Ca,
}

impl FormSlot {
    /// Whether it is chosen from a list and not typed.
    pub fn is_choice(self) -> bool {
        matches!(self, FormSlot::Instance | FormSlot::Topology | FormSlot::AccountFrom | FormSlot::Tls)
    }

    fn label(self) -> &'static str {
        match self {
            FormSlot::Instance => "form.instance",
            FormSlot::Id => "form.id",
            FormSlot::Region => "form.region",
            FormSlot::Address => "form.address",
            FormSlot::Topology => "form.topology",
            FormSlot::Master => "form.master",
            FormSlot::AccountFrom => "form.account_from",
            FormSlot::Account => "form.account",
            FormSlot::Place => "form.place",
            FormSlot::Tls => "form.tls",
            FormSlot::Ca => "form.ca",
        }
    }

    fn placeholder(self, form: &Form) -> &'static str {
        match self {
            FormSlot::Id => "form.id_hint",
            FormSlot::Region => "form.region_hint",
            FormSlot::Address => "form.address_hint",
            FormSlot::Master => "form.master_hint",
            FormSlot::Account if form.held => "form.account_held",
            FormSlot::Account => "form.account_hint",
            FormSlot::Ca => "form.ca_hint",
            FormSlot::Place => match form.account_from {
                AccountFrom::Environment => "form.environment_hint",
                AccountFrom::File => "form.file_hint",
                _ => "form.command_hint",
            },
            _ => "form.none",
        }
    }
}

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
    pub master: Field,
    pub account_from: AccountFrom,
    pub account: Field,
    pub place: Field,
    pub tls: TlsChoice,
    pub ca: Field,
    /// The engine may hold the account that was typed before: an empty answer leaves it.
    pub held: bool,
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
            master: Field::default(),
            account_from: AccountFrom::Typed,
            account: Field::secret(),
            place: Field::default(),
            tls: TlsChoice::Off,
            ca: Field::default(),
            held: false,
            chosen: None,
            dialled: Dialled::No,
            fault: None,
        }
    }
}

pub const TOPOLOGIES: [Topology; 4] = [Topology::Auto, Topology::Standalone, Topology::Cluster, Topology::Sentinel];

/// The locale key of a topology.
pub fn topology_label(topology: Topology) -> &'static str {
    match topology {
        Topology::Auto => "topology.auto",
        Topology::Standalone => "topology.standalone",
        Topology::Cluster => "topology.cluster",
        Topology::Sentinel => "topology.sentinel",
        Topology::Proxy => "topology.proxy",
    }
}

impl Form {
    /// The parts that apply now, in the order of the tab key.
    pub fn slots(&self, inventory: bool) -> Vec<FormSlot> {
        let mut slots = if inventory { vec![FormSlot::Id, FormSlot::Region] } else { vec![FormSlot::Instance] };
        slots.extend([FormSlot::Address, FormSlot::Topology]);
        if self.topology == Topology::Sentinel {
            slots.push(FormSlot::Master);
        }
        slots.push(FormSlot::AccountFrom);
        match self.account_from {
            AccountFrom::Typed if inventory => {}
            AccountFrom::Typed => slots.push(FormSlot::Account),
            AccountFrom::Nowhere => {}
            _ => slots.push(FormSlot::Place),
        }
        slots.push(FormSlot::Tls);
        if self.tls == TlsChoice::OwnCa {
            slots.push(FormSlot::Ca);
        }
        slots
    }

    pub fn field_mut(&mut self, slot: FormSlot) -> Option<&mut Field> {
        Some(match slot {
            FormSlot::Id => &mut self.id,
            FormSlot::Region => &mut self.region,
            FormSlot::Address => &mut self.address,
            FormSlot::Master => &mut self.master,
            FormSlot::Account => &mut self.account,
            FormSlot::Place => &mut self.place,
            FormSlot::Ca => &mut self.ca,
            _ => return None,
        })
    }

    fn field(&self, slot: FormSlot) -> Option<&Field> {
        Some(match slot {
            FormSlot::Id => &self.id,
            FormSlot::Region => &self.region,
            FormSlot::Address => &self.address,
            FormSlot::Master => &self.master,
            FormSlot::Account => &self.account,
            FormSlot::Place => &self.place,
            FormSlot::Ca => &self.ca,
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

    /// The addresses that were typed, apart by commas or spaces; the port 6379 where none is given.
    pub fn addresses(&self) -> Vec<String> {
        self.address
            .value()
            .split([',', ' ', '，', '；', ';'])
            .map(str::trim)
            .filter(|a| !a.is_empty())
            .map(|a| if has_port(a) { a.to_owned() } else { format!("{a}:6379") })
            .collect()
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
        if self.topology == Topology::Sentinel && self.master.value().trim().is_empty() {
            return Some((FormSlot::Master, "fault.master_missing"));
        }
        let place = self.place.value().trim();
        match self.account_from {
            AccountFrom::Environment if place.is_empty() => Some((FormSlot::Place, "fault.environment_missing")),
            AccountFrom::File if place.is_empty() => Some((FormSlot::Place, "fault.file_missing")),
            AccountFrom::Command if place.is_empty() => Some((FormSlot::Place, "fault.command_missing")),
            _ if self.tls == TlsChoice::OwnCa && self.ca.value().trim().is_empty() => {
                Some((FormSlot::Ca, "fault.ca_missing"))
            }
            _ => None,
        }
    }

    /// The instance with its account, for the engine.
    pub fn instance(&self) -> Instance {
        let place = self.place.value().trim().to_owned();
        let label = |field: &Field| Some(field.value().trim().to_owned()).filter(|v| !v.is_empty());
        Instance {
            addresses: self.addresses(),
            topology: self.topology,
            account: match self.account_from {
                AccountFrom::Typed if self.account.is_empty() => AccountSource::None,
                AccountFrom::Typed => AccountSource::Inline(Inline::new(self.account.value())),
                AccountFrom::Environment => AccountSource::Env(place),
                AccountFrom::File => AccountSource::File(place),
                AccountFrom::Command => AccountSource::Command(place),
                AccountFrom::Nowhere => AccountSource::None,
            },
            tls: match self.tls {
                TlsChoice::Off => None,
                TlsChoice::System => Some(Tls::default()),
                TlsChoice::OwnCa => Some(Tls { ca_file: label(&self.ca), ..Tls::default() }),
            },
            master_name: if self.topology == Topology::Sentinel { label(&self.master) } else { None },
            region: label(&self.region),
            id: label(&self.id),
            ..Instance::default()
        }
    }

    /// The form of an instance that the engine told of; its typed account is not known.
    pub fn from_instance(instance: &Instance) -> Form {
        let (account_from, place) = match &instance.account {
            AccountSource::Env(place) => (AccountFrom::Environment, place.clone()),
            AccountSource::File(place) => (AccountFrom::File, place.clone()),
            AccountSource::Command(place) => (AccountFrom::Command, place.clone()),
            AccountSource::None | AccountSource::Inline(_) => (AccountFrom::Typed, String::new()),
        };
        Form::from_saved(&Saved {
            id: instance.id.clone().unwrap_or_default(),
            region: instance.region.clone().unwrap_or_default(),
            address: instance.addresses.join(", "),
            topology: instance.topology,
            master_name: instance.master_name.clone().unwrap_or_default(),
            account_from,
            account_place: place,
            tls: match &instance.tls {
                None => TlsChoice::Off,
                Some(tls) if tls.ca_file.is_some() => TlsChoice::OwnCa,
                Some(_) => TlsChoice::System,
            },
            ca_file: instance.tls.as_ref().and_then(|t| t.ca_file.clone()).unwrap_or_default(),
        })
    }

    pub fn from_saved(saved: &Saved) -> Form {
        Form {
            id: Field::new(&saved.id),
            region: Field::new(&saved.region),
            address: Field::new(&saved.address),
            topology: saved.topology,
            master: Field::new(&saved.master_name),
            account_from: saved.account_from,
            place: Field::new(&saved.account_place),
            tls: saved.tls,
            ca: Field::new(&saved.ca_file),
            chosen: Some(saved.id.clone()).filter(|id| !id.is_empty()),
            ..Form::default()
        }
    }

    /// Without the account that was typed.
    pub fn to_saved(&self) -> Saved {
        let text = |field: &Field| field.value().trim().to_owned();
        Saved {
            id: text(&self.id),
            region: text(&self.region),
            address: text(&self.address),
            topology: self.topology,
            master_name: text(&self.master),
            account_from: self.account_from,
            account_place: text(&self.place),
            tls: self.tls,
            ca_file: text(&self.ca),
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
            FormSlot::Topology => lang.t(topology_label(self.topology)).into(),
            FormSlot::AccountFrom => lang.t(self.account_from.label()).into(),
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
        let label_columns = slots.iter().map(|s| text::width(lang.t(s.label()))).max().unwrap_or(0) + 1;
        let label_columns = label_columns.max(11).min(columns / 2);
        let field_columns = columns.saturating_sub(label_columns);
        let mut out = FormLines::default();
        for slot in slots {
            let focused = focus == Some(slot);
            let label = if focused { theme.text } else { theme.dim };
            let row = Row::new().cell(lang.t(slot.label()), label_columns, label);
            let (field, cursor) = match self.field(slot) {
                Some(field) => field.draw(field_columns, focused, reveal, lang.t(slot.placeholder(self)), theme),
                None => (choice_row(&self.choice(slot, lang), field_columns, focused, theme), None),
            };
            if focused {
                out.focus = Some(out.lines.len());
                out.cursor = cursor.map(|c| (out.lines.len(), label_columns + c));
            }
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

/// The rows of a form and where the focus is among them.
#[derive(Debug, Default)]
pub struct FormLines {
    pub lines: Vec<Line<'static>>,
    pub focus: Option<usize>,
    pub cursor: Option<(usize, usize)>,
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
mod tests {
    use super::*;

    fn form(address: &str) -> Form {
        Form { address: Field::new(address), ..Form::default() }
    }

    #[test]
    fn addresses_get_a_port_and_are_checked() {
        assert_eq!(form("10.0.0.1, 10.0.0.2:7000").addresses(), ["10.0.0.1:6379", "10.0.0.2:7000"]);
        assert_eq!(form("[::1]").addresses(), ["[::1]:6379"]);
        assert!(form("[::1]:6380").check().is_none());
        for bad in ["", "a:b", "a:0", "::1", "redis://x:1", "a:70000"] {
            assert_eq!(form(bad).check().map(|(s, _)| s), Some(FormSlot::Address), "{bad}");
        }
    }

    #[test]
    fn a_saved_form_holds_no_secret() {
        let mut form = form("h:1");
        form.account.set("admin:s3cret");
        let saved = toml::to_string(&form.to_saved()).expect("toml");
        assert!(!saved.contains("s3cret"), "{saved}");
        assert!(matches!(form.instance().account, AccountSource::Inline(_)));
        assert!(!format!("{form:?}").contains("s3cret"));
    }

    #[test]
    fn every_row_is_as_wide_as_asked() {
        let theme = Theme::new(crate::tui::theme::ThemeName::Mono);
        let mut form = form("a very long address that does not fit anywhere");
        form.topology = Topology::Sentinel;
        form.tls = TlsChoice::OwnCa;
        for lang in Lang::ALL {
            for slot in form.slots(false) {
                for columns in [26, 38, 60] {
                    for line in form.draw(Some(slot), false, true, columns, lang, &theme).lines {
                        assert_eq!(text::line_width(&line), columns, "{line:?}");
                    }
                }
            }
        }
    }
}
