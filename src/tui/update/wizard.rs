//! Keys in the wizard, and what its steps need of the engine.

use super::super::{
    app::{App, FormAt, Screen},
    effect::Effect,
    keymap::Action,
    msg::Act,
    msg::Tag,
    overlay::{Overlay, instances::InstanceForm},
    store::is_name,
    theme::Tone,
    wizard::{Dialled, Form, FormSlot, Launching, Purpose, Slot, Step, Wizard, policy::EXISTING},
};
use crate::{
    control::protocol::Request,
    model::{CheckId, CheckState, LinkState, Side, job::file},
};

impl Wizard {
    /// The text of a slot changed: what was known because of it holds no longer.
    pub fn edited(&mut self, slot: Slot) {
        match slot {
            Slot::Name => self.name_fault = None,
            Slot::Form(side, part) => {
                let form = &mut self.sides[side.index()];
                form.touched();
                if part == FormSlot::Address {
                    form.chosen = None;
                    form.id.set("");
                    form.region.set("");
                }
            }
            _ => {}
        }
        if !matches!(self.launching, Launching::Stopping | Launching::Starting) {
            self.launching = Launching::No;
        }
    }
}

pub fn act(app: &mut App, action: Action) -> Vec<Effect> {
    let Screen::Wizard(w) = &mut app.screen else { return Vec::new() };
    let busy = matches!(w.launching, Launching::Stopping | Launching::WritingFile | Launching::Starting);
    if busy && !matches!(action, Action::Back) {
        return Vec::new();
    }
    match action {
        Action::NextField => w.step_slot(true),
        Action::PreviousField => w.step_slot(false),
        Action::Up => vertical(w, -1),
        Action::Down => vertical(w, 1),
        Action::PageUp | Action::Previous => return previous(app),
        Action::PageDown | Action::Continue => return go_on(app),
        Action::Left => return horizontal(app, -1),
        Action::Right => return horizontal(app, 1),
        Action::Enter => return enter(app),
        Action::Toggle => return toggle(app),
        Action::Reveal => w.reveal = !w.reveal,
        Action::KeepInstance => keep_instance(app),
        Action::AllDatabases => w.toggle_all(),
        Action::RerunOne => {
            if let Some(id) = w.precheck.selected().map(|c| c.id) {
                return precheck(app, Some(vec![id]));
            }
        }
        Action::RerunFailed => {
            let failed = w.precheck.failed();
            if failed.is_empty() {
                app.say(app.lang.t("precheck.none_failed"), Tone::Plain);
            } else {
                return precheck(app, Some(failed));
            }
        }
        Action::RerunAll => return precheck(app, None),
        Action::Accept => accept(app),
        Action::AcceptAll => {
            let pane = &mut w.precheck;
            pane.accepted.extend(pane.items.iter().filter(|c| c.state == CheckState::Warning).map(|c| c.id));
        }
        Action::Back => return leave(app),
        _ => {}
    }
    Vec::new()
}

fn vertical(w: &mut Wizard, by: isize) {
    match w.slot {
        Slot::Existing => {
            let at = EXISTING.iter().position(|(e, ..)| *e == w.existing).unwrap_or(0) as isize + by;
            match usize::try_from(at).ok().and_then(|at| EXISTING.get(at)) {
                Some((value, ..)) => {
                    w.existing = *value;
                    w.confirm.set("");
                }
                None => w.step_slot(by > 0),
            }
        }
        Slot::TwoWay => {
            if w.two_way == (by > 0) {
                w.two_way = !w.two_way;
            } else {
                w.step_slot(by > 0);
            }
        }
        Slot::Available => {
            let len = w.available_databases().len();
            if !w.available.step(by, len) {
                w.step_slot(by > 0);
            }
        }
        Slot::Selected => {
            let len = w.selected_databases().len();
            if !w.selected.step(by, len) {
                w.step_slot(by > 0);
            }
        }
        Slot::Items => {
            w.precheck.moved = true;
            let len = w.precheck.items.len();
            w.precheck.cursor.step(by, len);
        }
        _ => w.step_slot(by > 0),
    }
}

fn horizontal(app: &mut App, by: isize) -> Vec<Effect> {
    let Screen::Wizard(w) = &mut app.screen else { return Vec::new() };
    match w.slot {
        Slot::Form(side, slot) if slot.is_choice() => super::overlay::cycle(app, FormAt::Side(side), slot, by),
        Slot::Available if by > 0 => {
            if w.available_databases().is_empty() {
                w.slot = Slot::Selected
            } else {
                w.transfer()
            }
        }
        Slot::Selected if by < 0 => w.transfer(),
        Slot::Available => {}
        Slot::Back | Slot::Continue => w.step_slot(by > 0),
        _ => {}
    }
    Vec::new()
}

