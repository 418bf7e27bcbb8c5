//! What the console knows and shows. No I/O, no clock of its own: time comes with `Msg::Tick`.

use super::{
    dashboard::Dashboard,
    effect::Effect,
    i18n::Lang,
    jobs::JobList,
    keymap::Context,
    overlay::Overlay,
    store::Stored,
    theme::{Theme, ThemeName, Tone},
    wizard::{Form, Wizard},
};
use crate::{
    control::protocol::Failure,
    model::{EngineStatus, JobStatus, Side},
};

/// How long a message at the foot stays, in milliseconds.
const TOAST_MS: u64 = 8_000;

#[derive(Debug)]
pub struct App {
    pub lang: Lang,
    pub theme: Theme,
    /// The terminal or the locale shows no more than ASCII.
    pub ascii: bool,
    pub readonly: bool,
    pub mouse: bool,
    /// Columns and rows of the terminal, for clicks.
    pub size: (u16, u16),
    /// For the times of events.
    pub zone: jiff::tz::TimeZone,
    /// Milliseconds since the Unix epoch, at the last tick.
    pub now_ms: u64,
    pub engine: EngineState,
    pub status: Option<EngineStatus>,
    pub screen: Screen,
    /// The topmost is the last.
    pub overlays: Vec<Overlay>,
    pub toast: Option<Toast>,
    pub jobs: JobList,
    pub stored: Stored,
    /// Ctrl-C was pressed once.
    pub interrupted: bool,
    /// Counts probes and prechecks, so that a late answer is known as one.
    pub run: u32,
    /// Where the console's files lie: shown in the summary of the wizard.
    pub config: String,
    /// Open this job's dashboard once it is known.
    pub open_first: Option<String>,
}

#[derive(Debug)]
pub enum Screen {
    Jobs,
    Wizard(Box<Wizard>),
    Dashboard(Box<Dashboard>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum EngineState {
    Connecting,
    Starting,
    Up { pid: u32, version: String },
    Down { since_ms: u64, why: String },
    Refused(Failure),
}

/// A message at the foot of the screen.
#[derive(Debug, Clone, PartialEq)]
pub struct Toast {
    pub text: String,
    pub tone: Tone,
    pub until_ms: u64,
}

impl App {
    pub fn new(lang: Lang, theme: ThemeName) -> App {
        App {
            lang,
            theme: Theme::new(theme),
            ascii: false,
            readonly: false,
            mouse: false,
            size: (80, 24),
            zone: jiff::tz::TimeZone::UTC,
            now_ms: 0,
            engine: EngineState::Connecting,
            status: None,
            screen: Screen::Jobs,
            overlays: Vec::new(),
            toast: None,
            jobs: JobList::default(),
            stored: Stored::default(),
            interrupted: false,
            run: 0,
            config: "~/.config/duplex".into(),
            open_first: None,
        }
    }

    /// The contexts whose keys hold now, the innermost first, and whether a field has the focus.
    pub fn contexts(&self) -> (Vec<Context>, bool) {
        if let Some(overlay) = self.overlays.last() {
            return (vec![overlay.context(), Context::Global], overlay.is_typing());
        }
        let typing = match &self.screen {
            Screen::Jobs => self.jobs.filtering,
            Screen::Wizard(w) => w.is_typing(),
            Screen::Dashboard(d) => d.filtering,
        };
        (self.screen_contexts(), typing)
    }

    /// The contexts of the screen under all dialogs.
    pub fn screen_contexts(&self) -> Vec<Context> {
        match &self.screen {
            Screen::Jobs if self.jobs.filtering => vec![Context::Filter, Context::Global],
            Screen::Jobs => vec![Context::Jobs, Context::Global],
            Screen::Wizard(w) => {
                let mut contexts: Vec<_> = w.context().into_iter().collect();
                contexts.extend([Context::Wizard, Context::Global]);
                contexts
            }
            Screen::Dashboard(d) if d.filtering => vec![Context::Filter, Context::Global],
            Screen::Dashboard(d) => vec![d.context(), Context::Global],
        }
    }

    pub fn job(&self, name: &str) -> Option<&JobStatus> {
        self.status.as_ref()?.jobs.iter().find(|j| j.name == name)
    }

    /// Whether the status on the screen is old: the engine was there, and is not now.
    pub fn is_stale(&self) -> bool {
        self.status.is_some() && !self.is_up()
    }

    pub fn is_up(&self) -> bool {
        matches!(self.engine, EngineState::Up { .. })
    }

    /// Says something at the foot of the screen.
    pub fn say(&mut self, text: impl Into<String>, tone: Tone) {
        self.toast = Some(Toast { text: text.into(), tone, until_ms: self.now_ms + TOAST_MS });
    }

    /// Language and theme as they are now, to be found at the next start.
    pub fn settings(&self) -> Effect {
        Effect::SaveSettings {
            lang: if self.lang == Lang::ZhCn { "zh-CN".into() } else { "en".into() },
            theme: self.theme.name.as_str().into(),
        }
    }

    /// The form that a pick is for.
    pub fn form(&self, at: FormAt) -> Option<&Form> {
        match (at, &self.screen) {
            (FormAt::Side(side), Screen::Wizard(w)) => Some(&w.sides[side.index()]),
            (FormAt::Inventory, _) => self.overlays.iter().rev().find_map(|o| match o {
                Overlay::InstanceForm(form) => Some(&form.form),
                _ => None,
            }),
            _ => None,
        }
    }

    pub fn form_mut(&mut self, at: FormAt) -> Option<&mut Form> {
        match (at, &mut self.screen) {
            (FormAt::Side(side), Screen::Wizard(w)) => Some(&mut w.sides[side.index()]),
            (FormAt::Inventory, _) => self.overlays.iter_mut().rev().find_map(|o| match o {
                Overlay::InstanceForm(form) => Some(&mut form.form),
                _ => None,
            }),
            _ => None,
        }
    }

    pub fn dashboard_mut(&mut self) -> Option<&mut Dashboard> {
        match &mut self.screen {
            Screen::Dashboard(d) => Some(d),
            _ => None,
        }
    }

    pub fn wizard_mut(&mut self) -> Option<&mut Wizard> {
        match &mut self.screen {
            Screen::Wizard(w) => Some(w),
            _ => None,
        }
    }
}

/// Which form of an instance is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormAt {
    Side(Side),
    Inventory,
}
