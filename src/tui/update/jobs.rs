//! Keys on the list of jobs.

use super::super::{
    app::{App, Screen},
    effect::Effect,
    jobs::Entry,
    keymap::Action,
    msg::{Tag, Wanted},
    overlay::{
        Overlay,
        confirm::{Confirm, Intent},
    },
    theme::Tone,
    wizard::{Wizard, propose_name},
};
use crate::{
    control::protocol::Request,
    model::{Direction, LinkState},
};

/// The rule of the alert that an account is kept nowhere and was lost with the engine's process.
const ACCOUNT_MISSING: &str = "account_missing";

pub fn act(app: &mut App, action: Action) -> Vec<Effect> {
    if app.jobs.filtering {
        match action {
            Action::Enter => app.jobs.filtering = false,
            Action::Back => {
                app.jobs.filtering = false;
                app.jobs.filter.set("");
            }
            _ => {}
        }
        return Vec::new();
    }
    let len = app.entries().len();
    match action {
        Action::Up => _ = app.jobs.cursor.step(-1, len),
        Action::Down => _ = app.jobs.cursor.step(1, len),
        Action::PageUp => _ = app.jobs.cursor.step(-8, len),
        Action::PageDown => _ = app.jobs.cursor.step(8, len),
        Action::Top => app.jobs.cursor.at = 0,
        Action::Bottom => _ = app.jobs.cursor.step(isize::MAX, len),
        // in an empty list there is nothing to look for
        Action::Filter if len > 0 || !app.jobs.filter.is_empty() => app.jobs.filtering = true,
        Action::Back => app.jobs.filter.set(""),
        Action::Instances => app.overlays.push(Overlay::Instances { at: Default::default() }),
        Action::NewJob => new_job(app),
        // an empty list leads to the wizard
        Action::Open | Action::Enter if len == 0 && app.jobs.filter.is_empty() => {
            if app.readonly {
                app.say(app.lang.t("readonly.refused"), Tone::Warn);
            } else if app.is_up() || app.status.is_some() {
                new_job(app);
            }
        }
        _ => return with_entry(app, action),
    }
    Vec::new()
}

fn new_job(app: &mut App) {
    let name = free_name(app);
    app.screen = Screen::Wizard(Box::new(Wizard::new(name)));
}

/// A name that neither a job nor a draft has.
pub fn free_name(app: &App) -> String {
    propose_name(app.now_ms, &app.zone, |name| {
        app.job(name).is_some() || app.stored.drafts.iter().any(|d| d.name == name)
    })
}

fn with_entry(app: &mut App, action: Action) -> Vec<Effect> {
    enum Chosen {
        Known { name: String, state: LinkState, one_way: bool },
        Draft(Box<crate::tui::store::Draft>),
    }
    let chosen = match app.selected_entry() {
        None => {
            let about_a_job = [
                Action::Open,
                Action::Enter,
                Action::Configure,
                Action::PauseResume,
                Action::Stop,
                Action::CopyJob,
                Action::Delete,
                Action::Filter,
            ];
            if about_a_job.contains(&action) {
                let key = if app.jobs.filter.is_empty() { "jobs.nothing_here" } else { "jobs.no_match" };
                app.say(app.lang.t(key), Tone::Plain);
            }
            return Vec::new();
        }
        Some(Entry::Known(job)) => Chosen::Known { name: job.name.clone(), state: job.state, one_way: !job.two_way },
        Some(Entry::Draft(draft)) => Chosen::Draft(Box::new(draft.clone())),
    };
    match (action, chosen) {
        (Action::Open | Action::Enter, Chosen::Known { name, .. }) => return super::dashboard::open(app, name),
        (Action::Open | Action::Enter | Action::Configure, Chosen::Draft(draft)) => {
            if app.readonly {
                app.say(app.lang.t("readonly.refused"), Tone::Warn);
            } else {
                app.screen = Screen::Wizard(Box::new(Wizard::resume(&draft)));
            }
        }
        (Action::Configure, Chosen::Known { name, one_way, state }) => {
            return configure(app, name, state, one_way);
        }
        (Action::CopyJob, Chosen::Known { name, .. }) => return ask_job(name, Wanted::Copy),
        (Action::CopyJob, Chosen::Draft(draft)) => {
            let mut wizard = Wizard::resume(&draft);
            wizard.name.set(free_name(app));
            wizard.saved_as = None;
            app.screen = Screen::Wizard(Box::new(wizard));
        }
        (Action::PauseResume, Chosen::Known { name, state, .. }) => return pause_or_resume(app, name, state),
        (Action::Stop, Chosen::Known { name, state, .. }) => stop(app, name, state),
        (Action::Delete, Chosen::Known { name, state, .. }) => {
            let intent = match state {
                LinkState::Ended | LinkState::PrecheckFailed | LinkState::NotConfigured => Intent::Forget(name),
                LinkState::Failed => Intent::Abandon(name),
                _ => {
                    app.say(app.lang.t("jobs.stop_first"), Tone::Warn);
                    return Vec::new();
                }
            };
            app.overlays.push(Overlay::Confirm(Confirm::new(intent)));
        }
        (Action::Delete, Chosen::Draft(draft)) => {
            app.overlays.push(Overlay::Confirm(Confirm::new(Intent::DeleteDraft(draft.name.clone()))));
        }
        (Action::PauseResume | Action::Stop, Chosen::Draft(_)) => app.say(app.lang.t("jobs.is_draft"), Tone::Plain),
        _ => {}
    }
    Vec::new()
}