fn enter(app: &mut App) -> Vec<Effect> {
    let Screen::Wizard(w) = &mut app.screen else { return Vec::new() };
    match w.slot {
        Slot::Form(side, slot) if slot.is_choice() => super::overlay::open_pick(app, FormAt::Side(side), slot),
        Slot::Available | Slot::Selected => w.transfer(),
        Slot::Flush | Slot::Resnapshot | Slot::ShowValues | Slot::Secrets | Slot::Discard | Slot::Reverse => {
            return toggle(app);
        }
        Slot::Back => return previous(app),
        Slot::Continue => return go_on(app),
        Slot::Items => w.slot = Slot::Continue,
        Slot::Name | Slot::Existing | Slot::TwoWay | Slot::MaxOps | Slot::Confirm | Slot::Form(..) => w.step_slot(true),
    }
    Vec::new()
}

fn toggle(app: &mut App) -> Vec<Effect> {
    let Screen::Wizard(w) = &mut app.screen else { return Vec::new() };
    match w.slot {
        Slot::Form(side, slot) if slot.is_choice() => super::overlay::open_pick(app, FormAt::Side(side), slot),
        Slot::Existing => {
            let at = EXISTING.iter().position(|(e, ..)| *e == w.existing).unwrap_or(0);
            w.existing = EXISTING[(at + 1) % EXISTING.len()].0;
            w.confirm.set("");
        }
        Slot::Available | Slot::Selected => w.transfer(),
        Slot::TwoWay | Slot::Reverse => w.two_way = !w.two_way,
        Slot::Flush => w.forward_flush = !w.forward_flush,
        Slot::Resnapshot => w.allow_resnapshot = !w.allow_resnapshot,
        Slot::ShowValues => w.show_values = !w.show_values,
        Slot::Secrets => w.write_secrets = !w.write_secrets,
        Slot::Discard => w.discard_previous = !w.discard_previous,
        Slot::Items => accept(app),
        Slot::Back => return previous(app),
        Slot::Continue => return go_on(app),
        Slot::Name | Slot::MaxOps | Slot::Confirm | Slot::Form(..) => {}
    }
    Vec::new()
}

/// After a choice the focus goes on where the answer asks for more.
pub fn after_pick(app: &mut App, form: FormAt, slot: FormSlot) {
    let FormAt::Side(side) = form else { return };
    let Screen::Wizard(w) = &mut app.screen else { return };
    if slot == FormSlot::Instance
        && w.form(side).chosen.is_some()
        && w.form(side).slots(false).contains(&FormSlot::Account)
    {
        w.slot = Slot::Form(side, FormSlot::Account);
    } else {
        w.step_slot(true);
    }
}

fn accept(app: &mut App) {
    let Screen::Wizard(w) = &mut app.screen else { return };
    let Some((id, state)) = w.precheck.selected().map(|c| (c.id, c.state)) else { return };
    if state == CheckState::Warning {
        if !w.precheck.accepted.remove(&id) {
            w.precheck.accepted.insert(id);
        }
    } else {
        app.say(
            app.lang.t(if state == CheckState::Failed {
                "precheck.failed_blocks"
            } else {
                "precheck.nothing_to_accept"
            }),
            Tone::Plain,
        );
    }
}

/// Offers to keep the instance that was typed in the inventory.
fn keep_instance(app: &mut App) {
    let Screen::Wizard(w) = &app.screen else { return };
    let side = match w.slot {
        Slot::Form(side, _) => side,
        _ => Side::Source,
    };
    let saved = w.form(side).to_saved();
    let known = app.stored.inventory.instances.iter().any(|s| s.id == saved.id);
    let was = known.then(|| saved.id.clone());
    app.overlays.push(Overlay::InstanceForm(Box::new(InstanceForm::new(Form::from_saved(&saved), was))));
}

/// Leaves the wizard; its answers are kept as a draft.
fn leave(app: &mut App) -> Vec<Effect> {
    let Screen::Wizard(w) = &app.screen else { return Vec::new() };
    let mut effects = vec![Effect::Cancel(Tag::Precheck { run: w.precheck.run })];
    if w.purpose == Purpose::Look {
        let name = w.name.value().to_owned();
        let passed = !w.precheck.running && w.precheck.failure.is_none() && w.precheck.count(CheckState::Failed) == 0;
        let waits = app.job(&name).is_some_and(|j| {
            matches!(j.state, LinkState::Failed | LinkState::PrecheckFailed | LinkState::NotConfigured)
        });
        effects.extend(super::dashboard::open(app, name));
        if passed && waits {
            app.say(app.lang.t("precheck.now_start"), Tone::Good);
        }
        return effects;
    }
    let starting = w.launching == Launching::Starting;
    let (stopping, name) = (w.launching == Launching::Stopping, w.name.value().trim().to_owned());
    if w.is_worth_keeping() && !starting {
        let kept = keep(app);
        if !kept.is_empty() {
            app.say(app.lang.t("wizard.kept"), Tone::Plain);
        }
        effects.extend(kept);
    }
    if stopping {
        app.say(app.lang.f("launch.left_while_stopping", &[("name", &name)]), Tone::Warn);
    }
    app.screen = Screen::Jobs;
    effects
}

