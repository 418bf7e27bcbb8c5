//! `update(&mut App, Msg) -> Vec<Effect>`: all that the console decides. Pure: no I/O, no clock, no randomness.

mod dashboard;
mod engine;
mod jobs;
mod mouse;
mod overlay;
mod wizard;

use super::{
    app::{App, EngineState, Screen},
    effect::Effect,
    i18n::Lang,
    keymap::{self, Action},
    msg::{EngineMsg, FileMsg, Msg},
    overlay::{Overlay, palette::Palette},
    store::Stored,
    theme::{Theme, Tone},
};
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// Takes in what happened; says what is to be done.
pub fn update(app: &mut App, msg: Msg) -> Vec<Effect> {
    match msg {
        Msg::Key(key) => press(app, key),
        Msg::Paste(text) => {
            paste(app, &text);
            Vec::new()
        }
        Msg::Mouse(event) => mouse::mouse(app, event),
        Msg::Resize(columns, rows) => {
            app.size = (columns, rows);
            Vec::new()
        }
        Msg::Tick(now_ms) => {
            app.now_ms = now_ms;
            if app.toast.as_ref().is_some_and(|t| t.until_ms <= now_ms) {
                app.toast = None;
                app.interrupted = false;
            }
            Vec::new()
        }
        Msg::Engine(engine) => engine_changed(app, engine),
        Msg::Reply { tag, reply, .. } => engine::reply(app, tag, *reply),
        Msg::Lost { tag } => engine::lost(app, tag),
        Msg::File(file) => files(app, file),
    }
}

