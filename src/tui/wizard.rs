//! The wizard that configures a link: its answers, which step is shown, which part has the focus.
//!
//! Back keeps every answer. What the wizard knows can be written down as a [`Draft`] at any moment; secrets stay in
//! this struct alone until the engine gets them.

pub mod endpoints;
pub mod form;
pub mod initialization;
pub mod launch;
pub mod policy;
pub mod precheck;

pub use form::{Dialled, Form, FormSlot};

use super::{
    keymap::Context,
    store::{AccountFrom, Draft, is_name},
    widget::{field::Field, list::Cursor},
};
use crate::model::{AccountSource, Databases, ExistingKeys, Job, Limits, Policy, Side};
use precheck::Pane;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Endpoints,
    Policy,
    Initialization,
    Precheck,
    /// Part of step 4: the summary, and the reverse link proposed.
    Launch,
}

impl Step {
    /// As the header counts: 1 to 4.
    pub fn number(self) -> u8 {
        match self {
            Step::Endpoints => 1,
            Step::Policy => 2,
            Step::Initialization => 3,
            Step::Precheck | Step::Launch => 4,
        }
    }

    pub fn previous(self) -> Option<Step> {
        Some(match self {
            Step::Endpoints => return None,
            Step::Policy => Step::Endpoints,
            Step::Initialization => Step::Policy,
            Step::Precheck => Step::Initialization,
            Step::Launch => Step::Precheck,
        })
    }
}

/// One part of the wizard that can have the focus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    Name,
    Form(Side, FormSlot),
    Existing,
    Available,
    Selected,
    TwoWay,
    Flush,
    Resnapshot,
    ShowValues,
    MaxOps,
    Items,
    Reverse,
    Secrets,
    /// Throw away what an earlier run left behind.
    Discard,
    /// The job's name once more, where data of the target could be overwritten.
    Confirm,
    Back,
    Continue,
}

#[derive(Debug)]
pub struct Wizard {
    pub step: Step,
    pub slot: Slot,
    pub name: Field,
    /// Source and target.
    pub sides: [Form; 2],
    pub reveal: bool,
    pub name_fault: Option<&'static str>,
    pub existing: ExistingKeys,
    /// `None` is all databases, those to come included.
    pub databases: Option<Vec<u32>>,
    pub available: Cursor,
    pub selected: Cursor,
    pub two_way: bool,
    pub forward_flush: bool,
    pub allow_resnapshot: bool,
    pub show_values: bool,
    pub max_ops: Field,
    pub precheck: Pane,
    pub write_secrets: bool,
    pub discard_previous: bool,
    /// The job has failed: beginning anew is offered whether or not anything was left behind.
    pub may_discard: bool,
    pub confirm: Field,
    pub launching: Launching,
    /// The probes that are waited for belong to this run.
    pub run: u32,
    /// Under this name the draft was saved before, if it was.
    pub saved_as: Option<String>,
    pub purpose: Purpose,
    /// The running job was stopped so that it can begin anew both ways.
    pub stopped: bool,
}

/// What the wizard was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// A new job, a draft, or one that does not run.
    #[default]
    Configure,
    /// The reverse link of a job whose forward link runs.
    Reverse,
    /// The precheck of a job that runs.
    Look,
}

/// From the button to the links' start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Launching {
    #[default]
    No,
    /// The job that runs one way ends first.
    Stopping,
    WritingFile,
    /// The engine prechecks once more and starts the links.
    Starting,
    Failed(String),
}

impl Default for Wizard {
    fn default() -> Self {
        Wizard {
            step: Step::Endpoints,
            slot: Slot::Name,
            name: Field::default(),
            sides: Default::default(),
            reveal: false,
            name_fault: None,
            existing: ExistingKeys::Block,
            databases: None,
            available: Cursor::default(),
            selected: Cursor::default(),
            two_way: true,
            forward_flush: false,
            allow_resnapshot: false,
            show_values: false,
            max_ops: Field::default(),
            precheck: Pane::default(),
            write_secrets: false,
            discard_previous: false,
            may_discard: false,
            confirm: Field::default(),
            launching: Launching::No,
            run: 0,
            saved_as: None,
            purpose: Purpose::Configure,
            stopped: false,
        }
    }
}

impl Wizard {
    /// A new one with a proposed name, the focus on the first answer that is needed.
    pub fn new(name: String) -> Wizard {
        Wizard { name: Field::new(name), slot: Slot::Form(Side::Source, FormSlot::Instance), ..Wizard::default() }
    }