/// The wizard for a job that is known: all of it where the job does not run, the reverse link where that is missing.
pub fn configure(app: &mut App, name: String, state: LinkState, one_way: bool) -> Vec<Effect> {
    let runs =
        !matches!(state, LinkState::PrecheckFailed | LinkState::Failed | LinkState::Ended | LinkState::NotConfigured);
    match (runs, one_way) {
        (false, _) => return ask_job(name, Wanted::Configure(Direction::Forward)),
        (true, true) => app.overlays.push(Overlay::Confirm(Confirm::new(Intent::AddReverse(name)))),
        (true, false) => app.say(app.lang.t("jobs.both_configured"), Tone::Plain),
    }
    Vec::new()
}

/// Asks for the accounts of a job that are kept nowhere; `None` where it lacks none.
pub fn ask_account(app: &App, name: &str) -> Option<Vec<Effect>> {
    (lacks_account(app, name) && !app.readonly).then(|| ask_job(name.to_owned(), Wanted::Account))
}

/// Whether an account of the job was kept nowhere and is lost.
pub fn lacks_account(app: &App, name: &str) -> bool {
    app.job(name).is_some_and(|job| job.alerts.iter().any(|a| a.rule == ACCOUNT_MISSING))
}

pub fn ask_job(name: String, wanted: Wanted) -> Vec<Effect> {
    vec![Effect::send(Tag::JobFile { job: name.clone(), wanted }, Request::JobFile { name })]
}

/// Asks before a job is paused or resumed, as its state has it.
pub fn pause_or_resume(app: &mut App, name: String, state: LinkState) -> Vec<Effect> {
    if let Some(effects) = ask_account(app, &name) {
        app.say(app.lang.t("ask.first"), Tone::Plain);
        return effects;
    }
    let intent = match state {
        LinkState::Ended => {
            app.say(app.lang.t("jobs.has_ended"), Tone::Plain);
            return Vec::new();
        }
        LinkState::NotConfigured | LinkState::Failed | LinkState::PrecheckFailed => Intent::Retry(name),
        LinkState::Paused => Intent::Resume(name),
        _ => Intent::Pause(name),
    };
    app.overlays.push(Overlay::Confirm(Confirm::new(intent)));
    Vec::new()
}

pub fn stop(app: &mut App, name: String, state: LinkState) {
    if state == LinkState::Ended {
        app.say(app.lang.t("jobs.has_ended"), Tone::Plain);
    } else {
        app.overlays.push(Overlay::Confirm(Confirm::new(Intent::Stop(name))));
    }
}
