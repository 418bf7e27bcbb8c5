//! The terminal: taken over once, given back on every way out.
//!
//! Owns raw mode, the alternate screen, bracketed paste, the cursor and the mouse, and writes frames. Invariant: as
//! soon as the terminal was given back (end, panic on any thread, signal, suspension), no frame is written until it
//! is taken again. ratatui's own `Terminal` isn't used: its `clear` asks the terminal for the cursor and hangs where
//! none answers, and a draw without changes still writes bytes.

mod paint;

use super::{app::App, view::view};
use crossterm::{
    cursor, event, execute, queue,
    style::ResetColor,
    terminal::{self, ClearType},
};
use ratatui::{
    backend::{Backend, CrosstermBackend},
    buffer::Buffer,
    layout::{Position, Rect},
};
use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

/// Whether the terminal is ours now.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Whether some thread panicked: the screen must end, not go on drawing.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Why there is no console; [`TerminalError::remedy`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    #[error("the console needs a terminal, and this is none")]
    None,
    #[error("the terminal {0:?} (TERM) can't show a screen")]
    Dumb(String),
    #[error("the terminal did not take or give what was asked: {0}")]
    Io(#[from] io::Error),
    #[error("the console broke down; the engine and its jobs go on")]
    Panicked,
}

impl TerminalError {
    pub fn remedy(&self) -> &'static str {
        match self {
            TerminalError::None => "run `duplex` in one, or use a command: `duplex --help`",
            TerminalError::Dumb(_) => {
                "set TERM to what the terminal is (`export TERM=xterm-256color`), or use `duplex status`"
            }
            TerminalError::Io(_) => "try `reset`, or another terminal",
            TerminalError::Panicked => "please report the message above; `duplex` opens the console again",
        }
    }
}

/// What the environment says of the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// Nothing but ASCII can be shown.
    pub ascii: bool,
    /// `NO_COLOR` is set.
    pub mono: bool,
}

impl Abilities {
    /// Reads `TERM`, the locale and `NO_COLOR`; refuses `TERM=dumb`.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Abilities, TerminalError> {
        let term = get("TERM").unwrap_or_default();
        if term.is_empty() || term == "dumb" || term == "unknown" {
            return Err(TerminalError::Dumb(term));
        }
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| get(name).filter(|v| !v.is_empty()))
            .unwrap_or_default()
            .to_ascii_lowercase();
        let utf8 = locale.contains("utf-8") || locale.contains("utf8");
        let poor = term == "linux" || term.starts_with("vt1") || term.starts_with("vt2") || term == "ansi";
        Ok(Abilities { ascii: poor || !utf8, mono: get("NO_COLOR").is_some_and(|v| !v.is_empty()) })
    }
}

/// Holds the terminal; gives it back when dropped.
pub struct Guard {
    mouse: bool,
}

impl Guard {
    /// Takes the terminal over. A panic on any thread gives it back before its message is printed.
    pub fn take(mouse: bool) -> Result<Guard, TerminalError> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(TerminalError::None);
        }
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if give_back() {
                    PANICKED.store(true, Ordering::SeqCst);
                }
                next(info);
            }));
        });
        let guard = Guard { mouse };
        guard.enter()?;
        Ok(guard)
    }

    fn enter(&self) -> Result<(), TerminalError> {
        terminal::enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let mut out = io::stdout();
        execute!(out, terminal::EnterAlternateScreen, event::EnableBracketedPaste, cursor::Hide)?;
        if self.mouse {
            execute!(out, event::EnableMouseCapture)?;
        }
        Ok(())
    }

    /// Whether the terminal reports the mouse from now on.
    pub fn set_mouse(&mut self, on: bool) -> Result<(), TerminalError> {
        self.mouse = on;
        if on {
            execute!(io::stdout(), event::EnableMouseCapture)?;
        } else {
            execute!(io::stdout(), event::DisableMouseCapture)?;
        }
        Ok(())
    }

    /// Gives the terminal back, stops this process as the shell expects it, and takes the terminal again when the
    /// shell continues it. The whole screen has to be drawn after that.
    pub fn suspend(&mut self) -> Result<(), TerminalError> {
        give_back();
        // the signal that can't be handled: SIGTSTP has a handler of ours
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).map_err(io::Error::from)?;
        self.enter()
    }

    /// Takes the terminal again after somebody else stopped and continued this process.
    pub fn resume(&mut self) -> Result<(), TerminalError> {
        self.enter()
    }

    /// Whether the terminal was lost to a panic of some thread.
    pub fn is_broken(&self) -> bool {
        PANICKED.load(Ordering::SeqCst)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back as it was found; once. A terminal that is gone is no error: nobody could be told.
fn give_back() -> bool {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return false;
    }
    let mut out = io::stdout();
    let _ = execute!(
        out,
        event::DisableMouseCapture,
        event::DisableBracketedPaste,
        ResetColor,
        cursor::Show,
        terminal::LeaveAlternateScreen
    );
    let _ = terminal::disable_raw_mode();
    true
}