    /// As it was left. Typed accounts are asked for again, so it begins at the first step.
    pub fn resume(draft: &Draft) -> Wizard {
        let mut wizard = Wizard {
            name: Field::new(&draft.name),
            sides: [Form::from_saved(&draft.source), Form::from_saved(&draft.target)],
            existing: draft.existing_keys,
            databases: Some(draft.databases.clone()).filter(|d| !d.is_empty()),
            two_way: draft.two_way,
            forward_flush: draft.forward_flush,
            allow_resnapshot: draft.allow_resnapshot,
            show_values: draft.show_values,
            saved_as: Some(draft.name.clone()),
            ..Wizard::default()
        };
        if draft.max_ops_per_second > 0 {
            wizard.max_ops.set(draft.max_ops_per_second.to_string());
        }
        wizard.slot = wizard.first_open();
        wizard
    }

    /// The answers of a job that the engine told of.
    pub fn from_job(job: &Job, name: String) -> Wizard {
        let mut wizard = Wizard {
            name: Field::new(name),
            sides: [Form::from_instance(&job.source), Form::from_instance(&job.target)],
            existing: job.policy.existing_keys,
            databases: match &job.policy.databases {
                Databases::All => None,
                Databases::Only(list) => Some(list.clone()),
            },
            two_way: job.policy.two_way,
            forward_flush: job.policy.forward_flush,
            allow_resnapshot: job.policy.allow_resnapshot,
            show_values: job.policy.show_values,
            ..Wizard::default()
        };
        if job.limits.max_ops_per_second > 0 {
            wizard.max_ops.set(job.limits.max_ops_per_second.to_string());
        }
        wizard.slot = wizard.first_open();
        wizard
    }

    /// The answers of a job that the engine knows, to be changed: the accounts that it holds need not be typed again.
    pub fn of_known(job: &Job, name: String) -> Wizard {
        let mut wizard = Wizard::from_job(job, name);
        for (side, instance) in wizard.sides.iter_mut().zip([&job.source, &job.target]) {
            let typed = |account: &AccountSource| matches!(account, AccountSource::Inline(_));
            (side.held, side.sentinel_held) = (typed(&instance.account), typed(&instance.sentinel_account));
        }
        wizard.slot = wizard.first_open();
        wizard
    }

    /// The engine was started anew since: accounts that it was not to keep have to be typed again.
    pub fn holds_nothing_unkept(&mut self) {
        for side in &mut self.sides {
            side.held &= side.account_from != AccountFrom::Unkept;
            side.sentinel_held &= side.sentinel_from != AccountFrom::Unkept;
        }
    }

    /// Whether it is asked what is to be done with what an earlier run left.
    pub fn asks_to_discard(&self) -> bool {
        self.may_discard || self.precheck.left_behind()
    }

    /// The first answer of step 1 that is missing: after a resume mostly a password.
    pub fn first_open(&self) -> Slot {
        for side in Side::BOTH {
            let form = &self.sides[side.index()];
            if let Some((slot, _)) = form.check() {
                return Slot::Form(side, slot);
            }
            if form.lacks_account() {
                return Slot::Form(side, FormSlot::Account);
            }
        }
        Slot::Continue
    }

    /// Everything but the secrets.
    pub fn draft(&self) -> Draft {
        Draft {
            name: self.name.value().trim().to_owned(),
            step: self.step.number(),
            existing_keys: self.existing,
            databases: self.databases.clone().unwrap_or_default(),
            two_way: self.two_way,
            forward_flush: self.forward_flush,
            allow_resnapshot: self.allow_resnapshot,
            show_values: self.show_values,
            max_ops_per_second: self.max_ops_value().unwrap_or(0),
            source: self.sides[0].to_saved(),
            target: self.sides[1].to_saved(),
        }
    }

    /// Whether anything was answered that is worth a draft.
    pub fn is_worth_keeping(&self) -> bool {
        is_name(self.name.value().trim())
            && (self.saved_as.is_some() || self.sides.iter().any(|s| !s.address.value().trim().is_empty()))
    }

    /// The job that the answers describe, its accounts included.
    pub fn job(&self) -> Job {
        Job {
            name: self.name.value().trim().to_owned(),
            source: self.sides[0].instance(),
            target: self.sides[1].instance(),
            policy: Policy {
                existing_keys: self.existing,
                databases: match &self.databases {
                    None => Databases::All,
                    Some(list) => Databases::Only(list.clone()),
                },
                two_way: self.two_way,
                forward_flush: self.forward_flush,
                allow_resnapshot: self.allow_resnapshot,
                show_values: self.show_values,
            },
            limits: Limits { max_ops_per_second: self.max_ops_value().unwrap_or(0), ..Limits::default() },
        }
    }

    /// `None` where what was typed is no number.
    pub fn max_ops_value(&self) -> Option<u64> {
        let text = self.max_ops.value().trim();
        if text.is_empty() { Some(0) } else { text.parse().ok() }
    }

    pub fn form(&self, side: Side) -> &Form {
        &self.sides[side.index()]
    }

