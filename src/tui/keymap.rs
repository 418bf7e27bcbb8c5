//! One table of keys. Dispatch, the footer, the help page and the command palette all read it, so they can't differ.
//!
//! A key is looked up in the contexts of the moment, the innermost first. While a field has the focus, printable keys
//! belong to the field; only named keys (`tab`, `ret`, `f1`) and those with Ctrl are looked up.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Where a binding holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Context {
    Global,
    Jobs,
    Wizard,
    Endpoints,
    Policy,
    Precheck,
    Dashboard,
    Shards,
    Events,
    Conflicts,
    Detail,
    Instances,
    InstanceForm,
    Pick,
    Confirm,
    Verify,
    Account,
    Help,
    Palette,
    Filter,
}

impl Context {
    /// The key of its title in the help page.
    pub fn title(self) -> &'static str {
        match self {
            Context::Global => "context.global",
            Context::Jobs => "context.jobs",
            Context::Wizard => "context.wizard",
            Context::Endpoints => "context.endpoints",
            Context::Policy => "context.policy",
            Context::Precheck => "context.precheck",
            Context::Dashboard => "context.dashboard",
            Context::Shards => "context.shards",
            Context::Events => "context.events",
            Context::Conflicts => "context.conflicts",
            Context::Detail => "context.detail",
            Context::Instances | Context::InstanceForm => "context.instances",
            Context::Account => "context.account",
            Context::Pick | Context::Confirm | Context::Help | Context::Palette | Context::Filter => "context.dialog",
            Context::Verify => "context.verify",
        }
    }
}

/// What a user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Top,
    Bottom,
    Enter,
    Toggle,
    Back,
    NextField,
    PreviousField,
    Quit,
    Interrupt,
    Suspend,
    Redraw,
    Help,
    Palette,
    Language,
    Theme,
    Mouse,
    StartEngine,
    NewJob,
    Configure,
    Open,
    PauseResume,
    Stop,
    CopyJob,
    Delete,
    Filter,
    Instances,
    Continue,
    Previous,
    Reveal,
    KeepInstance,
    AllDatabases,
    RerunOne,
    RerunFailed,
    RerunAll,
    Accept,
    AcceptAll,
    Shards,
    Events,
    Conflicts,
    Verify,
    Repair,
    Range,
    Precheck,
    Export,
    Severity,
    Add,
    Edit,
}

impl Action {
    /// Whether it changes something at the engine or in the folders; a read-only console refuses it.
    pub fn changes(self) -> bool {
        matches!(
            self,
            Action::NewJob
                | Action::Configure
                | Action::PauseResume
                | Action::Stop
                | Action::CopyJob
                | Action::Delete
                | Action::Verify
                | Action::Repair
                | Action::Precheck
                | Action::StartEngine
                | Action::Add
                | Action::Edit
                | Action::KeepInstance
                | Action::Instances
        )
    }
}

/// One key and what it does where.
#[derive(Debug)]
pub struct Binding {
    pub context: Context,
    /// As [`keys`] reads them without the angle brackets; the first is the one that is shown.
    pub keys: &'static [&'static str],
    pub action: Action,
    /// The locale key of its words, `action.*`.
    pub label: &'static str,
    /// Shown in the footer, in the order of the table.
    pub footer: bool,
    /// Listed in help and palette.
    pub listed: bool,
}

const fn shown(context: Context, keys: &'static [&'static str], action: Action, label: &'static str) -> Binding {
    Binding { context, keys, action, label, footer: true, listed: true }
}

const fn listed(context: Context, keys: &'static [&'static str], action: Action, label: &'static str) -> Binding {
    Binding { context, keys, action, label, footer: false, listed: true }
}

const fn silent(context: Context, keys: &'static [&'static str], action: Action) -> Binding {
    Binding { context, keys, action, label: "action.move", footer: false, listed: false }
}

use Action as A;
use Context as C;

