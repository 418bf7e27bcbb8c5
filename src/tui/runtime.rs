//! The loop: keys, signals, time and the engine's words go into `update`; what it wants is done here, and frames are
//! drawn when something changed.

mod engine;

use super::{
    app::App,
    effect::Effect,
    i18n::Lang,
    msg::{EngineMsg, FileMsg, Msg},
    store::{Settings, Store},
    terminal::{Abilities, Canvas, Guard, Output, TerminalError},
    theme::ThemeName,
    update::update,
};
use crate::control::client::{Client, ClientError};
use crossterm::event::{Event, EventStream, KeyEventKind};
use engine::{Heard, Requests};
use futures::StreamExt;
use std::{
    future::Future,
    io::{self, IsTerminal},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// Frames that the engine or the clock cause come at most this often: five a second.
const FRAME: Duration = Duration::from_millis(200);
/// A key is answered at once. Only one that follows within this time of the last frame waits for its end, so that a
/// pasted text or a key held down is not drawn letter by letter.
const KEY_FRAME: Duration = Duration::from_millis(5);
/// Ages and countdowns on the screen are in seconds.
const TICK: Duration = Duration::from_secs(1);
/// Messages that wait for the loop; beyond, the senders wait.
const QUEUE: usize = 1024;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Connects to the engine; called again after each loss.
pub type Connect = Arc<dyn Fn() -> Boxed<Result<Client, ClientError>> + Send + Sync>;

/// Starts an engine, detached from this terminal; returns when it answers, or with why it does not.
pub type StartEngine = Arc<dyn Fn() -> Boxed<Result<(), String>> + Send + Sync>;

/// What the command line decides for the console.
pub struct Options {
    pub connect: Connect,
    /// `None`: this console can't start an engine.
    pub start_engine: Option<StartEngine>,
    /// The folder of the inventory, the drafts and the job files.
    pub config: PathBuf,
    /// The folder of exports.
    pub state: PathBuf,
    pub readonly: bool,
    /// `None`: as it was left, else as the locale says.
    pub lang: Option<Lang>,
    pub theme: Option<ThemeName>,
    /// ASCII even where the terminal could more.
    pub ascii: bool,
    pub mouse: bool,
    /// Open the dashboard of this job.
    pub open: Option<String>,
    /// The engine lives in this process and ends with it: no word at parting that the sync goes on.
    pub ends_with_console: bool,
}

impl Options {
    /// For the engine that listens on `socket`.
    pub fn new(socket: PathBuf, config: PathBuf, state: PathBuf, readonly: bool) -> Options {
        Options {
            connect: Arc::new(move || {
                let socket = socket.clone();
                Box::pin(async move { Client::connect(&socket, readonly).await })
            }),
            start_engine: None,
            config,
            state,
            readonly,
            lang: None,
            theme: None,
            ascii: false,
            mouse: false,
            open: None,
            ends_with_console: false,
        }
    }
}

/// Runs the console until it is left. The terminal is as it was found when this returns, and the sync goes on.
pub async fn run(options: Options) -> Result<(), TerminalError> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(TerminalError::None);
    }
    let abilities = Abilities::from_environment(|name| std::env::var(name).ok())?;
    let store = Store { config: options.config.clone(), state: options.state.clone() };
    let stored = store.load();
    let mut app = first_app(&options, &abilities, &stored.settings);
    update(&mut app, Msg::Tick(now_ms()));
    update(&mut app, Msg::File(FileMsg::Loaded(Box::new(stored))));

    let mut guard = Guard::take(options.mouse)?;
    let result = drive(&mut app, &mut guard, &options, store).await;
    let broken = guard.is_broken();
    drop(guard);
    if broken {
        return Err(TerminalError::Panicked);
    }
    result?;
    if let Some(words) = parting(&app).filter(|_| !options.ends_with_console) {
        println!("{words}");
    }
    Ok(())
}