    pub fn context(&self) -> Option<Context> {
        match self.step {
            Step::Endpoints => Some(Context::Endpoints),
            Step::Policy => Some(Context::Policy),
            Step::Precheck => Some(Context::Precheck),
            Step::Initialization | Step::Launch => None,
        }
    }

    /// The parts of the present step, in the order of the tab key.
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots = match self.step {
            Step::Endpoints => {
                // a job that is known keeps its name
                let mut slots = if self.purpose == Purpose::Configure { vec![Slot::Name] } else { Vec::new() };
                for side in Side::BOTH {
                    slots.extend(self.form(side).slots(false).into_iter().map(|s| Slot::Form(side, s)));
                }
                slots
            }
            Step::Policy => vec![Slot::Existing, Slot::Available, Slot::Selected],
            Step::Initialization => vec![Slot::TwoWay, Slot::Flush, Slot::Resnapshot, Slot::ShowValues, Slot::MaxOps],
            Step::Precheck => vec![Slot::Items],
            Step::Launch => {
                let mut slots = if self.purpose == Purpose::Reverse { Vec::new() } else { vec![Slot::Reverse] };
                if self.has_secrets() {
                    slots.push(Slot::Secrets);
                }
                if self.asks_to_discard() {
                    slots.push(Slot::Discard);
                }
                if self.overwrites() {
                    slots.push(Slot::Confirm);
                }
                slots
            }
        };
        if self.step != Step::Endpoints && self.purpose != Purpose::Look {
            slots.push(Slot::Back);
        }
        slots.push(Slot::Continue);
        slots
    }

    /// Moves the focus by one, around the ends.
    pub fn step_slot(&mut self, forward: bool) {
        let slots = self.slots();
        let at = slots.iter().position(|s| *s == self.slot).unwrap_or(0);
        let next = if forward { at + 1 } else { at + slots.len() - 1 };
        self.slot = slots[next % slots.len()];
    }

    /// Shows a step, the focus on its first part.
    pub fn show(&mut self, step: Step) {
        self.step = step;
        self.slot = match step {
            Step::Endpoints => self.first_open(),
            Step::Launch => Slot::Continue,
            _ => self.slots()[0],
        };
    }

    pub fn is_typing(&self) -> bool {
        self.typed().is_some()
    }

    fn typed(&self) -> Option<()> {
        match self.slot {
            Slot::Name | Slot::MaxOps | Slot::Confirm => Some(()),
            Slot::Form(_, slot) if !slot.is_choice() => Some(()),
            _ => None,
        }
    }

    /// The field that has the focus.
    pub fn field_mut(&mut self) -> Option<&mut Field> {
        match self.slot {
            Slot::Name => Some(&mut self.name),
            Slot::MaxOps => Some(&mut self.max_ops),
            Slot::Confirm => Some(&mut self.confirm),
            Slot::Form(side, slot) => self.sides[side.index()].field_mut(slot),
            _ => None,
        }
    }

    /// Whether a typed account would have to go into the job file for `start NAME` to work without the console.
    pub fn has_secrets(&self) -> bool {
        use super::store::AccountFrom::Typed;
        self.sides.iter().any(|s| {
            (s.account_from == Typed && !s.account.is_empty())
                || (s.slots(false).contains(&FormSlot::SentinelAccount)
                    && s.sentinel_from == Typed
                    && !s.sentinel_account.is_empty())
        })
    }

    /// Whether the job can't go on by itself after a restart of the engine, since an account is kept nowhere.
    pub fn has_unkept(&self) -> bool {
        self.job().unkept_accounts().next().is_some()
    }

    /// Whether keys of the target can be overwritten by what was chosen.
    pub fn overwrites(&self) -> bool {
        self.existing != ExistingKeys::Block && self.target_keys() != Some(0)
    }

    /// Keys in the selected databases of the target; `None` where it was not dialled.
    pub fn target_keys(&self) -> Option<u64> {
        let probe = self.form(Side::Target).probe()?;
        Some(
            probe
                .databases
                .iter()
                .filter(|(db, _)| self.databases.as_ref().is_none_or(|list| list.contains(db)))
                .map(|(_, keys)| keys)
                .sum(),
        )
    }
}

/// A name that is not taken: `sync-2026-11-22`, then with `-2`, `-3`.
pub fn propose_name(now_ms: u64, zone: &jiff::tz::TimeZone, taken: impl Fn(&str) -> bool) -> String {
    let date = jiff::Timestamp::from_millisecond(now_ms as i64)
        .map(|t| t.to_zoned(zone.clone()).strftime("%Y-%m-%d").to_string())
        .unwrap_or_else(|_| "1".into());
    let base = format!("sync-{date}");
    if !taken(&base) {
        return base;
    }
    (2..).map(|n| format!("{base}-{n}")).find(|name| !taken(name)).unwrap_or(base)
}