pub static BINDINGS: &[Binding] = &[
    // the list of jobs
    shown(C::Jobs, &["ret"], A::Open, "action.open"),
    shown(C::Jobs, &["n"], A::NewJob, "action.new_job"),
    shown(C::Jobs, &["c"], A::Configure, "action.configure"),
    shown(C::Jobs, &["p"], A::PauseResume, "action.pause_resume"),
    shown(C::Jobs, &["x"], A::Stop, "action.stop"),
    shown(C::Jobs, &["/"], A::Filter, "action.filter"),
    listed(C::Jobs, &["y"], A::CopyJob, "action.copy"),
    listed(C::Jobs, &["D", "del"], A::Delete, "action.delete"),
    listed(C::Jobs, &["i"], A::Instances, "action.instances"),
    listed(C::Jobs, &["g"], A::StartEngine, "action.start_engine"),
    // the wizard
    shown(C::Endpoints, &["tab"], A::NextField, "action.next_field"),
    shown(C::Endpoints, &["ctrl-r"], A::Reveal, "action.reveal"),
    listed(C::Endpoints, &["ctrl-o"], A::KeepInstance, "action.keep_instance"),
    shown(C::Policy, &["tab"], A::NextField, "action.next_field"),
    shown(C::Policy, &["space"], A::Toggle, "action.toggle"),
    shown(C::Policy, &["a"], A::AllDatabases, "action.all_databases"),
    shown(C::Precheck, &["r"], A::RerunOne, "action.rerun_one"),
    shown(C::Precheck, &["f"], A::RerunFailed, "action.rerun_failed"),
    shown(C::Precheck, &["a"], A::RerunAll, "action.rerun_all"),
    shown(C::Precheck, &["w"], A::Accept, "action.accept"),
    listed(C::Precheck, &["W"], A::AcceptAll, "action.accept_all"),
    shown(C::Wizard, &["pgdn"], A::Continue, "action.continue"),
    shown(C::Wizard, &["esc"], A::Back, "action.leave"),
    shown(C::Wizard, &["pgup"], A::Previous, "action.previous"),
    silent(C::Wizard, &["tab"], A::NextField),
    silent(C::Wizard, &["backtab"], A::PreviousField),
    // the dashboard and what lies behind it
    shown(C::Dashboard, &["ret"], A::Enter, "action.details"),
    shown(C::Dashboard, &["s"], A::Shards, "action.shards"),
    shown(C::Dashboard, &["k"], A::Conflicts, "action.conflicts"),
    shown(C::Dashboard, &["e"], A::Events, "action.events"),
    shown(C::Dashboard, &["p"], A::PauseResume, "action.pause_resume"),
    shown(C::Dashboard, &["x"], A::Stop, "action.stop"),
    shown(C::Dashboard, &["v"], A::Verify, "action.verify"),
    shown(C::Dashboard, &["r"], A::Range, "action.range"),
    listed(C::Dashboard, &["c"], A::Configure, "action.configure_reverse"),
    listed(C::Dashboard, &["t"], A::Precheck, "action.precheck"),
    listed(C::Dashboard, &["g"], A::StartEngine, "action.start_engine"),
    listed(C::Dashboard, &["esc"], A::Back, "action.to_list"),
    shown(C::Detail, &["esc"], A::Back, "action.back"),
    silent(C::Detail, &["ret"], A::Back),
    shown(C::Shards, &["esc"], A::Back, "action.back"),
    shown(C::Events, &["/"], A::Filter, "action.filter"),
    shown(C::Events, &["f"], A::Severity, "action.severity"),
    shown(C::Events, &["w"], A::Export, "action.export"),
    shown(C::Events, &["esc"], A::Back, "action.back"),
    shown(C::Conflicts, &["r"], A::RerunAll, "action.refresh"),
    shown(C::Conflicts, &["esc"], A::Back, "action.back"),
    // dialogs
    shown(C::Instances, &["ret"], A::Enter, "action.edit"),
    shown(C::Instances, &["a", "n"], A::Add, "action.add"),
    shown(C::Instances, &["D", "del"], A::Delete, "action.remove"),
    shown(C::Instances, &["esc"], A::Back, "action.close"),
    shown(C::InstanceForm, &["tab"], A::NextField, "action.next_field"),
    silent(C::InstanceForm, &["backtab"], A::PreviousField),
    shown(C::InstanceForm, &["pgdn"], A::Continue, "action.save"),
    shown(C::InstanceForm, &["esc"], A::Back, "action.cancel"),
    shown(C::Pick, &["ret"], A::Enter, "action.choose"),
    shown(C::Pick, &["esc"], A::Back, "action.cancel"),
    silent(C::Pick, &["space"], A::Enter),
    shown(C::Confirm, &["ret"], A::Enter, "action.do_it"),
    shown(C::Confirm, &["esc"], A::Back, "action.cancel"),
    shown(C::Verify, &["R"], A::Repair, "action.repair"),
    shown(C::Verify, &["esc"], A::Back, "action.close"),
    shown(C::Account, &["ret"], A::Enter, "action.go_on"),
    shown(C::Account, &["ctrl-r"], A::Reveal, "action.reveal"),
    shown(C::Account, &["esc"], A::Back, "action.cancel"),
    silent(C::Account, &["tab"], A::NextField),
    silent(C::Account, &["backtab"], A::PreviousField),
    shown(C::Help, &["esc", "?"], A::Back, "action.close"),
    shown(C::Palette, &["ret"], A::Enter, "action.do_it"),
    shown(C::Palette, &["esc"], A::Back, "action.close"),
    silent(C::Palette, &["up"], A::Up),
    silent(C::Palette, &["down", "tab"], A::Down),
    shown(C::Filter, &["ret"], A::Enter, "action.keep_filter"),
    shown(C::Filter, &["esc"], A::Back, "action.clear_filter"),
    // everywhere
    shown(C::Global, &["?", "f1"], A::Help, "action.help"),
    shown(C::Global, &["q"], A::Quit, "action.quit"),
    listed(C::Global, &[":", "f2"], A::Palette, "action.palette"),
    listed(C::Global, &["L"], A::Language, "action.language"),
    listed(C::Global, &["T"], A::Theme, "action.theme"),
    listed(C::Global, &["M"], A::Mouse, "action.mouse"),
    listed(C::Global, &["ctrl-l"], A::Redraw, "action.redraw"),
    listed(C::Global, &["ctrl-z"], A::Suspend, "action.suspend"),
    listed(C::Global, &["ctrl-c"], A::Interrupt, "action.interrupt"),
    silent(C::Global, &["up"], A::Up),
    silent(C::Global, &["down", "j"], A::Down),
    silent(C::Global, &["left", "h"], A::Left),
    silent(C::Global, &["right", "l"], A::Right),
    silent(C::Global, &["pgup"], A::PageUp),
    silent(C::Global, &["pgdn"], A::PageDown),
    silent(C::Global, &["home"], A::Top),
    silent(C::Global, &["end"], A::Bottom),
    silent(C::Global, &["ret"], A::Enter),
    silent(C::Global, &["space"], A::Toggle),
    silent(C::Global, &["esc"], A::Back),
];