fn press(app: &mut App, key: KeyEvent) -> Vec<Effect> {
    if key.kind == KeyEventKind::Release {
        return Vec::new();
    }
    let (contexts, typing) = app.contexts();
    // On a slow line Esc and the key behind it arrive as one, which terminals write as they write Alt with that key. Alt
    // means nothing here but in a field, to move by words.
    let by_words = typing && matches!(key.code, KeyCode::Char('b' | 'd' | 'f'));
    if key.modifiers.contains(KeyModifiers::ALT) && matches!(key.code, KeyCode::Char(_)) && !by_words {
        let mut effects = press(app, KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
        effects.extend(press(app, KeyEvent { modifiers: key.modifiers.difference(KeyModifiers::ALT), ..key }));
        return effects;
    }
    let action = keymap::lookup(&contexts, &key, typing).map(|b| b.action);
    if action != Some(Action::Interrupt) && app.interrupted {
        app.interrupted = false;
        app.toast = None;
    }
    match action {
        // inside a field these move the text cursor
        Some(Action::Left | Action::Right | Action::Top | Action::Bottom) if typing => type_key(app, key),
        Some(action) => act(app, action),
        None if typing => type_key(app, key),
        None => Vec::new(),
    }
}

fn type_key(app: &mut App, key: KeyEvent) -> Vec<Effect> {
    with_field(app, |field| field.key(key));
    Vec::new()
}

fn paste(app: &mut App, text: &str) {
    with_field(app, |field| {
        let before = field.value().len();
        field.paste(text);
        field.value().len() != before
    });
}

/// Edits the field that has the focus, if one has; what hangs on its text follows.
fn with_field(app: &mut App, edit: impl FnOnce(&mut super::widget::field::Field) -> bool) {
    if let Some(overlay) = app.overlays.last_mut() {
        let Some(field) = overlay.field_mut() else { return };
        let before = field.value().to_owned();
        edit(field);
        let changed = field.value() != before;
        match overlay {
            Overlay::Palette(p) if changed => p.cursor = Default::default(),
            Overlay::Confirm(c) if changed => c.mistyped = false,
            Overlay::InstanceForm(f) if changed => f.form.fault = None,
            _ => {}
        }
        return;
    }
    match &mut app.screen {
        Screen::Jobs if app.jobs.filtering => {
            edit(&mut app.jobs.filter);
            app.jobs.cursor = Default::default();
        }
        Screen::Dashboard(d) if d.filtering => {
            edit(&mut d.filter);
            d.cursor = Default::default();
        }
        Screen::Wizard(w) => {
            let slot = w.slot;
            let Some(field) = w.field_mut() else { return };
            let before = field.value().to_owned();
            edit(field);
            let changed = field.value() != before;
            if changed {
                w.edited(slot);
            }
        }
        _ => {}
    }
}

/// Does what a key or a command of the palette means.
pub fn act(app: &mut App, action: Action) -> Vec<Effect> {
    if app.readonly && action.changes() {
        app.say(app.lang.t("readonly.refused"), Tone::Warn);
        return Vec::new();
    }
    match action {
        Action::Quit => return quit(app),
        Action::Interrupt if app.interrupted => return quit(app),
        Action::Interrupt => {
            app.say(app.lang.t("quit.again"), Tone::Warn);
            app.interrupted = true;
            return Vec::new();
        }
        Action::Suspend => return vec![Effect::Suspend],
        Action::Redraw => return vec![Effect::Redraw],
        Action::Help => {
            if !matches!(app.overlays.last(), Some(Overlay::Help { .. })) {
                app.overlays.push(Overlay::Help { scroll: 0 });
            }
            return Vec::new();
        }
        Action::Palette => {
            let contexts = super::overlay::help::below(app);
            app.overlays.retain(|o| !matches!(o, Overlay::Palette(_) | Overlay::Help { .. }));
            app.overlays.push(Overlay::Palette(Palette { contexts, readonly: app.readonly, ..Palette::default() }));
            return Vec::new();
        }
        Action::Language => {
            if app.ascii && app.lang == Lang::En {
                app.say(app.lang.t("ascii_only"), Tone::Warn);
                return Vec::new();
            }
            app.lang = app.lang.other();
            return vec![app.settings()];
        }
        Action::Theme => {
            app.theme = Theme::new(app.theme.name.next());
            app.say(app.lang.f("theme_now", &[("theme", &app.theme.name.as_str())]), Tone::Plain);
            return vec![app.settings()];
        }
        Action::Mouse => {
            app.mouse = !app.mouse;
            app.say(app.lang.t(if app.mouse { "mouse_on" } else { "mouse_off" }), Tone::Plain);
            return vec![Effect::Mouse(app.mouse)];
        }
        Action::StartEngine => {
            if app.is_up() {
                app.say(app.lang.t("engine.runs_already"), Tone::Plain);
                return Vec::new();
            }
            return vec![Effect::StartEngine];
        }
        _ => {}
    }
    if !app.overlays.is_empty() {
        return overlay::act(app, action);
    }
    match app.screen {
        Screen::Jobs => jobs::act(app, action),
        Screen::Wizard(_) => wizard::act(app, action),
        Screen::Dashboard(_) => dashboard::act(app, action),
    }
}

/// Leaves; what was answered in the wizard is kept.
fn quit(app: &mut App) -> Vec<Effect> {
    let mut effects = Vec::new();
    if let Screen::Wizard(w) = &app.screen
        && w.is_worth_keeping()
    {
        effects.push(Effect::SaveDraft(Box::new(w.draft())));
    }
    effects.push(Effect::Quit);
    effects
}

fn engine_changed(app: &mut App, msg: EngineMsg) -> Vec<Effect> {
    match msg {
        EngineMsg::Starting => {
            app.engine = EngineState::Starting;
            Vec::new()
        }
        EngineMsg::Up { pid, engine_version } => {
            let was = app.status.as_ref().map(|s| s.engine_pid);
            let gone = matches!(app.engine, EngineState::Down { .. });
            app.engine = EngineState::Up { pid, version: engine_version.clone() };
            match was {
                Some(old) if old != pid => app.say(app.lang.f("engine.restarted", &[("pid", &pid)]), Tone::Good),
                Some(_) if gone => app.say(app.lang.t("engine.back"), Tone::Good),
                _ => {}
            }
            let ours = env!("CARGO_PKG_VERSION");
            if engine_version != ours {
                let text = app.lang.f("engine.other_version", &[("engine", &engine_version), ("console", &ours)]);
                app.say(text, Tone::Warn);
            }
            engine::attach(app)
        }
        EngineMsg::Down { why } => {
            let since_ms = match &app.engine {
                EngineState::Down { since_ms, .. } => *since_ms,
                _ => app.now_ms,
            };
            app.engine = EngineState::Down { since_ms, why };
            Vec::new()
        }
        EngineMsg::Refused(failure) => {
            app.engine = EngineState::Refused(failure);
            Vec::new()
        }
    }
}

fn files(app: &mut App, msg: FileMsg) -> Vec<Effect> {
    match msg {
        FileMsg::Loaded(stored) => {
            loaded(app, *stored);
            Vec::new()
        }
        FileMsg::JobWritten { .. } => wizard::file_written(app),
        FileMsg::Exported { path } => {
            app.say(app.lang.f("events.exported", &[("path", &path)]), Tone::Good);
            Vec::new()
        }
        FileMsg::Saved => Vec::new(),
        FileMsg::Failed { job, text } => {
            if job {
                wizard::file_failed(app, text);
            } else {
                app.say(text, Tone::Bad);
            }
            Vec::new()
        }
    }
}

fn loaded(app: &mut App, stored: Stored) {
    if let Some(complaint) = stored.complaints.first() {
        app.say(complaint.clone(), Tone::Warn);
    }
    app.stored = stored;
}