/// Writes frames: only the cells that changed, and nothing at all where none did.
pub struct Canvas<W: Write> {
    backend: CrosstermBackend<W>,
    drawn: Option<Buffer>,
    cursor: Option<Position>,
}

impl<W: Write> Canvas<W> {
    pub fn new(out: W) -> Canvas<W> {
        Canvas { backend: CrosstermBackend::new(out), drawn: None, cursor: None }
    }

    /// Forgets what is on the screen: the next frame is drawn in full.
    pub fn forget(&mut self) {
        self.drawn = None;
    }

    /// Draws the application at this size; whether anything was written.
    pub fn draw(&mut self, app: &App, columns: u16, rows: u16) -> io::Result<bool> {
        let area = Rect::new(0, 0, columns, rows);
        let mut next = Buffer::empty(area);
        let cursor = view(app, area, &mut next);
        let full = self.drawn.as_ref().is_none_or(|d| d.area != area);
        if full {
            queue!(self.backend, ResetColor, terminal::Clear(ClearType::All), cursor::Hide)?;
            self.cursor = None;
        }
        let before = match self.drawn.take() {
            Some(drawn) if !full => drawn,
            _ => Buffer::empty(area),
        };
        let changes = before.diff(&next);
        let changed = !changes.is_empty();
        if changed {
            if self.cursor.is_some() {
                queue!(self.backend, cursor::Hide)?;
            }
            paint::paint(&mut self.backend, &changes, &next)?;
        }
        let moved = cursor != self.cursor || (changed && cursor.is_some());
        if moved {
            match cursor {
                Some(at) => queue!(self.backend, cursor::MoveTo(at.x, at.y), cursor::Show)?,
                None if self.cursor.is_some() && !changed => queue!(self.backend, cursor::Hide)?,
                None => {}
            }
        }
        self.cursor = cursor;
        self.drawn = Some(next);
        let wrote = full || changed || moved;
        if wrote {
            Backend::flush(&mut self.backend)?;
        }
        Ok(wrote)
    }
}

/// Standard output, collected into one write a frame; silent while the terminal isn't ours.
pub struct Output {
    frame: Vec<u8>,
}

impl Output {
    pub fn new() -> Output {
        Output { frame: Vec::with_capacity(8 << 10) }
    }
}

impl Default for Output {
    fn default() -> Self {
        Output::new()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.frame.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let frame = std::mem::take(&mut self.frame);
        if !TAKEN.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(&frame)?;
        out.flush()?;
        self.frame = frame;
        self.frame.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::{i18n::Lang, theme::ThemeName};

    fn abilities(pairs: &'static [(&str, &str)]) -> Result<Abilities, TerminalError> {
        Abilities::from_environment(|n| pairs.iter().find(|(k, _)| *k == n).map(|(_, v)| v.to_string()))
    }

    #[test]
    fn the_environment_decides_what_can_be_shown() {
        assert!(matches!(abilities(&[("TERM", "dumb")]), Err(TerminalError::Dumb(_))));
        let fine = abilities(&[("TERM", "xterm-256color"), ("LANG", "zh_CN.UTF-8")]).expect("fine");
        assert_eq!(fine, Abilities { ascii: false, mono: false });
        assert!(abilities(&[("TERM", "xterm"), ("LANG", "C")]).expect("C").ascii);
        assert!(abilities(&[("TERM", "vt100"), ("LANG", "en_US.UTF-8")]).expect("vt100").ascii);
        assert!(abilities(&[("TERM", "xterm"), ("LANG", "C.UTF-8"), ("NO_COLOR", "1")]).expect("mono").mono);
    }

    #[test]
    fn nothing_is_written_while_nothing_changes() {
        let mut canvas = Canvas::new(Vec::new());
        let app = App::new(Lang::En, ThemeName::Auto);
        assert!(canvas.draw(&app, 80, 24).expect("drawn"));
        assert!(!canvas.draw(&app, 80, 24).expect("drawn"));
        assert!(!canvas.draw(&app, 80, 24).expect("drawn"));
        assert!(canvas.draw(&app, 81, 24).expect("drawn"), "a new size is drawn in full");
    }
}