/// The binding of `key` in the innermost of `contexts` that has one.
pub fn lookup(contexts: &[Context], key: &KeyEvent, typing: bool) -> Option<&'static Binding> {
    if typing && is_printable(key) {
        return None;
    }
    contexts
        .iter()
        .find_map(|context| BINDINGS.iter().find(|b| b.context == *context && b.keys.iter().any(|k| matches(k, key))))
}

/// Whether the key writes a character.
pub fn is_printable(key: &KeyEvent) -> bool {
    matches!(key.code, KeyCode::Char(_)) && !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
}

fn matches(name: &str, key: &KeyEvent) -> bool {
    parse(name).is_some_and(|(code, modifiers)| {
        let same = match (code, key.code) {
            // a capital letter comes with or without SHIFT, as the terminal likes
            (KeyCode::Char(a), KeyCode::Char(b)) => a == b,
            (a, b) => a == b,
        };
        let ignored = KeyModifiers::SHIFT;
        same && key.modifiers.difference(ignored) == modifiers.difference(ignored)
    })
}

fn parse(name: &str) -> Option<(KeyCode, KeyModifiers)> {
    let (modifiers, base) = match name.split_once('-') {
        Some(("ctrl", base)) => (KeyModifiers::CONTROL, base),
        Some(("alt", base)) => (KeyModifiers::ALT, base),
        _ => (KeyModifiers::NONE, name),
    };
    let code = match base {
        "ret" => KeyCode::Enter,
        "esc" => KeyCode::Esc,
        "tab" => KeyCode::Tab,
        "backtab" => KeyCode::BackTab,
        "space" => KeyCode::Char(' '),
        "up" => KeyCode::Up,
        "down" => KeyCode::Down,
        "left" => KeyCode::Left,
        "right" => KeyCode::Right,
        "pgup" => KeyCode::PageUp,
        "pgdn" => KeyCode::PageDown,
        "home" => KeyCode::Home,
        "end" => KeyCode::End,
        "del" => KeyCode::Delete,
        "bs" => KeyCode::Backspace,
        "lt" => KeyCode::Char('<'),
        _ if base.len() > 1 && base.starts_with('f') => KeyCode::F(base[1..].parse().ok()?),
        _ => {
            let mut chars = base.chars();
            let c = chars.next()?;
            if chars.next().is_some() {
                return None;
            }
            KeyCode::Char(c)
        }
    };
    Some((code, modifiers))
}

