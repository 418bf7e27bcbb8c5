//! What the engine answers.

use super::super::{
    app::{App, Screen},
    dashboard::Conflicts,
    effect::Effect,
    i18n::Lang,
    msg::{Act, Tag, Wanted},
    overlay::{Overlay, account::AskAccount, verify::VerifyState},
    spoken,
    theme::Tone,
    wizard::{Dialled, Launching, Purpose, Step, Wizard},
};
use crate::{
    control::protocol::{Failure, FailureKind, Reply, Request},
    model::{CheckReport, Direction, ExistingKeys, Job, LinkState, Side},
};

/// How often the status comes at most, in milliseconds. Numbers that change faster can't be read.
const WATCH_EVERY_MS: u64 = 1_000;

/// What is asked as soon as an engine is there.
pub fn attach(app: &mut App) -> Vec<Effect> {
    let mut effects = vec![Effect::send(Tag::Watch, Request::Watch { job: None, every_ms: WATCH_EVERY_MS })];
    effects.extend(super::dashboard::ask(app));
    effects
}

fn words(error: &Failure, lang: Lang) -> String {
    let message = spoken::sentence(&error.message, lang);
    if error.remedy.is_empty() {
        message
    } else {
        let stop = if lang == Lang::En { "; " } else { "；" };
        format!("{}{stop}{}", message.trim_end_matches('.'), spoken::sentence(&error.remedy, lang))
    }
}

pub fn reply(app: &mut App, tag: Tag, reply: Reply) -> Vec<Effect> {
    match (tag, reply) {
        (Tag::Watch, Reply::Status { status }) => {
            for job in &status.jobs {
                if let Screen::Dashboard(d) = &mut app.screen
                    && d.job == job.name
                {
                    d.take_status(job, app.now_ms);
                }
            }
            app.status = Some(status);
            if let Some(effects) = is_on_its_way(app) {
                return effects;
            }
            if let Some(name) = app.open_first.take_if(|_| true)
                && app.job(&name).is_some()
            {
                return super::dashboard::open(app, name);
            }
        }
        (Tag::Events, Reply::Event { event }) => {
            if let Some(d) = app.dashboard_mut()
                && event.job == d.job
            {
                d.take_event(event);
            }
        }
        (Tag::History { job }, Reply::History { links }) => {
            if let Some(d) = app.dashboard_mut().filter(|d| d.job == job) {
                d.take_history(links);
            }
        }
        (Tag::Conflicts { job }, Reply::Conflicts { open, settled, hottest }) => {
            if let Some(d) = app.dashboard_mut().filter(|d| d.job == job) {
                d.conflicts = Some(Conflicts { open, settled, hottest });
            }
        }
        (Tag::Probe { side, run }, reply) => return probed(app, side, run, reply),
        (Tag::Precheck { run }, reply) => prechecked(app, run, reply),
        (Tag::Start { job }, reply) => return started(app, job, reply),
        (Tag::Retry { job }, reply) => return retried(app, job, reply),
        (Tag::Act { act: Act::Stop, job }, Reply::Error { error }) => {
            let why = words(&error, app.lang);
            if super::wizard::stopped(app, &job, Some(why.clone())).is_none() {
                app.say(why, Tone::Bad);
            }
        }
        (Tag::Act { act, job }, Reply::Done) => return done(app, act, job),
        (Tag::Verify { job }, reply) => verified(app, &job, reply),
        (Tag::JobFile { job, wanted }, Reply::Job { job: file }) => return job_file(app, job, wanted, *file),
        (_, Reply::Error { error }) => app.say(words(&error, app.lang), Tone::Bad),
        _ => {}
    }
    Vec::new()
}

/// Shows the dashboard as soon as the job that is being started initializes: the answer to the request comes only
/// when both links stand, and there is something to see before.
fn is_on_its_way(app: &mut App) -> Option<Vec<Effect>> {
    let name = match &app.screen {
        Screen::Wizard(w) if w.launching == Launching::Starting => w.job().name,
        _ => return None,
    };
    let Screen::Wizard(w) = &app.screen else { return None };
    let job = app.job(&name)?;
    // a status from before the job was stopped to begin anew both ways
    if job.two_way != w.two_way {
        return None;
    }
    let begun = matches!(job.state, LinkState::Initializing | LinkState::CatchingUp | LinkState::Synchronizing);
    begun.then(|| {
        app.stored.drafts.retain(|d| d.name != name);
        let mut effects = vec![Effect::DeleteDraft(name.clone())];
        effects.extend(super::dashboard::open(app, name));
        effects
    })
}

