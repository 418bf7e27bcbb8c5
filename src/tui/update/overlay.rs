//! Keys in dialogs.

use super::super::{
    app::{App, FormAt},
    effect::Effect,
    keymap::Action,
    msg::{Act, Tag, Wanted},
    overlay::{
        Overlay,
        confirm::{Confirm, Intent},
        instances::InstanceForm,
        pick::{self, Pick},
        verify::{Verify, VerifyState},
    },
    theme::Tone,
    widget::list::Cursor,
    wizard::{Form, FormSlot},
};
use crate::{control::protocol::Request, model::Direction};

pub fn act(app: &mut App, action: Action) -> Vec<Effect> {
    match app.overlays.last() {
        Some(Overlay::Help { .. }) => help(app, action),
        Some(Overlay::Palette(_)) => return palette(app, action),
        Some(Overlay::Pick(_)) => picked(app, action),
        Some(Overlay::Confirm(_)) => return confirm(app, action),
        Some(Overlay::Instances { .. }) => instances(app, action),
        Some(Overlay::InstanceForm(_)) => return instance_form(app, action),
        Some(Overlay::Verify(_)) => return verify(app, action),
        Some(Overlay::Account(_)) => return account(app, action),
        None => {}
    }
    Vec::new()
}

fn help(app: &mut App, action: Action) {
    let Some(Overlay::Help { scroll }) = app.overlays.last_mut() else { return };
    match action {
        Action::Up => *scroll = scroll.saturating_sub(1),
        // beyond the end is held back when it is drawn
        Action::Down => *scroll = scroll.saturating_add(1).min(200),
        Action::PageUp => *scroll = scroll.saturating_sub(10),
        Action::PageDown | Action::Toggle => *scroll = scroll.saturating_add(10).min(200),
        Action::Top => *scroll = 0,
        Action::Back | Action::Enter => _ = app.overlays.pop(),
        _ => {}
    }
}

fn palette(app: &mut App, action: Action) -> Vec<Effect> {
    let lang = app.lang;
    let Some(Overlay::Palette(p)) = app.overlays.last_mut() else { return Vec::new() };
    let rows = p.rows(lang);
    match action {
        Action::Up => _ = p.cursor.step(-1, rows.len()),
        Action::Down => _ = p.cursor.step(1, rows.len()),
        Action::PageUp => _ = p.cursor.step(-10, rows.len()),
        Action::PageDown => _ = p.cursor.step(10, rows.len()),
        Action::Back => _ = app.overlays.pop(),
        Action::Enter => {
            let chosen = p.cursor.of(rows.len()).map(|at| rows[at].action);
            app.overlays.pop();
            if let Some(action) = chosen {
                return super::act(app, action);
            }
        }
        _ => {}
    }
    Vec::new()
}

/// Opens the list of a choice, or goes to the next option of it.
pub fn open_pick(app: &mut App, form: FormAt, slot: FormSlot) {
    let at = app.form(form).map_or(0, |f| pick::present(app, f, slot));
    app.overlays.push(Overlay::Pick(Pick { form, slot, cursor: Cursor { at } }));
}

/// The option before or after the present one.
pub fn cycle(app: &mut App, form: FormAt, slot: FormSlot, by: isize) {
    let count = pick::options(app, slot).len();
    let Some(at) = app.form(form).map(|f| pick::present(app, f, slot)) else { return };
    if count > 0 {
        let next = (at as isize + by).rem_euclid(count as isize) as usize;
        pick::choose(app, form, slot, next);
    }
}

fn picked(app: &mut App, action: Action) {
    let Some(Overlay::Pick(p)) = app.overlays.last() else { return };
    let p = p.clone();
    let count = pick::options(app, p.slot).len();
    let Some(Overlay::Pick(live)) = app.overlays.last_mut() else { return };
    match action {
        Action::Up => _ = live.cursor.step(-1, count),
        Action::Down => _ = live.cursor.step(1, count),
        Action::Top => live.cursor.at = 0,
        Action::Bottom => _ = live.cursor.step(isize::MAX, count),
        Action::Back => _ = app.overlays.pop(),
        Action::Enter | Action::Toggle => {
            app.overlays.pop();
            if let Some(at) = p.cursor.of(count) {
                pick::choose(app, p.form, p.slot, at);
                super::wizard::after_pick(app, p.form, p.slot);
            }
        }
        _ => {}
    }
}