/// Writes the draft down; one that was kept under another name goes.
fn keep(app: &mut App) -> Vec<Effect> {
    let Screen::Wizard(w) = &mut app.screen else { return Vec::new() };
    let draft = w.draft();
    if !is_name(&draft.name) || app.status.iter().flat_map(|s| &s.jobs).any(|j| j.name == draft.name) {
        return Vec::new();
    }
    let mut effects = Vec::new();
    if let Some(old) = w.saved_as.replace(draft.name.clone()).filter(|old| *old != draft.name) {
        app.stored.drafts.retain(|d| d.name != old);
        effects.push(Effect::DeleteDraft(old));
    }
    app.stored.drafts.retain(|d| d.name != draft.name);
    app.stored.drafts.push(draft.clone());
    effects.push(Effect::SaveDraft(Box::new(draft)));
    effects
}

fn previous(app: &mut App) -> Vec<Effect> {
    let Screen::Wizard(w) = &mut app.screen else { return Vec::new() };
    if w.purpose == Purpose::Look {
        return leave(app);
    }
    if let Some(step) = w.step.previous() {
        w.show(step);
        if step != Step::Endpoints {
            w.slot = w.slots()[0];
        }
    }
    Vec::new()
}

/// The button that goes on: checks the answers of the step, then shows the next one.
fn go_on(app: &mut App) -> Vec<Effect> {
    let Screen::Wizard(w) = &mut app.screen else { return Vec::new() };
    match w.step {
        Step::Endpoints => authorize(app),
        Step::Policy => {
            if w.databases.as_ref().is_some_and(Vec::is_empty) {
                w.slot = Slot::Available;
                app.say(app.lang.t("fault.databases"), Tone::Warn);
                return Vec::new();
            }
            w.show(Step::Initialization);
            keep(app)
        }
        Step::Initialization => {
            if w.max_ops_value().is_none() {
                w.slot = Slot::MaxOps;
                return Vec::new();
            }
            w.show(Step::Precheck);
            let mut effects = keep(app);
            effects.extend(precheck_if_needed(app));
            effects
        }
        Step::Precheck if w.purpose == Purpose::Look => leave(app),
        Step::Precheck => {
            if let Some(key) = w.precheck.obstacle() {
                app.say(app.lang.t(key), Tone::Warn);
                return Vec::new();
            }
            w.show(Step::Launch);
            Vec::new()
        }
        Step::Launch => launch(app),
    }
}

/// *Authorize and continue*: dials both sides.
fn authorize(app: &mut App) -> Vec<Effect> {
    let up = app.is_up();
    let Screen::Wizard(w) = &mut app.screen else { return Vec::new() };
    let name = w.name.value().trim().to_owned();
    let known = app.status.iter().flat_map(|s| &s.jobs).find(|j| j.name == name);
    let free = known.is_none_or(|j| w.purpose != Purpose::Configure || !j.links.iter().any(|l| is_running(l.state)))
        && !app.stored.drafts.iter().any(|d| d.name == name && w.saved_as.as_ref() != Some(&d.name));
    w.name_fault = match (is_name(&name), free) {
        (false, _) => Some("fault.name"),
        (_, false) => Some("fault.name_taken"),
        _ => None,
    };
    if w.name_fault.is_some() {
        w.slot = Slot::Name;
        return Vec::new();
    }
    let mut first = None;
    for side in Side::BOTH {
        let form = &mut w.sides[side.index()];
        form.fault = form.check();
        if first.is_none() {
            first = form.fault.map(|(slot, _)| Slot::Form(side, slot));
        }
    }
    if let Some(slot) = first {
        w.slot = slot;
        return Vec::new();
    }
    if w.sides.iter().all(|s| s.probe().is_some()) {
        w.show(Step::Policy);
        return keep(app);
    }
    if !up {
        app.say(app.lang.t("engine.needed"), Tone::Warn);
        return Vec::new();
    }
    app.run += 1;
    w.run = app.run;
    let run = app.run;
    let mut effects = Vec::new();
    for side in Side::BOTH {
        let form = &mut w.sides[side.index()];
        if form.probe().is_none() {
            form.dialled = Dialled::Now;
            let instance = Box::new(form.instance());
            let of = form.held.then(|| name.clone());
            effects.push(Effect::send(Tag::Probe { side, run }, Request::Probe { instance, of }));
        }
    }
    effects.extend(keep(app));
    effects
}