fn probed(app: &mut App, side: Side, run: u32, reply: Reply) -> Vec<Effect> {
    let Some(w) = app.wizard_mut().filter(|w| w.run == run) else { return Vec::new() };
    let form = &mut w.sides[side.index()];
    if form.dialled != Dialled::Now {
        return Vec::new();
    }
    form.dialled = match reply {
        Reply::Probed { probe } => Dialled::Found(Box::new(probe)),
        Reply::Error { error } => Dialled::Failed(error),
        _ => return Vec::new(),
    };
    super::wizard::dialled(app)
}

fn prechecked(app: &mut App, run: u32, reply: Reply) {
    let lang = app.lang;
    let Some(pane) = app.wizard_mut().map(|w| &mut w.precheck).filter(|p| p.run == run) else { return };
    match reply {
        Reply::Check { check } => pane.take(check),
        Reply::Report { report } => pane.finish(report),
        Reply::Error { error } => {
            pane.running = false;
            pane.failure = Some(words(&error, lang));
        }
        _ => {}
    }
}

fn started(app: &mut App, name: String, reply: Reply) -> Vec<Effect> {
    let lang = app.lang;
    match reply {
        Reply::Started { .. } => {
            app.stored.drafts.retain(|d| d.name != name);
            let mut effects = vec![Effect::DeleteDraft(name.clone())];
            let here = matches!(&app.screen, Screen::Wizard(w) if w.launching == Launching::Starting);
            app.say(app.lang.f("launch.started", &[("name", &name)]), Tone::Good);
            if here {
                effects.extend(super::dashboard::open(app, name));
            }
            return effects;
        }
        Reply::Report { report } if !report.passed => failed_precheck(app, report),
        Reply::Error { error } if error.kind == FailureKind::Precheck => {
            // the report came before and says it better
            if let Some(w) = app.wizard_mut().filter(|w| w.launching == Launching::Starting) {
                w.launching = Launching::Failed(words(&error, lang));
            }
        }
        Reply::Error { error } => match app.wizard_mut() {
            Some(w) if w.launching == Launching::Starting => w.launching = Launching::Failed(words(&error, lang)),
            _ => app.say(words(&error, app.lang), Tone::Bad),
        },
        _ => {}
    }
    Vec::new()
}

/// The answer to the start of a job that had failed. Where the precheck refuses it, its items are shown.
fn retried(app: &mut App, name: String, reply: Reply) -> Vec<Effect> {
    match reply {
        Reply::Started { .. } => app.say(app.lang.f("launch.started", &[("name", &name)]), Tone::Good),
        Reply::Report { report } if !report.passed => {
            app.say(app.lang.f("launch.retry_failed", &[("name", &name)]), Tone::Bad);
            let here = match &app.screen {
                Screen::Jobs => app.selected_entry().is_some_and(|e| e.name() == name),
                Screen::Dashboard(d) => d.job == name,
                Screen::Wizard(_) => false,
            };
            if here && app.overlays.is_empty() {
                return super::jobs::ask_job(name, Wanted::Precheck);
            }
        }
        // the report came before and says it better
        Reply::Error { error } if error.kind == FailureKind::Precheck => {}
        Reply::Error { error } => app.say(words(&error, app.lang), Tone::Bad),
        _ => {}
    }
    Vec::new()
}

fn failed_precheck(app: &mut App, report: CheckReport) {
    let Some(w) = app.wizard_mut() else { return };
    if w.launching == Launching::Starting {
        w.launching = Launching::No;
        w.precheck.moved = false;
        w.precheck.finish(report);
        w.show(Step::Precheck);
        let key = if w.stopped { "launch.precheck_failed_stopped" } else { "launch.precheck_failed" };
        app.say(app.lang.t(key), Tone::Bad);
    }
}