fn confirm(app: &mut App, action: Action) -> Vec<Effect> {
    let Some(Overlay::Confirm(c)) = app.overlays.last_mut() else { return Vec::new() };
    match action {
        Action::Back => _ = app.overlays.pop(),
        Action::Enter if !c.agreed() => c.mistyped = true,
        Action::Enter => {
            let intent = c.intent.clone();
            app.overlays.pop();
            return perform(app, intent);
        }
        _ => {}
    }
    Vec::new()
}

fn perform(app: &mut App, intent: Intent) -> Vec<Effect> {
    let send = |act: Act, name: String, request: Request| vec![Effect::send(Tag::Act { act, job: name }, request)];
    match intent {
        Intent::Pause(name) => send(Act::Pause, name.clone(), Request::Pause { name }),
        Intent::Resume(name) => send(Act::Resume, name.clone(), Request::Resume { name }),
        Intent::Stop(name) => send(Act::Stop, name.clone(), Request::Stop { name }),
        Intent::Forget(name) => send(Act::Forget, name.clone(), Request::Forget { name, abandon: false }),
        Intent::Abandon(name) => send(Act::Forget, name.clone(), Request::Forget { name, abandon: true }),
        Intent::Retry(name) => {
            app.say(app.lang.f("ask.resuming", &[("name", &name)]), Tone::Plain);
            vec![Effect::send(Tag::Retry { job: name.clone() }, Request::StartKnown { name })]
        }
        Intent::DeleteDraft(name) => {
            app.stored.drafts.retain(|d| d.name != name);
            vec![Effect::DeleteDraft(name)]
        }
        Intent::RemoveInstance(id) => {
            app.stored.inventory.instances.retain(|s| s.id != id);
            vec![Effect::SaveInventory(app.stored.inventory.clone())]
        }
        Intent::AddReverse(name) => super::jobs::ask_job(name, Wanted::Configure(Direction::Reverse)),
        Intent::Verify(name) => begin_verify(app, name, false),
        Intent::Repair(name) => begin_verify(app, name, true),
    }
}

fn begin_verify(app: &mut App, name: String, repair: bool) -> Vec<Effect> {
    app.overlays.retain(|o| !matches!(o, Overlay::Verify(_)));
    app.overlays.push(Overlay::Verify(Verify::new(name.clone(), repair)));
    vec![Effect::send(Tag::Verify { job: name.clone() }, Request::Verify { name, repair })]
}

fn verify(app: &mut App, action: Action) -> Vec<Effect> {
    let Some(Overlay::Verify(v)) = app.overlays.last_mut() else { return Vec::new() };
    let rows = match &v.state {
        VerifyState::Done(o) => o.examples.len(),
        _ => 0,
    };
    match action {
        Action::Up => _ = v.cursor.step(-1, rows),
        Action::Down => _ = v.cursor.step(1, rows),
        Action::Repair if v.differs() => {
            let name = v.job.clone();
            app.overlays.push(Overlay::Confirm(Confirm::new(Intent::Repair(name))));
        }
        Action::Back => {
            let running = matches!(v.state, VerifyState::Running { .. });
            let job = v.job.clone();
            app.overlays.pop();
            if running {
                app.say(app.lang.t("verify.cancelled"), Tone::Plain);
                return vec![Effect::Cancel(Tag::Verify { job })];
            }
        }
        _ => {}
    }
    Vec::new()
}