fn is_running(state: crate::model::LinkState) -> bool {
    use crate::model::LinkState as L;
    !matches!(state, L::NotConfigured | L::PrecheckFailed | L::Failed | L::Ended)
}

/// Both sides were dialled: goes on when both were reached.
pub fn dialled(app: &mut App) -> Vec<Effect> {
    let Screen::Wizard(w) = &mut app.screen else { return Vec::new() };
    if w.sides.iter().any(|s| s.dialled == Dialled::Now) {
        return Vec::new();
    }
    if w.step == Step::Endpoints && w.sides.iter().all(|s| s.probe().is_some()) {
        w.show(Step::Policy);
        return keep(app);
    }
    // the first that failed is the next to be answered: mostly the account
    let failed = Side::BOTH.into_iter().find(|s| matches!(w.form(*s).dialled, Dialled::Failed(_)));
    if let (Step::Endpoints, Some(side)) = (w.step, failed) {
        let there = matches!(w.slot, Slot::Form(at, _) if matches!(w.form(at).dialled, Dialled::Failed(_)));
        let slot =
            if w.form(side).slots(false).contains(&FormSlot::Account) { FormSlot::Account } else { FormSlot::Address };
        if !there {
            w.slot = Slot::Form(side, slot);
        }
    }
    Vec::new()
}

fn precheck_if_needed(app: &mut App) -> Vec<Effect> {
    let Screen::Wizard(w) = &app.screen else { return Vec::new() };
    let same =
        w.precheck.of.as_deref() == Some(&w.job()) && !w.precheck.items.is_empty() && w.precheck.failure.is_none();
    if same { Vec::new() } else { precheck(app, None) }
}

/// Runs all items, or some of them, for the job as it is answered now.
pub fn precheck(app: &mut App, only: Option<Vec<CheckId>>) -> Vec<Effect> {
    let up = app.is_up();
    app.run += 1;
    let run = app.run;
    let Screen::Wizard(w) = &mut app.screen else { return Vec::new() };
    if !up {
        app.say(app.lang.t("engine.needed"), Tone::Warn);
        return Vec::new();
    }
    let old = Tag::Precheck { run: w.precheck.run };
    let was_running = w.precheck.running;
    let job = w.job();
    w.precheck.begin(run, only.as_deref());
    w.precheck.of = Some(Box::new(job.clone()));
    let mut effects = Vec::new();
    if was_running {
        effects.push(Effect::Cancel(old));
    }
    effects.push(Effect::send(Tag::Precheck { run }, Request::Precheck { job: Box::new(job), only }));
    effects
}

fn launch(app: &mut App) -> Vec<Effect> {
    let up = app.is_up();
    let Screen::Wizard(w) = &mut app.screen else { return Vec::new() };
    if w.overwrites() && w.confirm.value().trim() != w.name.value().trim() {
        w.slot = Slot::Confirm;
        app.say(app.lang.t("confirm.mistyped"), Tone::Warn);
        return Vec::new();
    }
    if !up {
        app.say(app.lang.t("engine.needed"), Tone::Warn);
        return Vec::new();
    }
    if w.purpose == Purpose::Reverse && !w.stopped {
        w.launching = Launching::Stopping;
        let name = w.name.value().trim().to_owned();
        return vec![Effect::send(Tag::Act { act: Act::Stop, job: name.clone() }, Request::Stop { name })];
    }
    write_file(w)
}

fn write_file(w: &mut Wizard) -> Vec<Effect> {
    w.launching = Launching::WritingFile;
    let job = w.job();
    vec![Effect::WriteJob { toml: file::to_toml(&job, w.write_secrets), name: job.name }]
}

/// The job that ran one way has ended, or could not be: it begins anew both ways. `None` where that was not asked for.
pub fn stopped(app: &mut App, job: &str, failure: Option<String>) -> Option<Vec<Effect>> {
    let w = app.wizard_mut().filter(|w| w.launching == Launching::Stopping && w.name.value().trim() == job)?;
    if let Some(why) = failure {
        w.launching = Launching::Failed(why);
        return Some(Vec::new());
    }
    w.stopped = true;
    Some(write_file(w))
}

/// The job file lies there: start.
pub fn file_written(app: &mut App) -> Vec<Effect> {
    let Screen::Wizard(w) = &mut app.screen else { return Vec::new() };
    if w.launching != Launching::WritingFile {
        return Vec::new();
    }
    w.launching = Launching::Starting;
    let job = w.job();
    vec![Effect::send(
        Tag::Start { job: job.name.clone() },
        Request::Start { job: Box::new(job), discard_previous: w.discard_previous },
    )]
}

pub fn file_failed(app: &mut App, text: String) {
    match &mut app.screen {
        Screen::Wizard(w) if w.launching == Launching::WritingFile => w.launching = Launching::Failed(text),
        _ => app.say(text, Tone::Bad),
    }
}