fn first_app(options: &Options, abilities: &Abilities, settings: &Settings) -> App {
    let ascii = options.ascii || abilities.ascii;
    let lang = options
        .lang
        .or_else(|| settings.lang.as_deref().and_then(Lang::parse))
        .unwrap_or_else(|| Lang::from_environment(|name| std::env::var(name).ok()));
    // where only ASCII can be shown, Chinese can't, unless it was asked for
    let lang = if abilities.ascii && options.lang.is_none() { Lang::En } else { lang };
    let theme = options.theme.or_else(|| settings.theme.as_deref().and_then(ThemeName::parse)).unwrap_or_default();
    let mut app = App::new(lang, if abilities.mono { ThemeName::Mono } else { theme });
    app.ascii = ascii;
    app.readonly = options.readonly;
    app.mouse = options.mouse;
    app.zone = jiff::tz::TimeZone::system();
    app.config = home_short(&options.config);
    app.open_first = options.open.clone();
    app
}

/// The path with `~` for the home folder.
fn home_short(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    match std::env::var("HOME") {
        Ok(home) if home.len() > 1 && text.starts_with(&home) => format!("~{}", &text[home.len()..]),
        _ => text,
    }
}

/// What is said on the terminal after leaving: the sync goes on.
fn parting(app: &App) -> Option<String> {
    let status = app.status.as_ref().filter(|_| app.is_up())?;
    let running = status
        .jobs
        .iter()
        .filter(|j| !matches!(j.state, crate::model::LinkState::Ended | crate::model::LinkState::NotConfigured))
        .count();
    Some(match running {
        0 => app.lang.f("quit.idle", &[("pid", &status.engine_pid)]),
        1 => app.lang.f("quit.goes_on_one", &[("pid", &status.engine_pid)]),
        n => app.lang.f("quit.goes_on", &[("n", &n), ("pid", &status.engine_pid)]),
    })
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    jiff::Timestamp::now().as_millisecond().max(0) as u64
}

/// Whether the loop goes on.
enum Next {
    Go,
    End,
}

struct Loop<'a> {
    guard: &'a mut Guard,
    canvas: Canvas<Output>,
    store: Store,
    requests: Requests,
}

async fn drive(app: &mut App, guard: &mut Guard, options: &Options, store: Store) -> Result<(), TerminalError> {
    let (heard, mut hearing) = mpsc::channel::<Heard>(QUEUE);
    let starter = options.start_engine.clone().filter(|_| !options.readonly);
    let requests = Requests::new(options.connect.clone(), starter, heard);
    let mut l = Loop { guard, canvas: Canvas::new(Output::new()), store, requests };
    let mut keys = EventStream::new();
    let mut ended = [signal(SignalKind::terminate())?, signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?];
    let [terminate, hangup, interrupt] = &mut ended;
    let mut stop = signal(SignalKind::from_raw(nix::libc::SIGTSTP))?;
    let mut go = signal(SignalKind::from_raw(nix::libc::SIGCONT))?;
    let mut dirty = true;
    let mut typed = true;
    let mut drawn = Instant::now() - TICK;
    let mut tick = Instant::now() + TICK;
    loop {
        if l.guard.is_broken() {
            return Ok(());
        }
        let due = drawn + if typed { KEY_FRAME } else { FRAME };
        if dirty && Instant::now() >= due {
            // fails where the terminal is gone: then there is nobody to draw for
            let (columns, rows) = crossterm::terminal::size()?;
            app.size = (columns, rows);
            if l.canvas.draw(app, columns, rows)? {
                drawn = Instant::now();
            }
            dirty = false;
            typed = false;
        }
        let wake = if dirty { due.min(tick) } else { tick };
        let msg = tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = stop.recv() => {
                l.suspend()?;
                (dirty, typed) = (true, true);
                continue;
            }
            _ = go.recv() => {
                l.guard.resume()?;
                l.canvas.forget();
                (dirty, typed) = (true, true);
                continue;
            }
            event = keys.next() => match event {
                // the terminal is gone
                None | Some(Err(_)) => return Ok(()),
                Some(Ok(event)) => {
                    typed = true;
                    update(app, Msg::Tick(now_ms()));
                    match event {
                        Event::Key(key) if key.kind != KeyEventKind::Release => Msg::Key(key),
                        Event::Paste(text) => Msg::Paste(text),
                        Event::Mouse(mouse) => Msg::Mouse(mouse),
                        Event::Resize(columns, rows) => Msg::Resize(columns, rows),
                        _ => continue,
                    }
                }
            },
            heard = hearing.recv() => match heard {
                Some(heard) => match l.requests.heard(heard) {
                    Some(msg) => msg,
                    None => continue,
                },
                None => return Ok(()),
            },
            () = sleep_until(wake) => {
                if Instant::now() < tick {
                    continue;
                }
                tick = Instant::now() + TICK;
                Msg::Tick(now_ms())
            }
        };
        dirty = true;
        for effect in update(app, msg) {
            match l.perform(app, effect)? {
                Next::Go => {}
                Next::End => return Ok(()),
            }
        }
    }
}