fn done(app: &mut App, act: Act, job: String) -> Vec<Effect> {
    if act == Act::Stop
        && let Some(effects) = super::wizard::stopped(app, &job, None)
    {
        return effects;
    }
    let key = match act {
        Act::Pause => "done.paused",
        Act::Resume => "done.resumed",
        Act::Stop => "done.stopped",
        Act::Forget => "done.forgotten",
    };
    app.say(app.lang.f(key, &[("name", &job)]), Tone::Good);
    if act == Act::Forget && matches!(&app.screen, Screen::Dashboard(d) if d.job == job) {
        app.screen = Screen::Jobs;
        return vec![Effect::Cancel(Tag::Events)];
    }
    Vec::new()
}

fn verified(app: &mut App, job: &str, reply: Reply) {
    let overlay = app.overlays.iter_mut().find_map(|o| match o {
        Overlay::Verify(v) if v.job == job => Some(v),
        _ => None,
    });
    let Some(v) = overlay else { return };
    v.state = match reply {
        Reply::Progress { text, done, total } => VerifyState::Running { text, done, total },
        Reply::Verified { outcome } => VerifyState::Done(Box::new(outcome)),
        Reply::Error { error } => VerifyState::Failed(words(&error, app.lang)),
        _ => return,
    };
}

fn job_file(app: &mut App, name: String, wanted: Wanted, job: Job) -> Vec<Effect> {
    let lacks_account = super::jobs::lacks_account(app, &name);
    let failed = app.job(&name).is_some_and(|j| j.state == LinkState::Failed);
    if wanted == Wanted::Account {
        if let Some(ask) = AskAccount::of(job).filter(|_| app.overlays.is_empty()) {
            app.overlays.push(Overlay::Account(Box::new(ask)));
        }
        return Vec::new();
    }
    // the answer may come after the operator went elsewhere
    if matches!(app.screen, Screen::Wizard(_)) {
        return Vec::new();
    }
    match wanted {
        Wanted::Copy => {
            let name = super::jobs::free_name(app);
            app.screen = Screen::Wizard(Box::new(Wizard::from_job(&job, name)));
        }
        Wanted::Configure(direction) => {
            let mut wizard = Wizard::of_known(&job, name);
            if lacks_account {
                wizard.holds_nothing_unkept();
            }
            wizard.may_discard = failed;
            if direction == Direction::Reverse {
                wizard.purpose = Purpose::Reverse;
                wizard.two_way = true;
                // the target holds what the forward link has brought: what only it has comes to the source as well
                wizard.existing = ExistingKeys::Merge;
            }
            wizard.slot = wizard.first_open();
            app.screen = Screen::Wizard(Box::new(wizard));
        }
        Wanted::Precheck => {
            let mut wizard = Wizard::of_known(&job, name);
            wizard.purpose = Purpose::Look;
            let mut effects = vec![Effect::Cancel(Tag::Events)];
            wizard.show(Step::Precheck);
            app.screen = Screen::Wizard(Box::new(wizard));
            effects.extend(super::wizard::precheck(app, None));
            return effects;
        }
        Wanted::Account => {}
    }
    Vec::new()
}

/// The connection ended before a request was answered in full.
pub fn lost(app: &mut App, tag: Tag) -> Vec<Effect> {
    let text = app.lang.t("engine.lost").to_owned();
    let failure = || Failure { kind: FailureKind::Failed, message: text.clone(), remedy: String::new() };
    match tag {
        Tag::Probe { side, run } => return probed(app, side, run, Reply::Error { error: failure() }),
        Tag::Precheck { run } => prechecked(app, run, Reply::Error { error: failure() }),
        Tag::Start { job } => return started(app, job, Reply::Error { error: failure() }),
        Tag::Retry { job } => return retried(app, job, Reply::Error { error: failure() }),
        Tag::Verify { job } => verified(app, &job, Reply::Error { error: failure() }),
        Tag::Act { act: Act::Stop, job } if super::wizard::stopped(app, &job, Some(text.clone())).is_some() => {}
        Tag::Act { .. } | Tag::JobFile { .. } => app.say(text, Tone::Bad),
        Tag::Watch | Tag::Events | Tag::History { .. } | Tag::Conflicts { .. } => {}
    }
    Vec::new()
}