fn account(app: &mut App, action: Action) -> Vec<Effect> {
    let Some(Overlay::Account(ask)) = app.overlays.last_mut() else { return Vec::new() };
    match action {
        Action::Back => _ = app.overlays.pop(),
        Action::NextField | Action::Down => ask.step(true),
        Action::PreviousField | Action::Up => ask.step(false),
        Action::Reveal => ask.reveal = !ask.reveal,
        Action::Enter => {
            if let Some(job) = ask.answered() {
                let name = job.name.clone();
                app.overlays.pop();
                app.say(app.lang.f("ask.resuming", &[("name", &name)]), Tone::Plain);
                let request = Request::Start { job: Box::new(job), discard_previous: false };
                return vec![Effect::send(Tag::Start { job: name }, request)];
            }
        }
        _ => {}
    }
    Vec::new()
}

fn instances(app: &mut App, action: Action) {
    let len = app.stored.inventory.instances.len();
    let Some(Overlay::Instances { at }) = app.overlays.last_mut() else { return };
    let chosen = at.of(len).map(|i| app.stored.inventory.instances[i].clone());
    match (action, chosen) {
        (Action::Up, _) => _ = at.step(-1, len),
        (Action::Down, _) => _ = at.step(1, len),
        (Action::Back, _) => _ = app.overlays.pop(),
        (Action::Add, _) | (Action::Enter, None) => {
            app.overlays.push(Overlay::InstanceForm(Box::new(InstanceForm::new(Form::default(), None))));
        }
        (Action::Enter, Some(saved)) => {
            let form = InstanceForm::new(Form::from_saved(&saved), Some(saved.id.clone()));
            app.overlays.push(Overlay::InstanceForm(Box::new(form)));
        }
        (Action::Delete, Some(saved)) => {
            app.overlays.push(Overlay::Confirm(Confirm::new(Intent::RemoveInstance(saved.id.clone()))));
        }
        _ => {}
    }
}

fn instance_form(app: &mut App, action: Action) -> Vec<Effect> {
    let Some(Overlay::InstanceForm(f)) = app.overlays.last_mut() else { return Vec::new() };
    let choice = f.slot.filter(|s| s.is_choice());
    match (action, choice) {
        (Action::Back, _) => _ = app.overlays.pop(),
        (Action::NextField | Action::Down, _) => f.step(true),
        (Action::PreviousField | Action::Up, _) => f.step(false),
        (Action::Enter | Action::Toggle, Some(slot)) => open_pick(app, FormAt::Inventory, slot),
        (Action::Left, Some(slot)) => cycle(app, FormAt::Inventory, slot, -1),
        (Action::Right, Some(slot)) => cycle(app, FormAt::Inventory, slot, 1),
        (Action::Enter, None) if f.form.slots(true).last().copied() != f.slot => f.step(true),
        (Action::Enter | Action::Continue, _) => return save_instance(app),
        _ => {}
    }
    Vec::new()
}

fn save_instance(app: &mut App) -> Vec<Effect> {
    let Some(Overlay::InstanceForm(f)) = app.overlays.last_mut() else { return Vec::new() };
    let mut saved = f.form.to_saved();
    let fault = if saved.id.is_empty() {
        Some((FormSlot::Id, "fault.id_missing"))
    } else if app.stored.inventory.instances.iter().any(|s| s.id == saved.id && f.was.as_ref() != Some(&s.id)) {
        Some((FormSlot::Id, "fault.id_taken"))
    } else {
        f.form.check()
    };
    if let Some((slot, key)) = fault {
        f.form.fault = Some((slot, key));
        f.slot = Some(slot);
        return Vec::new();
    }
    saved.address = f.form.addresses().join(", ");
    let was = f.was.clone();
    app.overlays.pop();
    let list = &mut app.stored.inventory.instances;
    match was.and_then(|was| list.iter().position(|s| s.id == was)) {
        Some(at) => list[at] = saved,
        None => list.push(saved),
    }
    list.sort_by(|a, b| a.id.cmp(&b.id));
    app.say(app.lang.t("instances.saved"), Tone::Good);
    vec![Effect::SaveInventory(app.stored.inventory.clone())]
}