/// How a key is written on the screen: `↵`, `^R`, `PgDn`.
pub fn display(name: &str) -> String {
    if let Some(base) = name.strip_prefix("ctrl-") {
        return format!("^{}", base.to_uppercase());
    }
    match name {
        "ret" => "↵".into(),
        "pgup" => "PgUp".into(),
        "pgdn" => "PgDn".into(),
        "up" => "↑".into(),
        "down" => "↓".into(),
        "left" => "←".into(),
        "right" => "→".into(),
        "del" => "Del".into(),
        _ if name.len() > 1 && name.starts_with('f') => name.to_uppercase(),
        _ => name.into(),
    }
}

/// The key events that a text of the form `<tab>127.0.0.1:6379<ret>` stands for; `<lt>` is `<`.
pub fn keys(text: &str) -> Vec<KeyEvent> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '<'
            && let Some((name, after)) = rest[1..].split_once('>')
            && let Some((code, modifiers)) = parse(name)
        {
            out.push(KeyEvent::new(code, modifiers));
            rest = after;
        } else {
            out.push(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE));
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_table_is_one_that_can_be_typed() {
        for b in BINDINGS {
            for k in b.keys {
                assert!(parse(k).is_some(), "{k}");
                // taken by screen, tmux and flow control
                assert!(!["ctrl-a", "ctrl-b", "ctrl-s", "ctrl-q", "ctrl-p"].contains(k), "{k}");
            }
        }
    }

    #[test]
    fn no_context_gives_a_key_two_meanings() {
        for (i, a) in BINDINGS.iter().enumerate() {
            for b in &BINDINGS[i + 1..] {
                if a.context == b.context && a.action != b.action {
                    assert!(!a.keys.iter().any(|k| b.keys.contains(k)), "{:?} and {:?}", a, b);
                }
            }
        }
    }

    #[test]
    fn a_field_keeps_printable_keys() {
        let q = keys("q")[0];
        assert!(lookup(&[Context::Jobs, Context::Global], &q, true).is_none());
        assert_eq!(lookup(&[Context::Jobs, Context::Global], &q, false).map(|b| b.action), Some(Action::Quit));
        let f1 = keys("<f1>")[0];
        assert_eq!(lookup(&[Context::Global], &f1, true).map(|b| b.action), Some(Action::Help));
    }

    #[test]
    fn typed_text_becomes_keys() {
        let typed = keys("<tab>a:b<lt><ctrl-r><ret>");
        assert_eq!(typed.len(), 7);
        assert_eq!(typed[4].code, KeyCode::Char('<'));
        assert_eq!(typed[5], KeyEvent::new(KeyCode::Char('r'), KeyModifiers::CONTROL));
    }
}
