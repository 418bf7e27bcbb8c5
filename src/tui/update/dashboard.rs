//! Keys on the dashboard and on what lies behind it.

use super::super::{
    app::{App, Screen},
    dashboard::{Dashboard, Pane, events},
    effect::Effect,
    keymap::Action,
    msg::{Tag, Wanted},
    overlay::{
        Overlay,
        confirm::{Confirm, Intent},
    },
    theme::Tone,
};
use crate::{
    control::protocol::Request,
    model::{LinkState, Severity},
};

/// Events that are asked for when a dashboard opens.
const RECENT: usize = 1_000;

/// Shows a job's dashboard and asks for what it needs.
pub fn open(app: &mut App, job: String) -> Vec<Effect> {
    let account = super::jobs::ask_account(app, &job);
    app.screen = Screen::Dashboard(Box::new(Dashboard::new(job)));
    let mut effects = ask(app);
    effects.extend(account.into_iter().flatten());
    effects
}

/// The requests of an open dashboard: events that are not known yet, the history.
pub fn ask(app: &App) -> Vec<Effect> {
    let Screen::Dashboard(d) = &app.screen else { return Vec::new() };
    if !app.is_up() {
        return Vec::new();
    }
    let name = d.job.clone();
    vec![
        Effect::send(
            Tag::Events,
            Request::Events { job: Some(name.clone()), after: d.last_seq, limit: RECENT, follow: true },
        ),
        Effect::send(Tag::History { job: name.clone() }, Request::History { name }),
    ]
}

/// Asks for the conflicts of the job on the screen.
pub fn ask_conflicts(name: &str) -> Effect {
    Effect::send(Tag::Conflicts { job: name.to_owned() }, Request::Conflicts { name: name.to_owned(), limit: 200 })
}

pub fn act(app: &mut App, action: Action) -> Vec<Effect> {
    let Screen::Dashboard(d) = &mut app.screen else { return Vec::new() };
    if d.filtering {
        match action {
            Action::Enter => d.filtering = false,
            Action::Back => {
                d.filtering = false;
                d.filter.set("");
            }
            _ => {}
        }
        return Vec::new();
    }
    let name = d.job.clone();
    let state = app.status.as_ref().and_then(|s| s.jobs.iter().find(|j| j.name == name)).map(|j| j.state);
    let rows = match d.pane {
        Pane::Events => d.shown_events().len(),
        Pane::Conflicts => d.conflicts.as_ref().map_or(0, |c| c.open.len() + c.settled.len()),
        Pane::Shards => app
            .status
            .iter()
            .flat_map(|s| &s.jobs)
            .find(|j| j.name == name)
            .map_or(0, |j| j.links.iter().map(|l| l.shards.len()).sum()),
        // beyond the end is held back when it is drawn
        Pane::Detail => 40,
        Pane::Main => 0,
    };
    let about_the_job =
        [Action::PauseResume, Action::Stop, Action::Verify, Action::Configure, Action::Precheck].contains(&action);
    if d.pane == Pane::Main && about_the_job {
        let Some(state) = state else {
            app.say(app.lang.f("dashboard.unknown_job", &[("name", &name)]), Tone::Warn);
            return Vec::new();
        };
        return with_job(app, action, name, state);
    }
    match (d.pane, action) {
        (_, Action::Up) => _ = d.cursor.step(-1, rows),
        (_, Action::Down) => _ = d.cursor.step(1, rows),
        (_, Action::PageUp) => _ = d.cursor.step(-10, rows),
        (_, Action::PageDown) => _ = d.cursor.step(10, rows),
        (_, Action::Top) => d.cursor.at = 0,
        (_, Action::Bottom) => _ = d.cursor.step(isize::MAX, rows),
        (Pane::Main, Action::Back) => {
            app.screen = Screen::Jobs;
            return vec![Effect::Cancel(Tag::Events)];
        }
        (_, Action::Back) => d.show(Pane::Main),
        (Pane::Main, Action::Enter) => d.show(Pane::Detail),
        (Pane::Main, Action::Shards) => d.show(Pane::Shards),
        (Pane::Main, Action::Events) => d.show(Pane::Events),
        (Pane::Main, Action::Conflicts) => {
            d.show(Pane::Conflicts);
            return vec![ask_conflicts(&name)];
        }
        (Pane::Conflicts, Action::RerunAll) => return vec![ask_conflicts(&name)],
        (Pane::Main, Action::Range) => d.range = d.range.next(),
        (Pane::Events, Action::Filter) => d.filtering = true,
        (Pane::Events, Action::Severity) => {
            d.severity = match d.severity {
                None => Some(Severity::Warning),
                Some(Severity::Warning) => Some(Severity::Error),
                Some(_) => None,
            };
            d.cursor = Default::default();
        }
        (Pane::Events, Action::Export) => {
            let lines = events::export(d);
            if lines.is_empty() {
                app.say(app.lang.t("events.none"), Tone::Plain);
                return Vec::new();
            }
            let stamp = jiff::Timestamp::from_millisecond(app.now_ms as i64)
                .map(|t| t.to_zoned(app.zone.clone()).strftime("%Y%m%d-%H%M%S").to_string())
                .unwrap_or_default();
            return vec![Effect::Export { name: format!("{name}-events-{stamp}"), lines }];
        }
        _ => {}
    }
    Vec::new()
}

/// What is done with the job itself.
fn with_job(app: &mut App, action: Action, name: String, state: LinkState) -> Vec<Effect> {
    match action {
        Action::PauseResume => return super::jobs::pause_or_resume(app, name, state),
        Action::Stop => super::jobs::stop(app, name, state),
        Action::Configure => {
            let one_way = app.job(&name).is_some_and(|j| !j.two_way);
            return super::jobs::configure(app, name, state, one_way);
        }
        // both dial the instances
        Action::Verify | Action::Precheck => {
            if let Some(effects) = super::jobs::ask_account(app, &name) {
                app.say(app.lang.t("ask.first"), Tone::Plain);
                return effects;
            }
            if action == Action::Precheck {
                return super::jobs::ask_job(name, Wanted::Precheck);
            }
            app.overlays.push(Overlay::Confirm(Confirm::new(Intent::Verify(name))));
        }
        _ => {}
    }
    Vec::new()
}