impl Loop<'_> {
    fn suspend(&mut self) -> Result<(), TerminalError> {
        self.guard.suspend()?;
        self.canvas.forget();
        Ok(())
    }

    fn perform(&mut self, app: &mut App, effect: Effect) -> Result<Next, TerminalError> {
        let saved = match effect {
            Effect::Quit => return Ok(Next::End),
            Effect::Suspend => {
                self.suspend()?;
                return Ok(Next::Go);
            }
            Effect::Redraw => {
                self.canvas.forget();
                return Ok(Next::Go);
            }
            Effect::Mouse(on) => {
                self.guard.set_mouse(on)?;
                return Ok(Next::Go);
            }
            Effect::Send { tag, request } => {
                self.requests.send(tag, *request);
                return Ok(Next::Go);
            }
            Effect::Cancel(tag) => {
                self.requests.cancel(&tag);
                return Ok(Next::Go);
            }
            Effect::StartEngine => {
                if !self.requests.start_engine() {
                    app.say(app.lang.t("engine.cannot_start"), super::theme::Tone::Warn);
                }
                return Ok(Next::Go);
            }
            Effect::SaveInventory(inventory) => self.store.save_inventory(&inventory).map(|()| FileMsg::Saved),
            Effect::SaveDraft(draft) => self.store.save_draft(&draft).map(|()| FileMsg::Saved),
            Effect::DeleteDraft(name) => self.store.delete_draft(&name).map(|()| FileMsg::Saved),
            Effect::SaveSettings { lang, theme } => {
                self.store.save_settings(&Settings { lang: Some(lang), theme: Some(theme) }).map(|()| FileMsg::Saved)
            }
            Effect::Export { name, lines } => {
                self.store.export(&name, &lines).map(|path| FileMsg::Exported { path: home_short(&path) })
            }
            Effect::WriteJob { name, toml } => {
                let written = self.store.write_job(&name, &toml);
                let msg = match written {
                    Ok(path) => FileMsg::JobWritten { path: path.display().to_string() },
                    Err(e) => FileMsg::Failed { job: true, text: e.to_string() },
                };
                return self.tell(app, msg);
            }
        };
        let msg = saved.unwrap_or_else(|e| FileMsg::Failed { job: false, text: e.to_string() });
        self.tell(app, msg)
    }

    /// What became of a file goes back into `update` at once.
    fn tell(&mut self, app: &mut App, msg: FileMsg) -> Result<Next, TerminalError> {
        for effect in update(app, Msg::File(msg)) {
            if let Next::End = self.perform(app, effect)? {
                return Ok(Next::End);
            }
        }
        Ok(Next::Go)
    }
}

/// Says that the engine is being started, or why it could not be.
fn down(why: String) -> Msg {
    Msg::Engine(EngineMsg::Down { why })
}
